"""MTT: the end point of a network that is trained on the synthetic set.

Source: MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932). The rows are those of the commands that DC-BENCH (Cui et
al., NeurIPS 2022, arXiv 2207.09639; `methods/tm/readme.md` of its repository) lists as provided by MTT's author. Its
5,000 iterations are all alike; here a hundred of them form an outer step.
"""

from functools import partial
from typing import NamedTuple

from dream_ray.config.frameworks.base import Framework, Settings
from dream_ray.config.frameworks.common import ONE_OF_ALL, convnet, evaluation

_MTT: Settings = {
    "outer_steps": 50,
    "factor": 1,
    "initialisation": {"strategy": "random"},
    "selection": {"strategy": "random", "num_clusters": 128},
    "matching": {"objective": "trajectory", "augmentation": ONE_OF_ALL},
    "pixels": {"lr": 1000.0, "coupling": "joint", "space": "normalised"},
    "source": {"kind": "expert"},
    "update": {
        "warmup_epochs": 0,
        "num_images": None,
        "batch_size": 256,
        "momentum": 0.0,
        "weight_decay": 0.0,
        "cutmix_probability": 0.0,
        "augmentation": ONE_OF_ALL,
    },
    "evaluation": {"lr": None, **evaluation(epochs=1000, augmentation=ONE_OF_ALL)},
}


class _Row(NamedTuple):
    """A published setting; `student_batch` None is the whole set."""

    student_steps: int
    expert_steps: int
    max_start: int
    pixel_lr: float
    step_size_lr: float
    step_size: float
    zca: bool
    student_batch: int | None = None


_ROWS = {
    ("cifar10", 1): _Row(50, 2, 2, 1e2, 1e-7, 1e-2, zca=True),
    ("cifar10", 10): _Row(30, 2, 20, 1e2, 1e-5, 1e-3, zca=True),
    ("cifar10", 50): _Row(30, 2, 40, 1e3, 1e-5, 1e-3, zca=False),
    ("cifar100", 1): _Row(20, 3, 20, 1e3, 1e-5, 1e-2, zca=True),
    ("cifar100", 10): _Row(20, 2, 20, 1e3, 1e-5, 1e-2, zca=False),
    ("cifar100", 50): _Row(80, 2, 40, 1e3, 1e-5, 1e-2, zca=True, student_batch=125),
    ("tiny-imagenet", 1): _Row(10, 2, 10, 1e4, 1e-4, 1e-2, zca=False),
    ("tiny-imagenet", 10): _Row(20, 2, 40, 1e4, 1e-4, 1e-2, zca=False, student_batch=200),
    ("tiny-imagenet", 50): _Row(20, 2, 40, 1e4, 1e-4, 1e-2, zca=False, student_batch=300),
}


def _published(data: str, ipc: int) -> Settings:
    row = _ROWS[data, ipc]
    return {
        "framework": "mtt",
        "ipc": ipc,
        "network": convnet(4 if data == "tiny-imagenet" else 3),
        "data": {"zca": row.zca},
        "pixels": {"lr": row.pixel_lr},
        "trajectory": {
            "student_steps": row.student_steps,
            "expert_steps": row.expert_steps,
            "max_start": row.max_start,
            "student_batch": row.student_batch,
            "step_size": row.step_size,
            "step_size_lr": row.step_size_lr,
        },
    }


MTT = Framework(
    "Matching training trajectories (MTT)",
    "Cazenavette et al., CVPR 2022, arXiv 2203.11932",
    _MTT,
    {f"{data}-ipc{ipc}": partial(_published, data, ipc) for data, ipc in _ROWS},
)
