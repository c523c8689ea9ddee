"""Pictures of a sweep, drawn with matplotlib (imported here, when a picture is due), as SVG text."""

import io
from collections.abc import Sequence
from typing import Any

from dream_ray.sweep.file import Sweep

_COLOURS = {"done": "tab:blue", "stopped": "tab:orange"}
_LABELS = {"accuracy": "validation accuracy in %", "compute_s": "CPU and GPU seconds"}
Row = dict[str, Any]
"""A row of `sweep.results.rows_of`."""


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    buffer = io.StringIO()
    # Without a date and with fixed names: equal results have equal pictures.
    with rc_context({"svg.hashsalt": "dream_ray"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def _shown(metric: str, value: float) -> float:
    return 100 * value if metric == "accuracy" else value


def _measured(rows: Sequence[Row], metric: str) -> list[Row]:
    return [row for row in rows if row["state"] in _COLOURS and row[metric] is not None]


def history(rows: Sequence[Row]) -> str:
    """Draws the accuracy of every trial, and the best so far of those that reached the end."""
    figure = _figure(7, 3.2)
    axes = figure.add_subplot()
    for state, colour in _COLOURS.items():
        some = [row for row in _measured(rows, "accuracy") if row["state"] == state]
        axes.plot([r["trial"] for r in some], [100 * r["accuracy"] for r in some], "o", color=colour, label=state)
    best, steps = 0.0, []
    for row in rows:
        if row["state"] == "done":
            best = max(best, 100 * row["accuracy"])
            steps.append((row["trial"], best))
    axes.step(*zip(*steps, strict=True), where="post", color="black", linewidth=1, label="best so far")
    for row in rows:
        if row["state"] == "failed":
            axes.axvline(row["trial"], color="tab:red", linewidth=1, alpha=0.5)
    axes.set_xlabel("trial (red lines: failed)")
    axes.set_ylabel(_LABELS["accuracy"])
    axes.legend(fontsize=8)
    return _svg(figure)


def front(rows: Sequence[Row], best: Sequence[int]) -> str:
    """Draws accuracy against compute; `best` are the numbers of the trials on the Pareto front."""
    figure = _figure(7, 3.6)
    axes = figure.add_subplot()
    measured = _measured(rows, "compute_s")
    axes.plot([r["compute_s"] for r in measured], [100 * r["accuracy"] for r in measured], "o", color="lightgrey")
    points = sorted((r["compute_s"], 100 * r["accuracy"], r["trial"]) for r in measured if r["trial"] in best)
    axes.step([p[0] for p in points], [p[1] for p in points], "o-", where="post", color="tab:blue")
    for seconds, accuracy, number in points:
        axes.annotate(str(number), (seconds, accuracy), textcoords="offset points", xytext=(4, -10), fontsize=8)
    axes.set_xlabel(_LABELS["compute_s"])
    axes.set_ylabel(_LABELS["accuracy"])
    return _svg(figure)


def importances(shares: dict[str, float]) -> str:
    """Draws how much of the variance of the results each parameter explains."""
    figure = _figure(7, 0.8 + 0.35 * len(shares))
    axes = figure.add_subplot()
    ordered = sorted(shares.items(), key=lambda item: item[1])
    axes.barh([name for name, _ in ordered], [share for _, share in ordered], color="tab:blue", height=0.6)
    axes.set_xlabel("share of the variance")
    return _svg(figure)


def slices(rows: Sequence[Row], sweep: Sweep, metric: str) -> str:
    """Draws a metric against each parameter."""
    columns = min(3, len(sweep.space))
    lines = -(-len(sweep.space) // columns)
    figure = _figure(max(4.0, 2.6 * columns), 2.4 * lines)
    for number, path in enumerate(sweep.space, start=1):
        axes = figure.add_subplot(lines, columns, number)
        positions, ticks = _positions(rows, sweep, path)
        for state, colour in _COLOURS.items():
            some = [r for r in _measured(rows, metric) if r["state"] == state and positions[r["trial"]] is not None]
            values = [_shown(metric, r[metric]) for r in some]
            axes.plot([positions[r["trial"]] for r in some], values, "o", color=colour, markersize=4)
        if sweep.space[path].log is not None:
            axes.set_xscale("log")
        if ticks:
            axes.set_xticks(range(len(ticks)), ticks, fontsize=8)
        axes.set_xlabel(path, fontsize=8)
        if number % columns == 1 or columns == 1:
            axes.set_ylabel(_LABELS[metric], fontsize=8)
    return _svg(figure)


def parallel(rows: Sequence[Row], sweep: Sweep) -> str:
    """Draws every trial as a line over the parameters, the better the darker; what it did not have is left out."""
    import math

    from matplotlib import colormaps

    measured = [row for row in _measured(rows, "accuracy") if row["state"] == "done"]
    accuracies = [row["accuracy"] for row in measured]
    low, high = min(accuracies), max(accuracies)
    figure = _figure(max(5.0, 1.6 * (len(sweep.space) + 1)), 3.4)
    axes = figure.add_subplot()
    names = [*sweep.space, "accuracy"]
    heights: list[dict[int, float]] = []
    for place, path in enumerate(names):
        if path == "accuracy":
            positions: dict[int, float | None] = {row["trial"]: 100 * row["accuracy"] for row in measured}
            ticks: list[str] = []
        else:
            positions, ticks = _positions(rows, sweep, path)
        is_log = path in sweep.space and sweep.space[path].log is not None
        found = {
            number: math.log(value) if is_log else value
            for number, value in positions.items()
            if value is not None and any(row["trial"] == number for row in measured)
        }
        bottom, top = (min(found.values()), max(found.values())) if found else (0.0, 1.0)
        width = (top - bottom) or 1.0
        heights.append({number: (value - bottom) / width for number, value in found.items()})
        axes.axvline(place, color="lightgrey", linewidth=1)
        ends = {0.0: bottom, 1.0: top} if top > bottom else {0.0: bottom}
        labels = (
            {(index - bottom) / width: text for index, text in enumerate(ticks) if bottom <= index <= top}
            if ticks
            else {at: f"{math.exp(value) if is_log else value:.3g}" for at, value in ends.items()}
        )
        for at, text in labels.items():
            axes.text(place + 0.03, at, text, fontsize=7, va="center")
    shades = colormaps["viridis_r"]
    for row in sorted(measured, key=lambda row: row["accuracy"]):
        points = [(place, found[row["trial"]]) for place, found in enumerate(heights) if row["trial"] in found]
        shade = shades((row["accuracy"] - low) / (high - low) if high > low else 1.0)
        axes.plot(*zip(*points, strict=True), color=shade, linewidth=1.2)
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set_yticks([])
    axes.margins(x=0.08)
    return _svg(figure)


def _positions(rows: Sequence[Row], sweep: Sweep, path: str) -> tuple[dict[int, float | None], list[str]]:
    """Returns where the value of every trial lies on an axis, and the names of the choices."""
    choices = sweep.space[path].choices
    if choices is None:
        return {row["trial"]: row[path] for row in rows}, []
    places = {repr(choice): float(index) for index, choice in enumerate(choices)}
    missing = [row["trial"] for row in rows if row[path] is None and repr(None) not in places]
    found = {row["trial"]: None if row["trial"] in missing else places[repr(row[path])] for row in rows}
    return found, [str(choice) for choice in choices]
