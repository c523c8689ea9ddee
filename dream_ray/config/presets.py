"""Published settings by name: cifar10-ipc10 for DREAM+, dm-cifar10-ipc10 for another framework such as DM.

`frameworks/` defines the presets of each framework; an unset value has its default of `schema.py`.
"""

from collections.abc import Callable

from dream_ray.config.frameworks import FRAMEWORKS, Settings


def _smoke() -> Settings:
    """Digits in under a minute on two CPU cores: a test of the installation, not of accuracy."""
    return {
        "ipc": 1,
        "factor": 1,
        "outer_steps": 6,
        "inner_steps": 20,
        "checkpoint_every": 10,
        "network": {"name": "convnet", "options": {"depth": 2, "width": 32, "norm": "instance"}},
        "selection": {"num_clusters": 32},
        "matching": {"augmentation": "color_crop"},
        "pixels": {"lr": 1e-3},
        "update": {"num_images": 256, "batch_size": 64, "cutmix_probability": 0.0},
        "evaluation": {
            "epochs": 300,
            "quick_epochs": 100,
            "whole_set_epochs": 100,
            "cutmix_probability": 0.0,
            "augmentation": "color_crop_scale_rotate",
        },
    }


PRESETS: dict[str, Callable[[], Settings]] = {
    "smoke": _smoke,
    **FRAMEWORKS["dream_plus"].presets,
    **{
        f"{name}-{data}": make
        for name, framework in FRAMEWORKS.items()
        if name != "dream_plus"
        for data, make in framework.presets.items()
    },
}
"""Factories of plain values, by name."""
