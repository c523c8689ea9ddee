"""One trial: runs of the engine with its settings, whose validation accuracies are its rungs."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.engine.environment import resolve_device, total_cost
from dream_ray.engine.launch import Launch
from dream_ray.engine.run import check_device, create_run, finish_run
from dream_ray.engine.run_directory import Run, open_run, read_sessions
from dream_ray.engine.session import Tell
from dream_ray.engine.validation import pending_steps, read_validation, validate_step
from dream_ray.engine.worker import work
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.sweep.file import num_rungs
from dream_ray.sweep.run_directory import cached_failure, reason_file, run_directory, trouble_file

_POLL_S = 1.0


@dataclass(frozen=True)
class Rung:
    """A validation accuracy on the way.

    Attributes:
        number: 1, 2, ...; the last one is that of the whole run.
        accuracy: In [0, 1].
        compute_s: CPU and GPU seconds so far.
    """

    number: int
    accuracy: float
    compute_s: float


@dataclass(frozen=True)
class Crew:
    """Who works on the runs of a trial.

    Attributes:
        device: Of the workers, and of the process of the trial, which begins and judges the runs: "cpu" or "cuda".
        threads: Of each.
        launch: How many they are, and where networks are kept.
        execute: Runs them to the end of a run; calls what it is given now and then, whenever there may be a new rung.
    """

    device: str
    threads: int
    launch: Launch
    execute: Callable[[Run, Callable[[], None]], None]


def run_trial(out: str, configs: list[Config], store: str, crew: Crew, report: Callable[[Rung], None]) -> None:
    """Runs a trial to its end, from where an earlier try left off.

    Args:
        out: Directory of the sweep.
        configs: Settings, one for each seed; the runs come one after the other.
        store: Store to distil.
        crew: Who works.
        report: Told of every rung: on the way, of the first run; at the end, of the mean over all. What it raises ends
            the trial.

    Raises:
        RunError: If one of the runs cannot be done, now or at an earlier try.
    """
    last = []
    for number, config in enumerate(configs):
        path = run_directory(out, config)
        with cache_failure(path), _alone(path):
            run = begin_again(path, config, store, crew)
            last.append(_run(run, crew, report if number == 0 else _nobody))
    accuracy = sum(end.accuracy for end in last) / len(last)
    report(Rung(last[0].number, accuracy, sum(end.compute_s for end in last)))


@contextmanager
def cache_failure(path: str) -> Iterator[None]:
    """Keeps the reason why a run cannot be done, and raises it at once the next time.

    What is wrong with settings is wrong again at a second try, which a process that was killed deserves, or one whose
    disk was full, or whose GPU, which it may share.
    """
    if (reason := cached_failure(path)) is not None:
        raise RunError(reason)
    try:
        yield
    except (TransientError, OSError, torch.OutOfMemoryError) as error:
        storage.write_text(trouble_file(path), str(error))
        raise
    except Exception as error:
        is_ours = isinstance(error, (UsageError, RunError))
        storage.write_text(reason_file(path), str(error) if is_ours else f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Waits while another trial, with the same settings, is at the same run."""
    while True:
        with storage.claimed(f"{path}.claim") as ours:
            if ours:
                yield
                return
        time.sleep(_POLL_S)


def begin_again(path: str, config: Config, store: str, crew: Crew) -> Run:
    """Opens the run of an earlier try, or begins it.

    Raises:
        TransientError: If the earlier try was on a GPU and there is none here.
    """
    if storage.exists(storage.join(path, "config.yaml")):
        run = open_run(path)
        try:
            check_device(run)
        except UsageError as error:
            raise TransientError(str(error)) from None  # on another machine it is there
        return run
    storage.delete(path)  # who made it was killed before it was a run
    device = resolve_device(crew.device)
    return create_run(path, config, store, device=device, threads=crew.threads, launch=crew.launch)


def _nobody(rung: Rung) -> None:
    pass


def _run(run: Run, crew: Crew, report: Callable[[Rung], None]) -> Rung:
    """Runs a run to its end; the last rung is returned, the others are reported."""
    told = 0

    def look() -> None:
        nonlocal told
        on_the_way = read_rungs(run)[: num_rungs(run.config) - 1]
        for rung in on_the_way[told:]:
            told += 1
            report(rung)

    look()  # those of an earlier try
    if not run.is_finished:
        crew.execute(run, look)
        look()
        finish_run(run)
    rungs = read_rungs(run)
    if len(rungs) < num_rungs(run.config):
        validate_step(run.path, run.config.total_steps)
        rungs = read_rungs(run)
    return rungs[-1]


def read_rungs(run: Run) -> list[Rung]:
    """Returns the rungs that a run has climbed."""
    cost, every = total_cost(read_sessions(run)), run.config.evaluation.every
    compute_s = cost["cpu_s"] + cost["gpu_s"]
    # The initial images are no rung.
    return [Rung(-(-step // every), accuracy, compute_s) for step, accuracy in read_validation(run) if step]


def execute_here(
    run: Run, look: Callable[[], None], telling: Callable[[str, int], Tell] = lambda path, rank: lambda progress: None
) -> None:
    """Runs the one worker of a run in this thread; the rungs are climbed between two of its steps.

    Args:
        run: A begun run.
        look: Called when there may be a new rung.
        telling: Makes what is told of the progress, from the path of the run and the rank of the worker.
    """
    checkpoints = run.checkpoints(run.open_store().num_classes)

    def climb() -> bool:
        for step in pending_steps(run, checkpoints):
            if step:
                validate_step(run.path, step)
        look()
        return False

    labels = range(run.open_store().num_classes)
    work(run.path, labels, shard=0, num_shards=1, should_stop=climb, tell=telling(run.path, 0))
    climb()
