"""Matching objectives: gradients (DC, IDC), mean features (DM), both at once (DREAM+), and batch-norm statistics.

Sources: DC (ICLR 2021), IDC (arXiv 2205.14959), DM (arXiv 2110.04181), DREAM+ (arXiv 2310.15052), section 3; SRe2L
(arXiv 2306.13092), whose code weights the first batch norm ten-fold, and LPLD (arXiv 2410.15919) for the statistics.
All functions are pure: a forward function, parameters and images -> tensors.
N images, C channels, H, W, D features.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.matching.derivatives import Differentiate, by_autograd
from dream_ray.core.tree_sum import tree_sum

Parameters = Mapping[str, Tensor]
Forward = Callable[[Parameters, Tensor], tuple[Tensor, Tensor]]
"""(parameters, images_NCHW) -> (features_ND, logits_NL)."""


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
    return torch.sum(1 - (a * b).sum(dim=1) / (norms + 1e-6))


FIRST_BATCH_NORM = 10.0
"""Weight of the statistics of the first batch norm; the others have 1 (SRe2L's code, `first_bn_multiplier`)."""


def _of_statistics(a_SD: Tensor, b_SD: Tensor) -> Tensor:
    norms_S = torch.linalg.vector_norm(a_SD - b_SD, dim=1)
    return torch.sum(norms_S) + (FIRST_BATCH_NORM - 1) * torch.sum(norms_S[:2])


DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda a, b: torch.sum((a - b).square()),
    "l1": lambda a, b: torch.sum((a - b).abs()),
    "l1_mean": lambda a, b: torch.sum((a - b).abs().reshape(len(a), -1).mean(dim=1)),
    "cosine": _cosine,
    "statistics": _of_statistics,
}
"""Distance of two tensors of one shape: mse and l1 are sums; l1_mean and cosine sum over the rows of the first axis. As
in the published code, every entry of a one-dimensional parameter is a row. A mean feature is one row, because the
cosine of single numbers depends on their signs only. statistics sums the Euclidean norms of the rows of
`BatchStatistics`."""


@dataclass(frozen=True)
class Objective:
    """A matching objective.

    Attributes:
        feature_weight: Weight of the distance of mean penultimate features ("forward"), >= 0.
        gradient_weight: Weight of the summed layer distances of gradients ("backward"), >= 0.
        distance: Key of `DISTANCES`.
        match_biases: Whether one-dimensional parameters (biases, norm scales) are matched.
        match_classifier: Whether the classification layer's weight is matched.
        is_averaged: Whether the mean features of both batches are compared; false: all rows of the features, which are
            those of paired images (CIM) or statistics of a batch.
        label_weight: Weight of the cross-entropy of the synthetic images at their class, >= 0.
    """

    feature_weight: float
    gradient_weight: float
    distance: str
    match_biases: bool
    match_classifier: bool
    is_averaged: bool = True
    label_weight: float = 0.0

    def matched_names(self, parameters: Parameters) -> tuple[str, ...]:
        """Returns the parameters whose gradients are matched, in the network's order."""
        return tuple(
            name
            for name, tensor in parameters.items()
            if (self.match_biases or tensor.ndim > 1)
            and (self.match_classifier or not (name.startswith("head.") and tensor.ndim > 1))
        )


@dataclass(frozen=True)
class Signals:
    """Mean feature and gradients of a network on a batch of one class.

    Attributes:
        features_ND: Mean feature (1, D), or all rows of the features if the objective does not average them.
        gradients: d CE / d parameter (mean over the batch) of the matched parameters; empty if none is needed.
        cross_entropy: CE (mean over the batch), a scalar; None if it is not needed.

    All means may be weighted.
    """

    features_ND: Tensor
    gradients: dict[str, Tensor]
    cross_entropy: Tensor | None = None


def signals(
    forward: Forward,
    parameters: Parameters,
    images_NCHW: Tensor,
    label: Tensor,
    objective: Objective,
    differentiate: Differentiate = by_autograd,
    *,
    again: bool = False,
    weight_N: Tensor | None = None,
) -> Signals:
    """Computes mean feature and matched gradients of a batch of one class.

    Args:
        forward: The network as a function.
        parameters: All its parameters by name.
        images_NCHW: Augmented images of the class.
        label: The class, a scalar int64.
        objective: The objective.
        differentiate: Computes the gradients.
        again: Whether the caller differentiates the signals by the images.
        weight_N: Weights of the images in the means; None: 1 / N each.
    """

    def compared(features_ND: Tensor) -> Tensor:
        if not objective.is_averaged:
            return features_ND
        return (features_ND.mean(dim=0) if weight_N is None else weight_N @ features_ND)[None]

    if objective.gradient_weight == objective.label_weight == 0:
        features_ND, _ = forward(parameters, images_NCHW)
        return Signals(compared(features_ND), {})

    def cross_entropy(matched: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        features_ND, logits_NL = forward({**parameters, **matched}, images_NCHW)
        labels_N = label.expand(len(images_NCHW))
        if weight_N is None:
            loss = F.cross_entropy(logits_NL, labels_N)
        else:
            loss = weight_N @ F.cross_entropy(logits_NL, labels_N, reduction="none")
        return loss, {"features": compared(features_ND)}

    if objective.gradient_weight == 0:
        loss, other = cross_entropy({})
        return Signals(other["features"], {}, loss)
    matched = {name: parameters[name] for name in objective.matched_names(parameters)}
    gradients, (loss, other) = differentiate(cross_entropy, matched, again=again)
    return Signals(other["features"], gradients, loss)


def mean_signals(weighted: Iterable[tuple[float, Signals]], num_chunks: int) -> Signals:
    """Combines the signals of the chunks of a batch into the signals of the batch.

    Signals are means over images, so the network must not couple the images of a batch.

    Args:
        weighted: Fraction of the batch and signals of each chunk, in order.
        num_chunks: Chunks of the batch, >= 1.
    """
    chunks = iter(weighted)
    first = next(chunks)
    flat = tree_sum((weight * _flatten(one) for weight, one in chain([first], chunks)), num_chunks)
    like = first[1]
    sizes = [like.features_ND.numel(), *(gradient.numel() for gradient in like.gradients.values())]
    features, *gradients = torch.split(flat, sizes)
    return Signals(
        features.reshape(like.features_ND.shape),
        {
            name: values.reshape(gradient.shape)
            for (name, gradient), values in zip(like.gradients.items(), gradients, strict=True)
        },
    )


def _flatten(one: Signals) -> Tensor:
    return torch.cat([one.features_ND.flatten(), *(gradient.flatten() for gradient in one.gradients.values())])


def matching_loss(real: Signals, synthetic: Signals, objective: Objective, weights_2: Tensor | None = None) -> Tensor:
    """Returns w_feature * dist(features) + w_gradient * sum over layers of dist(gradients) + w_label * CE, a scalar.

    Source: DREAM+, equations of the bidirectional matching; with one weight at 0 it is DM's or IDC's loss. The CE of
    the synthetic images has no real counterpart (SRe2L).

    Args:
        real: Signals of the real batch.
        synthetic: Signals of the synthetic batch.
        objective: The objective.
        weights_2: Further factors of the two parts, see `scales`; None: both are 1.
    """
    distance = DISTANCES[objective.distance]
    of_feature, of_gradient = (1.0, 1.0) if weights_2 is None else weights_2
    loss = real.features_ND.new_zeros(())
    if objective.feature_weight > 0:
        gap = distance(real.features_ND, synthetic.features_ND)
        loss = loss + objective.feature_weight * of_feature * gap
    for name, gradient in real.gradients.items():
        loss = loss + objective.gradient_weight * of_gradient * distance(gradient, synthetic.gradients[name])
    if objective.label_weight > 0:
        assert synthetic.cross_entropy is not None
        loss = loss + objective.label_weight * synthetic.cross_entropy
    return loss


def scales(real: Signals, objective: Objective) -> tuple[Tensor, Tensor]:
    """Returns the sizes of the two parts of the loss under a network: the distances of real signals from zero.

    The parts of a network are in their unit. With distances l1 and l1_mean, that of the features is D * mean |feature|
    and mean |feature|; with cosine, the sizes count rows.
    """
    distance = DISTANCES[objective.distance]
    features_ND = real.features_ND
    gradients = [distance(gradient, torch.zeros_like(gradient)) for gradient in real.gradients.values()]
    of_gradients = torch.stack(gradients).sum() if gradients else features_ND.new_ones(())
    return distance(features_ND, torch.zeros_like(features_ND)), of_gradients


def matching_gradient(
    synthetic: Callable[[Tensor], Signals],
    images: Tensor,
    target: Signals,
    objective: Objective,
    differentiate: Differentiate = by_autograd,
    weights_2: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the matching loss of synthetic images, a scalar, and its gradient in them.

    Args:
        synthetic: Signals of the images; with `by_autograd`, differentiable by them (`again`).
        images: Synthetic images, in any shape that `synthetic` takes.
        target: Signals of the real batch.
        objective: The objective.
        differentiate: Computes the gradient.
        weights_2: See `matching_loss`.
    """

    def loss_of(values: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        return matching_loss(target, synthetic(values["images"]), objective, weights_2), {}

    gradients, (loss, _) = differentiate(loss_of, {"images": images})
    return loss, gradients["images"]
