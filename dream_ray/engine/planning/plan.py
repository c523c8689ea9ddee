"""The use of a specification on a worker node: the plan of its run (memory, time, traffic), or the run directory."""

from dataclasses import dataclass, replace

from dream_ray.config import Config
from dream_ray.data.store.store import Store
from dream_ray.engine.planning.fitting import fit_memory
from dream_ray.engine.planning.forecast import Forecast, StepCosts, forecast
from dream_ray.engine.planning.measuring.steps import in_new_process, measure_costs
from dream_ray.engine.planning.memory import MemoryPlan
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import resolve_device
from dream_ray.engine.run.lifecycle import create_run
from dream_ray.engine.run.spec import RunSpec, check_workers


@dataclass(frozen=True)
class RunPlan:
    """Memory of a run and times of its steps.

    Attributes:
        spec: The run; if its memory is limited, its settings are those that fit.
        store: Its store.
        memory: Memory of its largest worker and of a producer.
        costs: Measured times of its steps.
        producers: Producers that will start.
    """

    spec: RunSpec
    store: Store
    memory: MemoryPlan
    costs: StepCosts
    producers: int

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
        check_workers(spec, self.store)
        counts = class_counts(self.config, self.store)
        return forecast(self.config, counts, self.costs, workers=spec.workers, producers=self.producers)

    @property
    def mean_class_size(self) -> float:
        """Real images of a class, on average."""
        counts = class_counts(self.config, self.store)
        return sum(counts) / len(counts)


def plan_run(spec: RunSpec, num_producers: int) -> RunPlan:
    """Fits a run into its memory and times its steps on the device of this machine.

    Args:
        spec: The run; `check_workers` accepts it.
        num_producers: Producers that will start.

    Raises:
        UsageError: If the run is refused, see `fit_memory`.
        OutOfMemory: If there is no budget and the given settings run out of memory.
    """
    device = resolve_device(spec.device)
    fitted, memory = fit_memory(spec, num_producers, device)
    store, compiled = Store.open(spec.store), fitted.compile == "on"
    costs = in_new_process(measure_costs, fitted.config, store, threads=spec.threads, device=device, compiled=compiled)
    return RunPlan(fitted, store, memory, costs, num_producers)


def begin_run(spec: RunSpec, num_producers: int) -> Run:
    """Creates the directory of a run; if its memory is limited, with settings that fit.

    Args:
        spec: The run.
        num_producers: Producers that will start, which need memory too.

    Raises:
        UsageError: If the run is refused, see `create_run` and `fit_memory`.
    """
    device = resolve_device(spec.device)
    if spec.memory_bytes is not None:
        spec, _ = fit_memory(spec, num_producers, device)
    return create_run(spec, device)
