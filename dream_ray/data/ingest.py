"""Ingest: a source of labelled images becomes a store.

Labels first, then class by class: decode, carve off the validation images, write a file per split, add up the
statistics. The manifest comes last: a store without it is not whole, and another ingest may replace it.
"""

import platform
from collections.abc import Iterable
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq

import dream_ray
from dream_ray import storage
from dream_ray.data.class_writer import IMAGES, Form, Written, write_classes
from dream_ray.data.manifest import MANIFEST, SCHEMA_VERSION, SPLITS, Manifest
from dream_ray.data.parts import Part, open_parts
from dream_ray.data.sources import SourceOptions
from dream_ray.errors import RunError, UsageError

_REJECTS, _SCRATCH = "rejects.parquet", "scratch"
_REJECTS_SCHEMA = pa.schema(
    [("path", pa.string()), ("split", pa.string()), ("label", pa.int64()), ("reason", pa.string())]
)
_NAMED_REJECTS = 3


def ingest(
    source: str,
    store: str,
    *,
    test: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    validation: float = 0.1,
    max_rejects: float = 0.01,
    image_column: str = "image",
    label_column: str = "label",
    root: str | None = None,
    download: bool = False,
) -> Manifest:
    """Writes a store.

    Args:
        source: `digits`, `torchvision:NAME`, a Hugging Face image `.parquet`, or an image folder; see
            `dream_ray.data.sources`.
        store: Directory to write: absent, empty, or left unfinished by an ingest that broke off.
        test: Source of the test split; None takes the test images that belong to `source`, if there are any. Of a
            source that has test images these are taken, else all of it; its classes are found by their names.
        size: Side in pixels: the shorter side is resized to it and the centre cropped. None keeps the images as they
            are; they must then have one shape.
        channels: 1 (greyscale) or 3 (RGB). None: as the set is for digits and torchvision, 3 for image files.
        validation: Fraction in [0, 1) of every training class, rounded down, that becomes the validation split.
        max_rejects: Largest fraction in [0, 1] of all images that may be unreadable. They are listed in
            rejects.parquet.
        image_column: Parquet column of the images.
        label_column: Parquet column of the labels.
        root: Folder of the torchvision sets.
        download: Let torchvision download what is missing.

    Returns:
        The manifest of the store.

    Raises:
        UsageError: If an argument breaks a rule, the source is missing or not of its form, or the store exists.
        RunError: If too many images are unreadable, or the store cannot be written.
    """
    _check_arguments(size, channels, validation, max_rejects)
    _check_target(store)
    scratch = storage.join(store, _SCRATCH)
    options = SourceOptions(
        image_column=image_column, label_column=label_column, root=root, download=download, scratch=scratch
    )
    parts = open_parts(source, test, options)
    class_names = parts["train"].source.class_names
    form = Form(parts["train"].source.channels if channels is None else channels, size)
    storage.ensure_writable(store)
    _clear(store, (IMAGES, _REJECTS, _SCRATCH))
    try:
        written = write_classes(store, parts, form, validation)
        _write_rejects(storage.join(store, _REJECTS), written.rejects)
        _check_written(store, written, parts, max_rejects)
    except BaseException:
        _clear(store, (IMAGES,))
        raise
    finally:
        _clear(store, (_SCRATCH,))
    settings = {"test": test, "size": size, "channels": channels, "validation": validation}
    manifest = _describe(written, class_names, source, settings)
    manifest.write(store)
    return manifest


def _check_arguments(size: int | None, channels: int | None, validation: float, max_rejects: float) -> None:
    if size is not None and size < 1:
        raise UsageError(f"size must be an int >= 1; got {size}")
    if channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1 or 3; got {channels}")
    if not 0 <= validation < 1:
        raise UsageError(f"validation must be a fraction in [0, 1); got {validation}")
    if not 0 <= max_rejects <= 1:
        raise UsageError(f"max_rejects must be a fraction in [0, 1]; got {max_rejects}")


def _check_target(store: str) -> None:
    if storage.exists(store) and not storage.is_directory(store):
        raise UsageError(f"store must be a directory; {store} is a file")
    names = storage.list_directory(store)
    if MANIFEST in names:
        raise UsageError(f"store {store} exists already; delete it, or name another directory")
    others = sorted(set(names) - {IMAGES, _REJECTS, _SCRATCH})
    if others:
        raise UsageError(f"store must be a new or empty directory; {store} has {others[0]!r} in it")


def _write_rejects(path: str, rejects: list[dict[str, Any]]) -> None:
    with storage.atomic_output(path) as file:
        pq.write_table(pa.Table.from_pylist(rejects, schema=_REJECTS_SCHEMA), file)


def _check_written(store: str, written: Written, parts: dict[str, Part], max_rejects: float) -> None:
    num_images = sum(len(part.labels_N) for part in parts.values())
    num_rejects = len(written.rejects)
    if num_rejects > max_rejects * num_images:
        first = "; ".join(f"{reject['path']}: {reject['reason']}" for reject in written.rejects[:_NAMED_REJECTS])
        raise RunError(
            f"{num_rejects} of {num_images} images are unreadable, more than max_rejects = {max_rejects:g} allows; "
            f"all are listed in {storage.join(store, _REJECTS)}; the first: {first}"
        )
    class_names = parts["train"].source.class_names
    labels = {file.label for file in written.files if file.split == "train"}
    for label, name in enumerate(class_names):
        if label not in labels:
            raise RunError(f"no training image of class {name!r} could be read; see {storage.join(store, _REJECTS)}")


def _describe(written: Written, class_names: tuple[str, ...], source: str, settings: dict[str, Any]) -> Manifest:
    rows = {(file.split, file.label): file.rows for file in written.files}
    assert written.form.first is not None, "a class without images is refused before"
    height, width = written.form.first[1]
    return Manifest(
        schema_version=SCHEMA_VERSION,
        class_names=class_names,
        channels=written.form.channels,
        height=height,
        width=width,
        counts={split: tuple(rows.get((split, label), 0) for label in range(len(class_names))) for split in SPLITS},
        mean=written.sums.mean(),
        std=written.sums.std(),
        files=tuple(written.files),
        source=source,
        settings=settings,
        num_rejects=len(written.rejects),
        versions={
            "dream_ray": dream_ray.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "pyarrow": pa.__version__,
        },
    )


def _clear(store: str, names: Iterable[str]) -> None:
    for name in names:
        storage.delete(storage.join(store, name))
