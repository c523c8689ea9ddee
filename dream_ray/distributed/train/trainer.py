"""The Ray Train job of a run: its trainer and its worker function."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig

from dream_ray import storage
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP
from dream_ray.distributed.prefetch.coordinator_client import RayAgreement
from dream_ray.distributed.prefetch.snapshot_queue import RayConsumerSide
from dream_ray.distributed.train.controller_callbacks import AfterDeath, NotStartedError, StartTimeout
from dream_ray.distributed.train.gloo import GlooConfig
from dream_ray.distributed.train.metrics import report_to_ray
from dream_ray.distributed.train.process_group import incarnation_number, join_world_group
from dream_ray.distributed.train.stoppable_trainer import StoppableTrainer
from dream_ray.engine.run.class_costs import placement
from dream_ray.engine.run.directory import FAILURE, Run
from dream_ray.engine.run.lifecycle import write_failure
from dream_ray.engine.run.spec import RunSpec
from dream_ray.engine.stopping import Stopped, Stopping, ctrl_c_as_before
from dream_ray.engine.worker import WorkerContext, work
from dream_ray.errors import RunError, TransientError, UsageError

# Restarts of the worker group without a new checkpoint before the run fails.
MAX_FAILURES = 3
# The interval at which an elastic run looks for free worker slots. If it finds some, all workers restart from the last
# checkpoint.
_GROW_S = 60.0


class WorkersDied(TransientError):  # noqa: N818 - it names what happened
    """The workers died too often."""


def make_trainer(
    run: Run, spec: RunSpec, counts: Sequence[int], gpus: float, queue: str | None, agreement: RayAgreement
) -> StoppableTrainer:
    """Makes the trainer of a run.

    Args:
        run: The run.
        spec: Its specification.
        counts: Real images of each class, by label.
        gpus: GPUs per worker.
        queue: Name of the snapshot queue; None: the workers train the networks themselves.
        agreement: The agreement on the step at which workers stop.
    """
    path = storage.absolute(run.path)
    callbacks: list[Any] = [AfterDeath(agreement.coordinator), StartTimeout()]
    resources = {"CPU": float(spec.threads)} | ({"GPU": gpus} if gpus > 0 else {})
    return StoppableTrainer(
        agreement.ask,
        partial(work, path, partial(_join, counts, queue, agreement)),
        backend_config=GlooConfig(),
        scaling_config=ScalingConfig(use_gpu=gpus > 0, resources_per_worker=resources, **_group_size(spec)),
        run_config=RunConfig(
            name="ray_train",
            storage_path=path,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=callbacks,
        ),
    )


def _group_size(spec: RunSpec) -> dict[str, Any]:
    if spec.fewest_workers == spec.workers:
        return {"num_workers": spec.workers}
    return {"num_workers": (spec.fewest_workers, spec.workers), "elastic_resize_monitor_interval_s": _GROW_S}


@contextmanager
def fitting(remedy: str) -> Iterator[None]:
    """Silences Ray Train while the block fits a trainer, and translates its exceptions.

    Args:
        remedy: What continues the work, for the error.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        NotStartedError: If the workers found no free resources.
        WorkersDied: If the workers died too often.
    """
    for name in ("ray.train", "ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with ctrl_c_as_before():
            yield
    except SystemExit:  # Ray Train raises it after Ctrl-C
        raise KeyboardInterrupt from None
    except ray.train.TrainingFailedError as error:
        if isinstance(error, ray.train.ControllerError) and isinstance(error.controller_failure, NotStartedError):
            raise error.controller_failure from None
        raise WorkersDied(
            f"the workers died more than {MAX_FAILURES} times without a new checkpoint; earlier ones are kept, "
            f"continue with {remedy}. Last reason: {error}"
        ) from None


@contextmanager
def _join(counts: Sequence[int], queue: str | None, agreement: RayAgreement, run: Run) -> Iterator[WorkerContext]:
    """Yields the context of this Ray Train worker.

    Ray Train restarts workers after exceptions. An error that would recur after a restart is written to failure.json
    and ends the block normally. The other workers read the file at their next checkpoint, or while they wait for a
    snapshot, and stop. A bucket that does not answer justifies a restart.
    """
    context = ray.train.get_context()
    rank, num_workers = context.get_world_rank(), context.get_world_size()
    failure = run.file(FAILURE)
    has_failed = partial(storage.exists, failure)
    incarnation = incarnation_number(num_workers)
    works_in_step = not run.config.source.is_independent
    try:
        yield WorkerContext(
            rank=rank,
            num_workers=num_workers,
            labels=placement(run.config, counts, num_workers)[rank],
            world_group=join_world_group(num_workers) if works_in_step else SINGLE_PROCESS_GROUP,
            # Workers that work in step stop as one.
            stopping=Stopping(agreement, incarnation=incarnation)
            if works_in_step
            else Stopping(agreement, rank, num_workers, incarnation),
            snapshots=None if queue is None else RayConsumerSide(queue, rank, num_workers, has_failed, incarnation),
            should_stop=has_failed,
            report=report_to_ray(run.path, rank),
        )
    except storage.RemoteError:
        raise
    except (UsageError, RunError) as error:
        write_failure(failure, error)
    except Stopped:
        pass
