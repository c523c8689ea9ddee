"""Commands that start, continue and show runs.

Heavy imports happen inside the commands, or when a name of `dream_ray` is first used: `dream-ray --help` answers at
once.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import dream_ray
from dream_ray.cli import display, given_settings, progress, run_state, suggestions
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
    MaxConcurrent,
    Memory,
    MinWorkers,
    Preset,
    Producers,
    Store,
    Study,
    Wait,
    Workers,
    refuse_options,
)
from dream_ray.errors import UsageError


def distill(
    *,
    store: Store,
    out: Annotated[str, typer.Option("--out", help="New directory of the run.")],
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    time_budget: Annotated[
        str | None,
        typer.Option("--time-budget", help="Time of the run, such as 1h; `dream-ray suggest` then gives all settings."),
    ] = None,
    workers: Workers = 1,
    min_workers: MinWorkers = None,
    local: Local = False,
    device: Device = "auto",
    cpus_per_worker: CpusPerWorker = 1,
    gpus_per_worker: Gpus = None,
    producers: Producers = None,
    snapshot_cache: Annotated[
        str | None,
        typer.Option("--snapshot-cache", help="Directory that keeps networks for other runs with equal settings."),
    ] = None,
    snapshot_cache_size: Annotated[
        str, typer.Option("--snapshot-cache-size", help="Largest size of the snapshot cache.")
    ] = "20GB",
    compile: Compile = "auto",
    class_batch: ClassBatch = None,
    memory: Memory = None,
    from_set: Annotated[
        str | None, typer.Option("--from", help="Set to start from: a file, a run or an export. [default: real images]")
    ] = None,
    address: Address = None,
    wait: Wait = "10min",
) -> None:
    """Distil a store into a synthetic set."""
    from dream_ray import storage
    from dream_ray.engine.run.directory import check_new

    check_new(out)  # before seconds of measurements
    if time_budget is None:
        settings = given_settings.read_settings(store, preset, config, assignments)
    else:
        found = given_settings.suggest_within(
            time_budget,
            store,
            preset=preset,
            config=config,
            assignments=assignments or (),
            workers=workers,
            producers=producers,
            local=local,
            device=device,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            address=address,
            wait=wait,
        )
        suggestions.show_suggestion(found)
        settings = found.config
    with progress.interruptible(_resume(out), storage.join(out, "config.yaml")):
        dream_ray.distill(
            settings,
            store=store,
            out=out,
            workers=workers,
            min_workers=min_workers,
            local=local,
            device=device,
            cpus_per_worker=cpus_per_worker,
            gpus_per_worker=gpus_per_worker,
            producers=producers,
            snapshot_cache=snapshot_cache,
            snapshot_cache_size=snapshot_cache_size,
            compile=compile,
            class_batch=class_batch,
            memory=memory,
            from_set=from_set,
            address=address,
            wait=wait,
            observer=lambda run: _observe(run, settings),
        )
    display.show_run(out, local=local)


def resume(
    run: Annotated[str, typer.Argument(help="Directory of a run or a sweep.")],
    *,
    workers: Annotated[int | None, typer.Option("--workers", help="Ray Train workers. [default: as before]")] = None,
    min_workers: MinWorkers = None,
    local: Local = False,
    gpus_per_worker: Gpus = None,
    producers: Producers = None,
    address: Address = None,
    wait: Wait = "10min",
    allow_different_bits: Annotated[
        bool, typer.Option("--allow-different-bits", help="Continue with other library versions or another CPU.")
    ] = False,
    outer_steps: Annotated[
        int | None, typer.Option("--outer-steps", help="New total of outer steps, of a finished run too.")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", help="Time to go on for, such as 30min, instead of --outer-steps.")
    ] = None,
    store: Annotated[str | None, typer.Option("--store", help="New path of a store that was moved.")] = None,
    study: Study = None,
    max_concurrent: MaxConcurrent = None,
) -> None:
    """Continue a run or a sweep from its newest checkpoint.

    By default, it continues with the workers that it was started with. Any number of workers gives the same result.
    --outer-steps or --time-budget lengthens a run, finished or not: the result is that of a long run from the start.
    """
    from dream_ray import storage
    from dream_ray.cli import trials
    from dream_ray.engine.models.model import is_training
    from dream_ray.experiments.file import is_experiment
    from dream_ray.sets.set_file import SET_FILE
    from dream_ray.sweeps.directory import is_sweep

    if is_experiment(run):
        raise UsageError(f"{run} is an experiment; continue it with the `dream-ray experiment` command that began it")
    if is_training(run):
        raise UsageError(f"{run} is a model or a pool; continue it with the `dream-ray train` command that began it")
    if is_sweep(run):
        theirs = {
            "workers": workers is not None,
            "min-workers": min_workers is not None,
            "local": local,
            "gpus-per-worker": gpus_per_worker is not None,
            "producers": producers is not None,
            "allow-different-bits": allow_different_bits,
            "outer-steps": outer_steps is not None,
            "time-budget": time_budget is not None,
            "store": store is not None,
        }
        refuse_options(theirs, f"is for runs, and {run} is a sweep; its file sets the resources of a trial")
        with progress.interruptible(_resume(run)), trials.live(run, study):
            found = dream_ray.resume_sweep(
                run, study=study, max_concurrent=max_concurrent, address=address, wait=wait, progress=False
            )
        trials.show_sweep(run, found)
        return
    refuse_options({"max-concurrent": max_concurrent is not None}, f"is for sweeps, and {run} is a run")
    was_finished = storage.exists(storage.join(run, SET_FILE)) and outer_steps is None and time_budget is None
    with progress.interruptible(_resume(run)):
        dream_ray.resume(
            run,
            workers=workers,
            min_workers=min_workers,
            local=local,
            gpus_per_worker=gpus_per_worker,
            producers=producers,
            address=address,
            wait=wait,
            allow_different_bits=allow_different_bits,
            outer_steps=outer_steps,
            time_budget=time_budget,
            store=store,
            observer=progress.progress,
        )
    display.show_run(run, local=local, with_cost=not was_finished)


def status(
    run: Annotated[str, typer.Argument(help="Directory or URI of a run, a sweep or an experiment.")],
    *,
    study: Study = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow a run until it ends.")] = False,
) -> None:
    """Print the state of a run, a sweep or an experiment.

    The command reads only files, from any machine that reaches them.
    """
    from dream_ray.cli import trials
    from dream_ray.experiments.file import is_experiment
    from dream_ray.sweeps.directory import is_sweep

    if is_sweep(run) or is_experiment(run):
        refuse_options({"watch": watch}, f"is for runs, and {run} is a sweep or an experiment")
    if is_sweep(run):
        trials.show_state(run, study)
        return
    if is_experiment(run):
        from dream_ray.cli.commands import experiments

        experiments.show_state(run)
        return
    if watch:
        run_state.watch(run)
    else:
        run_state.show_status(run, dream_ray.status(run))


@contextmanager
def _observe(run: Any, settings: Any) -> Iterator[None]:
    """Shows the settings that were changed to fit the memory, and the progress of a run."""
    from dream_ray.cli import forecasts

    forecasts.show_changes(settings, run.config)
    with progress.progress(run):
        yield


def _resume(run: str) -> str:
    return f"run `dream-ray resume {shlex.quote(run)}` to continue from the newest checkpoint"
