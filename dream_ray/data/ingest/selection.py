"""The classes and images that the settings select of the listings."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dream_ray.data.arrays import Int64Array
from dream_ray.data.decoding.decode import UnreadableImage
from dream_ray.data.ingest.listing import class_names, read_listing
from dream_ray.data.ingest.plan import choose_classes, rows_by_class
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import read_image
from dream_ray.data.sources import Source
from dream_ray.errors import UsageError

_SAMPLES = 256


@dataclass(frozen=True)
class Selection:
    """The selected images.

    Attributes:
        class_names: Classes of the store, by label.
        channels: Channels of the store.
        listings: All listed images of the parts "train" and, if there are test images, "test".
        rows: Selected rows of these listings by part and label.
        other_files: Numbers of files of all parts that are no images, by the ends of their names.
    """

    class_names: tuple[str, ...]
    channels: int
    listings: dict[str, pa.Table]
    rows: dict[str, list[Int64Array]]
    other_files: dict[str, int]


def select(settings: IngestSettings, work: str, parts: dict[str, Source]) -> Selection:
    """Selects images of the listings of all shards.

    Raises:
        UsageError: If a chosen class does not exist or has no images, or the test images are of other classes.
    """
    listings, others = {}, Counter[str]()
    for part, source in parts.items():
        listings[part], of_part = read_listing(work, part, len(source.shards))
        others.update(of_part)
    known = class_names(settings.source, parts["train"], listings["train"])
    names = choose_classes(settings.source, known, settings.classes)
    rows = {part: rows_by_class(listing, names, settings.max_per_class) for part, listing in listings.items()}
    for name, rows_N in zip(names, rows["train"], strict=True):
        if not len(rows_N):
            left_out = f"; {others.total()} other files, such as {min(others)}, were left out" if others else ""
            raise UsageError(f"class {name!r} of {settings.source} has no images{left_out}")
    if "test" in rows:
        unknown = sorted(set(listings["test"]["class"].unique().drop_null().to_pylist()) - set(known))
        if unknown:
            raise UsageError(f"test class {unknown[0]!r} is not a training class; those are {', '.join(known[:10])}")
        if not any(map(len, rows["test"])):
            raise UsageError("the test source has no images")
    channels = parts["train"].channels if settings.channels is None else settings.channels
    return Selection(names, channels, listings, rows, dict(sorted(others.items())))


def sampled_images(selection: Selection, is_wanted: Callable[[str], bool] = lambda name: True) -> Iterator[bytes]:
    """Reads up to 256 training images, evenly spaced over all classes; unreadable ones are skipped.

    Args:
        selection: The selected images.
        is_wanted: Tells by the name of a sampled image whether to read it.
    """
    rows_N = np.concatenate(selection.rows["train"])
    picked = np.unique(np.linspace(0, len(rows_N) - 1, min(_SAMPLES, len(rows_N))).astype(int))
    for row in selection.listings["train"].take(rows_N[picked]).to_pylist():
        if is_wanted(row["name"]):
            try:
                yield read_image(row)
            except UnreadableImage:
                continue  # the ingest counts it
