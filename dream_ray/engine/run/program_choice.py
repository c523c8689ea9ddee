"""The decision how the programs of a run are executed: made once, when the run is created, and recorded.

It changes the last bits, so it must not depend on the number of workers.
"""

import torch

from dream_ray.data.store.store import Store
from dream_ray.engine.networks.program_form import INDUCTOR, ProgramForm
from dream_ray.engine.run.compilation import choose_compile
from dream_ray.engine.run.spec import RunSpec

# Launches, not arithmetic, limit a GPU at 32 px; ten classes together need about the launches of one.
CLASS_BATCH_ON_GPU = 10
# Above this side, a class alone fills a GPU, and plain autograd needs half the memory of the batched program.
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
    is_batched = on_gpu and class_batch > 1 and max(store.shape_CHW[1:]) <= LARGEST_BATCHED_SIDE
    return ProgramForm(class_batch, is_batched, backend, is_graphed)
