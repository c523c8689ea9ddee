"""DREAM and DREAM+: IDC with representative real images; DREAM+ also matches features.

Sources: DREAM (Liu et al., ICCV 2023, arXiv 2302.14416), DREAM+ (arXiv 2310.15052) and the settings that their authors
published. The defaults of the settings are those of DREAM+.
"""

from dream_ray.config.frameworks.base import Framework, Settings, convnet
from dream_ray.config.frameworks.idc import PUBLISHED, scaled_lr

_DREAM: Settings = {"weights": {"feature": 0.0, "gradient": 1.0}, "update": {"warmup_epochs": 0}}


def _tiny_imagenet(ipc: int) -> Settings:
    """Tiny-ImageNet, 64 px: ConvNet-4, and the images nearest to any centre."""
    return {
        "ipc": ipc,
        "factor": 2,
        "network": convnet(4),
        "selection": {"num_clusters": 64, "rule": "any"},
        "pixels": {"lr": scaled_lr(1e-6 if ipc == 50 else 5e-3, ipc, 64, 32)},
        "update": {"num_images": 1000, "batch_size": 64},
    }


_PRESETS = {**PUBLISHED, **{f"tiny-imagenet-ipc{ipc}": _tiny_imagenet(ipc) for ipc in (1, 10, 50)}}

_SMOKE: Settings = {
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
"""Digits in under a minute on two CPU cores: ours, a test of the installation, not of accuracy."""

DREAM = Framework(
    "DREAM",
    "Liu et al., ICCV 2023, arXiv 2302.14416",
    _DREAM,
    _PRESETS,
)
DREAM_PLUS = Framework(
    "DREAM+",
    "Liu et al., arXiv 2310.15052",
    {},
    {"smoke": _SMOKE, **_PRESETS},
)
