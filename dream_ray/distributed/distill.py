"""A run on Ray Train: its classes are sharded over workers."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import ray
import ray.train
from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError
from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchConfig

from dream_ray import storage
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup
from dream_ray.data.manifest import MANIFEST
from dream_ray.distributed.experts import train_experts
from dream_ray.distributed.metrics import telling_ray
from dream_ray.distributed.place import beside_workers, check_seen, wait_for_nodes
from dream_ray.distributed.process_group import group_number, join_world_group
from dream_ray.distributed.producers import ProducerPlan, plan_producers, producing_actors
from dream_ray.distributed.room import Needs, places
from dream_ray.distributed.session import possible_nodes, present_nodes, ray_session, require_resources
from dream_ray.distributed.snapshot_queue import CoordinatorClient, RayConsumerSide, supervised_coordinator
from dream_ray.distributed.stopping import RayAgreement, StoppableTrainer
from dream_ray.distributed.tasks import died, value_of
from dream_ray.engine.assembly import are_made_ahead, class_counts, placement
from dream_ray.engine.checks import check_workers
from dream_ray.engine.launch import Launch
from dream_ray.engine.out_of_memory import OutOfMemory
from dream_ray.engine.run_directory import Run, open_run
from dream_ray.engine.stopping import Stopped, Stopping, ctrl_c_as_before
from dream_ray.engine.validation import background_validation, validate_step
from dream_ray.engine.worker import work
from dream_ray.errors import RunError, TransientError, UsageError

# Restarts of the worker group after worker deaths, before the run gives up if it got no further meanwhile.
_MAX_FAILURES = 3
# How often a run that may grow looks for room for more workers. They all start again, from the last checkpoint.
_GROW_S = 60.0
# The longest time in which Ray finds out that a node is gone.
_DEATH_S = 60.0
_LOOK_S = 1.0
_START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
_ERRORS = {kind.__name__: kind for kind in (UsageError, RunError, TransientError, OutOfMemory, storage.NotReadable)}


def distill_on_ray(run: Run, launch: Launch, *, gpus_per_worker: float, address: str | None) -> None:
    """Looks whether a run has what it needs, and runs its workers to the end, see `run_workers`.

    Args:
        run: A created run.
        launch: Its workers and producers; of producers, None means those of `plan_producers`.
        gpus_per_worker: GPUs of a worker; it has a CPU for each of the run's threads.
        address: Ray cluster, see `ray_session`.

    Raises:
        UsageError: If the resources are not there, or there are more workers than classes.
        RunError: If a worker failed, or died too often.
        KeyboardInterrupt: After Ctrl-C; the workers have saved, if they could.
    """
    store = run.open_store()
    check_workers(run.config, store, launch)
    with ray_session(address):
        require_resources(launch.min_workers or launch.workers, run.threads, gpus_per_worker)
        check_seen("store", store.path, storage.join(store.path, MANIFEST))
        check_seen("out", run.path, run.file("config.yaml"))
        if launch.bank is not None and not storage.is_remote(launch.bank):
            storage.ensure_writable(launch.bank)
            check_seen("bank", launch.bank, launch.bank)
        run_workers(run, launch, gpus_per_worker)


def run_workers(run: Run, launch: Launch, gpus_per_worker: float) -> None:
    """Runs the workers of a run to the end, and waits for places where nodes are away; Ray must be connected.

    Arguments, and what is raised, as for `distill_on_ray`.
    """
    store = run.open_store()
    fewest = launch.min_workers or launch.workers
    storage.delete(run.file("failure.json"))
    with ExitStack() as ending:
        train_experts(run, gpus=gpus_per_worker)
        plan = _plan_producers(run, launch, gpus_per_worker)
        coordinator = ending.enter_context(supervised_coordinator(run, plan.count, launch.workers))
        ending.enter_context(producing_actors(run, plan, coordinator))
        queue = coordinator if plan.count > 0 else None
        agreement = RayAgreement(coordinator)
        loop = {
            "run_path": storage.absolute(run.path),
            "class_counts": class_counts(run.config, store),
            "queue": queue,
            "agreement": agreement,
        }

        after_death: Any = _AfterDeath(agreement, queue)

        def trainer() -> StoppableTrainer:
            return StoppableTrainer(
                agreement.ask,
                _worker_loop,
                train_loop_config=loop,
                torch_config=TorchConfig(backend="gloo"),
                scaling_config=ScalingConfig(
                    use_gpu=gpus_per_worker > 0,
                    resources_per_worker=_resources(run.threads, gpus_per_worker),
                    **_group_size(fewest, launch.workers),
                ),
                run_config=RunConfig(
                    name="ray_train",
                    storage_path=storage.absolute(run.path),
                    failure_config=FailureConfig(max_failures=_MAX_FAILURES),
                    callbacks=[after_death],
                ),
            )

        if fewest < launch.workers:
            ending.enter_context(_looking_again_soon())
        ending.enter_context(background_validation(run, partial(_validate_beside_workers, gpus_per_worker)))
        newest = run.checkpoints(store.num_classes).newest
        _fit_while_it_gets_on(trainer, newest)
        _raise_failure(run)
        if agreement.is_asked_here and newest() != run.config.total_steps:
            raise KeyboardInterrupt
    storage.delete(run.file("ray_train"))


def _plan_producers(run: Run, launch: Launch, gpus: float) -> ProducerPlan:
    needs = Needs(cpus=run.threads, gpus=gpus)
    # Of a run that may grow, every place may become a worker's.
    is_fixed = launch.min_workers in (None, launch.workers)
    return plan_producers(
        launch.producers if are_made_ahead(run.config) else 0,
        workers=launch.workers,
        cpus=run.threads,
        gpus=gpus,
        places=places(needs, present_nodes()) if is_fixed else 0,
        possible_places=places(needs, possible_nodes(needs)) if is_fixed else 0,
    )


class _AfterDeath(UserCallback):
    """After a failure, lets Ray find out which nodes are gone before it starts the workers again.

    A worker's death is noticed at once, a node's some seconds later, and workers that are placed on it meanwhile never
    start. Until they have, there is nothing to save, and those that hold places know that these are looked for.

    Args:
        agreement: What the workers agree on.
        queue: Coordinator with their snapshot queue; None: they train the networks themselves.
    """

    def __init__(self, agreement: RayAgreement, queue: str | None) -> None:
        self._agreement, self._queue = agreement, queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Waits in the controller until every node answers that is said to be alive."""
        self._agreement.lose_group()
        wait_for_nodes(_DEATH_S)
        if self._queue is not None:
            CoordinatorClient(self._queue).call("mark_group_lost")


@contextmanager
def _looking_again_soon() -> Iterator[None]:
    """Lets a group that finds no place for all look again how many it could be, instead of waiting for nodes."""
    before = os.environ.pop(_START_TIMEOUT, None)
    os.environ[_START_TIMEOUT] = "20"
    try:
        yield
    finally:
        del os.environ[_START_TIMEOUT]
        if before is not None:
            os.environ[_START_TIMEOUT] = before


def _group_size(fewest: int, most: int) -> dict[str, Any]:
    if fewest == most:
        return {"num_workers": most}
    return {"num_workers": (fewest, most), "elastic_resize_monitor_interval_s": _GROW_S}


def _resources(cpus: int, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus > 0 else {"CPU": cpus}


def _fit_while_it_gets_on(trainer: Callable[[], StoppableTrainer], newest: Callable[[], int | None]) -> None:
    """Fits, and again as long as there are new checkpoints: nodes of a spot market go any number of times."""
    while True:
        before = newest()
        try:
            return _fit(trainer())
        except _Died:
            if newest() == before:
                raise


class _Died(TransientError):  # noqa: N818 - what happened to the workers
    """The workers died too often."""


def _fit(trainer: StoppableTrainer) -> None:
    for name in ("ray.train", "ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with ctrl_c_as_before():
            trainer.fit()
    except SystemExit:
        # How Ray Train ends a run after Ctrl-C.
        raise KeyboardInterrupt from None
    except ray.train.TrainingFailedError as error:
        raise _Died(
            f"the workers died more than {_MAX_FAILURES} times without a new checkpoint; those before are kept, "
            f"continue with `dream-ray resume`. Last reason: {error}"
        ) from None


def _worker_loop(config: dict[str, Any]) -> None:
    """Runs in each Ray Train worker.

    An error that a restart would only meet again is written down and ends the loop normally: Ray Train restarts
    workers after exceptions. The others see it at their next checkpoint, or while they wait for a network, and stop. A
    bucket that does not answer is worth a restart.
    """
    context = ray.train.get_context()
    rank, world, run_path = context.get_world_rank(), context.get_world_size(), config["run_path"]
    settings = open_run(run_path).config
    labels = placement(settings, config["class_counts"], world)[rank]
    failure = storage.join(run_path, "failure.json")
    has_failed = partial(storage.exists, failure)
    group, queue = group_number(world), config["queue"]
    stopping = Stopping(config["agreement"], rank, world, group)
    world_group: ProcessGroup = SINGLE_PROCESS_GROUP
    if settings.source.kind in ("synthetic", "expert"):
        # They work in step, so they stop as one.
        world_group, stopping = join_world_group(world), Stopping(config["agreement"], group=group)
    try:
        work(
            run_path,
            labels,
            shard=rank,
            num_shards=world,
            world_group=world_group,
            should_stop=has_failed,
            stopping=stopping,
            networks=None if queue is None else RayConsumerSide(queue, rank, world, has_failed, group),
            tell=telling_ray(run_path, rank),
        )
    except storage.RemoteError:
        raise
    except (UsageError, RunError) as error:
        storage.write_json(failure, {"kind": type(error).__name__, "message": str(error)})
    except Stopped:
        pass


def _raise_failure(run: Run) -> None:
    path = run.file("failure.json")
    if storage.exists(path):
        failure = storage.read_json(path)
        raise _ERRORS[failure["kind"]](failure["message"])


def _validate_beside_workers(gpus: float, run_path: str, step: int) -> None:
    """Validates on a node of the workers; does nothing where there is none just now, or it goes meanwhile."""
    place = beside_workers(gpus)
    if place is None:
        time.sleep(_LOOK_S)
        return
    # Nothing of its own: everything may belong to the workers, and it must not wait for the end of the run.
    try:
        value_of(ray.remote(max_retries=3, **place)(validate_step).remote(run_path, step))
    except (NodeDiedError, TaskUnschedulableError):
        pass
    except RayError as error:
        raise died(error) from None
