"""Third stage: write every file of the plan, independently of the others, and leave a note when it is done."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any

import numpy as np

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.ingest.equal_images import image_digest
from dream_ray.data.store.image_file import write_images
from dream_ray.errors import RunError, UsageError

IMAGES, NOTES = "images", "done"
FILES = "files.arrow"

# A bucket answers after tens of milliseconds, so this many images are requested at a time.
_REMOTE_READS = 16
# Uncompressed RGB pixels of the largest image that is decoded (`PIL.Image.MAX_IMAGE_PIXELS`). A larger file is not an
# image but, for example, a film or an archive, and must not fill the memory.
_MAX_BYTES = 256 << 20


class UnreachedImage(UnreadableImage):
    """Its bytes could not be read, which may succeed later."""


@dataclass(frozen=True)
class Form:
    """The form of every image of a store.

    Attributes:
        channels: 1 or 3.
        size: Side in pixels, or None to keep the images' own shape.
        encoding: A key of `encodings.ENCODINGS`.
        first: Name of the image whose shape all others must have.
        height: Its height in pixels.
        width: Its width.
        pixel_range: Largest value of pixels of more than 8 bits, if it is known.
    """

    channels: int
    size: int | None
    encoding: str
    first: str
    height: int
    width: int
    pixel_range: int | None = None


@dataclass(frozen=True)
class WriteJob:
    """One file of the plan. It is sent to other machines; a batch of `work`/files.arrow lists the images.

    Attributes:
        store: Directory of the store.
        work: Work directory of the ingest.
        form: Form of the images.
        number: Index of the file in the plan, and of the batch.
        split: Split of the images.
        label: Label of their class.
        chunk: Number of the file within split and class.
    """

    store: str
    work: str
    form: Form
    number: int
    split: str
    label: int
    chunk: int

    @property
    def path(self) -> str:
        """Path of the file, relative to the store."""
        return f"{IMAGES}/{self.split}/{self.label:05d}-{self.chunk:04d}.arrow"


def write_file(job: WriteJob) -> int:
    """Reads, decodes and writes the images of one file, and writes its note.

    Returns:
        The number of listed images, including unreadable ones.

    Raises:
        UsageError: If images differ in shape.
        RunError: If a file cannot be written, or a source cannot be reached.
    """
    rows = read_rows(job.work, job.number)
    note_path = storage.join(job.work, NOTES, note_name(job.number))
    if storage.exists(note_path):  # A task of several jobs was repeated.
        return len(rows)
    rejects: list[dict[str, Any]] = []
    digests: list[str] = []
    note: dict[str, Any] = {"path": job.path, "split": job.split, "label": job.label, "rows": 0}
    sums_3C = np.zeros((3, job.form.channels), dtype=np.int64)
    images = _images(rows, job, rejects, digests)
    first = next(images, None)
    if first is not None:
        shape_CHW = (job.form.channels, job.form.height, job.form.width)
        path = storage.join(job.store, job.path)
        written, sums_3C = write_images(path, chain([first], images), shape_CHW, job.form.encoding)
        note |= written
    storage.write_json(note_path, {**note, "rejects": rejects, "digests": digests, "sums": sums_3C.tolist()})
    return len(rows)


def read_rows(work: str, number: int, file: str = FILES) -> list[dict[str, Any]]:
    """Reads the listed images of one file of the plan, or of another batch of listed images in the work directory."""
    with storage.open_arrow(storage.join(work, file)) as reader:
        rows: list[dict[str, Any]] = reader.get_batch(number).to_pylist()
        return rows


def note_name(number: int) -> str:
    """Returns the name of a file's note."""
    return f"{number:06d}.json"


def read_image(row: dict[str, Any]) -> bytes:
    """Reads the bytes of a listed image.

    Raises:
        UnreadableImage: If there are none; `UnreachedImage` if a later read may succeed.
        RunError: If a file of many images, or the whole directory, is missing or cannot be reached.
    """
    is_part = row["length"] is not None
    if row["problem"] is not None:
        raise UnreadableImage(row["problem"])
    if is_part and row["length"] > _MAX_BYTES:
        raise UnreadableImage(f"it must have at most {_MAX_BYTES} bytes; it has {row['length']}")
    try:
        return storage.read_bytes(row["path"], row["offset"], row["length"], most=_MAX_BYTES)
    except storage.NotReadable as error:
        if is_part:
            raise RunError(
                f"source {row['path']} has changed since it was listed: {error}; restore it and repeat the command"
            ) from None
        # One missing file is a reject, but without its disk or bucket every image would become one. In both cases
        # nothing is left beside the file: a mount point stays as an empty directory, and a bucket has no directories.
        directory = storage.sibling(storage.absolute(row["path"]), "")
        if not storage.list_directory(directory):
            raise RunError(
                f"source {directory} is missing or empty: {error}; restore it and repeat the command"
            ) from None
        raise UnreachedImage(str(error)) from None


def _images(
    rows: list[dict[str, Any]], job: WriteJob, rejects: list[dict[str, Any]], digests: list[str]
) -> Iterator[UInt8Array]:
    """Yields the readable images in order; collects their digests, and the rejects."""
    for row, read in read_ahead(rows):
        try:
            form = job.form
            image_CHW = decode(read(), channels=form.channels, size=form.size, pixel_range=form.pixel_range)
        except UnreadableImage as reason:
            rejects.append(
                {
                    "path": row["name"],
                    "split": job.split,
                    "label": job.label,
                    "reason": str(reason),
                    "unreached": isinstance(reason, UnreachedImage),
                }
            )
            continue
        _, height, width = image_CHW.shape
        if (height, width) != (form.height, form.width):
            raise UsageError(
                f"images must have the same shape: {form.first} is {form.height} x {form.width} and {row['name']} is "
                f"{height} x {width} (height x width); --size {min(form.height, form.width)} resizes and crops them"
            )
        digests.append(image_digest(image_CHW))
        yield image_CHW


def read_ahead(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Callable[[], bytes]]]:
    """Yields images in order, each with a function that returns its bytes or raises the errors of `read_image`.

    The next images of a remote source are read while earlier ones are decoded.
    """
    if not any(storage.is_remote(row["path"]) for row in rows):
        yield from ((row, partial(read_image, row)) for row in rows)
        return
    with ThreadPoolExecutor(_REMOTE_READS) as pool:
        ahead: deque[Future[bytes]] = deque()
        following = iter(rows)
        for row in rows:
            ahead.extend(pool.submit(read_image, later) for later in islice(following, _REMOTE_READS - len(ahead)))
            yield row, ahead.popleft().result
