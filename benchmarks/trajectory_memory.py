"""Peak memory and seconds of one step of trajectory matching, by the number N of the student's steps.

    python -m benchmarks.trajectory_memory --repeats 2

"unrolled" is autograd through all steps of the student, as in the published MTT; "adjoint" is ours. Both compute the
same on equal draws: ConvNet-3 of width 64 at 32 px, and 10 images of random pixels for each of 10 classes, all of them
in every step. The benchmark fails if losses or gradients differ in float64. The measured runs use float32, in which
rounding differences grow with N. Each measurement has its own process, which first takes one step with N = 1. If the
growth so far predicts more than `--limit-gb` for an N, this N is left out.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter, process_time

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.report import provenance, write_result
from dream_ray.core import rng
from dream_ray.core.images.augment import augment, sample_params, view_of
from dream_ray.core.matching.objectives import Forward, Parameters
from dream_ray.core.matching.trajectory_matching import (
    Batch,
    TrajectoryMatch,
    match_trajectory,
    squared_distance,
)
from dream_ray.engine.networks.functional import function_of, structure_of, tensors_of
from dream_ray.engine.run.environment import peak_rss_bytes
from dream_ray.engine.run.process_memory import keep_freed_memory
from dream_ray.nets import Classifier, build_network

CHECKED_STEPS = 3
NUM_CLASSES, IPC, SHAPE, WIDTH = 10, 10, (3, 32, 32), 64
STEP_SIZE = 0.01
AUGMENTATION = "color_crop_cutout_flip_scale_rotate"
Match = Callable[[Forward, Parameters, Parameters, Sequence[Batch], Tensor, Tensor], TrajectoryMatch]


def adjoint(
    forward: Forward, start: Parameters, target: Parameters, batches: Sequence[Batch], images: Tensor, step_size: Tensor
) -> TrajectoryMatch:
    """Returns the match by the adjoint method of the engine."""
    return match_trajectory(forward, start, target, batches, images, step_size)


def unrolled(
    forward: Forward, start: Parameters, target: Parameters, batches: Sequence[Batch], images: Tensor, step_size: Tensor
) -> TrajectoryMatch:
    """Returns the match as published: autograd through one graph over all steps."""
    images, step_size = images.clone().requires_grad_(), step_size.clone().requires_grad_()
    theta = {name: values.clone().requires_grad_() for name, values in start.items()}
    for batch in batches:
        inputs, labels = batch(images)
        loss = F.cross_entropy(forward(theta, inputs)[1], labels)
        gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {
            name: values - step_size * gradient
            for (name, values), gradient in zip(theta.items(), gradients, strict=True)
        }
    loss = squared_distance(theta, target) / squared_distance(start, target)
    return TrajectoryMatch(loss.detach(), *torch.autograd.grad(loss, (images, step_size)))


SIDES: dict[str, Match] = {"unrolled": unrolled, "adjoint": adjoint}


def network(seed: int) -> Classifier:
    """Returns an untrained network."""
    with rng.torch_randomness(rng.stream(seed, "network")):
        return build_network("convnet", num_classes=NUM_CLASSES, shape_CHW=SHAPE, options={"width": WIDTH})


def synthetic_images() -> Tensor:
    """Returns random stored images (L, N, C, H, W)."""
    pixels = rng.stream(0, "benchmark images").random((NUM_CLASSES, IPC, *SHAPE), dtype="float32")
    return torch.from_numpy(pixels)


def batches_of(num_steps: int) -> list[Batch]:
    """Returns one batch per step: the whole set, with an augmentation drawn for the step."""
    labels = torch.arange(NUM_CLASSES).repeat_interleave(IPC)

    def batch(images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        view = sample_params(AUGMENTATION, rng.stream(0, "view", inner=step), height=SHAPE[1], width=SHAPE[2])
        return augment((images.flatten(0, 1) - 0.5) / 0.25, view_of(view, images.device)), labels

    return [partial(batch, step=step) for step in range(num_steps)]


def setting(dtype: torch.dtype) -> tuple[Forward, Parameters, Parameters, Tensor, Tensor]:
    """Returns network, start, target, images and step size."""
    learner = network(0).train().to(dtype)
    forward, start = function_of(structure_of(learner, training=True), tensors_of(learner))
    target = tensors_of(network(1).to(dtype))
    return forward, start, target, synthetic_images().to(dtype), torch.tensor(STEP_SIZE, dtype=dtype)


def largest_difference(num_steps: int) -> float:
    """Returns the largest relative difference of loss and gradients between the sides, in float64."""
    forward, start, target, images, step_size = setting(torch.float64)
    found = [match(forward, start, target, batches_of(num_steps), images, step_size) for match in SIDES.values()]
    parts = zip(*([match.loss, match.by_images, match.by_step_size] for match in found), strict=True)
    return max(float((one - other).norm() / one.norm()) for one, other in parts)


def measure(side: str, num_steps: int) -> dict[str, float]:
    """Measures one step of trajectory matching; this process keeps freed memory, as the processes of a run do."""
    keep_freed_memory()
    forward, start, target, images, step_size = setting(torch.float32)
    before = peak_rss_bytes() / 2**20
    SIDES[side](forward, start, target, batches_of(1), images, step_size)
    began, began_cpu = perf_counter(), process_time()
    SIDES[side](forward, start, target, batches_of(num_steps), images, step_size)
    return {
        "seconds": perf_counter() - began,
        "cpu_seconds": process_time() - began_cpu,
        "peak_mb": peak_rss_bytes() / 2**20,
        "peak_mb_before": before,
        "parameters_mb": sum(values.nbytes for values in start.values()) / 2**20,
    }


def main() -> None:
    """Measures every side and N and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 40], help="N, ascending")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit-gb", type=float, default=6.0)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.side:
        print(json.dumps(measure(arguments.side, *arguments.steps)))
        return
    difference = largest_difference(CHECKED_STEPS)
    if difference > 1e-9:
        raise SystemExit(f"the sides differ by {difference:.1e}")
    measured: dict[str, dict[int, dict[str, float]]] = {
        side: _measure_side(side, arguments.steps, arguments.repeats, arguments.threads, arguments.limit_gb * 1024)
        for side in SIDES
    }
    write_result(
        "trajectory_memory-cpu",
        {
            **provenance(sys.argv[1:]),
            "network": f"convnet, depth 3, width {WIDTH}, {SHAPE[1]} px",
            "synthetic_batch": NUM_CLASSES * IPC,
            "measured": measured,
            "peak_mb_per_student_step": {side: _growth(values) for side, values in measured.items()},
            "largest_relative_difference_in_float64": difference,
            "limit_gb": arguments.limit_gb,
            "n": arguments.repeats,
        },
    )


def _measure_side(
    side: str, all_steps: list[int], repeats: int, threads: int, limit_mb: float
) -> dict[int, dict[str, float]]:
    """Returns the medians of one side for every N within the limit."""
    found: dict[int, dict[str, float]] = {}
    for num_steps in all_steps:
        if len(found) > 1:
            last, values = list(found.items())[-1]
            if values["peak_mb"] + (num_steps - last) * _growth(found) > limit_mb:
                break
        runs = [_run(side, num_steps, threads) for _ in range(repeats)]
        found[num_steps] = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        print(side, num_steps, {key: round(value, 4) for key, value in found[num_steps].items()}, file=sys.stderr)
    return found


def _run(side: str, num_steps: int, threads: int) -> dict[str, float]:
    options = ["--side", side, "--steps", str(num_steps), "--threads", str(threads)]
    command = [sys.executable, "-m", "benchmarks.trajectory_memory", *options]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return result


def _growth(measured: dict[int, dict[str, float]]) -> float:
    """Returns the megabytes that a step of the student adds to the peak, between the smallest and the largest N."""
    first, last = min(measured), max(measured)
    return (measured[last]["peak_mb"] - measured[first]["peak_mb"]) / max(1, last - first)


if __name__ == "__main__":
    main()
