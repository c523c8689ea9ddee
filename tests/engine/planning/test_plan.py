"""The plan of a run: measured costs, and the forecast from them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api
from dream_ray.config import Config, parse_config
from dream_ray.config.frameworks import FRAMEWORKS
from dream_ray.core.selection.strategies import STRATEGIES
from dream_ray.data.store.store import Store
from dream_ray.engine.backend import Producers
from dream_ray.engine.models.pool import with_models
from dream_ray.engine.networks.program_form import ProgramForm
from dream_ray.engine.planning import plan as planning
from dream_ray.engine.planning.forecast import StepCosts
from dream_ray.engine.planning.measuring import steps
from dream_ray.engine.planning.measuring.steps import StepMemory, measure_costs
from dream_ray.engine.planning.plan import plan_run
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.programs import program_choice
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import UsageError
from tests.frameworks import tiny_run
from tests.models import with_untrained

HERE: dict[str, Any] = {"threads": 1, "device": torch.device("cpu")}


def spec_of(config: Config, store: str, workers: int = 1) -> RunSpec:
    return RunSpec(config=config, store=store, out=None, device="cpu", compile="off", workers=workers)


@pytest.fixture
def not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces both measurements by numbers."""
    memory, costs = StepMemory(10**9, 10**9, 0, 0, 10**6, 16), StepCosts(1.0, 8.0, 8.0, 0.5, 1.0, 10**6)
    results = {"measure_memory": memory, "measure_costs": costs}
    monkeypatch.setattr(planning, "in_new_process", lambda measure, *what, **how: results[measure.__name__])


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the steps in this process, because times need no process of their own."""
    monkeypatch.setattr(planning, "in_new_process", lambda measure, *args, **options: measure(*args, **options))
    monkeypatch.setattr(steps, "keep_freed_memory", lambda: None)


@pytest.mark.usefixtures("in_this_process")
def test_costs_of_a_run_follow_from_measured_steps(tiny: dict[str, Any], digits_store: str) -> None:
    update = {**tiny["update"], "warmup_epochs": 2, "epochs": 3}
    config = parse_config({**tiny, "update": update, "initialisation": {"warmup_epochs": 1}})
    store = Store.open(digits_store)
    plan = plan_run(spec_of(config, digits_store, workers=2), Producers(1), cores=3)
    costs = plan.costs
    assert min(costs.update_s, costs.select_s, costs.match_s) > 0
    assert costs.warm_up_s == pytest.approx(2 * costs.first_warm_up_s)
    batches = -(-sum(class_counts(config, store)) // 16)
    assert costs.warm_up_s / costs.update_s == pytest.approx(2 * batches / (3 * 2)), "two batches of 16 make 32 images"
    # ConvNet-2 of width 4: a convolution from 1 channel and one from 4, norms, the classifier.
    assert costs.snapshot_bytes == 4 * ((9 + 1) * 4 + (36 + 1) * 4 + 4 * 4 + (4 * 2 * 2 + 1) * 10)
    assert plan.producers == 1 and plan.memory.ahead == config.inner_steps * costs.snapshot_bytes
    assert plan.forecast().step_bytes > 2 * costs.snapshot_bytes


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_steps_of_every_framework_are_timed(framework: str, digits_store: str, tmp_path: Path) -> None:
    settings = with_untrained(tiny_run(framework, "representative"), digits_store, tmp_path / "model")
    config = with_models(parse_config(settings), Store.open(digits_store))
    costs = measure_costs(config, Store.open(digits_store), **HERE)
    assert costs.match_s > 0
    if config.source.kind == "frozen":  # its networks are never trained, and its frameworks select nothing
        assert costs.first_warm_up_s == costs.update_s == costs.select_s == 0
        return
    assert costs.first_warm_up_s > 0 and costs.snapshot_bytes > 0
    is_timed_by_class = config.matching.objective != "trajectory"
    assert (costs.select_s > 0) == (costs.update_s > 0) == is_timed_by_class


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_is_timed(strategy: str, digits_store: str) -> None:
    config = parse_config(tiny_run("dream_plus", strategy))
    assert measure_costs(config, Store.open(digits_store), **HERE).select_s > 0


@pytest.mark.usefixtures("in_this_process")
def test_without_features_the_selection_takes_no_time(tiny: dict[str, Any], digits_store: str) -> None:
    tiny["selection"]["strategy"] = "random"
    assert measure_costs(parse_config(tiny), Store.open(digits_store), **HERE).select_s == 0


def test_a_run_with_too_many_workers_is_not_planned(tiny: dict[str, Any], digits_store: str) -> None:
    with pytest.raises(UsageError, match=r"workers must be at most the number of classes \(10\); got 11"):
        api.plan(parse_config(tiny), store=digits_store, workers=11)


@pytest.mark.usefixtures("in_this_process")
def test_a_random_network_costs_one_draw(tiny: dict[str, Any], digits_store: str) -> None:
    tiny |= {"source": {"kind": "random"}, "initialisation": {"strategy": "random"}}
    costs = measure_costs(parse_config(tiny), Store.open(digits_store), **HERE)
    assert costs.update_s == costs.warm_up_s == costs.first_warm_up_s > 0
    tiny["initialisation"] = {"strategy": "representative", "warmup_epochs": 2}
    costs = measure_costs(parse_config(tiny), Store.open(digits_store), **HERE)
    assert costs.update_s == costs.warm_up_s
    assert costs.first_warm_up_s > 20 * costs.update_s, "k-means looks through a trained one, after 200 batches"


@pytest.mark.usefixtures("not_measured")
def test_a_refused_number_of_workers_has_no_forecast(tiny: dict[str, Any], digits_store: str) -> None:
    plan = plan_run(spec_of(parse_config(tiny), digits_store), Producers(), cores=1)
    assert plan.forecast(workers=10).wall_s < plan.forecast().wall_s
    with pytest.raises(UsageError, match=r"workers must be at most the number of classes \(10\); got 11"):
        plan.forecast(workers=11)


@pytest.mark.usefixtures("not_measured")
def test_a_plan_counts_the_cores_that_exist(tiny: dict[str, Any], digits_store: str) -> None:
    spec = spec_of(parse_config(tiny), digits_store, workers=2)
    local, two, three = (
        plan_run(replace(spec, local=is_local), Producers(1), cores=cores)
        for is_local, cores in ((True, 2), (False, 2), (False, 3))
    )
    assert local.shares_cores and two.shares_cores and not three.shares_cores
    assert local.forecast().wall_s == two.forecast().wall_s > three.forecast().wall_s
    assert local.forecast(10).wall_s > two.forecast(10).wall_s, "Ray waits until ten workers have a CPU each"


@pytest.mark.usefixtures("not_measured")
def test_a_plan_decides_once_whether_to_compile(
    tiny: dict[str, Any], digits_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tracing the network takes seconds, and a missing compiler gives one warning."""
    asked: list[Any] = []
    timed: list[bool] = []
    measured = planning.in_new_process

    def measure(*what: Any, form: ProgramForm, **how: Any) -> Any:
        timed.append(form.backend is not None)
        return measured(*what, **how)

    monkeypatch.setattr(program_choice, "choose_compile", lambda *what: not asked.append(what))
    monkeypatch.setattr(planning, "in_new_process", measure)
    plan_run(spec_of(parse_config(tiny), digits_store), Producers(), cores=1)
    assert len(asked) == 1 and timed == [True, True]
