"""The model of a run: closed forms, a recurrence as an oracle, bounds that hold for any costs."""

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.core.forecast import forecast, inline_limit
from dream_ray.core.placement import place_classes
from dream_ray.core.schedule import Schedule, StepCosts, simulate
from dream_ray.core.timeline import Pause, Process, Signal, Timeline, Work
from dream_ray.errors import UsageError

COSTS = StepCosts(
    update_s=3.0, warm_up_s=20.0, first_warm_up_s=20.0, select_s=5.0, target_s=0.6, move_s=0.4, snapshot_bytes=1e6
)
NETWORK_S, SELECT_S, MATCH_S = 20.0 + 9 * 3.0, 2 * 5.0, 10 * 1.0  # of an outer step; the last two of a class
SCHEDULE = Schedule(outer_steps=4, inner_steps=10, interval=5, class_sizes=(1.0,) * 12, workers=1, window=10)


def wall_s(costs: StepCosts = COSTS, **changes: Any) -> float:
    return simulate(costs, replace(SCHEDULE, **changes)).wall_s


def test_one_inline_worker_takes_the_sum() -> None:
    usage = simulate(COSTS, SCHEDULE)
    assert usage.wall_s == pytest.approx(4 * (NETWORK_S + 12 * (SELECT_S + MATCH_S)))
    assert usage.worker_s == pytest.approx(usage.wall_s)
    assert usage.num_bytes == usage.producer_s == usage.selector_s == 0


@pytest.mark.parametrize("workers", [2, 3, 4, 6, 12])
def test_inline_workers_divide_the_classes_and_repeat_the_networks(workers: int) -> None:
    assert wall_s(workers=workers) == pytest.approx(4 * (NETWORK_S + 12 * (SELECT_S + MATCH_S) / workers))


def test_inline_workers_come_near_the_limit_and_not_beyond() -> None:
    limit = inline_limit(COSTS, SCHEDULE)
    assert limit == pytest.approx(1 + 12 * (SELECT_S + MATCH_S) / NETWORK_S)
    assert wall_s() / wall_s(workers=12) < limit
    many = replace(SCHEDULE, class_sizes=(1.0,) * 600)
    ratio = simulate(COSTS, many).wall_s / simulate(COSTS, replace(many, workers=600)).wall_s
    assert ratio < inline_limit(COSTS, many)


def test_a_first_warm_up_of_its_own() -> None:
    longer = replace(COSTS, first_warm_up_s=120.0)
    assert wall_s(longer) == pytest.approx(wall_s() + 100)
    assert wall_s(longer, producers=1) == pytest.approx(wall_s(producers=1) + 100)


@pytest.mark.parametrize(("workers", "producers"), [(1, 1), (4, 1), (4, 2), (12, 1), (12, 2), (12, 4)])
def test_a_pipeline_goes_at_the_pace_of_its_slower_half(workers: int, producers: int) -> None:
    seen = forecast(COSTS, replace(SCHEDULE, outer_steps=400, workers=workers, producers=producers, window=50))
    slower = max(NETWORK_S / producers, 12 * (SELECT_S + MATCH_S) / workers)
    assert seen.outer_step_s == pytest.approx(slower)
    assert seen.wall_s == pytest.approx(400 * slower, rel=0.01)
    assert min(seen.worker_waiting, seen.producer_waiting) == pytest.approx(0, abs=0.01)


def test_a_window_of_one_overlaps_one_network_with_one_match() -> None:
    """A network waits for the last worker to ask for it; the next one is trained meanwhile."""
    costs = replace(COSTS, warm_up_s=3.0, first_warm_up_s=3.0, select_s=0.0)
    assert wall_s(costs, producers=1, window=1) == pytest.approx(3 + 40 * 12)
    assert wall_s(costs, producers=1, window=1, workers=12) == pytest.approx(40 * 3 + 1)
    travelling = {"bandwidth": 1e6, "latency_s": 0.5}  # 1.5 s for a network
    assert wall_s(costs, producers=1, window=1, **travelling) == pytest.approx(3 + 40 * 13.5)


def test_long_warm_ups_are_hidden_by_enough_producers_however_small_the_window() -> None:
    costs, matching = replace(COSTS, warm_up_s=1000.0), 12 * (SELECT_S + MATCH_S)
    few, enough = (forecast(costs, replace(SCHEDULE, outer_steps=100, producers=count, window=2)) for count in (1, 6))
    assert few.outer_step_s > 1000
    # One of six is busy with the trajectory that is matched; the other five have five of those times for a warm-up.
    assert enough.outer_step_s == pytest.approx(matching)


def test_a_link_serves_one_after_the_other() -> None:
    costs = replace(COSTS, update_s=0.0, warm_up_s=0.0, first_warm_up_s=0.0, select_s=0.0)
    assert wall_s(costs, producers=1, workers=12, bandwidth=1e6) == pytest.approx(40 * 12 + 1), "12 MB a step"
    usage = simulate(costs, replace(SCHEDULE, producers=1, workers=12, bandwidth=1e6))
    assert usage.num_bytes == 40 * 12 * 1e6


def test_everybody_waits_for_the_straggler() -> None:
    """One large class: its worker does nothing else, and the others are at most a window ahead of it."""
    sizes = (30.0, *(1.0,) * 3)
    changes = {"class_sizes": sizes, "workers": 2, "producers": 1, "window": 10}
    slow = 10 * 1 + 2 * 30 * 5
    seen = forecast(COSTS, replace(SCHEDULE, outer_steps=100, **changes))
    assert seen.outer_step_s == pytest.approx(slow)
    fast = 10 * 3 + 2 * 3 * 5
    assert seen.worker_waiting == pytest.approx(1 - (slow + fast) / (2 * slow), abs=0.01)


def test_selectors_take_the_selection_off_the_workers() -> None:
    changes: dict[str, Any] = {"outer_steps": 200, "producers": 2, "workers": 4, "window": 40}
    inside = forecast(COSTS, replace(SCHEDULE, **changes))
    ahead = forecast(COSTS, replace(SCHEDULE, **changes, selectors=6))
    assert inside.outer_step_s == pytest.approx(12 * (SELECT_S + MATCH_S) / 4)
    assert ahead.outer_step_s == pytest.approx(max(NETWORK_S / 2, 12 * SELECT_S / 6, 12 * MATCH_S / 4))
    assert ahead.step_bytes == pytest.approx(inside.step_bytes + 6 * 1e6 * 2 / 10), "two selections of ten steps"


def test_networks_that_are_known_are_not_warmed_up() -> None:
    pool = replace(SCHEDULE, outer_steps=41, warm_up_share=0.1)
    networks = 20.0 + 40 * 2.0 + 41 * 9 * 3.0
    assert simulate(COSTS, pool).wall_s == pytest.approx(networks + 41 * 12 * (SELECT_S + MATCH_S))
    assert forecast(COSTS, pool).wall_s == pytest.approx(networks + 41 * 12 * (SELECT_S + MATCH_S))
    assert inline_limit(COSTS, pool) == pytest.approx(1 + 12 * (SELECT_S + MATCH_S) / (2.0 + 9 * 3.0))


def test_processes_share_cores_evenly() -> None:
    ended: dict[str, float] = {}
    timeline = Timeline(cores=2)
    signal = Signal()

    def process(name: str, *requests: Work | Pause | Signal) -> Process:
        yield from requests
        ended[name] = timeline.now
        if name == "a":
            timeline.give(signal)

    timeline.start(process("a", Work(2)))
    timeline.start(process("b", Work(2), Pause(1), Work(1)))
    timeline.start(process("c", Work(4)))
    timeline.start(process("d", signal, Work(1)))
    timeline.run()
    # Three on two cores until a and b have 2 at t = 3; then c and d alone, and c with b, which is back at t = 4.
    assert ended == {"a": pytest.approx(3), "b": pytest.approx(5), "c": pytest.approx(5), "d": pytest.approx(4)}


def test_on_one_core_nothing_is_gained() -> None:
    work = 4 * 12 * (SELECT_S + MATCH_S)
    assert wall_s(producers=1, cores=1) == pytest.approx(4 * NETWORK_S + work)
    assert wall_s(workers=3, producers=1, cores=1) == pytest.approx(4 * NETWORK_S + work)
    assert wall_s(workers=3, cores=1) == pytest.approx(3 * 4 * NETWORK_S + work)


def recurrence(costs: StepCosts, schedule: Schedule) -> float:
    """The pipelined schedule written as maxima and sums, networks in order; for links of unlimited bandwidth."""
    of_interval = [size * costs.select_s + schedule.interval * costs.match_s for size in schedule.class_sizes]
    loads = [
        (sum(schedule.class_sizes[label] for label in labels) * costs.select_s, len(labels) * costs.match_s)
        for labels in place_classes(of_interval, schedule.workers)
    ]
    ends = [[0.0] * len(loads)]  # ends[g][w]: worker w asks for network g
    free, made = [0.0] * schedule.producers, 0.0
    for outer in range(schedule.outer_steps):
        for inner in range(schedule.inner_steps):
            step = outer * schedule.inner_steps + inner
            room = max(ends[max(0, step - schedule.window + 1)])
            if inner == 0:
                who = min(range(len(free)), key=free.__getitem__)
                began = free[who]
                training = schedule.warm_up_share * costs.warm_up_s if outer else costs.first_warm_up_s
            else:
                began, training = made, costs.update_s
            made = max(began + training, room)
            select = inner % schedule.interval == 0
            ends.append(
                [
                    max(asked, made) + schedule.latency_s + match_s + select * select_s
                    for asked, (select_s, match_s) in zip(ends[-1], loads, strict=True)
                ]
            )
        free[who] = made
    return max(ends[-1])


SECONDS = st.floats(0, 10, allow_subnormal=False)
ALL_COSTS = st.builds(
    StepCosts,
    update_s=SECONDS,
    warm_up_s=SECONDS,
    first_warm_up_s=SECONDS,
    select_s=SECONDS,
    target_s=SECONDS,
    move_s=SECONDS,
    snapshot_bytes=st.floats(0, 1e6),
)
SCHEDULES = st.builds(
    Schedule,
    outer_steps=st.integers(1, 5),
    inner_steps=st.integers(1, 6),
    interval=st.integers(1, 4),
    class_sizes=st.lists(st.floats(0, 3), min_size=4, max_size=7).map(tuple),
    workers=st.integers(1, 4),
    warm_up_share=st.floats(0, 1),
    producers=st.integers(1, 3),
    window=st.integers(1, 12),
    latency_s=SECONDS,
)


@given(costs=ALL_COSTS, schedule=SCHEDULES)
def test_events_agree_with_the_recurrence(costs: StepCosts, schedule: Schedule) -> None:
    assert simulate(costs, schedule).wall_s == pytest.approx(recurrence(costs, schedule), rel=1e-9, abs=1e-9)


@given(
    costs=ALL_COSTS,
    schedule=SCHEDULES,
    producers=st.integers(0, 3),
    workers=st.integers(1, 4),
    cores=st.sampled_from([1.0, 2.0, 3.5, math.inf]),
    bandwidth=st.sampled_from([1e5, 1e6, math.inf]),
)
def test_work_is_conserved_and_bounds_hold(
    costs: StepCosts, schedule: Schedule, producers: int, workers: int, cores: float, bandwidth: float
) -> None:
    schedule = replace(schedule, producers=producers, workers=workers, cores=cores, bandwidth=bandwidth)
    outer, inner = schedule.outer_steps, schedule.inner_steps
    usage = simulate(costs, schedule)
    warm_ups = (outer - 1) * schedule.warm_up_share * costs.warm_up_s
    network = costs.first_warm_up_s + warm_ups + outer * (inner - 1) * costs.update_s
    selecting = outer * math.ceil(inner / schedule.interval) * costs.select_s * sum(schedule.class_sizes)
    matching = outer * inner * costs.match_s * len(schedule.class_sizes)
    everything = (1 if producers else workers) * network + selecting + matching
    tight = {"rel": 1e-9, "abs": 1e-6}
    if cores == math.inf:
        # Shared cores make it longer, never less; without sharing every second of work is there exactly once.
        assert usage.worker_s + usage.producer_s == pytest.approx(everything, **tight)
        assert usage.producer_s == pytest.approx(network if producers else 0, **tight)
    slack = 1 + 1e-9
    assert usage.wall_s * slack + 1e-6 >= everything / min(cores, workers + producers)
    assert usage.wall_s * slack + 1e-6 >= network / max(1, producers)
    seen = forecast(costs, schedule)
    assert 0 <= seen.worker_waiting <= 1 and 0 <= seen.producer_waiting <= 1


@given(costs=ALL_COSTS, schedule=SCHEDULES)
def test_more_producers_room_or_haste_never_slow_a_run_down(costs: StepCosts, schedule: Schedule) -> None:
    now = simulate(costs, schedule).wall_s
    most = now * (1 + 1e-9) + 1e-9
    assert simulate(costs, replace(schedule, producers=schedule.producers + 1)).wall_s <= most
    assert simulate(costs, replace(schedule, window=schedule.window + 1)).wall_s <= most
    assert simulate(costs, replace(schedule, latency_s=schedule.latency_s / 2)).wall_s <= most
    assert simulate(replace(costs, update_s=costs.update_s / 2), schedule).wall_s <= most


@given(costs=ALL_COSTS, schedule=SCHEDULES)
def test_a_faster_link_never_slows_a_run_down(costs: StepCosts, schedule: Schedule) -> None:
    schedule = replace(schedule, producers=1)
    walls = [simulate(costs, replace(schedule, bandwidth=b)).wall_s for b in (1e5, 3e5, 1e6, math.inf)]
    assert all(later <= earlier * (1 + 1e-9) + 1e-9 for earlier, later in zip(walls, walls[1:], strict=False))


@settings(max_examples=30)
@given(costs=ALL_COSTS, schedule=SCHEDULES, outer_steps=st.integers(20, 40))
def test_a_long_run_goes_on_in_a_straight_line(costs: StepCosts, schedule: Schedule, outer_steps: int) -> None:
    schedule = replace(schedule, outer_steps=outer_steps)
    costs = replace(costs, first_warm_up_s=schedule.warm_up_share * costs.warm_up_s)
    seen, whole = forecast(costs, schedule), simulate(costs, schedule)
    outer_step_s = seen.outer_step_s * schedule.producers
    assert abs(seen.wall_s - whole.wall_s) <= outer_step_s + 1e-6, "at most the outer steps that are on the way"
    assert seen.total_bytes == pytest.approx(whole.num_bytes)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("workers", 0, "int >= 1"),
        ("window", 0, "int >= 1"),
        ("warm_up_share", 1.5, "from 0 to 1"),
        ("producers", -1, ">= 0"),
        ("cores", 0, "> 0"),
        ("bandwidth", math.nan, "> 0"),
        ("class_sizes", (), "at least one"),
        ("selectors", 2, "need producers"),
    ],
)
def test_what_no_run_can_be_is_refused(name: str, value: Any, rule: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} (must be )?.*{rule}"):
        replace(SCHEDULE, **{name: value})


@pytest.mark.parametrize("value", [-1.0, math.inf, math.nan])
def test_costs_are_numbers(value: float) -> None:
    with pytest.raises(UsageError, match=r"update_s must be a finite number >= 0; got"):
        replace(COSTS, update_s=value)
