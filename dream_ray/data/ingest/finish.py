"""Last stage: the notes of all files become rejects.parquet and the manifest."""

import logging
import platform
import re
from contextlib import suppress
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import PIL
import pyarrow as pa

import dream_ray
from dream_ray import storage
from dream_ray.data.ingest.equal_images import count_equal_images
from dream_ray.data.ingest.jobs import with_retries
from dream_ray.data.ingest.plan_file import Plan
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import NOTES, note_name
from dream_ray.data.store.manifest import SCHEMA_VERSION, SPLITS, ImageFile, Manifest
from dream_ray.data.store.rejects import REJECTS, write_rejects
from dream_ray.data.store.statistics import mean_and_std
from dream_ray.errors import RunError

_NAMED_REJECTS = 3
_LOG = logging.getLogger(__name__)


def finish(settings: IngestSettings, store: str, work: str, plan: Plan, max_rejects: float) -> Manifest:
    """Writes rejects.parquet and, if all checks pass, the manifest.

    Raises:
        RunError: If too many images are unreadable, or all of a class. The notes of files with unreachable images are
            then deleted, so that the next call reads these files again.
    """
    notes = [storage.read_json(storage.join(work, NOTES, note_name(number))) for number in range(len(plan.files))]
    rejects = [*plan.rejects, *(reject for note in notes for reject in note["rejects"])]
    write_rejects(store, rejects)
    counts = {split: [0] * len(plan.class_names) for split in SPLITS}
    for note in notes:
        counts[note["split"]][note["label"]] += note["rows"]
    try:
        _check_rejects(store, plan, rejects, max_rejects)
        for name, count in zip(plan.class_names, counts["train"], strict=True):
            if not count:
                raise RunError(
                    f"no training image of class {name!r} is readable; see {storage.join(store, REJECTS)}. Delete "
                    f"{store}, and ingest again with repaired images or without the class"
                )
    except RunError:
        for number, note in enumerate(notes):
            if any(reject["unreached"] for reject in note["rejects"]):
                with_retries(storage.delete, storage.join(work, NOTES, note_name(number)))
        raise
    mean, std = mean_and_std(np.sum([note["sums"] for note in notes if note["split"] != "test"], axis=0))
    given = settings.plain()
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        class_names=plan.class_names,
        channels=plan.form.channels,
        height=plan.form.height,
        width=plan.form.width,
        encoding=plan.form.encoding,
        counts={split: tuple(of_split) for split, of_split in counts.items()},
        mean=mean,
        std=std,
        files=tuple(
            ImageFile(note["split"], note["label"], note["path"], note["rows"], note["sha256"], note["bytes"])
            for note in notes
            if note["rows"]
        ),
        source=given.pop("source"),
        settings=given,
        num_rejects=len(rejects),
        versions=versions(),
        equal_images=count_equal_images(notes),
        other_files=plan.other_files,
    )
    _warn_of_equal_images(manifest)
    manifest.write(store)
    return manifest


def _warn_of_equal_images(manifest: Manifest) -> None:
    for split, others in (("test", "training or validation"), ("validation", "training")):
        if manifest.equal_images[split]:
            _LOG.warning(
                "%d of %d %s images are %s images too, so accuracies on them are too high. --test-fraction keeps equal "
                "images in one split.",
                manifest.equal_images[split],
                sum(manifest.counts[split]),
                split,
                others,
            )


def versions() -> dict[str, str]:
    """Returns the versions of the installed libraries that determine the bytes of a store."""
    found = {
        "dream_ray": dream_ray.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "pyarrow": pa.__version__,
        "torch": version("torch"),
    }
    with suppress(PackageNotFoundError):  # see `jpeg.py`
        found["simplejpeg"] = version("simplejpeg")
    return found


def _check_rejects(store: str, plan: Plan, rejects: list[dict[str, Any]], max_rejects: float) -> None:
    """Raises RunError if the reject rate is above `max_rejects`.

    The reject rate adds two fractions: images without a class over listed images, and unreadable over selected images;
    the second is taken of the images with a class. If all images are selected, it is rejects over listed images.
    """
    without_class, num_images = len(plan.rejects), sum(plan.counts)
    unreadable = len(rejects) - without_class
    share_without = Fraction(without_class, plan.num_listed)
    lost = share_without + (1 - share_without) * Fraction(unreadable, num_images)
    if lost <= Fraction(str(max_rejects)):
        return
    counted = f"{unreadable} of {num_images} images are unreadable"
    if without_class:
        counted += f" and {without_class} of all {plan.num_listed} without a class, together {float(lost):.4g} of them"
    first = "; ".join(f"{reject['path']}: {reject['reason']}" for reject in rejects[:_NAMED_REJECTS])
    causes = {_cause(reject) for reject in rejects}
    if len(rejects) > 1 and len(causes) == 1:
        remedy = f"All have one cause, which may be the wrong layout, label file or decoder: remove it, delete {store}"
        remedy += " and repeat the command"
    else:
        remedy = "Readable images are kept: repeat the command with a larger --max-rejects to accept the rest. To read "
        remedy += f"repaired images, delete {store} first"
    raise RunError(
        f"{counted}, more than max_rejects = {max_rejects:g} allows; {storage.join(store, REJECTS)} lists all; the "
        f"first: {first}. {remedy}"
    )


def _cause(reject: dict[str, Any]) -> str:
    """Returns the reason of a reject without what differs between images: its path and numbers."""
    reason: str = reject["reason"]
    return re.sub(r"\d+", "0", reason.replace(reject["path"], "it"))
