"""A projection of ImageNet-1K to many cores by the model of `dream_ray.core.schedule`; nothing of it is run.

    python -m benchmarks.scaling_projection

The steps of ResNetAP-10 at 224 px are measured on one core of this machine. The model makes of them what 1 to 256 such
cores would take: with networks that every worker trains itself, and with as many of the cores as producers as the
networks need. Said are ratios and shares, and the days on cores like this one.
"""

import sys
from dataclasses import asdict, replace
from typing import Any

from benchmarks.report import provenance, write_result
from benchmarks.scaling import CPU, random_store, schedule_of
from dream_ray.config import PRESETS, Config, parse_config
from dream_ray.core.forecast import Forecast, forecast
from dream_ray.core.schedule import Schedule, StepCosts
from dream_ray.engine.measuring.costs import measure_steps
from dream_ray.engine.plan import LINK_BYTES_PER_S, LINK_LATENCY_S, warm_up_share
from dream_ray.engine.trajectories.producing import networks_ahead

NUM_CLASSES, TRAIN_IMAGES = 1000, 1_281_167
IMAGES = round(TRAIN_IMAGES / NUM_CLASSES)
CORES = (1, 4, 16, 64, 256)
SMALL_BATCH, SMALL_IPC = 16, 2


def measured_costs(config: Config) -> StepCosts:
    """Measures the steps on one core, in small batches: a batch's time is taken as proportional to its images."""
    small = config.model_copy(
        update={
            "ipc": SMALL_IPC,
            "selection": config.selection.model_copy(update={"num_clusters": SMALL_BATCH}),
            "initialisation": config.initialisation.model_copy(update={"strategy": "random"}),
            "update": config.update.model_copy(update={"batch_size": SMALL_BATCH}),
        }
    )
    costs = measure_steps(small, random_store(NUM_CLASSES, IMAGES, 224), threads=1, device=CPU).costs
    return replace(
        costs,
        target_s=costs.target_s * config.real_batch / small.real_batch,
        move_s=costs.move_s * config.ipc / small.ipc,
    )


def project(config: Config, costs: StepCosts) -> dict[str, Any]:
    """Returns a row for every number of cores and kind of networks."""

    def schedule(workers: int, **more: Any) -> Schedule:
        share = warm_up_share(config, more.get("producers", 0))
        return schedule_of(config, NUM_CLASSES, IMAGES, workers, warm_up_share=share, **more)

    alone = forecast(costs, schedule(1))
    rows = []
    for cores in CORES:
        rows.append(_row("inline", alone, schedule(cores), costs))
        # The share of the networks in the work of one core.
        if producers := min(cores - 1, max(1, round(cores / alone.inline_limit))):
            windows = {
                "producers, room for whole trajectories": producers * config.inner_steps,
                "producers, room as in dream-ray plan": networks_ahead(
                    producers, config.inner_steps, round(costs.snapshot_bytes)
                ),
            }
            for name, window in windows.items():
                ahead = schedule(
                    cores - producers,
                    producers=producers,
                    window=window,
                    bandwidth=LINK_BYTES_PER_S,
                    latency_s=LINK_LATENCY_S,
                )
                rows.append(_row(name, alone, ahead, costs))
    return {"inline_limit": alone.inline_limit, "days_on_one_core": alone.wall_s / 86_400, "rows": rows}


def _row(name: str, alone: Forecast, schedule: Schedule, costs: StepCosts) -> dict[str, Any]:
    seen = forecast(costs, schedule)
    return {
        "networks": name,
        "workers": schedule.workers,
        "producers": schedule.producers,
        "window": schedule.window,
        "times_as_fast": alone.wall_s / seen.wall_s,
        "seconds_per_inner_step": seen.step_s,
        "worker_waiting": seen.worker_waiting,
        "producer_waiting": seen.producer_waiting,
        "bytes_per_inner_step": seen.step_bytes,
    }


def main() -> None:
    """Measures one core, projects and writes benchmarks/results/scaling-projection-imagenet-1k.json."""
    config = parse_config(PRESETS["imagenet100-ipc10"]())
    costs = measured_costs(config)
    result = {
        **provenance(sys.argv[1:]),
        "note": "a projection to cores like this one by a model, from the measured steps of one core; it was not run",
        "step_costs": asdict(costs),
        **project(config, costs),
    }
    print(write_result("scaling-projection-imagenet-1k", result).read_text())


if __name__ == "__main__":
    main()
