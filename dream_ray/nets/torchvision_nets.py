"""torchvision's classification networks by name, untrained: to evaluate a synthetic set on more architectures."""

from typing import Any

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier, foreign_code, split_classifier

# Networks that need arguments to return only logits without a warning.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


def torchvision_network(model: str, *, num_classes: int, shape_CHW: tuple[int, int, int]) -> Classifier:
    """Build a torchvision classification network with random weights, as a `Classifier`.

    Args:
        model: torchvision's name, such as `efficientnet_b0`.
        num_classes: K, number of logits.
        shape_CHW: shape of one image; torchvision's networks take 3 channels, and some only sizes of their own.

    Raises:
        UsageError: torchvision has no such network, or it rejects such images, or does not end in a linear layer.
    """
    # Imported here because the import takes seconds.
    import torchvision.models

    name = f"torchvision:{model}"
    valid = torchvision.models.list_models(module=torchvision.models)
    if model not in valid:
        raise UsageError(f"network torchvision:NAME must name one of {', '.join(valid)}; got {name!r}")
    if shape_CHW[0] != 3:
        raise UsageError(f"network {name!r} must get images of 3 channels; got {shape_CHW[0]}")
    with foreign_code(f"network {name!r}"):
        network = torchvision.models.get_model(
            model, weights=None, num_classes=num_classes, **_ARGUMENTS.get(model, {})
        )
    return split_classifier(network, num_classes=num_classes, shape_CHW=shape_CHW, name=f"network {name!r}")
