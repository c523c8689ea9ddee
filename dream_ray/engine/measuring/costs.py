"""What the steps of a run take in time and memory: measured by running each of them a few times.

A process of its own does so on random images of the store's shape, so nothing of the store is read but its manifest,
and the memory that it takes is that of the steps.
"""

import math
import multiprocessing
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

import torch

from dream_ray.config import Config
from dream_ray.core.normalisation import Normalisation, Normalise
from dream_ray.core.schedule import StepCosts
from dream_ray.core.whitening import Whitening
from dream_ray.data.manifest import Manifest
from dream_ray.data.store import Store
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.environment import CostMeter, fixed_threads
from dream_ray.engine.measuring.class_steps import ClassSteps
from dream_ray.engine.measuring.parts_watch import PartsWatch
from dream_ray.engine.measuring.student_steps import StudentSteps
from dream_ray.engine.out_of_memory import ran_out, saying_what_needs_less_memory


class Steps(Protocol):
    """The steps of an objective; making them trains networks, and takes no more memory than that."""

    more_bytes: int

    @property
    def num_features(self) -> int:
        """Features of an image."""

    def run(self) -> None:
        """Runs every step a few times, one after the other."""

    def run_together(self, beside: Collection[str]) -> None:
        """Matches while threads do something else, for the memory of both."""

    def costs(self) -> StepCosts:
        """Returns what was measured, as a run does it."""


STEPS: dict[str, Callable[[Config, Store, Normalise, PartsWatch, bool], Steps]] = {
    "bidirectional": ClassSteps,
    "trajectory": StudentSteps,
}
"""By `matching.objective`."""


@dataclass(frozen=True)
class Measurement:
    """What the steps of a run take.

    Attributes:
        costs: Times; an image is a class of size 1.
        peak_rss_bytes: Largest resident memory of the process that ran them.
        training_rss_bytes: The same before anything but training had run.
        peak_gpu_bytes: Largest allocation on its GPU; 0 on a CPU.
        num_features: Features of an image.
    """

    costs: StepCosts
    peak_rss_bytes: int
    training_rss_bytes: int
    peak_gpu_bytes: int
    num_features: int


def measure_steps(
    config: Config,
    store: Store,
    *,
    threads: int,
    device: torch.device,
    compiled: bool = False,
    beside: Collection[str] = (),
) -> Measurement:
    """Runs every kind of step a few times; takes about as long as four steps and selections of a class.

    Args:
        config: Settings; they must fit the store.
        store: Store to distil.
        threads: Threads of a worker.
        device: Device of a worker.
        compiled: Whether it compiles its functions.
        beside: What threads of it do while it matches, "embedding" or "batch" (training); memory is that of all.

    Raises:
        OutOfMemory: If there is not enough memory here, of the GPU or of the host.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool, saying_what_needs_less_memory():
        measured = pool.submit(_measure, config, store.manifest, threads, str(device), compiled, tuple(beside))
        try:
            return measured.result()
        except MemoryError as error:
            raise ran_out(str(error)) from None
        except BrokenProcessPool:
            raise ran_out("the process that ran the steps was killed, as the system does where memory ends") from None


def _measure(
    config: Config, manifest: Manifest, threads: int, device_name: str, compiled: bool, beside: tuple[str, ...]
) -> Measurement:
    keep_freed_memory()
    device = torch.device(device_name)
    meter, watch = CostMeter(device), PartsWatch(device, threads)
    store = Store("", manifest)
    with fixed_threads(threads):
        steps = STEPS[config.matching.objective](config, store, _normalisation(config, store, device), watch, compiled)
        trained = meter.read()
        steps.run()
        steps.run_together(beside)
        used = meter.read()
        costs = steps.costs()
    return Measurement(
        costs,
        int(used["peak_rss_bytes"]) + steps.more_bytes,
        int(trained["peak_rss_bytes"]),
        int(used["peak_gpu_bytes"]),
        steps.num_features,
    )


def _normalisation(config: Config, store: Store, device: torch.device) -> Normalise:
    """Returns what takes as long and as much memory as that of the run."""
    if not config.data.zca:
        return Normalisation.of(store.mean, store.std, device)
    size = math.prod(store.shape_CHW)
    return Whitening(*(torch.zeros(shape, device=device) for shape in ((size,), (size, size), (size, size))))
