"""The start of a run, on a worker node: settings that fit the machine, then the run directory."""

from dataclasses import replace

from dream_ray.engine.planning.fitting import fit_memory
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import resolve_device
from dream_ray.engine.run.lifecycle import create_run
from dream_ray.engine.run.spec import RunSpec


def begin_run(spec: RunSpec, num_producers: int) -> Run:
    """Creates the directory of a run; `memory_bytes` limits the settings to those that fit.

    Args:
        spec: The run.
        num_producers: Producers of the run, which need memory too.

    Raises:
        UsageError: If the run is refused, see `create_run` and `fit_memory`.
    """
    device = resolve_device(spec.device)
    if spec.memory_bytes is not None:
        spec = replace(spec, config=fit_memory(spec, num_producers, device).config)
    return create_run(spec, device)
