"""Runs executed in this process, without Ray: workers and producers are threads.

PyTorch releases the GIL while it computes, so threads use several cores.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any

from dream_ray.engine.backend import Item, Producers, Result
from dream_ray.engine.evaluation.validation import background_validation, validate_pending, validate_step
from dream_ray.engine.models.spec import TrainSpec
from dream_ray.engine.models.training.worker import train
from dream_ray.engine.networks.sources import NetworkState
from dream_ray.engine.prefetch.producer import make_expert, missing_experts
from dream_ray.engine.prefetch.snapshot_queue import SnapshotQueue
from dream_ray.engine.prefetch.threads import LocalConsumerSide, producing_threads
from dream_ray.engine.progress.heartbeat import Report, discard_report
from dream_ray.engine.run.class_costs import class_counts, placement
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import resolve_device
from dream_ray.engine.run.process_memory import spawned_process
from dream_ray.engine.run.spec import RunSpec
from dream_ray.engine.stopping import (
    LocalAgreement,
    Stopped,
    Stopping,
    ask_at_ctrl_c,
    ctrl_c_as_before,
    ctrl_c_held_back,
    end_at_ctrl_c,
    ignore_first_ctrl_c,
)
from dream_ray.engine.worker import WorkerContext, work
from dream_ray.errors import RunError, UsageError


class LocalBackend(AbstractContextManager["LocalBackend"]):
    """Executes runs in this process, see `Backend`.

    Args:
        report: Returns the receiver of a worker's progress, from the path of the run and the rank of the worker.
    """

    def __init__(self, report: Callable[[str, int], Report] = lambda path, rank: discard_report) -> None:
        self._report = report

    def __exit__(self, *error: object) -> None:
        pass

    def call(
        self, function: Callable[..., Result], *arguments: Any, device: str, cpus: int, gpus: float | None = None
    ) -> Result:
        """See `Backend.call`."""
        return function(*arguments)

    def map(
        self,
        function: Callable[[Item, str], Result],
        items: Iterable[Item],
        *,
        device: str,
        cpus: int,
        gpus: float | None = None,
        at_a_time: int | None = None,
    ) -> Iterator[Result]:
        """See `Backend.map`; processes one item after the other."""
        return (function(item, device) for item in items)

    def check_visible(self, name: str, path: str, file: str) -> None:
        """Does nothing: workers are in this process."""

    def producers(self, spec: RunSpec) -> Producers:
        """See `Backend.producers`; the default is one if a core is free or several workers need it."""
        if not spec.config.source.is_trained_ahead:
            return Producers()
        if spec.producers is not None:
            return Producers(spec.producers)
        on_cpu = resolve_device(spec.device).type == "cpu"
        return Producers(int(spec.workers > 1 or (on_cpu and multiprocessing.cpu_count() > spec.threads)))

    def cores(self) -> int:
        """See `Backend.cores`."""
        return multiprocessing.cpu_count()

    def run_workers(self, run: Run, spec: RunSpec, *, look: Callable[[], None] | None = None) -> None:
        """See `Backend.run_workers`.

        Validation runs in another process; with `look`, it runs in this thread before the next step.
        """
        placed = placement(run.config, class_counts(run.config, run.open_store()), spec.workers)
        num_producers = self.producers(spec).count
        agreement = LocalAgreement()
        stopped: list[int] = []
        with ExitStack() as ending:
            if look is None:
                ending.enter_context(_validation_beside(run, spec))
            for expert in missing_experts(run):
                make_expert(run.path, expert)
            queue = ending.enter_context(producing_threads(run, num_producers)) if num_producers else None
            # Networks trained on synthetic images cannot be retrained, so a checkpoint must be before a whole step.
            if spec.workers > 1 or run.config.source.kind == "synthetic":
                ending.enter_context(ctrl_c_as_before())
                ask_at_ctrl_c(agreement.ask)

            @contextmanager
            def join(rank: int, run: Run) -> Iterator[WorkerContext]:
                try:
                    yield WorkerContext(
                        rank=rank,
                        num_workers=spec.workers,
                        labels=placed[rank],
                        stopping=Stopping(agreement, rank, spec.workers),
                        snapshots=None if queue is None else LocalConsumerSide(queue, rank, spec.workers),
                        report=self._report(run.path, rank),
                        on_checkpoint=None if look is None else partial(validate_pending, run, look),
                    )
                except Stopped:
                    stopped.append(rank)

            others = ending.enter_context(_other_workers(run, join, spec.workers, queue, agreement))
            work(run.path, partial(join, 0))
            for other in others:
                other.result()
        if stopped:
            raise KeyboardInterrupt

    def train_model(self, spec: TrainSpec, begun: dict[str, Any]) -> None:
        """See `Backend.train_model`."""
        train(spec, begun)


@contextmanager
def _other_workers(
    run: Run,
    join: Callable[[int, Run], AbstractContextManager[WorkerContext]],
    num_workers: int,
    queue: SnapshotQueue[NetworkState] | None,
    agreement: LocalAgreement,
) -> Iterator[list[Future[None]]]:
    """Runs all workers but the first in threads; after the block they end at their next snapshot or step.

    Args:
        run: The run.
        join: Makes a thread a worker.
        num_workers: Number of workers.
        queue: Snapshot queue, which ends the workers that wait at it; None: the networks of the run are frozen.
        agreement: Ends the workers before a step.
    """
    if num_workers == 1:
        yield []
        return

    def work_beside(rank: int) -> None:
        try:
            work(run.path, partial(join, rank))
        except Exception as error:
            is_ours = isinstance(error, (UsageError, RunError))
            if queue is None:
                agreement.ask()
            else:
                queue.close(str(error) if is_ours else f"a worker failed: {error!r}")
            raise

    with ExitStack() as ending:
        threads = ending.enter_context(ThreadPoolExecutor(num_workers - 1, thread_name_prefix="worker"))
        ending.callback(agreement.ask if queue is None else queue.close)
        ending.callback(agreement.break_off)
        yield [threads.submit(work_beside, rank) for rank in range(1, num_workers)]


@contextmanager
def _validation_beside(run: Run, spec: RunSpec) -> Iterator[None]:
    """Validates checkpoints in another process while the block runs."""
    at_ctrl_c = ignore_first_ctrl_c if spec.workers > 1 else end_at_ctrl_c
    with spawned_process("evaluation.every", "validates", at_ctrl_c) as pool:

        def validate(path: str, step: int) -> None:
            with ctrl_c_held_back():
                validating = pool.submit(validate_step, path, step)
            validating.result()

        with background_validation(run, validate):
            yield
