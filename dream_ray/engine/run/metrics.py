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
    contain it. If the run was validated, a row has the last accuracy before its end, and the steps until then.
    """
    waiting = read_validation(run)
    last: dict[str, Any] = {}
    with storage.atomic_output(run.file("metrics.jsonl")) as file:
        for row in merged_rows(run):
            while waiting and waiting[0][0] <= row["step"] + 1:
                step, accuracy = waiting.pop(0)
                last = {"validation_step": step, "validation_accuracy": accuracy}
            file.write((json.dumps({**row, **last}) + "\n").encode())


def read_validation(run: Run) -> list[tuple[int, float]]:
    """Returns (step, accuracy in [0, 1]) of every validation so far, by step."""
    names = storage.list_directory(run.file("validation"))
    rows = [storage.read_json(run.file("validation", name)) for name in names]
    return sorted((row["step"], row["accuracy"]) for row in rows)


def cpu_seconds(run: Run, steps: Iterable[int]) -> dict[int, float]:
    """Returns the CPU seconds of the workers until each of some numbers of finished steps.

    Steps that ran twice because of a crash count once; checkpoints, validations and evaluations do not count.

    Args:
        run: A run, which may be unfinished.
        steps: Numbers of finished inner steps. Those that the metrics do not cover are left out.
    """
    left, found, spent, done = sorted(set(steps)), dict[int, float](), 0.0, 0
    for row in merged_rows(run):
        while left and left[0] <= row["step"]:
            found[left.pop(0)] = spent
        spent, done = spent + row["cpu_s"], row["step"] + 1
    return found | {step: spent for step in left if step <= done}


def merged_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yields one row per step; a step whose losses another worker has yet to write is left out."""
    directory = run.file("metrics")
    names = storage.list_directory(directory)
    files = (_rows(number, storage.join(directory, name)) for number, name in enumerate(names))
    for _, of_step in groupby(heapq.merge(*files, key=itemgetter(0, 1)), key=itemgetter(0)):
        shards = [(_written_with(names[number]), row) for _, number, row in of_step if row is not None]
        if any(row["losses"] for _, row in shards):
            yield _merged(shards)


def _written_with(name: str) -> tuple[str, str]:
    """Returns what the files that the workers of a run wrote together share: checkpoint and number of shards."""
    step, _, num_shards = name.split("-", 2)
    return step, num_shards


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


def _merged(shards: list[tuple[tuple[str, str], dict[str, Any]]]) -> dict[str, Any]:
    """Merges the rows of one step, each with what `_written_with` returns for its file.

    A step that ran twice has two losses of a class, of which the later one counts, as do the CPU seconds of the workers
    that wrote last: those may be more or fewer than before, so that their shards have other classes.
    """
    last = max(written_with for written_with, _ in shards)
    cpu_s = sum(row["cpu_s"] for written_with, row in shards if written_with == last)
    rows = [row for _, row in shards]
    losses = {label: loss for row in rows for label, loss in row["losses"].items()}
    losses = {label: losses[label] for label in sorted(losses, key=int)}
    seconds = max(row["seconds"] for row in rows)
    loss = sum(losses.values()) / len(losses)
    return {**rows[0], "seconds": seconds, "cpu_s": cpu_s, "loss": loss, "losses": losses}
