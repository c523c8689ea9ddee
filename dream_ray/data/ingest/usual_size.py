"""The side to which images are resized if the user gives none and they have no common shape."""

import io
import logging
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import replace

from PIL import Image

from dream_ray.data.ingest.selection import Selection, sampled_images
from dream_ray.data.ingest.settings import IngestSettings

SIDES = (64, 32)
"""Sides to choose from, the usual one first. Steps at 128 pixels take four times as long."""
LARGEST_KEPT = 256
"""Largest shorter side of images that keep their shape."""
_LOG = logging.getLogger(__name__)


def with_usual_size(settings: IngestSettings, selection: Selection) -> IngestSettings:
    """Returns settings without a size with one, if the images need it; a line is logged that says so.

    Up to 256 images tell, evenly spaced over all classes. They keep their shape if at least nine in ten share it and it
    is small; the others are then refused, because they may have come there by mistake. Otherwise images are resized to
    the first of `SIDES` that at most a quarter of them are smaller than.

    Args:
        settings: Settings of the ingest, whose size is None.
        selection: The selected images.
    """
    shapes = _shapes(selection)
    if not shapes:
        return settings  # the plan says that no image is readable
    [(common, count)] = Counter(shapes).most_common(1)
    if 10 * count >= 9 * len(shapes) and min(common) <= LARGEST_KEPT:
        return settings
    sides = sorted(map(min, shapes))
    size = next((side for side in SIDES if sides[len(sides) // 4] >= side), SIDES[-1])
    _LOG.warning(
        "The shorter sides of the images are %d to %d pixels: all images are resized to %d x %d. --size sets another "
        "side.",
        sides[0],
        sides[-1],
        size,
        size,
    )
    return replace(settings, size=size)


def _shapes(selection: Selection) -> list[tuple[int, int]]:
    """Returns (width, height) of the sampled images whose header is readable."""
    shapes = []
    for content in sampled_images(selection):
        # Pillow raises many kinds of exception for damaged bytes.
        with warnings.catch_warnings(), suppress(Exception), Image.open(io.BytesIO(content)) as file:
            warnings.simplefilter("ignore")
            shapes.append(file.size)
    return shapes
