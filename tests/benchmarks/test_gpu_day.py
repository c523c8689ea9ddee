"""The dry run of a GPU day: in a process that lacks what a lent machine lacks, cut and continued, on the stand-in."""

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from benchmarks.gpu_day import __main__ as gpu_day
from benchmarks.gpu_day import distillation, variants
from benchmarks.gpu_day.day import CutShort, Day, NotMeasured, Result, ends_of_parts
from benchmarks.gpu_day.scale import SCALES
from benchmarks.gpu_day.work_counter import counted_work
from benchmarks.report import provenance
from dream_ray.core import rng
from dream_ray.engine.planning.measuring import steps
from dream_ray.engine.run.artefacts import read_synthetic
from tests.standin_gpu.gpu import NAME, PEAK_BYTES, standin_gpu

pytestmark = pytest.mark.xdist_group("a GPU day")  # so that one process makes the dry run
CPU = torch.device("cpu")
NUM_CLASSES = 3
LENT_MACHINE = (
    "matplotlib",
    "numpy",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "rich",
    "safetensors",
    "scikit-learn",
    "torch",
    "torchvision",
    "typer",
)
"""Distributions of a machine on which a GPU is at hand, besides those that they need."""

ON_LENT_MACHINE = f"""
import re, runpy, sys
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

def name_of(requirement):
    return re.match(r"[\\w.-]+", requirement)[0].lower().replace("_", "-")

present, pending = set(), list({LENT_MACHINE})
while pending:
    name = pending.pop()
    if name not in present:
        present.add(name)
        try:
            pending += [name_of(one) for one in requires(name) or () if "extra ==" not in one]
        except PackageNotFoundError:
            pass
hidden = {{
    module
    for module, distributions in packages_distributions().items()
    if not present & {{name_of(one) for one in distributions}}
}} - {{"benchmarks", "dream_ray"}}
assert {{"ray", "optuna", "simplejpeg", "pandas"}} <= hidden

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *where):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, *where)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
runpy.run_module("benchmarks.gpu_day", run_name="__main__", alter_sys=True)
"""
"""A program that hides the other distributions before it runs `benchmarks.gpu_day`."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the names and columns of CIFAR-10, with a few random images."""
    directory, generator = tmp_path_factory.mktemp("cifar10"), rng.stream(0, "images")
    for file, per_class in ((distillation.TRAIN, 12), (distillation.TEST, 3)):
        labels = np.repeat(np.arange(NUM_CLASSES), per_class)
        pixels = generator.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        columns = {"image": [{"bytes": jpeg(one), "path": None} for one in pixels], "label": labels}
        pq.write_table(pa.table(columns), directory / file)
    return directory


def jpeg(pixels_HWC: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def dry_run(images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The JSON of a dry run in a process that can import only what a lent machine has."""
    out = tmp_path_factory.mktemp("day")
    options = ["--budget", "600", "--scale", "tiny", "--device", "cpu", "--data", str(images), "--commit", "abc"]
    command = [sys.executable, "-c", ON_LENT_MACHINE, *options, "--work", str(out / "work"), "--results", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(Path(done.stdout.splitlines()[-1]).read_text())
    assert [json.dumps(row) for row in result["rows"]] == (out / "work/rows.jsonl").read_text().splitlines()
    return result


@pytest.mark.slow
def test_a_dry_run_without_other_libraries_takes_every_measurement(dry_run: dict[str, Any]) -> None:
    missing = [row for row in dry_run["rows"] if row["status"] != "measured"]
    assert not missing and {row["part"] for row in dry_run["rows"]} == set(gpu_day.PARTS)
    assert dry_run["commit"] and dry_run["versions"]["torch"] == torch.__version__.partition("+")[0]


def results(rows: list[dict[str, Any]], part: str) -> dict[str, Any]:
    return {row["name"]: row.get("result") for row in rows if row["part"] == part}


@pytest.mark.slow
def test_an_inner_step_is_made_of_the_calls_of_its_parts(dry_run: dict[str, Any]) -> None:
    timed = results(dry_run["rows"], "variants")
    for name in SCALES["tiny"].variants:
        parts, calls = timed[name]["ms"], timed[name]["calls_per_inner_step"]
        # An outer step has 40 inner steps, a selection before every tenth of them, and an update between any two.
        assert calls == {"first selection": 1 / 40, "later selection": 3 / 40, "class steps": 1, "update": 39 / 40}
        expected = sum(calls[part] * parts[part]["median"] for part in parts)
        assert timed[name]["inner_step_ms"] == pytest.approx(expected)
    assert timed["compiled together"]["backend"] == "eager" and timed["together, bfloat16"]["precision"] == "bfloat16"


@pytest.mark.slow
def test_single_precision_is_near_float64(dry_run: dict[str, Any]) -> None:
    for found in results(dry_run["rows"], "exactness").values():
        assert found.pop("selected images that differ") == 0
        assert {"target", "features", "loss", "gradient", "gradient, together", "update"} <= found.keys()
        gradients = found.pop("gradient") + found.pop("gradient, together")
        assert all(0 < difference < 1e-4 for difference in (*found.values(), *gradients)), found


@pytest.mark.slow
def test_the_images_of_several_outer_steps_are_evaluated(dry_run: dict[str, Any]) -> None:
    assert list(results(dry_run["rows"], "evaluation")) == [f"after outer step {n}, network 0" for n in range(3)]
    seconds = [results(dry_run["rows"], "distillation")[f"after outer step {n}"]["wall_s"] for n in range(3)]
    assert seconds == sorted(seconds) and seconds[0] > 0


def a_day(work: Path, **options: Any) -> Day:
    return Day(CPU, SCALES["tiny"], work, deadline=monotonic() + 600, **options)


@pytest.mark.slow
def test_errors_are_recorded_and_a_later_call_measures_what_is_missing(tmp_path: Path) -> None:
    broken, calls = [NotMeasured("no data"), CutShort("at step 3"), ValueError("out of memory")], list[str]()

    def measurement(name: str) -> Callable[[], Result]:
        def measure() -> Result:
            calls.append(name)
            if name != "sound" and broken:
                raise broken.pop(0)
            return {"name": name}

        return measure

    names = ("skipped", "unfinished", "sound", "failed")
    for _ in range(2):
        day = a_day(tmp_path)
        day.run_part("part", lambda day: ((name, measurement(name)) for name in names), 1.0)
    assert [(row["name"], row["status"], row.get("reason")) for row in day.rows] == [
        ("skipped", "skipped", "no data"),
        ("unfinished", "unfinished", "at step 3"),
        ("sound", "measured", None),
        ("failed", "failed", "ValueError: out of memory"),
        *((name, "measured", None) for name in ("skipped", "unfinished", "failed")),
    ]
    assert calls == [*names, "skipped", "unfinished", "failed"]


def test_a_part_without_time_is_skipped_and_half_a_line_is_ignored(tmp_path: Path) -> None:
    day = a_day(tmp_path)
    day.deadline = monotonic()
    day.run_part("part", lambda day: iter([("late", lambda: {})]), 1.5)
    file = tmp_path / "rows.jsonl"
    file.write_text(file.read_text() + '{"part": "pa')
    a_day(tmp_path).append("part", "next", "measured")
    row, _ = a_day(tmp_path).rows
    assert row["status"] == "skipped" and row["reason"] == "the part has used up its share of 2 s"


def test_an_error_before_the_first_measurement_is_recorded(tmp_path: Path) -> None:
    def measurements(day: Day) -> Any:
        raise ValueError("no network")

    day = a_day(tmp_path)
    day.run_part("part", measurements, 1.0)
    assert [(row["status"], row["reason"]) for row in day.rows] == [("failed", "ValueError: no network")]


def test_time_that_a_part_leaves_is_for_the_next_ones() -> None:
    assert ends_of_parts((20, 40, 140), 100) == [10, 30, 100]


@pytest.mark.slow
def test_a_run_that_is_cut_continues_at_its_checkpoint(images: Path, tmp_path: Path) -> None:
    def distil(day: Day) -> list[str]:
        day.append(variants.PART, "class by class", "measured", result={"inner_step_ms": 1.0})
        day.run_part(distillation.PART, distillation.measurements, 1.0)
        return [row["status"] for row in day.rows if row["name"] == "run"]

    assert distil(a_day(tmp_path / "whole", data=images)) == ["measured"]
    day = a_day(tmp_path / "cut", data=images)
    with pytest.MonkeyPatch.context() as patch:
        # Time is asked for before each of the two measurements, and after each checkpoint: here of steps 0, 1 and 2.
        answers = iter([False, False, False, False, True])
        patch.setattr(Day, "is_over", property(lambda day: next(answers)))
        assert distil(day) == ["unfinished"]
    assert distil(a_day(tmp_path / "cut", data=images)) == ["unfinished", "measured"]
    for outer in range(3):
        sets = [read_synthetic(str(tmp_path / one / f"sets/outer-{outer}.parquet"))[0] for one in ("whole", "cut")]
        assert torch.equal(sets[0].images_LNCHW[0], sets[1].images_LNCHW[0])


def test_without_images_parts_5_and_6_are_skipped(tmp_path: Path) -> None:
    day = a_day(tmp_path)
    day.run_part(distillation.PART, distillation.measurements, 1.0)
    day.run_part(distillation.EVALUATION, distillation.evaluations, 1.0)
    assert {row["status"] for row in day.rows} == {"skipped"}
    assert day.rows[0]["reason"].startswith("no images: give --data, or set DREAM_RAY_DATA")


@pytest.mark.slow
def test_the_parts_run_on_the_stand_in_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_day, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(steps, "keep_freed_memory", lambda: None)
    # Not the variants: the stand-in has neither kernels that torch could profile nor frames that it could compile.
    parts = ["rates", "exactness", "large images"]
    options = ["--scale", "tiny", "--device", "cuda", "--work", str(tmp_path), "--results", str(tmp_path)]
    with standin_gpu():
        gpu_day.main(["--budget", "600", *options, "--parts", *parts])
    rows = json.loads((tmp_path / "gpu_day-stand-in-gpu-tiny.json").read_text())["rows"]
    assert {row["part"] for row in rows} == set(parts) and {row["status"] for row in rows} == {"measured"}
    assert results(rows, "rates")["device"]["device_name"] == NAME
    exactness = results(rows, "exactness")
    assert exactness["float32"] == exactness["float32 on the CPU"]
    large = results(rows, "large images")
    assert large["class by class, float32"]["peak_bytes"] == PEAK_BYTES
    expected = PEAK_BYTES / large["plan"]["gpu_bytes"]
    assert large["class by class, float32"]["peak_over_plan"] == pytest.approx(expected)


def test_work_is_counted_without_views() -> None:
    a, b = torch.ones(4, 8), torch.ones(8, 2)
    assert counted_work(lambda: (a @ b).view(8)) == {"flop": 2 * 4 * 8 * 2, "bytes": 4 * (32 + 16 + 8)}
    assert counted_work(lambda: a.t().reshape(2, 16))["bytes"] == 4 * 2 * 32
    # An operation in place reads and writes its operand.
    assert counted_work(lambda: b.add_(1)) == {"flop": 0, "bytes": 4 * 2 * 16}


def test_provenance_outside_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", [gpu_day.__file__])
    found = provenance(["--budget", "9"])
    assert found["commit"] is None and found["command"] == "python -m benchmarks.gpu_day --budget 9"
