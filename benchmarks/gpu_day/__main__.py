"""What to measure where a GPU is at hand for fifteen minutes; not run on a GPU yet.

    DREAM_RAY_DATA=DIR python -m benchmarks.gpu_day --budget 590

One process, without Ray and Optuna. Six parts, each within its share of the budget:

- rates: the device, rates of matrix products and copies, cost of a launch;
- exactness: one step on given inputs against the same in float64 on the CPU, without TF32 and with it;
- variants: the parts of an inner step of `cifar10-ipc10` by variant, a profile of the fastest, the floor;
- large images: time and memory of the steps of ResNetAP-10 at 224 px, against the plan;
- distillation: CIFAR-10 by the fastest variant, from DIR, with the images after 5, 10 and 15 outer steps;
- evaluation: networks that are trained on these images.

Each measurement appends a row to `rows.jsonl` in `--work` and prints it. It states what was measured, or why nothing
was. After a cut, the same call takes the measurements that are missing, and the run goes on at its last checkpoint; a
new directory starts again. At the end, all rows are written to `gpu_day-<device>.json`.

`--scale tiny` is a dry run of some seconds on a CPU; its numbers mean nothing.
"""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.gpu_day import distillation, exactness, large_images, rates, variants
from benchmarks.gpu_day.day import Day, Measurements, ends_of_parts
from benchmarks.gpu_day.scale import SCALES
from benchmarks.report import RESULTS, provenance, write_result
from dream_ray.engine.run.environment import describe_environment, resolve_device
from dream_ray.engine.run.process_memory import keep_freed_memory
from dream_ray.engine.run.spec import DEVICES

PARTS: dict[str, tuple[float, Callable[[Day], Measurements]]] = {
    rates.PART: (20, rates.measurements),
    exactness.PART: (40, exactness.measurements),
    variants.PART: (200, variants.measurements),
    large_images.PART: (60, large_images.measurements),
    distillation.PART: (200, distillation.measurements),
    distillation.EVALUATION: (40, distillation.evaluations),
}
"""Share of the budget, in any unit, and measurements of each part, in their order."""


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parses the command line."""
    data = os.environ.get("DREAM_RAY_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, required=True, help="seconds for all parts together")
    parser.add_argument("--data", type=Path, default=data and Path(data), help="directory of the CIFAR-10 files")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu_day"), help="directory of the rows and of the run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="directory of the JSON")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="default: all")
    parser.add_argument("--scale", choices=SCALES, default="published")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--commit", help="commit of the tree, where it is no repository")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is missing and writes the JSON."""
    started, options = monotonic(), parsed(arguments)
    keep_freed_memory()
    device = resolve_device(options.device)
    day = Day(device, SCALES[options.scale], options.work, options.data)
    parts = {name: PARTS[name] for name in PARTS if name in options.parts}
    ends = ends_of_parts([share for share, _ in parts.values()], options.budget)
    for (name, (_, measurements)), end, begin in zip(parts.items(), ends, [0.0, *ends], strict=False):
        day.deadline = started + end
        day.run_part(name, measurements, end - begin)
    given = sys.argv[1:] if arguments is None else list(arguments)
    found: dict[str, Any] = provenance(given, device.type)
    found["commit"] = found["commit"] or options.commit
    name = re.sub(r"\W+", "-", describe_environment(device)["device_name"]).strip("-").lower()
    dry = "" if options.scale == "published" else f"-{options.scale}"
    found |= {"budget_s": options.budget, "rows": day.rows}
    print(write_result(f"gpu_day-{name}{dry}", found, options.results))


if __name__ == "__main__":
    main()
