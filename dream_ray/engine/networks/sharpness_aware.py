"""Training towards flat minima, for the experts of FTD: near them, the loss stays low.

Sources: SAM (Foret et al., ICLR 2021, arXiv 2010.01412), algorithm 1, of which FTD (Du et al., CVPR 2023,
arXiv 2211.11004) trains its experts with a variant, because students deviate from them.
"""

import torch
from torch import Tensor

from dream_ray.engine.networks.training import Backward, MixedLabels, backward
from dream_ray.nets import Classifier


def flat_backward(radius: float, backpropagate: Backward = backward) -> Backward:
    """Returns a `Backward` that takes the gradient at the highest loss of a neighbourhood, to first order.

    With the gradient g over all parameters at w, that point is w + radius * g / |g|. A step costs two gradients. It
    updates the statistics as an ordinary step at w does, and restores w bit for bit.

    Args:
        radius: Radius of the neighbourhood, >= 0, in the unit of the parameters; SAM's experiments mostly use 0.05.
        backpropagate: Computes each of the two gradients.
    """

    def backpropagate_flat(network: Classifier, images_NCHW: Tensor, labels: MixedLabels) -> None:
        backpropagate(network, images_NCHW, labels)
        with torch.no_grad():
            here = [parameter.clone() for parameter in network.parameters()]
            statistics = [buffer.clone() for buffer in network.buffers()]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
            norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            # A zero gradient stays zero (0 / tiny); a branch on the norm would wait for the device.
            scale = radius / norm.clamp(min=torch.finfo(norm.dtype).tiny)
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter.add_(scale * gradient)
        backpropagate(network, images_NCHW, labels)
        with torch.no_grad():
            for parameter, value in zip(network.parameters(), here, strict=True):
                parameter.copy_(value)
            for buffer, moved in zip(network.buffers(), statistics, strict=True):
                buffer.copy_(moved)

    return backpropagate_flat
