"""One trial: runs of the engine with its settings, whose validation accuracies are its rungs."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.engine.backend import Backend
from dream_ray.engine.begin import begin_run
from dream_ray.engine.evaluation.validation import read_validation, validate_step
from dream_ray.engine.run.directory import Run, open_run, read_sessions
from dream_ray.engine.run.environment import total_cost
from dream_ray.engine.run.lifecycle import check_device, finish_run
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.sweeps.file import num_rungs
from dream_ray.sweeps.run_directory import cached_failure, reason_file, run_directory, trouble_file

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
class TrialExecutor:
    """Executes the runs of a sweep.

    Attributes:
        backend: Where their workers run.
        options: Fields of `RunSpec` that all of them share.
    """

    backend: Backend
    options: Mapping[str, Any]

    def begin(self, path: str, config: Config, store: str) -> Run:
        """Opens the run of an earlier try, or begins it.

        Raises:
            TransientError: If the earlier try was on a GPU and this process sees none.
        """
        if storage.exists(storage.join(path, "config.yaml")):
            run = open_run(path)
            try:
                check_device(run)
            except UsageError as error:
                raise TransientError(str(error)) from None  # on another machine it is there
            return run
        storage.delete(path)  # a process was killed before it was a run
        return begin_run(RunSpec(config=config, store=store, out=path, **self.options), num_producers=0)

    def finish(self, run: Run, look: Callable[[], None] | None = None) -> None:
        """Runs the workers of a run to its last step and writes its products; does nothing if they are written.

        Args:
            run: The run.
            look: Called when there may be new validation accuracies; None: nobody waits for them.
        """
        if not run.is_finished:
            self.backend.run_workers(run, run.spec, look=look)
            finish_run(run)


def run_trial(
    out: str, configs: list[Config], store: str, executor: TrialExecutor, report: Callable[[Rung], None]
) -> None:
    """Runs a trial to its end, from where an earlier try left off.

    Args:
        out: Directory of the sweep.
        configs: Settings, one for each seed; the runs come one after the other.
        store: Store to distil.
        executor: Executes the runs.
        report: Told of every rung: on the way, of the first run; at the end, of the mean over all. What it raises ends
            the trial.

    Raises:
        RunError: If one of the runs cannot be done, now or at an earlier try.
    """
    last = []
    for number, config in enumerate(configs):
        path = run_directory(out, config)
        with cache_failure(path), _alone(path):
            run = executor.begin(path, config, store)
            last.append(_finish(run, executor, report if number == 0 else _report_to_nobody))
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


def _report_to_nobody(rung: Rung) -> None:
    pass


def _finish(run: Run, executor: TrialExecutor, report: Callable[[Rung], None]) -> Rung:
    """Runs a run to its end; returns its last rung and reports the others as they are reached."""
    num_reported = 0

    def look() -> None:
        nonlocal num_reported
        on_the_way = read_rungs(run)[: num_rungs(run.config) - 1]
        for rung in on_the_way[num_reported:]:
            num_reported += 1
            report(rung)

    look()  # those of an earlier try
    executor.finish(run, look)
    look()
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
