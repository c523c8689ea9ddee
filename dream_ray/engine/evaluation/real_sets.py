"""Sets of real images as products, in the directory of a run without steps: baselines that are stored and evaluated.

Classes are independent tasks, each of which writes a class after the other as a shard of the first checkpoint. So a
process holds one class at a time, a killed one costs its current class, and the same call continues.
"""

from dataclasses import dataclass
from functools import partial

from dream_ray import storage
from dream_ray.config import Config
from dream_ray.config.nested import leaves
from dream_ray.core.placement import Labels, class_groups
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.from_config import class_matcher
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.models.ranking import InitialModels, check_initial_models
from dream_ray.engine.progress.heartbeat import Heartbeat, discard_report
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.directory import INITIAL_MODELS, Run, open_run
from dream_ray.engine.run.environment import (
    describe_environment,
    differences,
    fixed_arithmetic,
    resolve_device,
)
from dream_ray.engine.run.lifecycle import create_directory
from dream_ray.engine.run.process_memory import keep_freed_memory, memory_errors
from dream_ray.engine.run.spec import RunSpec
from dream_ray.errors import UsageError

# A task reads the models once; many small tasks balance the load.
_MOST_CLASSES, _TASKS = 8, 32


@dataclass(frozen=True)
class RealSetTask:
    """Some classes of a set of real images; plain values, so that it can run anywhere.

    Attributes:
        run_path: Directory of the run.
        number: Number of the task.
        num_tasks: Tasks of the run.
        labels: The classes.
    """

    run_path: str
    number: int
    num_tasks: int
    labels: Labels


def begin_real_set(spec: RunSpec) -> Run:
    """Creates the directory of a set of real images, or opens that of an earlier call with the same arguments.

    Args:
        spec: A run without outer steps; its directory is new or empty, or that of an earlier call.

    Raises:
        UsageError: If the settings do not fit store or models, a class has too few images, or the directory holds
            something else.
        RunError: If a model is damaged.
    """
    assert spec.out is not None
    device, store = resolve_device(spec.device), Store.open(spec.store)
    digests = check_initial_models(spec.config, store)
    _check_sizes(spec.config, store)
    if not storage.exists(storage.join(spec.out, "config.yaml")):
        return create_directory(spec, device, digests)
    run = open_run(spec.out)
    found = run.environment
    asked = {"store": store.manifest.checksum, "models": digests, **leaves(spec.config.model_dump(mode="json"))}
    begun = {"store": found["store_checksum"], "models": found.get(INITIAL_MODELS, [])}
    if changed := differences({**begun, **leaves(run.config.model_dump(mode="json"))}, asked):
        raise UsageError(f"out {spec.out} holds another run: {'; '.join(changed)}. Use another out")
    bits = {"threads_per_worker": spec.threads, **describe_environment(device)}
    if not run.is_finished and (changed := differences({name: found[name] for name in bits}, bits)):
        raise UsageError(f"the set in {spec.out} would continue with other bits: {'; '.join(changed)}. Use another out")
    return run


def _check_sizes(config: Config, store: Store) -> None:
    """Raises UsageError if a class has fewer images than its mosaics have tiles: a selection repeats none."""
    counts, tiles = class_counts(config, store), config.ipc * config.factor**2
    fewest = min(counts)
    if fewest < tiles:
        product = "ipc" if config.factor == 1 else "ipc * factor^2"
        raise UsageError(
            f"{product} must be at most the number of images of the smallest class, "
            f"{store.manifest.class_names[counts.index(fewest)]!r} with {fewest} in {' and '.join(config.splits)}; got "
            f"{tiles}"
        )


def real_set_tasks(run: Run) -> list[RealSetTask]:
    """Divides the classes of a run into tasks."""
    num_classes = run.environment["num_classes"]
    groups = class_groups(range(num_classes), max(1, min(_MOST_CLASSES, num_classes // _TASKS)))
    return [RealSetTask(run.path, number, len(groups), labels) for number, labels in enumerate(groups)]


@memory_errors()
def select_images(task: RealSetTask, device_name: str) -> int:
    """Selects the images of the classes of a task, unless an earlier try has; returns the number of classes.

    Args:
        task: The task.
        device_name: Device that computes, see `resolve_device`.

    Raises:
        UsageError: If a model is another one than the run began with.
        RunError: If scores or features are not finite, or a file cannot be read or written.
        OutOfMemory: If memory runs out.
    """
    keep_freed_memory()
    run, device = open_run(task.run_path), resolve_device(device_name)
    checkpoints = run.checkpoints()
    with (
        run.reading_store() as store,
        Heartbeat(run, task.number, task.num_tasks, len(task.labels), discard_report) as heartbeat,
        fixed_arithmetic(run.threads, run.config.precision),
    ):
        matcher = class_matcher(
            run.config,
            store,
            task.labels,
            run.normalise(store, device),
            open_models=partial(InitialModels.open, run, store, device),
        )
        for label in task.labels:
            if not storage.exists(checkpoints.shard_file(0, label, store.num_classes)):
                state = RunState(classes={label: matcher.initial_images.state(None, label)})
                checkpoints.save(state, step=0, shard=label, num_shards=store.num_classes)
            heartbeat.beat_if_due("selecting")
        heartbeat.end()
    return len(task.labels)
