"""The seconds of phases, by the clock of the host and by the events of a device."""

from collections.abc import Iterator

import pytest
import torch

from dream_ray.engine.progress import phase_timer
from dream_ray.engine.progress.phase_timer import MARKS, PhaseTimer


class Stream:
    """Work that a device takes from a queue: the host launches it, and the device does it later."""

    def __init__(self) -> None:
        self.queued_s = self.done_s = 0.0

    def launch(self, seconds: float) -> None:
        self.queued_s += seconds


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Stream:
    """A stream whose events stand in for those of CUDA."""
    current = Stream()

    class Event:
        """As of CUDA: without timing there is no time, and the time of events that are not reached is an error."""

        def __init__(self, enable_timing: bool = False) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at_s = current.queued_s

        def query(self) -> bool:
            return self.at_s <= current.done_s

        def elapsed_time(self, later: "Event") -> float:
            assert self.query() and later.query()
            return 1000 * (later.at_s - self.at_s)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    return current


def test_queued_work_is_charged_to_the_phase_that_launched_it(stream: Stream) -> None:
    timer = PhaseTimer(("networks_s", "selecting_s"), MARKS["cuda"])
    for _ in range(2):
        with timer.phase("networks_s"):
            stream.launch(3.0)
        stream.launch(5.0)  # matching
        with timer.phase("selecting_s"):
            stream.launch(1.0)
    expected = [(0.0, 0.0, 0.0), (3.0, 3.0, 0.0), (8.5, 3.0, 0.0), (9.0, 3.0, 1.0), (18.0, 6.0, 2.0)]
    for stream.done_s, networks_s, selecting_s in expected:
        assert timer.read() == {"networks_s": networks_s, "selecting_s": selecting_s}
    assert timer.read() == {"networks_s": 6.0, "selecting_s": 2.0}, "each block counts once"


def test_a_cpu_measures_by_the_clock_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    times: Iterator[float] = iter([10.0, 12.5, 20.0, 21.0, 30.0, 34.0])
    monkeypatch.setattr(phase_timer, "monotonic", lambda: next(times))
    timer = PhaseTimer(("networks_s", "selecting_s"), MARKS["cpu"])
    select = timer.phase("selecting_s")(lambda: "selected")
    assert timer.read() == {"networks_s": 0.0, "selecting_s": 0.0}
    assert select() == "selected"
    with pytest.raises(ZeroDivisionError), timer.phase("networks_s"):
        1 / 0  # noqa: B018 - a block that fails has taken time too
    assert select() == "selected"
    assert timer.read() == {"networks_s": 1.0, "selecting_s": 6.5}
