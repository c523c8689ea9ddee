"""First stage: list every shard of the sources, independently of the others, into a file of its own."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from dream_ray import storage
from dream_ray.data.class_lists import alike_names, composed, possible_names, repeated_name
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.sources import (
    LISTING,
    SOURCES,
    Source,
    SourceKind,
    SourceOptions,
    find_source,
    images_with_labels,
    order_of_names,
    other_files,
)
from dream_ray.data.sources.in_memory import SurveyedImages
from dream_ray.data.sources.label_patterns import ways_to_labels
from dream_ray.errors import UsageError

LISTINGS, SPOOL = "listing", "spool"
SHARDS = "shards.json"
_SHOWN = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardJob:
    """One shard to list.

    Attributes:
        work: Work directory of the ingest.
        part: "train" or "test".
        source: Source of the part.
        number: Index of the shard.
    """

    work: str
    part: str
    source: Source
    number: int


def open_parts(settings: IngestSettings, *, download: bool, given: Mapping[str, SurveyedImages]) -> dict[str, Source]:
    """Opens the sources.

    Args:
        settings: Settings of the ingest.
        download: Let torchvision download missing files.
        given: Images of the program by the texts that stand for them in the settings.

    Returns:
        The parts "train" and, if there are test images, "test".

    Raises:
        UsageError: If a source is missing or has the wrong form.
    """
    chosen = settings.classes
    options = SourceOptions(
        image_column=settings.image_column,
        label_column=settings.label_column,
        root=settings.root,
        layout=settings.layout,
        labels=settings.labels,
        label_pattern=settings.label_pattern,
        download=download,
        classes=None if chosen is None else tuple(name for text in chosen for name in possible_names(composed(text))),
        channels=settings.channels,
        size=settings.size,
        given=given,
    )
    kinds = {"train": find_source(settings.source, options)}
    test_options = replace(options, labels=None)
    if settings.test is not None and settings.test_labels is None:
        test_options = _fitting(settings.test, test_options)
        kinds["test"] = find_source(settings.test, test_options)
    _warn_of_ignored(kinds.values(), options)
    opened = kinds["train"].open(settings.source, options)
    parts = {"train": opened.train}
    if settings.test_fraction is not None and opened.open_test is not None:
        raise UsageError(
            f"test_fraction must not be given for a source with test images of its own, as {settings.source} has; got "
            f"{settings.test_fraction}: leave it out"
        )
    if settings.test is None:
        if opened.open_test is not None:
            parts["test"] = opened.open_test()
    elif settings.test_labels is not None:
        names = opened.train.class_names or ()
        parts["test"] = images_with_labels(settings.test, settings.test_labels, names, settings.label_column)
    else:
        test = kinds["test"].open(settings.test, test_options)
        if test.open_test is None and _is_same_place(settings.source, settings.test):
            raise UsageError(
                f"test must not be the source of the training images, which has no test images; got {settings.test}: "
                "give --test-fraction 0.2 instead of --test, or other images"
            )
        parts["test"] = test.train if test.open_test is None else test.open_test()
    return parts


def _fitting(test: str, options: SourceOptions) -> SourceOptions:
    """Returns the options of the test images, which may have another layout than the one chosen for the others."""
    fits = any(options.layout in kind.layouts and kind.matches(test) for kind in SOURCES.values())
    return options if fits else replace(options, layout=None)


def _is_same_place(source: str, other: str) -> bool:
    if source == other:
        return True
    are_paths = all(storage.exists(path) for path in (source, other))
    return are_paths and storage.is_within(source, other) and storage.is_within(other, source)


def _warn_of_ignored(kinds: Iterable[SourceKind], options: SourceOptions) -> None:
    used = frozenset[str]().union(*(kind.uses for kind in kinds))
    for name in ("image_column", "label_column", "root", "download", "layout"):  # the others choose the kind
        if name not in used and getattr(options, name) != getattr(SourceOptions(), name):
            _log.warning("%s is ignored: no given source uses it", name)


def keep_shards(settings: IngestSettings, store: str, work: str, parts: dict[str, Source]) -> None:
    """Records the shards of an ingest before the first is listed, or checks that they are unchanged.

    Listings are numbered like their shards, so they would be wrong for other shards.

    Raises:
        UsageError: If the shards have changed.
    """
    path = storage.join(work, SHARDS)
    found = {name: list(source.shards) for name, source in parts.items()}
    if not storage.exists(path):
        storage.write_json(path, found)
        return
    begun = storage.read_json(path)
    for part in sorted(begun | found):
        before, after = begun.get(part, []), found.get(part, [])
        if before != after:
            source = settings.source if part == "train" else settings.test or settings.source
            raise UsageError(
                f"source {source} has changed since the ingest into {store} began: {_difference(before, after)}; "
                f"restore it, or delete {store} to begin again"
            )


def _difference(before: Sequence[str], after: Sequence[str]) -> str:
    """Returns what differs between two lists of shards."""
    earlier, later = set(before), set(after)
    lost, added = [name for name in before if name not in later], [name for name in after if name not in earlier]
    texts = [
        f"{names[0]} {f'and {len(names) - 1} more are' if len(names) > 1 else 'is'} {what}"
        for names, what in ((lost, "missing"), (added, "new"))
        if names
    ]
    return " and ".join(texts) or "the order of the files is another one"


def shard_jobs(work: str, parts: dict[str, Source]) -> list[ShardJob]:
    """Returns the shards without a listing."""
    done = set(storage.list_files(work))
    jobs = [
        ShardJob(work, part, source, number) for part, source in parts.items() for number in range(len(source.shards))
    ]
    return [job for job in jobs if _file(job.part, job.number) not in done]


def list_shard(job: ShardJob) -> None:
    """Writes the listing of a shard, and its spool if it has one."""
    spool = storage.join(job.work, SPOOL, f"{job.part}-{job.number:06d}")
    table = job.source.list_shard(job.number, spool)
    table = table.set_column(0, LISTING.field(0), pc.utf8_normalize(table["class"], form="NFC"))
    path = storage.join(job.work, _file(job.part, job.number))
    with storage.atomic_output(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_listing(work: str, part: str, num_shards: int) -> tuple[pa.Table, Counter[str]]:
    """Maps the listings of all shards of a part as one table, and adds up the other files that they left out."""
    tables, others = [LISTING.empty_table()], Counter[str]()
    for number in range(num_shards):
        with storage.open_arrow(storage.join(work, _file(part, number))) as reader:
            listing = reader.read_all()
        others.update(other_files(listing))
        tables.append(listing.replace_schema_metadata(None))
    return pa.concat_tables(tables), others


def class_names(name: str, source: Source, listing: pa.Table) -> tuple[str, ...]:
    """Returns the classes of a source, in order; `name` identifies it in messages.

    Raises:
        UsageError: If there are fewer than two, or two have the same name.
    """
    names = source.class_names
    if names is None:
        names = order_of_names(set(listing["class"].unique().drop_null().to_pylist()))
    names = tuple(map(composed, names))
    repeated = repeated_name(names)
    if repeated is not None:
        raise UsageError(f"class names of {name} must be unique; {repeated!r} occurs twice")
    if alike := alike_names(names):
        _log.warning("The class names %r and %r of %s are two classes, although they look alike.", *alike, name)
    if not names and len(listing):
        [first] = listing.slice(0, 1).to_pylist()
        raise UsageError(
            f"source {name} has no images with a class: {len(listing)} have none, the first: {first['name']}: "
            f"{first['problem']}"
        )
    if not names:
        raise UsageError(f"source {name} has no images")
    if len(names) < 2:
        _refuse_few(name, names, listing)
    return names


def _refuse_few(name: str, names: Sequence[str], listing: pa.Table) -> NoReturn:
    """Raises UsageError for a source with too few classes, with what other reading its files may have."""
    without = listing.filter(listing["class"].is_null()).slice(0, 1).to_pylist()
    lost = f"; others have none, the first: {without[0]['name']}: {without[0]['problem']}" if without else ""
    files = listing["name"].slice(0, _SHOWN).to_pylist()
    raise UsageError(
        f"source {name} must have at least 2 classes; got {len(names)} ({', '.join(names)}){lost}. If {names[0]} "
        f"contains the directories of the classes, name it; {ways_to_labels(files)}"
    )


def _file(part: str, number: int) -> str:
    return f"{LISTINGS}/{part}-{number:06d}.arrow"
