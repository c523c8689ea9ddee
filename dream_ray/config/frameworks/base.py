"""The form of a framework, and published settings that several families share.

A framework is data, not code: its settings select from components that all frameworks share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Settings = dict[str, Any]
"""Plain values of settings, nested like `Config`."""


@dataclass(frozen=True)
class Framework:
    """A distillation framework.

    Attributes:
        title: Name in the spelling of its authors.
        paper: Publication.
        settings: Settings that define the framework, including its usual loop. User settings override them. Values
            equal to the default of `schema.py` are omitted.
        presets: Published settings by data set and images per class, such as "cifar10-ipc10", which override
            `settings`.
    """

    title: str
    paper: str
    settings: Settings
    presets: Mapping[str, Settings] = field(default_factory=dict)


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> Settings:
    """Returns the settings of both; values of `above` override those of `below`."""
    merged = {**below, **above}
    for key, value in below.items():
        if isinstance(value, Mapping) and isinstance(above.get(key), Mapping):
            merged[key] = overlay(value, above[key])
    return merged


ONE_OF_ALL = "color|crop|cutout|flip|scale|rotate"
"""DSA's augmentation (arXiv 2102.08259): one of its operations a batch."""


def convnet(depth: int = 3) -> Settings:
    """Returns the network of all papers up to 64 px: a ConvNet of width 128 with instance norm."""
    return {"name": "convnet", "options": {"depth": depth, "width": 128, "norm": "instance"}}


def evaluation(*, epochs: int, augmentation: str) -> Settings:
    """Returns the evaluation recipe of DC and of the methods that build on its code."""
    return {
        "epochs": epochs,
        "batch_size": 256,
        "cutmix_probability": 0.0,
        "augmentation": augmentation,
        "lr_decay": 0.1,
        "lr_milestones": [0.5],
    }
