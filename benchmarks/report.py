"""The provenance of every benchmark result: hardware, threads, versions, commit and command."""

import json
import math
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from dream_ray.engine.run.environment import describe_environment, resolve_device

_CONFIDENCE = 0.95
RESULTS = Path(__file__).parent / "results"


def provenance(arguments: list[str], device: str = "cpu") -> dict[str, Any]:
    """Returns hardware, PyTorch threads, versions, commit (None outside a repository), command and date."""
    script = Path(sys.argv[0])
    module = script.parent.name if script.stem == "__main__" else script.stem
    return {
        **describe_environment(resolve_device(device)),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "commit": _commit(),
        "command": shlex.join(["python", "-m", f"benchmarks.{module}", *arguments]),
        "date": time.strftime("%Y-%m-%d"),
    }


def _commit() -> str | None:
    """Returns the commit of the working tree; None if it is no repository, or git is missing."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=RESULTS.parent).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def median_interval(values: Sequence[float]) -> dict[str, float]:
    """Returns the median with its 95 % confidence interval from order statistics, which assumes no distribution.

    Fewer than six values give their range, whose confidence is lower (five: 94 %).
    """
    ordered, n = sorted(values), len(values)
    # The median lies below the k-th smallest value with the probability that at most k - 1 of n coins show heads.
    outside, skipped = 2 / 2**n, 0
    while outside + 2 * math.comb(n, skipped + 1) / 2**n <= 1 - _CONFIDENCE:
        skipped += 1
        outside += 2 * math.comb(n, skipped) / 2**n
    return {"median": statistics.median(ordered), "low": ordered[skipped], "high": ordered[-1 - skipped], "n": n}


def write_result(name: str, result: dict[str, Any], directory: Path = RESULTS) -> Path:
    """Writes a result as JSON into a directory and returns its path."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def read_result(name: str) -> dict[str, Any]:
    """Returns the committed result of a benchmark."""
    result: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return result
