"""The frameworks by name: one file for each group, and one entry here."""

from dream_ray.config.frameworks.base import Family, Framework
from dream_ray.config.frameworks.cim import CIM
from dream_ray.config.frameworks.dm import DM
from dream_ray.config.frameworks.dream import DREAM, DREAM_PLUS
from dream_ray.config.frameworks.gradient import DC, DSA
from dream_ray.config.frameworks.idc import IDC
from dream_ray.config.frameworks.mtt import MTT
from dream_ray.config.frameworks.origins import Layer, Origin, Scale, Settings, Stated
from dream_ray.config.frameworks.statistics import STATISTICS
from dream_ray.config.nested import overlay

FRAMEWORKS: dict[str, Framework] = {
    "dc": DC,
    "dsa": DSA,
    "dm": DM,
    "idc": IDC,
    "dream": DREAM,
    "dream_plus": DREAM_PLUS,
    "mtt": MTT,
    "cim": CIM,
    "statistics": STATISTICS,
}
"""Every framework supports any `selection.strategy` and any initialisation."""

DEFAULT_FRAMEWORK = "dream_plus"

__all__ = [
    "DEFAULT_FRAMEWORK",
    "FRAMEWORKS",
    "Family",
    "Framework",
    "Layer",
    "Origin",
    "Scale",
    "Settings",
    "Stated",
    "overlay",
]
