"""The door of the ingest: checks, then its stages in order."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from dream_ray import storage
from dream_ray.data.ingest.finish import REJECTS, finish, versions
from dream_ray.data.ingest.jobs import Mapper, run_here, with_retries
from dream_ray.data.ingest.listing import LISTINGS, SHARDS, SPOOL, Part, keep_shards, list_shard, open_parts, shard_jobs
from dream_ray.data.ingest.plan_file import PLAN, Plan, load_or_make_plan
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import FILES, IMAGES, NOTES, note_name, write_file
from dream_ray.data.manifest import MANIFEST, Manifest
from dream_ray.errors import UsageError

WORK = "work"
IDENTITY = f"{WORK}/identity.json"
"""In a store: what the ingest was begun with; the first file to be there."""

_LAST_FIRST = (
    f"{WORK}/{NOTES}",
    IMAGES,
    REJECTS,
    f"{WORK}/{PLAN}",
    f"{WORK}/{FILES}",
    f"{WORK}/{LISTINGS}",
    f"{WORK}/{SPOOL}",
    f"{WORK}/{SHARDS}",
    IDENTITY,
    WORK,
)
"""All that an ingest writes to a store but the manifest. Deleted in this order, what is left is at any time that of an
ingest that did not come so far yet, which the same call goes on with."""

Progress = Callable[[str, int, int], None]
"""(what is done, how many are done, how many there are)."""


def ingest(
    settings: IngestSettings,
    store: str,
    *,
    max_rejects: float = 0.01,
    download: bool = False,
    runner: AbstractContextManager[Mapper] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """Writes a store, or goes on with one that an earlier call did not finish.

    Args:
        settings: What the store is to hold.
        store: Directory to write: absent, empty, or left by an ingest of the same settings that was broken off.
        max_rejects: Largest fraction in [0, 1] of all images that may be unreadable. They are listed in
            rejects.parquet.
        download: Let torchvision download what is missing.
        runner: Who runs the jobs; entered once everything that can be checked is checked. None: this process.
        progress: Called as the work goes on.

    Returns:
        The manifest of the store.

    Raises:
        UsageError: If max_rejects breaks its rule, the source is missing, not of its form or of other shards than when
            the ingest began, or the store exists or lies in the source.
        RunError: If too many images are unreadable, or the store cannot be written. What is done is kept, and the
            same call goes on from there.
    """
    if not 0 <= max_rejects <= 1:
        raise UsageError(f"max_rejects must be a fraction in [0, 1]; got {max_rejects}")
    identity = {**settings.plain(), "versions": versions()}
    work = storage.join(store, WORK)
    with_retries(_check_apart, settings.absolute(), store)
    finished = with_retries(_check_target, store, identity)
    if finished is not None:
        with_retries(storage.delete, work)
        return finished
    parts = with_retries(open_parts, settings, download=download)
    with_retries(storage.ensure_writable, store)
    with_retries(storage.write_json, storage.join(store, IDENTITY), identity)
    with_retries(keep_shards, settings, store, work, parts)
    with runner or nullcontext(run_here) as run_jobs:
        try:
            _list(work, parts, run_jobs, progress)
            plan = with_retries(load_or_make_plan, settings, work, parts)
            _write(store, work, plan, run_jobs, progress)
        except UsageError:
            # It was asked for what cannot be: nothing of this is of use to a call with other settings.
            for name in _LAST_FIRST:
                with_retries(storage.delete, storage.join(store, name))
            raise
    with_retries(storage.delete_temporaries, store)
    manifest = with_retries(finish, settings, store, work, plan, max_rejects)
    with_retries(storage.delete, work)
    return manifest


def _check_apart(settings: IngestSettings, store: str) -> None:
    """Raises UsageError if a store lies in a source, where its files would pass for images.

    Args:
        settings: With absolute paths, by which they differ from names of sets, such as digits.
        store: Of the ingest.
    """
    for source in (settings.source, settings.test):
        if source and "/" in source and storage.is_directory(source) and storage.is_within(store, source):
            raise UsageError(f"store must not lie in source {source}; got {store}")


def _check_target(store: str, identity: dict[str, Any]) -> Manifest | None:
    """Checks that a store may be written.

    Returns:
        The manifest where it is written already, and was broken off while its work directory was deleted; else None.
    """
    if storage.exists(store) and not storage.is_directory(store):
        raise UsageError(f"store must be a directory; {store} is a file")
    names = storage.list_directory(store)
    if MANIFEST in names:
        if WORK in names:
            manifest = Manifest.read(store)
            if {"source": manifest.source, **manifest.settings, "versions": manifest.versions} == identity:
                return manifest
        raise UsageError(f"store {store} exists already; delete it, or name another directory")
    others = sorted(set(names) - {IMAGES, REJECTS, WORK})
    if others:
        raise UsageError(f"store must be a new or empty directory; {store} has {others[0]!r} in it")
    path = storage.join(store, IDENTITY)
    if not storage.exists(path):
        if WORK in names and not storage.list_files(storage.join(store, WORK)):
            names.remove(WORK)  # whoever made it was stopped at its first file, or after deleting the last one
        if names:
            raise UsageError(f"store must be a new or empty directory; {store} has {names[0]!r} in it")
        return None
    begun = storage.read_json(path)
    changed = next((name for name in identity if begun.get(name) != identity[name]), None)
    if changed is not None:
        raise UsageError(
            f"store {store} is an unfinished ingest with {changed} {begun.get(changed)!r}; got {identity[changed]!r}: "
            "repeat it as it was begun, or delete the directory"
        )
    return None


def _list(work: str, parts: dict[str, Part], run_jobs: Mapper, progress: Progress) -> None:
    total = sum(len(part.source.shards) for part in parts.values())
    jobs = with_retries(shard_jobs, work, parts.values())
    progress("shards listed", total - len(jobs), total)
    for done, _ in enumerate(run_jobs(partial(list_shard, work), jobs), total - len(jobs) + 1):
        progress("shards listed", done, total)


def _write(store: str, work: str, plan: Plan, run_jobs: Mapper, progress: Progress) -> None:
    done = set(with_retries(storage.list_directory, storage.join(work, NOTES)))
    jobs = [job for job in plan.jobs(store, work) if note_name(job.number) not in done]
    total = sum(plan.counts)
    written = total - sum(plan.counts[job.number] for job in jobs)
    progress("images", written, total)
    for count in run_jobs(write_file, jobs):
        written += count
        progress("images", written, total)
