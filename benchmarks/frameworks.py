"""Accuracy of every framework with random and with representative selection, at equal numbers of matching steps.

    DREAM_RAY_DATA=... python -m benchmarks.frameworks --seeds 3 --processes 2

The runs distil a subset of CIFAR-10 at 10 images per class with a narrow ConvNet-3. A fresh network is trained after
0, a quarter, half and all of the steps. Its accuracy is that of the last epoch on the validation split, which no run
distils. Runs with representative selection also start from representative images, as in DREAM. One recipe evaluates all
frameworks, so MTT does not use its learned step size. A step of one framework costs more than a step of another; the
result contains the CPU seconds. Each run has its own process, for its peak memory. With a GPU, measure the published
network: `--device cuda --width 128 --images 5000 --processes 1`.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import provenance, write_result
from dream_ray.config import parse_config
from dream_ray.config.frameworks import FRAMEWORKS, Settings, overlay
from dream_ray.core.intervals import half_width
from dream_ray.data.ingest import IngestSettings, ingest
from dream_ray.engine.backend import Producers
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.planning.plan import begin_run
from dream_ray.engine.run.directory import read_sessions
from dream_ray.engine.run.lifecycle import finish_run
from dream_ray.engine.run.metrics import read_validation
from dream_ray.engine.run.spec import RunSpec

STRATEGIES = ("random", "representative")

REDUCED: dict[str, Settings] = {
    "dc": {"update": {"epochs": 5}},
    "dsa": {"update": {"epochs": 5}},
    "dm": {},
    **{name: {"pixels": {"lr": 0.02}, "update": {"num_images": 512}} for name in ("idc", "dream", "dream_plus")},
    "mtt": {
        "pixels": {"lr": 1000.0},
        "update": {"batch_size": 64},
        "trajectory": {
            "num_experts": 3,
            "expert_steps": 2,
            "max_start": 4,
            "student_steps": 8,
            "step_size": 0.01,
            "step_size_lr": 1e-6,
        },
    },
}
"""Settings that scale down one framework, on top of those that scale down all."""


def settings_of(framework: str, strategy: str, seed: int, options: argparse.Namespace) -> Settings:
    """Returns the settings of a run; only the settings of its framework differ from other runs."""
    common: Settings = {
        "framework": framework,
        "seed": seed,
        "ipc": 10,
        "outer_steps": 2,
        "inner_steps": options.steps // 2,
        "checkpoint_every": options.steps // 4,
        "network": {"name": "convnet", "options": {"depth": 3, "width": options.width, "norm": "instance"}},
        "data": {"include_validation": False},
        "selection": {"strategy": strategy, "num_clusters": 64},
        "initialisation": {"strategy": strategy},
        "evaluation": {
            "every": options.steps // 4,
            "quick_epochs": options.epochs,
            "batch_size": 16,
            "lr": 0.01,
            "cutmix_probability": 0.5,
            "augmentation": "color_crop_flip_scale_rotate",
            "lr_decay": 0.2,
            "lr_milestones": [2 / 3, 5 / 6],
            "restart_momentum": False,
        },
    }
    return overlay(common, REDUCED.get(framework, {}))


def store_of(scratch: Path, options: argparse.Namespace) -> str:
    """Returns the store of the CIFAR-10 subset; writes it if it does not exist."""
    store = scratch / "store"
    if not store.exists():
        source = f"{os.environ['DREAM_RAY_DATA']}/cifar10-train.parquet"
        ingest(IngestSettings(source=source, validation=0.4, max_per_class=options.images), str(store))
    return str(store)


def run_one(
    framework: str, strategy: str, seed: int, store: str, out: str, options: argparse.Namespace, **more: Any
) -> dict[str, Any]:
    """Distils with further settings; another process trains a network on the images of every quarter."""
    torch.set_num_threads(1)
    config = parse_config(overlay(settings_of(framework, strategy, seed, options), more))
    spec = RunSpec(config=config, store=store, out=out, compile="off", device=options.device, local=True, producers=0)
    run = begin_run(spec, Producers())
    # CPU time of one thread: other load on the machine does not change it.
    started = time.process_time()
    LocalBackend().run_workers(run, spec)
    seconds = time.process_time() - started
    finish_run(run)
    peak = max(session["peak_rss_bytes"] for session in read_sessions(run))
    accuracies = dict(read_validation(run))
    tested_at = [0, options.steps // 4, options.steps // 2, options.steps]
    return {
        "framework": framework,
        "strategy": strategy,
        "seed": seed,
        "accuracies": [100 * accuracies[step] for step in tested_at],
        "cpu_s": seconds,
        "peak_rss_bytes": peak,
    }


def summarise(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row per framework: both strategies, and the gain by representative selection for each seed."""
    rows = []
    for framework in FRAMEWORKS:
        row: dict[str, Any] = {"framework": framework}
        by_seed: dict[str, dict[int, list[float]]] = {}
        for strategy in STRATEGIES:
            own = [run for run in runs if (run["framework"], run["strategy"]) == (framework, strategy)]
            by_seed[strategy] = {run["seed"]: run["accuracies"] for run in own}
            row[strategy] = {
                "n": len(own),
                "mean": [statistics.mean(values) for values in zip(*by_seed[strategy].values(), strict=True)],
                "std": [statistics.stdev(values) for values in zip(*by_seed[strategy].values(), strict=True)],
                "cpu_s": statistics.median(run["cpu_s"] for run in own),
                "peak_rss_mb": max(run["peak_rss_bytes"] for run in own) / 1e6,
            }
        gains = [
            [more - less for more, less in zip(by_seed["representative"][seed], accuracies, strict=True)]
            for seed, accuracies in by_seed["random"].items()
        ]
        row["gain"] = [statistics.mean(values) for values in zip(*gains, strict=True)]
        row["gain_ci95"] = [half_width(values) for values in zip(*gains, strict=True)]
        rows.append(row)
    return rows


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Runs everything that the scratch directory does not contain yet; keeps each finished run there.

    Raises:
        SystemExit: If the scratch directory belongs to other options.
    """
    scratch = Path(options.scratch or tempfile.mkdtemp())
    kept = scratch / "runs.jsonl"
    done = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    options_of_it, free = scratch / "options.json", ("scratch", "processes", "seeds")
    shown = json.dumps({name: value for name, value in vars(options).items() if name not in free})
    if options_of_it.exists() and options_of_it.read_text() != shown:
        raise SystemExit(f"{scratch} holds runs of {options_of_it.read_text()}, not of {shown}")
    options_of_it.write_text(shown)
    store = store_of(scratch, options)
    known = {(run["framework"], run["strategy"], run["seed"]) for run in done}
    wanted = [
        (framework, strategy, seed)
        for seed in range(options.seeds)
        for framework in FRAMEWORKS
        for strategy in STRATEGIES
        if (framework, strategy, seed) not in known
    ]
    context = multiprocessing.get_context("spawn")
    alone: dict[str, Any] = {"max_tasks_per_child": 1}  # needs Python 3.11
    with ProcessPoolExecutor(options.processes, mp_context=context, **alone) as pool:
        running = [pool.submit(run_one, *one, store, tempfile.mkdtemp(dir=scratch), options) for one in wanted]
        for future in running:
            done.append(future.result())
            with kept.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
            print(done[-1], flush=True)
    return done


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, 11))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument(
        "--images", type=int, default=400, help="images per class; 40 %% of them are the validation split"
    )
    parser.add_argument("--epochs", type=int, default=40, help="epochs of an evaluated network")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scratch", default="", help="directory from which a later call continues")
    return parser


def main() -> None:
    """Measures and writes frameworks-DEVICE.json."""
    options = parser().parse_args()
    shown = [f"--{name}={value}" for name, value in vars(options).items() if name != "scratch"]
    measured = provenance(shown, options.device)
    rows = summarise(measure(options))
    write_result(
        f"frameworks-{options.device}", {**measured, "settings": vars(options) | {"scratch": None}, "rows": rows}
    )


if __name__ == "__main__":
    main()
