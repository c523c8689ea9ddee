"""Whether a run computes through compiled functions: decided once, when it is made, and recorded.

The decision changes the last bits, so it must not depend on the number of workers.
"""

import logging
import math

import torch
from torch import Tensor, nn

from dream_ray.config import Config
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.class_matcher import matched_objective
from dream_ray.engine.networks.from_config import build, first_passes, trajectory_length
from dream_ray.engine.networks.matching_functions import CompiledBackward, CompiledMatchingFunctions
from dream_ray.engine.networks.sources import Snapshot
from dream_ray.engine.networks.training import MixedLabels
from dream_ray.engine.run.class_costs import class_costs, class_counts
from dream_ray.errors import UsageError
from dream_ray.nets import Classifier

_LOG = logging.getLogger(__name__)

# From here on, eager matching takes about an hour of one CPU core or ten minutes of a GPU, of which compiled functions
# save more than the minute or two that each worker spends on compiling them.
LONG_RUN_FLOP = {"cpu": 1e14, "cuda": 1e16}


def choose_compile(choice: str, config: Config, store: Store, device: torch.device) -> bool:
    """Decides whether a run is compiled.

    Args:
        choice: "on", "off", or "auto": on if the run is long and this machine can compile its functions.
        config: Settings.
        store: Store to distil.
        device: Device of the workers.

    Raises:
        UsageError: If the choice is "on" and nothing can be compiled.
    """
    if choice == "off" or (choice == "auto" and not is_long(run_flop(config, store), device)):
        return False
    try:
        check_compiler(device)
        _check_network(config, store)
    except UsageError as error:
        if choice == "on":
            raise
        _LOG.warning("The run is not compiled and takes longer: %s", error)
        return False
    return True


def is_long(flop: float, device: torch.device) -> bool:
    """Returns whether a run of so many floating-point operations is worth compiling."""
    return flop >= LONG_RUN_FLOP[device.type]


def run_flop(config: Config, store: Store) -> float:
    """Returns the floating-point operations, about, of what a run computes through compiled functions.

    That is its selections and matching, on top of which come network updates; where students are matched, which are
    never compiled, it is the training of the experts and of the network that the initialisation looks through.
    """
    counts = class_counts(config, store)
    follows_experts = config.source.kind == "expert"
    forward_passes = _passes_of_experts(config, sum(counts)) if follows_experts else sum(class_costs(config, counts))
    return float(forward_flop(build(config, store), store.shape_CHW)) * forward_passes


def _passes_of_experts(config: Config, num_images: int) -> int:
    """Returns how many images pass a network forwards in the training of all experts and before it.

    A backward pass counts as two.
    """
    update = config.update
    of_update = update.epochs * (num_images if update.num_images is None else min(update.num_images, num_images))
    gradients = 2 if update.flat_radius else 1
    updates = config.trajectory.num_experts * (trajectory_length(config) - 1)
    embedded = num_images if config.initialisation.strategy == "representative" else 0
    return 3 * gradients * (updates * of_update + first_passes(config) * num_images) + embedded


def forward_flop(network: Classifier, shape_CHW: tuple[int, int, int]) -> int:
    """Returns the floating-point operations of one image's forward pass in convolutions and linear layers."""
    flop = 0

    def count(layer: nn.Module, images: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal flop
        assert isinstance(layer.weight, Tensor)
        flop += 2 * output.numel() * layer.weight[0].numel()

    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            layer.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, *shape_CHW))
    return flop


def check_compiler(device: torch.device) -> None:
    """Compiles one small function, so that a run does not begin where none can be compiled.

    Raises:
        UsageError: If that fails.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        torch.compile(lambda values_N: values_N.sin() + 1, fullgraph=True)(torch.zeros(8, device=device))
    except TorchDynamoException as error:
        needs = "a C++ compiler (g++ or clang++, or the one named in CXX)" if device.type == "cpu" else "triton"
        raise UsageError(f"compile on needs {needs}; got: {_first_line(error)}") from None


def _check_network(config: Config, store: Store) -> None:
    """Raises UsageError if the network of a run has something in it that torch.compile cannot follow."""
    from torch._dynamo.exc import TorchDynamoException

    network = build(config, store)
    snapshot = Snapshot(0, 0, network, torch.optim.SGD(network.parameters()))
    images = torch.linspace(0, 1, 2 * math.prod(store.shape_CHW)).reshape(2, *store.shape_CHW)
    functions = CompiledMatchingFunctions(matched_objective(config), batch_embedding=2, batch_real=2, backend="eager")
    labels = torch.zeros(2, dtype=torch.int64)
    try:
        CompiledBackward(2, backend="eager")(network, images, MixedLabels(labels, labels, torch.ones(())))
        functions.features(snapshot, images)
        functions.loss_and_gradient(snapshot, images, 0, functions.real_signals(snapshot, images, 0))
    except TorchDynamoException as error:
        raise UsageError(
            f"compile on needs a network that torch can compile whole; got: {_first_line(error)}"
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
