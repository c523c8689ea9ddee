"""The status of a run, read from its directory alone, on any machine, during the run or later."""

from dataclasses import dataclass
from typing import Any

from dream_ray import storage
from dream_ray.engine.progress.progress import STOPPED, Progress, current_sessions, summarise_progress
from dream_ray.engine.run.directory import Run, read_sessions

# Several times the longest interval between two writes of a live worker, see `Heartbeat`.
_SILENT_S = 60.0


@dataclass(frozen=True)
class Status:
    """The state of a run.

    Attributes:
        state: "waiting" (no worker has begun), "running", "stopped" (the workers were asked to, and saved), "silent"
            (none of them lives any more), "failed" or "finished".
        reason: Why it failed, or nothing.
        progress: Where it is; None while it is waiting.
        sessions: The newest session of every worker.
        silent_s: Seconds since the last progress of a worker, or None.
        step_s: Seconds since the slowest worker's last step, or None.
        checkpoint_step: Step of the newest complete checkpoint, or None.
        checkpoint_s: Its age in seconds, or None.
        outer_steps, inner_steps: Of the whole run.
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
    failure = run.file("failure.json")
    reason = storage.read_json(failure)["message"] if storage.exists(failure) else ""
    return Status(
        state=_state(current, progress, silent_s, finished=run.is_finished, failed=bool(reason)),
        reason=reason,
        progress=progress,
        sessions=current,
        silent_s=silent_s,
        step_s=None if progress is None or progress.stepped_at is None else max(0.0, now - progress.stepped_at),
        checkpoint_step=step,
        checkpoint_s=None if written is None else max(0.0, now - written),
        outer_steps=run.config.outer_steps,
        inner_steps=run.config.inner_steps,
    )


def _state(
    current: list[dict[str, Any]], progress: Progress | None, silent_s: float | None, *, finished: bool, failed: bool
) -> str:
    if finished:
        return "finished"
    if failed:
        return "failed"
    if progress is None or silent_s is None:
        return "waiting"
    if all(session["phase"] == STOPPED for session in current):
        return "stopped"
    return "silent" if silent_s > _SILENT_S else "running"


def _newest_checkpoint(run: Run) -> tuple[int | None, float | None]:
    checkpoints = run.checkpoints()
    step = checkpoints.newest()
    if step is None:
        return None, None
    files = storage.file_sizes(checkpoints.directory(step))
    return step, max((modified for _, modified, _ in files), default=None)
