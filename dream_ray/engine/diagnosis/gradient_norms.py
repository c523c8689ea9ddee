"""Norms of the gradients that real images contribute to matching.

N images, C channels, H, W, X values of all matched parameters.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from dream_ray.core.images.normalisation import Normalise, unit
from dream_ray.core.matching.derivatives import by_transforms
from dream_ray.core.matching.objectives import Objective, signals
from dream_ray.engine.networks.functional import function_of, structure_of, tensors_of
from dream_ray.nets import Classifier
from dream_ray.nets.classifier import foreign_code

# The gradients of so many images are in memory at a time.
_IMAGES = 16

GradientNorms = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(uint8 images (N, C, H, W), their class, a scalar, weights (N,) or None for equal ones) -> norms of the gradients of
the images (N,), and of their weighted mean, a scalar."""


def gradient_norms(network: Classifier, normalise: Normalise, objective: Objective) -> GradientNorms:
    """Returns the norms under a network, over the parameters whose gradients an objective matches.

    Images are not augmented. A network that couples the images of a batch is in evaluation mode, so that an image has a
    gradient of its own.

    Args:
        network: The network.
        normalise: Maps images to network inputs.
        objective: Decides which parameters count; its weights do not matter.
    """
    structure = structure_of(network, training=not network.couples_images)
    forward, parameters = function_of(structure, tensors_of(network))
    of_gradients = replace(objective, feature_weight=0.0, gradient_weight=1.0)

    def gradient_X(image_CHW: Tensor, label: Tensor) -> Tensor:
        found = signals(forward, parameters, image_CHW[None], label, of_gradients, by_transforms)
        return torch.cat([gradient.flatten() for gradient in found.gradients.values()])

    gradients_NX = torch.func.vmap(gradient_X, in_dims=(0, None))

    def norms(images_NCHW: Tensor, label: Tensor, weights_N: Tensor | None) -> tuple[Tensor, Tensor]:
        inputs_NCHW = normalise(unit(images_NCHW))
        if weights_N is None:
            weights_N = inputs_NCHW.new_full((len(inputs_NCHW),), 1 / len(inputs_NCHW))
        chunks = zip(torch.split(inputs_NCHW, _IMAGES), torch.split(weights_N, _IMAGES), strict=True)
        norms, mean_X = [], torch.zeros((), device=inputs_NCHW.device)
        for some_NCHW, some_weights in chunks:
            with foreign_code("the network over a batch of single images"):
                found_NX = gradients_NX(some_NCHW, label)
            norms.append(torch.linalg.vector_norm(found_NX, dim=1))
            mean_X = mean_X + some_weights @ found_NX
        return torch.cat(norms), torch.linalg.vector_norm(mean_X)

    return norms
