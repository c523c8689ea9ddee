"""The progress and the status of a run, from the files of its heartbeats alone, on any machine."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.core.figures import make_figure
from dream_ray.core.tables import ShownAsTables, Table, duration
from dream_ray.engine.run.directory import FAILURE, Run, read_sessions
from dream_ray.engine.run.metrics import read_validation
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORKER, EXPERT, PRODUCER = "worker", "expert", "producer"
"""Roles of a session: distils classes; trains an expert before the first step; trains networks ahead of the workers."""
STOPPED = "stopped"
"""The phase of a worker that was asked to stop and has written a checkpoint."""

# Several times the longest interval between two writes of a live worker, see `heartbeat.py`.
_SILENT_S = 60.0
# The same if no process has the lock of the run, which a node without the lock's host may not see.
_UNLOCKED_SILENT_S = 20.0


@dataclass(frozen=True)
class Progress:
    """The state of the slowest worker, and the mean loss of all workers.

    Attributes:
        phase: Phase of the slowest worker.
        step: Steps that all workers have finished.
        total_steps: Steps of the run.
        loss: Mean loss over the workers, or None before the first step.
        seconds_per_step: Of the slowest worker, or None before the second step.
        stepped_at: Unix time of the slowest worker's last step, or None before the first.
    """

    phase: str
    step: int
    total_steps: int
    loss: float | None
    seconds_per_step: float | None
    stepped_at: float | None

    @property
    def seconds_left(self) -> float | None:
        """Expected time to the end of the run."""
        if self.seconds_per_step is None:
            return None
        return (self.total_steps - self.step) * self.seconds_per_step


def current_sessions(sessions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the newest session of each shard, by shard; earlier ones are from before a crash or a resume.

    Only sessions with the newest number of shards count. Experts, which precede the workers, count as workers;
    producers do not count.
    """
    ordered = sorted((s for s in sessions if s["role"] != PRODUCER), key=lambda s: float(s["started_at"]))
    if not ordered:
        return []
    num_shards = ordered[-1]["num_shards"]
    newest = {s["shard"]: s for s in ordered if s["num_shards"] == num_shards}
    return [newest[shard] for shard in sorted(newest)]


def summarise_progress(sessions: list[dict[str, Any]]) -> Progress | None:
    """Returns the progress of a run from its sessions; None if no worker has started."""
    current = current_sessions(sessions)
    if not current:
        return None
    slowest = min(current, key=lambda s: int(s["step"]))
    losses = [s["loss"] for s in current if s["loss"] is not None]
    speeds = [s["seconds_per_step"] for s in current if s["seconds_per_step"] is not None]
    return Progress(
        phase=slowest["phase"],
        step=slowest["step"],
        total_steps=slowest["total_steps"],
        loss=sum(losses) / len(losses) if losses else None,
        seconds_per_step=max(speeds) if speeds else None,
        stepped_at=slowest["stepped_at"],
    )


@dataclass(frozen=True, repr=False)
class Status(ShownAsTables):
    """The state of a run.

    Attributes:
        state: "waiting" (no worker has started), "running", "stopped" (all workers wrote a checkpoint and ended, as
            they were asked to), "silent" (no worker has written its progress for a minute, or for 20 s if no process
            has the lock of the run), "failed" or "finished".
        reason: Message of the failure, or "".
        progress: Progress of the workers; None while the run is waiting.
        sessions: The newest session of every worker.
        silent_s: Seconds since the last progress of a worker, or None.
        step_s: Seconds since the slowest worker's last step, or None.
        checkpoint_step: Step of the newest complete checkpoint, or None.
        checkpoint_s: Its age in seconds, or None.
        outer_steps, inner_steps: Number of outer steps of the run, and of inner steps in each.
        validation: Steps and accuracy in [0, 1] of the last validation, or None.
    """

    state: str
    reason: str
    progress: Progress | None
    sessions: list[dict[str, Any]]
    silent_s: float | None
    step_s: float | None
    checkpoint_step: int | None
    checkpoint_s: float | None
    outer_steps: int
    inner_steps: int
    validation: tuple[int, float] | None = None

    def tables(self) -> list[Table]:
        """Returns the state, and what is known of the progress."""
        now, rows = self.progress, [["state", self.state]]
        if self.reason:
            rows.append(["reason", self.reason])
        if now is not None:
            rows.append(["step", f"{now.step} of {now.total_steps}"])
            rows += [["loss", f"{now.loss:.4g}"]] if now.loss is not None else []
            rows += [["seconds per step", f"{now.seconds_per_step:.2f}"]] if now.seconds_per_step is not None else []
            if self.state == "running" and now.seconds_left is not None:
                rows.append(["time left", duration(now.seconds_left)])
        if self.checkpoint_step is not None:
            rows.append(["newest checkpoint", f"step {self.checkpoint_step}, {duration(self.checkpoint_s)} ago"])
        return [Table("", ("run", ""), rows)]

    def plot(self) -> "Figure":
        """Draws the finished steps of each worker."""
        figure = make_figure(6.4, 1.2 + 0.3 * len(self.sessions))
        axes = figure.add_subplot()
        axes.barh([f"worker {one['shard']}" for one in self.sessions], [one["step"] for one in self.sessions])
        axes.set_xlim(0, self.outer_steps * self.inner_steps)
        axes.set_xlabel("inner steps")
        axes.set_title(self.state, fontsize=9)
        return figure


def read_status(run: Run, now: float) -> Status:
    """Reads the state of a run.

    Args:
        run: The run.
        now: Unix time in seconds.
    """
    sessions = read_sessions(run)
    progress = summarise_progress(sessions)
    current = current_sessions(sessions)
    silent_s = max(0.0, now - max(float(one["updated_at"]) for one in current)) if current else None
    step, written = _newest_checkpoint(run)
    failure = run.file(FAILURE)
    reason = storage.read_json(failure)["message"] if storage.exists(failure) else ""
    validations = read_validation(run)
    is_silent = silent_s is not None and (silent_s > _SILENT_S or _is_abandoned(run, silent_s))
    return Status(
        state=_state(current, progress, is_silent=is_silent, finished=run.is_finished, failed=bool(reason)),
        reason=reason,
        progress=progress,
        sessions=current,
        silent_s=silent_s,
        step_s=None if progress is None or progress.stepped_at is None else max(0.0, now - progress.stepped_at),
        checkpoint_step=step,
        checkpoint_s=None if written is None else max(0.0, now - written),
        outer_steps=run.config.outer_steps,
        inner_steps=run.config.inner_steps,
        validation=validations[-1] if validations else None,
    )


def outer_steps_within(run: Run, budget_s: float) -> int:
    """Returns the total of outer steps that a run may have if it goes on for some time at the speed that it had.

    Args:
        run: A finished or stopped run.
        budget_s: Seconds from its newest checkpoint on.

    Raises:
        UsageError: If the speed is not known, or no outer step fits.
    """
    progress, done = summarise_progress(read_sessions(run)), run.checkpoints().newest()
    if progress is None or progress.seconds_per_step is None or done is None:
        raise UsageError(
            f"time-budget needs the speed of the run, and {run.path} has not done two steps; give --outer-steps"
        )
    inner_steps = run.config.inner_steps
    total = int(done + budget_s / progress.seconds_per_step) // inner_steps
    if total * inner_steps <= done:
        needed_s = ((done // inner_steps + 1) * inner_steps - done) * progress.seconds_per_step
        raise UsageError(
            f"time-budget must be at least {math.ceil(needed_s)} s, to the end of the next outer step of {run.path}; "
            f"got {budget_s:g} s. Or give --outer-steps {done // inner_steps + 1}"
        )
    return total


def _state(
    current: list[dict[str, Any]], progress: Progress | None, *, is_silent: bool, finished: bool, failed: bool
) -> str:
    if finished:
        return "finished"
    if failed:
        return "failed"
    if progress is None:
        return "waiting"
    if all(session["phase"] == STOPPED for session in current):
        return "stopped"
    return "silent" if is_silent else "running"


def _is_abandoned(run: Run, silent_s: float) -> bool:
    # Asked late, because for a moment the question keeps others from taking the lock.
    return silent_s > _UNLOCKED_SILENT_S and storage.is_in_use(run.path) is False


def _newest_checkpoint(run: Run) -> tuple[int | None, float | None]:
    checkpoints = run.checkpoints()
    step = checkpoints.newest()
    if step is None:
        return None, None
    files = storage.file_sizes(checkpoints.directory(step))
    return step, max((modified for _, modified, _ in files), default=None)
