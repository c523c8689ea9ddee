"""A table of tiny runs."""

from typing import Any

from dream_ray.experiments.directory import Table, begin_or_continue
from dream_ray.experiments.file import parse_experiment
from dream_ray.experiments.work import work_through

RANDOM = {"selection.strategy": "random", "initialisation.strategy": "random", "weights.feature": 0}
BASE: dict[str, Any] = {
    "title": "Tiny runs",
    "set": {"name": "four digits", "classes": 4, "shape": [1, 8, 8], "train": 240, "test": 141},
    "network": {"name": "convnet", "options": {"depth": 2, "width": 4}},
    "ipc": 1,
    "steps": 8,
    "seeds": 1,
    "cpu_hours": 1,
    "preset": "smoke",
    "settings": {
        "inner_steps": 4,
        "selection.num_clusters": 6,
        "update.num_images": 32,
        "update.batch_size": 16,
        "evaluation.quick_epochs": 2,
    },
    "arms": {"random": {"settings": RANDOM}, "dream_plus": {}},
    "evaluation": {"steps": [0, 4, 8], "repeats": 2},
}
"""Two arms of one seed each on four of the digits."""


def table_of(out: str, store: str, **changed: Any) -> Table:
    """Returns the table of a file with other values for some of its keys."""
    return Table(out, store, parse_experiment({**BASE, **changed}), "cpu")


def run_table(table: Table) -> list[str]:
    """Works on a table in this process; returns the reported lines."""
    lines: list[str] = []
    begin_or_continue(table)
    work_through(table, lines.append)
    return lines
