"""Runs of one store side by side: settings that differ, curves, kept accuracies and images; imports no PyTorch."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.config.nested import leaves
from dream_ray.core.tables import ShownAsTables, Table, accuracy_cell
from dream_ray.engine.evaluation.kept_reports import read_reports
from dream_ray.engine.evaluation.options import DISTILLED
from dream_ray.engine.evaluation.scores import compare_with, score_cells, trained_on
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.metrics import merged_rows, read_validation
from dream_ray.errors import UsageError
from dream_ray.sets import ImageSet, read

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_POINTS = 2000
"""Points of a curve of losses; more cannot be told apart in a plot."""
_MOST_CHARACTERS = 18
"""Of a setting in a table of 80 columns with two runs."""


@dataclass(frozen=True)
class Curve:
    """Numbers during a run.

    Attributes:
        steps: Finished inner steps.
        seconds: Wall time of these steps, without checkpoints and validations.
        values: Losses, or accuracies in [0, 1].
    """

    steps: list[int]
    seconds: list[float]
    values: list[float]


@dataclass(frozen=True)
class ComparedRun:
    """A run of a comparison.

    Attributes:
        name: Short name that no other run of the comparison has.
        path: Its directory.
        config: Its settings.
        is_finished: Whether it has a set.
        losses: Matching loss, mean over classes.
        validation: Accuracy on the validation split.
        reports: Its kept evaluations, see `kept_reports.read_reports`.
    """

    name: str
    path: str
    config: Config
    is_finished: bool
    losses: Curve
    validation: Curve
    reports: list[dict[str, Any]]

    def images(self) -> ImageSet | None:
        """Reads its set; None if it is not finished."""
        return read(self.path) if self.is_finished else None


@dataclass(frozen=True, repr=False)
class Comparison(ShownAsTables):
    """Runs of one store side by side.

    Attributes:
        runs: The runs, in the order in which they were given.
    """

    runs: tuple[ComparedRun, ...]

    @property
    def settings(self) -> dict[str, list[Any]]:
        """The settings that differ, by path: a value for each run."""
        found = [leaves(run.config.model_dump(mode="json")) for run in self.runs]
        paths = dict.fromkeys(path for values in found for path in values)
        rows = {path: [values.get(path) for values in found] for path in paths}
        return {path: values for path, values in rows.items() if any(value != values[0] for value in values)}

    @property
    def accuracies(self) -> list[dict[str, Any]]:
        """The kept accuracies: rows of `evaluate.summarise` with `run`, `network`, `protocol` and `split`.

        Of two evaluations that differ in the number of networks, the larger one counts.
        """
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for run in self.runs:
            for report in run.reports:
                network = ", ".join([report["network"]["name"], *_options(report["network"]["options"])])
                recipe = {"network": network, "protocol": report["protocol"], "split": report["split"]}
                for row in report["evaluated_sets"]:
                    key = (run.name, *recipe.values(), row["evaluated_set"], row["step"])
                    if key not in found or found[key]["n"] < row["n"]:
                        found[key] = {**row, "run": run.name, **recipe}
        return list(found.values())

    def plot(self) -> "Figure":
        """Draws losses, and accuracies on the validation split if there are any, against steps and seconds."""
        from dream_ray.engine.evaluation.comparison_plots import plot_curves

        return plot_curves(self.runs)

    def plot_images(self) -> "Figure":
        """Draws some stored images of the finished runs side by side."""
        from dream_ray.engine.evaluation.comparison_plots import plot_images

        return plot_images(self.runs)

    def write(self, out: str) -> list[str]:
        """Writes comparison.json, curves.png and images.png into a directory, and returns their paths."""
        from dream_ray.engine.evaluation.plots import save

        paths = [storage.join(out, name) for name in ("comparison.json", "curves.png", "images.png")]
        storage.write_json(paths[0], self._document(), indent=1)
        save(paths[1], self.plot())
        save(paths[2], self.plot_images())
        return paths

    def _document(self) -> dict[str, Any]:
        return {
            "runs": [
                {
                    "name": run.name,
                    "path": run.path,
                    "finished": run.is_finished,
                    "losses": vars(run.losses),
                    "validation": vars(run.validation),
                }
                for run in self.runs
            ],
            "settings": self.settings,
            "accuracies": self.accuracies,
        }

    def tables(self) -> list[Table]:
        """Returns the settings that differ, and by each kind of evaluation the accuracies and their differences."""
        names = [run.name for run in self.runs]
        settings = [[path, *map(_text, values)] for path, values in self.settings.items()]
        tables = [Table("settings that differ", ["setting", *names], settings)] if settings else []
        kinds: dict[str, list[dict[str, Any]]] = {}
        for row in self.accuracies:
            title = f"{row['network']}; {row['protocol']} protocol, {row['split']} split; 95 % intervals"
            kinds.setdefault(title, []).append(row)
        return tables + [table for title, rows in kinds.items() for table in _accuracy_tables(title, rows)]


def _accuracy_tables(title: str, rows: Sequence[dict[str, Any]]) -> list[Table]:
    headings = ["run", "trained on", "accuracy in %", "n", "balanced %", "by test images"]
    cells = [[row["run"], trained_on(row), accuracy_cell(row), str(row["n"]), *score_cells(row)] for row in rows]
    tables = [Table(title, headings, cells)]
    distilled = [row for row in rows if row["evaluated_set"] == DISTILLED]
    for reference in distilled[:1]:
        others = [(f"{row['run']}, {trained_on(row)}", row) for row in distilled if row is not reference]
        if lines := compare_with(reference, others):
            compared = f"compared with {reference['run']}, {trained_on(reference)} (95 %)"
            tables.append(Table(compared, ["difference"], [[line] for line in lines]))
    return tables


def compare_runs(paths: Sequence[str]) -> Comparison:
    """Reads runs of one store.

    Args:
        paths: Directories of at least two runs, finished or not.

    Raises:
        UsageError: If there are fewer, one is given twice, one does not exist, or they distil two stores.
    """
    if len(paths) < 2:
        raise UsageError(f"runs must be at least two directories of runs; got {len(paths)}")
    absolute = [storage.absolute(path).rstrip("/") for path in paths]
    if len(set(absolute)) < len(absolute):
        raise UsageError(f"runs must be different; got {', '.join(paths)}")
    opened = [open_run(path) for path in paths]
    first, *others = opened
    for other in others:
        if (checksum := other.environment["store_checksum"]) != (expected := first.environment["store_checksum"]):
            raise UsageError(
                f"runs must be of one store; the store of {first.path} has the checksum {expected[:12]}, that of "
                f"{other.path} {checksum[:12]}"
            )
    names = _names(absolute)
    return Comparison(tuple(_compared(name, run) for name, run in zip(names, opened, strict=True)))


def _names(paths: Sequence[str]) -> list[str]:
    """Returns as many last parts of each path as make all different."""
    parts = [path.split("/") for path in paths]
    count = 1
    while len({tuple(part[-count:]) for part in parts}) < len(parts):
        count += 1
    return ["/".join(part[-count:]) for part in parts]


def _compared(name: str, run: Run) -> ComparedRun:
    losses, spent, until = Curve([], [], []), 0.0, {0: 0.0}
    for row in merged_rows(run):
        spent += row["seconds"]
        until[row["step"] + 1] = spent
        losses.steps.append(row["step"] + 1)
        losses.seconds.append(spent)
        losses.values.append(row["loss"])
    validated = [(step, accuracy) for step, accuracy in read_validation(run) if step in until]
    steps, accuracies = [step for step, _ in validated], [accuracy for _, accuracy in validated]
    return ComparedRun(
        name,
        run.path,
        run.config,
        run.is_finished,
        _thinned(losses),
        Curve(steps, [until[step] for step in steps], accuracies),
        read_reports(run),
    )


def _thinned(curve: Curve) -> Curve:
    every = -(-len(curve.steps) // _MOST_POINTS) or 1
    return Curve(curve.steps[::every], curve.seconds[::every], curve.values[::every])


def _options(options: dict[str, Any]) -> list[str]:
    return [f"{name} {value}" for name, value in options.items()]


def _text(value: Any) -> str:
    """Returns a setting as text that leaves room for those of other runs; comparison.json has all of it."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
