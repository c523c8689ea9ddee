"""The frameworks by name: one file for each family, and one entry here."""

from dream_ray.config.frameworks.base import Framework, Settings, overlay
from dream_ray.config.frameworks.dm import DM
from dream_ray.config.frameworks.dream import DREAM, DREAM_PLUS
from dream_ray.config.frameworks.gradient import DC, DSA
from dream_ray.config.frameworks.idc import IDC
from dream_ray.config.frameworks.mtt import MTT

FRAMEWORKS: dict[str, Framework] = {
    "dc": DC,
    "dsa": DSA,
    "dm": DM,
    "idc": IDC,
    "dream": DREAM,
    "dream_plus": DREAM_PLUS,
    "mtt": MTT,
}
"""Every framework supports `selection.strategy` random and representative, and any initialisation."""

__all__ = ["FRAMEWORKS", "Framework", "Settings", "overlay"]
