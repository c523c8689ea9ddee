"""The function that plans a run."""

from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.config import Config
from dream_ray.config.sizes import parse_bytes
from dream_ray.data.store.store import Store
from dream_ray.engine.run.spec import RunSpec, check_against_store, warn_if_not_evaluable

if TYPE_CHECKING:
    from dream_ray.engine.planning.plan import RunPlan


def plan(
    config: Config,
    *,
    store: storage.StrPath,
    workers: int = 1,
    producers: int | None = None,
    local: bool = False,
    device: str = "auto",
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    compile: str = "auto",
    class_batch: int | None = None,
    memory: int | str | None = None,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
) -> "RunPlan":
    """Predicts memory, time and traffic of a run, without starting it.

    Memory and the times of single steps are measured in a process of its own, on a machine that workers run on; the
    time of the whole run is a prediction (`RunPlan.forecast`). Arguments as for `distill`. With `memory`,
    `RunPlan.config` contains the settings that fit.
    """
    spec = RunSpec(
        config=config,
        store=storage.text_path("store", store),
        out=None,
        compile=compile,
        class_batch=class_batch,
        device=device,
        threads=cpus_per_worker,
        local=local,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        producers=producers,
        memory_bytes=None if memory is None else parse_bytes(memory),
    )
    opened = Store.open(spec.store)
    check_against_store(spec, opened)
    warn_if_not_evaluable(config, opened)
    from dream_ray.engine.planning.plan import plan_run

    with open_backend(address, wait, local=local) as backend:
        resources: dict[str, Any] = {"device": device, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
        return backend.call(plan_run, spec, backend.producers(spec), backend.cores(), **resources)
