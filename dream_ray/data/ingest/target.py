"""The store that an ingest writes to: what may be in it, and that no other ingest is at it."""

import hashlib
import json
from typing import Any

from dream_ray import storage
from dream_ray.data.ingest.finish import REJECTS
from dream_ray.data.ingest.listing import LISTINGS, SHARDS, SPOOL
from dream_ray.data.ingest.plan_file import PLAN
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import FILES, IMAGES, NOTES
from dream_ray.data.store.manifest import MANIFEST, Manifest
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


def check_apart(settings: IngestSettings, store: str) -> None:
    """Raises UsageError if a store lies in a source, where its files would pass for images.

    Args:
        settings: With absolute paths, by which they differ from names of sets, such as digits.
        store: Of the ingest.
    """
    for source in (settings.source, settings.test):
        if source and "/" in source and storage.is_directory(source) and storage.is_within(store, source):
            raise UsageError(f"store must not lie in source {source}; got {store}")


def check_target(store: str, identity: dict[str, Any]) -> Manifest | None:
    """Checks that a store may be written.

    Returns:
        The manifest where it is written already, and was broken off while it was tidied up; else None.
    """
    if storage.exists(store) and not storage.is_directory(store):
        raise UsageError(f"store must be a directory; {store} is a file")
    names = storage.list_directory(store)
    if MANIFEST in names:
        if WORK in names or storage.exists(storage.join(store, storage.CLAIM)):
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


def check_begun(store: str, identity: dict[str, Any]) -> None:
    """Raises UsageError if a store is no longer that of the ingest which has begun it, where claims guard nothing."""
    path = storage.join(store, IDENTITY)
    if not storage.exists(path) or storage.read_json(path) != identity:
        raise UsageError(f"store {store} must be worked on by one process at a time; another one is at it")


def digest(identity: dict[str, Any]) -> str:
    """Returns the SHA-256 of what an ingest is begun with, in hexadecimal."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def clear(store: str, identity: dict[str, Any]) -> None:
    """Deletes all that an ingest has written; raises UsageError if the store is that of another one by now."""
    check_begun(store, identity)
    for name in _LAST_FIRST:
        storage.delete(storage.join(store, name))
