"""One matching step of a class as a function of tensors: its program.

No shape depends on data, and the host reads no value, so `torch.compile`, `torch.func.vmap` (over classes) and CUDA
graphs take it whole.

R real images, N synthetic images, M decoded synthetic images, C channels, H, W.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dream_ray.core.images.augment import View, augment
from dream_ray.core.images.normalisation import Normalise, unit
from dream_ray.core.images.pixel_space import PixelSpace
from dream_ray.core.matching.derivatives import Differentiate
from dream_ray.core.matching.objectives import (
    Forward,
    Objective,
    Parameters,
    Signals,
    matching_gradient,
    mean_signals,
    signals,
)
from dream_ray.core.matching.pixel_adamw import pixel_adamw
from dream_ray.core.matching.pixel_sgd import pixel_step


class ClassInputs(NamedTuple):
    """Inputs of a step.

    Attributes:
        images_NCHW: Stored synthetic images.
        momenta: Their momentum, or the state of AdamW.
        real_RCHW: Real images of the class, uint8; none if the target is given.
        view: Draw of the augmentation with P = 1, the same for real and synthetic images (Siamese).
        label: The class, a scalar int64.
        part_M: Decoded images to match, int64; None: all of them.
        weight_R: Weights of the real images, float32, with the sum 1; None: all are equal.
        weights_2: Factors of the two parts of the loss, see `matching_loss`; None: both are 1.
        adamw_4: Constants of AdamW at this step, see `adamw_constants`; None: SGD.
        target_SD: Features to match, which are independent of the step; None: those of the real images.
    """

    images_NCHW: Tensor
    momenta: Tensor
    real_RCHW: Tensor
    view: View
    label: Tensor
    part_M: Tensor | None
    weight_R: Tensor | None = None
    weights_2: Tensor | None = None
    adamw_4: Tensor | None = None
    target_SD: Tensor | None = None

    def of_only_class(self) -> "ClassInputs":
        """Returns the inputs of a class without the first axis, along which one class is stacked."""
        view = {operation: values[0] for operation, values in self.view.items()}
        of_class: dict[str, Any] = {
            name: view if name == "view" else None if values is None else values[0]
            for name, values in self._asdict().items()
        }
        return ClassInputs(**of_class)


class ClassOutputs(NamedTuple):
    """Results of a step: the moved images, their momentum, and the loss before the move, a scalar."""

    images_NCHW: Tensor
    momenta: Tensor
    loss: Tensor

    def unstacked(self) -> "list[ClassOutputs]":
        """Returns the results of each class, which are stacked along the first axis."""
        return [ClassOutputs(*each) for each in zip(*self, strict=True)]


@dataclass(frozen=True)
class ClassStep:
    """The constants of the steps of a run.

    Attributes:
        objective: Matching objective.
        decode: Map from stored images (N, C, H, W) to training images (M, C, H, W).
        space: Space of the stored images under a normalisation.
        lr: Learning rate of the pixels.
        momentum: Momentum of the pixels.
        num_classes: Classes that share the momentum, see `pixel_step`.
        betas: Of the moments of AdamW.
    """

    objective: Objective
    decode: Callable[[Tensor], Tensor]
    space: Callable[[Normalise], PixelSpace]
    lr: float
    momentum: float
    num_classes: int
    betas: tuple[float, float] = (0.9, 0.999)

    def target(
        self,
        forward: Forward,
        parameters: Parameters,
        normalise: Normalise,
        inputs: ClassInputs,
        differentiate: Differentiate,
        chunk: int | None,
    ) -> Signals:
        """Returns the signals of the real images, constants of the matching loss; arguments as for `__call__`."""
        if inputs.target_SD is not None:
            return Signals(inputs.target_SD, {})

        def of_chunk(real_RCHW: Tensor, weight_R: Tensor | None) -> Signals:
            images_RCHW = augment(normalise(unit(real_RCHW)), inputs.view)
            return signals(
                forward, parameters, images_RCHW, inputs.label, self.objective, differentiate, weight_N=weight_R
            )

        count = len(inputs.real_RCHW)
        if chunk is None or chunk >= count:
            return of_chunk(inputs.real_RCHW, inputs.weight_R)
        chunks = torch.split(inputs.real_RCHW, chunk)
        if inputs.weight_R is None:
            return mean_signals(((len(one) / count, of_chunk(one, None)) for one in chunks), len(chunks))
        weighted = zip(chunks, torch.split(inputs.weight_R, chunk), strict=True)
        return mean_signals(((1.0, of_chunk(*one)) for one in weighted), len(chunks))

    def __call__(
        self,
        forward: Forward,
        parameters: Parameters,
        normalise: Normalise,
        inputs: ClassInputs,
        differentiate: Differentiate,
        chunk: int | None = None,
    ) -> ClassOutputs:
        """Matches the class and moves its images.

        Args:
            forward: The network in training mode.
            parameters: Its parameters.
            normalise: Maps images to network inputs.
            inputs: The class.
            differentiate: Computes gradients.
            chunk: Real images per forward pass; None: all at once, which a network that couples images needs.
        """
        target = self.target(forward, parameters, normalise, inputs, differentiate, chunk)
        to_inputs = self.space(normalise).to_inputs

        def synthetic(images_NCHW: Tensor) -> Signals:
            decoded_MCHW = self.decode(images_NCHW)
            if inputs.part_M is not None:
                decoded_MCHW = torch.index_select(decoded_MCHW, 0, inputs.part_M)
            images_MCHW = augment(to_inputs(decoded_MCHW), inputs.view)
            return signals(forward, parameters, images_MCHW, inputs.label, self.objective, differentiate, again=True)

        loss, gradient_NCHW = matching_gradient(
            synthetic, inputs.images_NCHW, target, self.objective, differentiate, inputs.weights_2
        )
        if inputs.adamw_4 is not None:
            moved_NCHW, momenta = pixel_adamw(
                inputs.images_NCHW, inputs.momenta, gradient_NCHW, inputs.adamw_4, self.betas
            )
        else:
            moved_NCHW, momenta = pixel_step(
                inputs.images_NCHW,
                inputs.momenta,
                gradient_NCHW,
                lr=self.lr,
                momentum=self.momentum,
                num_classes=self.num_classes,
            )
        return ClassOutputs(moved_NCHW, momenta, loss)
