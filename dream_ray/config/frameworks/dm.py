"""DM: mean features of a fresh random network per step.

Source: DM (Zhao & Bilen, WACV 2023, arXiv 2110.04181) and the settings of its authors' code. Its iterations are all
alike; here a hundred of them form an outer step.
"""

from dream_ray.config.frameworks.base import ONE_OF_ALL, Framework, Settings, convnet, evaluation

_DM: Settings = {
    "outer_steps": 200,
    "factor": 1,
    "initialisation": {"strategy": "random"},
    "selection": {"strategy": "random", "num_clusters": 256, "in_passes": False},
    "weights": {"feature": 1.0, "gradient": 0.0},
    "matching": {"augmentation": ONE_OF_ALL},
    "pixels": {"lr": 1.0, "coupling": "joint", "space": "normalised"},
    "source": {"kind": "random"},
    "evaluation": evaluation(epochs=1000, augmentation=ONE_OF_ALL),
}


DM = Framework(
    "Distribution matching (DM)",
    "Zhao & Bilen, WACV 2023, arXiv 2110.04181",
    _DM,
    {
        f"{data}-ipc{ipc}": {"ipc": ipc, "network": convnet(depth)}
        for data, depth in (("cifar10", 3), ("cifar100", 3), ("tiny-imagenet", 4))
        for ipc in (1, 10, 50)
    },
)
