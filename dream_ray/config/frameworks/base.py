"""What a framework is: data, not code. It says which of the parts that all frameworks share it is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = dict[str, Any]
"""Plain values of settings, nested like `Config`."""


@dataclass(frozen=True)
class Framework:
    """A distillation framework.

    Attributes:
        title: Its name as its authors write it.
        paper: Where it was published.
        settings: What makes it this framework, its usual loop among it: these lie under whatever a user sets. What
            equals the default of `schema.py` is left out.
        presets: Published settings by data set and images per class, such as "cifar10-ipc10"; `settings` lie below.
    """

    title: str
    paper: str
    settings: Settings
    presets: Mapping[str, Callable[[], Settings]] = field(default_factory=dict)


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> Settings:
    """Returns the settings of both; where both have a value, that of `above`."""
    merged = {**below, **above}
    for key, value in below.items():
        if isinstance(value, Mapping) and isinstance(above.get(key), Mapping):
            merged[key] = overlay(value, above[key])
    return merged
