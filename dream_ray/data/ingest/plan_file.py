"""The plan of an ingest in its work directory: computed once from the listings, then only read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import Int64Array
from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.ingest.contents import check_test_images, read_contents
from dream_ray.data.ingest.plan import LISTED, gather, plan_files, split_by_content, split_by_order
from dream_ray.data.ingest.selection import Selection
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import FILES, Form, read_image
from dream_ray.errors import RunError

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """The files to write; files.arrow lists the images of each file.

    Attributes:
        class_names: Classes of the store, by label.
        form: Form of its images.
        files: (split, label, chunk) of every file.
        counts: Listed images of every file.
        rejects: Rows of rejects.parquet for listed images without a class.
        num_listed: All listed images, including those of classes that are not stored.
        other_files: Numbers of listed files that are no images, by the ends of their names.
        identity: Digest of the settings and versions of the ingest.
    """

    class_names: tuple[str, ...]
    form: Form
    files: tuple[tuple[str, int, int], ...]
    counts: tuple[int, ...]
    rejects: tuple[dict[str, Any], ...]
    num_listed: int
    other_files: dict[str, int]
    identity: str


def load_plan(work: str, identity: str) -> Plan | None:
    """Returns the plan that an earlier call has made, or None.

    Raises:
        RunError: If the plan has another identity, or storage fails.
    """
    path = storage.join(work, PLAN)
    if not storage.exists(path):
        return None
    values = storage.read_json(path)
    if values.get("identity") != identity:
        raise RunError(f"{path} belongs to an ingest with other settings, which writes to the same store")
    return Plan(
        tuple(values["class_names"]),
        Form(**values["form"]),
        tuple((split, label, chunk) for split, label, chunk in values["files"]),
        tuple(values["counts"]),
        tuple(values["rejects"]),
        values["num_listed"],
        values["other_files"],
        identity,
    )


def make_plan(settings: IngestSettings, selection: Selection, work: str, identity: str) -> Plan:
    """Makes the plan of an ingest and writes it.

    Raises:
        UsageError: If these settings allow no plan.
        RunError: If no image is readable, or storage fails.
    """
    rejects = tuple(
        {"path": row["name"], "split": part, "label": None, "reason": row["problem"]}
        for part, listing in selection.listings.items()
        for row in listing.filter(listing["class"].is_null()).to_pylist()
    )
    form = _form(selection, settings)
    splits, listing = _divide(settings, selection, work)
    files = plan_files(splits, image_bytes=form.channels * form.height * form.width)
    with storage.atomic_output(storage.join(work, FILES)) as file, pa.ipc.new_file(file, LISTED) as writer:
        for batch in gather(listing, list(files.values())):
            writer.write_batch(batch)
    counts = tuple(map(len, files.values()))
    plan = Plan(
        selection.class_names, form, tuple(files), counts, rejects, len(listing), selection.other_files, identity
    )
    storage.write_json(storage.join(work, PLAN), asdict(plan))
    return plan


def _divide(settings: IngestSettings, selection: Selection, work: str) -> tuple[dict[str, list[Int64Array]], pa.Table]:
    """Returns the rows of the store's images by split and label, and the listing of all parts that has these rows."""
    train, names = selection.rows["train"], selection.class_names
    listing = selection.listings["train"]
    if settings.test_fraction is None:
        splits = split_by_order(train, names, settings.validation)
        if "test" in selection.rows:
            splits["test"] = [rows_N + len(listing) for rows_N in selection.rows["test"]]
            listing = pa.concat_tables([listing, selection.listings["test"]])
        return splits, listing
    contents = read_contents(work)
    splits = split_by_content(
        train, contents.digests, test_fraction=settings.test_fraction, validation=settings.validation
    )
    labels_N = np.repeat(np.arange(len(train)), list(map(len, train)))
    readable_N = np.array([digest is not None for digest in contents.digests])
    sizes = np.bincount(labels_N[readable_N], minlength=len(train)).tolist()
    check_test_images(names, sizes, list(map(len, splits["test"])))
    return splits, _with_problems(listing, np.concatenate(train), contents.problems)


def _with_problems(listing: pa.Table, rows_N: Int64Array, problems: Sequence[str | None]) -> pa.Table:
    """Adds the problems of some rows: an image without a digest belongs to no split, even if it can be read later."""
    column = listing["problem"].to_pylist()
    for row, problem in zip(rows_N.tolist(), problems, strict=True):
        column[row] = problem
    field = LISTED.field("problem")
    return listing.set_column(listing.schema.names.index("problem"), field, pa.array(column, field.type))


def _form(selection: Selection, settings: IngestSettings) -> Form:
    """Returns the form of the first readable image, which all images of the store must have."""
    listing, channels = selection.listings["train"], selection.channels
    first = ""
    for number in chain.from_iterable(selection.rows["train"]):
        [row] = listing.slice(number, 1).to_pylist()
        try:
            image_CHW = decode(read_image(row), channels=channels, size=settings.size, pixel_range=settings.pixel_range)
        except UnreadableImage as reason:
            first = first or f"{row['name']}: {reason}"
            continue
        _, height, width = image_CHW.shape
        return Form(channels, settings.size, settings.encoding, row["name"], height, width, settings.pixel_range)
    raise RunError(f"no training image of the source is readable; the first is {first}")
