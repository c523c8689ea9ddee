"""The door of the ingest: checks, then its stages in order."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

from dream_ray import storage
from dream_ray.data.ingest.finish import finish, versions
from dream_ray.data.ingest.jobs import Mapper, run_here, with_retries
from dream_ray.data.ingest.listing import LISTINGS, Part, keep_shards, list_shard, open_parts, shard_jobs
from dream_ray.data.ingest.plan_file import Plan, load_or_make_plan
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.target import (
    IDENTITY,
    WORK,
    check_apart,
    check_begun,
    check_target,
    clear,
    digest,
)
from dream_ray.data.ingest.writing import NOTES, note_name, write_file
from dream_ray.data.store.manifest import Manifest
from dream_ray.errors import UsageError

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
        max_rejects: Largest fraction in [0, 1] of the images that may be unreadable or without a class. They are listed
            in rejects.parquet.
        download: Let torchvision download what is missing.
        runner: Who runs the jobs; entered once everything that can be checked is checked. None: this process.
        progress: Called as the work goes on.

    Returns:
        The manifest of the store.

    Raises:
        UsageError: If max_rejects breaks its rule, the source is missing, not of its form or of other shards than when
            the ingest began, or the store exists, lies in the source, or is written by another ingest at this moment.
        RunError: If too many images are unreadable, or the store cannot be written. What is done is kept, and the
            same call goes on from there.
    """
    if not 0 <= max_rejects <= 1:
        raise UsageError(f"max_rejects must be a fraction in [0, 1]; got {max_rejects}")
    identity = {**settings.plain(), "versions": versions()}
    work = storage.join(store, WORK)
    with_retries(check_apart, settings.absolute(), store)
    finished = with_retries(check_target, store, identity)
    if finished is not None or with_retries(storage.exists, storage.join(store, IDENTITY)):
        with storage.exclusive_lock(
            "store", store
        ):  # or it is refused here, before minutes go into opening the sources
            if finished is not None:
                with_retries(storage.delete, work)
                return finished
    parts = with_retries(open_parts, settings, download=download)
    with_retries(storage.ensure_writable, store)
    with storage.exclusive_lock("store", store):
        # Meanwhile another ingest may have begun here, and even have ended.
        manifest = with_retries(check_target, store, identity)
        if manifest is None:
            with_retries(storage.write_json, storage.join(store, IDENTITY), identity)
            with_retries(keep_shards, settings, store, work, parts)
            with runner or nullcontext(run_here) as run_jobs:
                plan = _run_stages(settings, store, parts, identity, run_jobs, progress)
            with_retries(check_begun, store, identity)
            with_retries(storage.delete_temporaries, store)
            manifest = with_retries(finish, settings, store, work, plan, max_rejects)
        with_retries(storage.delete, work)
    return manifest


def _run_stages(
    settings: IngestSettings,
    store: str,
    parts: dict[str, Part],
    identity: dict[str, Any],
    run_jobs: Mapper,
    progress: Progress,
) -> Plan:
    """Lists, plans and writes; what was done before is not done again."""
    work = storage.join(store, WORK)
    try:
        _list(work, parts, run_jobs, progress)
    except UsageError as error:
        if with_retries(storage.list_directory, storage.join(work, LISTINGS)):
            # A shard can be mended, and is then listed as if nothing had been: the others need not be again.
            raise UsageError(
                f"{error}; mend it and repeat the command, which goes on with the shards that are listed, or delete "
                f"{store} for other settings"
            ) from None
        with_retries(clear, store, identity)
        raise
    try:
        plan = with_retries(load_or_make_plan, settings, work, parts, digest(identity))
        _write(store, work, plan, run_jobs, progress)
    except UsageError:
        # What was listed does not make a store with these settings, and is of no use to a call with others.
        with_retries(clear, store, identity)
        raise
    return plan


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
