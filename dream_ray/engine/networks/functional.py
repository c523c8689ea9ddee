"""Networks as functions of their tensors.

A function holds the structure of a network, without data, so another network of the run is another input.
"""

import copy
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from dream_ray.core.matching.objectives import Forward, Parameters
from dream_ray.nets import Classifier

Built = TypeVar("Built")


class FromFirst(Generic[Built]):
    """What `build` returns for the first network of an architecture; threads may ask at the same time."""

    def __init__(self, build: Callable[[Classifier, int], Built]) -> None:
        self._build, self._lock = build, threading.Lock()
        self._built: dict[int, Built] = {}

    def __call__(self, network: Classifier, architecture: int = 0) -> Built:
        """Returns it for an architecture, by its number; builds it at the first call."""
        with self._lock:
            if architecture not in self._built:
                self._built[architecture] = self._build(network, architecture)
            return self._built[architecture]


def structure_of(network: Classifier, *, training: bool, updates_statistics: bool = False) -> Classifier:
    """Returns a copy of a network without data.

    Args:
        network: The network.
        training: Mode of the copy: training or evaluation.
        updates_statistics: Whether batch norms in training mode update their running statistics. Otherwise they have
            none, because matching neither uses nor changes them.
    """
    structure = copy.deepcopy(network).to("meta").train(training)
    for module in structure.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and not updates_statistics:
            module.running_mean = module.running_var = module.num_batches_tracked = None
    return structure


def tensors_of(network: Classifier) -> dict[str, Tensor]:
    """Returns the parameters and buffers of a network by name, as constants."""
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    return parameters | dict(network.named_buffers())


def dtype_of(precision: str) -> torch.dtype:
    """Returns the type in which networks compute."""
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def cast(structure: nn.Module, tensors: Parameters, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns tensors of a network in a type; those of batch norms with statistics stay, which need their precision."""
    if dtype == torch.float32:
        return dict(tensors)
    kept = {
        f"{path}.{name}"
        for path, module in structure.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None
        for name in (*dict(module.named_parameters()), *dict(module.named_buffers()))
    }
    return {
        name: tensor.to(dtype) if tensor.is_floating_point() and name not in kept else tensor
        for name, tensor in tensors.items()
    }


def apply(structure: nn.Module, tensors: Parameters, images_NCHW: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Computes features (N, D) and logits (N, K) in a type; the results have the type of the images.

    Args:
        structure: Of `structure_of`.
        tensors: All tensors of the structure, cast by `cast`; its batch norms change their statistics in place.
        images_NCHW: Network inputs.
        dtype: Type in which the network computes; float32: that of images and tensors.
    """
    inputs_NCHW = images_NCHW if dtype == torch.float32 else images_NCHW.to(dtype)
    features_ND, logits_NK = torch.func.functional_call(structure, dict(tensors), (inputs_NCHW,))
    return features_ND.to(images_NCHW.dtype), logits_NK.to(images_NCHW.dtype)


def function_of(
    structure: nn.Module, tensors: Parameters, dtype: torch.dtype = torch.float32
) -> tuple[Forward, Parameters]:
    """Returns a network as a function of its parameters and images, and its parameters.

    Args:
        structure: Of `structure_of`.
        tensors: Of `tensors_of`.
        dtype: Type in which the network computes, see `apply`.
    """
    parameters = {name: tensors[name] for name, _ in structure.named_parameters()}
    buffers = {name: tensors[name] for name, _ in structure.named_buffers()}

    def forward(parameters: Parameters, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        # A user's module may change its buffers in place.
        own = {name: buffer.clone() for name, buffer in buffers.items()} | dict(parameters)
        return apply(structure, cast(structure, own, dtype), images_NCHW, dtype)

    return forward, parameters
