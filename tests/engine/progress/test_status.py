"""The status of a run from its directory: before, during and after the run."""

import io
import json
import logging
import re
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from dream_ray import api, storage
from dream_ray.cli import run_state
from dream_ray.cli.run_state import show_status
from dream_ray.config import Config
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.progress.heartbeat import Heartbeat
from dream_ray.engine.progress.status import PRODUCER, STOPPED, WORKER, Status, read_status
from dream_ray.engine.run.directory import Run, open_run, read_sessions
from tests.runs import create_run


@pytest.fixture
def run(tiny_config: Config, digits_store: str, out: str) -> Run:
    return create_run(out, tiny_config, digits_store, workers=2, producers=0, local=False)


def tell(
    run: Run,
    shard: int,
    step: int,
    *,
    updated_at: float,
    seconds: float | None = 2.0,
    shards: int = 2,
    phase: str = "matching",
) -> None:
    session = {
        "role": WORKER, "shard": shard, "num_shards": shards, "phase": phase, "step": step, "total_steps": 8,
        "loss": 0.5, "seconds_per_step": seconds, "networks_s": 1.0, "selecting_s": 2.0, "started_at": 100.0 + shard,
        "updated_at": updated_at, "stepped_at": updated_at, "peak_rss_bytes": 10**8,
    }  # fmt: skip
    storage.write_text(run.file("progress", f"{shard}-of-{shards}.json"), json.dumps(session))


def shown(status: Status, capsys: pytest.CaptureFixture[str]) -> str:
    show_status("RUN", status)
    return capsys.readouterr().out


def test_status_of_a_waiting_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    status = read_status(run, now=200.0)
    assert status.state == "waiting" and status.progress is None and status.checkpoint_step is None
    assert "waits for nodes" in shown(status, capsys)


def test_status_of_a_running_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tell(run, 0, 6, updated_at=190.0)
    tell(run, 1, 5, updated_at=195.0)
    tell(run, 0, 1, updated_at=150.0, shards=1)
    status = read_status(run, now=200.0)
    assert status.state == "running" and status.silent_s == 5.0
    text = shown(status, capsys)
    assert "state: running, last sign of life 0:05 ago\n" in text
    assert "loss: 0.5 (over new networks and images, so it need not fall: compare accuracies)" in text
    assert "step: 5 of 8 (62 %)" in text and "outer step: 1 of 2, inner step: 1 of 4" in text
    assert "time left: 0:06" in text
    assert [one["shard"] for one in status.sessions] == [0, 1]


def test_status_of_a_stopped_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tell(run, 0, 6, updated_at=100.0, phase=STOPPED)
    tell(run, 1, 6, updated_at=100.0)
    assert read_status(run, now=101.0).state == "running", "one still has to save"
    tell(run, 1, 6, updated_at=100.0, phase=STOPPED)
    status = read_status(run, now=900.0)
    assert status.state == "stopped" and "`dream-ray resume RUN`" in shown(status, capsys)


def test_status_of_a_run_with_dead_workers(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tell(run, 0, 5, updated_at=100.0)
    with storage.exclusive_lock("run", run.path):
        assert read_status(run, now=150.0).state == "running"
        assert read_status(run, now=200.0).state == "silent"
    assert "state: running, last sign of life 0:15 ago\n" in shown(read_status(run, now=115.0), capsys)
    status = read_status(run, now=125.0)
    assert status.state == "silent", "no process has the lock"
    state = r"^state: not running since \d{4}-.* \d\d:\d\d:\d\d, last sign of life 0:25 ago$"
    assert re.search(state, shown(status, capsys), re.M)


def test_watching_ends_with_the_run(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(run, 0, 5, updated_at=time.time())
    storage.write_json(run.file("validation", "step-00000004.json"), {"step": 4, "accuracy": 0.5})
    states = []

    def sleep(seconds: float) -> None:
        states.append(seconds)
        storage.write_text(run.file("failure.json"), json.dumps({"kind": "RunError", "message": "a full disk"}))

    monkeypatch.setattr(run_state.time, "sleep", sleep)
    run_state.watch(run.path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 5 of 8, loss 0.5, 2.00 s/step, 0:06 left, validation 50.0 % at 4"
    assert lines[1:3] == [f"run: {run.path}", "state: failed"] and len(states) == 1
    assert "validation accuracy: 50.0 % at step 4" in lines and "a full disk" in lines


def test_watching_refreshes_a_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, running = Console(file=io.StringIO(), force_terminal=True, width=80), [True, True, False]
    tell(run, 0, 5, updated_at=time.time())
    running_status, failed = api.status(run.path), replace(api.status(run.path), state="failed")
    monkeypatch.setattr(run_state.dream_ray, "status", lambda path: running_status if running.pop(0) else failed)
    monkeypatch.setattr(run_state, "console", lambda: screen)
    monkeypatch.setattr(run_state.time, "sleep", lambda seconds: None)
    run_state._watch_on_terminal(run.path)
    written = screen.file.getvalue()  # type: ignore[attr-defined]
    assert written.count("step: 5 of 8 (62 %)") >= 2 and "matching" in written


def test_a_worker_in_a_long_step_is_not_silent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm-up or a compilation takes minutes."""
    monkeypatch.setattr("dream_ray.engine.progress.heartbeat._LONGEST_SILENCE_S", 0.05)

    def told() -> dict[str, Any]:
        (session,) = read_sessions(run)
        return session

    with Heartbeat(run, 0, 1, 10, lambda progress: None) as session:
        session.begin(0)
        first, deadline = told()["updated_at"], time.monotonic() + 30
        while told()["updated_at"] <= first + 0.2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert told()["phase"] == "preparing the first network" and told()["stepped_at"] is None
    last = told()["updated_at"]
    time.sleep(0.2)
    assert told()["updated_at"] == last, "with the block ends what is told"


def test_a_periodic_write_has_the_phase_of_the_last_step(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket, where steps write as rarely as the thread, the phase stayed that of the first network."""
    monkeypatch.setattr("dream_ray.engine.progress.heartbeat._LONGEST_SILENCE_S", 0.05)
    monkeypatch.setattr("dream_ray.engine.progress.heartbeat._HEARTBEAT_S", 60.0)
    with Heartbeat(run, 0, 1, 10, lambda progress: None) as session:
        session.begin(0)
        session.on_step(0, {0: 1.0})
        deadline = time.monotonic() + 30
        while (written := read_sessions(run)[0])["step"] == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert (written["phase"], written["step"]) == ("matching", 1)


def test_producers_do_not_count_as_workers(run: Run) -> None:
    with Heartbeat(run, 0, 0, 0, lambda progress: None, PRODUCER):
        assert read_status(run, now=time.time()).state == "waiting"


def test_a_checkpoint_counts_when_every_worker_has_written_its_shard(run: Run) -> None:
    checkpoints = run.checkpoints()
    for step, labels in ((4, range(10)), (6, range(5)), (8, range(10))):
        for shard, half in enumerate((labels[:5], labels[5:])):
            classes = {label: ClassState(*(torch.zeros(1) for _ in range(4))) for label in half}
            if classes:
                checkpoints.save(RunState(0, step, classes), step=step, shard=shard, num_shards=2)
    damaged = storage.list_files(checkpoints.directory(8))[0]
    storage.write_bytes(storage.join(checkpoints.directory(8), damaged), b"torn")
    status = read_status(run, now=time.time() + 60)
    assert status.checkpoint_step == 4 and status.checkpoint_s == pytest.approx(60, abs=30)


def test_status_of_a_failed_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    tell(run, 0, 5, updated_at=100.0)
    storage.write_text(run.file("failure.json"), json.dumps({"kind": "RunError", "message": "loss must be finite"}))
    status = read_status(run, now=101.0)
    assert status.state == "failed"
    assert "loss must be finite" in shown(status, capsys) and "dream-ray resume RUN" in shown(status, capsys)


def test_status_of_a_finished_run(
    tiny_config: Config, four_digits_store: str, out: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api.distill(tiny_config, store=four_digits_store, out=out, local=True)
    status = api.status(out)
    assert status.state == "finished" and status.checkpoint_step == 8
    (worker,) = status.sessions
    assert worker["networks_s"] > 0 and worker["selecting_s"] > 0
    assert worker["networks_s"] + worker["selecting_s"] < worker["updated_at"] - worker["started_at"]
    assert worker["images_per_second"] > 0 and worker["checkpoint_at"] <= worker["updated_at"]
    assert "step: 8 of 8 (100 %)" in shown(status, capsys)
    assert open_run(out).is_finished


def test_a_bucket_outage_loses_only_one_progress_write(
    tiny_config: Config,
    four_digits_store: str,
    out: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_json = storage.write_json

    def away(path: str, value: Any, **options: Any) -> None:
        if "/progress/" in path and "preparing" in value["phase"]:
            raise storage.RemoteError("cannot write: SLOW_DOWN")
        write_json(path, value, **options)

    monkeypatch.setattr(storage, "write_json", away)
    api.distill(tiny_config, store=four_digits_store, out=out, local=True)
    assert api.status(out).state == "finished" and "SLOW_DOWN" in caplog.text


def test_log_lines_name_their_process() -> None:
    metrics = pytest.importorskip("dream_ray.distributed.train.metrics")
    lines = metrics.JsonLines("s3://bucket/run", 3)

    def line(message: str, **extra: Any) -> dict[str, Any]:
        record = logging.makeLogRecord({"msg": message, "levelname": "INFO", **extra})
        parsed: dict[str, Any] = json.loads(lines.format(record))
        return parsed

    assert line("preparing")["outer"] is None
    line("matching", progress={"outer": 2, "inner": 7, "loss": 0.25, "seconds_per_step": 1.5})
    later = line("a checkpoint is passed over")
    assert {key: later[key] for key in ("run", "rank", "outer", "inner")} == {
        "run": "s3://bucket/run", "rank": 3, "outer": 2, "inner": 7,
    }  # fmt: skip
