"""Networks by name: built in, `torchvision:NAME`, `timm:NAME`, and those of users (`module:factory`)."""

from collections.abc import Callable, Mapping
from typing import Any

from dream_ray.errors import UsageError, did_you_mean
from dream_ray.nets.classifier import Classifier
from dream_ray.nets.convnet import convnet
from dream_ray.nets.densenet import densenet121
from dream_ray.nets.options import check_options
from dream_ray.nets.resnet import resnet10, resnet18, resnet50, resnetap10
from dream_ray.nets.timm_nets import timm_network
from dream_ray.nets.torchvision_nets import torchvision_network
from dream_ray.nets.user_networks import user_network

NETWORKS: dict[str, Callable[..., Classifier]] = {
    "convnet": convnet,
    "densenet121": densenet121,
    "resnet10": resnet10,
    "resnet18": resnet18,
    "resnet50": resnet50,
    "resnetap10": resnetap10,
}
"""Name -> factory(*, num_classes, shape_CHW, **options) -> Classifier."""

LIBRARIES: dict[str, Callable[..., Classifier]] = {"torchvision": torchvision_network, "timm": timm_network}
"""Library -> factory(name, *, num_classes, shape_CHW) -> Classifier."""


def build_network(
    name: str, *, num_classes: int, shape_CHW: tuple[int, int, int], options: Mapping[str, Any]
) -> Classifier:
    """Build a freshly initialised network: float32, on the CPU, in train mode.

    The layers draw their initial weights from torch's ambient generator, which the caller isolates and seeds.

    The networks of `NETWORKS` support `torch.func.functional_call` and second derivatives. In train mode BatchNorm
    changes its buffers in place, which nested `torch.func.grad` allows only on buffers that are arguments of the
    differentiated function, or copies made in it.

    Args:
        name: a key of `NETWORKS`, `torchvision:NAME`, `timm:NAME`, or `module:factory` for a user's network.
        num_classes: K, number of logits, at least 1.
        shape_CHW: channels, height and width of one image in pixels.
        options: keywords of the network, such as depth, width and norm of the ConvNet.

    Returns:
        A `Classifier` whose parameters are named `trunk.*` and `head.*`.

    Raises:
        UsageError: there is no such network, it has no such option, or a value breaks a rule.
    """
    if name in NETWORKS:
        factory = NETWORKS[name]
        check_options(name, factory, options)
        return factory(num_classes=num_classes, shape_CHW=shape_CHW, **options)
    source, colon, model = name.partition(":")
    if not colon:
        valid = ", ".join(NETWORKS)
        raise UsageError(
            f"network must be one of {valid}, torchvision:NAME, timm:NAME or module:factory; got "
            f"{name!r}{did_you_mean(name, NETWORKS)}"
        )
    if source in LIBRARIES:
        if options:
            raise UsageError(f"options of network {name!r} must be among: none; got {sorted(options)}")
        return LIBRARIES[source](model, num_classes=num_classes, shape_CHW=shape_CHW)
    return user_network(name, num_classes=num_classes, shape_CHW=shape_CHW, options=options).train()
