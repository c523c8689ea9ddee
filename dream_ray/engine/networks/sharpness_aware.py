"""Training towards flat minima: the experts of FTD, whose neighbours are good as well.

Sources: SAM (Foret et al., ICLR 2021, arXiv 2010.01412), algorithm 1, of which FTD (Du et al., CVPR 2023,
arXiv 2211.11004) trains its experts with a variant, because a student never follows them exactly.
"""

import torch
from torch import Tensor

from dream_ray.engine.networks.training import Backward, MixedLabels, backward
from dream_ray.nets import Classifier


def flat_backward(radius: float, backpropagate: Backward = backward) -> Backward:
    """Returns a `Backward` that takes the gradient where the loss is highest nearby, to first order.

    That is at w + radius * g / |g|, g being the gradient at w over all parameters. It costs two gradients. Statistics
    are those at w, as an ordinary step would move them; w itself is put back bit for bit.

    Args:
        radius: Of the neighbourhood, >= 0, in the unit of the parameters; 0.05 in most of SAM's experiments.
        backpropagate: Computes each of the two gradients.
    """

    def backpropagate_flat(network: Classifier, images_NCHW: Tensor, labels: MixedLabels) -> None:
        backpropagate(network, images_NCHW, labels)
        with torch.no_grad():
            here = [parameter.clone() for parameter in network.parameters()]
            statistics = [buffer.clone() for buffer in network.buffers()]
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
            norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            # Where there is no gradient there is no way up: 0 / tiny, and no wait for the device to ask.
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
