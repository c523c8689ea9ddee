"""Pictures of results, drawn with matplotlib (imported here, when a picture is due)."""

import io
import logging
from typing import Any

from dream_ray import storage


def plot_evaluation(path: str, rows: list[dict[str, Any]], *, title: str) -> None:
    """Draws the accuracy of every evaluated set as a bar with its standard deviation and its single networks as dots.

    Args:
        path: Target PNG.
        rows: Rows of `evaluate.summarise`.
        title: Heading.
    """
    # It warns about a cache of fonts that is missing or cannot be written, which changes no picture.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 0.7 + 0.5 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    storage.write_bytes(path, buffer.getvalue())
