"""The plan of a run: what is measured, and what is made of it."""

from typing import Any

import pytest
import torch

from dream_ray.config import parse_config
from dream_ray.data.store import Store
from dream_ray.engine.launch import Launch
from dream_ray.engine.plan import plan_run
from dream_ray.errors import UsageError

HERE: dict[str, Any] = {"threads": 1, "device": torch.device("cpu")}


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
    assert plan.forecast(workers=20).wall_s > 0, "more workers than classes"


def test_without_k_means_selecting_takes_nothing(tiny: dict[str, Any], digits_store: str) -> None:
    tiny["selection"]["strategy"] = "random"
    plan = plan_run(parse_config(tiny), Store.open(digits_store), Launch(producers=0), **HERE)
    assert plan.costs.select_s == 0 and plan.forecast().total_bytes == 0


def test_what_cannot_be_run_is_refused(tiny: dict[str, Any], digits_store: str) -> None:
    settings = {
        **tiny,
        "selection": {"strategy": "random"},
        "matching": {"real_chunk": 32},
        "network": {"name": "resnet10", "options": {"width": 0.0625}},
    }
    with pytest.raises(UsageError, match=r"workers must be at most the number of classes \(10\) .*batch norm.*got 11"):
        plan_run(parse_config(settings), Store.open(digits_store), Launch(workers=11), **HERE)
