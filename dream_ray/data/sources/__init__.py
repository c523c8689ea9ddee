"""Sources of labelled images, one file each, and the table of them."""

from dream_ray import storage
from dream_ray.data.sources.archive import ARCHIVE
from dream_ray.data.sources.base import (
    LISTING,
    OpenedSource,
    Source,
    SourceKind,
    SourceOptions,
    order_of_names,
    other_files,
)
from dream_ray.data.sources.digits import DIGITS
from dream_ray.data.sources.flat_images import FLAT_IMAGES, images_with_labels
from dream_ray.data.sources.hf_parquet import HF_PARQUET
from dream_ray.data.sources.image_folder import IMAGE_FOLDER
from dream_ray.data.sources.in_memory import IN_MEMORY
from dream_ray.data.sources.kaggle_imagenet import KAGGLE_IMAGENET
from dream_ray.data.sources.torchvision_dataset import TORCHVISION
from dream_ray.errors import UsageError

__all__ = [
    "LISTING",
    "SOURCES",
    "OpenedSource",
    "Source",
    "SourceKind",
    "SourceOptions",
    "find_source",
    "images_with_labels",
    "order_of_names",
    "other_files",
]

_NO_OPTIONS = SourceOptions()

SOURCES: dict[str, SourceKind] = {
    "digits": DIGITS,
    "torchvision": TORCHVISION,
    "hf_parquet": HF_PARQUET,
    "archive": ARCHIVE,
    "kaggle_imagenet": KAGGLE_IMAGENET,
    "image_folder": IMAGE_FOLDER,
    "in_memory": IN_MEMORY,
    "flat_images": FLAT_IMAGES,
}
"""Kinds of source; the first one that matches a text opens it."""


def find_source(source: str, options: SourceOptions = _NO_OPTIONS) -> SourceKind:
    """Returns the kind of source that a text names.

    Args:
        source: The text.
        options: Labels and label pattern choose the kind; a layout chooses among those of files.

    Raises:
        UsageError: If no kind matches; the message lists all of them.
    """
    if options.labels is not None or options.label_pattern is not None:
        return FLAT_IMAGES
    matching = (kind for kind in SOURCES.values() if kind.matches(source))
    first = next(matching, None)
    if first is not None and (options.layout is None or not first.layouts):
        return first
    if first is not None:
        # Directories come after archives, which lie beside them if the user has to choose.
        fitting = [kind for kind in (first, *matching) if options.layout in kind.layouts]
        if fitting:
            return fitting[-1]
        raise UsageError(
            f"layout {options.layout} does not fit {source}, which can be {' or '.join(sorted(first.layouts))}"
        )
    found = "a file of another kind" if storage.exists(source) else "which does not exist"
    accepted = "; ".join(kind.accepts for kind in SOURCES.values())
    raise UsageError(f"source must be one of: {accepted}; got {source!r}, {found}")
