"""The preset that settings resemble, for lists of runs."""

from functools import cache
from typing import Any

from dream_ray.config.load import parse_config
from dream_ray.config.nested import leaves
from dream_ray.config.presets import PRESETS
from dream_ray.config.schema import Config

_MOST_CHANGES = 5
_NO_CHANGE = "seed"


def nearest_preset(config: Config) -> str:
    """Returns the preset that differs in the fewest settings, such as "cifar10-ipc10, 2 changed"; seeds do not count.

    If more than five settings differ from those of every preset, it returns framework and images per class.
    """
    values = leaves(config.model_dump(mode="json"))
    changes = {
        name: sum(values.get(path) != value for path, value in resolved.items() if path != _NO_CHANGE)
        for name, resolved in _resolved(config.framework).items()
    }
    name = min(changes, key=changes.__getitem__, default="")
    if changes.get(name, _MOST_CHANGES + 1) > _MOST_CHANGES:
        return f"{config.framework}, ipc {config.ipc}"
    return name if changes[name] == 0 else f"{name}, {changes[name]} changed"


@cache
def _resolved(framework: str) -> dict[str, dict[str, Any]]:
    """Returns the resolved settings of the presets of a framework, by path."""
    return {
        name: leaves(parse_config(preset.settings).model_dump(mode="json"))
        for name, preset in PRESETS.items()
        if preset.framework == framework
    }
