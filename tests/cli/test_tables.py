"""Every table on a terminal of 80 columns: no text is cut, and no escape code reaches a pipe."""

import io
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from dream_ray.cli import console, display, evaluations, forecasts, run_state, trials
from dream_ray.config import FRAMEWORKS, PRESETS, parse_config
from dream_ray.config.presets import presets_of
from dream_ray.engine.evaluation.options import BASELINES
from dream_ray.engine.evaluation.scores import UNKNOWN_SCORES
from dream_ray.engine.progress.status import Progress, Status
from dream_ray.errors import UsageError
from dream_ray.sweeps import progress


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[Table]:
    """Collects the tables that are printed on a terminal of 80 columns."""
    tables: list[Table] = []

    class Collector(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            tables.extend(one for one in objects if isinstance(one, Table))

    monkeypatch.setattr(console, "console", lambda: Collector(width=80))
    return tables


def assert_is_whole(table: Table) -> None:
    output = Console(width=80)
    with output.capture() as capture:
        output.print(table)
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for column in table.columns:
        for cell in (column.header, *column._cells):
            for line in str(cell).split("\n"):
                assert line in text, f"{line!r} is cut:\n{text}"


def test_presets(printed: list[Table]) -> None:
    for name, framework in FRAMEWORKS.items():
        display.show_presets(name, framework, presets_of(name, framework))
    assert sum(table.row_count for table in printed) == len(PRESETS)
    for table in printed:
        assert_is_whole(table)


def test_workers_of_a_run(printed: list[Table]) -> None:
    session = {
        "shard": 999, "phase": "preparing the first network", "step": 1_200_000, "started_at": 0.0, "updated_at": 10.0,
        "networks_s": 10.0, "selecting_s": 1.0, "peak_rss_bytes": 10**12,
    }  # fmt: skip
    now = Progress("matching", 5, 8, 0.5, 2.0, 9.0)
    run_state.show_status("RUN", Status("running", "", now, [session], 1.0, 1.0, 4, 3.0, 2, 4))
    assert_is_whole(*printed)


def evaluated(name: str, **changed: Any) -> dict[str, Any]:
    """Returns a row of `evaluate` whose cells are as wide as they can be."""
    return {
        **{"network": "convnet", "evaluated_set": name, "step": None, "num_images": 1_281_167, "epochs": 3000},
        **{"mean": 1.0, "std": 0.123, "half_width": 0.3, "n": 100, "balanced": 1.0, "tested": 50_000, "majority": 0.5},
        **{"test_interval": [0.995, 1.0], "class_names": ["x" * 200, "cat"], "class_accuracies": [1.0, 0.5]},
        **{"images_of_classes": [25_000, 25_000], "report": "RUN/evaluation/convnet.json"},
        **changed,
    }


def test_evaluation(printed: list[Table], capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        evaluated("distilled", step=1_200_000),
        *(evaluated(name, mean=0.4) for name in BASELINES),
        evaluated("distilled", network="resnet10", mean=None, diverged=2, n=3, **UNKNOWN_SCORES),
    ]
    evaluations.show_evaluation(rows, protocol="published", split="validation")
    assert [table.title for table in printed if table.row_count == 1] == [
        "resnet10: published protocol, last epoch, validation split"
    ]
    assert list(map(str, printed[-1].columns[3].cells)) == ["2 of 3 diverged"]
    for table in printed:
        assert_is_whole(table)
    text = capsys.readouterr().out
    assert "50000 test images: one image = 0.002 points; always naming the largest class gives 50.0 %.\n" in text
    assert "  k-means real -60.0 +- 42.4 points: beyond noise\n" in text


def test_only_the_classes_with_the_lowest_accuracy_are_printed(printed: list[Table]) -> None:
    names, accuracies = [f"class {label}" for label in range(100)], [1 - label / 100 for label in range(100)]
    row = evaluated("distilled", class_names=names, class_accuracies=accuracies, images_of_classes=[5] * 100)
    evaluations.show_evaluation([row], protocol="quick", split="test")
    table = printed[-1]
    assert table.title == "Accuracy of classes in %, lowest first: 20 of 100; the file has all"
    assert list(map(str, table.columns[0].cells)) == names[:-21:-1]


def many_settings() -> dict[str, Any]:
    row = {"trial": 1000, "state": "running", "rung": 100, "accuracy": 0.8125, "compute_s": 123_456.0}
    row |= {"seconds": 123_456.0, "reason": "a trial needs more memory than the machine has"}
    settings = {f"{name}.augmentation": "color_crop_flip_scale_rotate" for name in ("matching", "update", "evaluation")}
    return row | settings | {f"section.setting_{number}": 0.1234 for number in range(9)}


def test_trials_with_more_settings_than_columns(printed: list[Table], capsys: pytest.CaptureFixture[str]) -> None:
    trials.show_trials([many_settings()])
    assert len(printed) > 2
    for table in printed:
        assert table.columns[0].header == "trial"
        assert_is_whole(table)
    headings = [column.header for table in printed for column in table.columns[1:]]
    assert len(headings) == len(set(headings)) == len(many_settings()) - 2
    assert "trial 1000 failed: a trial needs more memory than the machine has" in capsys.readouterr().out


def test_the_table_of_a_sweep_outlives_a_failed_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    reads = [[], [{"trial": 7, "state": "running", "rung": 2, "accuracy": 0.8125, "reason": ""}]]

    @contextmanager
    def polling(look: Callable[[], None], every_s: float) -> Iterator[None]:
        look()
        look()
        yield

    monkeypatch.setattr(progress, "read_rows_so_far", lambda path, study: reads.pop())
    monkeypatch.setattr(trials, "polling", polling)
    monkeypatch.setattr(trials, "console", lambda stderr: screen)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with trials.live(str(tmp_path), None):
        assert not reads
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "trials: 1 running" in shown and "81.2" in shown


def test_trials_with_few_settings_are_one_table(printed: list[Table]) -> None:
    row = {"trial": 0, "state": "done", "rung": 2, "accuracy": 0.8125, "seconds": 12.5, "reason": ""}
    trials.show_trials([row | {"selection.interval": 10, "weights.feature": 0.02756, "weights.gradient": 1}])
    (table,) = printed
    assert [str(column.header) for column in table.columns[-3:]] == ["interval", "feature", "gradient"]
    assert_is_whole(table)


class LongRun:
    """A plan of a run of months on many workers."""

    memory = SimpleNamespace(
        step=1e12, features=1e12, synthetic=1e12, writing=1e12, resident=1e12, pool=1e12, ray=1e12, gpu=True,
        total=1e13, on_gpu=1e13, workers=1000, producers=1000, producer=1e12, ahead=1e12, all_processes=1e15,
        mapped=1e13, worker_on_gpu=1e12, decoding=1e12, free_gpu=1e9, fits_gpu=False, gpu_rule="a GPU must", kept=1e12,
    )  # fmt: skip
    costs = SimpleNamespace(match_s=1234.0, select_s=1234.0, update_s=1234.0, warm_up_s=1234.0, first_warm_up_s=1234.0)
    config = parse_config(PRESETS["smoke"].settings)
    producers, mean_class_size, padding, spec = 1000, 1300.0, 0.99, SimpleNamespace(workers=1000, class_batch=100)
    shares_cores, cores = True, 1000

    def forecast(self, workers: int = 1000) -> SimpleNamespace:
        if workers > 1000:
            raise UsageError(f"workers must be at most the number of classes (1000); got {workers}")
        return SimpleNamespace(
            step_s=1234.5, wall_s=3600 * 2345.0 / workers, worker_waiting=1.0, producer_waiting=1.0, step_bytes=999.9e9,
            total_bytes=9999.9e12, inline_limit=1.5,
        )  # fmt: skip


def test_plan_of_a_long_run(printed: list[Table], capsys: pytest.CaptureFixture[str]) -> None:
    plan = LongRun()
    forecasts.show_memory(plan.memory)
    forecasts.show_time(plan, 12.5)
    forecasts.show_scale(plan, [1, 1000, 2000], 12.5)
    assert len(printed) == 5, "the last one is split"
    for table in printed:
        assert_is_whole(table)
    assert "refused: workers must be at most the number of classes (1000); got 2000" in (
        text := capsys.readouterr().out
    )
    assert "the GPU is too small: a GPU must; got 1.00 GB. --memory chooses settings that fit" in text


def on_a_terminal(*arguments: str, **variables: str) -> str:
    """Returns all that a command writes to a terminal."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "dream_ray", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment | variables) as process:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 1 << 16):
                text += part
        except OSError:  # Linux: the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return text.decode()


def test_a_terminal_gets_styles_unless_no_color_is_set() -> None:
    options = ("presets", "--framework", "dm")
    assert "\x1b[" in on_a_terminal(*options)
    assert "\x1b" not in on_a_terminal(*options, NO_COLOR="1")


def test_a_pipe_gets_no_escape_codes() -> None:
    command = [sys.executable, "-m", "dream_ray", "presets", "--framework", "dm"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "TERM": "xterm"})
    assert "dm-cifar10-ipc10" in done.stdout and "\x1b" not in done.stdout + done.stderr
