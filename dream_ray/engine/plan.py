"""The memory, time and traffic of a run before it starts."""

from dataclasses import dataclass, replace

import torch

from dream_ray.config import Config
from dream_ray.data.store import Store
from dream_ray.engine.assembly import class_counts
from dream_ray.engine.checks import check_workers
from dream_ray.engine.compilation import choose_compile
from dream_ray.engine.fitting import fit_memory, planned_producers
from dream_ray.engine.forecast import Forecast, StepCosts, forecast
from dream_ray.engine.launch import Launch
from dream_ray.engine.measuring.steps import measure_costs
from dream_ray.engine.memory import MemoryPlan


@dataclass(frozen=True)
class RunPlan:
    """What a run takes.

    Attributes:
        config: Its settings.
        memory: Of its largest worker.
        costs: Times of its steps, measured.
        store: Its store.
        launch: Who works on it, as asked for.
        producers: Producers that the plan supposes.
    """

    config: Config
    memory: MemoryPlan
    costs: StepCosts
    store: Store
    launch: Launch
    producers: int

    def forecast(self, workers: int | None = None) -> Forecast:
        """Predicts time and traffic of the run, for another number of workers too.

        Raises:
            UsageError: If the run would be refused with so many workers.
        """
        launch = self.launch if workers is None else replace(self.launch, workers=workers)
        check_workers(self.config, self.store, launch)
        counts = class_counts(self.config, self.store)
        return forecast(self.config, counts, self.costs, workers=launch.workers, producers=self.producers)

    @property
    def mean_class_size(self) -> float:
        """Real images of a class, on average."""
        counts = class_counts(self.config, self.store)
        return sum(counts) / len(counts)


def plan_run(
    config: Config,
    store: Store,
    launch: Launch,
    budget_bytes: int | None = None,
    *,
    threads: int,
    device: torch.device,
    compiling: str = "off",
) -> RunPlan:
    """Fits a run into its memory and times its steps; arguments and errors are those of `fit_memory`."""
    config, memory = fit_memory(
        config, store, launch, budget_bytes, threads=threads, device=device, compiling=compiling
    )
    compiled = choose_compile(compiling, config, store, device)
    costs = measure_costs(config, store, threads=threads, device=device, compiled=compiled)
    return RunPlan(config, memory, costs, store, launch, planned_producers(config, launch, threads, device))
