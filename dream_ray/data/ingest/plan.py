"""Second stage: which images go into which file of the store. Pure functions of the listings.

The plan is made before an image is read, so it depends on nothing but the listings and the settings: not on who reads
the images, on how many machines, and which of them turn out to be unreadable.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dream_ray.data.carve import held_out
from dream_ray.data.class_lists import possible_names
from dream_ray.data.images import Int64Array
from dream_ray.data.sources import LISTING
from dream_ray.errors import UsageError

# Largest file: a class of ImageNet at 224 px makes four, which are written in parallel and cached one by one.
FILE_BYTES = 64 << 20


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
    repeated = [name for name in found if found.count(name) > 1]
    if repeated:
        raise UsageError(f"classes must differ; {repeated[0]!r} occurs twice")
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
    per_class: list[list[Int64Array]] = [[] for _ in class_names]
    others = set()
    for shard, table in enumerate(listings):
        coded = table["class"].combine_chunks().dictionary_encode()
        names = coded.dictionary.to_pylist()
        others |= {name for name in names if name not in label_of}
        codes_N = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        for code, name in enumerate(names):
            if name in label_of:
                rows = np.flatnonzero(codes_N == code)
                per_class[label_of[name]].append(np.stack([np.full_like(rows, shard), rows], axis=1))
    empty = np.empty((0, 2), dtype=np.int64)
    return [np.concatenate([empty, *found])[:max_per_class] for found in per_class], others


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


def gather(listings: Sequence[pa.Table], rows_N2: Int64Array) -> pa.RecordBatch:
    """Takes the listed images of one file out of the listings of its part, in order."""
    schema = pa.schema([field for field in LISTING if field.name != "class"])
    taken = [
        listings[shard].select(schema.names).take(rows_N2[rows_N2[:, 0] == shard, 1])
        for shard in np.unique(rows_N2[:, 0])
    ]
    table = pa.concat_tables(taken).combine_chunks()
    return table.cast(schema).to_batches()[0]


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
