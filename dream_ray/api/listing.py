"""The function that lists what lies below a directory: runs, sweeps, experiments and models."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dream_ray import storage
from dream_ray.config.nearest_preset import nearest_preset
from dream_ray.core.tables import ShownAsTables, Table
from dream_ray.engine.evaluation.kept_reports import read_reports
from dream_ray.engine.evaluation.options import DISTILLED
from dream_ray.engine.progress.status import read_status
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.metrics import read_validation
from dream_ray.errors import RunError, UsageError

_MOST_LEVELS = 6
"""Levels below the directory that are searched: deeper ones are parts of something else."""


@dataclass(frozen=True)
class Entry:
    """A run, a set of real images, a sweep, an experiment or a model.

    Attributes:
        kind: "run", "real images", "sweep", "experiment" or "model".
        path: Its directory.
        state: State of a run, see `Status`, with "unreadable" if its files cannot be read; numbers of trials or runs.
        preset: Preset that its settings resemble; strategy of real images; image set and ipc of an experiment; network
            of a model.
        step: Finished inner steps of a run, or None.
        total_steps: Inner steps of the whole run, or None.
        accuracy: Accuracy in [0, 1] of the distilled set of a run, of the best trial, of the best arm, or of a
            model; or None.
        split: Split that `accuracy` was measured on, or "".
    """

    kind: str
    path: str
    state: str
    preset: str = ""
    step: int | None = None
    total_steps: int | None = None
    accuracy: float | None = None
    split: str = ""

    @property
    def steps(self) -> str:
        """Finished and all inner steps as text."""
        return "" if self.step is None else f"{self.step}/{self.total_steps}"

    @property
    def accuracy_text(self) -> str:
        """Accuracy in percent and its split as text."""
        return "" if self.accuracy is None else f"{100 * self.accuracy:.1f} {self.split}"


class Listing(ShownAsTables, list[Entry]):
    """Entries, which a console and a notebook show as a table."""

    def tables(self) -> list[Table]:
        """Returns a row for each entry."""
        rows = [[one.path, one.kind, one.state, one.preset, one.steps, one.accuracy_text] for one in self]
        return [Table("", ("directory", "kind", "state", "preset", "steps", "accuracy in %"), rows)]


def list_runs(directory: storage.StrPath) -> Listing:
    """Lists the runs, sweeps, experiments and models below a directory, by path; runs inside of a sweep are left out.

    Args:
        directory: A local directory or a URI.

    Raises:
        UsageError: If it does not exist.
    """
    text = storage.text_path("directory", directory)
    if not storage.exists(text):
        raise UsageError(f"directory {text} does not exist")
    return Listing(_described(kind, path) for kind, path in _found(text.rstrip("/") or "/", _MOST_LEVELS))


def _found(path: str, levels: int) -> Iterator[tuple[str, str]]:
    """Yields (kind, directory), by path; does not look into what it yields, nor into stores."""
    names = set(storage.list_directory(path))
    kind = next((kind for mark, kind in _KINDS.items() if mark in names), None)
    if kind is not None:
        if kind in _DESCRIBE:
            yield kind, path
        return
    for name in storage.list_directories(path) if levels else ():
        if not name.startswith("."):
            yield from _found(storage.join(path, name), levels - 1)


def _described(kind: str, path: str) -> Entry:
    try:
        return _DESCRIBE[kind](path)
    except (UsageError, RunError) as error:
        return Entry(kind, path, f"unreadable: {error}")


def _run(path: str) -> Entry:
    run = open_run(path)
    status = read_status(run, time.time())
    if run.config.is_selection:
        what = f"{run.config.initialisation.strategy}, {run.config.ipc} x {run.config.factor}^2"
        accuracy, split = _accuracy(run)
        return Entry("real images", path, status.state, what, accuracy=accuracy, split=split)
    step = 0 if status.progress is None else status.progress.step
    accuracy, split = _accuracy(run)
    preset = nearest_preset(run.config)
    return Entry("run", path, status.state, preset, step, run.config.total_steps, accuracy, split)


def _accuracy(run: Run) -> tuple[float | None, str]:
    """Returns the accuracy of the distilled set by the most networks, on the test split if there is one."""
    rows = [
        (report["split"], row)
        for report in read_reports(run)
        for row in report["evaluated_sets"]
        if row["evaluated_set"] == DISTILLED and row["step"] is None and row["mean"] is not None
    ]
    if rows:
        split, row = max(rows, key=lambda one: (one[0] == "test", one[1]["n"]))
        return row["mean"], split
    validated = read_validation(run)
    return (validated[-1][1], "validation") if validated else (None, "")


def _sweep(path: str) -> Entry:
    from dream_ray.sweeps.directory import open_sweep
    from dream_ray.sweeps.results import count_states, read_rows

    sweep, _ = open_sweep(path)
    rows = read_rows(path)
    best = max((row["accuracy"] for row in rows if row["state"] == "done"), default=None)
    preset = nearest_preset(next(iter(sweep.bases().values())))
    return Entry(
        "sweep",
        path,
        count_states(rows) or "no trial",
        preset,
        accuracy=best,
        split="" if best is None else "validation",
    )


def _experiment(path: str) -> Entry:
    from dream_ray.experiments.file import read_experiment

    experiment = read_experiment(storage.join(path, "experiment.yaml"))
    results, what = storage.join(path, "results.json"), f"{experiment.set.name}, ipc {experiment.ipc}"
    if not storage.exists(results):
        return Entry("experiment", path, "unfinished", what)
    found: dict[str, Any] = storage.read_json(results)
    best = max((row["mean"] for row in found["summary"]), default=None)
    state = "unfinished" if found["missing"] else "finished"
    split = "" if best is None else found["experiment"]["evaluation"]["split"]
    return Entry("experiment", path, state, what, accuracy=best, split=split)


def _model(path: str) -> Entry:
    begun, finished = (storage.join(path, name) for name in ("training.json", "model.json"))
    if not storage.exists(finished):
        return Entry("model", path, "unfinished", storage.read_json(begun)["asked"]["recipe"]["network"]["name"])
    found: dict[str, Any] = storage.read_json(finished)
    split = next((name for name in ("test", "validation") if name in found["accuracy"]), "")
    score = found["accuracy"].get(split)
    accuracy = None if score is None else score["correct"] / score["n"]
    return Entry("model", path, "finished", found["network"]["name"], accuracy=accuracy, split=split)


_KINDS = {
    "experiment.yaml": "experiment",
    "sweep.yaml": "sweep",
    "config.yaml": "run",
    "manifest.json": "store",
    "model.json": "model",
    "training.json": "model",
}
"""Kinds of directories by the file that marks them."""
_DESCRIBE: dict[str, Callable[[str], Entry]] = {
    "run": _run,
    "sweep": _sweep,
    "experiment": _experiment,
    "model": _model,
}
