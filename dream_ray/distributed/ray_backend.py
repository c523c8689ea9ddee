"""The execution of runs on Ray: workers belong to Ray Train, producers are actors, all other work runs in tasks."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import ray
import ray.train
from ray.exceptions import NodeDiedError, RayError, TaskUnschedulableError

from dream_ray import storage
from dream_ray.data.store.manifest import MANIFEST
from dream_ray.distributed.cluster.capacity import (
    Needs,
    default_gpus,
    is_cluster,
    present_nodes,
    wait_for_workers,
    worker_slots,
)
from dream_ray.distributed.cluster.driver_placement import beside_workers, check_visible_on_all_nodes, use_gpu
from dream_ray.distributed.cluster.session import cluster_address, ray_session
from dream_ray.distributed.cluster.tasks import died, result_of, results, value_of
from dream_ray.distributed.prefetch.coordinator_client import RayAgreement
from dream_ray.distributed.prefetch.producers import ProducerPlan, ProducingActors, plan_producers
from dream_ray.distributed.prefetch.snapshot_queue import supervised_coordinator
from dream_ray.distributed.train.controller_callbacks import NotStartedError
from dream_ray.distributed.train.failure import raise_failure
from dream_ray.distributed.train.model_training import train_on_workers
from dream_ray.distributed.train.trainer import WorkersDied, fitting, make_trainer
from dream_ray.engine.backend import Producers
from dream_ray.engine.evaluation.validation import background_validation, validate_step
from dream_ray.engine.models.model import BEGUN
from dream_ray.engine.models.spec import TrainSpec
from dream_ray.engine.prefetch.producer import make_expert, missing_experts
from dream_ray.engine.run.class_costs import class_counts
from dream_ray.engine.run.directory import FAILURE, Run, open_run
from dream_ray.engine.run.spec import MODEL, RunSpec

Item = TypeVar("Item")
Result = TypeVar("Result")

_LOG = logging.getLogger(__name__)
_LOOK_S = 1.0
_RETRIES = 3
_REMEDY = "`dream-ray resume`"
_LAST_TURN = -1  # of `beside_workers`; producers take their turns from 0 on


class RayBackend:
    """Executes runs on Ray, see `Backend`.

    The backend joins a cluster when the block begins. A private local Ray starts with the first work that needs it, so
    a run that is refused does not wait for Ray.

    Args:
        address: Ray cluster, see `ray_session`.
        wait_s: Seconds that work waits for free resources.
    """

    def __init__(self, address: str | None = None, wait_s: float = 600.0) -> None:
        self._address, self._wait_s = address, wait_s
        self._connected = ExitStack()

    def __enter__(self) -> "RayBackend":
        if cluster_address(self._address):
            self._connect()
        return self

    def __exit__(self, *error: object) -> None:
        self._connected.close()

    def _connect(self) -> None:
        self._connected.enter_context(ray_session(self._address))

    def call(
        self, function: Callable[..., Result], *arguments: Any, device: str, cpus: int, gpus: float | None = None
    ) -> Result:
        """See `Backend.call`; calls the function in this process if workers can only run on this machine."""
        if not (ray.is_initialized() and is_cluster()):
            return function(*arguments)
        gpus = default_gpus(device) if gpus is None else gpus
        wait_for_workers(Needs(cpus=cpus, gpus=gpus), self._wait_s)
        remote: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(_call)
        result: Result = result_of(remote.remote(function, *arguments))
        return result

    def map(
        self,
        function: Callable[[Item, str], Result],
        items: Iterable[Item],
        *,
        device: str,
        cpus: int,
        gpus: float | None = None,
        at_a_time: int | None = None,
    ) -> Iterator[Result]:
        """See `Backend.map`; every call is a task.

        Raises:
            UsageError: If a private local Ray has no capacity for a task.
            TransientError: If the first task finds no free resources, or a task died too often.
        """
        self._connect()
        gpus = default_gpus(device) if gpus is None else gpus
        wait_for_workers(Needs(cpus=cpus, gpus=gpus), self._wait_s)
        remote: Any = ray.remote(num_cpus=cpus, num_gpus=gpus)(function)
        # Ray hides no GPU from tasks that reserve none, so any number of them would share it.
        allowed = device if gpus else "cpu"
        yield from results((partial(remote.remote, item, allowed) for item in items), at_a_time)

    def check_visible(self, name: str, path: str, file: str) -> None:
        """See `Backend.check_visible`."""
        self._connect()
        check_visible_on_all_nodes(name, path, file)

    def producers(self, spec: RunSpec) -> Producers:
        """See `Backend.producers`."""
        self._connect()
        gpus = default_gpus(spec.device) if spec.gpus_per_worker is None else spec.gpus_per_worker
        plan = _plan_producers(spec, gpus)
        return Producers(plan.count, plan.reserves)

    def cores(self) -> int:
        """See `Backend.cores`."""
        self._connect()
        return int(sum(node.get("CPU", 0) for node in present_nodes()))

    def run_workers(self, run: Run, spec: RunSpec, *, look: Callable[[], None] | None = None) -> None:
        """See `Backend.run_workers`; waits for resources if nodes are missing."""
        if look is not None:
            _looking(partial(self.run_workers, run, spec), look)
            return
        self._connect()
        gpus = float(run.device.type == "cuda") if spec.gpus_per_worker is None else spec.gpus_per_worker
        counts = class_counts(run.config, run.open_store())
        needs = Needs(spec.fewest_workers, spec.threads, gpus)
        wait_for_workers(needs, self._wait_s)
        _check_paths(run, spec)
        storage.delete(run.file(FAILURE))
        with ExitStack() as ending:
            _train_experts(run, gpus)
            plan = _plan_producers(spec, gpus)
            coordinator = ending.enter_context(supervised_coordinator(run, plan.count, spec.workers))
            ending.enter_context(ProducingActors(run, plan, coordinator))
            agreement = RayAgreement(coordinator)
            ending.enter_context(background_validation(run, partial(_validate_beside_workers, gpus)))
            newest = run.checkpoints().newest
            while True:
                wait_for_workers(needs, self._wait_s)  # experts or lost nodes may have taken the resources
                before = newest()
                try:
                    with fitting(_REMEDY):
                        make_trainer(run, spec, counts, gpus, coordinator if plan.count else None, agreement).fit()
                    break
                except WorkersDied:  # spot nodes may disappear any number of times
                    if newest() == before:
                        raise
                except NotStartedError:
                    _LOG.warning("The workers did not start within a minute; trying again.")
            raise_failure(run.file(FAILURE))
            if agreement.is_asked_here and newest() != run.config.total_steps:
                raise KeyboardInterrupt
        storage.delete(run.file("ray_train"))

    def train_model(self, spec: TrainSpec, begun: dict[str, Any]) -> None:
        """See `Backend.train_model`; waits for resources if nodes are missing."""
        self._connect()
        device = begun["bits"]["device"]
        gpus = float(device == "cuda") if spec.gpus_per_worker is None else spec.gpus_per_worker
        wait = partial(wait_for_workers, Needs(spec.workers, spec.threads, gpus), self._wait_s)
        wait()
        check_visible_on_all_nodes("store", spec.store, storage.join(spec.store, MANIFEST))
        check_visible_on_all_nodes("out", spec.out, storage.join(spec.out, BEGUN))
        train_on_workers(replace(spec, device=device), begun, gpus, wait)


def _call(function: Callable[..., Result], *arguments: Any) -> Result:
    """Calls a function; Ray makes tasks only of plain functions, not of partial ones."""
    return function(*arguments)


def _check_paths(run: Run, spec: RunSpec) -> None:
    """Raises UsageError if a node does not see a path of the run."""
    store = run.environment["store"]
    check_visible_on_all_nodes("store", store, storage.join(store, MANIFEST))
    check_visible_on_all_nodes("out", run.path, run.file("config.yaml"))
    start = run.config.initialisation.path
    if start is not None and not storage.is_directory(start):
        check_visible_on_all_nodes("from", start, start)
    for name, models in (
        ("initialisation.models", run.config.initialisation.used_models),
        ("source.models", run.config.source.models if run.config.source.kind == "frozen" else ()),
    ):
        for model in models:
            check_visible_on_all_nodes(name, model, storage.join(model, MODEL))
    if spec.snapshot_cache is not None and not storage.is_remote(spec.snapshot_cache):
        storage.ensure_writable(spec.snapshot_cache)
        check_visible_on_all_nodes("snapshot-cache", spec.snapshot_cache, spec.snapshot_cache)


def _train_experts(run: Run, gpus: float) -> None:
    """Trains the experts of trajectory matching that the run's cache lacks, as many at a time as there is capacity for.

    Ray restarts a task that dies; the task resumes from the last network in the cache.
    """
    task = ray.remote(num_cpus=run.threads, num_gpus=gpus, max_retries=_RETRIES)(make_expert)
    path = storage.absolute(run.path)
    for _ in results(partial(task.remote, path, number) for number in missing_experts(run)):
        pass


def _plan_producers(spec: RunSpec, gpus: float) -> ProducerPlan:
    # In an elastic run, a worker may take any free slot later.
    is_fixed = spec.fewest_workers == spec.workers
    return plan_producers(
        spec.producers if spec.config.source.is_trained_ahead else 0,
        workers=spec.workers,
        cpus=spec.threads,
        gpus=gpus,
        slots=worker_slots(Needs(cpus=spec.threads, gpus=gpus), present_nodes()) if is_fixed else 0,
    )


def _looking(run_workers: Callable[[], None], look: Callable[[], None]) -> None:
    """Calls `look` in this thread while another thread runs the workers.

    An exception of `look` ends this process and with it the workers.
    """
    ended: Future[None] = Future()

    def run_beside() -> None:
        try:
            run_workers()
            ended.set_result(None)
        except RayError as error:
            ended.set_exception(died(error))
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=run_beside, daemon=True, name="ray-train").start()
    while not ended.done():
        look()
        wait([ended], timeout=_LOOK_S)
    ended.result()


def _validate_beside_workers(gpus: float, run_path: str, step: int) -> None:
    """Validates on a node that can run workers; does nothing if there is none or if it is lost."""
    place = beside_workers(gpus, _LAST_TURN)
    if place is None:
        time.sleep(_LOOK_S)
        return
    options, gpu = place
    # The workers may hold all resources, so the task reserves none; otherwise it would wait for the end of the run.
    try:
        value_of(ray.remote(max_retries=_RETRIES, **options)(_validate).remote(run_path, step, gpu))
    except (NodeDiedError, TaskUnschedulableError):
        pass
    except RayError as error:
        raise died(error) from None


def _validate(run_path: str, step: int, gpu: int) -> None:
    use_gpu(open_run(run_path).device.type, gpu)
    validate_step(run_path, step)
