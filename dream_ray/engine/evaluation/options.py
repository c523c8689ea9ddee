"""The options of an evaluation, their checks, and the names of its files; imports no PyTorch."""

import hashlib
import json
import re
from collections.abc import Sequence

from dream_ray.config import Config
from dream_ray.config.sections import Network
from dream_ray.engine.run.directory import Run
from dream_ray.errors import UsageError

PROTOCOLS, SPLITS = ("quick", "published"), ("test", "validation")
DISTILLED = "distilled"
RANDOM_REAL, KMEANS_REAL, INITIAL, WHOLE_SET = "random real", "k-means real", "initial mosaics", "whole set"
BASELINES = (RANDOM_REAL, KMEANS_REAL, INITIAL, WHOLE_SET)
"""Names of the baselines; `baselines.py` makes them."""
EVALUATED_SETS = (DISTILLED, *BASELINES)
"""Sets that networks are trained on, in the order of tables."""
USUAL_REPEATS = 3
"""Fresh networks per evaluated set by default."""

_PLAIN = re.compile(r"[\w.=-]{1,80}", re.ASCII)


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
    splits = run.open_store().splits()
    if split not in splits:
        raise UsageError(f"split must be one that the store has ({', '.join(splits)}); got {split!r}")
    if split in run.config.splits:
        raise UsageError(f"split must be unseen; the run distilled {split!r} too (data.include_validation: true)")


def evaluation_name(
    config: Config, network: Network, protocol: str, split: str, baselines: Sequence[str], repeats: int
) -> str:
    """Returns the name of the files of an evaluation; other arguments give another name.

    With the run's own network, all baselines and three networks each, the name is "convnet-quick-test". Other options
    of the network, fewer baselines and another n are added, as in "convnet-width=8-quick-test-distilled-n=5".
    """
    chosen = [name.replace(" ", "-") for name in BASELINES if name in baselines]
    options = _options_in_name(network, config.evaluation.network or config.network)
    parts = [network.name.replace(":", "-"), *options, protocol, split]
    if len(chosen) < len(BASELINES):
        parts.append("_".join([DISTILLED, *chosen]))
    if repeats != USUAL_REPEATS:
        parts.append(f"n={repeats}")
    return "-".join(parts)


def _options_in_name(network: Network, own: Network) -> list[str]:
    if network == own:
        return []
    if not network.options:
        return ["default"] if network.name == own.name else []
    text = json.dumps(network.model_dump(mode="json")["options"], sort_keys=True)
    plain = re.sub(r'[{}" ]', "", text).replace(":", "=").replace(",", "-")
    # A list, a path or many options have characters or a length that no file name should have.
    return [plain if _PLAIN.fullmatch(plain) else f"options-{hashlib.sha256(text.encode()).hexdigest()[:8]}"]
