"""Second stage: assign the listed images to the files of the store, by pure functions of the listings.

The plan precedes all reading, so it depends only on the listings and the settings: not on the number of machines, nor
on which images turn out to be unreadable.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dream_ray.data.arrays import Int64Array
from dream_ray.data.class_lists import composed, possible_names, repeated_name
from dream_ray.data.holdout import held_out, held_out_contents
from dream_ray.data.sources import LISTING
from dream_ray.errors import UsageError

LISTED = pa.schema([field for field in LISTING if field.name != "class"])
"""What the plan keeps of an image."""

# Largest file: a class of ImageNet at 224 px makes four, which are written in parallel and cached separately.
FILE_BYTES = 64 << 20
# About so many listed images are in memory at a time: about 200 bytes each, three times. Arrow's strings have 32-bit
# offsets, so the text of an image may have 8 KB, more than any path.
_TOGETHER = 1 << 18
_NOT_STORED = -1


def choose_classes(source: str, names: tuple[str, ...], chosen: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the classes to store, by label.

    Raises:
        UsageError: If a chosen class does not exist or occurs twice.
    """
    if chosen is None:
        return names
    known = set(names)
    meant = {given: next((name for name in possible_names(composed(given)) if name in known), None) for given in chosen}
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


def rows_by_class(listing: pa.Table, class_names: Sequence[str], max_per_class: int | None) -> list[Int64Array]:
    """Groups the listed images of a part by class.

    Args:
        listing: All images of the part, in order.
        class_names: Classes to store, by label.
        max_per_class: Largest number of images per class, the first ones; None: all.

    Returns:
        (n,) rows of the images of every class, in order.
    """
    labels = pc.index_in(listing["class"], pa.array(class_names, pa.string()))
    labels_N = pc.fill_null(labels, _NOT_STORED).to_numpy()
    order_N = np.argsort(labels_N, kind="stable")
    ends = np.searchsorted(labels_N[order_N], np.arange(len(class_names) + 1))
    return [order_N[start:end][:max_per_class] for start, end in pairwise(ends)]


def split_by_order(
    train: Sequence[Int64Array], class_names: Sequence[str], validation: float
) -> dict[str, list[Int64Array]]:
    """Divides the training images, by their numbers in the class.

    Args:
        train: Rows of the training images by label, see `rows_by_class`.
        class_names: By label.
        validation: Fraction of the listed images of every class that goes to the validation split.

    Returns:
        Rows by split and label.
    """
    held = [
        held_out("validation", name, len(rows_N), validation) for name, rows_N in zip(class_names, train, strict=True)
    ]
    return {
        "train": [rows_N[~held_N] for rows_N, held_N in zip(train, held, strict=True)],
        "validation": [rows_N[held_N] for rows_N, held_N in zip(train, held, strict=True)],
    }


def split_by_content(
    train: Sequence[Int64Array], digests: Sequence[bytes | None], *, test_fraction: float, validation: float
) -> dict[str, list[Int64Array]]:
    """Divides the training images so that equal ones are in the same split.

    Args:
        train: Rows of the training images by label, see `rows_by_class`.
        digests: Of their contents, in the same order; None for unreadable images, which stay training images.
        test_fraction: Fraction of the readable images of every class that goes to the test split.
        validation: Fraction of the others that goes to the validation split.

    Returns:
        Rows by split and label.
    """
    labels_N = np.repeat(np.arange(len(train)), list(map(len, train)))
    in_test_N = held_out_contents("test", digests, labels_N, test_fraction)
    others = [None if in_test else digest for digest, in_test in zip(digests, in_test_N, strict=True)]
    in_validation_N = held_out_contents("validation", others, labels_N, validation)
    splits: dict[str, list[Int64Array]] = {"train": [], "validation": [], "test": []}
    ends = np.cumsum([0, *map(len, train)])
    for rows_N, (start, end) in zip(train, pairwise(ends), strict=True):
        tested, validated = in_test_N[start:end], in_validation_N[start:end]
        splits["train"].append(rows_N[~tested & ~validated])
        splits["validation"].append(rows_N[validated])
        splits["test"].append(rows_N[tested])
    return splits


def plan_files(
    splits: Mapping[str, Sequence[Int64Array]], *, image_bytes: int
) -> dict[tuple[str, int, int], Int64Array]:
    """Divides the classes into files.

    Args:
        splits: Rows of the images by split and label.
        image_bytes: Size of an image of the store.

    Returns:
        Rows of the images by split, label, and number of the file within both; the files of a class are together.
    """
    rows_per_file = max(1, FILE_BYTES // image_bytes)
    files = {}
    for label, of_class in enumerate(zip(*splits.values(), strict=True)):
        for split, rows_N in zip(splits, of_class, strict=True):
            for chunk, start in enumerate(range(0, len(rows_N), rows_per_file)):
                files[split, label, chunk] = rows_N[start : start + rows_per_file]
    return files


def gather(listing: pa.Table, files: Sequence[Int64Array]) -> Iterator[pa.RecordBatch]:
    """Collects the listed images of the files.

    If every class has images in every shard, separate collection would need files times shards pieces, and minutes. So
    many files are collected together; not all, because the listing may be larger than the memory.

    Args:
        listing: All images.
        files: Rows of the images of every file.

    Yields:
        A batch of schema `LISTED` per file.
    """
    import pyarrow.dataset as ds  # imports pandas

    dataset = ds.dataset(listing.select(LISTED.names))
    ends = np.cumsum([len(rows_N) for rows_N in files])
    for _, together in groupby(zip(files, ends, strict=True), lambda file: file[1] // _TOGETHER):
        of_files = [rows_N for rows_N, _ in together]
        [taken] = dataset.take(np.concatenate(of_files)).combine_chunks().cast(LISTED).to_batches()
        start = 0
        for rows_N in of_files:
            yield taken.slice(start, len(rows_N))
            start += len(rows_N)


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
