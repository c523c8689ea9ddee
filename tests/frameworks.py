"""Tiny runs of every framework, for the contract that all of them keep."""

from typing import Any

from dream_ray.config.frameworks import overlay

Settings = dict[str, Any]

_TINY: Settings = {
    "ipc": 1,
    "outer_steps": 2,
    "inner_steps": 4,
    "checkpoint_every": 2,
    "network": {"name": "convnet", "options": {"depth": 2, "width": 4}},
    "selection": {"num_clusters": 6, "interval": 2, "max_steps": 3, "restart_steps": 1},
    "initialisation": {"warmup_epochs": 1},
    "update": {"num_images": 32, "batch_size": 16},
    "evaluation": {"quick_epochs": 2, "whole_set_epochs": 10, "epochs": 3},
}
_ON_SYNTHETIC: Settings = {"update": {"num_images": None, "epochs": 2, "batch_size": 4}}

TINY: dict[str, Settings] = {
    "dc": _ON_SYNTHETIC,
    "dsa": _ON_SYNTHETIC,
    "dm": {},
    "idc": {},
    "dream": {},
    "dream_plus": {},
    "cim": {"pixels": {"lr": 0.01}, "source": {"allow_weak_models": True}},
    "statistics": {
        "outer_steps": 8,
        "inner_steps": 1,
        "network": {"options": {"norm": "batch"}},
        "source": {"allow_weak_models": True},
    },
    "mtt": {
        "update": {"num_images": None},
        "pixels": {"lr": 0.01},
        "trajectory": {
            "num_experts": 2,
            "expert_steps": 1,
            "max_start": 3,
            "student_steps": 3,
            "student_batch": 6,
            "segments": 3,
            "step_size_lr": 1e-6,
        },
    },
}
"""What a framework's run needs to be tiny besides what all of them need; a framework without an entry needs nothing."""


def tiny_run(framework: str, strategy: str) -> Settings:
    """Returns settings of a run of eight steps on the digits."""
    start = "representative" if strategy == "representative" else "random"
    chosen = {"framework": framework, "selection": {"strategy": strategy}, "initialisation": {"strategy": start}}
    return overlay(overlay(_TINY, TINY.get(framework, {})), chosen)
