"""Images of a program as a source of an ingest.

The program passes over its images twice. The first pass digests them: the digest is part of the settings, so that an
interrupted ingest continues, and a finished one succeeds, only with the same images. The second pass copies them to the
spool of the store, from which the jobs read. Only one image is in memory at a time, and no job gets the objects.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from PIL import Image

from dream_ray import storage
from dream_ray.data.decoding.decode import UnreadableImage, pixels_of
from dream_ray.data.sources.base import OpenedSource, Source, SourceKind, SourceOptions, listing_of, pnm
from dream_ray.data.sources.given_images import GivenImages, Row
from dream_ray.data.spool import append
from dream_ray.errors import UsageError

_PREFIX = "in-memory:"
_GREY_MODES = ("1", "L", "LA")
_SHOWN_DIGITS = 16
_REPORTED = 100


@dataclass(frozen=True)
class SurveyedImages:
    """Images after the first pass.

    Attributes:
        images: The images.
        num_images: Their number.
        digest: SHA-256 over images and classes, in order.
        channels: 1 if all of them are grey pixels; else 3.
    """

    images: GivenImages
    num_images: int
    digest: str
    channels: int

    @property
    def source(self) -> str:
        """The text that stands for these images in the settings and in the manifest."""
        return f"{_PREFIX}{self.images.kind}, {self.num_images} images, sha256 {self.digest[:_SHOWN_DIGITS]}"


def survey(images: GivenImages, progress: Callable[[str, int, int], None]) -> SurveyedImages:
    """Passes over the images; raises UsageError if there are none, or if one has the wrong form."""
    digest, number, is_grey = hashlib.sha256(), 0, True
    for number, row in enumerate(images.rows(), 1):
        _digest(digest, row)
        is_grey = is_grey and isinstance(row[0], Image.Image) and row[0].mode in _GREY_MODES
        if number % _REPORTED == 0:
            progress(f"images of {images.title} digested", number, number)
    if not number:
        raise UsageError(f"{images.title} has no images")
    return SurveyedImages(images, number, digest.hexdigest(), 1 if is_grey else 3)


def open_in_memory(source: str, options: SourceOptions) -> OpenedSource:
    """Opens images that the program has given, as `SourceOptions.given`."""
    if source not in options.given:
        raise UsageError(f"source {source} stands for images of a Python program; give them to dream_ray.ingest again")
    surveyed: SurveyedImages = options.given[source]
    channels = options.channels or surveyed.channels
    return OpenedSource(
        Source(
            class_names=surveyed.images.class_names,
            shards=(source,),
            list_shard=partial(_spill, surveyed, channels, options.size),
            channels=surveyed.channels,
            is_in_process=True,
        )
    )


def _spill(surveyed: SurveyedImages, channels: int, size: int | None, number: int, spool: str) -> pa.Table:
    digest = hashlib.sha256()
    with storage.atomic_output(spool) as file:
        table = listing_of(_copied(surveyed.images.rows(), digest, file, spool, channels, size))
    if digest.hexdigest() != surveyed.digest:
        raise UsageError(
            f"{surveyed.images.title} must have the same images in the same order in every pass; the second pass gave "
            "others: remove random transforms and shuffling"
        )
    return table


def _copied(
    rows: Iterator[Row], digest: Any, file: Any, spool: str, channels: int, size: int | None
) -> Iterator[dict[str, Any]]:
    """Copies images to the spool and yields the rows of their listing; pixels are converted to those of the store."""
    for number, row in enumerate(rows):
        _digest(digest, row)
        image, class_name = row
        place, problem = {"offset": 0, "length": 0}, None
        try:
            place = append(file, image if isinstance(image, bytes) else _encoded(image, channels, size))
        except UnreadableImage as reason:
            problem = str(reason)
        yield {"class": class_name, "name": f"row {number}", "path": spool, **place, "problem": problem}


def _encoded(image: Image.Image, channels: int, size: int | None) -> bytes:
    if image.mode.startswith("I"):  # more than 8 bits, whose range is looked for in the copies
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    pixels_CHW = pixels_of(image, channels=channels, size=size)
    return pnm(pixels_CHW[0] if channels == 1 else pixels_CHW.transpose(1, 2, 0))


def _digest(digest: Any, row: Row) -> None:
    image, class_name = row
    if isinstance(image, bytes):
        kind, content = "encoded", image
    else:
        kind, content = f"{image.mode} {image.size}", image.tobytes()
    digest.update(f"{len(class_name)} {class_name} {kind} {len(content)} ".encode())
    digest.update(content)


IN_MEMORY = SourceKind(
    "images of a Python program (dream_ray.ingest)",
    lambda source: source.startswith(_PREFIX),
    open_in_memory,
    frozenset({"image_column", "label_column"}),
)
