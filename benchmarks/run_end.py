"""Memory of the end of a large run: of its finish, of the resume of a finished run, and of the start of an evaluation.

    python -m benchmarks.run_end [--folder DIR]

The run has 1,000 classes of 10 images of 224 px and the settings of a preset. It is not distilled: its checkpoint holds
random pixels and momentum from keyed streams, which hardly compress, and its metrics are random. The checkpoint of
step 0 is a link to the last one, so both are read and written as two, and take the disk of one. Its store is a manifest
without images. The program prints the disk that it needs in DIR before it writes, and deletes what it wrote.

Each phase has its own process, which samples its anonymous memory (RssAnon). The peak of the resident memory includes
the pages of mapped files, which the system drops if memory is short.

- finish: everything after the last step.
- resume: `dream_ray.resume` of the finished run.
- evaluation: the images of a task of `dream_ray.evaluate` up to the first batch of a network.
- dataset: `dream_ray.load_synthetic` and its first item.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

import dream_ray
from benchmarks.processes import anonymous_peak, status_bytes
from benchmarks.report import provenance, write_result
from benchmarks.scaling import random_store
from dream_ray.config import Config, load_config
from dream_ray.core import rng
from dream_ray.core.placement import place_classes
from dream_ray.engine.evaluation.tasks import distilled_task, training_data
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.run.directory import Run, open_run
from dream_ray.engine.run.lifecycle import create_run, finish_run
from dream_ray.engine.run.process_memory import keep_freed_memory
from dream_ray.engine.run.spec import RunSpec

PRESET = "imagenet100-ipc10"
NUM_CLASSES, SIDE, SHARDS = 1000, 224, 20
CPU = torch.device("cpu")


def make_run(folder: Path, config: Config, num_classes: int, side: int, num_shards: int, metric_steps: int = 0) -> Run:
    """Writes a run of random images that is ready to be finished.

    Args:
        folder: Directory for the run and its store.
        config: Its settings.
        num_classes: Number of classes.
        side: Height and width of the images.
        num_shards: Number of files of a checkpoint.
        metric_steps: Logged steps.
    """
    folder.mkdir(exist_ok=True)
    store = str(folder / "store")
    random_store(num_classes, config.ipc * config.factor**2, side).manifest.write(store)
    spec = RunSpec(config=config, store=store, out=str(folder / "run"), compile="off", device="cpu", local=True)
    run = create_run(spec, CPU)
    checkpoints, last = run.checkpoints(), config.total_steps
    for shard, labels in enumerate(place_classes([1.0] * num_classes, num_shards)):
        classes = {label: _random_class(label, (config.ipc, 3, side, side)) for label in labels}
        checkpoints.save(RunState(config.outer_steps, 0, classes), step=last, shard=shard, num_shards=num_shards)
        _write_metrics(Path(run.file("metrics")), labels, shard, num_shards, metric_steps)
    first = Path(checkpoints.directory(0))
    first.mkdir()
    for file in Path(checkpoints.directory(last)).iterdir():
        os.link(file, first / file.name)
    return run


def _random_class(label: int, shape: tuple[int, ...]) -> ClassState:
    generator = rng.stream(0, "benchmark images", label=label)
    images, velocity = (torch.from_numpy(generator.random(shape, dtype=np.float32)) for _ in range(2))
    empty = torch.empty(0, dtype=torch.int64)
    return ClassState(images, velocity, empty, empty)


def _write_metrics(folder: Path, labels: tuple[int, ...], shard: int, num_shards: int, num_steps: int) -> None:
    folder.mkdir(exist_ok=True)
    losses = rng.stream(0, "benchmark losses", label=shard)
    for end in range(100, num_steps + 1, 100):
        rows = [
            {"step": step, "outer": 0, "inner": step, "losses": {str(label): losses.random() for label in labels}}
            for step in range(end - 100, end)
        ]
        text = "".join(json.dumps({**row, "seconds": 1.0, "cpu_s": 1.0}) + "\n" for row in rows)
        (folder / f"{end:08d}-{shard:04d}-of-{num_shards:04d}.jsonl").write_text(text)


def needed_bytes(config: Config, num_classes: int, side: int) -> int:
    """Returns the disk that the benchmark takes at most."""
    images = 4 * num_classes * config.ipc * 3 * side**2
    # Images and momentum of a checkpoint, two products, and the file that an evaluation maps.
    return 5 * images


def _evaluation(run: Run) -> None:
    keep_freed_memory()
    data, _ = training_data(distilled_task(run, "test"), run, run.open_store())
    order = rng.stream(0, "benchmark order").permutation(len(data))
    next(iter(data.batches([order[: run.config.evaluation.batch_size]], CPU)))


PHASES: dict[str, Callable[[Run], object]] = {
    "finish": finish_run,
    "resume": lambda run: dream_ray.resume(run.path, local=True),
    "evaluation": _evaluation,
    "dataset": lambda run: dream_ray.load_synthetic(run.path)[0],
}


def measure(phase: str, path: str) -> dict[str, float]:
    """Runs a phase in this process and returns its memory in bytes and its seconds."""
    run, pid = open_run(path), os.getpid()
    with anonymous_peak() as peak:
        before, began = peak(), perf_counter()
        PHASES[phase](run)
        seconds = perf_counter() - began
    return {
        "peak_anonymous_bytes": peak(),
        "anonymous_bytes_before": before,
        "peak_resident_bytes": status_bytes(pid, "VmHWM"),
        "seconds": seconds,
    }


def main() -> None:
    """Measures every phase and writes benchmarks/results/run_end-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=tempfile.gettempdir(), help="a directory on a disk with enough space")
    parser.add_argument("--classes", type=int, default=NUM_CLASSES)
    parser.add_argument("--metric-steps", type=int, default=5000)
    parser.add_argument("--phase", choices=PHASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.phase:
        print(json.dumps(measure(arguments.phase, arguments.folder)))
        return
    config = load_config(preset=PRESET)
    needed, free = needed_bytes(config, arguments.classes, SIDE), shutil.disk_usage(arguments.folder).free
    print(f"needs {needed / 1e9:.1f} GB of disk in {arguments.folder}; {free / 1e9:.1f} GB are free", file=sys.stderr)
    if needed > 0.95 * free:
        raise SystemExit("give another --folder, or fewer --classes")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        os.environ["DREAM_RAY_CACHE"] = scratch
        run = make_run(Path(scratch), config, arguments.classes, SIDE, SHARDS, arguments.metric_steps)
        measured = {phase: _in_new_process(phase, run.path) for phase in PHASES}
    num_images = arguments.classes * config.ipc
    result = {
        **provenance(sys.argv[1:]),
        "num_classes": arguments.classes,
        "ipc": config.ipc,
        "side": SIDE,
        "factor": config.factor,
        "metric_steps": arguments.metric_steps,
        "stored_bytes": 4 * num_images * 3 * SIDE**2,
        "decoded_bytes": 4 * num_images * config.factor**2 * 3 * SIDE**2,
        "phases": measured,
    }
    write_result("run_end-cpu", result)


def _in_new_process(phase: str, path: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.run_end", "--phase", phase, "--folder", path]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    print(phase, {name: round(value / 1e9, 3) if "bytes" in name else round(value, 1) for name, value in found.items()})
    return found


if __name__ == "__main__":
    main()
