"""Last stage: the notes of all files become rejects.parquet and the manifest."""

import platform
from fractions import Fraction
from functools import reduce
from importlib.metadata import version
from operator import add
from typing import Any

import numpy as np
import PIL
import pyarrow as pa
import pyarrow.parquet as pq

import dream_ray
from dream_ray import storage
from dream_ray.data.ingest.jobs import with_retries
from dream_ray.data.ingest.plan_file import Plan
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import NOTES, note_name
from dream_ray.data.store.manifest import SCHEMA_VERSION, SPLITS, ImageFile, Manifest
from dream_ray.data.store.statistics import PixelSums
from dream_ray.errors import RunError

REJECTS = "rejects.parquet"
_REJECTS_SCHEMA = pa.schema(
    [("path", pa.string()), ("split", pa.string()), ("label", pa.int64()), ("reason", pa.string())]
)
_NAMED_REJECTS = 3


def finish(settings: IngestSettings, store: str, work: str, plan: Plan, max_rejects: float) -> Manifest:
    """Writes rejects.parquet and, if nothing is wrong with what was written, the manifest.

    Raises:
        RunError: If too many images are unreadable, or all of a class. The files whose images could not be reached are
            then no longer noted as done, so that the next call tries them again.
    """
    notes = [storage.read_json(storage.join(work, NOTES, note_name(number))) for number in range(len(plan.files))]
    rejects = [*plan.rejects, *(reject for note in notes for reject in note["rejects"])]
    with storage.atomic_output(storage.join(store, REJECTS)) as file:
        pq.write_table(pa.Table.from_pylist(rejects, schema=_REJECTS_SCHEMA), file)
    files = tuple(
        ImageFile(note["split"], note["label"], note["path"], note["rows"], note["sha256"], note["bytes"])
        for note in notes
        if note["rows"]
    )
    try:
        _check(store, plan, files, rejects, max_rejects)
    except RunError:
        for number, note in enumerate(notes):
            if any(reject["unreached"] for reject in note["rejects"]):
                with_retries(storage.delete, storage.join(work, NOTES, note_name(number)))
        raise
    sums = [PixelSums.of_lists(*note["sums"]) for note in notes if note["split"] != "test"]
    manifest = _describe(settings, plan, files, reduce(add, sums), len(rejects))
    manifest.write(store)
    return manifest


def versions() -> dict[str, str]:
    """Returns the versions of what decides the bytes of a store."""
    return {
        "dream_ray": dream_ray.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
        "simplejpeg": version("simplejpeg"),
        "torch": version("torch"),
    }


def _check(
    store: str, plan: Plan, files: tuple[ImageFile, ...], rejects: list[dict[str, Any]], max_rejects: float
) -> None:
    path = storage.join(store, REJECTS)
    lost, counted = _lost(plan, len(rejects))
    if lost > Fraction(str(max_rejects)):
        first = "; ".join(f"{reject['path']}: {reject['reason']}" for reject in rejects[:_NAMED_REJECTS])
        raise RunError(
            f"{counted}, more than max_rejects = {max_rejects:g} allows; all are listed in {path}; the first: {first}. "
            "What could be read is kept: repeat the command with a larger --max-rejects to accept it. Mended images "
            f"are read after {store} is deleted"
        )
    labels = {file.label for file in files if file.split == "train"}
    for label, name in enumerate(plan.class_names):
        if label not in labels:
            raise RunError(
                f"no training image of class {name!r} could be read; see {path}. Delete {store}, and begin again with "
                "mended images or without the class"
            )


def _lost(plan: Plan, num_rejects: int) -> tuple[Fraction, str]:
    """Returns the share of the images that are rejects, and how it comes about.

    An image without a class may be of any class, those that are not stored among them: so it is one of all that are
    listed, and an unreadable one is one of those that are to be stored. Where these are all with a class, the share is
    that of all rejects in all that are listed.
    """
    without_class, num_images = len(plan.rejects), sum(plan.counts)
    unreadable = num_rejects - without_class
    share_without = Fraction(without_class, plan.num_listed)
    lost = share_without + (1 - share_without) * Fraction(unreadable, num_images)
    counted = f"{unreadable} of {num_images} images are unreadable"
    if without_class:
        counted += f" and {without_class} of all {plan.num_listed} without a class, together {float(lost):.4g} of them"
    return lost, counted


def _describe(
    settings: IngestSettings, plan: Plan, files: tuple[ImageFile, ...], sums: PixelSums, num_rejects: int
) -> Manifest:
    counts = {split: [0] * len(plan.class_names) for split in SPLITS}
    for file in files:
        counts[file.split][file.label] += file.rows
    given = settings.plain()
    return Manifest(
        schema_version=SCHEMA_VERSION,
        class_names=plan.class_names,
        channels=plan.form.channels,
        height=plan.form.height,
        width=plan.form.width,
        encoding=plan.form.encoding,
        counts={split: tuple(of_split) for split, of_split in counts.items()},
        mean=sums.mean(),
        std=sums.std(),
        files=files,
        source=given.pop("source"),
        settings=given,
        num_rejects=num_rejects,
        versions=versions(),
    )
