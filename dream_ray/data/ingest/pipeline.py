"""The entry point of the ingest: checks, then its stages in order."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from types import MappingProxyType
from typing import Any

from dream_ray import storage
from dream_ray.data.ingest.contents import IMAGES_PER_JOB, check_test_fraction, digest_images, digest_jobs
from dream_ray.data.ingest.finish import finish, versions
from dream_ray.data.ingest.jobs import Mapper, run_here, with_retries
from dream_ray.data.ingest.listing import LISTINGS, keep_shards, list_shard, open_parts, shard_jobs
from dream_ray.data.ingest.pixel_range import with_found_range
from dream_ray.data.ingest.plan_file import Plan, load_plan, make_plan
from dream_ray.data.ingest.selection import Selection, select
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.target import IDENTITY, WORK, check_apart, check_begun, check_target, clear, is_cleared
from dream_ray.data.ingest.usual_size import with_usual_size
from dream_ray.data.ingest.writing import NOTES, WriteJob, note_name, write_file
from dream_ray.data.sources import Source
from dream_ray.data.sources.in_memory import SurveyedImages
from dream_ray.data.store.manifest import Manifest
from dream_ray.errors import UsageError

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
"""(unit, number done, total number)."""


def ingest(
    settings: IngestSettings,
    store: str,
    *,
    max_rejects: float = 0.01,
    download: bool = False,
    given: Mapping[str, SurveyedImages] = MappingProxyType({}),
    runner: AbstractContextManager[Mapper] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """Writes a store, or continues an unfinished one.

    Args:
        settings: Content of the store.
        store: Directory to write: absent, empty, or left by an interrupted ingest with the same settings.
        max_rejects: Largest fraction in [0, 1] of the images that may be unreadable or without a class. They are listed
            in rejects.parquet.
        download: Let torchvision download missing files.
        given: Images of the program by the texts that stand for them in the settings.
        runner: Yields what runs the jobs; entered after all checks. None: this process.
        progress: Called as the work proceeds.

    Returns:
        The manifest of the store. Nothing is read or written if it is finished already and has the same settings.

    Raises:
        UsageError: If max_rejects breaks its rule; the source is missing, has the wrong form or other shards than when
            the ingest began; or the store has other settings, lies in the source, or another ingest is writing it.
        RunError: If too many images are unreadable, or the store cannot be written. Finished work is kept, and the
            same call continues from there.
    """
    if not 0 <= max_rejects <= 1:
        raise UsageError(f"max_rejects must be a fraction in [0, 1]; got {max_rejects}")
    identity = {**settings.plain(), "versions": versions()}
    work = storage.join(store, WORK)
    with_retries(check_apart, settings.absolute(), store)
    finished = with_retries(check_target, store, identity)
    if finished is not None and with_retries(is_cleared, store):
        _log.info("Store %s exists already with these settings. To ingest changed images, delete it.", store)
        return finished
    if finished is not None or with_retries(storage.exists, storage.join(store, IDENTITY)):
        # A store in use is refused here, before the sources are opened, which may take minutes.
        with storage.exclusive_lock("store", store):
            if finished is not None:
                with_retries(storage.delete, work)
                return finished
    parts = with_retries(open_parts, settings, download=download, given=given)
    with_retries(storage.ensure_writable, store)
    with storage.exclusive_lock("store", store):
        # Meanwhile another ingest may have begun, or even finished, here.
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
    parts: dict[str, Source],
    identity: dict[str, Any],
    run_jobs: Mapper,
    progress: Progress,
) -> Plan:
    """Lists, digests if the split needs it, plans and writes; finished jobs are not repeated."""
    work = storage.join(store, WORK)
    try:
        total = sum(len(source.shards) for source in parts.values())
        shards = with_retries(shard_jobs, work, parts)
        progress("shards listed", total - len(shards), total)
        own = [job for job in shards if job.source.is_in_process]
        others = [job for job in shards if not job.source.is_in_process]
        listed = chain(run_here(list_shard, own), run_jobs(list_shard, others))
        for done, _ in enumerate(listed, total - len(shards) + 1):
            progress("shards listed", done, total)
    except UsageError as error:
        if with_retries(storage.list_directory, storage.join(work, LISTINGS)):
            # After a repair, only the damaged shard must be listed again.
            raise UsageError(
                f"{error}; repair it and repeat the command, which keeps the listed shards, or delete "
                f"{store} to change the settings"
            ) from None
        with_retries(clear, store, identity)
        raise
    try:
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        plan = with_retries(load_plan, work, digest)
        if plan is None:
            plan = _plan(settings, work, parts, digest, run_jobs, progress)
        _write(store, work, plan, run_jobs, progress)
    except UsageError:
        # The listed images do not make a store with these settings, and other settings need other listings.
        with_retries(clear, store, identity)
        raise
    return plan


def _plan(
    settings: IngestSettings,
    work: str,
    parts: dict[str, Source],
    identity: str,
    run_jobs: Mapper,
    progress: Progress,
) -> Plan:
    """Makes the plan. The listings, which may be large, are in memory until it returns, not while images are written.

    Images are sampled only here, so an ingest that goes on after the plan reads none of them again.
    """
    selection = with_retries(select, settings, work, parts)
    if settings.size is None:
        settings = with_retries(with_usual_size, settings, selection)
    if settings.pixel_range is None:
        settings = with_retries(with_found_range, settings, selection)
    if settings.test_fraction is not None:
        _digest_contents(settings, selection, work, run_jobs, progress)
    return with_retries(make_plan, settings, selection, work, identity)


def _digest_contents(
    settings: IngestSettings, selection: Selection, work: str, run_jobs: Mapper, progress: Progress
) -> None:
    """Digests the training images, so that the plan can divide them by content."""
    assert settings.test_fraction is not None
    sizes = list(map(len, selection.rows["train"]))
    check_test_fraction(settings.test_fraction, selection.class_names, sizes)
    jobs = with_retries(digest_jobs, selection, work, settings)
    digested = max(0, sum(sizes) - IMAGES_PER_JOB * len(jobs))
    for count in run_jobs(digest_images, jobs):
        digested += count
        progress("images compared", digested, sum(sizes))


def _write(store: str, work: str, plan: Plan, run_jobs: Mapper, progress: Progress) -> None:
    done = set(with_retries(storage.list_directory, storage.join(work, NOTES)))
    jobs = [
        WriteJob(store, work, plan.form, number, *file)
        for number, file in enumerate(plan.files)
        if note_name(number) not in done
    ]
    total = sum(plan.counts)
    written = total - sum(plan.counts[job.number] for job in jobs)
    progress("images", written, total)
    for count in run_jobs(write_file, jobs):
        written += count
        progress("images", written, total)
