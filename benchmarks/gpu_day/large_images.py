"""Part 4: time and memory of the steps of ResNetAP-10 at 224 px, against the plan."""

from functools import partial

import torch

from benchmarks.gpu_day.day import Day, Measurements, Result
from benchmarks.gpu_day.loop import Loop, StoreInMemory
from benchmarks.gpu_day.timing import reset_peak
from benchmarks.gpu_day.variants import Variant, timed
from benchmarks.step_time import real_images
from dream_ray.config import parse_config
from dream_ray.config.frameworks import overlay
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.program_form import EAGER
from dream_ray.engine.planning.measuring.steps import CONTEXT_BYTES, free_gpu_bytes, measure_memory
from dream_ray.engine.planning.memory import plan_memory

PART = "large images"
PLAN = "plan"
NUM_CLASSES = 100


def measurements(day: Day) -> Measurements:
    """Yields the measurements of the part."""
    store = StoreInMemory(real_images(1, day.scale.large_class, day.scale.large_side), NUM_CLASSES)
    yield PLAN, partial(_plan, day, store)
    for precision in ("float32", "tf32", "bfloat16"):
        yield f"class by class, {precision}", partial(_time, day, store, Variant(EAGER, precision))


def _plan(day: Day, store: Store) -> Result:
    """Plans the memory of a worker with one of the classes."""
    config, device = parse_config(day.scale.large), day.device
    reset_peak(device)
    threads = torch.get_num_threads()
    measured = measure_memory(config, store, threads=threads, device=device)
    plan = plan_memory(
        config,
        store,
        measured,
        threads=threads,
        workers=NUM_CLASSES,
        producers=0,
        ahead=0,
        ray=False,
        device=device,
        per_gpu=(1, 0),
        free_gpu=free_gpu_bytes(device) if device.type == "cuda" else 0,
    )
    # What PyTorch reserves does not include the CUDA context.
    on_gpu = plan.worker_on_gpu - CONTEXT_BYTES if plan.worker_on_gpu else None
    return {"gpu_bytes": on_gpu, "steps_gpu_bytes": measured.peak_gpu_bytes, "host_bytes": plan.total}


def _time(day: Day, store: Store, variant: Variant) -> Result:
    """Times the steps of one class."""
    config = parse_config(overlay(day.scale.large, variant.settings))
    with variant.arithmetic():
        result = timed(Loop(config, store, 1, day.device, variant.form), day.device, day.scale.repeats)
    plan = day.measured(PART).get(PLAN)
    if plan and plan["gpu_bytes"] and result["peak_bytes"]:
        result["peak_over_plan"] = result["peak_bytes"] / plan["gpu_bytes"]
    return result
