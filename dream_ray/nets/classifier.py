"""The common form of all networks: a trunk that computes features and a linear head that computes logits.

Shapes: N images, C channels, H, W, D features, K classes.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dream_ray.errors import UsageError


class Classifier(nn.Module):
    """A network whose penultimate features are part of its output.

    Selection and feature matching need the features, gradient matching and training the logits; one forward pass
    computes both. Parameters have the names `trunk.*` and `head.*`, which identify the classification layer.

    Args:
        trunk: maps images_NCHW (float) to features_ND.
        head: the classification layer, maps features_ND to logits_NK.
    """

    def __init__(self, trunk: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features_ND, logits_NK), both of the dtype of the parameters."""
        features_ND = self.trunk(images_NCHW)
        return features_ND, self.head(features_ND)

    @property
    def couples_images(self) -> bool:
        """Whether in training mode an image's output depends on the other images of its batch: batch norm."""
        return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.modules())


@contextmanager
def foreign_code(what: str) -> Iterator[None]:
    """Convert every exception of foreign code into a `UsageError` that begins with `what`.

    Only this function catches all exceptions: a user's module may raise anything, and is an input.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{what} failed: {type(error).__name__}: {error}") from error


def split_classifier(
    network: nn.Module, *, num_classes: int, shape_CHW: tuple[int, int, int], name: str = "network"
) -> Classifier:
    """Split an ordinary network (images -> logits) at its last `nn.Linear` into trunk and head.

    An `nn.Identity` replaces the layer, so that the rest of the network returns the features. One forward pass in
    evaluation mode before and one after the split check that the logits stay the same.

    Args:
        network: float32 on the CPU; it is modified, even if the split fails.
        num_classes: K, number of logits.
        shape_CHW: shape of one image.
        name: name of the network in error messages.

    Returns:
        The network as a `Classifier`, in the original mode (train or eval).

    Raises:
        UsageError: the network does not run on such images, does not return (N, K) logits, or its last `nn.Linear` is
            not its classification layer.
    """
    was_training = network.training
    network.eval()
    # Not zeros, for which many networks return the same logits with any features.
    probe_NCHW = torch.linspace(-1, 1, 2 * math.prod(shape_CHW)).reshape(2, *shape_CHW)
    with torch.no_grad(), foreign_code(f"{name} on images of shape {shape_CHW}"):
        logits_NK = network(probe_NCHW)
    if not isinstance(logits_NK, Tensor) or logits_NK.shape != (2, num_classes):
        got = f"shape {tuple(logits_NK.shape)}" if isinstance(logits_NK, Tensor) else type(logits_NK).__name__
        raise UsageError(f"{name} must return logits of shape (2, {num_classes}) for 2 images; got {got}")

    classifier = _take_out_head(network, num_classes, name)
    with torch.no_grad(), foreign_code(f"{name} without its last nn.Linear"):
        features_ND, split_logits_NK = classifier(probe_NCHW)
    if features_ND.shape != (2, classifier.head.in_features):
        raise UsageError(
            f"{name} must give its last nn.Linear features of shape (N, {classifier.head.in_features}); "
            f"got {tuple(features_ND.shape)} for N = 2"
        )
    if not torch.allclose(split_logits_NK, logits_NK, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise UsageError(
            f"{name} must end in its last nn.Linear (nothing after it, one use of it); "
            "got other logits from trunk and head than from the whole"
        )
    return classifier.train(was_training)


def _take_out_head(network: nn.Module, num_classes: int, name: str) -> Classifier:
    linear_layers = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear_layers:
        raise UsageError(f"{name} must have an nn.Linear as its classification layer; got a network without nn.Linear")
    path, head = linear_layers[-1]
    if path == "":
        raise UsageError(f"{name} must have an nn.Linear as its last layer; got nothing but an nn.Linear")
    if head.out_features != num_classes:
        raise UsageError(
            f"{name} must have its classification layer (out_features {num_classes}) as the last nn.Linear; "
            f"got {path} with out_features {head.out_features}"
        )
    network.set_submodule(path, nn.Identity())
    return Classifier(network, head)
