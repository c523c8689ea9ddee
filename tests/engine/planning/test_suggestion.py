"""Suggested settings, by tables: from facts of stores, time budgets and step times."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dream_ray import api
from dream_ray.config import PRESETS, Config, load_config, parse_config
from dream_ray.config.sections import Evaluation
from dream_ray.data.store.store import Store
from dream_ray.engine.planning import suggest
from dream_ray.engine.planning.forecast import Forecast, StepCosts, forecast
from dream_ray.engine.planning.suggestion import StoreFacts, config_of, suggest_steps, suggest_values
from dream_ray.errors import UsageError

PATHS = (
    *("ipc", "factor", "network.options.depth", "pixels.lr", "selection.num_clusters"),
    *("update.num_images", "update.batch_size"),
)


def facts(side: int, counts: list[int], *, channels: int = 3, test: int = 10, validation: int = 0) -> StoreFacts:
    splits = {"train": counts, "validation": [validation] * len(counts), "test": [test] * len(counts)}
    return StoreFacts(side, channels, splits, [f"class {label}" for label in range(len(counts))])


def chosen(store: StoreFacts, given: dict[str, Any] | None = None, *, on_gpu: bool = False) -> dict[str, Any]:
    return {one.path: one.value for one in suggest_values(store, given or {}, on_gpu=on_gpu)}


@pytest.mark.parametrize(
    ("name", "side", "counts", "expected"),
    [
        ("CIFAR-10, as published", 32, [5000] * 10, (10, 2, 3, 0.005, 128, 2000, 128)),
        ("CIFAR-100", 32, [500] * 100, (10, 2, 3, 0.005, 64, 2000, 128)),
        ("Tiny-ImageNet", 64, [500] * 200, (10, 2, 4, 0.02, 64, 2000, 128)),
        ("ImageNet-10", 224, [1300] * 10, (10, 3, 6, 0.245, 128, 520, 64)),
        ("unbalanced photographs", 64, [11, 40, 95, 120, 180, 270], (10, 2, 4, 0.02, 16, 256, 64)),
        ("twelve photographs in a class", 96, [12] * 4, (3, 2, 5, 0.0135, 16, 48, 48)),
        ("three in a class", 64, [3] * 2, (3, 1, 4, 0.006, 16, 6, 6)),
        ("one in a class", 64, [1, 1], (1, 1, 4, 0.002, 16, 2, 2)),
        ("tiny images", 8, [144] * 10, (10, 1, 2, 0.005 * (28 / 32) ** 2, 16, 256, 64)),
        ("two pixels", 2, [144] * 10, (10, 1, 1, 0.005 * (28 / 32) ** 2, 16, 256, 64)),
    ],
)
def test_values_follow_the_store(name: str, side: int, counts: list[int], expected: tuple[float, ...]) -> None:
    found = chosen(facts(side, counts))
    assert tuple(found[path] for path in PATHS) == pytest.approx(expected)


@pytest.mark.parametrize("preset", ["cifar10-ipc10", "cifar100-ipc10"])
def test_the_rules_give_published_settings(preset: str) -> None:
    stated = PRESETS[preset].stated
    found = chosen(facts(32, [5000] * 10 if preset == "cifar10-ipc10" else [5000] * 100), on_gpu=True)
    assert found.keys() - stated.keys() == {"ipc", "factor"}
    assert {path: found[path] for path in found.keys() & stated.keys()} == {
        path: one.value for path, one in stated.items() if path in found
    }


def test_grey_images_have_the_distance_and_rate_of_mnist() -> None:
    found, mnist = chosen(facts(28, [6000] * 10, channels=1)), PRESETS["mnist-ipc10"].stated
    assert all(found[path] == mnist[path].value for path in ("matching.distance", "pixels.lr"))


def test_other_values_follow_given_ones() -> None:
    found = chosen(facts(32, [5000] * 10), {"ipc": 1, "factor": 1, "update.num_images": 77})
    assert (found["pixels.lr"], found["ipc"], found["update.num_images"]) == (0.0005, 1, 77)


def test_the_whole_set_is_trained_on_as_many_images_as_the_distilled_one() -> None:
    small = chosen(facts(64, [61] * 4))
    epochs = small["evaluation.whole_set_epochs"] // 10
    decoded = 4 * small["ipc"] * small["factor"] ** 2
    assert (epochs - 1) * 244 < Evaluation().quick_epochs * decoded <= epochs * 244
    assert "evaluation.whole_set_epochs" not in chosen(facts(32, [5000] * 10))


def test_reasons_say_what_a_small_class_means() -> None:
    why = {one.path: one.why for one in suggest_values(facts(64, [15, 90, 90]), {}, on_gpu=False)}
    assert (
        why["ipc"].endswith("with the 15 images of 'class 0', some tiles repeat")
        and why["update.num_images"] == "all images"
    )


def test_without_a_test_split_validation_stays_unseen() -> None:
    assert chosen(facts(32, [50] * 4, test=0, validation=5))["data.include_validation"] is False
    assert facts(32, [50] * 4, test=0, validation=5).distilled == [50] * 4
    assert facts(32, [50] * 4, validation=5).distilled == [55] * 4
    for store in (facts(32, [50] * 4, validation=5), facts(32, [50] * 4, test=0)):
        assert "data.include_validation" not in chosen(store)


@pytest.mark.parametrize("side", [8, 28, 32, 64, 224])
def test_every_value_has_a_reason_and_all_keep_the_rules(side: int) -> None:
    choices = suggest_values(facts(side, [11, 90, 200]), {}, on_gpu=False)
    assert all(one.why and "\n" not in one.why for one in choices)
    config_of(choices)


COSTS = StepCosts(update_s=0.1, warm_up_s=2.0, first_warm_up_s=2.0, select_s=0.0, match_s=0.25, snapshot_bytes=1)


def predicting(costs: StepCosts) -> Callable[[Config], Forecast]:
    return lambda config: forecast(config, [50] * 4, costs, workers=1, producers=0)


@pytest.mark.parametrize(
    ("budget_s", "costs", "given", "expected"),
    [
        # The start takes 2 s, a step 1 s for four classes and 0.1 s for the network.
        (4, COSTS, {}, (1, 1, 1)),
        (20, COSTS, {}, (1, 14, 14)),
        (200, COSTS, {}, (7, 20, 50)),
        (10**9, COSTS, {}, (2000, 20, 50)),
        (200, COSTS, {"inner_steps": 5}, (24, 5, 41)),
        (2000, replace(COSTS, warm_up_s=11.0), {}, (23, 60, 47)),
        (10**4, replace(COSTS, warm_up_s=1000.0), {}, (9, 100, 6)),
        (2000, replace(COSTS, match_s=10.0), {}, (2, 20, 1)),
    ],
)
def test_steps_fill_the_time_budget(
    budget_s: float, costs: StepCosts, given: dict[str, Any], expected: tuple[int, int, int]
) -> None:
    config, predict = parse_config({**given}), predicting(costs)
    found = {one.path: one.value for one in suggest_steps(config, given, predict, costs.warm_up_s, budget_s)}
    assert tuple(found.values()) == expected
    more = {"outer_steps": found["outer_steps"] + 1}
    if found["outer_steps"] < 2000:
        assert predict(config.model_copy(update=found)).wall_s <= 0.9 * budget_s
        assert predict(config.model_copy(update={**found, **more})).wall_s > 0.9 * budget_s


@pytest.mark.parametrize(
    ("given", "least"), [({}, r"3\.33 s.*first step"), ({"inner_steps": 3}, r"5\.78 s.*outer step")]
)
def test_a_budget_below_one_step_is_refused_with_the_number(given: dict[str, Any], least: str) -> None:
    config = parse_config({**given})
    with pytest.raises(UsageError, match=f"time-budget must be at least {least}.*got 3 s"):
        suggest_steps(config, given, predicting(COSTS), COSTS.warm_up_s, 3)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the measurement by numbers."""
    monkeypatch.setattr(suggest, "measure_costs", lambda *what, **how: COSTS)


@pytest.mark.usefixtures("timed")
def test_a_suggestion_is_a_file_that_reads_back_equal(four_digits_store: str, tmp_path: Any) -> None:
    found = api.suggest(four_digits_store, time_budget="5min", ipc=3, assignments=["update.epochs=2"])
    path = tmp_path / "settings.yaml"
    path.write_text(found.to_yaml())
    assert load_config(file=str(path)) == found.config
    assert re.search(r"\nipc +3 +as given\n", repr(found)), "a table"
    assert (found.config.ipc, found.config.update.epochs, found.measured) == (3, 2, None)
    assert found.forecast.wall_s <= 270
    counts = Store.open(four_digits_store).manifest.counts
    assert found.config.data.include_validation == any(counts["test"])


@pytest.mark.usefixtures("timed")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"time_budget": "1s"}, r"time-budget must be at least 3\.\d+ s"),
        ({"time_budget": "soon"}, "time-budget must be a time such as 30s, 10min or 2h; got 'soon'"),
        ({"assignments": ["outer_steps=3"]}, "outer_steps must be left to the time budget"),
        ({"assignments": ["lr=3"]}, "did you mean pixels.lr or update.lr or evaluation.lr"),
        ({"ipc": 0}, "ipc must follow the rule"),
        ({"workers": 5}, r"workers must be at most the number of classes \(4\); got 5"),
    ],
)
def test_a_wrong_argument_is_refused(four_digits_store: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        api.suggest(four_digits_store, **arguments)
