"""From a source to the files of a store, class by class: one class at a time is in memory, as uint8."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dream_ray import storage
from dream_ray.data.carve import held_out
from dream_ray.data.decode import UnreadableImage, convert, decode
from dream_ray.data.image_file import batches, write_images
from dream_ray.data.images import Int64Array, UInt8Array
from dream_ray.data.manifest import ImageFile
from dream_ray.data.parts import Part
from dream_ray.data.sources import Source
from dream_ray.data.statistics import PixelSums
from dream_ray.errors import UsageError

IMAGES = "images"


@dataclass(frozen=True)
class Form:
    """The form of every image of a store.

    Attributes:
        channels: 1 or 3.
        size: Side in pixels, or None to keep the images' own shape.
        first: Name and (height, width) of the first image that was read.
    """

    channels: int
    size: int | None
    first: tuple[str, tuple[int, int]] | None = None

    def seen(self, name: str, image_CHW: UInt8Array) -> "Form":
        """Returns the form with the shape that this image sets, or raises UsageError if another set another one."""
        _, height, width = image_CHW.shape
        if self.first is None:
            return replace(self, first=(name, (height, width)))
        first, shape = self.first
        if shape != (height, width):
            raise UsageError(
                f"images must have one shape: {first} is {shape[0]} x {shape[1]} and {name} is {height} x {width} "
                "(height x width); give --size to resize and crop them"
            )
        return self


@dataclass
class Written:
    """What has been written.

    Attributes:
        form: With the shape that all images have.
        files: The image files.
        rejects: Rows of rejects.parquet: path, split, label, reason.
        sums: Pixel sums over train and validation.
    """

    form: Form
    files: list[ImageFile]
    rejects: list[dict[str, Any]]
    sums: PixelSums


def write_classes(store: str, parts: Mapping[str, Part], form: Form, validation: float) -> Written:
    """Decodes, carves and writes all classes of all parts.

    Args:
        store: Directory of the store.
        parts: The parts "train" and maybe "test".
        form: What every image is brought to.
        validation: Fraction of the readable images of every training class that goes to the validation split.

    Raises:
        UsageError: If images differ in shape.
        RunError: If a file cannot be written.
    """
    written = Written(form, [], [], PixelSums.zero(form.channels))
    for split, part in parts.items():
        for label, class_name in enumerate(parts["train"].source.class_names):
            rows = np.flatnonzero(part.labels_N == label)
            images_NCHW, written.form, rejects = decode_class(part.source, rows, written.form)
            written.rejects += [{"path": name, "split": split, "label": label, "reason": why} for name, why in rejects]
            if images_NCHW is None:
                continue
            if split == "train":
                held = held_out("validation", class_name, len(images_NCHW), validation)
                split_rows = {"train": np.flatnonzero(~held), "validation": np.flatnonzero(held)}
            else:
                split_rows = {split: np.arange(len(images_NCHW))}
            for name, chosen in split_rows.items():
                written.files += _write_file(store, name, label, images_NCHW, chosen)
                if name != "test":
                    for batch in batches(images_NCHW, chosen):
                        written.sums += PixelSums.of(batch)
    return written


def decode_class(source: Source, rows: Int64Array, form: Form) -> tuple[UInt8Array | None, Form, list[tuple[str, str]]]:
    """Decodes rows of a source.

    Returns:
        The images (n, C, H, W) uint8 that could be read, or None if there are none; the form with the shape of the
        first image; (name, reason) of those that could not be read.

    Raises:
        UsageError: If images differ in shape.
    """
    images_NCHW: UInt8Array | None = None
    rejects = []
    num_images = 0
    for row in rows.tolist():
        try:
            image_CHW = _load(source.read(row), form)
        except UnreadableImage as reason:
            rejects.append((source.name(row), str(reason)))
            continue
        form = form.seen(source.name(row), image_CHW)
        if images_NCHW is None:
            images_NCHW = np.empty((len(rows), *image_CHW.shape), dtype=np.uint8)
        images_NCHW[num_images] = image_CHW
        num_images += 1
    return None if images_NCHW is None else images_NCHW[:num_images], form, rejects


def _load(image: bytes | UInt8Array, form: Form) -> UInt8Array:
    read: Callable[..., UInt8Array] = decode if isinstance(image, bytes) else convert
    return read(image, channels=form.channels, size=form.size)


def _write_file(store: str, split: str, label: int, images_NCHW: UInt8Array, rows: Int64Array) -> list[ImageFile]:
    if not len(rows):
        return []
    relative = storage.join(IMAGES, split, f"{label:05d}.arrow")
    path = storage.join(store, relative)
    write_images(path, images_NCHW, rows)
    return [ImageFile(split, label, relative, len(rows), storage.sha256(path), storage.size(path))]
