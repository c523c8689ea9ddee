"""MTT: the end point of a network that is trained on the synthetic set.

Source: MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932). The rows are those of the commands that DC-BENCH (Cui et
al., NeurIPS 2022, arXiv 2207.09639; `methods/tm/readme.md` of its repository) lists as provided by MTT's author. Its
5,000 iterations are all alike; here a hundred of them form an outer step.
"""

from dream_ray.config.frameworks import data_sets
from dream_ray.config.frameworks.base import ONE_OF_ALL, Family, Framework, convnet, evaluation, scales_of
from dream_ray.config.frameworks.origins import Layer, Origin, Scale, Settings, by_ipc
from dream_ray.config.nested import put

_CODE = Origin("published code", "MTT")
_COMMANDS = Origin("published", "commands of MTT's author, in DC-BENCH (arXiv 2207.09639)")
_OURS = Origin("ours", "the training images of an expert, if they are representative")

_MTT: Settings = {
    "outer_steps": 50,
    "inner_steps": 100,
    "initialisation": {"strategy": "random"},
    "selection": {"strategy": "random"},
    "matching": {"objective": "trajectory", "augmentation": ONE_OF_ALL},
    "pixels": {"lr": 1000.0, "momentum": 0.5, "coupling": "joint", "space": "normalised"},
    "source": {"kind": "expert"},
    "update": {
        "warmup_epochs": 0,
        "epochs": 1,
        "num_images": None,
        "batch_size": 256,
        "lr": 0.01,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "cutmix_probability": 0.0,
        "augmentation": ONE_OF_ALL,
    },
    "trajectory": {"num_experts": 100},
    "evaluation": {**evaluation(epochs=1000, augmentation=ONE_OF_ALL), "lr": None},
}
_COLUMNS = (
    *("trajectory.student_steps", "trajectory.expert_steps", "trajectory.max_start"),
    *("pixels.lr", "trajectory.step_size_lr", "trajectory.step_size", "data.zca", "trajectory.student_batch"),
)
_ROWS: dict[str, dict[int, tuple[float | bool | None, ...]]] = {
    "cifar10": {
        1: (50, 2, 2, 1e2, 1e-7, 1e-2, True, None),
        10: (30, 2, 20, 1e2, 1e-5, 1e-3, True, None),
        50: (30, 2, 40, 1e3, 1e-5, 1e-3, False, None),
    },
    "cifar100": {
        1: (20, 3, 20, 1e3, 1e-5, 1e-2, True, None),
        10: (20, 2, 20, 1e3, 1e-5, 1e-2, False, None),
        50: (80, 2, 40, 1e3, 1e-5, 1e-2, True, 125),
    },
    "tiny-imagenet": {
        1: (10, 2, 10, 1e4, 1e-4, 1e-2, False, None),
        10: (20, 2, 40, 1e4, 1e-4, 1e-2, False, 200),
        50: (20, 2, 40, 1e4, 1e-4, 1e-2, False, 300),
    },
}
"""Values of `_COLUMNS` by data set and images per class."""
_NO_NETWORK = "the command names no network; ConvNet-4 is that of the one for 50 images per class"


def _family(data: str, normalisation: Settings, *, depth: int = 3) -> Family:
    rows, stated = _ROWS[data], Settings()
    for path, values in zip(_COLUMNS, zip(*rows.values(), strict=True), strict=True):
        put(stated, path, by_ipc(dict(zip(rows, values, strict=True))))
    scales = scales_of(data, tuple(rows), 1)
    ours = {Scale(ipc, 1): _NO_NETWORK for ipc in (1, 10)} if data == "tiny-imagenet" else {}
    layers = Layer(_COMMANDS, {"network": convnet(depth)}, ours), Layer(_COMMANDS, stated), Layer(_CODE, normalisation)
    return Family(layers, scales)


MTT = Framework(
    "Matching training trajectories (MTT)",
    "Cazenavette et al., CVPR 2022, arXiv 2203.11932",
    (Layer(_CODE, _MTT), Layer(_OURS, {"selection": {"num_clusters": 128}})),
    {
        "cifar10": _family("cifar10", data_sets.CIFAR10),
        "cifar100": _family("cifar100", data_sets.CIFAR10),
        "tiny-imagenet": _family("tiny-imagenet", data_sets.IMAGENET, depth=4),
    },
    preset_name="mtt-{scale}",
)
