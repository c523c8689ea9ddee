"""A profile of one outer step: a trace of torch's profiler, and the operations that took longest.

    python -m benchmarks.profile_outer_step --preset smoke --store runs/quickstart/store --out trace.json

Open the trace in https://ui.perfetto.dev or chrome://tracing. The run works in this process, without Ray, in a
temporary directory. Profiling slows it down, so only the shares of the operations are meaningful.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from torch.profiler import ProfilerActivity, profile

from dream_ray.config import load_config
from dream_ray.engine.backend import Producers
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.planning.plan import begin_run
from dream_ray.engine.run.environment import resolve_device
from dream_ray.engine.run.spec import RunSpec

NUM_ROWS = 15


def main(arguments: Sequence[str] | None = None) -> None:
    """Profiles one outer step and prints the longest operations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", help="published settings")
    parser.add_argument("--config", help="or a file of settings")
    parser.add_argument("--set", action="append", default=[], help="one setting on top, section.key=value")
    parser.add_argument("--store", required=True)
    parser.add_argument("--out", required=True, help="file of the trace, .json or .json.gz")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)

    config = load_config(preset=options.preset, file=options.config, assignments=[*options.set, "outer_steps=1"])
    device = resolve_device(options.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with tempfile.TemporaryDirectory() as directory:
        path = str(Path(directory, "run"))
        spec = RunSpec(
            config=config,
            store=options.store,
            out=path,
            compile="off",
            device=options.device,
            threads=options.threads,
            local=True,
            producers=0,
        )
        run = begin_run(spec, Producers())
        with profile(activities=activities) as profiler:
            LocalBackend().run_workers(run, spec)
    profiler.export_chrome_trace(options.out)
    order = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=NUM_ROWS, max_name_column_width=40))
    print(f"trace: {options.out}")


if __name__ == "__main__":
    main()
