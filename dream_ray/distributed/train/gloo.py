"""Sets up the process group of Ray Train workers: gloo, and NCCL besides if the workers have GPUs of their own.

The backend of `ray.train.torch` does the same, but makes the controller of Ray Train import torch before the first
worker starts.
"""

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import BackendConfig
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend

_LEAVE_S = 30.0


class GlooBackend(Backend):
    """Lets the workers of a group join a process group before their work, and leave it afterwards.

    Every worker sees only its own GPU: with gloo, tensors travel through main memory.
    """

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Makes the process group if there are several workers."""
        assert isinstance(backend_config, GlooConfig)
        size = len(worker_group)
        if size == 1:
            return
        address, port = worker_group.execute_single(0, get_address_and_port)
        ray.get(
            [
                worker_group.execute_single_async(rank, _join, address, port, rank, size, backend_config.backend)
                for rank in range(size)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: BackendConfig) -> None:
        """Ends the process group; workers that are stuck in it do not answer."""
        if len(worker_group) > 1:
            ray.wait(worker_group.execute_async(_leave), num_returns=len(worker_group), timeout=_LEAVE_S)


@dataclass
class GlooConfig(BackendConfig):
    """Configures a `GlooBackend`.

    Attributes:
        backend: Backends of the process group, as in `torch.distributed.init_process_group`.
    """

    backend: str = "gloo"
    backend_cls = GlooBackend


def _join(address: str, port: int, rank: int, size: int, backend: str) -> None:
    import torch.distributed as dist

    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    dist.init_process_group(backend, rank=rank, world_size=size)


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
