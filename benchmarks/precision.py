"""Accuracy of runs whose networks compute in bfloat16, against float32 at equal seeds.

    DREAM_RAY_DATA=... python -m benchmarks.precision --seeds 6 --scratch DIR

The runs are those of the reduced setting of `benchmarks.frameworks`, with DREAM+ and representative selection. Each
result is kept in DIR, so an interrupted measurement continues. A gain counts only if its 95 % interval excludes 0.
"""

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import frameworks
from benchmarks.report import provenance, write_result
from dream_ray.core.intervals import half_width

PRECISIONS = ("float32", "bfloat16")


def measure(scratch: Path, seeds: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the runs of every precision, by seed; skips those whose result is there."""
    options = frameworks.parser().parse_args([])
    found: dict[str, list[dict[str, Any]]] = {precision: [] for precision in PRECISIONS}
    for seed in range(seeds):
        for precision in PRECISIONS:
            name = f"{precision}-{seed}"
            result = scratch / f"{name}.json"
            if not result.exists():
                store = frameworks.store_of(scratch, options)
                shutil.rmtree(scratch / name, ignore_errors=True)  # of an interrupted run
                run = frameworks.run_one(
                    "dream_plus", "representative", seed, store, str(scratch / name), options, precision=precision
                )
                result.write_text(json.dumps(run))
                print(name, run["accuracies"][-1], file=sys.stderr, flush=True)
            found[precision].append(json.loads(result.read_text()))
    return found


def summarise(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Returns final accuracies in percent, CPU seconds, and what bfloat16 adds to the accuracy."""
    accuracies = {precision: [run["accuracies"][-1] for run in runs] for precision, runs in found.items()}
    added = [halved - exact for exact, halved in zip(*accuracies.values(), strict=True)]
    return {
        "accuracies": accuracies,
        "cpu_s": {precision: statistics.median(run["cpu_s"] for run in runs) for precision, runs in found.items()},
        "bfloat16_adds": statistics.mean(added),
        "ci95": half_width(added),
        "n": len(added),
    }


def main() -> None:
    """Measures and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--scratch", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    summary = summarise(measure(arguments.scratch, arguments.seeds))
    write_result("precision-cpu", {**provenance(["--seeds", str(arguments.seeds)]), **summary})


if __name__ == "__main__":
    main()
