"""Part 1: the device, and the rates that bound every program on it."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import perf_counter

import torch

from benchmarks.gpu_day.day import Day, Measurements, Result
from benchmarks.gpu_day.timing import rounded_products, times_s, wait
from benchmarks.report import median_interval
from dream_ray.core.transfer import to_device
from dream_ray.engine.run.environment import describe_environment

PART = "rates"
PRODUCTS, COPY = "matrix products, {}", "copy on the device"


def measurements(day: Day) -> Measurements:
    """Yields the measurements of the part."""
    yield "device", partial(_describe, day.device)
    for precision in ("float32", "tf32", "bfloat16"):
        yield PRODUCTS.format(precision), partial(_products, day, precision)
    yield COPY, partial(_copy, day)
    yield "copy from pinned memory", partial(_copy_from_host, day)
    yield "launch", partial(_launch, day)


def _describe(device: torch.device) -> Result:
    described = describe_environment(device)
    if device.type == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        described |= {"free_bytes": free_bytes, "total_bytes": total_bytes}
        properties = torch.cuda.get_device_properties(device)
        described |= {"compute_capability": f"{properties.major}.{properties.minor}"}
    return described


def _rate(day: Day, call: Callable[[], object], amount: float) -> dict[str, float]:
    """Returns the median rate of a call, with its interval, in units of `amount` per second."""
    call()
    return median_interval([amount / seconds for seconds in times_s(call, day.device, day.scale.repeats)])


def _products(day: Day, precision: str) -> Result:
    side = day.scale.matrix_side
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.full((side, side), value, device=day.device, dtype=dtype) for value in (0.5, 0.25))
    with rounded_products() if precision == "tf32" else nullcontext():
        return {"flop_per_s": _rate(day, lambda: a @ b, 2 * side**3), "side": side}


def _copy(day: Day) -> Result:
    size = day.scale.copied_bytes
    source, target = (torch.zeros(size, dtype=torch.uint8, device=day.device) for _ in range(2))
    # Every byte is read and written.
    return {"bytes_per_s": _rate(day, lambda: target.copy_(source), 2 * size), "bytes": size}


def _copy_from_host(day: Day) -> Result:
    size = day.scale.copied_bytes
    source = torch.zeros(size, dtype=torch.uint8)
    pinned = source.pin_memory() if day.device.type == "cuda" else source
    target = to_device(source, day.device).clone()
    return {"bytes_per_s": _rate(day, lambda: target.copy_(pinned, non_blocking=True), size), "bytes": size}


def _launch(day: Day) -> Result:
    """Times kernels that have nothing to do, which the host launches one after the other."""
    one, count = torch.zeros(1, device=day.device), day.scale.launches

    def launch() -> None:
        for _ in range(count):
            one.add_(1)

    launch()
    on_device = [seconds / count for seconds in times_s(launch, day.device, day.scale.repeats)]
    wait(day.device)
    started = perf_counter()
    launch()
    on_host = (perf_counter() - started) / count
    wait(day.device)
    return {"kernel_s": median_interval(on_device), "host_s": on_host, "launches": count}
