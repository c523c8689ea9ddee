"""Part 3: the time of an inner step of the published CIFAR-10 setting by variant, a profile of it, and its floor."""

from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter

import torch

from benchmarks.gpu_day.day import Day, Measurements, NotMeasured, Result
from benchmarks.gpu_day.loop import FIRST, Loop, StoreInMemory
from benchmarks.gpu_day.rates import COPY, PRODUCTS
from benchmarks.gpu_day.rates import PART as RATES
from benchmarks.gpu_day.timing import peak_bytes, reset_peak, times_s, wait
from benchmarks.gpu_day.work_counter import counted_work, kernels
from benchmarks.report import median_interval
from benchmarks.step_time import real_images
from dream_ray.config import parse_config
from dream_ray.config.frameworks import Settings, overlay
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.program_form import EAGER, ProgramForm
from dream_ray.engine.run.environment import fixed_arithmetic

PART = "variants"
# The second call allocates memory in another order than the first.
_WARM_UP = 2


@dataclass(frozen=True)
class Variant:
    """A way to execute a loop.

    Attributes:
        form: How the programs are executed.
        precision: Precision of the networks.
    """

    form: ProgramForm
    precision: str = "float32"

    @property
    def settings(self) -> Settings:
        """Settings that make a run of it, besides those of the loop."""
        return {"precision": self.precision}

    def arithmetic(self) -> AbstractContextManager[None]:
        """Returns a block in which the device rounds as in a run."""
        return fixed_arithmetic(torch.get_num_threads(), self.precision)


def variants_of(class_batch: int, backend: str) -> dict[str, Variant]:
    """Returns the variants by name, in their order: the compiler takes time, and an error of a graph may stay."""
    selected, together = ProgramForm(class_batch), ProgramForm(class_batch, True)
    compiled, compiled_together = ProgramForm(backend=backend), ProgramForm(class_batch, True, backend)
    graphed = replace(compiled_together, is_graphed=True)
    return {
        "class by class": Variant(EAGER),
        "selected together": Variant(selected),
        "together": Variant(together),
        "together, tf32": Variant(together, "tf32"),
        "together, bfloat16": Variant(together, "bfloat16"),
        "compiled together": Variant(compiled_together),
        "compiled together, tf32": Variant(compiled_together, "tf32"),
        "compiled together, bfloat16": Variant(compiled_together, "bfloat16"),
        "compiled": Variant(compiled),
        "graphs": Variant(graphed),
        "graphs, tf32": Variant(graphed, "tf32"),
        "graphs, bfloat16": Variant(graphed, "bfloat16"),
    }


def measurements(day: Day) -> Measurements:
    """Yields the measurements of the part."""
    scale = day.scale
    store = StoreInMemory(real_images(scale.num_classes, scale.images_per_class), scale.num_classes)
    # The floor is cheap, and a compiler may use up the time.
    yield "floor", partial(_floor, day, store)
    variants = variants_of(scale.class_batch, scale.backend)
    for name in scale.variants or variants:
        yield name, partial(_time, day, store, variants[name])
    yield "profile of the fastest", partial(_profile, day, store, variants)


def _loop(day: Day, store: Store, variant: Variant) -> Loop:
    config = parse_config(overlay(day.scale.steps, variant.settings))
    return Loop(config, store, store.num_classes, day.device, variant.form)


def timed(loop: Loop, device: torch.device, repeats: int) -> Result:
    """Times every part of a loop after a warm-up, and returns the inner step that they make, in milliseconds."""
    reset_peak(device)
    started = perf_counter()
    for _ in range(_WARM_UP):
        for run in loop.parts.values():
            run()
    wait(device)
    warm_up_s = perf_counter() - started
    milliseconds = {
        part: median_interval([1000 * seconds for seconds in times_s(run, device, repeats)])
        for part, run in loop.parts.items()
    }
    calls = loop.calls_per_step()
    return {
        "ms": milliseconds,
        "calls_per_inner_step": calls,
        "inner_step_ms": sum(calls[part] * found["median"] for part, found in milliseconds.items()),
        "warm_up_s": warm_up_s,
        "peak_bytes": peak_bytes(device),
    }


def _time(day: Day, store: Store, variant: Variant) -> Result:
    with variant.arithmetic():
        result = timed(_loop(day, store, variant), day.device, day.scale.repeats)
    return {**asdict(variant.form), "precision": variant.precision, **result}


def fastest_first(day: Day) -> list[str]:
    """Returns the names of the variants that were timed, the fastest first."""
    found = {name: row for name, row in day.measured(PART).items() if "inner_step_ms" in row}
    return sorted(found, key=lambda name: float(found[name]["inner_step_ms"]))


def _profile(day: Day, store: Store, variants: dict[str, Variant]) -> Result:
    """Counts the kernels of a call of each part, and the time in which they keep the device busy."""
    names = fastest_first(day)
    if not names:
        raise NotMeasured("no variant was timed")
    variant = variants[names[0]]
    with variant.arithmetic():
        loop = _loop(day, store, variant)
        for run in loop.parts.values():
            run()
        found = {part: kernels(run, day.device) for part, run in loop.parts.items()}
    calls = loop.calls_per_step()
    sums = {key: sum(calls[part] * one[key] for part, one in found.items()) for key in ("launches", "busy_ms")}
    return {"variant": names[0], "parts": found, "inner_step": sums}


def _floor(day: Day, store: Store) -> Result:
    """Divides the arithmetic of an eager inner step by the measured rate of products, and its bytes by that of copies.

    Programs that fuse operations move fewer bytes than the eager ones that are counted.
    """
    loop = _loop(day, store, Variant(EAGER))
    loop.parts[FIRST]()  # the other parts need a selection
    work = {part: counted_work(run) for part, run in loop.parts.items()}
    calls = loop.calls_per_step()
    flop, moved = (sum(calls[part] * one[key] for part, one in work.items()) for key in ("flop", "bytes"))
    rates = day.measured(RATES)
    floors = {
        name: 1000 * flop / rates[name]["flop_per_s"]["median"]
        for name in map(PRODUCTS.format, ("float32", "tf32", "bfloat16"))
        if name in rates
    }
    if COPY in rates:
        floors["bytes of the eager program"] = 1000 * moved / rates[COPY]["bytes_per_s"]["median"]
    return {"parts": work, "inner_step": {"flop": flop, "bytes": moved}, "floor_ms": floors}
