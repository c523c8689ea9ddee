"""The plan of an ingest in its work directory: made once from the listings, then only read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import Int64Array
from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.ingest.listing import Part, class_names, read_listing
from dream_ray.data.ingest.plan import LISTED, ImageFilePlan, choose_classes, gather, plan_files, rows_by_class
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import FILES, Form, WriteJob, read_image
from dream_ray.errors import RunError, UsageError

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What is to be written; the images of each file are listed in files.arrow.

    Attributes:
        class_names: Classes of the store, by label.
        form: Form of its images.
        files: (split, label, chunk) of every file.
        counts: Listed images of every file.
        rejects: Rows of rejects.parquet for listed images without a class.
        num_listed: Listed images, of classes that are not stored too.
        identity: Digest of what the ingest was begun with.
    """

    class_names: tuple[str, ...]
    form: Form
    files: tuple[tuple[str, int, int], ...]
    counts: tuple[int, ...]
    rejects: tuple[dict[str, Any], ...]
    num_listed: int
    identity: str

    def jobs(self, store: str, work: str) -> list[WriteJob]:
        """Returns a job per file."""
        return [WriteJob(store, work, self.form, number, *file) for number, file in enumerate(self.files)]


def load_or_make_plan(settings: IngestSettings, work: str, parts: dict[str, Part], identity: str) -> Plan:
    """Returns the plan of an ingest whose shards are listed.

    Raises:
        UsageError: If there cannot be one with these settings.
        RunError: If there is one of another identity, no image can be read, or storage fails.
    """
    path = storage.join(work, PLAN)
    if storage.exists(path):
        values = storage.read_json(path)
        if values.get("identity") != identity:
            raise RunError(f"{path} is of an ingest with other settings, which writes to the same store")
        return Plan(
            tuple(values["class_names"]),
            Form(**values["form"]),
            tuple((split, label, chunk) for split, label, chunk in values["files"]),
            tuple(values["counts"]),
            tuple(values["rejects"]),
            values["num_listed"],
            identity,
        )
    plan = _make(settings, work, parts, identity)
    storage.write_json(path, asdict(plan))
    return plan


def _make(settings: IngestSettings, work: str, parts: dict[str, Part], identity: str) -> Plan:
    listings = {
        name: [read_listing(work, name, number) for number in range(len(part.source.shards))]
        for name, part in parts.items()
    }
    source = settings.source
    known = class_names(source, parts["train"], listings["train"])
    names = choose_classes(source, known, settings.classes)
    rows = {name: rows_by_class(tables, names, settings.max_per_class) for name, tables in listings.items()}
    train = rows["train"][0]
    for label, name in enumerate(names):
        if not len(train[label]):
            raise UsageError(f"class {name!r} of {source} has no images")
    test = _test_rows(rows.get("test"), known)
    rejects = tuple(reject for name, tables in listings.items() for reject in _without_class(name, tables))

    channels = parts["train"].source.channels if settings.channels is None else settings.channels
    first, (height, width) = _first_image(listings["train"], train, channels, settings.size)
    form = Form(channels, settings.size, settings.encoding, first, height, width)
    image_bytes = channels * height * width
    plans = plan_files(train, test, names, validation=settings.validation, image_bytes=image_bytes)
    _write_files(work, plans, listings)
    files = tuple((plan.split, plan.label, plan.chunk) for plan in plans)
    num_listed = sum(len(table) for tables in listings.values() for table in tables)
    return Plan(names, form, files, tuple(len(plan.rows_N2) for plan in plans), rejects, num_listed, identity)


def _test_rows(found: tuple[list[Any], set[str]] | None, known: Sequence[str]) -> list[Any]:
    if found is None:
        return []
    rows, others = found
    unknown = sorted(others - set(known))
    if unknown:
        raise UsageError(f"test class {unknown[0]!r} is not a training class; those are {', '.join(known[:10])}")
    if not any(len(of_class) for of_class in rows):
        raise UsageError("the test source has no images")
    return rows


def _without_class(part: str, tables: Sequence[pa.Table]) -> list[dict[str, Any]]:
    return [
        {"path": row["name"], "split": part, "label": None, "reason": row["problem"]}
        for table in tables
        for row in table.filter(table["class"].is_null()).to_pylist()
    ]


def _write_files(work: str, plans: Sequence[ImageFilePlan], listings: dict[str, list[pa.Table]]) -> None:
    with storage.atomic_output(storage.join(work, FILES)) as file, pa.ipc.new_file(file, LISTED) as writer:
        for batch in gather(listings, plans):
            writer.write_batch(batch)


def _first_image(
    listings: Sequence[pa.Table], rows: Sequence[Int64Array], channels: int, size: int | None
) -> tuple[str, tuple[int, int]]:
    """Returns name, and (height, width) in the store, of the first image that can be read."""
    for shard, number in chain.from_iterable(rows):
        [row] = listings[shard].slice(number, 1).to_pylist()
        try:
            image_CHW = decode(read_image(row), channels=channels, size=size)
        except UnreadableImage:
            continue
        return row["name"], (image_CHW.shape[1], image_CHW.shape[2])
    raise RunError("no training image of the source could be read")
