"""Checks of the store that an ingest writes: its content, and exclusive access."""

from typing import Any

from dream_ray import storage
from dream_ray.data.ingest.contents import CONTENTS, SELECTED
from dream_ray.data.ingest.listing import LISTINGS, SHARDS, SPOOL
from dream_ray.data.ingest.plan_file import PLAN
from dream_ray.data.ingest.settings import IngestSettings
from dream_ray.data.ingest.writing import FILES, IMAGES, NOTES
from dream_ray.data.store.manifest import MANIFEST, Manifest
from dream_ray.data.store.rejects import REJECTS
from dream_ray.errors import UsageError

WORK = "work"
IDENTITY = f"{WORK}/identity.json"
"""In a store: settings and versions of the ingest; the first file of a store."""

_LONGEST_VALUE = 200  # characters of a setting in a message
_LAST_FIRST = (
    f"{WORK}/{NOTES}",
    IMAGES,
    REJECTS,
    f"{WORK}/{PLAN}",
    f"{WORK}/{FILES}",
    f"{WORK}/{CONTENTS}",
    f"{WORK}/{SELECTED}",
    f"{WORK}/{LISTINGS}",
    f"{WORK}/{SPOOL}",
    f"{WORK}/{SHARDS}",
    IDENTITY,
    WORK,
)
"""Everything that an ingest writes to a store except the manifest. After any number of deletions in this order, the
rest is a valid state of an unfinished ingest, which the same call continues."""


def check_apart(settings: IngestSettings, store: str) -> None:
    """Raises UsageError if a store lies in a source, where its files would be listed as images.

    Args:
        settings: With absolute paths, so that they differ from names of sets, such as digits.
        store: Store of the ingest.
    """
    for source in (settings.source, settings.test):
        if source and "/" in source and storage.is_directory(source) and storage.is_within(store, source):
            raise UsageError(f"store must not lie in source {source}; got {store}")


def check_target(store: str, identity: dict[str, Any]) -> Manifest | None:
    """Checks that a store may be written.

    Returns:
        The manifest of a finished store with the same settings, see `is_cleared`; else None.

    Raises:
        UsageError: If it holds something else, or a store with other settings.
    """
    if storage.exists(store) and not storage.is_directory(store):
        raise UsageError(f"store must be a directory; {store} is a file")
    names = storage.list_directory(store)
    if MANIFEST in names:
        manifest = Manifest.read(store)
        _check_settings(store, manifest, identity)
        return manifest
    path = storage.join(store, IDENTITY)
    begun = storage.read_json(path) if storage.exists(path) else None
    # An ingest that stops at its first file, or after deleting its last one, leaves an empty work directory.
    empty_work = begun is None and WORK in names and not storage.list_files(storage.join(store, WORK))
    own = {WORK} if empty_work else {IMAGES, REJECTS, WORK} if begun is not None else set()
    others = sorted(set(names) - own)
    if others:
        raise UsageError(f"store must be a new or empty directory; {store} contains {others[0]!r}")
    for name, value in identity.items():
        if begun is not None and begun.get(name) != value:
            raise UsageError(
                f"store {store} is an unfinished ingest with {name} {begun.get(name)!r}; got {value!r}: repeat it with "
                "the same settings, or delete the directory"
            )
    return None


def _check_settings(store: str, manifest: Manifest, identity: dict[str, Any]) -> None:
    """Raises UsageError if a finished store has other settings; it may be of other versions of the libraries."""
    written = {"source": manifest.source, **manifest.settings}
    for name, value in identity.items():
        if name != "versions" and written.get(name) != value:  # An earlier version knew fewer settings.
            raise UsageError(
                f"store {store} exists already, with {name} {_shortened(written.get(name))}; got {_shortened(value)}: "
                "delete it, or choose another directory"
            )


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."


def is_cleared(store: str) -> bool:
    """Tells whether nothing of the ingest is left beside a finished store."""
    return WORK not in storage.list_directory(store) and not storage.exists(storage.join(store, storage.CLAIM))


def check_begun(store: str, identity: dict[str, Any]) -> None:
    """Raises UsageError if another ingest has taken over a store, for file systems where locks do not work."""
    path = storage.join(store, IDENTITY)
    if not storage.exists(path) or storage.read_json(path) != identity:
        raise UsageError(f"only one process at a time may use store {store}; another one uses it")


def clear(store: str, identity: dict[str, Any]) -> None:
    """Deletes everything that an ingest has written; raises UsageError if another ingest has taken over the store."""
    check_begun(store, identity)
    for name in _LAST_FIRST:
        storage.delete(storage.join(store, name))
