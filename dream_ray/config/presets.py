"""Published settings by name, for example cifar10-ipc10.

Sources: DREAM+ (arXiv 2310.15052), DREAM (arXiv 2302.14416) and IDC (arXiv 2205.14959) and the settings their authors
published. The pixel learning rate is scaled here, by (ipc / 10) * (side / base side)^2.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

Preset = dict[str, Any]


def _scaled_lr(lr: float, ipc: int, side: int, base_side: int) -> float:
    return lr * (ipc / 10) * (side / base_side) ** 2


def _small(ipc: int, *, lr: float = 5e-3, distance: str = "mse", num_images: int = 2000, flip: bool = True) -> Preset:
    """ConvNet-3 sets of 28 and 32 px: CIFAR, SVHN, MNIST, FashionMNIST. Their side is their base side."""
    operations = "color_crop_flip_scale_rotate" if flip else "color_crop_scale_rotate"
    return {
        "ipc": ipc,
        "factor": 2,
        "network": {"name": "convnet", "options": {"depth": 3, "width": 128, "norm": "instance"}},
        "matching": {"distance": distance},
        "pixels": {"lr": _scaled_lr(lr, ipc, 1, 1)},
        "update": {"num_images": num_images},
        "evaluation": {"augmentation": operations},
    }


def _mnist(ipc: int) -> Preset:
    """MNIST with factor 2: neither cutout nor CutMix, for a digit cut in half is another digit."""
    preset = _small(ipc, lr=1e-4, distance="l1", num_images=500, flip=False)
    preset["matching"]["augmentation"] = "color_crop"
    preset["update"]["cutmix_probability"] = 0.0
    preset["evaluation"]["cutmix_probability"] = 0.0
    return preset


def _tiny_imagenet(ipc: int) -> Preset:
    """Tiny-ImageNet, 64 px: ConvNet-4, the images nearest to any centre."""
    return {
        "ipc": ipc,
        "factor": 2,
        "network": {"name": "convnet", "options": {"depth": 4, "width": 128, "norm": "instance"}},
        "selection": {"num_clusters": 64, "rule": "any"},
        "pixels": {"lr": 1e-6 if ipc == 50 else _scaled_lr(5e-3, ipc, 64, 32)},
        "update": {"num_images": 1000, "batch_size": 64},
    }


def _imagenet(ipc: int, num_classes: int) -> Preset:
    """ImageNet-10 and ImageNet-100, 224 px: ResNetAP-10, factor 3."""
    hundred = num_classes == 100
    training = {"lr": 0.1, "weight_decay": 1e-4} if hundred else {"lr": 0.01, "weight_decay": 5e-4}
    warmup_epochs = 5 if hundred else 10
    return {
        "ipc": ipc,
        "factor": 3,
        "decode": "bound" if ipc >= 20 else "single",
        "outer_steps": 500,
        "network": {"name": "resnetap10", "options": {"norm": "instance"}},
        "initialisation": {"warmup_epochs": warmup_epochs},
        "matching": {"distance": "l1"},
        "pixels": {"lr": _scaled_lr(1e-3 if hundred else 3e-3, ipc, 224, 224)},
        "update": {"num_images": 500, "warmup_epochs": warmup_epochs, "cutmix_probability": 1.0, **training},
        "evaluation": {
            "epochs": _imagenet_epochs(ipc * 9, num_classes),
            "batch_size": 128 if hundred else 64,
            "cutmix_probability": 1.0,
            "augmentation": "flip",
            "random_resized_crop": True,
            **training,
        },
    }


def _imagenet_epochs(decoded_per_class: int, num_classes: int) -> int:
    """IDC's evaluation epochs by decoded images per class; two thirds of them, in hundreds, for 100 classes."""
    table = ((1, 3000), (10, 2000), (50, 1500), (200, 1000), (500, 500))
    epochs = next((epochs for most, epochs in table if decoded_per_class <= most), 300)
    return epochs * 2 // 3 // 100 * 100 if num_classes == 100 else epochs


def _smoke() -> Preset:
    """Digits in under a minute on two CPU cores: shows that everything works, not how well it can."""
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


PRESETS: dict[str, Callable[[], Preset]] = {
    "smoke": _smoke,
    **{f"cifar10-ipc{ipc}": partial(_small, ipc) for ipc in (1, 10, 50)},
    **{f"cifar100-ipc{ipc}": partial(_small, ipc) for ipc in (1, 10, 20, 50)},
    **{f"svhn-ipc{ipc}": partial(_small, ipc, num_images=500, flip=False) for ipc in (1, 10, 50)},
    **{f"mnist-ipc{ipc}": partial(_mnist, ipc) for ipc in (1, 10, 50)},
    **{f"fashion-mnist-ipc{ipc}": partial(_small, ipc, lr=1e-4, distance="l1", num_images=500) for ipc in (1, 10, 50)},
    **{f"tiny-imagenet-ipc{ipc}": partial(_tiny_imagenet, ipc) for ipc in (1, 10, 50)},
    **{f"imagenet10-ipc{ipc}": partial(_imagenet, ipc, 10) for ipc in (10, 20)},
    **{f"imagenet100-ipc{ipc}": partial(_imagenet, ipc, 100) for ipc in (10, 20)},
}
"""Factories of plain values, by name; an unset value has its default of `schema.py`."""
