"""`dream-ray plan`."""

from typing import Annotated

import typer

import dream_ray
from dream_ray.cli import progress
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
    Store,
    Wait,
    Workers,
)


def plan(
    *,
    store: Store,
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
) -> None:
    """Predict memory, time and traffic of a run.

    Memory and the time of each step are measured where the workers would run. The time of the run is a prediction.
    """
    from dream_ray.cli import forecasts
    from dream_ray.config.sizes import parse_counts

    worker_counts = [] if scale is None else parse_counts(scale)
    settings = dream_ray.load_config(preset=preset, file=config, assignments=assignments or ())
    with progress.showing("Measuring the steps"):
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
        )
    forecasts.show_changes(settings, needed.config)
    forecasts.show_memory(needed.memory)
    forecasts.show_time(needed, price_per_hour)
    if worker_counts:
        forecasts.show_scale(needed, worker_counts, price_per_hour)
