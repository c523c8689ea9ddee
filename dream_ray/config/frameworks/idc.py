"""IDC: gradients of networks that are trained on real data, and images that are mosaics.

Source: IDC (Kim et al., ICML 2022, arXiv 2205.14959) and the settings of its authors' code, for the argument
`--reproduce`. DREAM and DREAM+ share most of them (`dream.py`), with larger batches.
"""

from dream_ray.config.frameworks import data_sets
from dream_ray.config.frameworks.base import Family, Framework, convnet, scales_of
from dream_ray.config.frameworks.origins import ByScale, Layer, Origin, Scale, Settings, scaled_rate
from dream_ray.config.nested import overlay

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
        "pixels": {"lr": scaled_rate(1e-4, side=28, base_side=28)},
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


_EPOCHS_BY_DECODED = {1: 3000, 10: 2000, 50: 1500, 200: 1000, 500: 500}
"""Epochs of an evaluation on ImageNet by the largest number of decoded images of a class; above, 300."""


def _epochs(scale: Scale) -> int:
    decoded = scale.ipc * scale.factor**2
    return next((epochs for most, epochs in _EPOCHS_BY_DECODED.items() if decoded <= most), 300)


_BY_DECODED = (
    f"by the decoded images per class: {', '.join(f'{n}: {of}' for n, of in _EPOCHS_BY_DECODED.items())}, more: 300"
)
_IMAGENET10: Settings = {
    **data_sets.IMAGENET,
    "decode": ByScale(
        lambda scale: "bound" if scale.ipc >= 20 and scale.factor >= 3 else "single",
        "bound from 20 images per class and factor 3 on",
    ),
    "outer_steps": 500,
    "network": {"name": "resnetap10", "options": {"norm": "instance"}},
    "initialisation": {"warmup_epochs": 10},
    "matching": {"distance": "l1"},
    "pixels": {"lr": scaled_rate(3e-3, side=224, base_side=224)},
    "update": {"num_images": 500, "warmup_epochs": 10, "lr": 0.01, "weight_decay": 5e-4, "cutmix_probability": 1.0},
    "evaluation": {
        "epochs": ByScale(_epochs, _BY_DECODED),
        "batch_size": 64,
        "lr": 0.01,
        "weight_decay": 5e-4,
        "cutmix_probability": 1.0,
        "augmentation": "flip",
        "random_resized_crop": True,
    },
}
_IMAGENET100 = overlay(
    _IMAGENET10,
    {
        "source": {"kind": "pool", "pool_size": 10},
        "initialisation": {"warmup_epochs": 5},
        "pixels": {"lr": scaled_rate(1e-3, side=224, base_side=224)},
        "update": {"warmup_epochs": 5, "batch_size": 128, "lr": 0.1, "weight_decay": 1e-4},
        "evaluation": {
            "epochs": ByScale(lambda scale: 2 * _epochs(scale) // 300 * 100, f"two thirds, in hundreds, {_BY_DECODED}"),
            "batch_size": 128,
            "lr": 0.1,
            "weight_decay": 1e-4,
        },
    },
)


EVALUATIONS: dict[str, Settings] = {
    "imagenet10": _IMAGENET10["evaluation"],
    "imagenet100": _IMAGENET100["evaluation"],
}
"""How networks are trained on sets of ImageNet-10 and ImageNet-100."""


def families(small: Origin, imagenet: Origin) -> dict[str, Family]:
    """Returns the settings that IDC, DREAM and DREAM+ share, by data set.

    Args:
        small: Origin of the sets of 28 and 32 px.
        imagenet: Origin of ImageNet-10 and ImageNet-100.
    """
    ipcs = dict.fromkeys(_SMALL, (1, 10, 50)) | {"cifar100": (1, 10, 20, 50)}
    return {
        **{
            data: Family((Layer(small, {"network": convnet()}), Layer(small, settings)), scales_of(data, ipcs[data], 2))
            for data, settings in _SMALL.items()
        },
        **{
            data: Family((Layer(imagenet, settings),), scales_of(data, (10, 20), 3))
            for data, settings in (("imagenet10", _IMAGENET10), ("imagenet100", _IMAGENET100))
        },
    }


_SHARED = families(_CODE, _CODE)
_CIFAR10 = _SHARED["cifar10"]

IDC = Framework(
    "Information-intensive dataset condensation (IDC)",
    "Kim et al., ICML 2022, arXiv 2205.14959",
    (LAYER,),
    # IDC-I stores plain images.
    {**_SHARED, "cifar10": Family(_CIFAR10.layers, {**_CIFAR10.scales, **scales_of("i-cifar10", (1, 10, 50), 1)})},
    USUAL,
    "idc-{scale}",
)
