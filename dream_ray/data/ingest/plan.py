"""Second stage: which images go into which file of the store. Pure functions of the listings.

The plan is made before an image is read, so it depends on nothing but the listings and the settings: not on who reads
the images, on how many machines, and which of them turn out to be unreadable.
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
"""What is noted of an image that is to be written."""

# Largest file: a class of ImageNet at 224 px makes four, which are written in parallel and cached one by one.
FILE_BYTES = 64 << 20
# Images whose listings are held in memory at a time: some 200 bytes each, three times over. Text of 8 KB, which no path
# has, would be too much for the 32-bit offsets of Arrow's strings.
_TOGETHER = 1 << 18
_NOT_STORED = -1


@dataclass(frozen=True)
class ImageFilePlan:
    """One file to write.

    Attributes:
        split: One of the splits of a store.
        label: Label of the class.
        chunk: Number of the file within class and split.
        part: "train" or "test": whose listings `rows_N2` are of.
        rows_N2: (n, 2) number of the shard and row in its listing, of every image in order.
    """

    split: str
    label: int
    chunk: int
    part: str
    rows_N2: Int64Array


def choose_classes(source: str, names: tuple[str, ...], chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the classes to store, by label.

    Raises:
        UsageError: If one was chosen that the source does not have, or twice.
    """
    if chosen is None:
        return names
    known = set(names)
    meant = {given: next((name for name in possible_names(given) if name in known), None) for given in chosen}
    missing = [given for given, name in meant.items() if name is None]
    if missing:
        raise UsageError(f"classes must be classes of {source} ({_some(names)}); not there: {_some(missing)}")
    if len(chosen) < 2:
        raise UsageError(f"classes must be at least 2; got {', '.join(chosen)}")
    found = tuple(name for name in meant.values() if name is not None)
    repeated = repeated_name(found)
    if repeated is not None:
        raise UsageError(f"classes must differ; {repeated!r} occurs twice")
    return found


def rows_by_class(
    listings: Sequence[pa.Table], class_names: Sequence[str], max_per_class: int | None
) -> tuple[list[Int64Array], set[str]]:
    """Sorts the images of a part by class.

    Args:
        listings: Of all shards, in order.
        class_names: Classes to store, by label.
        max_per_class: Images of a class that are kept, the first ones; None: all.

    Returns:
        (n, 2) shard and row of the images of every class, in order; the names of other classes that occur.
    """
    label_of = {name: label for label, name in enumerate(class_names)}
    others: set[str] = set()
    of_shards = [np.empty(0, dtype=np.int32)]
    for table in listings:
        coded = table["class"].combine_chunks().dictionary_encode()
        names = coded.dictionary.to_pylist()
        others |= {name for name in names if name not in label_of}
        # The last one is for rows without a class.
        label_of_code = np.array([*(label_of.get(name, _NOT_STORED) for name in names), _NOT_STORED], dtype=np.int32)
        of_shards.append(label_of_code[pc.fill_null(coded.indices, len(names)).to_numpy(zero_copy_only=False)])
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
    """Cuts the classes into files.

    Args:
        train: Training images by label, see `rows_by_class`.
        test: Test images likewise; empty where there are none.
        class_names: By label.
        validation: Fraction of the listed images of every training class that goes to the validation split.
        image_bytes: Of an image of the store.
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
    """Takes the listed images of the files out of the listings of their parts.

    Taken file by file, it would be files times shards pieces where every class has images in every shard, and minutes.
    So those of many files are taken together; not those of all, for the listings may be larger than the memory.

    Args:
        listings: Of every part, of all shards in order.
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
    """Cuts files into runs of at most `_TOGETHER` images, or of one file."""
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
    """Yields a batch per file: taken shard by shard, then brought into the order of the files."""
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
