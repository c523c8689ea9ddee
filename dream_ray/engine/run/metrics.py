"""The metrics of a run: the rows that its shards wrote between two checkpoints, merged into one file."""

import heapq
import io
import json
from collections.abc import Iterable, Iterator
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
    with storage.atomic_output(run.file("metrics.jsonl")) as file:
        for row in _merged_rows(run):
            file.write((json.dumps(row) + "\n").encode())


def cpu_seconds(run: Run, steps: Iterable[int]) -> dict[int, float]:
    """Returns the CPU seconds of the workers until each of some numbers of finished steps.

    Steps that ran twice because of a crash count once; checkpoints, validations and evaluations do not count.

    Args:
        run: A run, which may be unfinished.
        steps: Numbers of finished inner steps. Those that the metrics do not cover are left out.
    """
    left, found, spent, done = sorted(set(steps)), dict[int, float](), 0.0, 0
    for row in _merged_rows(run):
        while left and left[0] <= row["step"]:
            found[left.pop(0)] = spent
        spent, done = spent + row["cpu_s"], row["step"] + 1
    return found | {step: spent for step in left if step <= done}


def _merged_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yields one row per step."""
    directory = run.file("metrics")
    paths = [storage.join(directory, name) for name in storage.list_directory(directory)]
    rows = heapq.merge(*(_rows(number, path) for number, path in enumerate(paths)), key=itemgetter(0, 1))
    for _, of_step in groupby(rows, key=itemgetter(0)):
        yield _merged([row for _, _, row in of_step if row is not None])


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
    """Merges the rows of one step; of two losses of a class, or two times of the same classes, the later one counts."""
    losses = {label: loss for row in shards for label, loss in row["losses"].items()}
    losses = {label: losses[label] for label in sorted(losses, key=int)}
    seconds = max(row["seconds"] for row in shards)
    cpu_s = sum({frozenset(row["losses"]): row["cpu_s"] for row in shards}.values())
    loss = sum(losses.values()) / len(losses)
    return {**shards[0], "seconds": seconds, "cpu_s": cpu_s, "loss": loss, "losses": losses}
