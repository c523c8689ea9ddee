"""Losses on their way from the device to the report."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from dream_ray.config import parse_config
from dream_ray.engine.matching.state import ClassState, RunState
from dream_ray.engine.progress import losses as module
from dream_ray.engine.progress.losses import Losses
from dream_ray.errors import RunError

CONFIG = parse_config({"inner_steps": 10})


@dataclass
class Device:
    """A device that works on; its marks are reached when the test says so."""

    marks: int = 0
    reached: int = 0

    def mark(self) -> Any:
        number, self.marks = self.marks, self.marks + 1
        device = self

        class Mark:
            def is_reached(self) -> bool:
                return number < device.reached

        return Mark()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    found = Device()
    monkeypatch.setitem(module.MARKS, "cpu", found.mark)
    return found


@pytest.fixture
def reports() -> list[tuple[int, dict[int, float]]]:
    return []


@pytest.fixture
def losses(reports: list[tuple[int, dict[int, float]]]) -> Losses:
    return Losses(CONFIG, lambda *report: reports.append(report))


def state_of(*labels: int) -> RunState:
    nothing = torch.empty(0)
    return RunState(classes={label: ClassState(torch.ones(2, 1, 4, 4), nothing, nothing, nothing) for label in labels})


def test_losses_are_reported_in_order_once_they_have_arrived(
    device: Device, losses: Losses, reports: list[tuple[int, dict[int, float]]]
) -> None:
    for step in range(3):
        losses.add(step, {3: torch.tensor(step + 0.5), 5: torch.tensor(step + 0.25)})
        losses.send(step)
        losses.report_arrived()
    assert reports == []
    device.reached = 2
    losses.report_arrived()
    assert reports == [(0, {3: 0.5, 5: 0.25}), (1, {3: 1.5, 5: 1.25})]
    device.reached = 3
    losses.report_arrived()
    losses.report_arrived()
    assert reports[2:] == [(2, {3: 2.5, 5: 2.25})]


def test_a_report_has_the_last_loss_of_every_class_and_may_have_none(
    losses: Losses, reports: list[tuple[int, dict[int, float]]]
) -> None:
    losses.add(0, {3: torch.tensor(1.0), 5: torch.tensor(2.0)})
    losses.add(1, {3: torch.tensor(3.0)})
    losses.send(1)
    losses.send(2)
    losses.report_arrived()
    assert reports == [(1, {3: 3.0, 5: 2.0}), (2, {})]


def test_a_loss_that_is_not_finite_is_an_error_that_names_class_and_step(losses: Losses) -> None:
    losses.add(12, {3: torch.tensor(1.0), 5: torch.tensor(torch.nan)})
    losses.send(12)
    with pytest.raises(
        RunError, match=r"loss must be finite; got nan for class 5 at step 12 \(outer step 1, inner step 2"
    ):
        losses.report_arrived()


def test_losses_between_reports_are_checked_before_a_checkpoint(
    losses: Losses, reports: list[tuple[int, dict[int, float]]]
) -> None:
    losses.add(0, {5: torch.tensor(1.0)})
    losses.check_state(state_of(5))
    losses.add(1, {5: torch.tensor(torch.inf)})
    with pytest.raises(RunError, match="loss must be finite"):
        losses.check_state(state_of(5))
    assert reports == []


def test_images_that_are_not_finite_after_the_last_step_are_an_error(losses: Losses) -> None:
    """The loss precedes the move, so it was finite."""
    state = state_of(3, 5)
    losses.add(0, {5: torch.tensor(1.0)})
    losses.check_state(state)
    state.classes[5].images_NCHW[1, 0, 2, 2] = torch.inf
    with pytest.raises(RunError, match="images of class 5 must be finite"):
        losses.check_state(state)
