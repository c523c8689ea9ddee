"""Times and memory on a device."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch

from dream_ray.engine.progress.phase_timer import MARKS


def wait(device: torch.device) -> None:
    """Waits until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def times_s(call: Callable[[], object], device: torch.device, repeats: int) -> list[float]:
    """Returns the seconds of each of `repeats` calls, by events in the stream of a GPU; warm up before."""
    wait(device)
    marks = [MARKS[device.type]()]
    for _ in range(repeats):
        call()
        marks.append(MARKS[device.type]())
    wait(device)
    return [mark.seconds_until(later) for mark, later in pairwise(marks)]


def reset_peak(device: torch.device) -> None:
    """Begins a new measurement of `peak_bytes`."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """Returns the largest memory that PyTorch reserved on a GPU since `reset_peak`; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


@contextmanager
def rounded_products() -> Iterator[None]:
    """Lets products of matrices on a GPU round their float32 inputs to TF32 inside the block."""
    switch = torch.backends.cuda.matmul
    before, switch.allow_tf32 = switch.allow_tf32, True
    try:
        yield
    finally:
        switch.allow_tf32 = before
