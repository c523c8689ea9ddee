"""The range of pixels of more than 8 bits, if neither the user nor the files say it."""

import logging
from dataclasses import replace

from dream_ray.data.decoding.decode import largest_sample
from dream_ray.data.decoding.deep import RANGES
from dream_ray.data.ingest.selection import Selection, sampled_images
from dream_ray.data.ingest.settings import IngestSettings

_EIGHT_BIT_SUFFIXES = (".jpg", ".jpeg", ".webp", ".gif", ".bmp")
_LOG = logging.getLogger(__name__)


def with_found_range(settings: IngestSettings, selection: Selection) -> IngestSettings:
    """Returns settings with a pixel range, if sampled images need one; a line is logged unless it is that of 16 bits.

    An image with larger pixels is a reject, and so is one without a known range if no sampled image had such pixels.

    Args:
        settings: Settings of the ingest, whose pixel range is None.
        selection: The selected images.
    """
    contents = sampled_images(selection, lambda name: not name.lower().endswith(_EIGHT_BIT_SUFFIXES))
    found = [largest for content in contents if (largest := largest_sample(content)) is not None]
    if not found:
        return settings
    pixel_range = next((largest for largest in RANGES if largest >= max(found)), RANGES[-1])
    if pixel_range < RANGES[-1]:
        _LOG.warning(
            "The 16-bit pixels of %d sampled images reach %d, so 0 to %d becomes black to white. --pixel-range 65535 "
            "keeps the range of the file, and other values set another one.",
            len(found),
            max(found),
            pixel_range,
        )
    return replace(settings, pixel_range=pixel_range)
