"""timm's classification networks by name, untrained."""

from typing import Any

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier, foreign_code, split_classifier


def timm_network(model: str, *, num_classes: int, shape_CHW: tuple[int, int, int]) -> Classifier:
    """Build a timm network with random weights, as a `Classifier`.

    Args:
        model: timm's name, such as `resnet18` or `resnet18.a1_in1k`.
        num_classes: K, number of logits.
        shape_CHW: shape of one image; some of timm's networks only take sizes of their own.

    Raises:
        UsageError: timm is not installed or has no such network, or it rejects such images, or does not end in a
            linear layer.
    """
    timm = timm_module()
    name = f"timm:{model}"
    if not timm.is_model(model):
        near = timm.list_models(f"*{model}*")[:5] or timm.list_models("resnet*")[:5]
        raise UsageError(
            f"network timm:NAME must be one of timm.list_models(), such as {', '.join(near)}; got {name!r}"
        )
    with foreign_code(f"network {name!r}"):
        network = timm.create_model(model, pretrained=False, num_classes=num_classes, in_chans=shape_CHW[0])
    return split_classifier(network, num_classes=num_classes, shape_CHW=shape_CHW, name=f"network {name!r}")


def timm_module() -> Any:
    """Import timm, which is optional; raises UsageError if it is not installed."""
    try:
        import timm
    except ImportError:
        raise UsageError("timm:NAME needs timm; install it with `pip install 'dream-ray[timm]'`") from None
    return timm
