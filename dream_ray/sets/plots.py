"""Pictures of a synthetic set, for a console and a notebook."""

import base64
from typing import TYPE_CHECKING

import numpy as np

from dream_ray.core.figures import make_figure
from dream_ray.data.arrays import Float32Array, UInt8Array, eight_bits

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dream_ray.sets.image_set import ImageSet

CLASSES, IMAGES = 10, 10
"""Most classes, and images of each, of a picture."""
_GAP = 1
_INCHES = 0.45


def plot_set(found: "ImageSet") -> "Figure":
    """Draws the first stored images of the first classes, a class in each row."""
    num_classes, ipc = found.stored_LNCHW.shape[:2]
    figure = make_figure(1.2 + _INCHES * min(ipc, IMAGES), 0.4 + _INCHES * min(num_classes, CLASSES))
    draw_set(figure.add_subplot(), found)
    return figure


def draw_set(axes: "Axes", found: "ImageSet") -> None:
    """Draws the first stored images of the first classes into a panel; see `plot_set`."""
    from dream_ray.data.store.image_grid import drawable

    shown = found.stored_LNCHW[:CLASSES, :IMAGES]
    axes.imshow(_grid(shown), interpolation="nearest", vmin=0, vmax=255)
    height = shown.shape[3] + _GAP
    names = list(map(drawable, found.class_names[:CLASSES]))
    axes.set_xticks([])
    axes.set_yticks([height * (row + 0.5) for row in range(len(shown))], names, fontsize=7)
    axes.tick_params(length=0)


def html_picture(png: bytes) -> str:
    """Returns an image that a page holds itself."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'


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
