"""Evaluation: networks trained from scratch on a set, and tested on real images they never saw.

A run of GPUs may be evaluated where there is none.

Accuracy is that of the last epoch, never the best one: picking an epoch by its test accuracy would be selection on
test data. Baselines are trained under the same recipe.
"""

import hashlib
import json
import logging
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.config.sections import Network
from dream_ray.core import rng
from dream_ray.core.normalisation import Normalise
from dream_ray.data.store import Store
from dream_ray.engine.allocator import keep_freed_memory
from dream_ray.engine.arms import ARMS, DISTILLED, WHOLE_SET, representative_indices
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.environment import fixed_threads, resolve_device
from dream_ray.engine.out_of_memory import saying_what_needs_less_memory
from dream_ray.engine.run_directory import Run, open_run
from dream_ray.engine.training import RealImages, Recipe, TensorImages, TrainingImages, accuracy, train_pass
from dream_ray.errors import RunError, UsageError
from dream_ray.nets import build_network
from dream_ray.nets.user_networks import source_digest

_LOG = logging.getLogger(__name__)

PROTOCOLS = ("quick", "published")
# So that the floating-point product of 2/3 and 3 epochs is 2.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class EvaluationTask:
    """One network trained on one arm; plain values, so that it can run anywhere.

    Attributes:
        run_path: Directory of the run.
        arm: Key of `ARMS`.
        repeat: Number of the fresh network.
        protocol: "quick" or "published".
        split: "test" or "validation".
        network: Network that is trained.
        threads: Threads of the process.
        device: Where it is trained, see `resolve_device`.
        indices: Chosen real images of each class, for the arms that take some.
    """

    run_path: str
    arm: str
    repeat: int
    protocol: str
    split: str
    network: Network
    threads: int
    device: str
    indices: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class EvaluationResult:
    """What one network reached.

    Attributes:
        arm: Key of `ARMS`.
        repeat: Number of the fresh network.
        accuracy: Last-epoch top-1 accuracy in [0, 1].
        num_images: Images it was trained on, decoded.
        epochs: Epochs it was trained for.
        seconds: Duration.
        device: Type of the device that it was trained on.
    """

    arm: str
    repeat: int
    accuracy: float
    num_images: int
    epochs: int
    seconds: float
    device: str


def plan_tasks(
    run: Run, *, network: Network | None, repeats: int, protocol: str, split: str, arms: Sequence[str], threads: int
) -> list[EvaluationTask]:
    """Checks an evaluation and splits it into independent tasks.

    Args:
        run: A finished run.
        network: Network to train; None: the one of the run's settings.
        repeats: Fresh networks per arm.
        protocol: Key of `PROTOCOLS`.
        split: "test" or "validation".
        arms: Keys of `ARMS`.
        threads: Threads per task.

    Raises:
        UsageError: If an argument breaks a rule or the store has no such split.
    """
    for name, value, valid in (("protocol", protocol, PROTOCOLS), ("split", split, ("test", "validation"))):
        if value not in valid:
            raise UsageError(f"{name} must be one of {', '.join(valid)}; got {value!r}")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        raise UsageError(f"arms must be of {', '.join(ARMS)}; got {', '.join(unknown)}")
    if repeats < 1:
        raise UsageError(f"repeats must be an int >= 1; got {repeats}")
    if not run.is_finished:
        raise UsageError(f"run {run.path} must be finished; continue it with `dream-ray resume {run.path}`")
    store = run.open_store()
    if split not in store.splits():
        raise UsageError(f"split must be one that the store has ({', '.join(store.splits())}); got {split!r}")
    if split in run.config.splits:
        raise UsageError(f"split must be unseen; the run distilled {split!r} too (data.include_validation: true)")
    network = network or run.config.evaluation.network or run.config.network
    build_network(network.name, num_classes=store.num_classes, shape_CHW=store.shape_CHW, options=network.options)
    with fixed_threads(threads):
        device = resolve_device(run.evaluated_on)
        indices = representative_indices(run, store, device) if "k-means real" in arms else ()
    return [
        EvaluationTask(
            storage.absolute(run.path), arm, repeat, protocol, split, network, threads, run.evaluated_on, indices
        )
        for arm in arms
        for repeat in range(repeats)
    ]


@saying_what_needs_less_memory()
def run_task(task: EvaluationTask) -> EvaluationResult:
    """Trains and tests one network; the whole set's result is kept beside the store and found again.

    Raises:
        OutOfMemory: If it needs more memory than there is.
    """
    keep_freed_memory()
    run = open_run(task.run_path)
    store, device = run.open_store(), resolve_device(task.device)
    kept = _whole_set_file(task, run, store, device) if task.arm == WHOLE_SET else None
    if kept is not None and storage.exists(kept):
        return EvaluationResult(**{"device": device.type, **storage.read_json(kept)})  # older ones do not say it
    with fixed_threads(task.threads):
        result = train_and_test(
            run.config,
            store,
            ARMS[task.arm](run, store, task.repeat, task.indices),
            run.normalise(store, device),
            protocol=task.protocol,
            split=task.split,
            network=task.network,
            arm=task.arm,
            repeat=task.repeat,
            step_size=learned_step_size(run) if task.arm == DISTILLED else None,
        )
    if kept is not None:
        try:
            storage.write_json(kept, asdict(result))
        except RunError as error:  # a store may well be read-only
            _LOG.warning("The whole-set result is not kept for the next evaluation: %s", error)
    return result


def train_and_test(
    config: Config,
    store: Store,
    data: TrainingImages,
    normalise: Normalise,
    *,
    protocol: str,
    split: str,
    network: Network | None = None,
    arm: str = DISTILLED,
    repeat: int = 0,
    step_size: float | None = None,
) -> EvaluationResult:
    """Trains a fresh network from scratch and measures its last-epoch accuracy.

    Args:
        config: Gives recipe and seed.
        store: Holds the images of `split`.
        data: What to train on.
        normalise: Makes the network's inputs, and says where it is trained.
        protocol: "quick" or "published".
        split: Split to test on.
        network: None: the one of the run's settings.
        arm: Name in the result and in the random streams.
        repeat: Number of the fresh network.
        step_size: Learning rate where `evaluation.lr` is null; None: the first one of the students.

    Raises:
        RunError: If the step size is not positive.
    """
    started = time.monotonic()
    network = network or config.evaluation.network or config.network
    with rng.torch_randomness(rng.stream(config.seed, "evaluation-network", outer=repeat)):
        classifier = build_network(
            network.name, num_classes=store.num_classes, shape_CHW=store.shape_CHW, options=network.options
        ).to(normalise.device)
    recipe, epochs = evaluation_recipe(config, step_size), num_epochs(config, protocol, arm)
    optimizer = recipe.optimizer(classifier)
    milestones = [int(part * epochs + _ROUNDING) for part in config.evaluation.lr_milestones]
    # One of 0 epochs, of a short training, would be applied at once: nothing would be trained at the first rate.
    milestones = [milestone for milestone in milestones if milestone >= 1]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=config.evaluation.lr_decay)
    if isinstance(data, TensorImages):
        data = data.on(normalise.device)
    # The network may draw at random, as dropout does.
    with rng.torch_randomness(rng.stream(config.seed, f"evaluation-{arm}-forward", outer=repeat), normalise.device):
        for epoch in range(epochs):
            generator = rng.stream(config.seed, f"evaluation-{arm}", outer=repeat, inner=epoch)
            train_pass(classifier, optimizer, data, len(data), recipe, normalise, generator)
            schedule.step()
    reached = accuracy(classifier, RealImages(*store.training_set((split,))), normalise)
    seconds = time.monotonic() - started
    return EvaluationResult(arm, repeat, reached, len(data), epochs, seconds, normalise.device.type)


def learned_step_size(run: Run) -> float | None:
    """Returns the step size that a finished run learned with its images; None where it learned none."""
    return read_synthetic(run.file("synthetic.parquet"))[0].step_size


def evaluation_recipe(config: Config, step_size: float | None = None) -> Recipe:
    """Returns the evaluation recipe of a run; for `step_size` see `train_and_test`."""
    settings = config.evaluation
    lr = settings.lr or (config.trajectory.step_size if step_size is None else step_size)
    if not lr > 0:
        raise RunError(f"a learned step size must be > 0 to train with; got {lr:g}: lower trajectory.step_size_lr")
    return Recipe(
        settings.batch_size,
        lr,
        settings.momentum,
        settings.weight_decay,
        settings.cutmix_probability,
        settings.augmentation,
        settings.random_resized_crop,
    )


def num_epochs(config: Config, protocol: str, arm: str) -> int:
    """Returns the epochs of a protocol; the whole set, hundreds of times larger, is trained for fewer."""
    settings = config.evaluation
    if arm == WHOLE_SET:
        return settings.whole_set_epochs if protocol == "published" else max(1, settings.whole_set_epochs // 10)
    return settings.epochs if protocol == "published" else settings.quick_epochs


def summarise(results: Iterable[EvaluationResult]) -> list[dict[str, Any]]:
    """Returns one row per arm: mean and sample standard deviation of the accuracy in [0, 1], with n and devices."""
    by_arm: dict[str, list[EvaluationResult]] = {}
    for result in sorted(results, key=lambda r: (list(ARMS).index(r.arm), r.repeat)):
        by_arm.setdefault(result.arm, []).append(result)
    return [
        {
            "arm": arm,
            "mean": statistics.mean(r.accuracy for r in group),
            "std": statistics.stdev(r.accuracy for r in group) if len(group) > 1 else None,
            "n": len(group),
            "num_images": group[0].num_images,
            "epochs": group[0].epochs,
            "accuracies": [r.accuracy for r in group],
            "seconds": sum(r.seconds for r in group),
            "devices": sorted({r.device for r in group}),
        }
        for arm, group in by_arm.items()
    ]


def _whole_set_file(task: EvaluationTask, run: Run, store: Store, device: torch.device) -> str:
    source = source_digest(task.network.name)
    key = json.dumps(
        [
            store.checksum,
            run.config.splits,
            run.config.data.zca,
            task.split,
            task.repeat,
            task.network.model_dump() | ({} if source is None else {"source": source}),
            asdict(evaluation_recipe(run.config)),
            run.config.evaluation.lr_decay,
            run.config.evaluation.lr_milestones,
            num_epochs(run.config, task.protocol, WHOLE_SET),
            run.config.seed,
            device.type,
        ]
    )
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return storage.join(run.environment["store"], "evaluations", f"whole-set-{digest}.json")
