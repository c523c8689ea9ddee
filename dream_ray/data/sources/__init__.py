"""Sources of labelled images, one file each, and the table of them."""

from dream_ray import storage
from dream_ray.data.sources.base import LISTING, OpenedSource, Source, SourceKind, SourceOptions, order_of_names
from dream_ray.data.sources.digits import DIGITS
from dream_ray.data.sources.flat_folder import flat_folder
from dream_ray.data.sources.hf_parquet import HF_PARQUET
from dream_ray.data.sources.image_folder import IMAGE_FOLDER
from dream_ray.data.sources.in_memory import IN_MEMORY
from dream_ray.data.sources.tar_archive import TAR_ARCHIVE
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
    "flat_folder",
    "order_of_names",
]

SOURCES: dict[str, SourceKind] = {
    "digits": DIGITS,
    "torchvision": TORCHVISION,
    "hf_parquet": HF_PARQUET,
    "tar_archive": TAR_ARCHIVE,
    "image_folder": IMAGE_FOLDER,
    "in_memory": IN_MEMORY,
}
"""Kinds of source; the first one that matches a text opens it."""


def find_source(source: str) -> SourceKind:
    """Returns the kind of source that a text names.

    Raises:
        UsageError: If no kind matches; the message lists all of them.
    """
    for kind in SOURCES.values():
        if kind.matches(source):
            return kind
    found = "a file of another kind" if storage.exists(source) else "which does not exist"
    accepted = "; ".join(kind.accepts for kind in SOURCES.values())
    raise UsageError(f"source must be one of: {accepted}; got {source!r}, {found}")
