"""The runs of a sweep: those of its trials, whose validation accuracies are rungs, and the final ones."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.engine.backend import Backend, Producers
from dream_ray.engine.evaluation.real_sets import begin_real_set, real_set_tasks, select_images
from dream_ray.engine.evaluation.scores import balanced_accuracy, classes_with_images
from dream_ray.engine.evaluation.tasks import distilled_task, run_task
from dream_ray.engine.evaluation.validation import validate_step
from dream_ray.engine.planning.plan import begin_run
from dream_ray.engine.run.directory import Run, open_run, read_sessions
from dream_ray.engine.run.environment import total_cost
from dream_ray.engine.run.lifecycle import check_device, finish_run
from dream_ray.engine.run.metrics import read_validation
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import RunError, TransientError, UsageError
from dream_ray.sweeps.directory import REASON, TROUBLE, cached_failure, run_directory
from dream_ray.sweeps.file import num_rungs
from dream_ray.sweeps.final_runs import TESTED

_POLL_S = 1.0


@dataclass(frozen=True)
class Rung:
    """A validation accuracy of a trial.

    Attributes:
        number: 1, 2, ...; the last rung is the end of the run.
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
        backend: Executes the workers.
        options: Fields of `RunSpec` that all runs share.
    """

    backend: Backend
    options: Mapping[str, Any]

    def begin(self, path: str, config: Config, store: str) -> Run:
        """Opens the run if an earlier try began it, else begins it.

        Raises:
            TransientError: If the earlier try was on a GPU and this process sees none.
        """
        if storage.exists(storage.join(path, "config.yaml")):
            run = open_run(path)
            try:
                check_device(run)
            except UsageError as error:
                raise TransientError(str(error)) from None  # another machine has a GPU
            return run
        storage.delete(path)  # a killed process left an incomplete run
        spec = RunSpec(config=config, store=store, out=path, **self.options)
        return begin_real_set(spec) if config.is_selection else begin_run(spec, Producers())

    def finish(self, run: Run, look: Callable[[], None] | None = None) -> None:
        """Runs the workers of a run to its last step and writes its products, unless they exist.

        Args:
            run: The run.
            look: Called when there may be new validation accuracies; None: validation runs in the background.
        """
        if run.is_finished:
            return
        if run.config.is_selection:
            place = {"device": run.environment["device"], "cpus": run.threads}
            for _ in self.backend.map(select_images, real_set_tasks(run), **place):
                pass
        else:
            self.backend.run_workers(run, run.spec, look=look)
        finish_run(run)


def run_trial(
    out: str, configs: list[Config], store: str, executor: TrialExecutor, report: Callable[[Rung], None]
) -> None:
    """Runs a trial to its end; resumes the runs of an earlier try.

    Args:
        out: Directory of the sweep.
        configs: Settings, one for each seed; the runs are sequential.
        store: Store to distil.
        executor: Executes the runs.
        report: Called with every rung: those of the first run, and at the end the mean over all runs. Its exceptions
            end the trial.

    Raises:
        RunError: If one of the runs cannot succeed, or failed in an earlier try because of its settings.
    """
    last = []
    for number, config in enumerate(configs):
        path = run_directory(out, config)
        with cache_failure(path), _alone(path):
            run = executor.begin(path, config, store)
            last.append(_finish(run, executor, report if number == 0 else lambda rung: None))
    accuracy = sum(end.accuracy for end in last) / len(last)
    report(Rung(last[0].number, accuracy, sum(end.compute_s for end in last)))


@contextmanager
def cache_failure(path: str) -> Iterator[None]:
    """Writes the reason why a run fails; if it can never succeed, raises the reason at once the next time.

    Wrong settings fail again. A second try may succeed after a kill, a full disk or a full GPU, which others may share.
    """
    if (reason := cached_failure(path)) is not None:
        raise RunError(reason)
    try:
        yield
    except (TransientError, OSError, torch.OutOfMemoryError) as error:
        storage.write_text(path + TROUBLE, str(error))
        raise
    except Exception as error:
        is_ours = isinstance(error, (UsageError, RunError))
        storage.write_text(path + REASON, str(error) if is_ours else f"{type(error).__name__}: {error}")
        raise


@contextmanager
def _alone(path: str) -> Iterator[None]:
    """Waits while another trial with the same settings executes the same run."""
    while True:
        with storage.claimed(f"{path}.claim") as ours:
            if ours:
                yield
                return
        time.sleep(_POLL_S)


def _finish(run: Run, executor: TrialExecutor, report: Callable[[Rung], None]) -> Rung:
    """Runs a run to its end; returns its last rung and reports the others as they are reached."""
    num_reported = 0

    def look() -> None:
        nonlocal num_reported
        for rung in read_rungs(run, num_reported)[: num_rungs(run.config) - 1 - num_reported]:
            num_reported += 1
            report(rung)

    look()  # reports the rungs of an earlier try
    executor.finish(run, look)
    look()  # before the last validation, because a scheduler may stop the trial
    rungs = read_rungs(run)
    if len(rungs) < num_rungs(run.config):
        validate_step(run.path, run.config.total_steps)
        rungs = read_rungs(run)
    return rungs[-1]


def read_rungs(run: Run, known: int = 0) -> list[Rung]:
    """Returns the rungs that a run has reached, without the first `known` ones."""
    # The accuracy of the initial images is not a rung.
    reached = [(step, accuracy) for step, accuracy in read_validation(run) if step][known:]
    if not reached:
        return []  # without the files of all sessions, which the cost needs
    compute_s, every = _compute_s(run), run.config.evaluation.every
    return [Rung(-(-step // every), accuracy, compute_s) for step, accuracy in reached]


def _compute_s(run: Run) -> float:
    cost = total_cost(read_sessions(run))
    return cost["cpu_s"] + cost["gpu_s"]


def run_final(path: str, config: Config, store: str, executor: TrialExecutor) -> None:
    """Distils with a fresh seed, trains a network on the result and writes its accuracy on the test split.

    Work that an earlier try finished is not repeated. If the run can never succeed, for example because its loss is not
    finite, `cache_failure` writes the reason instead.
    """
    try:
        with cache_failure(path):
            run = executor.begin(path, config, store)
            executor.finish(run)
            tested = run_task(distilled_task(run, "test"), run.device.type)
            row = {
                "accuracy": tested.finite_accuracy(),
                "balanced": balanced_accuracy(tested.hits_L, tested.images_L),
                "tested": sum(tested.images_L),
                "tested_classes": classes_with_images(tested.images_L),
                "epochs": tested.epochs,
                "compute_s": _compute_s(run),
            }
            storage.write_json(run.file(TESTED), row)
    except Exception:
        if cached_failure(path) is None:
            raise
