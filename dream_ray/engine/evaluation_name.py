"""How the files of an evaluation are called, in the directory `evaluation` of its run."""

import hashlib
import json
import re
from collections.abc import Sequence

from dream_ray.config import Config
from dream_ray.config.sections import Network
from dream_ray.engine.arms import ARMS

USUAL_REPEATS = 3
"""Fresh networks per arm where nobody says how many."""

_PLAIN = re.compile(r"[\w.=-]{1,80}", re.ASCII)


def evaluation_name(
    config: Config, network: Network, protocol: str, split: str, arms: Sequence[str], repeats: int
) -> str:
    """Returns how the files of an evaluation are called: only one that asks the same again has the same name.

    With the run's own network, all arms and three networks each, as usual, that is "convnet-quick-test"; the options of
    another network, fewer arms and another n are told, as in "convnet-width=8-quick-test-distilled_whole-set-n=5".
    """
    chosen = [arm.replace(" ", "-") for arm in ARMS if arm in arms]
    options = _options_in_name(network, config.evaluation.network or config.network)
    parts = [network.name.replace(":", "-"), *options, protocol, split]
    if len(chosen) < len(ARMS):
        parts.append("_".join(chosen))
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
    # A list, a path or many options are no part of a file's name.
    return [plain if _PLAIN.fullmatch(plain) else f"options-{hashlib.sha256(text.encode()).hexdigest()[:8]}"]
