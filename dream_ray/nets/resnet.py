"""ResNet-10, -18 and -50 (He et al. 2016) and ResNetAP-10, the variant of IDC and DREAM for ImageNet.

ResNetAP replaces strides by average pooling after convolutions of stride 1, so that every pixel receives a gradient.
Shapes: N images, C channels, H, W.
"""

from collections import OrderedDict
from typing import ClassVar

from torch import Tensor, nn

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier
from dream_ray.nets.options import Norm, channels_at_width, norm_named

# Up to SMALL_SIDE px the stem keeps the images' size; ResNetAP has one stem up to MEDIUM_SIDE px and one above.
SMALL_SIDE = 64
MEDIUM_SIDE = 128


def resnet10(
    *, num_classes: int, shape_CHW: tuple[int, int, int], width: float = 1.0, norm: str = "batch"
) -> Classifier:
    """Build a ResNet with one basic block a stage; arguments and errors as in `resnet18`."""
    return _resnet(num_classes, shape_CHW, width, norm, BasicBlock, (1, 1, 1, 1))


def resnet18(
    *, num_classes: int, shape_CHW: tuple[int, int, int], width: float = 1.0, norm: str = "batch"
) -> Classifier:
    """Build a ResNet with two basic blocks a stage.

    Above 64 px this is torchvision's network; up to 64 px its stem is a 3x3 convolution of stride 1.

    Args:
        num_classes: K, number of logits.
        shape_CHW: shape of one image; its shorter side decides the stem.
        width: multiple of 64 channels in the first stage; every later stage doubles them.
        norm: one of `options.NORMS`.

    Raises:
        UsageError: an option is out of range, or the images are too small for the norm.
    """
    return _resnet(num_classes, shape_CHW, width, norm, BasicBlock, (2, 2, 2, 2))


def resnet50(
    *, num_classes: int, shape_CHW: tuple[int, int, int], width: float = 1.0, norm: str = "batch"
) -> Classifier:
    """Build a ResNet with 3, 4, 6 and 3 bottleneck blocks; arguments and errors as in `resnet18`."""
    return _resnet(num_classes, shape_CHW, width, norm, Bottleneck, (3, 4, 6, 3))


def resnetap10(
    *, num_classes: int, shape_CHW: tuple[int, int, int], width: float = 1.0, norm: str = "instance"
) -> Classifier:
    """Build IDC's ResNetAP-10: `resnet10` with average pooling for strides; arguments and errors as in `resnet18`.

    The stem is a 3x3 convolution up to 64 px, the same and a pooling by 2 up to 128 px, and a 7x7 convolution and a
    pooling by 4 above that.
    """
    return _resnet(num_classes, shape_CHW, width, norm, PooledBasicBlock, (1, 1, 1, 1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first of which takes the stride.

    Args:
        in_channels: channels of the input.
        channels: channels inside the block; it puts out `channels * expansion`.
        stride: factor by which the sides shrink.
        norm: from a number of channels to the norm.
    """

    expansion: ClassVar[int] = 1
    pooled: ClassVar[bool] = False

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        conv_stride, pool_stride = (1, stride) if self.pooled else (stride, 1)
        self.conv1 = _conv(in_channels, channels, 3, conv_stride)
        self.norm1 = norm(channels)
        self.pool = _average_pool(pool_stride)
        self.conv2 = _conv(channels, channels, 3)
        self.norm2 = norm(channels)
        self.shortcut = _shortcut(in_channels, channels, conv_stride, pool_stride, norm)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / stride, W / stride)."""
        residual_NCHW = self.pool(self.norm1(self.conv1(maps_NCHW)).relu())
        residual_NCHW = self.norm2(self.conv2(residual_NCHW))
        return (residual_NCHW + self.shortcut(maps_NCHW)).relu()  # type: ignore[no-any-return]


class PooledBasicBlock(BasicBlock):
    """A basic block whose stride is an average pooling after the first convolution, norm and ReLU."""

    pooled = True


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution; the 3x3 takes the stride, as in torchvision. Arguments as in `BasicBlock`."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_channels: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = _conv(in_channels, channels, 1)
        self.norm1 = norm(channels)
        self.conv2 = _conv(channels, channels, 3, stride)
        self.norm2 = norm(channels)
        self.conv3 = _conv(channels, out_channels, 1)
        self.norm3 = norm(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride, 1, norm)

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, 4 * channels, H / stride, W / stride)."""
        residual_NCHW = self.norm1(self.conv1(maps_NCHW)).relu()
        residual_NCHW = self.norm2(self.conv2(residual_NCHW)).relu()
        residual_NCHW = self.norm3(self.conv3(residual_NCHW))
        return (residual_NCHW + self.shortcut(maps_NCHW)).relu()  # type: ignore[no-any-return]


def _resnet(
    num_classes: int,
    shape_CHW: tuple[int, int, int],
    width: float,
    norm: str,
    block: type[BasicBlock] | type[Bottleneck],
    num_blocks: tuple[int, ...],
) -> Classifier:
    base_channels = channels_at_width(width)
    make_norm = norm_named(norm)
    pooled = issubclass(block, PooledBasicBlock)
    side = min(shape_CHW[1:])
    _check_side(side, norm, pooled=pooled)

    make_stem = _pooled_stem if pooled else _strided_stem
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=make_stem(shape_CHW[0], base_channels, side, make_norm))
    in_channels = base_channels
    for stage, depth in enumerate(num_blocks):
        channels = base_channels * 2**stage
        blocks = []
        for position in range(depth):
            blocks.append(block(in_channels, channels, 2 if stage > 0 and position == 0 else 1, make_norm))
            in_channels = channels * block.expansion
        layers[f"stage{stage + 1}"] = nn.Sequential(*blocks)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    classifier = Classifier(nn.Sequential(layers), nn.Linear(in_channels, num_classes))
    for module in classifier.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return classifier


def _check_side(side: int, norm: str, *, pooled: bool) -> None:
    """Check that the maps of the last stage have a side of 1, and of 2 for instance norm, which needs several pixels.

    Only images up to `SMALL_SIDE`, which no stem shrinks, can be too small: pooling floors (8 px leave 1), strides
    round up (1 px leaves 1).
    """
    last_side = 2 if norm == "instance" else 1
    smallest = 8 * last_side if pooled else 8 * (last_side - 1) + 1
    if side < smallest:
        raise UsageError(f"images must be at least {smallest} px for this ResNet with {norm} norm; got {side} px")


def _conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)


def _average_pool(stride: int) -> nn.Module:
    return nn.AvgPool2d(stride) if stride > 1 else nn.Identity()


def _shortcut(in_channels: int, out_channels: int, conv_stride: int, pool_stride: int, norm: Norm) -> nn.Module:
    if in_channels == out_channels and conv_stride == pool_stride == 1:
        return nn.Identity()
    return nn.Sequential(
        OrderedDict(
            conv=_conv(in_channels, out_channels, 1, conv_stride),
            pool=_average_pool(pool_stride),
            norm=norm(out_channels),
        )
    )


def _stem(conv: nn.Conv2d, norm: Norm, pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, norm=norm(conv.out_channels), relu=nn.ReLU(), pool=pool))


def _strided_stem(in_channels: int, channels: int, side: int, norm: Norm) -> nn.Sequential:
    if side > SMALL_SIDE:
        return _stem(_conv(in_channels, channels, 7, stride=2), norm, nn.MaxPool2d(3, stride=2, padding=1))
    return _stem(_conv(in_channels, channels, 3), norm, nn.Identity())


def _pooled_stem(in_channels: int, channels: int, side: int, norm: Norm) -> nn.Sequential:
    if side > MEDIUM_SIDE:
        return _stem(_conv(in_channels, channels, 7), norm, nn.AvgPool2d(4))
    if side > SMALL_SIDE:
        return _stem(_conv(in_channels, channels, 3), norm, nn.AvgPool2d(2))
    return _stem(_conv(in_channels, channels, 3), norm, nn.Identity())
