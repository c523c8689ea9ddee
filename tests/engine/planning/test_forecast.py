"""The closed form of a run's time, against calculations by hand and measured runs."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.report import read_result
from benchmarks.scaling import HALF, ONE, PIPELINED, TWO, Point, predict, recorded_costs
from dream_ray.config import Config, parse_config
from dream_ray.engine.networks.sources import PoolNetworks
from dream_ray.engine.planning.forecast import Forecast, StepCosts, forecast, warm_up_share
from tests.frameworks import tiny_run

COSTS = StepCosts(update_s=3.0, warm_up_s=20.0, first_warm_up_s=50.0, select_s=0.05, match_s=1.0, snapshot_bytes=1000)
COUNTS = [100] * 12
# 4 outer steps of 10 inner steps: 3 warm-ups after the first network, 36 updates.
NETWORKS_S = (3 * 20 + 36 * 3) / 40
# Two selections among 100 images in 10 steps, and a match in each.
CLASS_S = 2 * 100 * 0.05 / 10 + 1


@pytest.fixture
def config(tiny: dict[str, Any]) -> Config:
    changes = {"outer_steps": 4, "inner_steps": 10, "checkpoint_every": 10}
    return parse_config({**tiny, **changes, "selection": {**tiny["selection"], "interval": 5}})


def seen(config: Config, workers: int, producers: int) -> Forecast:
    return forecast(config, COUNTS, COSTS, workers=workers, producers=producers)


@pytest.mark.parametrize(("workers", "most_classes"), [(1, 12), (5, 3), (12, 1)])
def test_without_producers_networks_and_classes_add_up(config: Config, workers: int, most_classes: int) -> None:
    inline = seen(config, workers, 0)
    assert inline.start_s == 50
    assert inline.step_s == pytest.approx(NETWORKS_S + most_classes * CLASS_S)
    assert inline.wall_s == pytest.approx(50 + 40 * inline.step_s)
    assert inline.worker_waiting == pytest.approx(40 * (most_classes - 12 / workers) * CLASS_S / inline.wall_s)
    assert inline.producer_waiting == inline.step_bytes == inline.total_bytes == 0


@pytest.mark.parametrize(("workers", "producers"), [(1, 1), (4, 2)])
def test_with_producers_matching_hides_the_networks(config: Config, workers: int, producers: int) -> None:
    ahead = seen(config, workers, producers)
    assert ahead.step_s == pytest.approx(12 / workers * CLASS_S)
    assert ahead.wall_s == pytest.approx(50 + 40 * ahead.step_s)
    assert ahead.worker_waiting == pytest.approx(50 / ahead.wall_s), "for the first network alone"
    computing_s = (50 + 40 * NETWORKS_S) / producers
    assert ahead.producer_waiting == pytest.approx(1 - computing_s / ahead.wall_s)


def test_with_too_few_producers_workers_wait(config: Config) -> None:
    ahead = seen(config, 12, 1)
    assert ahead.step_s == pytest.approx(NETWORKS_S)
    assert ahead.worker_waiting == pytest.approx(1 - 40 * CLASS_S / ahead.wall_s)
    assert ahead.producer_waiting == pytest.approx(0)
    assert seen(config, 12, 2).step_s == pytest.approx(NETWORKS_S / 2)


def test_each_worker_fetches_a_snapshot_a_step_and_one_a_selection(config: Config) -> None:
    ahead = seen(config, 3, 1)
    assert ahead.total_bytes == 3 * 1000 * (40 + 4 * 2 - 1), "the first selection uses the snapshot of its step"
    assert ahead.step_bytes == ahead.total_bytes / 40
    random = config.model_copy(update={"selection": config.selection.model_copy(update={"strategy": "random"})})
    assert seen(random, 3, 1).total_bytes == 3 * 1000 * 40


def test_a_large_class_sets_the_pace(config: Config) -> None:
    uneven = forecast(config, [4000, 100, 100, 100], COSTS, workers=2, producers=1)
    large_s, small_s = 2 * 4000 * 0.05 / 10 + 1, 3 * CLASS_S
    assert uneven.step_s == pytest.approx(large_s)
    assert uneven.worker_waiting == pytest.approx(1 - 40 * (large_s + small_s) / 2 / uneven.wall_s)


@pytest.mark.parametrize(("workers", "producers", "trainers"), [(2, 1, 1), (1, 2, 1), (3, 0, 3)])
def test_three_processes_on_two_cores_take_the_time_of_two(
    config: Config, workers: int, producers: int, trainers: int
) -> None:
    own = seen(config, workers, producers)
    shared = forecast(config, COUNTS, COSTS, workers=workers, producers=producers, slots=2)
    computing_s = trainers * (50 + 40 * NETWORKS_S) + 40 * 12 * CLASS_S
    assert shared.wall_s == pytest.approx(max(own.wall_s, computing_s / 2))
    assert shared.step_s == pytest.approx((shared.wall_s - 50) / 40)
    assert shared.worker_waiting == own.worker_waiting, "a process without a core is not one that waits for another"


def test_the_speed_up_without_producers_is_limited(config: Config) -> None:
    limit = seen(config, 1, 0).inline_limit
    assert limit == pytest.approx(seen(config, 1, 0).wall_s / seen(config, 12, 0).wall_s)
    assert limit < 12
    assert seen(config, 4, 2).inline_limit == limit


def test_a_pool_member_is_warmed_up_once(config: Config) -> None:
    pool = config.model_copy(update={"source": config.source.model_copy(update={"kind": "pool", "pool_size": 1})})
    assert warm_up_share(pool, 0) == warm_up_share(pool, 1) == 0
    assert warm_up_share(pool, 3) == pytest.approx(2 / 3), "each producer warms up the only member"
    assert seen(pool, 12, 0).step_s == pytest.approx(36 * 3 / 40 + CLASS_S)
    assert warm_up_share(config, 0) == 1


@pytest.mark.parametrize(("pool_size", "producers"), [(2, 0), (2, 1), (50, 0), (3, 2), (3, 20)])
def test_each_process_warms_up_its_pool_members_once(tiny: dict[str, Any], pool_size: int, producers: int) -> None:
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
    assert 1 + 11 * warm_up_share(config, producers) == pytest.approx(len(warmed_up))


def test_trajectory_matching_divides_the_segments() -> None:
    settings = tiny_run("mtt", "random")
    config = parse_config({**settings, "trajectory": {**settings.get("trajectory", {}), "segments": 3}})
    costs = StepCosts(0.0, 0.0, 100.0, 0.0, 2.0, 1000)
    one, two = (forecast(config, [10] * 4, costs, workers=workers, producers=0) for workers in (1, 2))
    assert (one.start_s, one.step_s, two.step_s) == (100, 6, 4)
    assert two.wall_s == pytest.approx(100 + 4 * config.total_steps)
    assert one.inline_limit == pytest.approx((100 + 6 * config.total_steps) / (100 + 2 * config.total_steps))


@pytest.mark.parametrize("point", [ONE, HALF, TWO, PIPELINED], ids=lambda point: point.name)
def test_measured_runs_take_2_to_7_percent_longer(point: Point) -> None:
    measured = read_result("scaling-cpu")["measured"]
    run = measured["points"][point.name]
    predicted = predict(point, recorded_costs(measured["step_costs"]))
    assert 0.015 < run["wall_s"] / predicted.wall_s - 1 < 0.075
    assert run["predicted_s"] == pytest.approx(predicted.wall_s)
    assert predicted.step_bytes == pytest.approx(run["bytes_per_inner_step"])
    assert abs(predicted.worker_waiting - run["waiting"]) < 0.03
