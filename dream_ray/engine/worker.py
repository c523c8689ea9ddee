"""One worker of a run: distils its classes from the newest checkpoint to the end.

Knows nothing of Ray: `--local` calls it directly, a Ray Train worker calls it with its rank.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Generic

import torch

from dream_ray.core.pixel_space import PixelSpace
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup, ProcessGroupLeft
from dream_ray.core.selection import Selection
from dream_ray.data.store import Store
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.assembly import (
    build,
    class_matcher,
    fetched_networks,
    first_passes,
    trains_on_everything,
    warmed_up,
)
from dream_ray.engine.checkpoint import Checkpoints, background_writer
from dream_ray.engine.compilation import check_compiler
from dream_ray.engine.distill import AnyMoment, Matcher, Source, distill
from dream_ray.engine.environment import fixed_threads
from dream_ray.engine.gathering import Gathering
from dream_ray.engine.matching import Assignments, Select, decoder
from dream_ray.engine.network_source import NetworkSource, Snapshot, blank_network
from dream_ray.engine.out_of_memory import saying_what_needs_less_memory
from dream_ray.engine.run_directory import Run, open_run
from dream_ray.engine.segments import ExpertSegments, Segments
from dream_ray.engine.selecting import selecting_ahead
from dream_ray.engine.session import Session, Tell
from dream_ray.engine.state import ClassState, RunState
from dream_ray.engine.stopping import Stopped, Stopping
from dream_ray.engine.trajectories.fetched import ConsumerSide
from dream_ray.engine.trajectories.producing import experts, feature_bank, trained_networks
from dream_ray.engine.trajectory_matcher import TrajectoryMatcher
from dream_ray.engine.validation import pinned_steps


@saying_what_needs_less_memory()
def work(
    run_path: str,
    labels: Sequence[int],
    *,
    shard: int,
    num_shards: int,
    world_group: ProcessGroup = SINGLE_PROCESS_GROUP,
    should_stop: Callable[[], bool] = lambda: False,
    stopping: Stopping | None = None,
    networks: ConsumerSide | None = None,
    tell: Tell = lambda progress: None,
) -> None:
    """Distils some classes of a run to the end; does nothing where the last checkpoint is there.

    Args:
        run_path: Directory of the run.
        labels: Classes of this worker.
        shard: Number of this worker.
        num_shards: Number of workers.
        world_group: All workers, if they exchange tensors at every step (source.kind synthetic or expert).
        should_stop: Asked after every checkpoint.
        stopping: How it stops together with others; None: it does not.
        networks: Where the networks come from; None: this worker trains them itself.
        tell: Called with the progress whenever it is written.

    Raises:
        Stopped: If `should_stop` or `stopping` said so, or another worker that this one depends on stopped.
        UsageError: If the run is a compiled one and this machine cannot compile.
        OutOfMemory: If it needs more memory than there is.
    """
    try:
        with ExitStack() as ending:
            ending.callback(world_group.leave)
            worker = _Worker(open_run(run_path), tuple(labels), shard, num_shards, world_group, networks, stopping)
            worker.run_to_the_end(should_stop, tell)
    except BaseException as error:
        if stopping is not None:
            stopping.break_off()
        if isinstance(error, ProcessGroupLeft):
            raise Stopped from None
        raise


@dataclass(frozen=True)
class _Parts(Generic[AnyMoment]):
    """What `distill` is made of, see there."""

    matcher: Matcher[AnyMoment]
    source: Source[AnyMoment]
    initialise: Callable[[AnyMoment], dict[int, ClassState]]
    select: Callable[[AnyMoment, Assignments], dict[int, Selection]]


@dataclass(frozen=True)
class _Worker:
    """A worker; for its attributes see `work`."""

    run: Run
    labels: tuple[int, ...]
    shard: int
    num_shards: int
    world_group: ProcessGroup
    networks: ConsumerSide | None
    stopping: Stopping | None

    def run_to_the_end(self, should_stop: Callable[[], bool], tell: Tell) -> None:
        run = self.run
        if self.decide(lambda stopping: stopping.begin()):
            raise Stopped
        if run.compiled:
            check_compiler(run.device)
        keep_freed_memory()
        store = run.open_store()
        checkpoints = run.checkpoints(store.num_classes)
        with ExitStack() as ending:
            # Left last, when all is written.
            session = ending.enter_context(Session(run, self.shard, self.num_shards, len(self.labels), tell))
            found = _latest(checkpoints, self.labels, self.world_group)
            state = RunState() if found is None else found[1]
            _move(state, run.device)
            session.begin(0 if found is None else found[0])
            ending.enter_context(fixed_threads(run.threads))
            writer = ending.enter_context(background_writer(lambda state: self._write(checkpoints, state)))
            saving = _Saving(self, session, writer, should_stop, -1 if found is None else found[0])
            if run.config.matching.objective == "trajectory":
                _distill(run, self._trajectory_parts(store), state, session, saving)
            else:
                _distill(run, self._class_parts(store, state, session, ending), state, session, saving)
        if self.stopping is not None:
            self.stopping.finish(run.config.total_steps)
        session.end()

    @property
    def writes(self) -> bool:
        """Whether it writes checkpoints: in trajectory matching, all workers hold the same images of all classes."""
        return self.shard == 0 or self.run.config.matching.objective != "trajectory"

    def decide(self, whether: Callable[[Stopping], bool]) -> bool:
        """Decides about stopping; the first worker of the world group does so for all of it."""
        if self.stopping is None:
            return False
        decided = int(self.world_group.rank == 0 and whether(self.stopping))
        return bool(self.world_group.all_gather([torch.tensor([decided])])[0][0])

    def _write(self, checkpoints: Checkpoints, state: RunState) -> None:
        step = self.run.config.step_of(state.outer, state.inner)
        checkpoints.save(state, step=step, shard=self.shard, num_shards=self.num_shards)
        checkpoints.prune(pinned_steps(self.run, checkpoints))

    def _class_parts(self, store: Store, state: RunState, session: Session, ending: ExitStack) -> _Parts[Snapshot]:
        """Puts together what matches class by class; threads that it starts end with `ending`."""
        run, config, normalise = self.run, self.run.config, self.run.normalise(store)
        matcher = class_matcher(
            config, store, self.labels, normalise, compiled=run.compiled, features=feature_bank(run)
        )
        source: NetworkSource
        select: Select = matcher.select_all
        if self.networks is not None:
            self.networks.begin(config.step_of(state.outer, state.inner), state.network)
            source = fetched = fetched_networks(config, store, normalise, self.networks)
            select = ending.enter_context(selecting_ahead(config, matcher, fetched))
        elif config.source.kind == "synthetic":
            gathering = self._gathering(state, matcher.space)
            session.gathered_bytes = lambda: gathering.received_bytes
            source = trained_networks(run, store, gathering)
        else:
            source = trained_networks(run, store)

        def initialise(first: Snapshot) -> dict[int, ClassState]:
            if trains_on_everything(config):
                return matcher.initial_states(first)
            # In the bank, features of (0, 0) are those of the run's own first network.
            return replace(matcher, features=None).initial_states(self._initial_network(store))

        return _Parts(matcher, source, initialise, select)

    def _initial_network(self, store: Store) -> Snapshot:
        """Makes the network through which the initialisation looks, where the run has none that knows real images."""
        run = self.run
        return warmed_up(run.config, store, run.normalise(store), first_passes(run.config), compiled=run.compiled)

    def _gathering(self, state: RunState, space: PixelSpace) -> Gathering:
        decoded = decoder(self.run.config, self.run.config.evaluation_decode)
        return Gathering(state, space, decoded, self.world_group)

    def _trajectory_parts(self, store: Store) -> _Parts[Segments]:
        """Puts together what matches the trajectories of experts."""
        run, config, normalise = self.run, self.run.config, self.run.normalise(store)
        network = blank_network(lambda: build(config, store)).to(run.device)
        names = tuple(name for name, _ in network.named_parameters())
        ways = experts(run, store)
        matcher = TrajectoryMatcher(config, network, normalise, self.world_group)

        def initialise(first: Segments) -> dict[int, ClassState]:
            of_classes = class_matcher(config, store, self.labels, normalise, compiled=run.compiled)
            return of_classes.initial_states(self._initial_network(store))

        def select(moment: Segments, previous: Assignments) -> dict[int, Selection]:
            raise AssertionError("trajectories are matched without a selection")

        return _Parts(matcher, ExpertSegments(config, ways, names, run.device, self.world_group), initialise, select)


@dataclass
class _Saving:
    """When a worker saves, and whether it ends then.

    Attributes:
        worker: The worker.
        session: Its session.
        write: Writes a checkpoint.
        should_stop: See `work`.
        saved_at: Step of the checkpoint that it began with, or -1.
    """

    worker: _Worker
    session: Session
    write: Callable[[RunState], None]
    should_stop: Callable[[], bool]
    saved_at: int

    def saves_before(self, step: int) -> bool:
        """Tells whether to save before a step: it is time, or all workers stop there."""
        self.session.is_stopped = self.worker.decide(lambda stopping: stopping.stops_before(step))
        return self.session.is_stopped or (self.worker.run.config.saves_at(step) and step != self.saved_at)

    def save(self, state: RunState) -> None:
        """Saves; raises Stopped where that is the end."""
        self._flush(state)
        if self.worker.writes:
            self.write(state)
        if self.session.is_stopped or self.should_stop():
            raise Stopped

    def interrupted(self, state: RunState) -> None:
        """Saves the state before the step that Ctrl-C has broken off, where that can be gone on from."""
        # Of several workers each is at another step; and networks that were trained on synthetic images cannot be
        # trained again up to here.
        if self.worker.num_shards == 1 and self.worker.run.config.source.kind != "synthetic":
            self.session.is_stopped = True
            self._flush(state)
            self.write(state)

    def _flush(self, state: RunState) -> None:
        self.session.flush(self.worker.run.config.step_of(state.outer, state.inner))


def _distill(run: Run, parts: _Parts[AnyMoment], state: RunState, session: Session, saving: _Saving) -> None:
    distill(
        run.config,
        parts.matcher,
        session.stopwatch.networks(parts.source),
        state,
        initialise=parts.initialise,
        select=session.stopwatch.selecting(parts.select),
        saves_before=saving.saves_before,
        save=saving.save,
        report=session.report,
        interrupted=saving.interrupted,
    )


def _latest(checkpoints: Checkpoints, labels: Sequence[int], world_group: ProcessGroup) -> tuple[int, RunState] | None:
    """Loads the newest whole checkpoint; all workers of a group start where its first one does.

    Others may have looked a moment later, when a worker had just completed the next one.
    """
    found = checkpoints.latest(labels)
    own = -1 if found is None else found[0]
    step = int(world_group.all_gather([torch.tensor([own])])[0][0])
    if step != own:
        found = None if step < 0 else (step, checkpoints.load(step, labels))
    # No worker goes on, and deletes old checkpoints, before all have loaded theirs.
    world_group.all_gather([torch.empty(0)])
    return found


def _move(state: RunState, device: torch.device) -> None:
    for class_state in state.classes.values():
        for name, tensor in vars(class_state).items():
            if name != "indices":  # the host reads them
                setattr(class_state, name, tensor.to(device))
    state.learned = {name: tensor.to(device) for name, tensor in state.learned.items()}
