"""Figures of matplotlib, which is imported when one is made."""

import io
import logging
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_figure(width: float, height: float) -> "Figure":
    """Returns an empty figure of a size in inches, which a notebook shows."""
    # It warns if its font cache is missing or cannot be written, which changes no plot.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    return _shown_figure()(figsize=(width, height), layout="constrained")


def png_of(figure: "Figure") -> bytes:
    """Returns a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()


@cache
def _shown_figure() -> "type[Figure]":
    from matplotlib.figure import Figure

    class ShownFigure(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            return png_of(self)

    return ShownFigure
