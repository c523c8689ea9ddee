"""A projection of ImageNet-1K to many cores by the closed form of `planning.forecast`; it runs no distillation.

    python -m benchmarks.scaling_projection
    python -m benchmarks.scaling_projection --recorded      # projects again from the recorded step costs

The benchmark measures the steps of ResNetAP-10 at 224 px on one core of this machine. From these, the closed form
predicts the time on 1 to 256 such cores: with networks that every worker trains itself, and with the fastest of 1, 2, 4
or 8 producers.
"""

import argparse
from dataclasses import asdict, replace
from typing import Any

from benchmarks.report import provenance, read_result, write_result
from benchmarks.scaling import CPU, random_store
from dream_ray.config import PRESETS, Config, parse_config
from dream_ray.engine.planning.forecast import Forecast, StepCosts, forecast
from dream_ray.engine.planning.measuring.steps import in_new_process, measure_costs

NAME = "scaling-projection-imagenet-1k"
NUM_CLASSES, TRAIN_IMAGES = 1000, 1_281_167
IMAGES = round(TRAIN_IMAGES / NUM_CLASSES)
CORES, PRODUCERS = (1, 4, 16, 64, 256), (1, 2, 4, 8)
SMALL_BATCH, SMALL_IPC = 16, 2
NOTE = "a projection to cores like this one, by a closed form of the measured steps of one core; it was not run"


def costs_of_small_batches(config: Config) -> StepCosts:
    """Measures the steps on one core in small batches; assumes times proportional to the number of images."""
    small = config.model_copy(
        update={
            "ipc": SMALL_IPC,
            "selection": config.selection.model_copy(update={"num_clusters": SMALL_BATCH}),
            "initialisation": config.initialisation.model_copy(update={"strategy": "random"}),
            "update": config.update.model_copy(update={"batch_size": SMALL_BATCH}),
        }
    )
    costs = in_new_process(measure_costs, small, random_store(NUM_CLASSES, IMAGES, 224), threads=1, device=CPU)
    # A pass forwards and backwards counts three, and six for a synthetic image, whose gradient is of second order.
    passes = {one: 3 * one.real_batch + 6 * one.ipc * one.factor**2 for one in (config, small)}
    return replace(costs, match_s=costs.match_s * passes[config] / passes[small])


def project(config: Config, costs: StepCosts) -> dict[str, Any]:
    """Returns two rows per number of cores: without producers, and with the fastest number of producers."""
    counts = [IMAGES] * NUM_CLASSES

    def predict(cores: int, producers: int) -> Forecast:
        return forecast(config, counts, costs, workers=cores - producers, producers=producers)

    alone = predict(1, 0)
    rows = []
    for cores in CORES:
        candidates = {producers: predict(cores, producers) for producers in PRODUCERS if producers < cores}
        fastest = min(candidates, key=lambda producers: candidates[producers].wall_s, default=0)
        rows += [_row(cores, producers, predict(cores, producers), alone) for producers in sorted({0, fastest})]
    return {"inline_limit": alone.inline_limit, "days_on_one_core": alone.wall_s / 86_400, "rows": rows}


def _row(cores: int, producers: int, seen: Forecast, alone: Forecast) -> dict[str, Any]:
    return {
        "workers": cores - producers,
        "producers": producers,
        "times_as_fast": alone.wall_s / seen.wall_s,
        "seconds_per_inner_step": seen.step_s,
        "worker_waiting": seen.worker_waiting,
        "producer_waiting": seen.producer_waiting,
        "bytes_per_inner_step": seen.step_bytes,
    }


def main() -> None:
    """Measures one core, projects and writes benchmarks/results/scaling-projection-imagenet-1k.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recorded", action="store_true", help="Measure nothing; project from the committed result.")
    config = parse_config(PRESETS["imagenet100-ipc10"].settings)
    if parser.parse_args().recorded:
        result = read_result(NAME)
    else:
        result = {**provenance([]), "step_costs": asdict(costs_of_small_batches(config))}
    result |= {"note": NOTE, **project(config, StepCosts(**result["step_costs"]))}
    print(write_result(NAME, result).read_text())


if __name__ == "__main__":
    main()
