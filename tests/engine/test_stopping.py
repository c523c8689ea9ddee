"""Workers that are asked to stop save at one step, and what comes of the run afterwards is the same to the bit."""

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
    """Takes steps until it is to stop, and returns where that is."""
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
def test_all_stop_at_one_step_whoever_waits_for_whom(starts: list[int], turns: list[int], window: int) -> None:
    """Nobody gets networks that lie further ahead of the slowest, so that who is ahead may be unable to say so."""
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


def test_one_worker_stops_where_it_is() -> None:
    agreement = LocalAgreement()
    agreement.ask()
    assert walk(agreement, 0, 1, 7) == 7


def test_who_has_come_to_the_end_lets_the_others_get_there() -> None:
    agreement = LocalAgreement()
    Stopping(agreement, 0, 2).finish(50)
    agreement.ask()
    assert walk(agreement, 1, 2, 12) == 50


def test_nobody_stops_who_is_not_asked() -> None:
    assert walk_together(LocalAgreement(), [0, 30]) == [50, 50]


def test_nothing_is_to_be_saved_before_the_first_step() -> None:
    agreement = LocalAgreement()
    assert not agreement.ask()
    walk(agreement, 0, 1, 3)
    assert agreement.ask()


def test_nobody_waits_for_one_that_ended_or_began_again() -> None:
    """Nor is anything saved: it would never be whole."""
    for end in (LocalAgreement.break_off, lambda agreement: agreement.begin(1)):
        agreement = LocalAgreement()
        agreement.ask()
        end(agreement)
        with pytest.raises(Stopped):
            walk(agreement, 0, 2, 3)


def test_a_group_that_was_started_again_knows_nothing_of_the_one_before() -> None:
    """One of the first had come to the end, and another had failed."""
    agreement = LocalAgreement()
    assert not agreement.begin(1)
    walk(agreement, 0, 2, 3)
    agreement.break_off()
    agreement.lose_workers()
    assert not agreement.begin(2)
    agreement.ask()
    ends = set(walk_together(agreement, [11, 13]))
    assert len(ends) == 1 and ends.pop() >= 13


def test_nothing_is_to_be_saved_while_no_worker_lives() -> None:
    agreement = LocalAgreement()
    agreement.begin(1)
    walk(agreement, 0, 1, 3)
    agreement.lose_workers()
    assert not agreement.ask()


def test_the_first_ctrl_c_asks_and_the_second_ends(as_before: None, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[int] = []
    ask_at_ctrl_c(lambda: bool(asked.append(1)) or True)
    signal.raise_signal(signal.SIGINT)
    assert asked == [1] and "Ctrl-C again" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert asked == [1]


def test_ctrl_c_ends_at_once_where_nothing_is_to_be_saved(as_before: None) -> None:
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
def test_workers_with_networks_made_ahead(
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
