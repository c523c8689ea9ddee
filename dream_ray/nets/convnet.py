"""ConvNet-D, the network of small-image distillation (Gidaris & Komodakis 2018; DC, DSA, DM, MTT, IDC, DREAM)."""

from collections import OrderedDict

from torch import nn

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier
from dream_ray.nets.options import check_count, norm_named


def convnet(
    *,
    num_classes: int,
    shape_CHW: tuple[int, int, int],
    depth: int = 3,
    width: int = 128,
    norm: str = "instance",
) -> Classifier:
    """Build `depth` blocks of 3x3 convolution, norm, ReLU and 2x2 average pooling, then a linear layer.

    Layers start from PyTorch's defaults. Odd sides lose their last row and column in the pooling. The features are
    the maps of the last block, flattened in the order (C, H, W).

    Args:
        num_classes: K, number of logits.
        shape_CHW: shape of one image; it need not be square.
        depth: number of blocks; each halves the side (published: 3 at 32 px, 4 at 64, 5 at 128, 6 at 224).
        width: channels of every block, a count.
        norm: one of `options.NORMS`.

    Raises:
        UsageError: an option is out of range, or the images are too small for the depth.
    """
    check_count("network.depth", depth)
    check_count("network.width", width)
    make_norm = norm_named(norm)
    in_channels, height, width_px = shape_CHW
    # MNIST-like images are padded from 28 to 32 px, which halves evenly. Deviation: the published code pads every
    # 1-channel image by 3, which only surrounds images of other sides with zeros (8 px would become 12 px).
    padding = 3 if shape_CHW == (1, 28, 28) else 1
    height, width_px = height + 2 * (padding - 1), width_px + 2 * (padding - 1)
    if min(height, width_px) >> depth == 0:
        raise UsageError(
            "network.depth must be at most log2 of the images' shorter side, as each block halves it; "
            f"got depth {depth} at {min(shape_CHW[1:])} px"
        )
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for block in range(depth):
        layers[f"conv{block}"] = nn.Conv2d(in_channels, width, kernel_size=3, padding=padding)
        layers[f"norm{block}"] = make_norm(width)
        layers[f"relu{block}"] = nn.ReLU()
        layers[f"pool{block}"] = nn.AvgPool2d(2)
        in_channels, padding = width, 1
    layers["flatten"] = nn.Flatten()
    num_features = width * (height >> depth) * (width_px >> depth)
    return Classifier(nn.Sequential(layers), nn.Linear(num_features, num_classes))
