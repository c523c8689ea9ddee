"""The progress of a run, from the files of its heartbeats."""

from dataclasses import dataclass
from typing import Any

WORKER, EXPERT, PRODUCER = "worker", "expert", "producer"
"""Roles: distils classes, trains an expert before the first step, trains networks meanwhile."""
STOPPED = "stopped"
"""The phase of a worker that was asked to stop and has saved."""


@dataclass(frozen=True)
class Progress:
    """The state of the slowest worker, and the mean over workers.

    Attributes:
        phase: What the slowest worker is doing.
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
    """Returns the newest session of each shard, of the newest number of shards, by shard.

    Earlier ones are from before a crash or a resume with another number of workers. Experts, who come before the
    workers, count as if they were workers; producers do not.
    """
    sessions = [session for session in sessions if session["role"] != PRODUCER]
    if not sessions:
        return []
    newest = max(sessions, key=lambda s: float(s["started_at"]))
    current: dict[int, dict[str, Any]] = {}
    for session in sorted(sessions, key=lambda s: float(s["started_at"])):
        if session["num_shards"] == newest["num_shards"]:
            current[session["shard"]] = session
    return [current[shard] for shard in sorted(current)]


def summarise_progress(sessions: list[dict[str, Any]]) -> Progress | None:
    """Reduces worker sessions to one line; None where no worker has started."""
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
