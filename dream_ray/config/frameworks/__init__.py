"""The frameworks and their presets by name: one file for each family, and one entry here."""

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
"""Every framework supports any `selection.strategy` and any initialisation."""

PRESETS: dict[str, Settings] = {
    **DREAM_PLUS.presets,
    **{
        f"{name}-{data}": {"framework": name, **settings}
        for name, framework in FRAMEWORKS.items()
        if framework is not DREAM_PLUS
        for data, settings in framework.presets.items()
    },
}
"""Published settings: cifar10-ipc10 for DREAM+, dm-cifar10-ipc10 for another framework such as DM.

Presets share values: copy them before you change them.
"""

__all__ = ["FRAMEWORKS", "PRESETS", "Framework", "Settings", "overlay"]
