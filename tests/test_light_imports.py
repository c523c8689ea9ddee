"""Reading settings, stores and runs imports neither PyTorch nor Ray."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "sklearn", "matplotlib", "optuna")

LIGHT_MODULES = (
    "dream_ray",
    "dream_ray.config",
    "dream_ray.sets",
    "dream_ray.data.store.store",
    "dream_ray.data.ingest",
    "dream_ray.engine.run.spec",
    "dream_ray.engine.run.directory",
    "dream_ray.engine.progress.status",
    "dream_ray.distributed.prefetch.coordinator",
    "dream_ray.api",
    "dream_ray.sweeps.directory",
    "dream_ray.experiments.file",
)

CONTROLLER_MODULES = tuple(
    f"dream_ray.distributed.{name}"
    for name in ("train.controller_callbacks", "train.gloo", "train.stoppable_trainer", "prefetch.coordinator_client")
)
"""Modules that the controller of Ray Train imports, before it starts the workers."""


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_module_imports_no_heavy_library(module: str) -> None:
    assert imported_with(module, HEAVY) == []


@pytest.mark.parametrize("module", CONTROLLER_MODULES)
def test_the_controller_of_ray_train_imports_no_torch(module: str) -> None:
    assert imported_with(module, ("torch", "sklearn", "optuna")) == []


def imported_with(module: str, libraries: tuple[str, ...]) -> list[str]:
    """Returns the libraries that a new process has imported after a module."""
    code = f"import sys, {module}; print(*(name for name in {libraries} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_reading_a_sweep_imports_no_torch() -> None:
    assert imported_with("dream_ray.sweeps.results", ("torch", "ray")) == []
