"""Third stage: every file of the plan is written, independently of the others, and leaves a note that it is done."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import UInt8Array
from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.store.image_file import new_image_file
from dream_ray.data.store.statistics import PixelSums
from dream_ray.errors import RunError, UsageError

IMAGES, NOTES = "images", "done"
FILES = "files.arrow"

# A bucket answers after tens of milliseconds: as many images are asked for at a time.
_REMOTE_READS = 16
# The pixels of the largest image that is decoded (`PIL.Image.MAX_IMAGE_PIXELS`), uncompressed in RGB: a larger file is
# none, but a film or an archive that lies between the images, and must not fill the memory.
_MAX_BYTES = 256 << 20


class UnreachedImage(UnreadableImage):
    """Its bytes could not be had: another time it may be an image after all."""


@dataclass(frozen=True)
class Form:
    """The form of every image of a store.

    Attributes:
        channels: 1 or 3.
        size: Side in pixels, or None to keep the images' own shape.
        encoding: A key of `encodings.ENCODINGS`.
        first: Name of the image whose shape all must have.
        height: Its height in pixels.
        width: Its width.
    """

    channels: int
    size: int | None
    encoding: str
    first: str
    height: int
    width: int

    @property
    def shape_CHW(self) -> tuple[int, int, int]:
        """Shape of every image."""
        return self.channels, self.height, self.width

    def check(self, name: str, image_CHW: UInt8Array) -> None:
        """Raises UsageError if an image has another shape."""
        _, height, width = image_CHW.shape
        if (height, width) != (self.height, self.width):
            raise UsageError(
                f"images must have one shape: {self.first} is {self.height} x {self.width} and {name} is "
                f"{height} x {width} (height x width); give --size to resize and crop them"
            )


@dataclass(frozen=True)
class WriteJob:
    """One file of the plan; small, for it travels: the images are listed in a batch of `work`/files.arrow.

    Attributes:
        store: Directory of the store.
        work: Work directory of the ingest.
        form: Form of the images.
        number: Of the file in the plan, and of the batch.
        split: Split that it belongs to.
        label: Label of its class.
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
        """Of the file, relative to the store."""
        return f"{IMAGES}/{self.split}/{self.label:05d}-{self.chunk:04d}.arrow"


def write_file(job: WriteJob) -> int:
    """Reads, decodes and writes the images of one file, and notes what became of it.

    Returns:
        The images that it took, unreadable ones among them.

    Raises:
        UsageError: If images differ in shape.
        RunError: If a file cannot be written or a remote source is gone.
    """
    rows = read_rows(job.work, job.number)
    note_path = storage.join(job.work, NOTES, note_name(job.number))
    if storage.exists(note_path):  # a task of several jobs was repeated
        return len(rows)
    rejects: list[dict[str, Any]] = []
    sums = PixelSums.zero(job.form.channels)
    note: dict[str, Any] = {"path": job.path, "split": job.split, "label": job.label, "rows": 0}
    images = _images(rows, job, rejects)
    first = next(images, None)
    if first is not None:
        with new_image_file(storage.join(job.store, job.path), job.form.shape_CHW, job.form.encoding) as writer:
            for image_CHW in chain([first], images):
                writer.add(image_CHW)
            note |= {"sha256": writer.close(), "rows": writer.rows, "bytes": writer.bytes}
            sums = writer.sums
    note |= {"rejects": rejects, "sums": [sums.num_pixels, sums.sums, sums.squares]}
    storage.write_json(note_path, note)
    return len(rows)


def read_rows(work: str, number: int) -> list[dict[str, Any]]:
    """Reads the listed images of one file of the plan."""
    path = storage.join(work, FILES)
    try:
        with storage.open_input(path) as file:
            rows: list[dict[str, Any]] = pa.ipc.open_file(file).get_batch(number).to_pylist()
            return rows
    except pa.ArrowException as error:
        raise RunError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise storage.failure("read", path, error) from None


def note_name(number: int) -> str:
    """Returns the name of the note of a file."""
    return f"{number:06d}.json"


def read_image(row: dict[str, Any]) -> bytes:
    """Reads the bytes of a listed image.

    Raises:
        UnreadableImage: If there are none; `UnreachedImage` where there may be some another time.
        RunError: If the place where they lie is gone or cannot be reached.
    """
    if row["problem"] is not None:
        raise UnreadableImage(row["problem"])
    try:
        return storage.read_bytes(row["path"], row["offset"], row["length"], most=_MAX_BYTES)
    except storage.NotReadable as error:
        _check_place(row["path"], error)
        raise UnreachedImage(str(error)) from None


def _check_place(path: str, error: Exception) -> None:
    """Raises RunError if the place of a file that cannot be read is gone.

    One file that went away is a reject, but a disk that is not mounted any more, or a bucket that was emptied, would
    make a reject of every image to come. Of either nothing is left beside the file: a mount point stays as an empty
    directory, and a bucket has no directory without files.
    """
    directory = storage.sibling(storage.absolute(path), "")
    if not storage.list_directory(directory):
        raise RunError(f"source {directory} is gone, there is nothing in it: {error}; with it back, repeat the command")


def _images(rows: list[dict[str, Any]], job: WriteJob, rejects: list[dict[str, Any]]) -> Iterator[UInt8Array]:
    for row, data in _read_ahead(rows):
        try:
            if isinstance(data, UnreadableImage):
                raise data
            image_CHW = decode(data, channels=job.form.channels, size=job.form.size)
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
        job.form.check(row["name"], image_CHW)
        yield image_CHW


def _read_ahead(rows: list[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], bytes | UnreadableImage]]:
    """Reads the images in order; of a remote source, the next ones while these are decoded."""
    if not any(storage.is_remote(row["path"]) for row in rows):
        yield from ((row, _read_or_reason(row)) for row in rows)
        return
    with ThreadPoolExecutor(_REMOTE_READS) as pool:
        ahead: deque[Future[bytes | UnreadableImage]] = deque()
        following = iter(rows)
        for row in rows:
            ahead.extend(pool.submit(_read_or_reason, later) for later in islice(following, _REMOTE_READS - len(ahead)))
            yield row, ahead.popleft().result()


def _read_or_reason(row: dict[str, Any]) -> bytes | UnreadableImage:
    try:
        return read_image(row)
    except UnreadableImage as reason:
        return reason
