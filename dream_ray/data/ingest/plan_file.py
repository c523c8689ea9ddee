"""The plan of an ingest in its work directory: computed once from the listings, then only read."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.arrays import Int64Array
from dream_ray.data.decoding.decode import UnreadableImage, decode
from dream_ray.data.ingest.listing import class_names, read_listing
from dream_ray.data.ingest.plan import LISTED, choose_classes, gather, plan_files, rows_by_class
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import FILES, Form, read_image
from dream_ray.data.sources import Source
from dream_ray.errors import RunError, UsageError

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
        identity: Digest of the settings and versions of the ingest.
    """

    class_names: tuple[str, ...]
    form: Form
    files: tuple[tuple[str, int, int], ...]
    counts: tuple[int, ...]
    rejects: tuple[dict[str, Any], ...]
    num_listed: int
    identity: str


def load_or_make_plan(settings: IngestSettings, work: str, parts: dict[str, Source], identity: str) -> Plan:
    """Returns the plan of an ingest whose shards are listed.

    Raises:
        UsageError: If these settings allow no plan.
        RunError: If there is a plan of another identity, no image is readable, or storage fails.
    """
    path = storage.join(work, PLAN)
    if storage.exists(path):
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
            identity,
        )
    plan = _make(settings, work, parts, identity)
    storage.write_json(path, asdict(plan))
    return plan


def _make(settings: IngestSettings, work: str, parts: dict[str, Source], identity: str) -> Plan:
    listings = {part: read_listing(work, part, len(source.shards)) for part, source in parts.items()}
    known = class_names(settings.source, parts["train"], listings["train"])
    names = choose_classes(settings.source, known, settings.classes)
    rows = {part: rows_by_class(listing, names, settings.max_per_class) for part, listing in listings.items()}
    for name, rows_N in zip(names, rows["train"], strict=True):
        if not len(rows_N):
            raise UsageError(f"class {name!r} of {settings.source} has no images")
    if "test" in rows:
        unknown = sorted(set(listings["test"]["class"].unique().drop_null().to_pylist()) - set(known))
        if unknown:
            raise UsageError(f"test class {unknown[0]!r} is not a training class; those are {', '.join(known[:10])}")
        if not any(map(len, rows["test"])):
            raise UsageError("the test source has no images")
    rejects = tuple(
        {"path": row["name"], "split": part, "label": None, "reason": row["problem"]}
        for part, listing in listings.items()
        for row in listing.filter(listing["class"].is_null()).to_pylist()
    )

    channels = parts["train"].channels if settings.channels is None else settings.channels
    form = _form(listings["train"], rows["train"], channels, settings)
    image_bytes = channels * form.height * form.width
    test = [rows_N + len(listings["train"]) for rows_N in rows.get("test", ())]  # rows of the concatenated listings
    files = plan_files(rows["train"], test, names, validation=settings.validation, image_bytes=image_bytes)
    listing = pa.concat_tables(listings.values())
    with storage.atomic_output(storage.join(work, FILES)) as file, pa.ipc.new_file(file, LISTED) as writer:
        for batch in gather(listing, list(files.values())):
            writer.write_batch(batch)
    return Plan(names, form, tuple(files), tuple(map(len, files.values())), rejects, len(listing), identity)


def _form(listing: pa.Table, rows: Sequence[Int64Array], channels: int, settings: IngestSettings) -> Form:
    """Returns the form of the first readable image, which all images of the store must have."""
    for number in chain.from_iterable(rows):
        [row] = listing.slice(number, 1).to_pylist()
        try:
            _, height, width = decode(read_image(row), channels=channels, size=settings.size).shape
        except UnreadableImage:
            continue
        return Form(channels, settings.size, settings.encoding, row["name"], height, width)
    raise RunError("no training image of the source is readable")
