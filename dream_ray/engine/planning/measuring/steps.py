"""The memory and the times of the steps of a run, measured by running them.

The steps run on random images of the store's shape, so only the manifest of the store is read.
"""

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

from dream_ray.config import Config
from dream_ray.core.images.normalisation import Normalise, Whitening
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.engine.planning.forecast import StepCosts
from dream_ray.engine.planning.measuring.class_steps import ClassSteps
from dream_ray.engine.planning.measuring.round_timer import MOST_ROUNDS, RoundTimer
from dream_ray.engine.planning.measuring.student_steps import StudentSteps
from dream_ray.engine.run.environment import CostMeter, fixed_arithmetic
from dream_ray.engine.run.normalisation import channel_normalisation
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors, spawned_process

P = ParamSpec("P")
T = TypeVar("T")

CONTEXT_BYTES = 500_000_000
"""Memory of a process on a GPU beside its tensors, for the CUDA context and loaded kernels.

An estimate, untested on a GPU: current drivers take about 0.4 to 0.5 GB.
"""
# The second round allocates memory in another order than the first.
_MEMORY_ROUNDS = 2


Steps = ClassSteps | StudentSteps
"""The steps of an objective; the construction only trains networks, for the memory of a producer."""
STEPS: dict[str, type[Steps]] = {
    "bidirectional": ClassSteps,
    "trajectory": StudentSteps,
}
"""By `matching.objective`."""


@dataclass(frozen=True)
class StepMemory:
    """Memory of the steps of a run, in bytes.

    Attributes:
        peak_rss_bytes: Largest resident memory of the process that ran them.
        training_rss_bytes: Largest resident memory of the process after the training steps, which run first.
        peak_gpu_bytes: Largest memory that PyTorch reserved on its GPU, with fragmentation; 0 on a CPU.
        training_gpu_bytes: The same after the training steps.
        snapshot_bytes: Size of a network snapshot.
        num_features: Features of an image, the most under any network.
        kept_features: Features of an image under all frozen networks together, which are kept; 0 without frozen ones.
    """

    peak_rss_bytes: int
    training_rss_bytes: int
    peak_gpu_bytes: int
    training_gpu_bytes: int
    snapshot_bytes: int
    num_features: int
    kept_features: int = 0


def in_new_process(measure: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Calls a function in a process of its own, whose peak memory is that of the function.

    Raises:
        OutOfMemory: If the memory of the GPU or the host does not suffice.
        UsageError: If the new process cannot import the script that called.
    """
    with spawned_process("plan", "ran the steps") as pool, memory_errors():
        result: T = pool.submit(measure, *arguments, **keywords).result()
        return result


def free_gpu_bytes(device: torch.device) -> int:
    """Returns the free memory of a GPU for other processes.

    The call makes a CUDA context, which lasts as long as this process and does not count as used.
    """
    free, _ = torch.cuda.mem_get_info(device)
    return free + CONTEXT_BYTES


def measure_memory(
    config: Config,
    store: Store,
    *,
    threads: int,
    device: torch.device,
    form: ProgramForm = EAGER,
    beside: Collection[str] = (),
) -> StepMemory:
    """Runs every kind of step and returns the memory of this process, which must not have done anything else.

    Args:
        config: Settings; they must fit the store.
        store: Store to distil.
        threads: Threads of a worker.
        device: Device of a worker.
        form: How the worker executes its programs.
        beside: Work of other threads while the worker matches: "embedding", "batch" (training), both or none.
    """
    meter = CostMeter(device)
    with _steps(config, store, threads, device, form) as (steps, _):
        trained = meter.read()
        steps.begin()
        for number in range(1, 1 + max(_MEMORY_ROUNDS, len(config.source.models))):
            steps.run_round(number)
        steps.run_together(beside)
        used = meter.read()
        return StepMemory(
            peak_rss_bytes=int(used["peak_rss_bytes"]) + steps.more_bytes,
            training_rss_bytes=int(trained["peak_rss_bytes"]),
            peak_gpu_bytes=int(used["peak_gpu_bytes"]),
            training_gpu_bytes=int(trained["peak_gpu_bytes"]),
            snapshot_bytes=steps.snapshot_bytes,
            num_features=steps.num_features,
            kept_features=steps.kept_features,
        )


def measure_costs(
    config: Config, store: Store, *, threads: int, device: torch.device, form: ProgramForm = EAGER
) -> StepCosts:
    """Times every kind of step, in about the time of four steps and selections of a class.

    Arguments as for `measure_memory`.
    """
    with _steps(config, store, threads, device, form) as (steps, timer):
        steps.begin()
        for number in range(1, MOST_ROUNDS):
            steps.run_round(number)
            if timer.is_enough(number):
                break
        return steps.costs()


@contextmanager
def _steps(
    config: Config, store: Store, threads: int, device: torch.device, form: ProgramForm
) -> Iterator[tuple[Steps, RoundTimer]]:
    keep_freed_memory()
    timer = RoundTimer(device, threads)
    with fixed_arithmetic(threads, config.precision):
        normalise = _normalisation(config, store, device)
        yield STEPS[config.matching.objective](config, store, normalise, timer, form), timer


def _normalisation(config: Config, store: Store, device: torch.device) -> Normalise:
    """Returns a normalisation of the same time and memory as the run's."""
    if not config.data.zca:
        return channel_normalisation(config, store, device)
    size = math.prod(store.shape_CHW)
    return Whitening(*(torch.zeros(shape, device=device) for shape in ((size,), (size, size), (size, size))))
