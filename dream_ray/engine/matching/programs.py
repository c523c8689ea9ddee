"""The programs of a run: features of a batch, and one matching step of a group of classes.

A program takes the tensors of a network as inputs, so another class, step or network of the run compiles nothing. The
forms of a step differ in the last bits. The eager form that takes class by class is the oracle of the others.

L classes, N images, R real images, C channels, H, W, D features.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dream_ray.core.images.augment import AugmentParams, View, views_of
from dream_ray.core.images.normalisation import Normalise, unit
from dream_ray.core.matching.class_step import ClassInputs, ClassOutputs, ClassStep
from dream_ray.core.matching.derivatives import by_autograd, by_transforms
from dream_ray.core.matching.objectives import Forward, Parameters
from dream_ray.engine.networks.functional import FromFirst, apply, cast, function_of, structure_of, tensors_of
from dream_ray.engine.networks.program_form import EAGER, ProgramForm, compile_whole
from dream_ray.nets import Classifier
from dream_ray.nets.batch_statistics import BatchStatistics
from dream_ray.nets.instance_norm import with_closed_norms
from dream_ray.nets.layers import LayerFeatures


class FeatureProgram:
    """Penultimate features of real images, in evaluation mode.

    Args:
        normalise: Maps images to network inputs; None: the network takes pixels in [0, 1].
        dtype: Type in which the network computes.
        batch: Images in a batch; a compiled program pads smaller ones.
        backend: Of `torch.compile`; None: eager.
    """

    def __init__(
        self,
        normalise: Normalise | None,
        dtype: torch.dtype = torch.float32,
        *,
        batch: int,
        backend: str | None = None,
    ) -> None:
        self._normalise, self._dtype, self._batch, self._backend = normalise, dtype, batch, backend
        self._program = FromFirst(self._build)

    def _build(self, network: Classifier, architecture: int) -> Callable[..., Tensor]:
        structure, dtype = structure_of(network, training=False), self._dtype

        def features(tensors: Parameters, normalise: Normalise | None, images_NCHW: Tensor) -> Tensor:
            pixels_NCHW = unit(images_NCHW)
            inputs_NCHW = pixels_NCHW if normalise is None else normalise(pixels_NCHW)
            return apply(structure, tensors, inputs_NCHW, dtype)[0]

        return compile_whole(features, self._backend)

    def of(self, network: Classifier, architecture: int = 0) -> Callable[[Tensor], Tensor]:
        """Returns the function of a network from uint8 images (N, C, H, W) to features (N, D), float32."""
        program, tensors = self._program(network, architecture), cast(network, tensors_of(network), self._dtype)
        # On a CPU, eager features in float32 are faster with channels last.
        is_on_cpu = network.head.weight.device.type == "cpu"
        is_last = is_on_cpu and self._backend is None and self._dtype == torch.float32
        layout = torch.channels_last if is_last else torch.contiguous_format
        tensors = {
            name: tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor
            for name, tensor in tensors.items()
        }

        @torch.no_grad()
        def features(images_NCHW: Tensor) -> Tensor:
            missing = 0 if self._backend is None else self._batch - len(images_NCHW)
            images_NCHW = images_NCHW.contiguous(memory_format=layout)
            padded_NCHW = F.pad(images_NCHW, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else images_NCHW
            return program(tensors, self._normalise, padded_NCHW)[: len(images_NCHW)]

        return features


class StepProgram:
    """One matching step of a group of classes.

    Args:
        step: Constants of the steps of the run.
        strategy: Augmentation of the steps.
        normalise: Maps images to network inputs.
        dtype: Type in which the network computes.
        form: How the program is executed, and the classes of a group.
        chunk: Real images per forward pass; None: all at once.
        frozen: Whether the networks are frozen; they compute in evaluation mode, where batch norms couple no images.
        layer: Layer whose maps are the features; None: the penultimate features.
        statistics: Whether the features are the statistics of batch norms, see `BatchStatistics`.
    """

    def __init__(
        self,
        step: ClassStep,
        strategy: str,
        normalise: Normalise,
        dtype: torch.dtype = torch.float32,
        form: ProgramForm = EAGER,
        *,
        chunk: int | None = None,
        frozen: bool = False,
        layer: str | None = None,
        statistics: bool = False,
    ) -> None:
        self.size, self._has_statistics = form.match_batch, statistics
        self._step, self._strategy, self.normalise, self._dtype = step, strategy, normalise, dtype
        self._chunk, self._form, self._frozen, self._layer = chunk, form, frozen, layer
        self._structure = FromFirst(self._structure_of)
        self._program = FromFirst(self._build)

    def _structure_of(self, network: Classifier, architecture: int) -> nn.Module:
        whole = structure_of(network, training=not self._frozen)
        objective = self._step.objective
        structure: nn.Module = whole
        if self._has_statistics:
            structure = BatchStatistics(whole)
        elif self._layer is not None:
            with_logits = objective.gradient_weight > 0 or objective.label_weight > 0
            structure = LayerFeatures(whole, self._layer, with_logits=with_logits)
        # A compiler fuses the derivatives of norms; the closed form would lose digits in bfloat16.
        is_split = self.size > 1 and self._form.backend is None and self._dtype == torch.float32
        return with_closed_norms(structure) if is_split else structure

    def _build(self, network: Classifier, architecture: int) -> Callable[..., ClassOutputs]:
        structure, dtype, step = self._structure(network, architecture), self._dtype, self._step
        chunk, is_batched = self._chunk_of(network), self.size > 1

        def program(tensors: Parameters, normalise: Normalise, inputs: ClassInputs) -> ClassOutputs:
            forward, parameters = function_of(structure, tensors, dtype)

            def one(*inputs: Any) -> ClassOutputs:
                return step(forward, parameters, normalise, ClassInputs(*inputs), by_transforms, chunk)

            axes = tuple(None if value is None else 0 for value in inputs)
            return ClassOutputs(*torch.func.vmap(one, in_dims=axes)(*inputs)) if is_batched else one(*inputs)

        return self._form.prepared(program)

    def _chunk_of(self, network: Classifier) -> int | None:
        return None if network.couples_images and not self._frozen else self._chunk

    def of(self, network: Classifier, architecture: int = 0) -> Callable[[ClassInputs], ClassOutputs]:
        """Returns the step under a network, with the number of its architecture.

        It takes the inputs of `size` classes, stacked along a first axis, and returns its results alike; with size 1,
        there is no such axis.
        """
        if self.size > 1 or self._form.is_fixed:
            return partial(self._program(network, architecture), tensors_of(network), self.normalise)
        forward, parameters = self.function_of(network, architecture)
        chunk = self._chunk_of(network)
        return partial(self._step, forward, parameters, self.normalise, differentiate=by_autograd, chunk=chunk)

    def function_of(self, network: Classifier, architecture: int = 0) -> tuple[Forward, Parameters]:
        """Returns a network as steps use it, as a function, and its parameters."""
        return function_of(self._structure(network, architecture), tensors_of(network), self._dtype)

    def views(self, draws: Sequence[AugmentParams]) -> View:
        """Moves the draws of a group to the device; a compiled program needs the same shapes for all."""
        return views_of(draws, self.normalise.device, self._strategy if self._form.is_fixed else None)
