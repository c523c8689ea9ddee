"""The directory of a sweep.

sweep.yaml       what is searched, whole: a preset or file of settings may change later
context.json     store, device and study that it was begun with
.claim.partial   of the process that runs it
study.journal    the Optuna study, unless it lies in a database
trials/          the runs, by digest of their settings
bank/, bank-features/   networks that trials share, and features of the real images
results.parquet, best.yaml, final.json, report.html
"""

from dataclasses import dataclass

from dream_ray import storage
from dream_ray.errors import UsageError
from dream_ray.sweep.file import Sweep, dump_sweep, read_sweep
from dream_ray.sweep.study import check_new

SWEEP = "sweep.yaml"
_CONTEXT = "context.json"


@dataclass(frozen=True)
class SweepContext:
    """Where and with what a sweep runs.

    Attributes:
        out: Directory of the sweep, absolute.
        store: Store, absolute.
        device: "auto", "cpu" or "cuda".
        study: URL of a database for the study; None: a journal in `out`. Never written: there may be a password in it.
        max_concurrent: Trials at a time; None: as many as there is room for.
    """

    out: str
    store: str
    device: str
    study: str | None = None
    max_concurrent: int | None = None

    @property
    def bank(self) -> str:
        """Where trials share networks."""
        return storage.join(self.out, "bank")


def is_sweep(path: str) -> bool:
    """Tells whether a directory is that of a sweep."""
    return storage.exists(storage.join(path, SWEEP))


def check_new_sweep(sweep: Sweep, context: SweepContext) -> None:
    """Raises UsageError if the directory of a sweep cannot be made: something is there, or what it names is not."""
    _check_new_directory(context.out)
    for path in sweep.earlier:
        _check_earlier(sweep, path, context.study)
    if context.study is not None:
        check_new(context.out, context.study)


def create_sweep(sweep: Sweep, context: SweepContext) -> None:
    """Makes the directory of a sweep that `check_new_sweep` has let pass."""
    storage.ensure_writable(context.out)
    written = {
        "store": context.store,
        "device": context.device,
        "database": context.study is not None,
        "max_concurrent": context.max_concurrent,
    }
    with storage.working_alone("sweep", context.out):
        _check_new_directory(context.out)
        storage.write_json(storage.join(context.out, _CONTEXT), written, indent=2)
        storage.write_text(storage.join(context.out, SWEEP), dump_sweep(sweep.self_contained()))


def _check_new_directory(out: str) -> None:
    if is_sweep(out):
        raise UsageError(f"out {out} already holds a sweep; continue it with `dream-ray resume {out}`")
    # context.json alone is of a try that was killed before sweep.yaml was written.
    if set(storage.list_directory(out)) - {_CONTEXT}:
        raise UsageError(f"out must be a new or empty directory; {out} has files in it")


def _check_earlier(sweep: Sweep, path: str, study: str | None) -> None:
    if not is_sweep(path):
        raise UsageError(f"earlier must name directories of sweeps; there is none in {path}")
    other, _ = open_sweep(path, study)
    if (other.space, other.metrics) != (sweep.space, sweep.metrics):
        raise UsageError(f"earlier must name sweeps over the same space and metrics; those of {path} are others")


def open_sweep(path: str, study: str | None = None) -> tuple[Sweep, SweepContext]:
    """Opens the directory of a sweep, which may have moved; `study` as the sweep was begun with."""
    sweep = read_sweep(storage.join(path, SWEEP))
    kept = storage.read_json(storage.join(path, _CONTEXT))
    if kept["database"] and study is None:
        raise UsageError(f"study must be the URL of the database that the study of {path} is in; got none")
    url = study if kept["database"] else None
    return sweep, SweepContext(storage.absolute(path), kept["store"], kept["device"], url, kept["max_concurrent"])
