"""DC and DSA: gradients of networks that are trained on the synthetic set.

Sources: DC (Zhao et al., ICLR 2021, arXiv 2006.05929), DSA (Zhao & Bilen, ICML 2021, arXiv 2102.08259) and the settings
of their authors' code. Their outer loop is `inner_steps` here; their inner loop is `update.epochs`.
"""

from dream_ray.config.frameworks.base import ONE_OF_ALL, Framework, Settings, convnet, evaluation, overlay

_DC: Settings = {
    "outer_steps": 1000,
    "inner_steps": 10,
    "factor": 1,
    "initialisation": {"strategy": "noise"},
    "selection": {"strategy": "random", "num_clusters": 256, "in_passes": False},
    "weights": {"feature": 0.0, "gradient": 1.0},
    "matching": {"distance": "cosine", "classifier": True, "augmentation": "none"},
    "pixels": {"lr": 0.1, "coupling": "joint", "space": "normalised"},
    "source": {"kind": "synthetic"},
    "update": {
        "warmup_epochs": 0,
        "epochs": 50,
        "num_images": None,
        "batch_size": 256,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "cutmix_probability": 0.0,
        "augmentation": "none",
    },
    "evaluation": evaluation(epochs=300, augmentation="none"),
}

_DSA = overlay(
    _DC,
    {
        "initialisation": {"strategy": "random"},
        "matching": {"augmentation": ONE_OF_ALL},
        "update": {"augmentation": ONE_OF_ALL},
        "evaluation": evaluation(epochs=1000, augmentation=ONE_OF_ALL),
    },
)

_PRESETS: dict[str, Settings] = {
    f"{data}-ipc{ipc}": {"ipc": ipc, "inner_steps": matches, "network": convnet(), "update": {"epochs": epochs}}
    for data in ("cifar10", "cifar100")
    for ipc, matches, epochs in ((1, 1, 1), (10, 10, 50), (50, 50, 10))
}
"""Matches per network, and epochs on the synthetic set after each, depend on the images per class."""

DC = Framework("Dataset condensation (DC)", "Zhao et al., ICLR 2021, arXiv 2006.05929", _DC, _PRESETS)
DSA = Framework(
    "Differentiable Siamese augmentation (DSA)", "Zhao & Bilen, ICML 2021, arXiv 2102.08259", _DSA, _PRESETS
)
