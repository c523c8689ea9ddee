"""An evaluation as independent tasks, each of which trains one network on one set of images."""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace

import torch

from dream_ray import storage
from dream_ray.config.sections import Network
from dream_ray.core.images.synthetic import SyntheticSet
from dream_ray.data.store.store import Store
from dream_ray.engine.evaluation.baselines import BASELINES, representative_indices
from dream_ray.engine.evaluation.evaluate import (
    EvaluationResult,
    evaluation_recipe,
    num_epochs,
    train_and_test,
)
from dream_ray.engine.evaluation.opening import open_evaluated
from dream_ray.engine.evaluation.options import DISTILLED, KMEANS_REAL, WHOLE_SET, network_label
from dream_ray.engine.networks.stored_images import training_images
from dream_ray.engine.networks.training import TrainingImages
from dream_ray.engine.run.artefacts import read_synthetic
from dream_ray.engine.run.directory import Run
from dream_ray.engine.run.environment import NUMERICS, fixed_arithmetic, library_versions, resolve_device
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors
from dream_ray.engine.run.sets import synthetic_set
from dream_ray.errors import RunError
from dream_ray.nets import build_network
from dream_ray.nets.user_networks import source_digest

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationTask:
    """One network trained on one set of images; plain values, so that it can run anywhere.

    Attributes:
        run_path: Directory of the run, or file of a set; see `open_evaluated`.
        evaluated_set: Name of the set, one of `EVALUATED_SETS`.
        repeat: Number of the fresh network.
        protocol: "quick" or "published".
        split: "test" or "validation".
        network: Network that is trained.
        indices: Chosen real images of each class, for the baseline "k-means real".
        step: Step of the checkpoint to take the distilled images from; None: the finished run.
        store: Store that tests the network; None: that of the run.
    """

    run_path: str
    evaluated_set: str
    repeat: int
    protocol: str
    split: str
    network: Network
    indices: tuple[tuple[int, ...], ...] = ()
    step: int | None = None
    store: str | None = None


def plan_tasks(
    run: Run,
    *,
    networks: Sequence[Network] = (),
    store: str | None = None,
    steps: Sequence[int] = (),
    repeats: int,
    protocol: str,
    split: str,
    baselines: Sequence[str],
) -> list[EvaluationTask]:
    """Splits an evaluation, which `check_evaluation` has checked, into independent tasks.

    Args:
        run: A run; it is finished if there are no `steps`.
        networks: Networks to train; none: the one of the run's settings.
        store: Store that `open_evaluated` opened the run with.
        steps: Steps of the checkpoints to evaluate; none: the finished run.
        repeats: Fresh networks per set.
        protocol: "quick" or "published".
        split: "test" or "validation".
        baselines: Names of `BASELINES` to train on besides the distilled set.

    Raises:
        UsageError: If a network does not fit the store.
    """
    networks = networks or [run.config.evaluation.network or run.config.network]
    with run.reading_store() as tested, fixed_arithmetic(run.threads, run.config.precision):
        for one in networks:
            build_network(one.name, num_classes=tested.num_classes, shape_CHW=tested.shape_CHW, options=one.options)
        device = resolve_device(run.evaluated_on)
        indices = representative_indices(run, tested, device) if KMEANS_REAL in baselines else ()
    checkpoints: list[int | None] = [*sorted(set(steps))]
    sets = [(DISTILLED, step) for step in checkpoints or [None]] + [(name, None) for name in dict.fromkeys(baselines)]
    return [
        EvaluationTask(run.evaluated_path, evaluated_set, repeat, protocol, split, network, indices, step, store)
        for network in networks
        for evaluated_set, step in sets
        for repeat in range(repeats)
    ]


def distilled_task(run: Run, split: str, step: int | None = None, repeat: int = 0) -> EvaluationTask:
    """Returns the task that evaluates a run, or its checkpoint `step`, by one network of its settings."""
    network = run.config.evaluation.network or run.config.network
    return EvaluationTask(run.path, DISTILLED, repeat, "quick", split, network, step=step)


@memory_errors()
def run_task(task: EvaluationTask, device_name: str) -> EvaluationResult:
    """Trains and tests one network; a result of the whole set is cached in the store.

    Args:
        task: The task.
        device_name: Device that the network is trained on, see `resolve_device`.

    Raises:
        OutOfMemory: If memory runs out.
    """
    keep_freed_memory()
    run, device = open_evaluated(task.run_path, task.store), resolve_device(device_name)
    with run.reading_store() as store, fixed_arithmetic(run.threads, run.config.precision):
        return replace(_run(task, run, store, device), step=task.step, network=network_label(run.config, task.network))


def _run(task: EvaluationTask, run: Run, store: Store, device: torch.device) -> EvaluationResult:
    cached = _whole_set_file(task, run, store, device) if task.evaluated_set == WHOLE_SET else None
    if cached is not None and storage.exists(cached):
        return EvaluationResult.of_json(storage.read_json(cached))
    data, step_size = training_data(task, run, store)
    result = train_and_test(
        run.config,
        store,
        data,
        run.normalise(store, device),
        protocol=task.protocol,
        split=task.split,
        network=task.network,
        evaluated_set=task.evaluated_set,
        repeat=task.repeat,
        step_size=step_size,
    )
    if cached is not None:
        try:
            storage.write_json(cached, asdict(result))
        except RunError as error:  # the store may be read-only
            _LOG.warning("The whole-set result is not cached for the next evaluation: %s", error)
    return result


def training_data(task: EvaluationTask, run: Run, store: Store) -> tuple[TrainingImages, float | None]:
    """Returns the images to train on, and the step size that was learned with them, or None."""
    if task.evaluated_set != DISTILLED:
        return BASELINES[task.evaluated_set](run, store, task.repeat, task.indices), None
    synthetic = _distilled(run, store, task.step)
    return training_images(synthetic), synthetic.step_size


def _distilled(run: Run, store: Store, step: int | None) -> SyntheticSet:
    if step is None:
        return read_synthetic(run.set_file)[0]
    written = run.partial_file(step)  # the workers of a running run may have deleted the checkpoint
    return read_synthetic(written)[0] if storage.exists(written) else synthetic_set(run, store, step)


def _whole_set_file(task: EvaluationTask, run: Run, store: Store, device: torch.device) -> str:
    """Returns the path of a cached result, which names everything that its bits depend on except the CPU type."""
    source = source_digest(task.network.name)
    key = json.dumps(
        [
            [field.name for field in fields(EvaluationResult)],
            store.manifest.checksum,
            run.config.splits,
            run.config.data.model_dump(mode="json", include={"normalisation", "zca"}),
            task.split,
            task.repeat,
            task.network.model_dump() | ({} if source is None else {"source": source}),
            asdict(evaluation_recipe(run.config)),
            run.config.evaluation.lr_decay,
            run.config.evaluation.lr_milestones,
            run.config.evaluation.restart_momentum,
            num_epochs(run.config, task.protocol, WHOLE_SET),
            run.config.seed,
            device.type,
            run.threads,
            run.config.precision,
            NUMERICS,
            library_versions(),
        ]
    )
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return storage.join(run.environment["store"], "evaluations", f"whole-set-{digest}.json")
