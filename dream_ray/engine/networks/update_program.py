"""One training step of a network by SGD as a function of tensors: its program.

Augmentation and mixing are drawn ahead on the host. The eager program differentiates by plain autograd and steps by
`torch.optim.SGD`; the compiled one is one graph from the images to the moved parameters.

N images, C channels, H, W, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.augment import View, augment, sample_params, view_of, warp
from dream_ray.core.images.cutmix import cutmix, mix_of, sample_cutmix
from dream_ray.core.images.normalisation import Normalise, unit
from dream_ray.core.images.random_crops import sample_crops
from dream_ray.core.matching.derivatives import Differentiate, by_autograd, by_transforms
from dream_ray.core.matching.objectives import Parameters
from dream_ray.core.transfer import to_device
from dream_ray.engine.networks.functional import FromFirst, apply, cast, structure_of, tensors_of
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.nets import Classifier

_SMALLEST_CROP = 0.5


@dataclass(frozen=True)
class Recipe:
    """Training recipe of a network.

    Attributes:
        batch_size: Images per SGD step.
        lr: Learning rate.
        momentum: Momentum.
        weight_decay: Weight decay.
        cutmix_probability: Probability that a batch is mixed.
        augmentation: DSA operations, see `parse_strategy`, one draw per image.
        random_resized_crop: Crop a random part of every image, of half its area or more, and resize it before the
            augmentation.
        sam_radius: Radius of sharpness-aware minimisation, see `sam_gradients`; 0: plain SGD.
    """

    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    cutmix_probability: float
    augmentation: str
    random_resized_crop: bool = False
    sam_radius: float = 0.0

    def optimizer(self, network: Classifier) -> torch.optim.SGD:
        """Returns the SGD of a network; it moves all parameters by a few operations."""
        return torch.optim.SGD(
            network.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, foreach=True
        )


class UpdateInputs(NamedTuple):
    """Inputs of a step.

    Attributes:
        images_NCHW: uint8, or float32 in [0, 1].
        labels_N: int64.
        view: Augmentation with P = N.
        mix: Mixing, see `mix_of`.
        crop_N23: Matrices of the random resized crop, see `warp`; None: no crop.
    """

    images_NCHW: Tensor
    labels_N: Tensor
    view: View
    mix: Tensor
    crop_N23: Tensor | None


def draw_inputs(recipe: Recipe, images_NCHW: Tensor, labels_N: Tensor, rng: np.random.Generator) -> UpdateInputs:
    """Draws augmentation and mixing of a batch."""
    count, _, height, width = images_NCHW.shape
    device = images_NCHW.device
    crop_N23 = None
    if recipe.random_resized_crop:
        crop_N23 = to_device(sample_crops(count, rng, _SMALLEST_CROP), device, torch.float32)
    params = sample_params(recipe.augmentation, rng, height=height, width=width, num_draws=count)
    mix = sample_cutmix(rng, num_images=count, height=height, width=width, probability=recipe.cutmix_probability)
    return UpdateInputs(images_NCHW, labels_N, view_of(params, device), mix_of(mix, count, device), crop_N23)


def training_images(normalise: Normalise, inputs: UpdateInputs) -> Tensor:
    """Returns the network inputs (N, C, H, W) of a batch."""
    images_NCHW = normalise(unit(inputs.images_NCHW))
    if inputs.crop_N23 is not None:
        images_NCHW = warp(images_NCHW, inputs.crop_N23, padding_mode="reflection")
    return cutmix(augment(images_NCHW, inputs.view), inputs.mix)


def mixed_cross_entropy(logits_NK: Tensor, labels_N: Tensor, mix: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Returns the mean cross entropy of a mixed batch, a scalar.

    Args:
        logits_NK: Logits.
        labels_N: int64.
        mix: Mixing, see `mix_of`.
        label_smoothing: Share of the target that all classes divide equally, in [0, 1).
    """
    partners, share = mix[: len(labels_N)].long(), mix[-1]
    own, other = (
        F.cross_entropy(logits_NK, labels, label_smoothing=label_smoothing) for labels in (labels_N, labels_N[partners])
    )
    return own * share + other * (1 - share)


Gradients = Callable[[Parameters, Parameters, Normalise, UpdateInputs], tuple[Parameters, Parameters]]
"""(parameters, buffers, normalise, inputs) -> gradients of the parameters, and the buffers after the forward pass.

The buffers include the parameters that are not trained."""


def gradients_of(structure: Classifier, differentiate: Differentiate, dtype: torch.dtype = torch.float32) -> Gradients:
    """Returns the gradients of the mean cross entropy of a network that computes in a type."""

    def gradients(
        parameters: Parameters, buffers: Parameters, normalise: Normalise, inputs: UpdateInputs
    ) -> tuple[Parameters, Parameters]:
        images_NCHW = training_images(normalise, inputs)

        def loss(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
            moved = {name: buffer.clone() for name, buffer in buffers.items()}
            tensors = cast(structure, {**parameters, **moved}, dtype)
            _, logits_NK = apply(structure, tensors, images_NCHW, dtype)
            return mixed_cross_entropy(logits_NK, inputs.labels_N, inputs.mix), moved

        found, (_, moved) = differentiate(loss, parameters)
        return found, moved

    return gradients


def sam_gradients(gradients: Gradients, radius: float) -> Gradients:
    """Returns the gradients of SAM: those at the highest loss of a neighbourhood, to first order.

    With the gradient g over all parameters at w, that point is w + radius * g / |g|. A step costs two gradients. The
    buffers are those after an ordinary step at w.

    Source: SAM (Foret et al., ICLR 2021, arXiv 2010.01412), algorithm 1. FTD (Du et al., CVPR 2023, arXiv 2211.11004)
    trains its experts by GSAM, a variant that also decomposes the gradient and that is not built here.

    Args:
        gradients: Gradients of the loss.
        radius: Radius of the neighbourhood, >= 0, in the unit of the parameters; SAM's experiments mostly use 0.05.
    """

    def flat(
        parameters: Parameters, buffers: Parameters, normalise: Normalise, inputs: UpdateInputs
    ) -> tuple[Parameters, Parameters]:
        uphill, moved = gradients(parameters, buffers, normalise, inputs)
        norm = torch.stack([gradient.square().sum() for gradient in uphill.values()]).sum().sqrt()
        # A zero gradient stays zero (0 / tiny); a branch on the norm would wait for the device.
        scale = radius / norm.clamp(min=torch.finfo(norm.dtype).tiny)
        high = {name: parameter + scale * uphill[name] for name, parameter in parameters.items()}
        return gradients(high, buffers, normalise, inputs)[0], moved

    return flat


class UpdateProgram:
    """The training steps of networks of one structure.

    Args:
        recipe: The recipe.
        normalise: Maps images to network inputs; the networks live on its device.
        dtype: Type in which the networks compute; their parameters are float32.
        form: How batches of `recipe.batch_size` images are trained on; others are eager.
    """

    def __init__(
        self,
        recipe: Recipe,
        normalise: Normalise,
        dtype: torch.dtype = torch.float32,
        form: ProgramForm = EAGER,
    ) -> None:
        self.recipe, self.normalise, self._dtype, self._form = recipe, normalise, dtype, form
        self._eager = FromFirst(lambda network, _: self._gradients(network, by_autograd))
        self._whole = FromFirst(lambda network, _: self._prepare(network))

    def _gradients(self, network: Classifier, differentiate: Differentiate) -> Gradients:
        structure = structure_of(network, training=True, updates_statistics=True)
        plain = gradients_of(structure, differentiate, self._dtype)
        return sam_gradients(plain, self.recipe.sam_radius) if self.recipe.sam_radius else plain

    def _prepare(self, network: Classifier) -> Callable[..., tuple[Parameters, Parameters, Parameters]]:
        gradients, recipe = self._gradients(network, by_transforms), self.recipe

        def program(
            parameters: Parameters,
            buffers: Parameters,
            momenta: Parameters,
            normalise: Normalise,
            inputs: UpdateInputs,
        ) -> tuple[Parameters, Parameters, Parameters]:
            found, moved = gradients(parameters, buffers, normalise, inputs)
            # The operations of `torch.optim.SGD`; on a GPU, each is compiled to one kernel for all parameters.
            before = list(parameters.values())
            steps = torch._foreach_add([found[name] for name in parameters], before, alpha=recipe.weight_decay)
            if recipe.momentum:
                kept = torch._foreach_mul([momenta[name] for name in parameters], recipe.momentum)
                steps = torch._foreach_add(kept, steps)
                momenta = dict(zip(parameters, steps, strict=True))
            after = torch._foreach_add(before, steps, alpha=-recipe.lr)
            return dict(zip(parameters, after, strict=True)), momenta, moved

        return self._form.prepared(program)

    def __call__(
        self,
        network: Classifier,
        optimizer: torch.optim.SGD,
        images_NCHW: Tensor,
        labels_N: Tensor,
        rng: np.random.Generator,
    ) -> None:
        """Takes one step.

        Args:
            network: Trained in place.
            optimizer: Its optimizer.
            images_NCHW: uint8, or float32 in [0, 1].
            labels_N: int64.
            rng: Stream for augmentation and mixing.
        """
        inputs = draw_inputs(self.recipe, images_NCHW, labels_N, rng)
        buffers, parameters = tensors_of(network), {}
        trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
        for name in trained:
            parameters[name] = buffers.pop(name)
        if self._form.is_fixed and len(images_NCHW) == self.recipe.batch_size:
            momenta = _momenta(trained, optimizer) if self.recipe.momentum else {}
            moved = self._whole(network)(parameters, buffers, momenta, self.normalise, inputs)
            for before, after in zip((parameters, momenta, buffers), moved, strict=True):
                if before:
                    torch._foreach_copy_(list(before.values()), [after[name] for name in before])
            return
        gradients, statistics = self._eager(network)(parameters, buffers, self.normalise, inputs)
        for name, parameter in trained.items():
            parameter.grad = gradients[name]
        optimizer.step()
        for name, buffer in buffers.items():
            buffer.copy_(statistics[name])


def _momenta(trained: Parameters, optimizer: torch.optim.SGD) -> dict[str, Tensor]:
    """Returns the momentum of every parameter; zeros have the effect of none."""
    momenta = {}
    for name, parameter in trained.items():
        state = optimizer.state[parameter]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momenta[name] = state["momentum_buffer"]
    return momenta
