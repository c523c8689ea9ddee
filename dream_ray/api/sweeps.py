"""Functions that search for settings."""

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

from dream_ray import storage
from dream_ray.api.backends import DEFAULT_WAIT
from dream_ray.config.sizes import parse_seconds
from dream_ray.data.store.store import Store
from dream_ray.engine.progress.display import following
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from dream_ray.distributed.tune.search import SweepResult
    from dream_ray.sweeps.directory import SweepContext

_POLL_S = 2.0
"""Seconds between two looks at the study."""


def sweep(
    file: storage.StrPath,
    *,
    store: storage.StrPath | None = None,
    out: storage.StrPath,
    max_concurrent: int | None = None,
    study: str | None = None,
    device: str = "auto",
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    progress: bool = True,
) -> "SweepResult":
    """Searches for settings as a sweep file says, and tests the best; `resume_sweep` continues it.

    Args:
        file: Sweep file, see docs/how-to/search-for-settings.md.
        store: Store to distil; None: the one that the file names.
        out: New directory of the sweep. It gets results.parquet, best.yaml (settings for `distill`) and report.html.
        max_concurrent: Trials at a time; None: as many as there are resources for.
        study: URL of a database for the Optuna study; None: a journal in `out`.
        device: As for `distill`.
        address: As for `distill`.
        wait: As for `distill`.
        progress: Show the trials so far on a terminal or in a notebook.
    """
    from dream_ray.sweeps.directory import SweepContext, check_new_sweep
    from dream_ray.sweeps.file import read_sweep

    opened = read_sweep(storage.text_path("file", file))
    path = opened.store if store is None else storage.text_path("store", store)
    if path is None:
        raise UsageError(f"store must be given, with --store or as `store:` in {file}")
    context = SweepContext(
        storage.shared_path("out", storage.text_path("out", out)),
        storage.shared_path("store", path),
        device,
        study,
        max_concurrent,
        parse_seconds(wait),
    )
    check_new_sweep(opened, context)
    images = Store.open(context.store)
    from dream_ray.distributed.tune.search import begin_search

    with _following(context, progress=progress):
        return begin_search(opened, context, images, address)


def resume_sweep(
    path: storage.StrPath,
    *,
    study: str | None = None,
    max_concurrent: int | None = None,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
    progress: bool = True,
) -> "SweepResult":
    """Continues a sweep: finished trials stay, running ones continue from their checkpoints; see `sweep`.

    `max_concurrent` None: as the sweep was started. `progress`: as for `sweep`.
    """
    from dream_ray.sweeps.directory import open_sweep

    opened, context = open_sweep(storage.text_path("path", path), study)
    limit = context.max_concurrent if max_concurrent is None else max_concurrent
    context = replace(context, max_concurrent=limit, wait_s=parse_seconds(wait))
    from dream_ray.distributed.tune.search import run_search

    with _following(context, progress=progress):
        return run_search(opened, context, address)


def _following(context: "SweepContext", *, progress: bool) -> AbstractContextManager[None]:
    """Shows the trials of a sweep from its directory while the block runs it."""
    from dream_ray.sweeps.progress import read_progress

    return following("Searching", lambda: read_progress(context.out, context.study), _POLL_S, progress=progress)
