"""Pictures of a sweep, drawn with matplotlib (imported here, when a picture is due), as SVG text."""

import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dream_ray.sweep.file import Sweep
from dream_ray.sweep.metrics import METRICS
from dream_ray.sweep.space import Parameter

_COLOURS = {"done": "tab:blue", "stopped": "tab:orange"}
_MOST_CHARACTERS = 24
_MARGIN, _CHOICE_MARGIN = 0.05, 0.25
Row = dict[str, Any]
"""A row of `sweep.results.rows_of` without what the trial does not have, accuracies in percent."""


@dataclass(frozen=True)
class Scale:
    """Where values lie on an axis from 0 to 1.

    Attributes:
        place: From a value to its place.
        ticks: Places and what is written there.
    """

    place: Callable[[Any], float]
    ticks: list[tuple[float, str]]


def as_text(value: Any) -> str:
    """Returns a value as a sweep file has it: numbers with four digits, what cannot be printed replaced."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10_000 else f"{value:.0f}"
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in str(value))


def measured(rows: Sequence[Row], metric: str) -> list[Row]:
    """Returns the rows that are drawn: those with a result, but none of earlier sweeps."""
    return [row for row in rows if row["state"] in _COLOURS and metric in row]


def history(rows: Sequence[Row]) -> str:
    """Draws the accuracy of every trial, and the best so far of those that reached the end."""
    figure = _figure(7, 3.4)
    axes = figure.add_subplot()
    drawn = measured(rows, "accuracy")
    _dots(axes, ((row["state"], row["trial"], row["accuracy"]) for row in drawn), size=5)
    steps: list[tuple[int, float]] = []
    for row in drawn:
        if row["state"] == "done":
            steps.append((row["trial"], max([row["accuracy"], *(best for _, best in steps[-1:])])))
    if steps:
        steps.append((drawn[-1]["trial"], steps[-1][1]))
        axes.step(*zip(*steps, strict=True), where="post", color="black", linewidth=1, label="best so far")
    for state, colour in {"failed": "tab:red", "stopped": "tab:orange"}.items():
        crossed = [row["trial"] for row in rows if row["state"] == state and "accuracy" not in row]
        if crossed:  # they have no height: at the lower edge
            edge, label = axes.get_xaxis_transform(), f"{state}, no result"
            axes.plot(crossed, [0.03] * len(crossed), "x", color=colour, transform=edge, label=label)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("trial")
    axes.set_ylabel(METRICS["accuracy"].label)
    _legend(figure)
    return _svg(figure)


def front(rows: Sequence[Row], best: Sequence[int]) -> str:
    """Draws accuracy against compute; `best` are the numbers of the trials on the Pareto front."""
    figure = _figure(7, 3.6)
    axes = figure.add_subplot()
    # What was stopped was cheap.
    whole = [row for row in measured(rows, "compute_s") if row["state"] == "done"]
    points = sorted((row["compute_s"], row["accuracy"], row["trial"]) for row in whole)
    on_front = [point for point in points if point[2] in best]
    others = [point for point in points if point[2] not in best]
    if others:
        axes.plot([p[0] for p in others], [p[1] for p in others], "o", color="silver", label="other trials")
    xs, ys = [p[0] for p in on_front], [p[1] for p in on_front]
    axes.step(xs, ys, "o-", where="post", color="tab:blue", label="front, with the trials' numbers")
    for seconds, accuracy, number in on_front:
        axes.annotate(str(number), (seconds, accuracy), textcoords="offset points", xytext=(4, -10), fontsize=8)
    axes.set_xlabel(METRICS["compute_s"].label)
    axes.set_ylabel(METRICS["accuracy"].label)
    _legend(figure)
    return _svg(figure)


def importances(shares: dict[str, float]) -> str:
    """Draws how much of the variance of the results each parameter explains."""
    figure = _figure(7, 0.8 + 0.35 * len(shares))
    axes = figure.add_subplot()
    ordered = sorted(shares.items(), key=lambda item: item[1])
    axes.barh(range(len(ordered)), [share for _, share in ordered], color="tab:blue", height=0.6)
    axes.set_yticks(range(len(ordered)), [_label(name) for name, _ in ordered])
    axes.set_xlabel("share of the variance")
    return _svg(figure)


def slices(rows: Sequence[Row], sweep: Sweep, metric: str) -> str:
    """Draws a metric against each parameter, over all that is searched."""
    columns = min(3, len(sweep.space))
    lines = -(-len(sweep.space) // columns)
    figure = _figure(max(4.0, 2.6 * columns), 0.3 + 2.4 * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
    for number, (path, parameter) in enumerate(sweep.space.items()):
        axes, scale = grid[number], scale_of(parameter)
        some = (row for row in measured(rows, metric) if path in row)
        _dots(axes, ((row["state"], scale.place(row[path]), row[metric]) for row in some), size=4)
        margin = _MARGIN if parameter.choices is None else _CHOICE_MARGIN
        axes.set_xlim(-margin, 1 + margin)
        axes.set_xticks(*zip(*scale.ticks, strict=True), fontsize=8)
        if sum(len(text) for _, text in scale.ticks) > _MOST_CHARACTERS:
            for text in axes.get_xticklabels():
                text.set(rotation=25, ha="right", rotation_mode="anchor")
        axes.set_xlabel(_axis_label(path, parameter), fontsize=8)
        if number % columns == 0:
            axes.set_ylabel(METRICS[metric].label, fontsize=8)
    for axes in grid[len(sweep.space) :]:
        axes.remove()
    _legend(figure)
    return _svg(figure)


def parallel(rows: Sequence[Row], sweep: Sweep) -> str:
    """Draws every whole trial, of which there is one at least, as a line; the higher its accuracy, the darker.

    A line skips what its trial does not have.
    """
    from matplotlib import colormaps

    drawn = [row for row in measured(rows, "accuracy") if row["state"] == "done"]
    scales = {path: scale_of(parameter) for path, parameter in sweep.space.items()}
    names = [_axis_label(path, parameter) for path, parameter in sweep.space.items()]
    for metric in sweep.metrics:
        values = [row[metric] for row in drawn]
        scales[metric] = _range(min(values), max(values))
        names.append(METRICS[metric].label)
    figure = _figure(max(6.0, 1.6 * len(scales)), 3.4)
    axes = figure.add_subplot()
    for row in sorted(drawn, key=lambda row: float(row["accuracy"])):
        points = [(at, scale.place(row[name])) for at, (name, scale) in enumerate(scales.items()) if name in row]
        # The light end of the colours would not show on white.
        colour = colormaps["viridis_r"](0.15 + 0.85 * scales["accuracy"].place(row["accuracy"]))
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2)
    paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
    for at, scale in enumerate(scales.values()):
        axes.plot([at, at], [0, 1], color="grey", linewidth=1, zorder=1)
        for height, text in scale.ticks:
            axes.text(at + 0.03, height, text, fontsize=7, va="center", bbox=paper, zorder=3)
    axes.set_xticks(range(len(names)), [name.replace(".", ".\n", 1).replace(" in", "\nin") for name in names])
    axes.tick_params(axis="x", labelsize=7, length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(names) - 0.4)
    axes.spines[:].set_visible(False)
    return _svg(figure)


def scale_of(parameter: Parameter) -> Scale:
    """Returns where the values of a parameter lie on its axis."""
    if parameter.choices is None:
        low, high = parameter.bounds or (0.0, 1.0)
        return _range(low, high, is_log=parameter.kind == "log")
    # By repr: 1 and True are equal, and two choices.
    places = {repr(choice): at for at, choice in zip(_even(len(parameter.choices)), parameter.choices, strict=True)}
    texts = [_label(choice) for choice in parameter.choices]
    return Scale(lambda value: places[repr(value)], list(zip(_even(len(texts)), texts, strict=True)))


def _even(count: int) -> list[float]:
    return [number / (count - 1) for number in range(count)] if count > 1 else [0.5]


def _range(low: float, high: float, *, is_log: bool = False) -> Scale:
    if low == high:
        return Scale(lambda value: 0.5, [(0.5, as_text(float(low)))])
    if not is_log:
        ends = [low, (low + high) / 2, high]
        return Scale(lambda value: (value - low) / (high - low), list(zip(_even(3), map(as_text, ends), strict=True)))

    def place(value: float) -> float:
        return math.log(value / low) / math.log(high / low)

    powers = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    shown = powers[:: -(-len(powers) // 5)] if len(powers) > 1 else [low, math.sqrt(low * high), high]
    return Scale(place, [(place(value), as_text(value)) for value in shown])


def _axis_label(path: str, parameter: Parameter) -> str:
    return _label(path) + (" (log)" if parameter.kind == "log" else "")


def _label(value: Any) -> str:
    """Returns a name or value as matplotlib shows it: short, in one line, and without a formula in it."""
    text = as_text(value).replace("\n", " ")
    short = text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
    return short.replace("$", r"\$")


def _dots(axes: Any, points: Iterable[tuple[str, float, float]], *, size: float) -> None:
    found = list(points)
    for state, colour in _COLOURS.items():
        some = [(x, y) for its_state, x, y in found if its_state == state]
        if some:
            axes.plot(*zip(*some, strict=True), "o", color=colour, markersize=size, label=state)


def _legend(figure: Any) -> None:
    drawn: dict[str, Any] = {}
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        drawn |= dict(zip(labels, handles, strict=True))
    # Outside of the axes, where there are no points.
    figure.legend(list(drawn.values()), list(drawn), loc="outside upper left", ncols=5, fontsize=8, frameon=False)


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
    with rc_context({"svg.hashsalt": "dream_ray"}), warnings.catch_warnings():
        # A letter that the font lacks is drawn as a box; the table of the trials has it.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()
