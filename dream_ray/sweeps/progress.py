"""How far a sweep is, read from its directory while it runs."""

from collections.abc import Sequence
from typing import Any

from dream_ray import storage
from dream_ray.errors import RunError, UsageError
from dream_ray.sweeps.directory import open_sweep
from dream_ray.sweeps.final_runs import num_tested
from dream_ray.sweeps.results import BEST, count_states, read_rows

_OPEN = {"running", "waiting"}


def read_rows_so_far(path: str, study: str | None) -> list[dict[str, Any]]:
    """Returns `read_rows`, or no rows of a sweep that has not begun or whose files are being written."""
    try:
        return read_rows(path, study)
    except (UsageError, RunError):
        return []


def describe_trials(path: str, rows: Sequence[dict[str, Any]]) -> str:
    """Returns the number of trials in each state, the best validation accuracy, and the tested final runs, as text."""
    text = f"trials: {count_states(rows)}"
    if done := [row["accuracy"] for row in rows if row["state"] == "done"]:
        text += f"; best validation accuracy: {100 * max(done):.1f} %"
    if storage.exists(storage.join(path, BEST)) and not _OPEN & {row["state"] for row in rows}:
        text += f"; testing the best settings with new seeds, {num_tested(path)} runs tested"
    return text


def read_progress(path: str, study: str | None) -> tuple[str, int, int]:
    """Returns `describe_trials`, the number of ended trials, and the most trials that the sweep may have."""
    if not (rows := read_rows_so_far(path, study)):
        return "starting", 0, 0
    ended = sum(row["state"] not in _OPEN for row in rows)
    return describe_trials(path, rows), ended, open_sweep(path, study)[0].most_trials
