"""The options of an evaluation, their checks, and the names of its files; imports no PyTorch."""

import hashlib
import json
import re
from collections.abc import Collection, Sequence

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.config.sections import Network
from dream_ray.engine.evaluation.opening import BareSet
from dream_ray.engine.run.directory import Run
from dream_ray.errors import UsageError, did_you_mean

PROTOCOLS, SPLITS = ("quick", "published"), ("test", "validation")
DISTILLED, SELECTED_REAL = "distilled", "selected real"
"""The set that is evaluated: its name in results, and in tables if it is one of real images."""
RANDOM_REAL, KMEANS_REAL, INITIAL, WHOLE_SET = "random real", "k-means real", "initial mosaics", "whole set"
BASELINES = (RANDOM_REAL, KMEANS_REAL, INITIAL, WHOLE_SET)
"""Names of the baselines; `baselines.py` makes them."""
EVALUATED_SETS = (DISTILLED, *BASELINES)
"""Sets that networks are trained on, in the order of tables."""
USUAL_REPEATS = 3
"""Fresh networks per evaluated set by default."""

_WITHOUT_UNSEEN_IMAGES = (
    "The run has seen all images of its store. What can still be done: test it on images that it has not seen, in a "
    "store with the same classes (--store STORE); or distil again, with --set data.include_validation=false for "
    "--split validation, or from a store that was ingested with --test-fraction 0.2"
)
_PLAIN = re.compile(r"[\w.=-]{1,80}", re.ASCII)


def check_evaluation(
    run: Run, *, steps: Sequence[int], repeats: int, protocol: str, split: str, baselines: Sequence[str]
) -> None:
    """Raises UsageError if an argument of `api.evaluate` breaks a rule, or the store has no such split."""
    for name, value, valid in (("protocol", protocol, PROTOCOLS), ("split", split, SPLITS)):
        if value not in valid:
            raise UsageError(f"{name} must be one of {', '.join(valid)}; got {value!r}{did_you_mean(value, valid)}")
    for name, given, items in (("baselines", baselines, f"names of {', '.join(BASELINES)}"), ("steps", steps, "ints")):
        if isinstance(given, str):
            raise UsageError(f"{name} must be a list of {items}, or empty; got {given!r}")
    if unknown := [name for name in baselines if name not in BASELINES]:
        hint = did_you_mean(unknown[0], BASELINES)
        raise UsageError(f"baselines must be of {', '.join(BASELINES)}; got {', '.join(unknown)}{hint}")
    if repeats < 1:
        raise UsageError(f"repeats must be an int >= 1; got {repeats}")
    if steps:
        _check_steps(run, steps)
    if INITIAL in baselines and run.config.is_selection:
        raise UsageError(
            f"baselines of the real images {run.evaluated_path} must not have {INITIAL}, which are the same images"
        )
    if INITIAL in baselines and isinstance(run, BareSet):
        raise UsageError(
            f"baselines of the set {run.set_path} must not have {INITIAL}, which only the directory of its run has. "
            "Leave it out, or evaluate the run"
        )
    _check_split(run, split)


def _check_split(run: Run, split: str) -> None:
    """Raises UsageError if the store has no such split, or the run distilled it."""
    splits = run.open_store().splits()
    seen = run.config.splits if not isinstance(run, BareSet) or run.is_own_store else ()
    unseen = [name for name in SPLITS if name in splits and name not in seen]
    if split in unseen:
        return
    remedy = f"Give --split {unseen[0]}" if unseen else _WITHOUT_UNSEEN_IMAGES
    if split not in splits:
        raise UsageError(f"split must be one that the store has ({', '.join(splits)}); got {split!r}. {remedy}")
    raise UsageError(f"split must be unseen; the run distilled {split!r} too (data.include_validation: true). {remedy}")


def _check_steps(run: Run, steps: Sequence[int]) -> None:
    checkpoints = run.checkpoints()
    found = checkpoints.steps()
    complete = checkpoints.complete_steps(set(steps) & set(found))
    complete += [step for step in steps if storage.exists(run.partial_file(step))]
    if missing := [step for step in steps if step not in complete]:
        kept = ", ".join(map(str, checkpoints.complete_steps(found))) or "none"
        raise UsageError(
            f"step must be that of a complete checkpoint of {run.path} (it has {kept}); got {missing[0]}. With "
            "checkpoint_keep_every, a run keeps more"
        )


def evaluation_name(
    config: Config,
    network: Network,
    protocol: str,
    split: str,
    baselines: Collection[str],
    repeats: int,
    steps: Sequence[int] = (),
) -> str:
    """Returns the name of the files of an evaluation; other arguments give another name.

    With the run's own network, all baselines and three networks each, the name is "convnet-quick-test". Other options
    of the network, fewer baselines, steps and another n are added, as in "convnet-width=8-quick-test-distilled-n=5".
    """
    chosen = [name.replace(" ", "-") for name in BASELINES if name in baselines]
    parts = [recipe_name(config, network, protocol, split)]
    if len(chosen) < len(BASELINES):
        parts.append("_".join([DISTILLED, *chosen]))
    if steps:
        text = "_".join(map(str, sorted(steps)))
        parts.append(f"steps={text}" if _PLAIN.fullmatch(text) else f"{len(steps)}-steps-{_digest(text)}")
    if repeats != USUAL_REPEATS:
        parts.append(f"n={repeats}")
    return "-".join(parts)


def recipe_name(config: Config, network: Network, protocol: str, split: str) -> str:
    """Returns the part of a name that says how networks are trained and tested, such as "convnet-quick-test"."""
    return "-".join([network_label(config, network), protocol, split])


def network_label(config: Config, network: Network) -> str:
    """Returns the name of a network with those of its options that are not the run's, such as "convnet-width=8"."""
    options = _options_in_name(network, config.evaluation.network or config.network)
    return "-".join([network.name.replace(":", "-"), *options])


def _options_in_name(network: Network, own: Network) -> list[str]:
    if network == own:
        return []
    if not network.options:
        return ["default"] if network.name == own.name else []
    text = json.dumps(network.model_dump(mode="json")["options"], sort_keys=True)
    plain = re.sub(r'[{}" ]', "", text).replace(":", "=").replace(",", "-")
    # A list, a path or many options have characters or a length that no file name should have.
    return [plain if _PLAIN.fullmatch(plain) else f"options-{_digest(text)}"]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
