"""The directory of a sweep.

sweep.yaml       what is searched, whole: a preset or file of settings may change later
place.json       store, device and study that it was begun with
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
_PLACE = "place.json"


@dataclass(frozen=True)
class Place:
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


def check_new_sweep(sweep: Sweep, place: Place) -> None:
    """Raises UsageError if the directory of a sweep cannot be made: something is there, or what it names is not."""
    _check_new_directory(place.out)
    for path in sweep.earlier:
        _check_earlier(sweep, path, place.study)
    if place.study is not None:
        check_new(place.out, place.study)


def create_sweep(sweep: Sweep, place: Place) -> None:
    """Makes the directory of a sweep that `check_new_sweep` has let pass."""
    storage.ensure_writable(place.out)
    written = {
        "store": place.store,
        "device": place.device,
        "database": place.study is not None,
        "max_concurrent": place.max_concurrent,
    }
    with storage.working_alone("sweep", place.out):
        _check_new_directory(place.out)
        storage.write_json(storage.join(place.out, _PLACE), written, indent=2)
        storage.write_text(storage.join(place.out, SWEEP), dump_sweep(sweep.self_contained()))


def _check_new_directory(out: str) -> None:
    if is_sweep(out):
        raise UsageError(f"out {out} already holds a sweep; continue it with `dream-ray resume {out}`")
    # place.json alone is of a try that was killed before sweep.yaml was written.
    if set(storage.list_directory(out)) - {_PLACE}:
        raise UsageError(f"out must be a new or empty directory; {out} has files in it")


def _check_earlier(sweep: Sweep, path: str, study: str | None) -> None:
    if not is_sweep(path):
        raise UsageError(f"earlier must name directories of sweeps; there is none in {path}")
    other, _ = open_sweep(path, study)
    if (other.space, other.metrics) != (sweep.space, sweep.metrics):
        raise UsageError(f"earlier must name sweeps over the same space and metrics; those of {path} are others")


def open_sweep(path: str, study: str | None = None) -> tuple[Sweep, Place]:
    """Opens the directory of a sweep, which may have moved; `study` as the sweep was begun with."""
    sweep = read_sweep(storage.join(path, SWEEP))
    place = storage.read_json(storage.join(path, _PLACE))
    if place["database"] and study is None:
        raise UsageError(f"study must be the URL of the database that the study of {path} is in; got none")
    url = study if place["database"] else None
    return sweep, Place(storage.absolute(path), place["store"], place["device"], url, place["max_concurrent"])
