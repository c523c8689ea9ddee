"""The options of a diagnosis, their checks, and the names of its files; imports no PyTorch."""

import math

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.data.store.store import Store
from dream_ray.errors import UsageError, check_rules

USUAL_SELECTIONS, USUAL_CLASSES = 3, 10
NUMBERS, HISTOGRAM, IMAGES, PAGE = "diagnosis.json", "gradient-norms.png", "chosen-images.png", "diagnosis.html"
_FILES = {NUMBERS, HISTOGRAM, IMAGES, PAGE}


def most_selections(config: Config) -> int:
    """Returns the number of selections in an outer step, whatever the strategy of the settings."""
    return math.ceil(config.inner_steps / config.selection.interval)


def check_diagnosis(
    config: Config, store: Store, out: str, *, selections: int, num_classes: int, threads: int, has_run: bool
) -> None:
    """Raises UsageError if an argument of `api.diagnose` breaks a rule, or the settings have nothing to diagnose."""
    most, kind = most_selections(config), config.source.kind
    check_rules(
        (
            not 1 <= selections <= most,
            f"selections must be an int from 1 to the selections of an outer step ({most}); got {selections}",
        ),
        (
            not 1 <= num_classes <= store.num_classes,
            f"num-classes must be an int from 1 to the number of classes ({store.num_classes}); got {num_classes}",
        ),
        (threads < 1, f"cpus-per-worker must be an int >= 1; got {threads}"),
        (
            not config.source.is_trained_ahead,
            f"source.kind must be real, random or pool, whose networks change from selection to selection; got {kind}. "
            "Set source.kind=real to see the selections under networks that are trained on real images",
        ),
        (
            config.data.zca and not has_run,
            "data.zca must be false without a run, which holds the fitted whitening; got true",
        ),
    )
    if not set(storage.list_directory(out)) <= _FILES:
        raise UsageError(f"out must be a new directory, or one of an earlier diagnosis; {out} has other files in it")
