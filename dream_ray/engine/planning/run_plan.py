"""The plan of a run: its memory, and predictions from the times of its steps."""

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dream_ray.config import Config
from dream_ray.core.figures import make_figure
from dream_ray.core.tables import ShownAsTables, Table, duration
from dream_ray.data.store.store import Store
from dream_ray.engine.planning.forecast import Forecast, StepCosts, forecast
from dream_ray.engine.planning.memory import MemoryPlan
from dream_ray.engine.run.class_costs import class_counts, placement
from dream_ray.engine.run.spec import RunSpec, check_against_store
from dream_ray.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False)
class RunPlan(ShownAsTables):
    """Memory of a run and times of its steps.

    Attributes:
        spec: The run; if its memory is limited, its settings are those that fit.
        store: Its store.
        memory: Memory of its largest worker and of a producer.
        costs: Measured times of its steps.
        producers: Producers that will start.
        reserve: Whether each of them reserves the CPUs of a worker.
        cores: Cores that its processes can use, see `Backend.cores`.
    """

    spec: RunSpec
    store: Store
    memory: MemoryPlan
    costs: StepCosts
    producers: int
    reserve: bool
    cores: int

    @property
    def config(self) -> Config:
        """Settings of the run."""
        return self.spec.config

    def forecast(self, workers: int | None = None) -> Forecast:
        """Predicts time and traffic of the run, for another number of workers too.

        Raises:
            UsageError: If the run would be refused with so many workers.
        """
        spec = self.spec if workers is None else replace(self.spec, workers=workers)
        check_against_store(spec, self.store)
        counts = class_counts(self.config, self.store)
        slots = self._slots(spec.workers)
        return forecast(self.config, counts, self.costs, workers=spec.workers, producers=self.producers, slots=slots)

    @property
    def shares_cores(self) -> bool:
        """Whether there are fewer cores than workers and producers need."""
        return self.spec.workers + self.producers > self._slots(self.spec.workers)

    def _slots(self, workers: int) -> float:
        """Returns the processes that compute at a time; Ray adds nodes until every worker has the CPUs it reserves."""
        if self.memory.gpu:
            return math.inf
        reserving = 0 if self.spec.local else workers + self.producers * self.reserve
        return max(self.cores / self.spec.threads, reserving)

    @property
    def padding(self) -> float:
        """Fraction of the slots of groups of classes that are padding, over all workers."""
        classes = placement(self.config, class_counts(self.config, self.store), self.spec.workers)
        size = self.spec.class_batch or 1
        return 1 - sum(map(len, classes)) / sum(size * math.ceil(len(labels) / size) for labels in classes)

    @property
    def mean_class_size(self) -> float:
        """Real images of a class, on average."""
        counts = class_counts(self.config, self.store)
        return sum(counts) / len(counts)

    def tables(self) -> list[Table]:
        """Returns the prediction for the number of workers that was asked for; `cli/forecasts.py` prints more."""
        seen, workers = self.forecast(), self.spec.workers
        is_frozen = self.config.source.kind == "frozen"
        trained = "frozen networks" if is_frozen else "each trains the networks"
        trained = f"{self.producers} producers" if self.producers else trained
        rows = [
            ["time of the run", duration(seen.wall_s)],
            ["seconds per step", f"{seen.step_s:.2f}"],
            ["steps", str(self.config.total_steps)],
            ["memory of the largest worker in MB", f"{self.memory.total / 1e6:,.0f}"],
            ["memory of all processes in MB", f"{self.memory.all_processes / 1e6:,.0f}"],
        ]
        return [Table(f"prediction for {workers} workers, {trained}", ("", ""), rows)]

    def plot(self) -> "Figure":
        """Draws the predicted time of the run for numbers of workers up to that of the classes."""
        hours: dict[int, float] = {}
        for workers in (2**power for power in range(self.store.num_classes.bit_length())):
            with suppress(UsageError):  # a run would refuse so many
                hours[workers] = self.forecast(workers).wall_s / 3600
        figure = make_figure(6.4, 3.6)
        axes = figure.add_subplot()
        axes.plot(list(hours), list(hours.values()), marker="o")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("workers")
        axes.set_ylabel("predicted hours")
        return figure
