"""One worker of a run: distils its classes from the newest complete checkpoint to the last step.

It does not depend on Ray: a backend calls it in a thread or in a Ray Train worker.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

import torch

from dream_ray.core.placement import Labels
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup, ProcessGroupLeft
from dream_ray.engine.components import make_components
from dream_ray.engine.distill import AnyInput, distill
from dream_ray.engine.evaluation.validation import pinned_steps
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.networks.prefetched import ConsumerSide
from dream_ray.engine.networks.sources import NetworkState, Source
from dream_ray.engine.progress.heartbeat import Heartbeat, Report, discard_report
from dream_ray.engine.progress.phase_timer import PhaseTimer
from dream_ray.engine.run.checkpoint import Checkpoints, Write, background_writer
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.environment import fixed_arithmetic
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors
from dream_ray.engine.run.programs.compilation import check_compiler
from dream_ray.engine.stopping import LocalAgreement, Stopped, Stopping


@dataclass(frozen=True)
class WorkerContext:
    """The place of a worker among the workers of a run.

    Attributes:
        rank: Rank of the worker.
        num_workers: Number of workers.
        labels: Classes of this worker.
        world_group: All workers, if they exchange tensors at every step (source.kind synthetic or expert).
        snapshots: Side of the snapshot queue; None: this worker trains the networks itself.
        stopping: Agreement with the other workers on the step at which all stop.
        should_stop: Checked after every checkpoint.
        on_checkpoint: Called with the step of every checkpoint after it is written; None: the worker does not wait for
            the write.
        report: Called with every progress that is written.
    """

    rank: int
    num_workers: int
    labels: Labels
    world_group: ProcessGroup = SINGLE_PROCESS_GROUP
    snapshots: ConsumerSide | None = None
    stopping: Stopping = field(default_factory=lambda: Stopping(LocalAgreement()))
    should_stop: Callable[[], bool] = lambda: False
    on_checkpoint: Callable[[int], None] | None = None
    report: Report = discard_report


Join = Callable[[Run], AbstractContextManager[WorkerContext]]
"""Makes this process or thread a worker of a run during a block. `Stopped` ends the block if all workers stop."""


def work(run_path: str, join: Join) -> None:
    """Distils some classes of a run to the last step; does nothing if its last checkpoint exists.

    Args:
        run_path: Directory of the run.
        join: Yields the classes of the worker and its connections to the other workers.

    Raises:
        Stopped: If the workers stop, or one that this worker depends on did; `join` may catch it.
        UsageError: If the run is compiled and this machine cannot compile.
        OutOfMemory: If memory runs out.
    """
    run = open_run(run_path)
    with join(run) as context, memory_errors(), _announced_end(context):
        if _decide(context, lambda stopping: stopping.begin()):
            raise Stopped
        if run.compiled:
            check_compiler(run.device)
        keep_freed_memory()
        checkpoints = run.checkpoints()
        with ExitStack() as ending:
            store = ending.enter_context(run.reading_store())
            # The heartbeat ends last, after all files are written.
            heartbeat = ending.enter_context(
                Heartbeat(run, context.rank, context.num_workers, len(context.labels), context.report)
            )
            resumed_at, state = _newest(checkpoints, context)
            _move(state, run.device)
            heartbeat.begin(max(resumed_at, 0))
            ending.enter_context(fixed_arithmetic(run.threads, run.config.precision))
            write = ending.enter_context(background_writer(partial(_write, run, checkpoints, context)))
            source, select, matcher = ending.enter_context(
                make_components(run, store, context.labels, state, heartbeat, context.snapshots, context.world_group)
            )
            distill(
                run.config,
                state,
                source=_TimedSource(source, heartbeat.timer),
                select=heartbeat.timer.phase("selecting_s")(select),
                matcher=matcher,
                events=_Events(run, context, heartbeat, write, resumed_at),
            )
        context.stopping.finish(run.config.total_steps)
        heartbeat.end()


@dataclass(frozen=True)
class _TimedSource(Generic[AnyInput]):
    """A source whose time is added to networks_s."""

    source: Source[AnyInput]
    timer: PhaseTimer

    def trajectory(self, outer: int, start: int = 0, state: NetworkState | None = None) -> Iterator[AnyInput]:
        """See `Source.trajectory`."""
        inputs = self.source.trajectory(outer, start, state)
        while True:
            with self.timer.phase("networks_s"):
                step_input = next(inputs, None)
            if step_input is None:
                return
            yield step_input


@contextmanager
def _announced_end(context: WorkerContext) -> Iterator[None]:
    """Informs the other workers when this one ends, for any reason."""
    try:
        try:
            yield
        finally:
            context.world_group.leave()
    except BaseException as error:
        context.stopping.break_off()
        if isinstance(error, ProcessGroupLeft):
            raise Stopped from None
        raise


def _decide(context: WorkerContext, whether: Callable[[Stopping], bool]) -> bool:
    """Evaluates a question about stopping on the first worker of the world group, for all of its workers."""
    decided = int(context.world_group.rank == 0 and whether(context.stopping))
    return bool(context.world_group.all_gather([torch.tensor([decided])])[0][0])


def _newest(checkpoints: Checkpoints, context: WorkerContext) -> tuple[int, RunState]:
    """Loads the newest complete checkpoint; all workers of a group start at the one that its first worker found.

    A newer one may be completed while the others look.

    Returns:
        Its step, or -1 if there is none, and the state.
    """
    found, group = checkpoints.latest(context.labels), context.world_group
    own = -1 if found is None else found[0]
    step = int(group.all_gather([torch.tensor([own])])[0][0])
    if step != own:
        found = None if step < 0 else (step, checkpoints.load(step, context.labels))
    # No worker may delete old checkpoints before all have loaded theirs.
    group.all_gather([torch.empty(0)])
    return (-1, RunState()) if found is None else found


def _move(state: RunState, device: torch.device) -> None:
    for class_state in state.classes.values():
        for name, tensor in vars(class_state).items():
            if name not in ("indices", "boxes") and tensor is not None:  # the host reads these
                setattr(class_state, name, tensor.to(device))
    state.learned = {name: tensor.to(device) for name, tensor in state.learned.items()}


def _write(run: Run, checkpoints: Checkpoints, context: WorkerContext, state: RunState) -> None:
    step = run.config.step_of(state.outer, state.inner)
    checkpoints.save(state, step=step, shard=context.rank, num_shards=context.num_workers)
    checkpoints.prune(pinned_steps(run, checkpoints))


@dataclass
class _Events:
    """Writes the checkpoints and the progress of a worker; see `Events`.

    Attributes:
        run: The run.
        context: The worker.
        heartbeat: Writes its progress.
        write: Starts to write a checkpoint.
        resumed_at: Step of the checkpoint that it resumed from, or -1.
    """

    run: Run
    context: WorkerContext
    heartbeat: Heartbeat
    write: Write
    resumed_at: int

    def is_checkpoint_due(self, step: int) -> bool:
        """Returns whether the settings ask for a checkpoint, or all workers stop at this step."""
        self.heartbeat.is_stopped = _decide(self.context, lambda stopping: stopping.stops_before(step))
        return self.heartbeat.is_stopped or (self.run.config.saves_at(step) and step != self.resumed_at)

    def on_checkpoint(self, state: RunState) -> None:
        """Writes a checkpoint; raises Stopped if the worker ends after it."""
        step = self.run.config.step_of(state.outer, state.inner)
        self.heartbeat.flush(step)
        # In trajectory matching, all workers hold the same images of all classes.
        if self.context.rank == 0 or self.run.config.matching.objective != "trajectory":
            with self.heartbeat.pause():
                written = self.write(state)
                if self.context.on_checkpoint is not None:
                    written.result()
                    self.context.on_checkpoint(step)
        if self.heartbeat.is_stopped or self.context.should_stop():
            raise Stopped

    def on_step(self, step: int, losses: dict[int, float]) -> None:
        """Writes the losses."""
        self.heartbeat.on_step(step, losses)

    def on_interrupt(self, state: RunState) -> None:
        """Saves the state if the run can resume from it."""
        # Several workers are at different steps, and networks trained on synthetic images cannot be retrained to here.
        if self.context.num_workers == 1 and self.run.config.source.kind != "synthetic":
            self.heartbeat.is_stopped = True
            self.heartbeat.flush(self.run.config.step_of(state.outer, state.inner))
            self.write(state)
