"""How long a run takes, as a closed form of the times of its steps.

An inner step costs `max(networks / producers, classes / workers)`: the training of the networks, divided among the
producers, runs beside the matching of the classes of the most loaded worker. Where every worker trains its own
networks, the two add up. Selections are spread over their interval, warm-ups over the run.

The form excludes start-up, reading, checkpoints and the bound of the snapshot queue. Measured runs took 2 to 7 % longer
(docs/explanation/scaling.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dream_ray.config import Config
from dream_ray.engine.networks.sources import pool_member
from dream_ray.engine.run.class_costs import num_selections, placement


@dataclass(frozen=True)
class StepCosts:
    """What the steps of a run take on a core or device of their own, in seconds.

    Attributes:
        update_s: The training of a network between two inner steps.
        warm_up_s: The training of a network before an outer step.
        first_warm_up_s: The training of the first network, or of all experts.
        select_s: The selection among the real images of a class, per image.
        target_s: The pass of the real batch of a class through a network.
        move_s: The update of the synthetic images of a class, or of all classes for a trajectory segment.
        snapshot_bytes: Size of a network snapshot.
    """

    update_s: float
    warm_up_s: float
    first_warm_up_s: float
    select_s: float
    target_s: float
    move_s: float
    snapshot_bytes: float

    @property
    def match_s(self) -> float:
        """Matching a class once."""
        return self.target_s + self.move_s


@dataclass(frozen=True)
class Forecast:
    """What the closed form predicts for a run.

    Attributes:
        start_s: Training of the first network or of all experts, before the first step.
        step_s: An inner step.
        wall_s: The whole run.
        worker_waiting: Share of the run in which the average worker waits.
        producer_waiting: Share of the run in which the average producer waits; 0 without producers.
        step_bytes: Snapshots that workers fetch from producers, per inner step.
        total_bytes: Snapshots that workers fetch from producers in the whole run.
        inline_limit: How many times faster than one worker a run without producers becomes with as many workers as
            classes, or as trajectory segments: every worker trains the same networks.
    """

    start_s: float
    step_s: float
    wall_s: float
    worker_waiting: float
    producer_waiting: float
    step_bytes: float
    total_bytes: float
    inline_limit: float


def forecast(config: Config, counts: Sequence[int], costs: StepCosts, *, workers: int, producers: int) -> Forecast:
    """Predicts a run.

    Args:
        config: Settings.
        counts: Real images of each class, by label.
        costs: Times of the steps.
        workers: Workers, at most as many as classes or trajectory segments.
        producers: Processes that train the networks ahead of the workers; 0: every worker trains them itself.
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
    producer_s = (start_s + steps * networks_s) / producers if producers else wall_s
    total_bytes = workers * _fetches(config) * costs.snapshot_bytes if producers else 0.0
    return Forecast(
        start_s=start_s,
        step_s=step_s,
        wall_s=wall_s,
        worker_waiting=_share_of_waiting(worker_s, wall_s),
        producer_waiting=_share_of_waiting(producer_s, wall_s),
        step_bytes=total_bytes / steps,
        total_bytes=total_bytes,
        inline_limit=_inline_limit(config, counts, costs),
    )


def warm_up_share(config: Config, producers: int) -> float:
    """Returns the share of the outer steps after the first whose network is warmed up.

    A pool member is warmed up once by every process that trains networks; producers take the outer steps in turn.
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
    """Returns the training of the networks for an inner step, without that of the first network."""
    warm_ups = (config.outer_steps - 1) * warm_up_share(config, producers)
    updates = config.outer_steps * (config.inner_steps - 1)
    return (warm_ups * costs.warm_up_s + updates * costs.update_s) / config.total_steps


def _loads_s(config: Config, counts: Sequence[int], costs: StepCosts, workers: int) -> list[float]:
    """Returns what each worker computes in an inner step for its classes, or for its trajectory segments."""
    if config.matching.objective == "trajectory":
        segments = config.trajectory.segments
        return [len(range(rank, segments, workers)) * costs.match_s for rank in range(workers)]
    select_s = costs.select_s * num_selections(config) / config.inner_steps
    return [
        sum(costs.match_s + select_s * counts[label] for label in labels)
        for labels in placement(config, counts, workers)
    ]


def _fetches(config: Config) -> int:
    """Counts the snapshots that a worker fetches: one a step, and one for each selection but the first."""
    return config.total_steps + max(0, config.outer_steps * num_selections(config) - 1)


def _inline_limit(config: Config, counts: Sequence[int], costs: StepCosts) -> float:
    networks_s = costs.first_warm_up_s / config.total_steps + _networks_s(config, costs, producers=0)
    loads_s = _loads_s(config, counts, costs, workers=1)
    most = config.trajectory.segments if config.matching.objective == "trajectory" else len(counts)
    return (networks_s + max(loads_s)) / (networks_s + max(_loads_s(config, counts, costs, most)))


def _share_of_waiting(busy_s: float, wall_s: float) -> float:
    return max(0.0, 1 - busy_s / wall_s)  # rounding may make the busy time longer by some bits
