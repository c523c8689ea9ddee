"""The directory of a sweep and those of its runs; without PyTorch.

sweep.yaml       the sweep file with its settings written out, because a preset may change later
context.json     store, device and number of trials at a time
.claim.partial   the lock of the process that runs it
study.journal    the Optuna study, unless a database holds it
trials/, final/  the runs of trials and the final runs, named by the digests of their settings
snapshot-cache/, snapshot-cache-features/   networks that trials share, and features of the real images
results.parquet, best.yaml, final.json, report.html
"""

import hashlib
import shlex
from dataclasses import dataclass

from dream_ray import storage
from dream_ray.config import Config, dump_config
from dream_ray.engine.run.spec import device_rule
from dream_ray.errors import UsageError, check_rules
from dream_ray.sweeps.file import Sweep, Values, dump_sweep, read_sweep

SWEEP = "sweep.yaml"
_CONTEXT = "context.json"
# Suffixes of files beside the directory of a run: the reason why it can never succeed, and that of a transient failure.
REASON, TROUBLE = ".reason.txt", ".trouble.txt"


@dataclass(frozen=True)
class SweepContext:
    """The directories, device and limits of a sweep.

    Attributes:
        out: Absolute path of the sweep's directory.
        store: Absolute path of the store.
        device: "auto", "cpu" or "cuda".
        study: URL of a database for the study; None: a journal in `out`. No file contains it: it may hold a password.
        max_concurrent: Trials at a time; None: as many as the cluster has capacity for.
        wait_s: Seconds after which a trial gives up if it finds no free resources.
    """

    out: str
    store: str
    device: str
    study: str | None = None
    max_concurrent: int | None = None
    wait_s: float = 600.0

    def __post_init__(self) -> None:
        """Raises UsageError if a value breaks a rule."""
        check_rules(device_rule(self.device), max_concurrent_rule(self.max_concurrent))


def max_concurrent_rule(number: int | None) -> tuple[bool, str]:
    """Returns the rule for the runs at a time, see `check_rules`."""
    return number is not None and number < 1, f"max-concurrent must be an int >= 1; got {number}"


def is_sweep(path: str) -> bool:
    """Tells whether a directory belongs to a sweep."""
    return storage.exists(storage.join(path, SWEEP))


def check_new_sweep(sweep: Sweep, context: SweepContext) -> None:
    """Raises UsageError if the directory is in use or if `earlier` or the database do not fit."""
    _check_new_directory(context.out)
    for path in sweep.earlier:
        _check_earlier(sweep, path, context.study)
    if context.study is not None:
        from dream_ray.sweeps.study import has_begun, study_name  # Optuna, which `status` of a run does not need

        if has_begun(context.out, context.study):
            name = study_name(context.out, context.study)
            raise UsageError(f"out must have a new name; the database already has a study {name}")


def create_sweep(sweep: Sweep, context: SweepContext) -> None:
    """Creates the directory of a sweep after `check_new_sweep`."""
    storage.ensure_writable(context.out)
    written = {
        "store": context.store,
        "device": context.device,
        "database": context.study is not None,
        "max_concurrent": context.max_concurrent,
    }
    with storage.exclusive_lock("sweep", context.out):
        _check_new_directory(context.out)
        storage.write_json(storage.join(context.out, _CONTEXT), written, indent=2)
        storage.write_text(storage.join(context.out, SWEEP), dump_sweep(sweep.self_contained()))


def _check_new_directory(out: str) -> None:
    found = set(storage.list_directory(out))
    if SWEEP in found:
        raise UsageError(f"out {out} already holds a sweep; continue it with `dream-ray resume {shlex.quote(out)}`")
    # A process that was killed between the two files leaves context.json alone.
    if found - {_CONTEXT}:
        raise UsageError(f"out must be a new or empty directory; {out} has files in it")


def _check_earlier(sweep: Sweep, path: str, study: str | None) -> None:
    if not is_sweep(path):
        raise UsageError(f"earlier must name directories of sweeps; {path} holds none")
    other, _ = open_sweep(path, study)
    if (other.space, other.metrics) != (sweep.space, sweep.metrics):
        raise UsageError(f"earlier must name sweeps over the same space and metrics; {path} has others")


def open_sweep(path: str, study: str | None = None) -> tuple[Sweep, SweepContext]:
    """Opens the directory of a sweep, which may have moved; pass the `study` that the sweep began with."""
    sweep = read_sweep(storage.join(path, SWEEP))
    kept = storage.read_json(storage.join(path, _CONTEXT))
    if kept["database"] and study is None:
        raise UsageError(f"study must be the URL of the database that holds the study of {path}; got none")
    url = study if kept["database"] else None
    return sweep, SweepContext(storage.absolute(path), kept["store"], kept["device"], url, kept["max_concurrent"])


def run_directory(out: str, config: Config, folder: str = "trials") -> str:
    """Returns the directory of the run with these settings; a digest of them names it."""
    digest = hashlib.sha256(dump_config(config).encode()).hexdigest()
    return storage.join(out, folder, digest[:16])


def is_worth_a_try(out: str, sweep: Sweep, values: Values) -> bool:
    """Tells whether a failed trial may succeed: its settings are valid and were not the reason."""
    try:
        configs = sweep.configs_of(values)
    except UsageError:
        return False
    return all(cached_failure(run_directory(out, config)) is None for config in configs)


def cached_failure(path: str) -> str | None:
    """Returns the reason why a run can never succeed, if `trial.cache_failure` has kept one."""
    return _text(path + REASON)


def read_reason(out: str, configs: list[Config]) -> str:
    """Returns why a trial failed; a killed process leaves no reason."""
    paths = [run_directory(out, config) for config in configs]
    reasons = (_text(path + suffix) for suffix in (REASON, TROUBLE) for path in paths)
    return next((text for text in reasons if text is not None), "its process ended, twice")


def _text(path: str) -> str | None:
    return storage.read_text(path) if storage.exists(path) else None
