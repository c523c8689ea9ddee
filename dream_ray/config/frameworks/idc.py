"""IDC: gradients of networks that are trained on real data, and images that are mosaics.

Source: IDC (Kim et al., ICML 2022, arXiv 2205.14959) and the settings of its authors' code. DREAM and DREAM+ share most
of them (`dream.py`), with larger batches. `pixels.lr` is scaled by (ipc / 10) * (side / base side)^2.
"""

from dream_ray.config.frameworks.base import Framework, Settings, convnet, overlay

_IDC: Settings = {
    "outer_steps": 2000,
    "initialisation": {"strategy": "random"},
    "selection": {"strategy": "random", "num_clusters": 64},
    "weights": {"feature": 0.0, "gradient": 1.0},
    "update": {"warmup_epochs": 0, "batch_size": 64},
}


def scaled_lr(lr: float, ipc: int, side: int, base_side: int) -> float:
    """Converts a published pixel learning rate to `pixels.lr`."""
    return lr * (ipc / 10) * (side / base_side) ** 2


def small(ipc: int, *, lr: float = 5e-3, distance: str = "mse", num_images: int = 2000, flip: bool = True) -> Settings:
    """ConvNet-3 sets of 28 and 32 px: CIFAR, SVHN, MNIST, FashionMNIST. Their side is their base side."""
    operations = "color_crop_flip_scale_rotate" if flip else "color_crop_scale_rotate"
    return {
        "ipc": ipc,
        "factor": 2,
        "network": convnet(),
        "matching": {"distance": distance},
        "pixels": {"lr": scaled_lr(lr, ipc, 1, 1)},
        "update": {"num_images": num_images},
        "evaluation": {"augmentation": operations},
    }


def mnist(ipc: int) -> Settings:
    """MNIST with factor 2, without cutout and CutMix, because half a digit looks like another digit."""
    without = {
        "matching": {"augmentation": "color_crop"},
        "update": {"cutmix_probability": 0.0},
        "evaluation": {"cutmix_probability": 0.0},
    }
    return overlay(small(ipc, lr=1e-4, distance="l1", num_images=500, flip=False), without)


def imagenet(ipc: int, num_classes: int) -> Settings:
    """ImageNet-10 and ImageNet-100, 224 px: ResNetAP-10, factor 3, and a pool of networks for 100 classes."""
    hundred = num_classes == 100
    training = {"lr": 0.1, "weight_decay": 1e-4} if hundred else {"lr": 0.01, "weight_decay": 5e-4}
    warmup_epochs = 5 if hundred else 10
    return {
        "ipc": ipc,
        "factor": 3,
        "decode": "bound" if ipc >= 20 else "single",
        "outer_steps": 500,
        "network": {"name": "resnetap10", "options": {"norm": "instance"}},
        "source": {"kind": "pool", "pool_size": 10} if hundred else {},
        "initialisation": {"warmup_epochs": warmup_epochs},
        "matching": {"distance": "l1"},
        "pixels": {"lr": scaled_lr(1e-3 if hundred else 3e-3, ipc, 224, 224)},
        "update": {"num_images": 500, "warmup_epochs": warmup_epochs, "cutmix_probability": 1.0, **training},
        "evaluation": {
            # 1000 for 51 to 200 decoded images per class; for 100 classes two thirds of them, in hundreds.
            "epochs": 600 if hundred else 1000,
            "batch_size": 128 if hundred else 64,
            "cutmix_probability": 1.0,
            "augmentation": "flip",
            "random_resized_crop": True,
            **training,
        },
    }


_IMAGENET100 = {f"imagenet100-ipc{ipc}": imagenet(ipc, 100) for ipc in (10, 20)}

PUBLISHED: dict[str, Settings] = {
    **{f"cifar10-ipc{ipc}": small(ipc) for ipc in (1, 10, 50)},
    **{f"cifar100-ipc{ipc}": small(ipc) for ipc in (1, 10, 20, 50)},
    **{f"svhn-ipc{ipc}": small(ipc, num_images=500, flip=False) for ipc in (1, 10, 50)},
    **{f"mnist-ipc{ipc}": mnist(ipc) for ipc in (1, 10, 50)},
    **{f"fashion-mnist-ipc{ipc}": small(ipc, lr=1e-4, distance="l1", num_images=500) for ipc in (1, 10, 50)},
    **{f"imagenet10-ipc{ipc}": imagenet(ipc, 10) for ipc in (10, 20)},
    **_IMAGENET100,
}
"""Settings that IDC, DREAM and DREAM+ share, by data set and images per class."""

_LARGE_BATCHES: Settings = {"selection": {"num_clusters": 128}, "update": {"batch_size": 128}}

IDC = Framework(
    "Information-intensive dataset condensation (IDC)",
    "Kim et al., ICML 2022, arXiv 2205.14959",
    _IDC,
    {**PUBLISHED, **{name: overlay(settings, _LARGE_BATCHES) for name, settings in _IMAGENET100.items()}},
)
