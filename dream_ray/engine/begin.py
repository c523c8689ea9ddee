"""How a run begins: what depends on the machine is found out on a worker node, then its directory is made."""

from dataclasses import replace

from dream_ray.engine.planning.fitting import fit_memory
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import resolve_device
from dream_ray.engine.run.lifecycle import create_run
from dream_ray.engine.run.spec import RunSpec


def begin_run(spec: RunSpec, num_producers: int) -> Run:
    """Makes the directory of a run, with settings that fit the memory if it is limited.

    Args:
        spec: What is run.
        num_producers: Producers that will start; they need memory too.

    Raises:
        UsageError: If the run is refused, see `create_run` and `fit_memory`.
    """
    device = resolve_device(spec.device)
    if spec.memory_bytes is not None:
        spec = replace(spec, config=fit_memory(spec, num_producers, device).config)
    return create_run(spec, device)
