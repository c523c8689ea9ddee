"""The form of a framework, and published settings that several families share.

A framework is data, not code: its settings select from components that all frameworks share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dream_ray.config.frameworks.origins import Layer, Origin, Scale, Settings, Stated, resolve, settings_of


@dataclass(frozen=True)
class Family:
    """The settings of a framework for a data set.

    Attributes:
        layers: What it states beyond the framework.
        scales: Scales with a preset, by the part of its name that `Framework.preset_name` takes, such as
            "cifar10-ipc10".
        note: What users of its presets must know, in a few words; empty: nothing.
    """

    layers: tuple[Layer, ...]
    scales: Mapping[str, Scale]
    note: str = ""

    @property
    def usual_factor(self) -> int:
        """Factor of its first preset."""
        return next(iter(self.scales.values())).factor

    @property
    def is_ours(self) -> bool:
        """Whether no paper has such settings."""
        return all(layer.origin.kind == "ours" for layer in self.layers)


@dataclass(frozen=True)
class Framework:
    """A distillation framework.

    Attributes:
        title: Name in the spelling of its authors.
        paper: Publication.
        layers: Settings that define it; user settings override them. They include published values that equal a
            default of `schema.py`, because a setting that no layer states counts as ours.
        families: Its published settings by data set; DATA/FORM if it has several forms for a set.
        usual: Scale of the framework without a preset.
        preset_name: Form of the names of its presets, with {scale} for the key of `Family.scales`.
    """

    title: str
    paper: str
    layers: tuple[Layer, ...]
    families: Mapping[str, Family] = field(default_factory=dict)
    usual: Scale = Scale(10, 1)
    preset_name: str = "{scale}"

    def stated_at(self, scale: Scale) -> dict[str, Stated]:
        """Returns what the framework without a data set states at a scale."""
        return resolve(self.layers, scale, is_published=scale == self.usual)

    @cached_property
    def settings(self) -> Settings:
        """Its settings at the usual scale, which all frameworks have without a preset; not to be changed."""
        return {"factor": self.usual.factor, **settings_of(self.stated_at(self.usual))}


def scales_of(data: str, ipcs: tuple[int, ...], factor: int) -> dict[str, Scale]:
    """Returns the scales of a family by the usual names of its presets."""
    return {f"{data}-ipc{ipc}": Scale(ipc, factor) for ipc in ipcs}


DC_CODE = Origin("published code", "repository of DC, DSA and DM")
ONE_OF_ALL = "color|crop|cutout|flip|scale|rotate"
"""DSA's augmentation (arXiv 2102.08259): one of its operations a batch."""
ONE_OF_ALL_FOR_DIGITS = "color|crop|cutout|scale|rotate"
"""The same without the flip, which makes another digit or none."""


def convnet(depth: int = 3) -> Settings:
    """Returns the network of all papers up to 64 px: a ConvNet of width 128 with instance norm."""
    return {"name": "convnet", "options": {"depth": depth, "width": 128, "norm": "instance"}}


def evaluation(*, epochs: int, augmentation: str) -> Settings:
    """Returns the evaluation recipe of DC and of the methods that build on its code.

    With E published epochs, the code trains E + 1 and decays the learning rate once, after E / 2 + 2 of them: its
    epochs count from 0, and epoch E / 2 + 1 is the last before the decay. It then makes a new optimiser.
    """
    return {
        "epochs": epochs + 1,
        "batch_size": 256,
        "lr": 0.01,
        "lr_decay": 0.1,
        "lr_milestones": [(epochs // 2 + 2) / (epochs + 1)],
        "restart_momentum": True,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "cutmix_probability": 0.0,
        "augmentation": augmentation,
        "random_resized_crop": False,
    }
