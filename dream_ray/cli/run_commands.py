"""Commands that start, continue and judge runs: arguments in, one call, a result shown.

Heavy imports happen inside the commands, so that `dream-ray --help` answers at once.
"""

from typing import Annotated, Any

import typer

from dream_ray.cli import display, progress
from dream_ray.cli.app import app
from dream_ray.cli.options import (
    Address,
    Assignments,
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
    Workers,
)
from dream_ray.cli.sizes import parse_bytes, parse_counts
from dream_ray.errors import UsageError


@app.command()
def presets(
    framework: Annotated[str | None, typer.Option("--framework", help="Only those of a framework, such as dm.")] = None,
) -> None:
    """List the published settings by name, and the frameworks that they are of."""
    from dream_ray.config import FRAMEWORKS, PRESETS, parse_config

    if framework not in (None, *FRAMEWORKS):
        raise UsageError(f"framework must be one of {', '.join(FRAMEWORKS)}; got {framework!r}")
    configs = {name: parse_config(make()) for name, make in PRESETS.items()}
    chosen = {name: config for name, config in configs.items() if framework in (None, config.framework)}
    display.show_presets({name: FRAMEWORKS[name] for name in FRAMEWORKS if framework in (None, name)}, chosen)


@app.command()
def settings() -> None:
    """List all settings with type, bounds, default and meaning, in Markdown."""
    from dream_ray.config.listing import list_settings

    print(list_settings(), end="")


@app.command()
def plan(
    store: Store,
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    workers: Workers = 1,
    local: Local = False,
    device: Device = "auto",
    cpus_per_worker: CpusPerWorker = 1,
    producers: Producers = None,
    compile: Compile = "auto",
    memory: Memory = None,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", min=0, help="Of a worker or producer, for the cost of the run.")
    ] = None,
    scale: Annotated[
        str | None, typer.Option("--scale", help="Numbers of workers to compare, such as 1,2,4,8.")
    ] = None,
) -> None:
    """Say what memory, time and traffic a run will take, before it is started."""
    from dream_ray import api
    from dream_ray.cli import forecasts
    from dream_ray.config import load_config

    there = None if memory is None else parse_bytes(memory)
    worker_counts = [] if scale is None else parse_counts(scale)
    settings = load_config(preset=preset, file=config, assignments=assignments or ())
    with progress.stages("Measuring the steps"):
        needed = api.plan(
            settings,
            store=store,
            workers=workers,
            producers=producers,
            local=local,
            device=device,
            cpus_per_worker=cpus_per_worker,
            compile=compile,
            memory_bytes=there,
        )
    forecasts.show_changes(settings, needed.config)
    forecasts.show_memory(needed.memory)
    forecasts.show_time(needed, price_per_hour)
    if worker_counts:
        forecasts.show_scale(needed, worker_counts, price_per_hour)


@app.command()
def distill(
    store: Store,
    out: Annotated[str, typer.Option("--out", help="New directory of the run.")],
    config: ConfigFile = None,
    preset: Preset = None,
    assignments: Assignments = None,
    workers: Workers = 1,
    min_workers: MinWorkers = None,
    local: Local = False,
    device: Device = "auto",
    cpus_per_worker: CpusPerWorker = 1,
    gpus_per_worker: Gpus = None,
    producers: Producers = None,
    bank: Annotated[
        str | None, typer.Option("--bank", help="Directory that keeps the networks for other runs like this one.")
    ] = None,
    bank_size: Annotated[str, typer.Option("--bank-size", help="Most that the bank may hold.")] = "20GB",
    compile: Compile = "auto",
    memory: Memory = None,
    address: Address = None,
) -> None:
    """Distil a store into a synthetic set."""
    from dream_ray import api, storage
    from dream_ray.cli import forecasts
    from dream_ray.config import load_config

    there = None if memory is None else parse_bytes(memory)
    settings = load_config(preset=preset, file=config, assignments=assignments or ())
    if there is not None:
        with progress.stages("Measuring the steps"):
            fitting = api.plan(
                settings,
                store=store,
                workers=workers,
                producers=producers,
                local=local,
                device=device,
                cpus_per_worker=cpus_per_worker,
                compile=compile,
                memory_bytes=there,
            ).config
        forecasts.show_changes(settings, fitting)
        settings = fitting
    with progress.interruptible(_resume(out), storage.join(out, "config.yaml")):
        api.distill(
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
            bank=bank,
            bank_bytes=parse_bytes(bank_size, "bank-size"),
            compile=compile,
            address=address,
            observer=progress.progress,
        )
    display.show_run(out)


@app.command()
def resume(
    run: Annotated[str, typer.Argument(help="Directory of a run or a sweep.")],
    workers: Annotated[int | None, typer.Option("--workers", help="Ray Train workers. [default: as before]")] = None,
    min_workers: MinWorkers = None,
    local: Local = False,
    gpus_per_worker: Gpus = None,
    producers: Producers = None,
    address: Address = None,
    allow_different_bits: Annotated[
        bool, typer.Option("--allow-different-bits", help="Go on with other library versions or another CPU.")
    ] = False,
    study: Study = None,
    max_concurrent: MaxConcurrent = None,
) -> None:
    """Continue a run or a sweep after a crash or a kill, to the same synthetic set; by default as it was started."""
    from dream_ray import api
    from dream_ray.cli import trials
    from dream_ray.sweep.directory import is_sweep

    if is_sweep(run):
        theirs = {
            "workers": workers is not None,
            "min-workers": min_workers is not None,
            "local": local,
            "gpus-per-worker": gpus_per_worker is not None,
            "producers": producers is not None,
            "allow-different-bits": allow_different_bits,
        }
        _refuse(theirs, f"is for runs, and {run} is a sweep; its file says what a trial has")
        with progress.interruptible(_resume(run)), trials.live(run, study):
            found = api.resume_sweep(run, study=study, max_concurrent=max_concurrent, address=address)
        trials.show_sweep(run, found)
        return
    _refuse({"max-concurrent": max_concurrent is not None}, f"is for sweeps, and {run} is a run")
    with progress.interruptible(_resume(run)):
        api.resume(
            run,
            workers=workers,
            min_workers=min_workers,
            local=local,
            gpus_per_worker=gpus_per_worker,
            producers=producers,
            address=address,
            allow_different_bits=allow_different_bits,
            observer=progress.progress,
        )
    display.show_run(run)


@app.command()
def status(
    run: Annotated[str, typer.Argument(help="Directory or URI of a run or a sweep.")], study: Study = None
) -> None:
    """Say how far a run is, how it is doing and how long it will take; any machine that reaches it can ask."""
    from dream_ray import api
    from dream_ray.cli import trials
    from dream_ray.sweep.directory import is_sweep
    from dream_ray.sweep.results import read_rows

    if is_sweep(run):
        trials.show_trials(read_rows(run, study))
        return
    display.show_status(run, api.status(run))


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="Directory of a finished run.")],
    net: Annotated[str | None, typer.Option("--net", help="Network to train. [default: the run's]")] = None,
    net_options: Annotated[
        list[str] | None, typer.Option("--net-option", help="Option of --net, key=value; may be repeated.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Fresh networks per arm, n.")] = 3,
    protocol: Annotated[str, typer.Option("--protocol", help="quick or published.")] = "quick",
    split: Annotated[str, typer.Option("--split", help="test or validation.")] = "test",
    arms: Annotated[str | None, typer.Option("--arms", help="Comma-separated part of the arms. [default: all]")] = None,
    local: Local = False,
    address: Address = None,
) -> None:
    """Train networks on the synthetic set and its baselines and test them."""
    from dream_ray import api
    from dream_ray.engine.arms import ARMS

    with progress.counter("Evaluating") as on_result:
        rows = api.evaluate(
            run,
            network=_network(net, net_options or []),
            repeats=repeats,
            protocol=protocol,
            split=split,
            arms=tuple(ARMS) if arms is None else tuple(arm.strip() for arm in arms.split(",")),
            local=local,
            address=address,
            on_result=on_result,
        )
    display.show_evaluation(run, rows, protocol=protocol, split=split)


def _resume(run: str) -> str:
    return f"`dream-ray resume {run}` goes on from the last checkpoint"


def _refuse(given: dict[str, bool], why: str) -> None:
    for name in (name for name, is_given in given.items() if is_given):
        raise UsageError(f"--{name} {why}")


def _network(name: str | None, options: list[str]) -> Any:
    from dream_ray.config.sections import Network
    from dream_ray.config.yaml_text import parse_assignment

    if name is None:
        if options:
            raise UsageError("--net-option needs --net")
        return None
    pairs = (parse_assignment(option, "--net-option", "key=value") for option in options)
    return Network(name=name, options=dict(pairs))
