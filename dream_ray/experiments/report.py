"""The report of an experiment: everything that it ran, as JSON, as a page and as curves."""

import math
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.core.figures import make_figure
from dream_ray.core.tables import ShownAsTables, accuracy_cell
from dream_ray.core.tables import Table as ShownTable
from dream_ray.engine.evaluation.plots import draw_curve, save
from dream_ray.engine.evaluation.scores import compare_with, describe_images, score_cells
from dream_ray.experiments.directory import Table
from dream_ray.experiments.equal_accuracy import FLAT
from dream_ray.experiments.results import Point, equal_accuracy, missing, read_points, summarise

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS, PAGE, CURVES = "results.json", "results.md", "curves.png"
_CPU_SECONDS = "CPU seconds of the distillation"


class Results(ShownAsTables, dict[str, Any]):
    """The content of results.json, which a console and a notebook show as tables; see `read_results`."""

    def tables(self) -> list[ShownTable]:
        """Returns the end of every arm, and the differences from the reference."""
        rows = [
            [row["arm"], row["network"], str(row["step"]), accuracy_cell(row), str(row["n"]), score_cells(row)[0]]
            for row in last_rows(self["summary"])
        ]
        headings = ("arm", "network", "step", "accuracy in %", "n", "balanced %")
        tables = [ShownTable(self["title"], headings, rows)]
        if lines := compare_arms(self):
            tables.append(ShownTable("", ("difference (95 %)",), [[line] for line in lines]))
        return tables

    def plot(self) -> "Figure":
        """Draws accuracy against steps and against CPU seconds, one curve per arm and network."""
        figure = make_figure(10, 4)
        panels = figure.subplots(1, 2, sharey=True)
        curves: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in self["summary"]:
            curves.setdefault((row["arm"], row["network"]), []).append(row)
        networks = {network for _, network in curves}
        for (arm, network), rows in curves.items():
            label = arm if len(networks) == 1 else f"{arm}, {network}"
            for axes, x in zip(panels, ("step", "cpu_s"), strict=True):
                shown = [row for row in rows if row[x] is not None]
                means, widths = [row["mean"] for row in shown], [row["half_width"] for row in shown]
                draw_curve(axes, [row[x] for row in shown], means, widths, label=label)
        for axes, x, label in zip(panels, ("step", "cpu_s"), ("inner steps", _CPU_SECONDS), strict=True):
            axes.set_xlabel(label)
            if positive := [row[x] for row in self["summary"] if row[x]]:
                axes.set_xscale("symlog", linthresh=min(positive))  # most of a curve's gain is in its first steps
        if means := [100 * row["mean"] for row in self["summary"] if row["mean"] is not None]:
            panels[0].set_ylim(min(means) - 3, max(means) + 3)  # the interval of two seeds may exceed all differences
        panels[0].set_ylabel("top-1 accuracy in %, last epoch")
        if curves:
            panels[0].legend(fontsize=7)
        figure.suptitle(f"{self['title']}; 95 % intervals over seeds", fontsize=9)
        return figure


def write_report(table: Table) -> Results:
    """Writes results.json, results.md and curves.png into the directory of an experiment, and returns the results."""
    results = read_results(table)
    storage.write_json(storage.join(table.out, RESULTS), results, indent=1)
    storage.write_text(storage.join(table.out, PAGE), "\n".join(page(results)) + "\n")
    save(storage.join(table.out, CURVES), results.plot())
    return results


def read_results(table: Table) -> Results:
    """Returns everything that an experiment ran so far; accuracies are fractions in [0, 1]."""
    experiment, points = table.experiment, read_points(table)
    runs = [run for cell in experiment.cells() if (run := table.open_run(cell)) is not None]
    failed = {cell.name: reason for cell in experiment.cells() if (reason := table.failure_of(cell)) is not None}
    return Results(
        title=experiment.title,
        experiment=experiment.model_dump(mode="json", exclude_none=True),
        origin=table.read_origin(),
        settings_digests=table.settings_digests(),
        cpus=sorted({run.environment["cpu"] for run in runs}),
        sessions=table.read_sessions(),
        system=platform.system(),
        cpu_hours=table.spent_s() / 3600,
        summary=summarise(points, experiment),
        equal_accuracy=equal_accuracy(points, experiment),
        missing=missing(points, experiment),
        failed=failed,
        points=[_row(point) for point in points if point.accuracies],
    )


def _row(point: Point) -> dict[str, Any]:
    return {**vars(point), "accuracies": list(point.accuracies)}


def page(results: dict[str, Any]) -> list[str]:
    """Returns the lines of results.md: the end of every arm, equal accuracy, and what is missing."""
    experiment = results["experiment"]
    measured = experiment["evaluation"]
    lines = [
        f"# {results['title']}",
        "",
        f"Set: {experiment['set']['name']}. {experiment['ipc']} images per class. Accuracy in % on the "
        f"{measured['split']} split, last epoch, protocol {measured['protocol']}. A seed counts with the mean of "
        f"{measured['repeats']} fresh networks; n is the number of seeds; intervals are 95 % (Student's t). The "
        f"images of a set take {_set_bytes(experiment):,} bytes at 8 bits per channel.",
        "",
        f"CPU: {', '.join(results['cpus'])}. CPU hours: {results['cpu_hours']:.2f} of {experiment['cpu_hours']:g}. "
        f"Commits: {', '.join(sorted({str(one['commit']) for one in results['sessions']}))}.",
        "",
        *_summary(results["summary"]),
    ]
    if verdicts := compare_arms(results):
        lines += ["", *(f"- {line}" for line in verdicts)]
    if results["equal_accuracy"] is not None:
        lines += ["", *_comparison(results["equal_accuracy"])]
    lines += [f"\nFailed: {name}: {reason}" for name, reason in results["failed"].items()]
    if results["missing"]:
        lines += ["", "Missing:", ""]
        lines += [f"- {one}" for one in describe_missing(results["missing"])]
    return lines


def _set_bytes(experiment: dict[str, Any]) -> int:
    """Returns the bytes of the stored images of a set, uint8."""
    return int(experiment["ipc"] * experiment["set"]["classes"] * math.prod(experiment["set"]["shape"]))


def describe_missing(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Returns a line per run that lacks points."""
    return [
        f"{row['arm']}, seed {row['seed']}: {row['networks']} networks at steps {', '.join(map(str, row['steps']))}"
        for row in rows
    ]


def last_rows(summary: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the row of the last step of each arm and network."""
    return list({(row["arm"], row["network"]): row for row in summary}.values())


def _summary(summary: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        "| arm | network | steps | accuracy % | n | balanced % | 95 % by test images | CPU s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in last_rows(summary):
        seconds = "" if row["cpu_s"] is None else f"{row['cpu_s']:.0f}"
        cells = [row["arm"], row["network"], str(row["step"]), accuracy_cell(row), str(row["n"])]
        cells += [*score_cells(row), seconds]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def compare_arms(results: dict[str, Any]) -> list[str]:
    """Returns a line per arm and network: its difference from the reference at the last step of both, or none.

    The reference is that of equal accuracy, or the first arm with results. A last line describes the images that tested
    the networks, if there are other lines or if classes have no images.
    """
    rows = last_rows(results["summary"])
    asked = results["experiment"].get("equal_accuracy")
    reference = asked["reference"] if asked is not None else rows[0]["arm"] if rows else None
    lines = []
    for network, of_reference in {row["network"]: row for row in rows if row["arm"] == reference}.items():
        others = [row for row in rows if row["network"] == network and row["arm"] != reference]
        compared = compare_with(of_reference, [(row["arm"], row) for row in others])
        lines += [f"{network}, against {reference}: {line}" for line in compared]
    if rows and (tested := rows[0]["tested"]) is not None:
        number = results["experiment"]["set"]["classes"]
        classes = rows[0].get("tested_classes", number), number
        if lines or classes[0] < number:
            split = results["experiment"]["evaluation"]["split"]
            lines.append(describe_images(tested, kind=split, classes=classes))
    return lines


def _comparison(found: dict[str, Any]) -> list[str]:
    reference = found["reference"]
    lines = [
        f"Ratio of n({reference}) to n(arm) at equal accuracy: bounds on the mean curves, and their 95 % interval by "
        "a bootstrap over seeds.",
        "",
        f"| arm | target % | n({reference}) | n(arm) | ratio of steps | 95 % | ratio of CPU seconds | 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, rows in found["arms"].items():
        for steps, seconds in zip(rows["steps"], rows["cpu_s"], strict=True):
            cells = [arm, f"{100 * steps['target']:g}", _bounds(steps["reference"], 0), _bounds(steps["arm"], 0)]
            for ratio in (steps, seconds):
                cells += [_bounds(ratio["ratio"], 2), _range(ratio["interval"])]
            lines.append(f"| {' | '.join(cells)} |")
    gains = ", ".join(
        f"{arm} {100 * gain:.2f}" + (" (its end is not reached)" if gain >= FLAT else "")
        for arm, gain in found["gain_of_last_third"].items()
    )
    return [*lines, "", f"Points of accuracy that a curve gains over its last third: {gains}."]


def _bounds(bounds: Sequence[float | None], digits: int) -> str:
    low, high = bounds
    if low is None:
        return "unbounded"
    if high is None:
        return f"> {low:.{digits}f}" if low else "unknown"
    return f"{low:.{digits}f}" if low == high else f"<= {high:.{digits}f}" if not low else _range(bounds)


def _range(bounds: Sequence[float | None]) -> str:
    low, high = ("inf" if bound is None else f"{bound:.2f}" for bound in bounds)
    return f"{low} to {high}"
