"""The start of a run: few frames from the command to the first pixel, and checks before anything starts."""

import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import dream_ray
from dream_ray import api, cli
from dream_ray.config import Config
from dream_ray.core.matching import class_step
from dream_ray.engine.backend import Producers
from dream_ray.engine.run.directory import open_run
from dream_ray.errors import UsageError
from tests.runs import create_run, work

PACKAGE = str(Path(dream_ray.__file__).parent)
MOST_FRAMES = 9


class FirstPixelError(Exception):
    """Ends a run at its first pixel step."""


@pytest.fixture
def frames(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Functions of the package on the stack of the first pixel step, outermost first; the run ends there."""
    found: list[str] = []
    original = class_step.pixel_step

    def pixel_step(*arguments: Any, **keywords: Any) -> Any:
        stack = traceback.extract_stack()
        found.extend(f"{Path(frame.filename).stem}.{frame.name}" for frame in stack if PACKAGE in frame.filename)
        found.append(f"{original.__module__.rpartition('.')[2]}.{original.__name__}")
        raise FirstPixelError

    monkeypatch.setattr(class_step, "pixel_step", pixel_step)
    return found


@pytest.mark.parametrize("producers", [0, 1])
def test_few_frames_lie_between_a_command_and_the_first_pixel(
    frames: list[str],
    tiny: dict[str, Any],
    four_digits_store: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    producers: int,
) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(yaml.safe_dump(tiny))
    command = ["distill", "--config", settings, "--store", four_digits_store, "--out", tmp_path / "run"]
    monkeypatch.setattr(sys, "argv", ["dream-ray", *map(str, command), "--local", "--producers", str(producers)])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(FirstPixelError):
        cli.main()
    assert len(frames) <= MOST_FRAMES, frames
    assert frames[0] == "__init__.main" and frames[-1] == "pixel_sgd.pixel_step"


def test_few_frames_of_a_worker_lie_before_the_first_pixel(
    frames: list[str], tiny_config: Config, four_digits_store: str, out: str
) -> None:
    """tests/distributed/test_ray_backend.py counts the driver's frames before a Ray Train job starts."""
    run = create_run(out, tiny_config, four_digits_store)
    with pytest.raises(FirstPixelError):
        work(run.path, range(4))
    assert frames[frames.index("worker.work") :] == [
        "worker.work",
        "distill.distill",
        "class_matcher.match",
        "class_step.__call__",
        frames[-1],
    ]


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, int]]:
    """Fits every run by a smaller embedding batch, without measuring it; lists the calls."""
    calls: list[tuple[Any, int]] = []

    def fit_memory(spec: Any, starting: Producers, device: Any) -> Any:
        calls.append((spec.memory_bytes, starting.count))
        selection = spec.config.selection.model_copy(update={"embedding_batch": 64})
        config = spec.config.model_copy(update={"selection": selection})
        return replace(spec, config=config), None

    monkeypatch.setattr("dream_ray.engine.planning.plan.fit_memory", fit_memory)
    return calls


@pytest.mark.parametrize("producers", [0, 1, 3])
def test_the_api_fits_a_run_into_the_memory_with_the_producers_that_start(
    limited: list[tuple[Any, int]], tiny_config: Config, four_digits_store: str, out: str, producers: int
) -> None:
    api.distill(tiny_config, store=four_digits_store, out=out, local=True, memory="2GB", producers=producers)
    assert limited == [(2 * 10**9, producers)]
    assert open_run(out).config.selection.embedding_batch == 64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers must be an int >= 1; got 0"),
        ({"workers": 2, "min_workers": 3}, r"min-workers must be an int from 1 to workers \(2\); got 3"),
        ({"cpus_per_worker": 0}, "cpus-per-worker must be an int >= 1; got 0"),
        ({"gpus_per_worker": -1}, "gpus-per-worker must be a number >= 0; got -1"),
        ({"producers": -1}, "producers must be an int >= 0; got -1"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda; got 'tpu'"),
        ({"compile": "maybe"}, "compile must be one of auto, on, off, graphs; got 'maybe'"),
        ({"memory": "much"}, "memory must be a size such as 4GB or 512MiB; got 'much'"),
        ({"snapshot_cache_size": "0"}, "snapshot-cache-size must be a size such as 4GB or 512MiB; got '0'"),
        ({"workers": 5}, r"workers must be at most the number of classes \(4\); got 5"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(
    tiny_config: Config,
    four_digits_store: str,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    arguments: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr("dream_ray.api.runs.open_backend", _no_backend)
    with pytest.raises(UsageError, match=message):
        api.distill(tiny_config, store=four_digits_store, out=out, **arguments)
    assert not Path(out).exists()


def _no_backend(*arguments: Any, **keywords: Any) -> Callable[..., Any]:
    raise AssertionError("a backend was opened")
