"""The plan of a run: what is measured, and what is made of it."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dream_ray.config import parse_config
from dream_ray.core.schedule import StepCosts
from dream_ray.data.store import Store
from dream_ray.engine import plan as planning
from dream_ray.engine.launch import Launch
from dream_ray.engine.measuring.costs import Measurement
from dream_ray.engine.network_source import PoolNetworks
from dream_ray.engine.plan import plan_run
from dream_ray.errors import UsageError

HERE: dict[str, Any] = {"threads": 1, "device": torch.device("cpu")}


@pytest.fixture
def not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands numbers in for the measurement."""
    measured = Measurement(StepCosts(1.0, 8.0, 8.0, 0.5, 0.6, 0.4, 1e6), 10**9, 10**9, 0, 16)
    monkeypatch.setattr(planning, "measure_steps", lambda *what, **how: measured)


def test_steps_are_measured_and_put_together(tiny: dict[str, Any], digits_store: str) -> None:
    update = {**tiny["update"], "warmup_epochs": 2, "epochs": 3}
    config = parse_config({**tiny, "update": update, "initialisation": {"warmup_epochs": 1}})
    store = Store.open(digits_store)
    plan = plan_run(config, store, Launch(workers=2), **HERE)
    costs, schedule = plan.costs, plan.schedule
    assert min(costs.update_s, costs.select_s, costs.target_s, costs.move_s) > 0
    num_images = sum(schedule.class_sizes)
    assert costs.warm_up_s == pytest.approx(2 * costs.first_warm_up_s)
    batches = -(-num_images // 16)
    assert costs.warm_up_s / costs.update_s == pytest.approx(2 * batches / (3 * 2)), "two batches of 16 make 32 images"
    # ConvNet-2 of width 4: a convolution from 1 channel and one from 4, norms, the classifier.
    assert costs.snapshot_bytes == 4 * ((9 + 1) * 4 + (36 + 1) * 4 + 4 * 4 + (4 * 2 * 2 + 1) * 10)
    assert (schedule.workers, schedule.producers, schedule.window) == (2, 1, config.inner_steps)
    assert plan.forecast().step_bytes == 2 * costs.snapshot_bytes


def test_without_k_means_selecting_takes_nothing(tiny: dict[str, Any], digits_store: str) -> None:
    tiny["selection"]["strategy"] = "random"
    plan = plan_run(parse_config(tiny), Store.open(digits_store), Launch(producers=0), **HERE)
    assert plan.costs.select_s == 0 and plan.forecast().total_bytes == 0


def test_what_cannot_be_run_is_refused(tiny: dict[str, Any], digits_store: str) -> None:
    with pytest.raises(UsageError, match=r"workers must be at most the number of classes \(10\); got 11"):
        plan_run(parse_config(tiny), Store.open(digits_store), Launch(workers=11), **HERE)


def test_a_network_that_is_drawn_takes_a_draw(tiny: dict[str, Any], digits_store: str) -> None:
    tiny |= {"source": {"kind": "random"}, "initialisation": {"strategy": "random"}}
    costs = plan_run(parse_config(tiny), Store.open(digits_store), Launch(producers=0), **HERE).costs
    assert costs.update_s == costs.warm_up_s == costs.first_warm_up_s > 0
    tiny["initialisation"] = {"strategy": "representative", "warmup_epochs": 2}
    costs = plan_run(parse_config(tiny), Store.open(digits_store), Launch(producers=0), **HERE).costs
    assert costs.update_s == costs.warm_up_s
    assert costs.first_warm_up_s > 20 * costs.update_s, "k-means looks through a trained one, after 200 batches"


@pytest.mark.usefixtures("not_measured")
@pytest.mark.parametrize(("pool_size", "producers"), [(2, 0), (2, 1), (50, 0), (3, 2), (3, 20)])
def test_members_of_a_pool_are_warmed_up_once_by_everybody_who_meets_them(
    tiny: dict[str, Any], digits_store: str, pool_size: int, producers: int
) -> None:
    config = parse_config({**tiny, "outer_steps": 12, "source": {"kind": "pool", "pool_size": pool_size}})
    warmed_up = []

    def warm_up(member: int) -> Iterator[Any]:
        warmed_up.append(member)
        yield SimpleNamespace(state=dict)

    trainers = max(1, producers)
    for first in range(trainers):
        members: Any = SimpleNamespace(trajectory=warm_up)
        goes_on: Any = SimpleNamespace(trajectory=lambda *start: iter(()))
        networks = PoolNetworks(members, goes_on, config.seed, pool_size)
        for outer in range(first, config.outer_steps, trainers):
            networks.trajectory(outer)
    plan = plan_run(config, Store.open(digits_store), Launch(producers=producers), **HERE)
    assert 1 + 11 * plan.schedule.warm_up_share == pytest.approx(len(warmed_up))
    assert plan.costs.warm_up_s == 8.0


@pytest.mark.usefixtures("not_measured")
def test_a_number_of_workers_that_is_refused_has_no_forecast(tiny: dict[str, Any], digits_store: str) -> None:
    plan = plan_run(parse_config(tiny), Store.open(digits_store), Launch(producers=0), **HERE)
    assert plan.forecast(workers=10).wall_s < plan.forecast().wall_s
    with pytest.raises(UsageError, match=r"workers must be at most the number of classes \(10\); got 11"):
        plan.forecast(workers=11)
