"""The decision how the programs of a run are executed: made once, when the run is created, and recorded.

It changes the last bits, so it must not depend on the number of workers.
"""

import logging
from functools import partial

import torch
from torch import Tensor

from dream_ray.config import Config
from dream_ray.core.matching.derivatives import by_transforms
from dream_ray.core.matching.objectives import Forward, Objective, Parameters, signals
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.from_config import build_named, matched_networks
from dream_ray.engine.networks.functional import function_of, structure_of, tensors_of
from dream_ray.engine.networks.program_form import INDUCTOR, ProgramForm
from dream_ray.engine.networks.sources import blank_network
from dream_ray.engine.run.programs.compilation import choose_compile
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import UsageError
from dream_ray.nets.classifier import foreign_code

_LOG = logging.getLogger(__name__)

# Ten classes together need 525 launches, one by one 5,010 (benchmarks/results/launches.json).
CLASS_BATCH_ON_GPU = 10
# Above this side, memory matters more than launches. Not measured on a GPU.
LARGEST_BATCHED_SIDE = 64


def choose_form(spec: RunSpec, store: Store, device: torch.device) -> ProgramForm:
    """Decides how programs are executed.

    Args:
        spec: The run; its `compile` and `class_batch` are taken as they are unless they leave the choice open.
        store: Its store.
        device: Device of the workers.

    Raises:
        UsageError: If `compile` is "on" or "graphs" and nothing can be compiled.
    """
    return form_of(spec, store, device, is_compiled=choose_compile(spec.compile, spec.config, store, device))


def form_of(spec: RunSpec, store: Store, device: torch.device, *, is_compiled: bool) -> ProgramForm:
    """Returns the form of a run for which `choose_compile` has decided; arguments as for `choose_form`."""
    backend, is_graphed = INDUCTOR if is_compiled else None, spec.compile == "graphs"
    if spec.config.matching.objective == "trajectory":
        return ProgramForm(backend=backend, is_graphed=is_graphed)
    on_gpu = device.type == "cuda"
    class_batch = spec.class_batch or (min(CLASS_BATCH_ON_GPU, store.num_classes) if on_gpu else 1)
    is_small = max(store.shape_CHW[1:]) <= LARGEST_BATCHED_SIDE
    is_batched = on_gpu and class_batch > 1 and is_small and _can_be_batched(spec.config, store)
    return ProgramForm(class_batch, is_batched, backend, is_graphed)


def _can_be_batched(config: Config, store: Store) -> bool:
    """Returns whether one program can match several classes; says why if a network has, say, shapes of its data."""
    objective = Objective(1.0, 1.0, "mse", match_biases=True, match_classifier=True)
    is_trained = config.source.kind != "frozen"
    images_LNCHW, labels_L = torch.zeros(2, 2, *store.shape_CHW), torch.zeros(2, dtype=torch.int64)
    for named in matched_networks(config)[0]:
        network = blank_network(partial(build_named, named, store))
        function = function_of(structure_of(network, training=is_trained), tensors_of(network))

        def of_class(images_NCHW: Tensor, label: Tensor, function: tuple[Forward, Parameters] = function) -> Tensor:
            return signals(*function, images_NCHW, label, objective, by_transforms).features_ND

        try:
            with foreign_code(f"network {named.name!r} over a batch of classes"):
                torch.func.vmap(of_class)(images_LNCHW, labels_L)
        except UsageError as error:
            _LOG.warning("Classes are matched one by one, which takes longer: %s", str(error).partition("\n")[0])
            return False
    return True
