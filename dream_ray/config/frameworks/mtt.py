"""MTT: the end point of a network that is trained on the synthetic set.

Source: MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932). The rows are those of the commands that DC-BENCH (Cui et
al., NeurIPS 2022, arXiv 2207.09639; `methods/tm/readme.md` of its repository) lists as provided by MTT's author. Its
5,000 iterations are all alike; here a hundred of them form an outer step.
"""

from dream_ray.config.frameworks.base import ONE_OF_ALL, Framework, Settings, convnet, evaluation

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


def _published(
    ipc: int,
    student_steps: int,
    expert_steps: int,
    max_start: int,
    pixel_lr: float,
    step_size_lr: float,
    step_size: float,
    *,
    zca: bool,
    student_batch: int | None = None,
    depth: int = 3,
) -> Settings:
    return {
        "ipc": ipc,
        "network": convnet(depth),
        "data": {"zca": zca},
        "pixels": {"lr": pixel_lr},
        "trajectory": {
            "student_steps": student_steps,
            "expert_steps": expert_steps,
            "max_start": max_start,
            "student_batch": student_batch,
            "step_size": step_size,
            "step_size_lr": step_size_lr,
        },
    }


MTT = Framework(
    "Matching training trajectories (MTT)",
    "Cazenavette et al., CVPR 2022, arXiv 2203.11932",
    _MTT,
    {
        "cifar10-ipc1": _published(1, 50, 2, 2, 1e2, 1e-7, 1e-2, zca=True),
        "cifar10-ipc10": _published(10, 30, 2, 20, 1e2, 1e-5, 1e-3, zca=True),
        "cifar10-ipc50": _published(50, 30, 2, 40, 1e3, 1e-5, 1e-3, zca=False),
        "cifar100-ipc1": _published(1, 20, 3, 20, 1e3, 1e-5, 1e-2, zca=True),
        "cifar100-ipc10": _published(10, 20, 2, 20, 1e3, 1e-5, 1e-2, zca=False),
        "cifar100-ipc50": _published(50, 80, 2, 40, 1e3, 1e-5, 1e-2, zca=True, student_batch=125),
        "tiny-imagenet-ipc1": _published(1, 10, 2, 10, 1e4, 1e-4, 1e-2, zca=False, depth=4),
        "tiny-imagenet-ipc10": _published(10, 20, 2, 40, 1e4, 1e-4, 1e-2, zca=False, depth=4, student_batch=200),
        "tiny-imagenet-ipc50": _published(50, 20, 2, 40, 1e4, 1e-4, 1e-2, zca=False, depth=4, student_batch=300),
    },
)
