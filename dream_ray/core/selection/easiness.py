"""How easy images are for a trained network, by its logits. N images of one class, K classes."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits_NK: Tensor, label: int) -> Tensor:
    """Returns the cross-entropy (N,) of images at their class; RDED (Sun et al., CVPR 2024) and CIM order by it."""
    return -F.log_softmax(logits_NK.double(), dim=1)[:, label]


def el2n(logits_NK: Tensor, label: int) -> Tensor:
    """Returns the L2 norm (N,) of the error of the probabilities (EL2N, Paul et al., NeurIPS 2021)."""
    errors_NK = logits_NK.double().softmax(dim=1)
    errors_NK[:, label] -= 1
    return errors_NK.square().sum(dim=1).sqrt()


SCORES: dict[str, Callable[[Tensor, int], Tensor]] = {"cross_entropy": cross_entropy, "el2n": el2n}
"""By name: (logits (N, K), label of the class of all images) -> scores (N,), float64; low scores are easy."""
