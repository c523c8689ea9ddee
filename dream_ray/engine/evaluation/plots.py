"""Plots of results; matplotlib is imported when a plot is drawn."""

import logging
from typing import Any

from dream_ray import storage


def plot_evaluation(path: str, rows: list[dict[str, Any]], *, title: str) -> None:
    """Draws the mean accuracy of every evaluated set as a bar with its standard deviation, and each network as a dot.

    Args:
        path: Target PNG.
        rows: Rows of `evaluate.summarise`.
        title: Heading.
    """
    # It warns if its font cache is missing or cannot be written, which changes no plot.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.7 + 0.5 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    positions = range(len(rows))
    axes.barh(
        positions,
        [100 * row["mean"] for row in rows],
        xerr=[100 * (row["std"] or 0.0) for row in rows],
        color=["tab:blue" if row["evaluated_set"] == "distilled" else "lightgrey" for row in rows],
        height=0.6,
        capsize=3,
    )
    for position, row in enumerate(rows):
        axes.plot([100 * accuracy for accuracy in row["accuracies"]], [position] * row["n"], "k.", markersize=3)
        axes.text(1, position, f"{100 * row['mean']:.1f} %", va="center", fontsize=8)
    axes.set_yticks(positions, [f"{row['evaluated_set']} ({row['num_images']})" for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("top-1 accuracy in %, last epoch")
    axes.set_title(title, fontsize=9)
    with storage.atomic_output(path) as file:
        figure.savefig(file, format="png", dpi=120)
