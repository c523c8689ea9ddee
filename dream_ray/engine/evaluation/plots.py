"""Plots of results; matplotlib is imported when a plot is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dream_ray import storage
from dream_ray.core.figures import make_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[dict[str, Any]]


def plot_evaluation(path: str, rows: Rows, *, title: str) -> None:
    """Writes `draw_evaluation` as PNG."""
    save(path, draw_evaluation(rows, title=title))


def draw_evaluation(rows: Rows, *, title: str) -> "Figure":
    """Draws the mean accuracy of every evaluated set as a bar with its standard deviation, and each network as a dot.

    Args:
        rows: Rows of `evaluate.summarise`.
        title: Heading.
    """
    figure = make_figure(6.4, 0.7 + 0.5 * len(rows))
    axes = figure.add_subplot()
    positions = range(len(rows))
    axes.barh(
        positions,
        [100 * (row["mean"] or 0.0) for row in rows],
        xerr=[100 * (row["std"] or 0.0) for row in rows],
        color=["tab:blue" if row["evaluated_set"] == "distilled" else "lightgrey" for row in rows],
        height=0.6,
        capsize=3,
    )
    for position, row in enumerate(rows):
        finite = [100 * accuracy for accuracy in row["accuracies"] if accuracy is not None]
        axes.plot(finite, [position] * len(finite), "k.", markersize=3)
        axes.text(1, position, _label(row), va="center", fontsize=8)
    axes.set_yticks(positions, [f"{_prefix(row, rows)}{row['evaluated_set']} ({row['num_images']})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("top-1 accuracy in %, last epoch")
    axes.set_title(title, fontsize=9)
    return figure


def _prefix(row: dict[str, Any], rows: Rows) -> str:
    """Returns the name of the network, if the rows are of several ones."""
    return f"{row['network']}, " if len({one.get("network") for one in rows}) > 1 else ""


def _label(row: dict[str, Any]) -> str:
    return f"{row['diverged']} of {row['n']} diverged" if row["mean"] is None else f"{100 * row['mean']:.1f} %"


def plot_steps(path: str, rows: Rows, *, title: str) -> None:
    """Writes `draw_steps` as PNG."""
    save(path, draw_steps(rows, title=title))


def draw_steps(rows: Rows, *, title: str) -> "Figure":
    """Draws the mean accuracy of checkpoints against their steps with 95 % intervals, and each baseline as a line.

    Args:
        rows: Rows of `evaluate.summarise`.
        title: Heading.
    """
    figure = make_figure(6.4, 3.6)
    axes = figure.add_subplot()
    points = [row for row in rows if row["step"] is not None and row["mean"] is not None]
    draw_curve(
        axes,
        [row["step"] for row in points],
        [row["mean"] for row in points],
        [row["half_width"] for row in points],
        label=f"distilled ({rows[0]['num_images']})",
    )
    for row in rows:
        if row["step"] is None and row["mean"] is not None:
            axes.axhline(100 * row["mean"], color="grey", linewidth=1)
            axes.annotate(f"{row['evaluated_set']} ({row['num_images']})", (0, 100 * row["mean"]), fontsize=7)
    axes.set_xlabel("inner steps")
    axes.set_ylabel("top-1 accuracy in %, last epoch")
    axes.legend(fontsize=8)
    axes.set_title(f"{title}, 95 % intervals", fontsize=9)
    return figure


def draw_curve(
    axes: "Axes", xs: Sequence[float], means: Sequence[float], half_widths: Sequence[float | None], *, label: str
) -> None:
    """Draws accuracies in [0, 1] as a curve in percent, with an error bar where there is a half width."""
    bars = [100 * (width or 0.0) for width in half_widths]
    axes.errorbar(xs, [100 * mean for mean in means], yerr=bars, label=label, marker=".", capsize=2, linewidth=1)


def save(path: str, figure: "Figure") -> None:
    """Writes a figure as PNG."""
    with storage.atomic_output(path) as file:
        figure.savefig(file, format="png", dpi=120)
