"""Ends of programs: those that are asked to stop save and say so, and leftovers of killed ones stop nobody."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_ray import api, storage
from dream_ray.cli.commands import runs
from dream_ray.cli.progress import interruptible
from dream_ray.config import parse_config
from dream_ray.engine import stopping
from dream_ray.engine.evaluation import kept_results
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.lifecycle import finish_run
from dream_ray.errors import TransientError, UsageError
from dream_ray.sweeps.file import Sweep
from dream_ray.sweeps.study import open_study
from tests.frameworks import tiny_run
from tests.runs import create_run

ASKED_AT = 5


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restores the handlers of signals and what the process knows of them."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(stopping, "_interrupted_by", signal.SIGINT)
    monkeypatch.setattr(stopping, "_ignores_ctrl_c", False)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sigterm_interrupts_like_ctrl_c_with_a_code_of_its_own(handlers: None) -> None:
    stopping.interrupt_at_sigterm()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert stopping.interrupt_code() == 130
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert stopping.interrupt_code() == 143


def test_in_the_background_of_a_script_only_sigterm_interrupts(handlers: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopping.interrupt_at_sigterm()
    signal.raise_signal(signal.SIGINT)
    asked: list[int] = []
    stopping.ask_at_ctrl_c(lambda: bool(asked.append(1)) or True)
    signal.raise_signal(signal.SIGINT)
    assert asked == []
    signal.raise_signal(signal.SIGTERM)
    assert asked == [1]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_says_how_to_continue(
    handlers: None, capsys: pytest.CaptureFixture[str], number: int, code: int
) -> None:
    stopping.interrupt_at_sigterm()
    with pytest.raises(SystemExit) as end, interruptible("run it again"):
        signal.raise_signal(number)
    assert end.value.code == code
    assert capsys.readouterr().err == "interrupted; run it again\n"


@pytest.mark.parametrize("framework", ["dream_plus", "dc"])
def test_a_run_in_this_process_saves_the_step_that_it_is_at(
    handlers: None, monkeypatch: pytest.MonkeyPatch, framework: str, four_digits_store: str, out: str
) -> None:
    """DC trains its networks on the synthetic images, so its checkpoint needs the network of the step."""
    settings = {**tiny_run(framework, "random"), "outer_steps": 4, "checkpoint_every": 100}
    run = create_run(out, parse_config(settings), four_digits_store)
    original = heartbeat.Heartbeat.on_step

    def report(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        if step == ASKED_AT:
            signal.raise_signal(signal.SIGTERM)

    stopping.interrupt_at_sigterm()
    monkeypatch.setattr(heartbeat.Heartbeat, "on_step", report)
    monkeypatch.setattr(stopping, "_POLL_S", 0)
    with pytest.raises(KeyboardInterrupt):
        LocalBackend().run_workers(run, replace(run.spec, producers=0))
    assert run.checkpoints().complete_steps()[-1] == ASKED_AT + 1
    assert api.status(run.path).state == "stopped"


@pytest.fixture(scope="module")
def finished(four_digits_store: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run."""
    path = str(tmp_path_factory.mktemp("finished") / "run")
    run = create_run(path, parse_config(tiny_run("dm", "random")), four_digits_store)
    LocalBackend().run_workers(run, replace(run.spec, producers=0))
    finish_run(run)
    return run


def test_a_resume_of_a_finished_run_costs_nothing(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    runs.resume(finished.path, local=True)
    shown = capsys.readouterr().out
    assert "synthetic set:" in shown and "cost:" not in shown


def evaluated(run: Run, **options: Any) -> list[dict[str, Any]]:
    return api.evaluate(run.path, baselines=(), local=True, **{"repeats": 2, **options})


def test_an_evaluation_on_a_full_disk_gives_its_accuracies(
    finished: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: str, *arguments: Any, **options: Any) -> None:
        raise TransientError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(kept_results.storage, "write_json", full)
        [row] = evaluated(finished)
    assert row["n"] == 2 and 0 <= row["mean"] <= 1 and row["report"] is None
    assert "The result of a network is not kept: cannot write" in caplog.text
    assert "The report is not written" in caplog.text


def test_an_evaluation_goes_on_after_a_kill(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(result: Any, done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        evaluated(finished, on_result=kill)
    trained: list[int] = []
    evaluated(finished, on_result=lambda result, done, total: trained.append(result.repeat))
    assert trained == [1]


def test_an_evaluation_that_cannot_write_trains_nothing(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise UsageError(f"{path} is not writable: Read-only file system")

    monkeypatch.setattr(storage, "ensure_writable", refuse)
    monkeypatch.setattr(kept_results, "run_task", lambda *arguments: pytest.fail("it trained a network"))
    with pytest.raises(UsageError, match="is not writable"):
        evaluated(finished, repeats=3)


def test_a_file_system_without_locks_locks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process on another host was killed while it had the directory."""

    def no_locks(*arguments: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    killed = storage.exclusive_lock("run", str(tmp_path))
    killed.__enter__()
    with storage.exclusive_lock("run", str(tmp_path)):
        pass
    assert not list(tmp_path.glob(f"{storage.CLAIM}*"))


def sweep(trials: int, **changes: Any) -> Sweep:
    names = ("pixels.lr", "pixels.momentum", "update.lr", "weights.feature", "weights.gradient", "matching.real_chunk")
    choices: dict[str, list[Any]] = {name: [(number + 1) / 20 for number in range(10)] for name in names[:5]}
    choices[names[5]] = list(range(1, 11))
    space = {name: {"choices": values} for name, values in choices.items()}
    return Sweep.model_validate(
        {
            "preset": "smoke",
            "start": [],
            "space": space,
            "budget": {"trials": trials},
            "sampler": {"name": "grid"},
            **changes,
        }
    )


def test_a_large_grid_queues_what_the_budget_allows(tmp_path: Path, four_digits_store: str) -> None:
    queued = [len(open_study(str(tmp_path), sweep(trials), four_digits_store).trials) for trials in (2, 2, 5)]
    assert queued == [2, 2, 5]
    points = [
        trial.system_attrs["fixed_params"] for trial in open_study(str(tmp_path), sweep(5), four_digits_store).trials
    ]
    assert len({tuple(point.items()) for point in points}) == 5
    assert sweep(10**7).most_trials == 10**6


DROPPED = """
import atexit
from dream_ray.storage import paths
atexit.register(lambda: print(paths._bucket.cache_info().currsize))  # runs before those that are registered earlier
class Fake:
    from_uri = staticmethod(lambda uri: (Fake(), uri))
    def __del__(self):
        print("dropped")
paths.FileSystem = Fake
paths.resolve("s3://bucket/key")
atexit.register(lambda: print("end"))
"""


def test_file_systems_of_buckets_do_not_live_at_the_end_of_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["end", "1", "dropped"]
