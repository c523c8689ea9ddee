"""Workers that are asked to stop write a checkpoint at one step, and the resumed run has the same bits."""

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.config import parse_config
from dream_ray.engine import stopping
from dream_ray.engine.local_backend import LocalBackend
from dream_ray.engine.progress import heartbeat
from dream_ray.engine.run.directory import Run
from dream_ray.engine.stopping import LocalAgreement, Stopped, Stopping, ask_at_ctrl_c, ctrl_c_as_before
from tests.runs import create_run, final_images

CPU = torch.device("cpu")
ASKED_AT = 5


@pytest.fixture(autouse=True)
def looking_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_POLL_S", 0.0)


@pytest.fixture
def as_before() -> Iterator[None]:
    with ctrl_c_as_before():
        yield


def walk(agreement: LocalAgreement, worker: int, num_workers: int, first: int, total: int = 50) -> int:
    """Takes steps until the worker stops; returns the step."""
    own = Stopping(agreement, worker, num_workers)
    for step in range(first, total):
        if own.stops_before(step):
            return step
    own.finish(total)
    return total


def walk_together(agreement: LocalAgreement, starts: Sequence[int]) -> list[int]:
    with ThreadPoolExecutor(len(starts)) as pool:
        ends = [pool.submit(walk, agreement, worker, len(starts), first) for worker, first in enumerate(starts)]
        return [end.result() for end in ends]


@given(
    starts=st.lists(st.integers(0, 12), min_size=1, max_size=4),
    turns=st.lists(st.integers(0, 3), max_size=30),
    window=st.integers(1, 3),
)
def test_all_workers_stop_at_one_step_in_any_order(starts: list[int], turns: list[int], window: int) -> None:
    """The snapshot queue limits the lead over the slowest worker, so a faster worker may report its step late."""
    agreement, num_workers = LocalAgreement(), len(starts)
    agreement.ask()
    slowest = min(starts)
    places = [min(start, slowest + window) for start in starts]
    furthest = max(places)
    stopped: dict[int, int] = {}
    for worker in [*(turn % num_workers for turn in turns), *(list(range(num_workers)) * 100)]:
        if worker in stopped or places[worker] >= min(places) + window:
            continue
        if agreement.agree(worker, num_workers, places[worker]) == places[worker]:
            stopped[worker] = places[worker]
        else:
            places[worker] += 1
    assert len(stopped) == num_workers and len(set(stopped.values())) == 1
    assert stopped[0] >= furthest


def test_a_single_worker_stops_at_its_step() -> None:
    agreement = LocalAgreement()
    agreement.ask()
    assert walk(agreement, 0, 1, 7) == 7


def test_workers_run_to_the_end_if_one_has_finished() -> None:
    agreement = LocalAgreement()
    Stopping(agreement, 0, 2).finish(50)
    agreement.ask()
    assert walk(agreement, 1, 2, 12) == 50


def test_workers_that_are_not_asked_do_not_stop() -> None:
    assert walk_together(LocalAgreement(), [0, 30]) == [50, 50]


def test_before_the_first_step_there_is_nothing_to_save() -> None:
    agreement = LocalAgreement()
    assert not agreement.ask()
    walk(agreement, 0, 1, 3)
    assert agreement.ask()


def test_workers_do_not_wait_for_one_that_ended_or_restarted() -> None:
    """They save nothing, because the checkpoint would never be complete."""
    for end in (LocalAgreement.break_off, lambda agreement: agreement.begin(1)):
        agreement = LocalAgreement()
        agreement.ask()
        end(agreement)
        with pytest.raises(Stopped):
            walk(agreement, 0, 2, 3)


def test_a_restarted_group_starts_a_new_agreement() -> None:
    """In the first group, one worker had finished and another had failed."""
    agreement = LocalAgreement()
    assert not agreement.begin(1)
    walk(agreement, 0, 2, 3)
    agreement.break_off()
    agreement.lose_workers()
    assert not agreement.begin(2)
    agreement.ask()
    ends = set(walk_together(agreement, [11, 13]))
    assert len(ends) == 1 and ends.pop() >= 13


def test_after_the_loss_of_the_workers_there_is_nothing_to_save() -> None:
    agreement = LocalAgreement()
    agreement.begin(1)
    walk(agreement, 0, 1, 3)
    agreement.lose_workers()
    assert not agreement.ask()


def test_the_first_ctrl_c_asks_and_the_second_interrupts(as_before: None, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []
    ask_at_ctrl_c(lambda: bool(asked.append(1)) or True)
    signal.raise_signal(signal.SIGINT)
    assert asked == [1] and "a second signal" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert asked == [1]


def test_ctrl_c_interrupts_at_once_if_there_is_nothing_to_save(as_before: None) -> None:
    ask_at_ctrl_c(lambda: False)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def start(four_digits_store: str, tmp_path: Path, tiny: dict[str, Any]) -> Callable[..., Run]:
    def make(name: str) -> Run:
        config = parse_config({**tiny, "outer_steps": 4, "checkpoint_every": 100})
        return create_run(str(tmp_path / name), config, four_digits_store, device=CPU, threads=1)

    return make


def ask_in_the_middle(monkeypatch: pytest.MonkeyPatch, ask: Callable[[], object]) -> None:
    original = heartbeat.Heartbeat.on_step

    def report(self: Any, step: int, losses: dict[int, float]) -> None:
        original(self, step, losses)
        if step == ASKED_AT and self._shard == 0:
            ask()

    monkeypatch.setattr(heartbeat.Heartbeat, "on_step", report)


@pytest.mark.parametrize("workers", [2, 3])
def test_local_workers_with_producers_stop_and_resume_to_the_same_bits(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, as_before: None, workers: int
) -> None:
    run, whole = start("run"), start("whole")
    spec = replace(run.spec, workers=workers, producers=1)
    LocalBackend().run_workers(whole, spec)
    with monkeypatch.context() as patch:
        ask_in_the_middle(patch, lambda: signal.raise_signal(signal.SIGINT))
        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            LocalBackend().run_workers(run, spec)
        assert signal.getsignal(signal.SIGINT) == before
    assert 16 > run.checkpoints().complete_steps()[-1] > ASKED_AT
    LocalBackend().run_workers(run, replace(spec, workers=1, producers=0))
    assert torch.equal(final_images(run), final_images(whole))
