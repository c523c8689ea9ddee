"""DenseNet-121 in its CIFAR form (Huang et al. 2017): a network to evaluate with.

Shapes: N images, C channels, H, W.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier
from dream_ray.nets.options import check_count

BLOCKS = (6, 12, 24, 16)
COMPRESSION = 0.5
BOTTLENECK = 4  # channels of a layer's 1x1 convolution, in multiples of its growth


def densenet121(*, num_classes: int, shape_CHW: tuple[int, int, int], growth: int = 32) -> Classifier:
    """Build DenseNet-121 with a 3x3 stem that keeps the images' size; layers start from PyTorch's defaults.

    At 10 classes of 32 px it has 6.96 million parameters, or 1.00 million with growth 12, the form of IDC's and
    DREAM's tables on CIFAR-10.

    Args:
        num_classes: K, number of logits.
        shape_CHW: shape of one image.
        growth: channels that each layer appends; the stem has twice as many.

    Raises:
        UsageError: the option is out of range, or the images are too small for the three poolings by 2.
    """
    check_count("network.growth", growth)
    in_channels, *sides = shape_CHW
    smallest = 2 ** (len(BLOCKS) - 1)
    if min(sides) < smallest:
        raise UsageError(f"images must be at least {smallest} px for densenet121; got {min(sides)} px")
    channels = 2 * growth
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
    )
    for block, num_layers in enumerate(BLOCKS, start=1):
        dense = [DenseLayer(channels + layer * growth, growth) for layer in range(num_layers)]
        layers[f"block{block}"] = nn.Sequential(*dense)
        channels += num_layers * growth
        if block < len(BLOCKS):
            compressed = int(channels * COMPRESSION)
            layers[f"transition{block}"] = nn.Sequential(
                *_norm_relu_conv(channels, compressed, kernel_size=1), nn.AvgPool2d(2)
            )
            channels = compressed
    layers["norm"] = nn.BatchNorm2d(channels)
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    return Classifier(nn.Sequential(layers), nn.Linear(channels, num_classes))


class DenseLayer(nn.Module):
    """A bottleneck layer that appends `growth` channels to its input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_norm_relu_conv(in_channels, BOTTLENECK * growth, kernel_size=1),
            *_norm_relu_conv(BOTTLENECK * growth, growth, kernel_size=3),
        )

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, in_channels + growth, H, W)."""
        return torch.cat([maps_NCHW, self.layers(maps_NCHW)], dim=1)


def _norm_relu_conv(in_channels: int, out_channels: int, *, kernel_size: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    return nn.BatchNorm2d(in_channels), nn.ReLU(), convolution
