"""One trial: runs of the engine with its settings, whose validation accuracies are its rungs."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dream_ray import storage
from dream_ray.config import Config, dump_config
from dream_ray.engine.environment import total_cost
from dream_ray.engine.launch import Launch
from dream_ray.engine.run import Run, create_run, finish_run, open_run, read_sessions
from dream_ray.engine.validation import pending_steps, validate_step
from dream_ray.engine.worker import work
from dream_ray.errors import RunError, UsageError


@dataclass(frozen=True)
class Rung:
    """A validation accuracy on the way.

    Attributes:
        number: 1, 2, ... of the rungs of a whole trial.
        accuracy: In [0, 1].
        compute_s: CPU and GPU seconds so far.
    """

    number: int
    accuracy: float
    compute_s: float


_REASON = "reason.txt"

Execute = Callable[[Run, Callable[[], None]], None]
"""Runs the workers of a run, and calls what it is given whenever there may be a new checkpoint."""


def run_directory(out: str, config: Config) -> str:
    """Returns where the run of some settings lies in a sweep: the same for the same settings, whoever asks."""
    digest = hashlib.sha256(dump_config(config).encode()).hexdigest()[:16]
    return storage.join(out, "trials", digest)


def run_trial(
    out: str,
    configs: list[Config],
    store: str,
    *,
    device: torch.device,
    threads: int,
    launch: Launch,
    execute: Execute,
    report: Callable[[Rung], None],
) -> Rung:
    """Runs a trial to its end, from where an earlier try left off.

    Args:
        out: Directory of the sweep.
        configs: Settings, one for each seed. The runs come one after the other; the first tells its rungs as they
            come, for whoever may want to stop the trial.
        store: Store to distil.
        device: Device of the workers.
        threads: Threads of each.
        launch: Who works on a run.
        execute: Runs the workers.
        report: Told of every rung of the first run; what it raises ends the trial.

    Returns:
        The last rung, means over the seeds.
    """
    ends = []
    for number, config in enumerate(configs):
        path = run_directory(out, config)
        try:
            run = _begun(path, config, store, device, threads, launch)
            ends.append(_run(run, execute, report if number == 0 else _nobody))
        except (UsageError, RunError) as error:
            storage.write_text(storage.join(path, _REASON), str(error))
            raise
    accuracy = sum(end.accuracy for end in ends) / len(ends)
    last = Rung(ends[0].number, accuracy, sum(end.compute_s for end in ends))
    if len(ends) > 1:
        report(last)
    return last


def read_reason(out: str, configs: list[Config]) -> str:
    """Returns why a trial failed, as far as it could say so."""
    paths = [storage.join(run_directory(out, config), _REASON) for config in configs]
    return next((storage.read_text(path) for path in paths if storage.exists(path)), "")


def _nobody(rung: Rung) -> None:
    pass


def _begun(path: str, config: Config, store: str, device: torch.device, threads: int, launch: Launch) -> Run:
    if storage.exists(storage.join(path, "config.yaml")):
        return open_run(path)
    return create_run(path, config, store, device=device, threads=threads, launch=launch)


def _run(run: Run, execute: Execute, report: Callable[[Rung], None]) -> Rung:
    told = 0
    checkpoints = run.checkpoints(run.open_store().num_classes)

    def look() -> None:
        nonlocal told
        for step in pending_steps(run, checkpoints):
            if step:  # the initial images are no rung
                validate_step(run.path, step)
        rungs = read_rungs(run)
        for rung in rungs[told:]:
            told += 1
            report(rung)

    look()  # those of an earlier try
    if not run.is_finished:
        execute(run, look)
        look()
        finish_run(run)
    return read_rungs(run)[-1]


def read_rungs(run: Run) -> list[Rung]:
    """Returns the validation accuracies of a run, in order of steps."""
    spent = total_cost(read_sessions(run))
    rungs = []
    for name in storage.list_directory(run.file("validation")):
        row = json.loads(storage.read_text(run.file("validation", name)))
        if row["step"]:
            done = row["step"] / max(1, run.config.total_steps)
            compute_s = (spent["cpu_s"] + spent["gpu_s"]) * min(1.0, done)
            rungs.append(Rung(row["step"] // run.config.evaluation.every, row["accuracy"], compute_s))
    return rungs


def execute_here(run: Run, look: Callable[[], None]) -> None:
    """Runs the one worker of a run in this thread; looks at the rungs between two steps."""

    def between() -> bool:
        look()
        return False

    work(run.path, range(run.open_store().num_classes), shard=0, num_shards=1, should_stop=between)
