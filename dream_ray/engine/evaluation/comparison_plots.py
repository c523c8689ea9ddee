"""Plots of a comparison; matplotlib is imported when one is drawn."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dream_ray.data.arrays import Float32Array, UInt8Array
from dream_ray.data.store.image_grid import drawable
from dream_ray.engine.evaluation.plots import draw_curve, make_figure
from dream_ray.sets.image_set import eight_bits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dream_ray.engine.evaluation.comparison import ComparedRun

_X_LABELS = {"steps": "inner steps", "seconds": "seconds of these steps"}
_CLASSES, _IMAGES = 10, 10
_GAP = 1


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
    widths = [1.2 + 0.4 * min(run.config.ipc, _IMAGES) for run in runs]
    figure = make_figure(sum(widths), 4.8)
    panels = figure.subplots(1, len(runs), squeeze=False, width_ratios=widths)[0]
    for axes, run in zip(panels, runs, strict=True):
        axes.set_title(run.name, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
        found = run.images()
        if found is None:
            axes.text(0.5, 0.5, "not finished", ha="center")
            continue
        shown = found.stored_LNCHW[:_CLASSES, :_IMAGES]
        axes.imshow(_grid(shown), interpolation="nearest", vmin=0, vmax=255)
        names = list(map(drawable, found.class_names[:_CLASSES]))
        height = shown.shape[3] + _GAP
        axes.set_yticks([height * (row + 0.5) for row in range(len(shown))], names, fontsize=7)
        axes.tick_params(length=0)
    return figure


def _grid(images_LNCHW: Float32Array) -> UInt8Array:
    """Returns images as one picture (H, W, 3) with white lines between them: a row for each class."""
    num_rows, num_columns, _, height, width = images_LNCHW.shape
    step_y, step_x = height + _GAP, width + _GAP
    grid = np.full((num_rows * step_y, num_columns * step_x, 3), 255, dtype=np.uint8)
    for row, images_NCHW in enumerate(eight_bits(images_LNCHW)):
        for column, image_CHW in enumerate(images_NCHW):
            top, left = row * step_y, column * step_x
            grid[top : top + height, left : left + width] = image_CHW.transpose(1, 2, 0)
    return grid
