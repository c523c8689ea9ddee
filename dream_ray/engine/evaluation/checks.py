"""Whether an evaluation can be made; checked without PyTorch, before Ray starts."""

from collections.abc import Sequence

from dream_ray.engine.evaluation.naming import BASELINES
from dream_ray.engine.run.directory import Run
from dream_ray.errors import UsageError

PROTOCOLS, SPLITS = ("quick", "published"), ("test", "validation")


def check_evaluation(run: Run, *, repeats: int, protocol: str, split: str, baselines: Sequence[str]) -> None:
    """Raises UsageError if an argument of `api.evaluate` breaks a rule, or the store has no such split."""
    for name, value, valid in (("protocol", protocol, PROTOCOLS), ("split", split, SPLITS)):
        if value not in valid:
            raise UsageError(f"{name} must be one of {', '.join(valid)}; got {value!r}")
    if unknown := [name for name in baselines if name not in BASELINES]:
        raise UsageError(f"baselines must be of {', '.join(BASELINES)}; got {', '.join(unknown)}")
    if repeats < 1:
        raise UsageError(f"repeats must be an int >= 1; got {repeats}")
    if not run.is_finished:
        raise UsageError(f"run {run.path} must be finished; continue it with `dream-ray resume {run.path}`")
    store = run.open_store()
    if split not in store.splits():
        raise UsageError(f"split must be one that the store has ({', '.join(store.splits())}); got {split!r}")
    if split in run.config.splits:
        raise UsageError(f"split must be unseen; the run distilled {split!r} too (data.include_validation: true)")
