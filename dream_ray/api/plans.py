"""The functions that predict a run, and suggest settings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT, open_backend
from dream_ray.config import parse_config
from dream_ray.config.given import GivenConfig, config_of
from dream_ray.config.load import read_assignments
from dream_ray.config.nested import nested
from dream_ray.config.presets import preset_named
from dream_ray.config.sizes import parse_bytes, parse_seconds
from dream_ray.data.store.store import Store
from dream_ray.engine.progress.display import Show, showing
from dream_ray.engine.run.spec import RunSpec, check_against_store, warn_if_not_evaluable
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from dream_ray.engine.planning.projection import Projection
    from dream_ray.engine.planning.run_plan import RunPlan
    from dream_ray.engine.planning.suggest import Suggestion

DEFAULT_BUDGET = "1h"
"""Time budget of a suggested run."""
_WORK = "Measuring the steps"


def plan(
    config: GivenConfig,
    *,
    store: storage.StrPath,
    settings: Mapping[str, Any] | None = None,
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
    progress: Show | bool = True,
    **more: Any,
) -> "RunPlan":
    """Predicts memory, time and traffic of a run, without starting it.

    Memory and the times of single steps are measured in a process of its own, on a machine that workers run on; the
    time of the whole run is a prediction (`RunPlan.forecast`). Arguments as for `distill`, `progress` as for `ingest`.
    With `memory`, `RunPlan.config` contains the settings that fit.
    """
    store = storage.text_path("store", store)
    config = config_of(config, settings, more)
    spec = RunSpec(
        config=config,
        store=store,
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

    with showing(_WORK, progress=progress), open_backend(address, wait, local=local) as backend:
        resources: dict[str, Any] = {"device": device, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
        return backend.call(plan_run, spec, backend.producers(spec), backend.cores(), **resources)


def project(preset: str, *, settings: Mapping[str, Any] | None = None, **more: Any) -> "Projection":
    """Projects the time of a preset at frozen networks on GPUs that are not at hand, without a store.

    The operations of the real programs are counted and divided by a stated share of published peaks; decoding is added.

    Args:
        preset: A preset of ImageNet-1K or its subsets, such as imagenet1k-ipc10-cim.
        settings: Settings on top, as for `distill`.
        **more: Further settings.

    Raises:
        UsageError: If the preset trains networks, or is for other images.
    """
    config, data = config_of(preset, settings, more), preset_named(preset).data.partition("/")[0]
    from dream_ray.engine.planning.projection import project

    return project(config, data)


def suggest(
    store: storage.StrPath,
    *,
    time_budget: float | str | None = None,
    ipc: int | None = None,
    assignments: Sequence[str] = (),
    workers: int = 1,
    producers: int | None = None,
    local: bool = True,
    device: str = "auto",
    cpus_per_worker: int = 1,
    gpus_per_worker: float | None = None,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    progress: Show | bool = True,
) -> "Suggestion":
    """Suggests settings for a store that fill a time budget on this machine.

    The rules of published settings give most values; a measurement of single steps, which takes seconds for small
    images, gives the number of steps. `Suggestion.config` is for `distill`, `Suggestion.to_yaml` a file to keep.

    Args:
        store: Store that `ingest` wrote.
        time_budget: Time of the run in seconds, or as text such as "30min"; None: an hour.
        ipc: Stored synthetic images per class; None: up to 10, by the sizes of the classes.
        assignments: Settings that stay as they are given, "section.key=value"; the others follow them.
        workers: As for `distill`.
        producers: As for `distill`.
        local: Whether the run will be local; False: the steps are measured where the workers of Ray would run.
        device: As for `distill`.
        cpus_per_worker: As for `distill`.
        gpus_per_worker: As for `distill`.
        address: As for `distill`.
        wait: As for `distill`.
        progress: As for `ingest`.

    Raises:
        UsageError: If the time budget is less than the time of one step, or an assignment breaks a rule.
    """
    budget_s = parse_seconds(DEFAULT_BUDGET if time_budget is None else time_budget, "time-budget")
    given = read_assignments(assignments) | ({} if ipc is None else {"ipc": ipc})
    if "outer_steps" in given:
        raise UsageError("outer_steps must be left to the time budget; use `dream-ray plan` to predict given steps")
    spec = RunSpec(
        config=parse_config(nested(given)),
        store=storage.text_path("store", store),
        out=None,
        device=device,
        threads=cpus_per_worker,
        local=local,
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        producers=producers,
    )
    check_against_store(spec, Store.open(spec.store))
    from dream_ray.engine.planning.suggest import layout_of, suggest_settings

    resources: dict[str, Any] = {"device": device, "cpus": cpus_per_worker, "gpus": gpus_per_worker}
    with showing(_WORK, progress=progress), open_backend(address, wait, local=local) as backend:
        layout = layout_of(spec, backend.producers(spec), backend.cores())
        return backend.call(suggest_settings, spec, given, budget_s, layout, **resources)
