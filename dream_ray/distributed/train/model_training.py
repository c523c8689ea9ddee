"""The Ray Train job of a training: data-parallel workers of one network."""

import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dream_ray import storage
from dream_ray.distributed.train.controller_callbacks import NotStartedError, StartTimeout
from dream_ray.distributed.train.failure import raise_failure
from dream_ray.distributed.train.gloo import GlooConfig
from dream_ray.distributed.train.process_group import join_world_group
from dream_ray.distributed.train.stoppable_trainer import StoppableTrainer
from dream_ray.distributed.train.trainer import MAX_FAILURES, WorkersDied, fitting
from dream_ray.engine.models.model import is_model
from dream_ray.engine.models.spec import TrainSpec
from dream_ray.engine.models.training.directory import CHECKPOINT, FAILURE, RAY_FILES
from dream_ray.engine.models.training.worker import ALONE, TrainingContext, train
from dream_ray.engine.networks.tensor_file import read_metadata
from dream_ray.engine.run.lifecycle import write_failure
from dream_ray.errors import RunError, UsageError

_LOG = logging.getLogger(__name__)
_REMEDY = "the same `dream-ray train` command"
# NCCL exchanges gradients between GPUs, and gloo counts and statistics between processes.
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


def train_on_workers(spec: TrainSpec, begun: dict[str, Any], gpus: float, wait: Callable[[], None]) -> None:
    """Trains a network on Ray Train; lost workers restart from the newest checkpoint.

    Args:
        spec: The training, with the device of its workers.
        begun: Of `begin_training`.
        gpus: GPUs per worker.
        wait: Waits for the resources of all workers.

    Raises:
        RunError: If the training failed.
        WorkersDied: If workers died too often without a new checkpoint.
        KeyboardInterrupt: After Ctrl-C.
    """
    failure = storage.join(spec.out, FAILURE)
    storage.delete(failure)
    while True:
        wait()  # lost nodes may have taken the resources
        before = _saved_step(spec)
        try:
            with fitting(_REMEDY):
                _make_trainer(spec, begun, gpus).fit()
            break
        except WorkersDied:  # spot nodes may disappear any number of times
            if _saved_step(spec) == before:
                raise
        except NotStartedError:
            _LOG.warning("The workers did not start within a minute; trying again.")
    raise_failure(failure)
    if not is_model(spec.out):
        raise KeyboardInterrupt


def _saved_step(spec: TrainSpec) -> str | None:
    path = storage.join(spec.out, CHECKPOINT)
    return read_metadata(path)["step"] if storage.exists(path) else None


def _make_trainer(spec: TrainSpec, begun: dict[str, Any], gpus: float) -> StoppableTrainer:
    callbacks: list[Any] = [StartTimeout()]
    resources = {"CPU": float(spec.threads)} | ({"GPU": gpus} if gpus > 0 else {})
    return StoppableTrainer(
        lambda: False,  # the newest checkpoint is at most a minute old
        partial(_work, spec, begun),
        backend_config=GlooConfig(_BACKENDS["cuda" if gpus >= 1 else "cpu"]),
        scaling_config=ScalingConfig(use_gpu=gpus > 0, resources_per_worker=resources, num_workers=spec.workers),
        run_config=RunConfig(
            name=RAY_FILES,
            storage_path=spec.out,
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=callbacks,
        ),
    )


def _work(spec: TrainSpec, begun: dict[str, Any]) -> None:
    """Trains on this Ray Train worker.

    An error that would recur after a restart is written to failure.json. It is raised too, because the other workers
    wait for the gradients of this one; after the restart all of them end.
    """
    failure = storage.join(spec.out, FAILURE)
    if storage.exists(failure):
        return
    num_workers = ray.train.get_context().get_world_size()
    context = TrainingContext(join_world_group(num_workers), data_parallel) if num_workers > 1 else ALONE
    try:
        train(spec, begun, context)
    except storage.RemoteError:
        raise
    except (UsageError, RunError) as error:
        write_failure(failure, error)
        raise


def data_parallel(module: nn.Module, shape_CHW: tuple[int, int, int]) -> nn.Module:
    """Wraps a module so that a backward pass averages the gradients over the workers; all workers must call it.

    DDP sorts its buckets after the first backward pass, and the sum of three or more workers depends on the buckets. A
    pass before the first step makes the bits of a resumed training those of an uninterrupted one.

    Args:
        module: Its parameters are on the device of the worker.
        shape_CHW: Shape of an image.
    """
    wrapped = DistributedDataParallel(module)
    kept = copy.deepcopy(module.state_dict())
    device = next(module.parameters()).device
    wrapped(torch.zeros(2, *shape_CHW, device=device)).sum().backward()
    module.load_state_dict(kept)
    wrapped.zero_grad(set_to_none=True)
    return wrapped
