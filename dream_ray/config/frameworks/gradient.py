"""DC and DSA: gradients of networks that are trained on the synthetic set.

Sources: DC (Zhao et al., ICLR 2021, arXiv 2006.05929), DSA (Zhao & Bilen, ICML 2021, arXiv 2102.08259) and the settings
of their authors' code. Their outer loop is `inner_steps` here; their inner loop is `update.epochs`.
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
from dream_ray.config.frameworks.origins import Layer, Scale, Settings, by_ipc
from dream_ray.config.nested import overlay

_LOOP: Settings = {
    "inner_steps": by_ipc(
        {1: 1, 10: 10, 20: 20, 30: 30, 40: 40, 50: 50}, lambda ipc: ipc, "a match per image of a class"
    ),
    "update": {
        "epochs": by_ipc(
            {1: 1, 10: 50, 20: 25, 30: 20, 40: 15, 50: 10}, lambda ipc: max(1, round(500 / ipc)), "500 / ipc epochs"
        )
    },
}
"""Matches per network, and epochs on the synthetic set after each. The code knows no other numbers of images."""
_COMMON: Settings = {
    "outer_steps": 1000,
    "selection": {"strategy": "random", "num_clusters": 256, "in_passes": False},
    "weights": {"feature": 0.0, "gradient": 1.0},
    "matching": {"objective": "bidirectional", "distance": "cosine", "biases": False, "classifier": True},
    "pixels": {"lr": 0.1, "momentum": 0.5, "coupling": "joint", "space": "normalised"},
    "source": {"kind": "synthetic"},
    "update": {
        "warmup_epochs": 0,
        "num_images": None,
        "batch_size": 256,
        "lr": 0.01,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "cutmix_probability": 0.0,
    },
}


def _augmented(augmentation: str) -> Settings:
    """Returns the settings of DSA's augmentation, which DC lacks."""
    return {
        "matching": {"augmentation": augmentation},
        "update": {"augmentation": augmentation},
        "evaluation": evaluation(epochs=1000, augmentation=augmentation),
    }


_DC = {
    "initialisation": {"strategy": "noise"},
    **overlay(_augmented("none"), {"evaluation": evaluation(epochs=300, augmentation="none")}),
}
_DSA = {"initialisation": {"strategy": "random"}, **_augmented(ONE_OF_ALL)}
_TRAINED_LONGER = {"evaluation": evaluation(epochs=1000, augmentation="crop_scale_rotate")}
"""DC's evaluation on MNIST, the one set whose evaluation it augments."""
_NO_RUNS = {Scale(50, 1): "the authors publish no run for CIFAR-100 at 50 images per class"}


def _framework(name: str, title: str, paper: str, settings: Settings, mnist: Settings, svhn: Settings) -> Framework:
    """Returns a framework whose settings depend on the data set for digits only."""
    more: dict[str, tuple[Settings, ...]] = {
        "cifar10": (data_sets.CIFAR10,),
        "cifar100": (data_sets.CIFAR100, _LOOP),
        "mnist": (data_sets.MNIST, mnist),
        "fashion-mnist": (data_sets.FASHION_MNIST,),
        "svhn": (data_sets.SVHN, svhn),
    }
    families = {}
    for data, stated in more.items():
        ours = _NO_RUNS if data == "cifar100" else {}
        layers = (Layer(DC_CODE, one, ours) for one in ({"network": convnet()}, *stated))
        families[data] = Family(tuple(layers), scales_of(data, (1, 10, 50), 1))
    common = tuple(Layer(DC_CODE, one) for one in (_COMMON, _LOOP, settings))
    return Framework(title, paper, common, families, preset_name=f"{name}-{{scale}}")


DC = _framework(
    "dc", "Dataset condensation (DC)", "Zhao et al., ICLR 2021, arXiv 2006.05929", _DC, mnist=_TRAINED_LONGER, svhn={}
)
DSA = _framework(
    "dsa",
    "Differentiable Siamese augmentation (DSA)",
    "Zhao & Bilen, ICML 2021, arXiv 2102.08259",
    _DSA,
    mnist=_augmented(ONE_OF_ALL_FOR_DIGITS),
    svhn=_augmented(ONE_OF_ALL_FOR_DIGITS),
)
