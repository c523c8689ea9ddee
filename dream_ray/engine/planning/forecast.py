"""The time of a run, as a closed form of the times of its steps.

An inner step takes `max(networks / producers, classes / workers)`: the training of the networks, divided among the
producers, overlaps with the matching of the most loaded worker. Without producers, every worker trains its own networks
and the two add up. Selections are averaged over their interval, warm-ups over the run. If there are fewer cores than
processes, the run takes at least the computing time of all processes divided by the cores.

The form excludes start-up, reading, checkpoints and the bound of the snapshot queue. Measured runs took 2 to 7 % longer
(docs/explanation/scaling.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dream_ray.config import Config
from dream_ray.engine.networks.sources import pool_member
from dream_ray.engine.run.class_costs import num_selections, placement


@dataclass(frozen=True)
class StepCosts:
    """Times of the steps of a run on a core or device of their own, in seconds.

    Attributes:
        update_s: The training of a network between two inner steps.
        warm_up_s: The training of a network before an outer step.
        first_warm_up_s: The training of the first network, or of all experts.
        select_s: The selection among the real images of a class, per image.
        match_s: A matching step of a class, or of all classes for a trajectory segment.
        snapshot_bytes: Size of a network snapshot.
    """

    update_s: float
    warm_up_s: float
    first_warm_up_s: float
    select_s: float
    match_s: float
    snapshot_bytes: float


@dataclass(frozen=True)
class Forecast:
    """The prediction of the closed form for a run.

    Attributes:
        start_s: Seconds before the first step, to train the first network or all experts.
        step_s: Seconds of an inner step.
        wall_s: Seconds of the whole run.
        worker_waiting: Fraction of the run that the average worker waits for networks or other workers, not for a core.
        producer_waiting: Fraction of the run that the average producer waits for workers; 0 without producers.
        step_bytes: Bytes of the snapshots that workers fetch from producers, per inner step.
        total_bytes: Bytes of the snapshots that workers fetch from producers in the whole run.
        inline_limit: Speedup over one worker, without producers, with as many workers as classes or trajectory
            segments. It is limited because every worker trains the same networks.
    """

    start_s: float
    step_s: float
    wall_s: float
    worker_waiting: float
    producer_waiting: float
    step_bytes: float
    total_bytes: float
    inline_limit: float


def forecast(
    config: Config,
    counts: Sequence[int],
    costs: StepCosts,
    *,
    workers: int,
    producers: int,
    slots: float = math.inf,
) -> Forecast:
    """Predicts a run.

    Args:
        config: Settings.
        counts: Real images of each class, by label.
        costs: Times of the steps.
        workers: Workers, at most as many as classes or trajectory segments.
        producers: Producers that train the networks ahead of the workers; 0: every worker trains them itself.
        slots: Processes that can compute at a time: cores that exist, divided by the threads of a process.
    """
    steps, start_s = config.total_steps, costs.first_warm_up_s
    networks_s = _networks_s(config, costs, producers)
    loads_s = _loads_s(config, counts, costs, workers)
    mean_load_s = sum(loads_s) / workers
    if producers:
        step_s, worker_s = max(networks_s / producers, max(loads_s)), steps * mean_load_s
    else:
        step_s, worker_s = networks_s + max(loads_s), start_s + steps * (networks_s + mean_load_s)
    wall_s = start_s + steps * step_s
    trainers = 1 if producers else workers
    computing_s = trainers * (start_s + steps * networks_s) + steps * sum(loads_s)
    shared_s = max(wall_s, computing_s / slots)
    producer_s = (start_s + steps * networks_s) / producers if producers else wall_s
    # A worker fetches a snapshot for each step, and one for each selection but the first.
    fetches = steps + max(0, config.outer_steps * num_selections(config) - 1)
    total_bytes = workers * fetches * costs.snapshot_bytes if producers else 0.0
    return Forecast(
        start_s=start_s,
        step_s=step_s + (shared_s - wall_s) / steps,
        wall_s=shared_s,
        worker_waiting=_share_of_waiting(worker_s, wall_s),
        producer_waiting=_share_of_waiting(producer_s, wall_s),
        step_bytes=total_bytes / steps,
        total_bytes=total_bytes,
        inline_limit=_inline_limit(config, counts, costs),
    )


def warm_up_share(config: Config, producers: int) -> float:
    """Returns the fraction of the outer steps after the first whose network is warmed up.

    Each process that trains networks warms up a pool member once. Producers train the outer steps in turn.
    """
    if config.source.kind != "pool" or config.outer_steps == 1:
        return 1.0
    trainers, size = max(1, producers), config.source.pool_size
    met = [
        {pool_member(config.seed, outer, size) for outer in range(first, config.outer_steps, trainers)}
        for first in range(trainers)
    ]
    return (sum(map(len, met)) - 1) / (config.outer_steps - 1)


def _networks_s(config: Config, costs: StepCosts, producers: int) -> float:
    """Returns the mean training time of the networks per inner step, without the first network."""
    warm_ups = (config.outer_steps - 1) * warm_up_share(config, producers)
    updates = config.outer_steps * (config.inner_steps - 1)
    return (warm_ups * costs.warm_up_s + updates * costs.update_s) / config.total_steps


def _loads_s(config: Config, counts: Sequence[int], costs: StepCosts, workers: int) -> list[float]:
    """Returns the time of each worker in an inner step for its classes, or for its trajectory segments."""
    if config.matching.objective == "trajectory":
        segments = config.trajectory.segments
        return [len(range(rank, segments, workers)) * costs.match_s for rank in range(workers)]
    select_s = costs.select_s * num_selections(config) / config.inner_steps
    return [
        sum(costs.match_s + select_s * counts[label] for label in labels)
        for labels in placement(config, counts, workers)
    ]


def _inline_limit(config: Config, counts: Sequence[int], costs: StepCosts) -> float:
    networks_s = costs.first_warm_up_s / config.total_steps + _networks_s(config, costs, producers=0)
    loads_s = _loads_s(config, counts, costs, workers=1)
    most = config.trajectory.segments if config.matching.objective == "trajectory" else len(counts)
    return (networks_s + max(loads_s)) / (networks_s + max(_loads_s(config, counts, costs, most)))


def _share_of_waiting(busy_s: float, wall_s: float) -> float:
    return max(0.0, 1 - busy_s / wall_s)  # with rounding, the busy time can exceed the wall time
