"""Where a run is executed: the interface of `LocalBackend` (this process) and `RayBackend` (a Ray cluster)."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.spec import RunSpec

Item = TypeVar("Item")
Result = TypeVar("Result")


class Backend(AbstractContextManager["Backend"], Protocol):
    """Executes work inside its block."""

    def call(
        self, function: Callable[..., Result], *arguments: Any, device: str, cpus: int, gpus: float | None = None
    ) -> Result:
        """Calls a function on a machine that workers run on, with the resources of a worker.

        Args:
            function: Returns what depends on the machine.
            *arguments: Its arguments.
            device: Device of a worker: "auto", "cpu" or "cuda".
            cpus: CPUs of a worker.
            gpus: GPUs of a worker; None: 1 if the device may be one and there are any.
        """

    def map(
        self, function: Callable[[Item, str], Result], items: Iterable[Item], *, device: str, cpus: int
    ) -> Iterator[Result]:
        """Calls `function(item, device)` for every item and yields the results in the order in which they end.

        Args:
            function: Work that is independent of the other items.
            items: Plain values.
            device: Device that a call may use; `function` gets "cpu" where there is no GPU for it.
            cpus: CPUs of a call.
        """

    def check_visible(self, name: str, path: str, file: str) -> None:
        """Raises UsageError if a machine that workers may run on does not see what the user named.

        Args:
            name: Parameter that the path was given for.
            path: Directory or URI.
            file: A file in it that is there.
        """

    def num_producers(self, spec: RunSpec) -> int:
        """Returns how many producers will train networks ahead of the workers."""

    def run_workers(self, run: Run, spec: RunSpec, *, look: Callable[[], None] | None = None) -> None:
        """Runs the workers of a run to its last step.

        Args:
            run: A run that was begun.
            spec: Says who works on it.
            look: Called in this thread when there may be new validation accuracies; what it raises ends the workers.

        Raises:
            UsageError: If the workers cannot share the run, or their resources are not there.
            RunError: If a worker failed, or died too often.
            KeyboardInterrupt: After Ctrl-C; the workers have written a checkpoint if they could.
        """
