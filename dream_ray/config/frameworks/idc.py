"""IDC: gradients of networks that are trained on real data, and images that are mosaics.

Source: IDC (Kim et al., ICML 2022, arXiv 2205.14959) and the settings of its authors' code, for the argument
`--reproduce`. DREAM and DREAM+ share most of them (`dream.py`), with larger batches.
"""

from collections.abc import Mapping

from dream_ray.config.frameworks import data_sets
from dream_ray.config.frameworks.base import Family, Framework, convnet, scales_of
from dream_ray.config.frameworks.origins import ByScale, Layer, Origin, Scale, Settings, scaled_rate

_CODE = Origin("published code", "IDC, --reproduce")

_IDC: Settings = {
    "outer_steps": 2000,
    "inner_steps": 100,
    "batch_synthetic_max": 128,
    "decode": "single",
    "initialisation": {"strategy": "random"},
    "selection": {"strategy": "random", "num_clusters": 64, "in_passes": True},
    "weights": {"feature": 0.0, "gradient": 1.0},
    "matching": {
        "objective": "bidirectional",
        "distance": "mse",
        "biases": False,
        "classifier": False,
        "augmentation": "color_crop_cutout",
    },
    "pixels": {"lr": scaled_rate(5e-3), "momentum": 0.5, "coupling": "sequential", "space": "unit"},
    "source": {"kind": "real"},
    "update": {
        "warmup_epochs": 0,
        "epochs": 1,
        "num_images": 2000,
        "batch_size": 64,
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "cutmix_probability": 0.5,
        "augmentation": "color_crop",
    },
    "evaluation": {
        "epochs": 1000,
        "batch_size": 64,
        "lr": 0.01,
        "lr_decay": 0.2,
        "lr_milestones": [2 / 3, 5 / 6],
        "restart_momentum": False,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "cutmix_probability": 0.5,
        "augmentation": "color_crop_flip_scale_rotate",
        "random_resized_crop": False,
    },
}
LAYER = Layer(_CODE, _IDC)
USUAL = Scale(10, 2)
_NO_FLIP = "color_crop_scale_rotate"


def _if_mosaics(then: object, otherwise: object, rule: str) -> ByScale:
    return ByScale(lambda scale: then if scale.factor > 1 else otherwise, rule)


_SMALL: dict[str, Settings] = {
    "cifar10": data_sets.CIFAR10,
    "cifar100": data_sets.CIFAR10,
    "svhn": {
        **data_sets.SVHN,
        "update": {"num_images": 500},
        "evaluation": {
            "augmentation": _NO_FLIP,
            "cutmix_probability": ByScale(
                lambda scale: 0.0 if scale == Scale(1, 1) else 0.5, "no CutMix at 1 image per class and factor 1"
            ),
        },
    },
    "mnist": {
        **data_sets.MNIST,
        "pixels": {"lr": scaled_rate(1e-4)},
        "matching": {
            "distance": "l1",
            # Half a digit looks like another digit.
            "augmentation": _if_mosaics("color_crop", "color_crop_cutout", "no cutout of mosaics"),
        },
        "update": {"num_images": 500, "cutmix_probability": _if_mosaics(0.0, 0.5, "no CutMix of mosaics")},
        "evaluation": {
            "augmentation": _NO_FLIP,
            "cutmix_probability": _if_mosaics(0.0, 0.5, "no CutMix of mosaics"),
        },
    },
    "fashion-mnist": {
        **data_sets.FASHION_MNIST,
        "pixels": {"lr": scaled_rate(1e-4, side=28, base_side=32)},
        "matching": {"distance": "l1"},
        "update": {"num_images": 500},
    },
}
"""Sets of 28 and 32 px by name. The side at which a rate is not scaled is 28 for MNIST and 32 for the others."""


def _epochs(num_classes: int) -> ByScale:
    """Returns the epochs of an evaluation on ImageNet by the decoded images of a class, n."""
    least = {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500}

    def at(scale: Scale) -> int:
        decoded = scale.ipc * scale.factor**2
        epochs = next((epochs for most, epochs in least.items() if decoded <= most), 300)
        return epochs if num_classes < 100 else 2 * epochs // 300 * 100

    known = ", ".join(f"{epochs} up to n = {most}" for most, epochs in least.items())
    fewer = ", of which two thirds in hundreds" if num_classes >= 100 else ""
    return ByScale(at, f"{known}, else 300, with n = ipc * factor^2{fewer}")


def _imagenet(num_classes: int) -> Settings:
    """ImageNet-10 and ImageNet-100, 224 px: ResNetAP-10, factor 3, and a pool of networks for 100 classes."""
    hundred = num_classes == 100
    training = {"lr": 0.1, "weight_decay": 1e-4} if hundred else {"lr": 0.01, "weight_decay": 5e-4}
    warmup_epochs = 5 if hundred else 10
    return {
        **data_sets.IMAGENET,
        "decode": ByScale(
            lambda scale: "bound" if scale.ipc >= 20 and scale.factor >= 3 else "single",
            "bound from 20 images per class and factor 3 on",
        ),
        "outer_steps": 500,
        "network": {"name": "resnetap10", "options": {"norm": "instance"}},
        "source": {"kind": "pool", "pool_size": 10} if hundred else {},
        "initialisation": {"warmup_epochs": warmup_epochs},
        "matching": {"distance": "l1"},
        "pixels": {"lr": scaled_rate(1e-3 if hundred else 3e-3)},
        "update": {"num_images": 500, "warmup_epochs": warmup_epochs, "cutmix_probability": 1.0, **training}
        | ({"batch_size": 128} if hundred else {}),
        "evaluation": {
            "epochs": _epochs(num_classes),
            "batch_size": 128 if hundred else 64,
            "cutmix_probability": 1.0,
            "augmentation": "flip",
            "random_resized_crop": True,
            **training,
        },
    }


def families(small: Origin, imagenet: Origin) -> Mapping[str, Family]:
    """Returns the settings that IDC, DREAM and DREAM+ share, by data set.

    Args:
        small: Origin of the sets of 28 and 32 px.
        imagenet: Origin of ImageNet-10 and ImageNet-100.
    """
    ipcs = {"cifar100": (1, 10, 20, 50)}
    found = {
        data: Family(
            (Layer(small, {"network": convnet(), **settings}),), scales_of(data, ipcs.get(data, (1, 10, 50)), 2)
        )
        for data, settings in _SMALL.items()
    }
    for num_classes in (10, 100):
        data = f"imagenet{num_classes}"
        found[data] = Family((Layer(imagenet, _imagenet(num_classes)),), scales_of(data, (10, 20), 3))
    return found


_SHARED = families(_CODE, _CODE)
_CIFAR10 = _SHARED["cifar10"]

IDC = Framework(
    "Information-intensive dataset condensation (IDC)",
    "Kim et al., ICML 2022, arXiv 2205.14959",
    (LAYER,),
    # IDC-I stores plain images.
    {**_SHARED, "cifar10": Family(_CIFAR10.layers, {**_CIFAR10.scales, **scales_of("i-cifar10", (1, 10, 50), 1)})},
    USUAL,
)
