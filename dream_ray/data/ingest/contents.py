"""The stage between list and plan for test images that are chosen by content: digests of the images of the store.

Every image is decoded here, and again when it is written: the digests of all images decide on the split of each.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.holdout import num_held
from dream_ray.data.ingest.plan import LISTED, gather
from dream_ray.data.ingest.selection import Selection
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import note_name, read_ahead, read_rows
from dream_ray.errors import UsageError

CONTENTS, SELECTED = "contents", "selected.arrow"
IMAGES_PER_JOB = 256
"""An interrupted ingest repeats at most so many images per worker."""


@dataclass(frozen=True)
class DigestJob:
    """Some training images to digest. It is sent to other machines; a batch of `work`/selected.arrow lists them.

    Attributes:
        work: Work directory of the ingest.
        number: Index of the batch.
        channels: Channels of the store.
        size: Side of its images in pixels; None: that of the image.
        pixel_range: Largest value of pixels of more than 8 bits, if it is known.
    """

    work: str
    number: int
    channels: int
    size: int | None
    pixel_range: int | None


@dataclass(frozen=True)
class Contents:
    """The contents of the selected training images, by label and then in order.

    Attributes:
        digests: Of the pixels that the store has of every image; None: it is unreadable.
        problems: Why an image is unreadable; None: it is not.
    """

    digests: list[bytes | None]
    problems: list[str | None]


def digest_jobs(selection: Selection, work: str, settings: IngestSettings) -> list[DigestJob]:
    """Returns the jobs whose digests are missing."""
    rows_N = np.concatenate(selection.rows["train"])
    path = storage.join(work, SELECTED)
    starts = range(0, len(rows_N), IMAGES_PER_JOB)
    if not storage.exists(path):
        with storage.atomic_output(path) as file, pa.ipc.new_file(file, LISTED) as writer:
            together = [rows_N[start : start + IMAGES_PER_JOB] for start in starts]
            for batch in gather(selection.listings["train"], together):
                writer.write_batch(batch)
    done = set(storage.list_directory(storage.join(work, CONTENTS)))
    jobs = (
        DigestJob(work, number, selection.channels, settings.size, settings.pixel_range)
        for number in range(len(starts))
    )
    return [job for job in jobs if note_name(job.number) not in done]


def digest_images(job: DigestJob) -> int:
    """Decodes the images of a job and writes their digests; returns the number of images."""
    digests: list[str | None] = []
    problems: list[str | None] = []
    for _, read in read_ahead(read_rows(job.work, job.number, SELECTED)):
        try:
            image_CHW = decode(read(), channels=job.channels, size=job.size, pixel_range=job.pixel_range)
        except UnreadableImage as reason:
            digests.append(None)
            problems.append(str(reason))
        else:
            shape = str(image_CHW.shape).encode()
            digests.append(hashlib.blake2b(shape + image_CHW.tobytes(), digest_size=16).hexdigest())
            problems.append(None)
    path = storage.join(job.work, CONTENTS, note_name(job.number))
    storage.write_json(path, {"digests": digests, "problems": problems})
    return len(digests)


def read_contents(work: str) -> Contents:
    """Reads the digests that all jobs wrote."""
    contents = Contents([], [])
    directory = storage.join(work, CONTENTS)
    for name in sorted(storage.list_directory(directory)):
        written = storage.read_json(storage.join(directory, name))
        contents.digests.extend(None if digest is None else bytes.fromhex(digest) for digest in written["digests"])
        contents.problems.extend(written["problems"])
    return contents


def check_test_fraction(fraction: float, class_names: Sequence[str], sizes: Sequence[int]) -> None:
    """Raises UsageError if a class is too small for a test image; `sizes` are the numbers of its images."""
    without = {
        name: size for name, size in zip(class_names, sizes, strict=True) if size and not num_held(size, fraction)
    }
    if not without:
        return
    name = min(without, key=without.__getitem__)
    size = without[name]
    fewest = min(size for size in sizes if size)
    others = f" ({len(without)} such classes)" if len(without) > 1 else ""
    larger = f"use at least {ceil(100 / fewest) / 100:g}, " if fewest > 1 else "add images to it, "
    raise UsageError(
        f"test_fraction must leave every class training and test images; {fraction:g} of the {size} images of class "
        f"{name!r} is none{others}: {larger}or leave out such classes with --classes"
    )


def check_test_images(class_names: Sequence[str], sizes: Sequence[int], num_test: Sequence[int]) -> None:
    """Raises UsageError if the images of a class are too often equal to be divided; a class may have no readable one.

    Args:
        class_names: By label.
        sizes: Number of readable images.
        num_test: Number of test images.
    """
    for name, size, found in zip(class_names, sizes, num_test, strict=True):
        if size and not found:
            raise UsageError(
                f"test_fraction must leave every class training and test images; the {size} readable images of class "
                f"{name!r} are too often equal to be divided, to each other or to images of other classes: use a "
                "larger fraction, add images, or leave the class out with --classes"
            )
