"""Part 2: one step on given inputs, against the same step in float64 on the CPU.

Differences are recorded, and nothing is refused: what a GPU may differ by is known only once one has run it.
"""

import copy
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_day.day import Day, Measurements, Result
from benchmarks.step_time import normalisation_on, real_images
from dream_ray.config import Config, parse_config
from dream_ray.core import rng
from dream_ray.core.images.augment import sample_params
from dream_ray.core.images.multiformation import compose
from dream_ray.core.images.normalisation import Normalisation, to_unit, unit
from dream_ray.core.matching.class_step import ClassInputs, ClassOutputs
from dream_ray.core.matching.derivatives import by_autograd
from dream_ray.core.selection import strategies
from dream_ray.core.transfer import to_device
from dream_ray.engine.matching.class_matcher import class_step
from dream_ray.engine.matching.class_selector import rules_of
from dream_ray.engine.matching.programs import StepProgram
from dream_ray.engine.networks.from_config import recipe_of
from dream_ray.engine.networks.functional import function_of, structure_of, tensors_of
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.engine.networks.sources import blank_network
from dream_ray.engine.networks.update_program import UpdateProgram
from dream_ray.engine.run.environment import fixed_arithmetic
from dream_ray.nets import Classifier, build_network

PART = "exactness"
_CPU = torch.device("cpu")
_MOST_CLASSES, _MOST_IMAGES = 4, 1000


def measurements(day: Day) -> Measurements:
    """Yields the measurements of the part."""
    scale = day.scale
    config = parse_config(scale.steps)
    real = real_images(min(_MOST_CLASSES, scale.num_classes), min(_MOST_IMAGES, scale.images_per_class))
    with torch.no_grad():
        reference = _Step(config, real, _CPU, torch.float64)
        features_LND = reference.features()
        expected = reference.results(features_LND)
    yield "float32 on the CPU", partial(_differences, expected, features_LND, config, real, _CPU, "float32")
    for precision in ("float32", "tf32"):
        yield precision, partial(_differences, expected, features_LND, config, real, day.device, precision)


def _differences(
    expected: dict[str, Tensor],
    features_LND: Tensor,
    config: Config,
    real: list[np.ndarray],
    device: torch.device,
    precision: str,
) -> Result:
    """Returns the norm of every difference over that of the expected tensor, and the share of other selected images.

    Gradients are compared class by class: if one activation rounds to the other side of a ReLU, the gradient of its
    class jumps, and those of the others do not.
    """
    with fixed_arithmetic(torch.get_num_threads(), precision), torch.no_grad():
        step = _Step(config, real, device, torch.float32)
        found = {**step.results(features_LND), "features": step.features(), **step.together()}
    expected = {**expected, "features": features_LND}
    differences: Result = {}
    for name, tensor in found.items():
        wanted = expected[name.removesuffix(", together")]
        if name == "selection":
            equal = [np.intersect1d(a, b).size for a, b in zip(tensor.numpy(), wanted.numpy(), strict=True)]
            differences["selected images that differ"] = 1 - sum(equal) / wanted.numel()
        elif name.startswith("gradient"):
            differences[name] = sorted(map(_difference, tensor, wanted))
        else:
            differences[name] = _difference(tensor, wanted)
    return differences


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found.cpu().double() - expected).norm() / expected.norm())


@dataclass(frozen=True)
class _Step:
    """A step of some classes with a network, images and draws that are the same on any device and in any type.

    Attributes:
        config: Settings.
        real: Real images of the classes, as many of each, uint8.
        device: Device that computes.
        dtype: Type in which it computes.
    """

    config: Config
    real: list[np.ndarray]
    device: torch.device
    dtype: torch.dtype

    def _network(self) -> Classifier:
        network, shape_CHW = self.config.network, self.real[0].shape[1:]
        built = blank_network(
            lambda: build_network(
                network.name, num_classes=len(self.real), shape_CHW=shape_CHW, options=network.options
            )
        )
        return built.to(self.device, self.dtype)

    def _normalise(self) -> Normalisation:
        single = normalisation_on(self.device)
        return Normalisation(single.mean_1C11.to(self.dtype), single.std_1C11.to(self.dtype))

    def features(self) -> Tensor:
        """Returns the features (L, N, D) of the real images."""
        network, normalise = self._network().eval(), self._normalise()
        return torch.stack([network(normalise(to_unit(images, self.device)))[0] for images in self.real])

    def results(self, features_LND: Tensor) -> dict[str, Tensor]:
        """Returns target, loss, gradient, update, and the images that are selected by given features."""
        network, outputs = self._network(), []
        program, inputs = self._program(EAGER)
        forward, parameters = function_of(structure_of(network, training=True), tensors_of(network))
        step, targets = class_step(self.config, len(self.real)), []
        for label in range(len(self.real)):
            own = _of_class(inputs, label)
            target = step.target(forward, parameters, self._normalise(), own, by_autograd, None)
            targets += [target.features_ND.flatten(), *(gradient.flatten() for gradient in target.gradients.values())]
            outputs.append(program.of(network)(own))
        return {
            "target": torch.cat(targets),
            "loss": torch.stack([one.loss for one in outputs]),
            "gradient": torch.stack([one.momenta for one in outputs]),
            "update": self._update(network),
            "selection": self._selection(features_LND),
        }

    def together(self) -> dict[str, Tensor]:
        """Returns loss and gradient by the program that takes all classes."""
        program, inputs = self._program(ProgramForm(len(self.real), True))
        found: ClassOutputs = program.of(self._network())(inputs)
        return {"loss, together": found.loss, "gradient, together": found.momenta}

    def _program(self, form: ProgramForm) -> tuple[StepProgram, ClassInputs]:
        """Returns a step in a form, and the inputs of all classes, stacked; the first momentum is zero."""
        config, augmentation = self.config, self.config.matching.augmentation
        program = StepProgram(class_step(config, len(self.real)), augmentation, self._normalise(), form=form)
        _, height, width = self.real[0].shape[1:]
        draws = [
            sample_params(augmentation, rng.stream(0, "benchmark view", label=label), height=height, width=width)
            for label in range(len(self.real))
        ]
        units = [to_unit(images[: config.ipc * config.factor**2], self.device) for images in self.real]
        synthetic = torch.stack([compose(images, config.factor) for images in units]).to(self.dtype)
        chosen = np.stack([images[: config.real_batch] for images in self.real])
        labels = to_device(np.arange(len(self.real)), self.device)
        real = to_device(chosen, self.device)
        return program, ClassInputs(synthetic, torch.zeros_like(synthetic), real, program.views(draws), labels, None)

    def _update(self, network: Classifier) -> Tensor:
        """Returns what a training step moves the parameters by."""
        recipe = recipe_of(self.config)
        trained, pixels = copy.deepcopy(network).train(), self.real[0][: recipe.batch_size]
        labels = to_device(np.zeros(len(pixels), dtype=np.int64), self.device)
        program = UpdateProgram(recipe, self._normalise())
        images = unit(to_device(pixels, self.device))
        program(trained, recipe.optimizer(trained), images, labels, rng.stream(0, "benchmark update"))
        pairs = zip(trained.parameters(), network.parameters(), strict=True)
        return torch.cat([(after.detach() - before.detach()).flatten() for after, before in pairs])

    def _selection(self, features_LND: Tensor) -> Tensor:
        rngs = [rng.stream(0, "benchmark k-means", label=label) for label in range(len(self.real))]
        sizes = [len(images) for images in self.real]
        group = strategies.Group(features_LND.to(self.device, self.dtype), sizes, rngs)
        chosen = strategies.representative(group, rules_of(self.config.selection, is_first=True))
        return torch.stack([one.indices for one in chosen])


def _of_class(inputs: ClassInputs, label: int) -> ClassInputs:
    """Returns the inputs of a class from those of all, which are stacked."""
    only = slice(label, label + 1)
    view = {operation: values[only] for operation, values in inputs.view.items()}
    images, velocity, real, labels = inputs.images_NCHW, inputs.momenta, inputs.real_RCHW, inputs.label
    return ClassInputs(images[only], velocity[only], real[only], view, labels[only], None).of_only_class()
