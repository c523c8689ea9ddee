"""Functions that search for settings."""

from typing import TYPE_CHECKING

from dream_ray.api.backends import DEFAULT_WAIT
from dream_ray.config.sizes import parse_seconds

if TYPE_CHECKING:
    from dream_ray.distributed.search import SweepResult


def sweep(
    file: str,
    *,
    store: str | None = None,
    out: str,
    max_concurrent: int | None = None,
    study: str | None = None,
    device: str = "auto",
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
) -> "SweepResult":
    """Searches for settings as a sweep file says, and tests the best; `resume_sweep` continues it.

    Args:
        file: Sweep file, see docs/how-to/search-settings.md.
        store: Store to distil; None: the one that the file names.
        out: New directory of the sweep. It gets results.parquet, best.yaml (settings for `distill`) and report.html.
        max_concurrent: Trials at a time; None: as many as there are resources for.
        study: URL of a database for the Optuna study; None: a journal in `out`.
        device: As for `distill`.
        address: As for `distill`.
        wait: As for `distill`.
    """
    from dream_ray.distributed.search import begin_search

    return begin_search(
        file,
        store=store,
        out=out,
        device=device,
        study=study,
        max_concurrent=max_concurrent,
        address=address,
        wait_s=parse_seconds(wait),
    )


def resume_sweep(
    path: str,
    *,
    study: str | None = None,
    max_concurrent: int | None = None,
    address: str | None = None,
    wait: float | str = DEFAULT_WAIT,
) -> "SweepResult":
    """Continues a sweep: finished trials stay, running ones continue from their checkpoints; see `sweep`.

    `max_concurrent` None: as the sweep was started.
    """
    from dream_ray.distributed.search import run_search

    return run_search(path, study=study, max_concurrent=max_concurrent, address=address, wait_s=parse_seconds(wait))
