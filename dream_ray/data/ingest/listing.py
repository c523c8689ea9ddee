"""First stage: every shard of the sources is listed, independently of the others, into a file of its own."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import pyarrow as pa

from dream_ray import storage
from dream_ray.data.class_lists import possible_names, repeated_name
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.sources import FlatFolder, Source, SourceKind, SourceOptions, find_source, order_of_names
from dream_ray.errors import RunError, UsageError

LISTINGS, SPOOL = "listing", "spool"
SHARDS = "shards.json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """The training or the test images that an ingest reads.

    Attributes:
        name: "train" or "test".
        source: Where they are.
    """

    name: str
    source: Source


@dataclass(frozen=True)
class ShardJob:
    """One shard to list."""

    part: Part
    number: int


def open_parts(settings: IngestSettings, *, download: bool) -> dict[str, Part]:
    """Opens the sources.

    Returns:
        The parts "train" and, if there are test images, "test".

    Raises:
        UsageError: If a source is missing or not of its form.
    """
    chosen = settings.classes
    options = SourceOptions(
        image_column=settings.image_column,
        label_column=settings.label_column,
        root=settings.root,
        download=download,
        classes=None if chosen is None else tuple(name for given in chosen for name in possible_names(given)),
    )
    train_kind = find_source(settings.source)
    if settings.test is None or settings.test_labels is not None:
        test_kind = None
    else:
        test_kind = find_source(settings.test)
    _warn_of_ignored([kind for kind in (train_kind, test_kind) if kind is not None], options)
    opened = train_kind.open(settings.source, options)
    parts = {"train": Part("train", opened.train)}
    if settings.test_labels is not None:
        assert settings.test is not None, "checked with the settings"
        parts["test"] = Part("test", FlatFolder(settings.test, settings.test_labels, opened.train.class_names or ()))
    elif test_kind is not None and settings.test is not None:
        opened_test = test_kind.open(settings.test, options)
        test = opened_test.train if opened_test.open_test is None else opened_test.open_test()
        parts["test"] = Part("test", test)
    elif opened.open_test is not None:
        parts["test"] = Part("test", opened.open_test())
    return parts


def _warn_of_ignored(kinds: Iterable[SourceKind], options: SourceOptions) -> None:
    used = frozenset[str]().union(*(kind.uses for kind in kinds))
    defaults = SourceOptions()
    for name in ("image_column", "label_column", "root", "download"):
        if name not in used and getattr(options, name) != getattr(defaults, name):
            _log.warning("%s is ignored: no source that was given uses it", name)


def keep_shards(settings: IngestSettings, store: str, work: str, parts: dict[str, Part]) -> None:
    """Notes the shards of an ingest before the first is listed, or checks that they are still those.

    Listings have the numbers of their shards: of a source with other shards, they would be those of others.

    Raises:
        UsageError: If the shards have changed.
    """
    path = storage.join(work, SHARDS)
    found = {name: list(part.source.shards) for name, part in parts.items()}
    if not storage.exists(path):
        storage.write_json(path, found)
        return
    begun = storage.read_json(path)
    for part in sorted(begun | found):
        pairs = zip_longest(begun.get(part, ()), found.get(part, ()), fillvalue="none")
        for number, (before, after) in enumerate(pairs):
            if before != after:
                source = settings.source if part == "train" else settings.test or settings.source
                raise UsageError(
                    f"source {source} has changed since the ingest into {store} began: shard {number} of the {part} "
                    f"images was {before}, and is {after}; delete the store's directory to begin again"
                )


def shard_jobs(work: str, parts: Iterable[Part]) -> list[ShardJob]:
    """Returns the shards whose listing is not there yet."""
    done = set(storage.list_files(work))
    jobs = [ShardJob(part, number) for part in parts for number in range(len(part.source.shards))]
    return [job for job in jobs if _file(job.part.name, job.number) not in done]


def list_shard(work: str, job: ShardJob) -> None:
    """Writes the listing of a shard, and its spool if it has one."""
    name = f"{job.part.name}-{job.number:06d}"
    table = job.part.source.list_shard(job.number, storage.join(work, SPOOL, name))
    path = storage.join(work, _file(job.part.name, job.number))
    with storage.atomic_output(path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_listing(work: str, part: str, number: int) -> pa.Table:
    """Maps the listing of a shard."""
    path = storage.join(work, _file(part, number))
    try:
        with storage.open_input(path) as file:
            return pa.ipc.open_file(file).read_all()
    except pa.ArrowException as error:
        raise RunError(f"{path} is damaged: {error}") from None
    except OSError as error:
        raise storage.failure("read", path, error) from None


def class_names(source: str, part: Part, listings: list[pa.Table]) -> tuple[str, ...]:
    """Returns the classes of a part, in order.

    Raises:
        UsageError: If there are fewer than two, or two have one name.
    """
    names = part.source.class_names
    if names is None:
        found = {name for table in listings for name in table["class"].unique().to_pylist() if name is not None}
        names = order_of_names(found)
    repeated = repeated_name(names)
    if repeated is not None:
        raise UsageError(f"class names of {source} must differ; {repeated!r} occurs twice")
    if not names:
        raise UsageError(f"source {source} has no images" + _first_problem(listings))
    if len(names) < 2:
        raise UsageError(f"source {source} must have at least 2 classes; got {len(names)} ({', '.join(names)})")
    return names


def _first_problem(listings: list[pa.Table]) -> str:
    """Returns what more there is to say where no image has a class; nothing where none is listed."""
    first = next((row for table in listings for row in table.slice(0, 1).to_pylist()), None)
    if first is None:
        return ""
    count = sum(len(table) for table in listings)
    return f" with a class: {count} without are listed, the first: {first['name']}: {first['problem']}"


def _file(part: str, number: int) -> str:
    return f"{LISTINGS}/{part}-{number:06d}.arrow"
