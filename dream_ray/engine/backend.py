"""The interface of `LocalBackend` (this process) and `RayBackend` (a Ray cluster)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dream_ray.engine.models.spec import TrainSpec
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.spec import RunSpec

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Producers:
    """The producers of a run, which train networks ahead of its workers.

    Attributes:
        count: Their number.
        reserve: Whether each reserves a worker slot; otherwise they share the CPUs and GPUs of the workers.
    """

    count: int = 0
    reserve: bool = False


class Backend(AbstractContextManager["Backend"], Protocol):
    """Executes work during its `with` block."""

    def call(
        self, function: Callable[..., Result], *arguments: Any, device: str, cpus: int, gpus: float | None = None
    ) -> Result:
        """Calls a function on a worker node, with the resources of a worker.

        Args:
            function: Function whose result depends on the machine.
            *arguments: Its arguments.
            device: Device of a worker: "auto", "cpu" or "cuda".
            cpus: CPUs of a worker.
            gpus: GPUs of a worker; None: 1 if `device` allows CUDA and a GPU exists.
        """

    def map(
        self,
        function: Callable[[Item, str], Result],
        items: Iterable[Item],
        *,
        device: str,
        cpus: int,
        gpus: float | None = None,
        at_a_time: int | None = None,
    ) -> Iterator[Result]:
        """Calls `function(item, device)` for every item and yields the results in order of completion.

        Args:
            function: Independent work on one item.
            items: Plain values.
            device: Device that a call may use; `function` receives "cpu" if no GPU is available.
            cpus: CPUs of a call.
            gpus: GPUs of a call; None: 1 if `device` allows CUDA and a GPU exists.
            at_a_time: Most calls at a time; None: as many as there are resources for.
        """

    def check_visible(self, name: str, path: str, file: str) -> None:
        """Raises UsageError if a worker node cannot read a path.

        Args:
            name: Parameter of the path.
            path: Directory or URI.
            file: An existing file in it.
        """

    def producers(self, spec: RunSpec) -> Producers:
        """Returns the producers that will start with a run."""

    def cores(self) -> int:
        """Returns the CPU cores that exist for the workers and producers of a run."""

    def run_workers(self, run: Run, spec: RunSpec, *, look: Callable[[], None] | None = None) -> None:
        """Runs the workers of a run to its last step.

        Args:
            run: A run whose directory exists.
            spec: Its specification; `check_against_store` accepts it.
            look: Called in this thread after new validation accuracies; an exception from it ends the workers.

        Raises:
            UsageError: If the store has changed, or the resources of the workers do not exist.
            RunError: If a worker failed, or died too often.
            KeyboardInterrupt: After Ctrl-C; the workers have written a checkpoint if they could.
        """

    def train_model(self, spec: TrainSpec, begun: dict[str, Any]) -> None:
        """Trains a network to its last epoch and writes the model.

        Args:
            spec: The training; `begin_training` has accepted it.
            begun: What `begin_training` returned.

        Raises:
            UsageError: If the resources of the workers do not exist.
            RunError: If the training failed; the same call continues it.
            KeyboardInterrupt: After Ctrl-C.
        """
