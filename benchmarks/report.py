"""The provenance of every benchmark result: hardware, threads, versions, commit and command."""

import json
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from dream_ray.engine.run.environment import describe_environment, resolve_device

RESULTS = Path(__file__).parent / "results"


def provenance(arguments: list[str], device: str = "cpu") -> dict[str, Any]:
    """Returns hardware, PyTorch threads, versions, commit, command and date of a measurement."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        **describe_environment(resolve_device(device)),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "commit": commit.stdout.strip(),
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *arguments]),
        "date": time.strftime("%Y-%m-%d"),
    }


def write_result(name: str, result: dict[str, Any]) -> Path:
    """Writes a result as JSON under benchmarks/results and returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def read_result(name: str) -> dict[str, Any]:
    """Returns the committed result of a benchmark."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result
