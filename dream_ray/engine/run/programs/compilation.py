"""The decision whether a run is compiled: made once, when the run is created, and recorded.

Compilation changes the last bits, so the decision must not depend on the number of workers.
"""

import logging
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.core import rng
from dream_ray.core.images.augment import sample_params
from dream_ray.core.matching.class_step import ClassInputs
from dream_ray.core.matching.pixel_adamw import first_momenta
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.class_matcher import step_program
from dream_ray.engine.matching.programs import FeatureProgram
from dream_ray.engine.networks.from_config import (
    build_named,
    first_passes,
    matched_networks,
    recipe_of,
    trajectory_length,
)
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.networks.update_program import UpdateProgram
from dream_ray.engine.run.class_costs import class_costs, class_counts
from dream_ray.engine.run.normalisation import channel_normalisation
from dream_ray.errors import UsageError
from dream_ray.nets import Classifier

_LOG = logging.getLogger(__name__)

# At this size, eager matching takes about an hour on one CPU core or ten minutes on a GPU. Compiled functions then save
# more than the one or two minutes that each worker needs to compile them.
LONG_RUN_FLOP = {"cpu": 1e14, "cuda": 1e16}
# Eager PyTorch executes the traced operations.
_ONLY_TRACED = ProgramForm(backend="eager")


def choose_compile(choice: str, config: Config, store: Store, device: torch.device) -> bool:
    """Decides whether a run is compiled.

    Args:
        choice: "on", "off", "graphs" (on, and replayed from CUDA graphs), or "auto": on if the run is long and this
            machine can compile its programs.
        config: Settings.
        store: Store to distil.
        device: Device of the workers.

    Raises:
        UsageError: If the choice is "on" or "graphs" and nothing can be compiled.
    """
    if choice == "graphs" and device.type != "cuda":
        raise UsageError(f"compile graphs needs a CUDA device; got {device.type}. Use on, off or auto")
    if choice == "off" or (choice == "auto" and run_flop(config, store) < LONG_RUN_FLOP[device.type]):
        return False
    try:
        check_compiler(device)
        _check_network(config, store)
    except UsageError as error:
        if choice != "auto":
            raise
        _LOG.warning("The run is not compiled and takes longer: %s", error)
        return False
    return True


def run_flop(config: Config, store: Store) -> float:
    """Estimates the floating-point operations of the functions that a compiled run compiles.

    These are the selections and the matching; the network updates are not counted. In trajectory matching, students are
    never compiled, so the training of the experts and of the initialisation's network is counted instead.
    """
    counts = class_counts(config, store)
    follows_experts = config.source.kind == "expert"
    forward_passes = _passes_of_experts(config, sum(counts)) if follows_experts else sum(class_costs(config, counts))
    networks, architectures = matched_networks(config)
    flop = [forward_flop(build_named(network, store), store.shape_CHW) for network in networks]
    return sum(flop[one] for one in architectures) / len(architectures) * forward_passes


def _passes_of_experts(config: Config, num_images: int) -> int:
    """Returns the forward passes of images in the training of all experts and in the initialisation.

    A backward pass counts as two forward passes.
    """
    update = config.update
    of_update = update.epochs * (num_images if update.num_images is None else min(update.num_images, num_images))
    gradients = 2 if update.sam_radius else 1
    updates = config.trajectory.num_experts * (trajectory_length(config) - 1)
    embedded = num_images if config.initialisation.trains_network else 0
    return 3 * gradients * (updates * of_update + first_passes(config) * num_images) + embedded


def forward_flop(network: Classifier, shape_CHW: tuple[int, int, int]) -> int:
    """Returns the floating-point operations of one image's forward pass in convolutions and matrix products."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *shape_CHW))
    return int(counter.get_total_flops())


def check_compiler(device: torch.device) -> None:
    """Compiles one small function.

    Raises:
        UsageError: If this machine cannot compile.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        torch.compile(lambda values_N: values_N.sin() + 1, fullgraph=True)(torch.zeros(8, device=device))
    except TorchDynamoException as error:
        storage.check_temporary_space("compile on")
        needs = "a C++ compiler (g++ or clang++, or the one named in CXX)" if device.type == "cpu" else "triton"
        raise UsageError(f"compile on needs {needs}; got: {_first_line(error)}") from None


def _check_network(config: Config, store: Store) -> None:
    """Raises UsageError if torch.compile cannot trace a network of a run."""
    from torch._dynamo.exc import TorchDynamoException

    normalise = channel_normalisation(config, store, torch.device("cpu"))
    real, label = torch.zeros(2, *store.shape_CHW, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    strategy, (_, height, width) = config.matching.augmentation, store.shape_CHW
    draw = sample_params(strategy, rng.stream(0, "traced"), height=height, width=width)
    step = step_program(config, store.num_classes, normalise, _ONLY_TRACED)
    features = FeatureProgram(normalise, batch=len(real), backend=_ONLY_TRACED.backend)
    synthetic = torch.zeros(1, 1, *store.shape_CHW)
    is_adamw = config.pixels.optimizer == "adamw"
    momenta, adamw = (first_momenta(synthetic[0])[None], torch.ones(1, 4)) if is_adamw else (synthetic, None)
    recipe = replace(recipe_of(config), batch_size=len(real))
    update = UpdateProgram(recipe, normalise, form=_ONLY_TRACED)
    try:
        for architecture, named in enumerate(matched_networks(config)[0]):
            network = build_named(named, store)
            features.of(network, architecture)(real)
            target = None
            if config.matching.pairing == "statistics":
                forward, parameters = step.function_of(network, architecture)
                target = forward(parameters, synthetic[0])[0][None]
            inputs = ClassInputs(
                *(synthetic, momenta, real[None], step.views([draw]), label, None, None, None, adamw, target)
            )
            step.of(network, architecture)(inputs.of_only_class())
            if config.source.kind != "frozen":
                update(network, recipe.optimizer(network), real, label.expand(len(real)), rng.stream(0, "traced"))
    except TorchDynamoException as error:
        raise UsageError(
            f"compile on needs a network that torch can compile whole; got: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
