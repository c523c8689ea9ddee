"""Peak memory of every process for 250 and for 1,000 classes, on the way from images to an evaluation.

    python -m benchmarks.many_classes --classes 250,1000 --per-class 1300 [--directory DIR]

Each class is a pattern of 4 x 4 colours with noise, 16 x 16 pixels, in a tar archive of PNG files. Each stage is a
command of `dream-ray` in a process of its own, without Ray. Recorded for each stage and process: the largest resident
memory, the largest anonymous memory (RssAnon, which leaves out the pages of the mapped store, sampled), and seconds.
"""

import argparse
import io
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.processes import watched
from benchmarks.report import provenance, write_result
from dream_ray.core import rng

SIDE, PATTERN, NOISE = 16, 4, 40.0
TESTED_PER_CLASS = 2
SAMPLE_S = 0.1
MODEL = ["--net", "convnet", "--net-option", "depth=2", "--net-option", "width=16"]


def write_archive(path: Path, num_classes: int, per_class: int, purpose: str) -> None:
    """Writes the images of a split as class/number.png."""
    with tarfile.open(path, "w") as archive:
        for label in range(num_classes):
            pattern = rng.stream(0, "many-classes/pattern", label=label).integers(0, 256, (PATTERN, PATTERN, 3))
            enlarged = pattern.repeat(SIDE // PATTERN, axis=0).repeat(SIDE // PATTERN, axis=1)
            noise = rng.stream(0, f"many-classes/{purpose}", label=label)
            for number in range(per_class):
                pixels = enlarged + NOISE * noise.standard_normal(enlarged.shape)
                content = io.BytesIO()
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, "PNG", compress_level=1)
                member = tarfile.TarInfo(f"class-{label:04d}/{number:05d}.png")
                member.size = content.tell()
                content.seek(0)
                archive.addfile(member, content)


def run_stage(name: str, arguments: list[str]) -> dict[str, Any]:
    """Runs a command; returns its seconds and the peaks of its processes."""
    started = time.monotonic()
    with watched(SAMPLE_S) as watch:
        subprocess.run([sys.executable, "-m", "dream_ray", *arguments], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - started
    resident, anonymous = (
        {kind: size for kind, size in sizes.items() if kind != "driver"}  # this process
        for sizes in (watch.peak_bytes, watch.peak_anonymous_bytes)
    )
    shown = ", ".join(f"{kind} {size / 1e6:.0f} MB" for kind, size in anonymous.items())
    print(f"{name}: {seconds:.0f} s, {shown}", flush=True)
    return {
        "command": shlex.join(["dream-ray", *arguments]),
        "seconds": seconds,
        "peak_bytes": resident,
        "peak_anonymous_bytes": anonymous,
    }


def stages(directory: Path, outer_steps: int) -> dict[str, list[str]]:
    """Returns the commands, by the names of their stages."""
    store, model = str(directory / "store"), str(directory / "model")
    frozen = ["--set", "source.kind=frozen", "--set", f"source.models=[{model}]", "--set", "data.normalisation=store"]
    tiny = ["--set", "ipc=1", "--set", f"outer_steps={outer_steps}", "--set", "evaluation.quick_epochs=1"]
    at = ["--store", store, "--local"]
    easy = ["--strategy", "easy", "--ipc", "1", "--factor", "2", "--model", model]
    return {
        "ingest": ["ingest", str(directory / "train.tar"), store, "--test", str(directory / "test.tar"), "--local"],
        "train": ["train", store, *MODEL, "--epochs", "1", "--set", "batch_size=256", "--out", model, "--local"],
        "select": ["select", store, *easy, "--out", str(directory / "easy"), "--local"],
        "distil": [
            *("distill", "--preset", "cifar10-ipc1", *tiny, *frozen, "--set", "inner_steps=2"),
            *(*at, "--out", str(directory / "frozen")),
        ],
        "cim": ["distill", "--preset", "cifar10-ipc1-cim", *tiny, *frozen, *at, "--out", str(directory / "cim")],
        "evaluate": ["evaluate", str(directory / "frozen"), "--repeats", "1", "--baselines", "none", "--local"],
    }


def measure(num_classes: int, per_class: int, directory: Path, outer_steps: int) -> dict[str, Any]:
    """Measures all stages for a number of classes."""
    directory.mkdir(parents=True)
    write_archive(directory / "train.tar", num_classes, per_class, "train")
    write_archive(directory / "test.tar", num_classes, TESTED_PER_CLASS, "test")
    found = {name: run_stage(name, arguments) for name, arguments in stages(directory, outer_steps).items()}
    set_bytes = (directory / "frozen" / "synthetic.parquet").stat().st_size
    return {"classes": num_classes, "images": num_classes * per_class, "set_bytes": set_bytes, "stages": found}


def growth(small: dict[str, Any], large: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the ratio of anonymous memory, beyond the set itself, of each process in each stage."""
    ratios: dict[str, dict[str, float]] = {}
    for name, stage in large["stages"].items():
        before = small["stages"][name]["peak_anonymous_bytes"]
        ratios[name] = {
            kind: (size - large["set_bytes"]) / (before[kind] - small["set_bytes"])
            for kind, size in stage["peak_anonymous_bytes"].items()
            if kind in before
        }
    return ratios


def main() -> None:
    """Measures, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", default="250,1000", help="two numbers of classes")
    parser.add_argument("--per-class", type=int, default=1300, help="images of a class")
    parser.add_argument("--outer-steps", type=int, default=1, help="outer steps of each distillation")
    parser.add_argument(
        "--directory", type=Path, help="new directory for the files, which are kept; or a temporary one"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = given.directory or Path(temporary)
        found = [
            measure(count, given.per_class, directory / str(count), given.outer_steps)
            for count in map(int, given.classes.split(","))
        ]
    result = {**provenance(sys.argv[1:]), "measured": found, "growth_of_anonymous_memory": growth(*found)}
    print(f"written: {write_result('many_classes-cpu', result)}")


if __name__ == "__main__":
    main()
