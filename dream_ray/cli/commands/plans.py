"""`dream-ray plan` and `dream-ray suggest`."""

from typing import Annotated

import typer

import dream_ray
from dream_ray.cli import given_settings, progress
from dream_ray.cli.options import (
    Address,
    Assignments,
    ClassBatch,
    Compile,
    ConfigFile,
    CpusPerWorker,
    Device,
    Gpus,
    Local,
    Memory,
    Preset,
    Producers,
    Wait,
    Workers,
    refuse_options,
)
from dream_ray.errors import UsageError


def plan(
    *,
    store: Annotated[
        str | None, typer.Option("--store", help="Store that `dream-ray ingest` wrote; none: a projection.")
    ] = None,
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    workers: Workers = 1,
    local: Local = False,
    device: Device = "auto",
    cpus_per_worker: CpusPerWorker = 1,
    gpus_per_worker: Gpus = None,
    producers: Producers = None,
    compile: Compile = "auto",
    class_batch: ClassBatch = None,
    memory: Memory = None,
    address: Address = None,
    wait: Wait = "10min",
    price_per_hour: Annotated[
        float | None,
        typer.Option("--price-per-hour", min=0, help="Price of a worker or producer, for the cost of the run."),
    ] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="Numbers of workers to compare, such as 1,2,4,8.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the projection as JSON.")] = False,
) -> None:
    """Predict memory, time and traffic of a run.

    Memory and the time of each step are measured where the workers would run. The time of the run is a prediction.
    Without a store, the time of a preset at frozen networks is projected to GPUs that are not at hand.
    """
    from dream_ray.cli import forecasts
    from dream_ray.config.sizes import parse_counts

    if store is None:
        refuse_options(
            {"memory": memory is not None, "scale": scale is not None}, "needs --store, whose steps it measures"
        )
        if preset is None or config is not None:
            raise UsageError(
                "store must be given, or a preset at frozen networks, such as imagenet1k-ipc10-cim, for a projection"
            )
        from dream_ray.config.load import read_assignments  # pydantic and pyarrow: not for --help

        found = dream_ray.project(preset, settings=read_assignments(assignments or ()))
        forecasts.show_projection(preset, found, as_json=as_json)
        return
    refuse_options({"json": as_json}, "is for a projection, without --store")
    worker_counts = [] if scale is None else parse_counts(scale)
    settings = given_settings.read_settings(store, preset, config, assignments)
    with progress.showing("Measuring the steps") as show:
        needed = dream_ray.plan(
            settings,
            store=store,
            workers=workers,
            producers=producers,
            local=local,
            device=device,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            compile=compile,
            class_batch=class_batch,
            memory=memory,
            address=address,
            wait=wait,
            progress=show,
        )
    forecasts.show_changes(settings, needed.config)
    forecasts.show_memory(needed.memory)
    forecasts.show_time(needed, price_per_hour)
    if worker_counts:
        forecasts.show_scale(needed, worker_counts, price_per_hour)


def suggest(
    store: Annotated[str, typer.Argument(help="Store that `dream-ray ingest` wrote.")],
    *,
    time_budget: Annotated[
        str, typer.Option("--time-budget", help="Time of the run on this machine, such as 30min or 2h.")
    ] = "1h",
    ipc: Annotated[
        int | None, typer.Option("--ipc", help="Synthetic images per class. [default: up to 10, by the classes]")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", help="Setting that the others follow, section.key=value; may be repeated."),
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="New YAML file for the settings, with the reasons.")] = None,
    device: Device = "auto",
) -> None:
    """Suggest settings for a store and a time budget.

    Rules of published settings give most values. The number of steps follows from a measurement on this machine.
    """
    from dream_ray import storage
    from dream_ray.cli import suggestions

    if out is not None and storage.exists(out):
        raise UsageError(f"out {out} exists already; delete it, or name another file")
    with progress.showing("Measuring the steps") as show:
        found = dream_ray.suggest(
            store, time_budget=time_budget, ipc=ipc, assignments=assignments or (), device=device, progress=show
        )
    suggestions.show_suggestion(found)
    given = ["--time-budget", time_budget, *([] if ipc is None else ["--set", f"ipc={ipc}"])]
    given += [part for text in assignments or () for part in ("--set", text)]
    if out is not None:
        storage.write_text(out, found.to_yaml())
        typer.echo(f"settings: {out}")
        given = ["--config", out]
    suggestions.show_next(found, given)
