"""What a run will take, said before it starts: memory, time and network traffic."""

from dataclasses import dataclass, replace

import torch

from dream_ray.config import Config
from dream_ray.core.forecast import Forecast, forecast
from dream_ray.core.schedule import Schedule, StepCosts
from dream_ray.data.store import Store
from dream_ray.engine.assembly import are_made_ahead, class_counts
from dream_ray.engine.checks import check_fit, check_workers
from dream_ray.engine.compilation import choose_compile
from dream_ray.engine.here import producers_here
from dream_ray.engine.launch import Launch
from dream_ray.engine.measuring.costs import measure_steps
from dream_ray.engine.memory import MemoryPlan, plan_memory
from dream_ray.engine.network_source import pool_member
from dream_ray.engine.trajectories.producing import networks_ahead

# What a forecast supposes where nothing is measured: links of 10 Gbit/s, and a message that takes a millisecond.
LINK_BYTES_PER_S, LINK_LATENCY_S = 1.25e9, 1e-3


@dataclass(frozen=True)
class RunPlan:
    """What a run will take.

    Attributes:
        config: Its settings.
        memory: Of its largest worker.
        costs: Times of its steps, measured; an image is a class of size 1.
        schedule: Who does what.
        store: Its store.
        launch: Who works on it, as asked for.
    """

    config: Config
    memory: MemoryPlan
    costs: StepCosts
    schedule: Schedule
    store: Store
    launch: Launch

    def forecast(self, workers: int | None = None) -> Forecast:
        """Predicts time and traffic of the run, for another number of workers too.

        Raises:
            UsageError: If the run would be refused with so many workers.
        """
        if workers is None:
            return forecast(self.costs, self.schedule)
        check_workers(self.config, self.store, replace(self.launch, workers=workers))
        return forecast(self.costs, replace(self.schedule, workers=workers))


def plan_run(
    config: Config,
    store: Store,
    launch: Launch,
    *,
    threads: int,
    device: torch.device,
    compiling: str = "off",
) -> RunPlan:
    """Measures the steps of a run and works out the whole of it.

    Args:
        config: Settings.
        store: Store to distil.
        launch: Who works on it. Producers that are left to the resources, which are not known here, are taken to be
            as few as they may be.
        threads: Threads of each.
        device: Device of each.
        compiling: "auto", "on" or "off", see `choose_compile`.

    Raises:
        UsageError: If the settings do not fit the store, or there are more workers than classes.
    """
    check_fit(config, store)
    counts = class_counts(config, store)
    check_workers(config, store, launch)
    if launch.local:
        producers = producers_here(config, launch, threads, device)
    elif launch.producers is None:
        producers = int(launch.workers > 1 and are_made_ahead(config))
    else:
        producers = launch.producers
    is_shared_by_segment = config.matching.objective == "trajectory"
    schedule = Schedule(
        outer_steps=config.outer_steps,
        inner_steps=config.inner_steps,
        interval=config.selection.interval,
        class_sizes=(1.0,) * config.trajectory.segments if is_shared_by_segment else tuple(map(float, counts)),
        workers=launch.workers,
        warm_up_share=warm_up_share(config, producers),
        producers=producers,
        bandwidth=LINK_BYTES_PER_S,
        latency_s=LINK_LATENCY_S,
    )
    compiled = choose_compile(compiling, config, store, device)
    measured = measure_steps(
        config, store, threads=threads, device=device, compiled=compiled, beside=_beside_matching(launch, producers)
    )
    window = networks_ahead(producers, config.inner_steps, int(measured.costs.snapshot_bytes))
    memory = plan_memory(
        config,
        store,
        measured,
        workers=launch.workers,
        producers=0 if launch.local else producers,
        ahead=window if producers else 0,
        ray=not launch.local,
    )
    return RunPlan(config, memory, measured.costs, replace(schedule, window=window), store, launch)


def warm_up_share(config: Config, producers: int) -> float:
    """Returns the share of the outer steps after the first whose network is warmed up, see `Schedule`."""
    if config.source.kind != "pool" or config.outer_steps == 1:
        return 1.0
    # Everybody who trains networks warms up the members that it meets; producers take the outer steps about in turn.
    trainers, size = max(1, producers), config.source.pool_size
    met = [
        {pool_member(config.seed, outer, size) for outer in range(first, config.outer_steps, trainers)}
        for first in range(trainers)
    ]
    return (sum(map(len, met)) - 1) / (config.outer_steps - 1)


def _beside_matching(launch: Launch, producers: int) -> tuple[str, ...]:
    """Returns what threads of a worker do while it matches, see `measure_steps`."""
    if producers == 0:
        return ()
    return ("embedding", "batch") if launch.local else ("embedding",)
