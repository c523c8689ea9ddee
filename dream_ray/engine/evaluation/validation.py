"""Accuracies of protocol quick on the validation split during a run.

A checkpoint whose step is a multiple of `evaluation.every` is kept until its accuracy is written. A process that waits
for the run computes the accuracy, usually in another process than the workers.
"""

import statistics
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from dream_ray import storage
from dream_ray.engine.evaluation.kept_reports import validation_file
from dream_ray.engine.evaluation.scores import balanced_accuracy
from dream_ray.engine.evaluation.tasks import distilled_task, run_task
from dream_ray.engine.run.checkpoint import Checkpoints
from dream_ray.engine.run.directory import Run, open_run

_POLL_S = 0.5


def pinned_steps(run: Run, checkpoints: Checkpoints) -> set[int]:
    """Returns the steps with a directory that the settings keep, or whose validation accuracy is not yet written."""
    steps = checkpoints.steps()
    return set(filter(run.config.keeps, steps)) | _due_steps(run, steps)


def _due_steps(run: Run, steps: Iterable[int]) -> set[int]:
    """Returns the steps whose validation accuracy is due and not yet written."""
    every = run.config.evaluation.every
    if every == 0:
        return set()
    done = set(storage.list_directory(run.file("validation")))
    return {step for step in steps if step % every == 0 and validation_file(step) not in done}


def pending_steps(run: Run, checkpoints: Checkpoints) -> list[int]:
    """Returns the complete steps whose validation accuracy is due and not yet written, ascending."""
    # The workers may delete other steps meanwhile.
    return checkpoints.complete_steps(_due_steps(run, checkpoints.steps()))


def validate_step(run_path: str, step: int) -> float:
    """Trains `evaluation.repeats` networks on the synthetic set of a step and writes their validation accuracies.

    Returns:
        The mean accuracy in [0, 1].

    Raises:
        OutOfMemory: If memory runs out.
        RunError: If a network diverges.
    """
    run = open_run(run_path)
    tasks = (distilled_task(run, "validation", step, repeat) for repeat in range(run.config.evaluation.repeats))
    results = [run_task(task, run.device.type) for task in tasks]
    accuracies = [result.finite_accuracy() for result in results]
    accuracy = statistics.fmean(accuracies)
    row = {
        "step": step,
        "accuracy": accuracy,
        "accuracies": accuracies,
        "balanced": statistics.fmean(balanced_accuracy(result.hits_L, result.images_L) for result in results),
        "images_of_classes": results[0].images_L,
        "epochs": results[0].epochs,
        "seconds": sum(result.seconds for result in results),
    }
    storage.write_json(run.file("validation", validation_file(step)), row)
    return accuracy


def validate_pending(run: Run, look: Callable[[], None], step: int) -> None:
    """Validates the checkpoints whose accuracy is due, in this thread, then calls `look`.

    The initial images (step 0) are left out, because they are the same for all trials of a sweep.

    Args:
        run: The run.
        look: Reads the new accuracies.
        step: Step of the checkpoint that was just written.
    """
    for due in pending_steps(run, run.checkpoints()):
        if due:
            validate_step(run.path, due)
    look()


@contextmanager
def background_validation(run: Run, validate: Callable[[str, int], object]) -> Iterator[None]:
    """Validates the checkpoints of a run while the block runs, one after the other; then those that are still due.

    Args:
        run: The run; without `evaluation.every`, nothing happens.
        validate: Calls `validate_step` in another process; if it could not, it is called again.
    """
    if run.config.evaluation.every == 0:
        yield
        return
    checkpoints = run.checkpoints()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL_S):
            for step in pending_steps(run, checkpoints)[:1]:
                validate(run.path, step)

    with ThreadPoolExecutor(max_workers=1) as pool:
        watching = pool.submit(watch)
        try:
            yield
        finally:
            done.set()
    watching.result()
    while steps := pending_steps(run, checkpoints):
        validate(run.path, steps[0])
