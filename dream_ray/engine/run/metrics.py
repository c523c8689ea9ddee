"""The metrics of a run: the rows that its shards wrote between two checkpoints, merged into one file."""

import heapq
import io
import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from dream_ray import storage
from dream_ray.engine.run.directory import Run

_LINE_BYTES = 1 << 16


def merge_metrics(run: Run) -> None:
    """Merges the rows of all shards into metrics.jsonl, one row per step.

    A step that ran before and after a crash counts once. Rows of one step are in memory, and the text of the files that
    contain it.
    """
    directory = run.file("metrics")
    paths = [storage.join(directory, name) for name in storage.list_directory(directory)]
    rows = heapq.merge(*(_rows(number, path) for number, path in enumerate(paths)), key=itemgetter(0, 1))
    with storage.atomic_output(run.file("metrics.jsonl")) as file:
        for _, of_step in groupby(rows, key=itemgetter(0)):
            file.write((json.dumps(_merged([row for _, _, row in of_step if row is not None])) + "\n").encode())


def _rows(number: int, path: str) -> Iterator[tuple[int, int, dict[str, Any] | None]]:
    """Yields (step, number, row) of a file, by step; the first one twice, at first without the row.

    The merge takes the first item of every file before it yields one, and a run may have thousands of files.
    """
    with io.BufferedReader(storage.open_raw(path), _LINE_BYTES) as file:
        step = json.loads(file.readline())["step"]
    yield step, number, None
    for line in storage.read_text(path).splitlines():
        row = json.loads(line)
        yield row["step"], number, row


def _merged(shards: list[dict[str, Any]]) -> dict[str, Any]:
    """Merges the rows of one step; of two losses of a class, the later one counts."""
    losses = {label: loss for row in shards for label, loss in row["losses"].items()}
    losses = {label: losses[label] for label in sorted(losses, key=int)}
    seconds = max(row["seconds"] for row in shards)
    return {**shards[0], "seconds": seconds, "loss": sum(losses.values()) / len(losses), "losses": losses}
