"""One worker of a run: distils its classes from the newest checkpoint to the end.

Knows nothing of Ray: `--local` calls it directly, a Ray Train worker calls it with its rank.
"""

import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import torch

from dream_ray import storage
from dream_ray.core.normalisation import Normalisation
from dream_ray.core.team import ALONE, Team, TeamLeft
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.assembly import class_matcher, fetched_networks
from dream_ray.engine.checkpoint import Checkpoints, background_writer
from dream_ray.engine.compilation import check_compiler
from dream_ray.engine.distill import StepReport, distill
from dream_ray.engine.environment import CostMeter, fixed_threads
from dream_ray.engine.matching import Select
from dream_ray.engine.network_source import NetworkSource
from dream_ray.engine.run import Run, open_run
from dream_ray.engine.selecting import selecting_ahead
from dream_ray.engine.state import RunState
from dream_ray.engine.stopwatch import Stopwatch
from dream_ray.engine.trajectories.fetched import Networks
from dream_ray.engine.trajectories.producing import feature_bank, trained_networks
from dream_ray.engine.validation import pinned_steps

_LOG = logging.getLogger(__name__)

Tell = Callable[[dict[str, Any]], None]

_HEARTBEAT_S = 1.0
_REMOTE_HEARTBEAT_S = 10.0  # a bucket takes a tenth of a second each time


class Stopped(Exception):  # noqa: N818 (not an error)
    """The run was asked to stop; everything up to the last checkpoint is saved."""


def work(
    run_path: str,
    labels: Sequence[int],
    *,
    shard: int,
    num_shards: int,
    team: Team = ALONE,
    should_stop: Callable[[], bool] = lambda: False,
    networks: Networks | None = None,
    tell: Tell = lambda progress: None,
) -> None:
    """Distils some classes of a run to the end; does nothing where the last checkpoint is there.

    Args:
        run_path: Directory of the run.
        labels: Classes of this worker.
        shard: Number of this worker.
        num_shards: Number of workers.
        team: Workers that share these classes; only the first writes checkpoints and losses.
        should_stop: Asked after every checkpoint.
        networks: Where the networks come from; None: this worker trains them itself.
        tell: Called with the progress whenever it is written.

    Raises:
        Stopped: If `should_stop` said so, or another member of the team stopped.
        UsageError: If the run is a compiled one and this machine cannot compile.
    """
    try:
        _work(run_path, labels, shard, num_shards, team, should_stop, networks, tell)
    except TeamLeft:
        raise Stopped from None
    finally:
        team.leave()


def _work(
    run_path: str,
    labels: Sequence[int],
    shard: int,
    num_shards: int,
    team: Team,
    should_stop: Callable[[], bool],
    networks: Networks | None,
    tell: Tell,
) -> None:
    run = open_run(run_path)
    if run.compiled:
        check_compiler(run.device)
    keep_freed_memory()
    session = _Session(run, shard, num_shards, len(labels), tell)
    store = run.open_store()
    checkpoints = run.checkpoints(store.num_classes)
    found = _latest(checkpoints, labels, team)
    state = RunState() if found is None else found[1]
    _move(state, run.device)
    session.begin(0 if found is None else found[0])
    normalisation = Normalisation.of(store.mean, store.std, run.device)
    matcher = class_matcher(
        run.config, store, labels, normalisation, team, compiled=run.compiled, features=feature_bank(run)
    )

    def write(state: RunState) -> None:
        checkpoints.save(state, step=run.config.step_of(state.outer, state.inner), shard=shard, num_shards=num_shards)
        checkpoints.prune(pinned_steps(run, checkpoints))

    with ExitStack() as ending:
        ending.enter_context(fixed_threads(run.threads))
        writer = ending.enter_context(background_writer(write))
        source: NetworkSource
        select: Select = matcher.select_all
        if networks is None:
            source = trained_networks(run, store)
        else:
            networks.begin(run.config.step_of(state.outer, state.inner), state.network)
            source = fetched = fetched_networks(run.config, store, run.device, networks)
            if team.size == 1:
                select = ending.enter_context(selecting_ahead(run.config, matcher, fetched))

        def save(state: RunState) -> None:
            session.flush(run.config.step_of(state.outer, state.inner))
            if team.rank == 0:
                writer(state)
            if should_stop():
                raise Stopped

        distill(
            run.config,
            matcher,
            session.stopwatch.networks(source),
            state,
            select=session.stopwatch.selecting(select),
            save=save,
            report=session.report,
        )
    session.end()


def _latest(checkpoints: Checkpoints, labels: Sequence[int], team: Team) -> tuple[int, RunState] | None:
    """Loads the newest whole checkpoint; a team starts where its first member does.

    Others of the team may have looked a moment later, when another worker had just completed the next one.
    """
    found = checkpoints.latest(labels)
    own = -1 if found is None else found[0]
    step = int(team.all_gather([torch.tensor([own])])[0][0])
    if step != own:
        found = None if step < 0 else (step, checkpoints.load(step, labels))
    # Nobody goes on, and deletes old checkpoints, before all have loaded theirs.
    team.all_gather([torch.empty(0)])
    return found


def _move(state: RunState, device: torch.device) -> None:
    for class_state in state.classes.values():
        for name, tensor in vars(class_state).items():
            setattr(class_state, name, tensor.to(device))


class _Session:
    """Progress, metrics and cost of one worker process, written to the run directory."""

    def __init__(self, run: Run, shard: int, num_shards: int, num_classes: int, tell: Tell) -> None:
        self._run, self._tell = run, tell
        self.stopwatch = Stopwatch()
        self._images_per_step = num_classes * run.config.real_batch
        self._checkpoint_at: float | None = None
        self._shard, self._num_shards = shard, num_shards
        self._meter = CostMeter(run.device)
        self._heartbeat_s = _REMOTE_HEARTBEAT_S if storage.is_remote(run.path) else _HEARTBEAT_S
        self._name = f"{time.time_ns()}-{shard:04d}.json"
        self._rows: list[dict[str, Any]] = []
        self._first_step = self._step = 0
        self._loss: float | None = None
        self._loop_started: float | None = None
        self._last_report = self._last_beat = time.monotonic()
        self._beat("starting")

    def begin(self, step: int) -> None:
        """Notes where the loop starts."""
        self._first_step = self._step = step
        self._last_report = time.monotonic()
        self._beat("preparing the first network")

    def report(self, report: StepReport) -> None:
        """Keeps a row of metrics and, once a second, tells the world."""
        now = time.monotonic()
        if report.losses:
            self._rows.append(
                {
                    "step": report.step,
                    "outer": report.outer,
                    "inner": report.inner,
                    "losses": {str(label): loss for label, loss in report.losses.items()},
                    "seconds": now - self._last_report,
                }
            )
            self._loss = sum(report.losses.values()) / len(report.losses)
        self._last_report = now
        self._step = report.step + 1
        if self._loop_started is None:
            # Speed is counted from the first report on: the time before it went into the first network.
            self._loop_started, self._first_step = now, self._step
        if now - self._last_beat >= self._heartbeat_s:
            self._beat("matching")

    def flush(self, step: int) -> None:
        """Writes the rows since the last checkpoint, and notes that there is another."""
        self._checkpoint_at = time.time()
        if self._rows:
            name = f"{step:08d}-{self._shard:04d}-of-{self._num_shards:04d}.jsonl"
            text = "".join(json.dumps(row) + "\n" for row in self._rows)
            storage.write_text(self._run.file("metrics", name), text)
            self._rows.clear()

    def end(self) -> None:
        """Writes the final progress."""
        self._step = self._run.config.total_steps
        self._beat("done")

    def _beat(self, phase: str) -> None:
        self._last_beat = time.monotonic()
        done = self._step - self._first_step
        seconds = None
        if self._loop_started is not None and done > 0:
            seconds = (self._last_beat - self._loop_started) / done
        progress = {
            "pid": multiprocessing.current_process().pid,
            "shard": self._shard,
            "num_shards": self._num_shards,
            "phase": phase,
            "step": self._step,
            "outer": self._step // self._run.config.inner_steps,
            "inner": self._step % self._run.config.inner_steps,
            "total_steps": self._run.config.total_steps,
            "loss": self._loss,
            "seconds_per_step": seconds,
            "images_per_second": None if seconds is None else self._images_per_step / seconds,
            "checkpoint_at": self._checkpoint_at,
            **asdict(self.stopwatch),
            **self._meter.read(),
        }
        try:
            storage.write_text(self._run.file("progress", self._name), json.dumps(progress))
        except storage.RemoteError as error:  # the next one may be; a checkpoint cannot be done without
            _LOG.warning("The progress is not written: %s", error)
        self._tell(progress)
