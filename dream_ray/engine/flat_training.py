"""Training that looks for flat minima: gradients are taken a little uphill (SAM)."""

import torch
from torch import Tensor

from dream_ray.engine.training import Backward, MixedLabels
from dream_ray.nets import Classifier


def flat_backward(radius: float, backpropagate: Backward) -> Backward:
    """Returns `backpropagate` at theta + radius * g / |g|, with g its gradient at theta, which stays where it is.

    Source: SAM (Foret et al., ICLR 2021, arXiv 2010.01412), with which FTD (Du et al., CVPR 2023, arXiv 2211.11004)
    trains experts that students can follow more easily. Statistics of a batch norm see both passes.

    Args:
        radius: How far uphill, > 0.
        backpropagate: Computes gradients; called twice.
    """

    @torch.no_grad()
    def moved(network: Classifier, by: list[Tensor]) -> None:
        for parameter, shift in zip(network.parameters(), by, strict=True):
            parameter.add_(shift)

    def flat(network: Classifier, images_NCHW: Tensor, labels: MixedLabels) -> None:
        backpropagate(network, images_NCHW, labels)
        gradients = [_gradient(parameter) for parameter in network.parameters()]
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
        before = [parameter.detach().clone() for parameter in network.parameters()]
        moved(network, [radius / (norm + 1e-12) * gradient for gradient in gradients])
        backpropagate(network, images_NCHW, labels)
        with torch.no_grad():
            for parameter, values in zip(network.parameters(), before, strict=True):
                parameter.copy_(values)

    return flat


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()
