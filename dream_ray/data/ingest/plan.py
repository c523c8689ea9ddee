"""Second stage: assign the listed images to the files of the store, by pure functions of the listings.

The plan precedes all reading, so it depends only on the listings and the settings: not on the number of machines, nor
on which images turn out to be unreadable.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dream_ray.data.arrays import Int64Array
from dream_ray.data.class_lists import possible_names, repeated_name
from dream_ray.data.holdout import held_out
from dream_ray.data.sources import LISTING
from dream_ray.errors import UsageError

LISTED = pa.schema([field for field in LISTING if field.name != "class"])
"""What the plan keeps of an image."""

# Largest file: a class of ImageNet at 224 px makes four, which are written in parallel and cached separately.
FILE_BYTES = 64 << 20
# Images whose listings are in memory at a time: about 200 bytes each, three times. Arrow's strings have 32-bit offsets,
# so the text of an image may have 8 KB, more than any path.
_TOGETHER = 1 << 18
_NOT_STORED = -1


@dataclass(frozen=True)
class ImageFilePlan:
    """One file to write.

    Attributes:
        split: One of the splits of a store.
        label: Label of the class.
        chunk: Number of the file within class and split.
        part: "train" or "test": the listings that `rows_N2` refers to.
        rows_N2: (n, 2) number of the shard and row in its listing, for every image in order.
    """

    split: str
    label: int
    chunk: int
    part: str
    rows_N2: Int64Array


def choose_classes(source: str, names: tuple[str, ...], chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the classes to store, by label.

    Raises:
        UsageError: If a chosen class does not exist or occurs twice.
    """
    if chosen is None:
        return names
    known = set(names)
    meant = {given: next((name for name in possible_names(given) if name in known), None) for given in chosen}
    missing = [given for given, name in meant.items() if name is None]
    if missing:
        raise UsageError(f"classes must be classes of {source} ({_some(names)}); missing: {_some(missing)}")
    if len(chosen) < 2:
        raise UsageError(f"classes must be at least 2; got {', '.join(chosen)}")
    found = tuple(name for name in meant.values() if name is not None)
    repeated = repeated_name(found)
    if repeated is not None:
        raise UsageError(f"classes must be unique; {repeated!r} occurs twice")
    return found


def rows_by_class(
    listings: Sequence[pa.Table], class_names: Sequence[str], max_per_class: int | None
) -> tuple[list[Int64Array], set[str]]:
    """Groups the images of a part by class.

    Args:
        listings: Listings of all shards, in order.
        class_names: Classes to store, by label.
        max_per_class: Largest number of images per class, the first ones; None: all.

    Returns:
        (n, 2) shard and row of the images of every class, in order; the names of other classes that occur.
    """
    others: set[str] = set()
    of_shards = [np.empty(0, dtype=np.int32)]
    for table in listings:
        labels = pc.index_in(table["class"], pa.array(class_names, pa.string()))
        others.update(table["class"].filter(labels.is_null()).drop_null().unique().to_pylist())
        of_shards.append(pc.fill_null(labels, _NOT_STORED).to_numpy())
    labels_N = np.concatenate(of_shards)
    sizes_S = np.array([len(table) for table in listings], dtype=np.int64)
    shard_N = np.repeat(np.arange(len(sizes_S)), sizes_S)
    row_N = np.arange(len(labels_N)) - np.repeat(np.cumsum(sizes_S) - sizes_S, sizes_S)
    rows_N2 = np.stack([shard_N, row_N], axis=1)
    order_N = np.argsort(labels_N, kind="stable")
    ends = np.searchsorted(labels_N[order_N], np.arange(len(class_names) + 1))
    return [rows_N2[order_N[start:end][:max_per_class]] for start, end in pairwise(ends)], others


def plan_files(
    train: Sequence[Int64Array],
    test: Sequence[Int64Array],
    class_names: Sequence[str],
    *,
    validation: float,
    image_bytes: int,
) -> list[ImageFilePlan]:
    """Divides the classes into files.

    Args:
        train: Training images by label, see `rows_by_class`.
        test: Test images likewise; empty if there are none.
        class_names: By label.
        validation: Fraction of the listed images of every training class that goes to the validation split.
        image_bytes: Size of an image of the store.
    """
    rows_per_file = max(1, FILE_BYTES // image_bytes)
    files = []
    for label, name in enumerate(class_names):
        held = held_out("validation", name, len(train[label]), validation)
        of_class = {"train": train[label][~held], "validation": train[label][held]}
        if test:
            of_class["test"] = test[label]
        for split, rows_N2 in of_class.items():
            part = "test" if split == "test" else "train"
            files += [
                ImageFilePlan(split, label, chunk, part, rows_N2[start : start + rows_per_file])
                for chunk, start in enumerate(range(0, len(rows_N2), rows_per_file))
            ]
    return files


def gather(listings: Mapping[str, Sequence[pa.Table]], files: Sequence[ImageFilePlan]) -> Iterator[pa.RecordBatch]:
    """Collects the listed images of the files from the listings of their parts.

    If every class has images in every shard, separate collection would need files times shards pieces, and minutes. So
    many files are collected together; not all, because the listings may be larger than the memory.

    Args:
        listings: Listings of all shards by part, in order.
        files: In order.

    Yields:
        A batch of schema `LISTED` per file.
    """
    for together in _together(files):
        of_part = {
            part: _take(tables, [file.rows_N2 for file in together if file.part == part])
            for part, tables in listings.items()
        }
        for file in together:
            yield next(of_part[file.part])


def _together(files: Sequence[ImageFilePlan]) -> Iterator[list[ImageFilePlan]]:
    """Divides files into runs of at most `_TOGETHER` images, or of one file."""
    together: list[ImageFilePlan] = []
    num_images = 0
    for file in files:
        if together and num_images + len(file.rows_N2) > _TOGETHER:
            yield together
            together, num_images = [], 0
        together.append(file)
        num_images += len(file.rows_N2)
    yield together


def _take(listings: Sequence[pa.Table], of_files: Sequence[Int64Array]) -> Iterator[pa.RecordBatch]:
    """Yields a batch per file: rows are taken shard by shard, then put into the order of the files."""
    if not of_files:
        return
    rows_N2 = np.concatenate(of_files)
    by_shard_N = np.argsort(rows_N2[:, 0], kind="stable")
    shards, starts = np.unique(rows_N2[by_shard_N, 0], return_index=True)
    rows_of_shards = np.split(rows_N2[by_shard_N, 1], starts[1:])
    taken = [
        listings[shard].select(LISTED.names).take(rows) for shard, rows in zip(shards, rows_of_shards, strict=True)
    ]
    table = pa.concat_tables(taken).combine_chunks().take(np.argsort(by_shard_N)).cast(LISTED)
    start = 0
    for rows in of_files:
        [batch] = table.slice(start, len(rows)).to_batches()
        yield batch
        start += len(rows)


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
