"""DREAM and DREAM+: IDC with representative real images; DREAM+ also matches features.

Sources: DREAM (Liu et al., ICCV 2023, arXiv 2302.14416), DREAM+ (arXiv 2310.15052) and the settings that their authors
published. The defaults of the settings are those of DREAM+.
"""

from collections.abc import Callable
from functools import partial

from dream_ray.config.frameworks.base import Framework, Settings, overlay
from dream_ray.config.frameworks.common import convnet
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


_PUBLISHED = {**PUBLISHED, **{f"tiny-imagenet-ipc{ipc}": partial(_tiny_imagenet, ipc) for ipc in (1, 10, 50)}}


def _of(framework: str, make: Callable[[], Settings]) -> Settings:
    return overlay(make(), {"framework": framework})


DREAM = Framework(
    "DREAM",
    "Liu et al., ICCV 2023, arXiv 2302.14416",
    _DREAM,
    {name: partial(_of, "dream", make) for name, make in _PUBLISHED.items()},
)
DREAM_PLUS = Framework(
    "DREAM+",
    "Liu et al., arXiv 2310.15052",
    {},
    {name: partial(_of, "dream_plus", make) for name, make in _PUBLISHED.items()},
)
