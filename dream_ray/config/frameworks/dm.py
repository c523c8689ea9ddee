"""DM: mean features of a fresh random network per step.

Source: DM (Zhao & Bilen, WACV 2023, arXiv 2110.04181) and the settings of its authors' code. Its iterations are all
alike; here a hundred of them form an outer step.
"""

from dream_ray.config.frameworks import data_sets
from dream_ray.config.frameworks.base import (
    DC_CODE,
    ONE_OF_ALL,
    ONE_OF_ALL_FOR_DIGITS,
    Family,
    Framework,
    convnet,
    evaluation,
    scales_of,
)
from dream_ray.config.frameworks.origins import Layer, Origin, Settings
from dream_ray.config.nested import overlay

_SAME = Origin("by rule", "as DM's other sets; its paper has no results on this one")

_DM: Settings = {
    "outer_steps": 200,
    "inner_steps": 100,
    "initialisation": {"strategy": "random"},
    "selection": {"strategy": "random", "num_clusters": 256, "in_passes": False},
    "weights": {"feature": 1.0, "gradient": 0.0},
    "matching": {"objective": "bidirectional", "distance": "mse", "augmentation": ONE_OF_ALL},
    "pixels": {"lr": 1.0, "momentum": 0.5, "coupling": "joint", "space": "normalised"},
    "source": {"kind": "random"},
    "evaluation": evaluation(epochs=1000, augmentation=ONE_OF_ALL),
}
_DIGITS: Settings = {
    "matching": {"augmentation": ONE_OF_ALL_FOR_DIGITS},
    "evaluation": {"augmentation": ONE_OF_ALL_FOR_DIGITS},
}


def _family(data: str, origin: Origin, *settings: Settings, depth: int = 3) -> Family:
    stated: Settings = {"network": convnet(depth)}
    for more in settings:
        stated = overlay(stated, more)
    return Family((Layer(origin, stated),), scales_of(data, (1, 10, 50), 1))


DM = Framework(
    "Distribution matching (DM)",
    "Zhao & Bilen, WACV 2023, arXiv 2110.04181",
    (Layer(DC_CODE, _DM),),
    {
        "cifar10": _family("cifar10", DC_CODE, data_sets.CIFAR10),
        "cifar100": _family("cifar100", DC_CODE, data_sets.CIFAR100),
        "tiny-imagenet": _family("tiny-imagenet", DC_CODE, data_sets.IMAGENET, depth=4),
        "mnist": _family("mnist", DC_CODE, data_sets.MNIST, _DIGITS),
        "fashion-mnist": _family("fashion-mnist", _SAME, data_sets.FASHION_MNIST),
        "svhn": _family("svhn", _SAME, data_sets.SVHN, _DIGITS),
    },
    preset_name="dm-{scale}",
)
