"""What a distillation will take, from what its steps take: a prediction by the model in `schedule`, no measurement."""

import math
from dataclasses import dataclass, replace

from dream_ray.core.schedule import Schedule, StepCosts, Usage, simulate


@dataclass(frozen=True)
class Forecast:
    """What the model says.

    Attributes:
        wall_s: The whole run.
        step_s: An inner step, on average over the run: its share of warm-ups and selections is in it.
        outer_step_s: An outer step once the schedule repeats itself; of a shorter run, on average.
        worker_waiting: Share of the run in which the average worker does not compute.
        producer_waiting: Likewise of a producer; 0 without one.
        selector_waiting: Likewise of a selector; 0 without one.
        total_bytes: Sent over all links.
        step_bytes: The same for an inner step, on average.
        inline_limit: How many times faster than one worker any number of inline workers can be (Amdahl): all of them
            train the same networks.
    """

    wall_s: float
    step_s: float
    outer_step_s: float
    worker_waiting: float
    producer_waiting: float
    selector_waiting: float
    total_bytes: float
    step_bytes: float
    inline_limit: float


def forecast(costs: StepCosts, schedule: Schedule) -> Forecast:
    """Works out a run; how long that takes depends on workers and networks on the way, not on the length of the run.

    Plays outer steps until the schedule repeats itself, and goes on from there in a straight line.
    """
    # With P producers it repeats itself every P outer steps, once the window is full.
    period = max(1, schedule.producers)
    filling = math.ceil(schedule.window / schedule.inner_steps) if schedule.producers else 0
    played = min(schedule.outer_steps, period * (2 + math.ceil(filling / period)))
    usage = simulate(costs, replace(schedule, outer_steps=played))
    outer_step_s = usage.wall_s / played
    if played < schedule.outer_steps:
        before = simulate(costs, replace(schedule, outer_steps=played - period))
        outer_step_s = (usage.wall_s - before.wall_s) / period
        periods = (schedule.outer_steps - played) / period
        usage = Usage(*(end + periods * (end - start) for end, start in zip(usage, before, strict=True)))
    steps = schedule.outer_steps * schedule.inner_steps
    return Forecast(
        wall_s=usage.wall_s,
        step_s=usage.wall_s / steps,
        outer_step_s=outer_step_s,
        worker_waiting=_waiting(usage.worker_s, schedule.workers, usage.wall_s),
        producer_waiting=_waiting(usage.producer_s, schedule.producers, usage.wall_s),
        selector_waiting=_waiting(usage.selector_s, schedule.selectors, usage.wall_s),
        total_bytes=usage.num_bytes,
        step_bytes=usage.num_bytes / steps,
        inline_limit=inline_limit(costs, schedule),
    )


def inline_limit(costs: StepCosts, schedule: Schedule) -> float:
    """Returns how many times faster than one worker inline workers can become; infinite where networks cost nothing."""
    network_s = schedule.warm_up_share * costs.warm_up_s + (schedule.inner_steps - 1) * costs.update_s
    selections = math.ceil(schedule.inner_steps / schedule.interval)
    work_s = selections * costs.select_s * sum(schedule.class_sizes)
    work_s += schedule.inner_steps * costs.match_s * len(schedule.class_sizes)
    return 1 + work_s / network_s if network_s else math.inf


def _waiting(busy_s: float, processes: int, wall_s: float) -> float:
    # Rounding may make the busy time longer than the run by some bits.
    return max(0.0, 1 - busy_s / (processes * wall_s)) if processes and wall_s else 0.0
