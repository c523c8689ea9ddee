"""Plots of a comparison; matplotlib is imported when one is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dream_ray.core.figures import make_figure
from dream_ray.engine.evaluation.plots import draw_curve
from dream_ray.sets.plots import IMAGES, draw_set

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dream_ray.engine.evaluation.comparison import ComparedRun

_X_LABELS = {"steps": "inner steps", "seconds": "seconds of these steps"}


def plot_curves(runs: "Sequence[ComparedRun]") -> "Figure":
    """Draws losses, and accuracies on the validation split if there are any, against steps and against seconds."""
    has_validation = any(run.validation.steps for run in runs)
    figure = make_figure(9.0, 6.4 if has_validation else 3.4)
    axes = figure.subplots(1 + has_validation, 2, squeeze=False, sharey="row")
    for column, (attribute, label) in enumerate(_X_LABELS.items()):
        for run in runs:
            axes[-1, column].plot(getattr(run.losses, attribute), run.losses.values, label=run.name, linewidth=1)
            if has_validation:
                curve = run.validation
                half_widths = [None] * len(curve.values)
                draw_curve(axes[0, column], getattr(curve, attribute), curve.values, half_widths, label=run.name)
        axes[-1, column].set_xlabel(label)
    axes[-1, 0].set_ylabel("matching loss, mean over classes")
    if has_validation:
        axes[0, 0].set_ylabel("accuracy in %, validation split")
    axes[0, 0].legend(fontsize=8)
    return figure


def plot_images(runs: "Sequence[ComparedRun]") -> "Figure":
    """Draws the first stored images of the first classes of each run, the runs side by side, a class in each row."""
    widths = [1.2 + 0.4 * min(run.config.ipc, IMAGES) for run in runs]
    figure = make_figure(sum(widths), 4.8)
    panels = figure.subplots(1, len(runs), squeeze=False, width_ratios=widths)[0]
    for axes, run in zip(panels, runs, strict=True):
        axes.set_title(run.name, fontsize=9)
        found = run.images()
        if found is not None:
            draw_set(axes, found)
            continue
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "not finished", ha="center")
    return figure
