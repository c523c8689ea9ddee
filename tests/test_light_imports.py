"""What is imported where nothing is computed: reading settings, stores and runs does without PyTorch and Ray."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "ray", "sklearn", "matplotlib", "optuna")

LIGHT_MODULES = (
    "dream_ray",
    "dream_ray.config",
    "dream_ray.data.store.store",
    "dream_ray.data.ingest",
    "dream_ray.engine.run.spec",
    "dream_ray.engine.run.directory",
    "dream_ray.engine.progress.status",
    "dream_ray.distributed.prefetch.coordinator",
    "dream_ray.api",
    "dream_ray.sweeps.directory",
)


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_module_imports_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [], f"import {module} also imports {done.stdout.strip()}"


def test_reading_a_sweep_imports_no_torch() -> None:
    code = "import sys, dream_ray.sweeps.results; print('torch' in sys.modules or 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["False"], done.stderr
