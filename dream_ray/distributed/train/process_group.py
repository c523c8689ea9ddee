"""The process group of all Ray Train workers; they exchange tensors over gloo, which Ray Train sets up."""

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup, ProcessGroupLeft

_LEAVING = -1


def join_world_group(num_workers: int) -> ProcessGroup:
    """Returns the group of all workers; all workers must call it."""
    group = dist.new_group(list(range(num_workers)), backend="gloo") if num_workers > 1 else None
    return GlooGroup(group) if isinstance(group, dist.ProcessGroup) else SINGLE_PROCESS_GROUP


def incarnation_number(num_workers: int) -> int:
    """Returns a number that the workers of one Ray Train group share and that no other group has.

    All workers must call it.
    """
    number = torch.tensor([time.time_ns()])
    if num_workers > 1:
        dist.broadcast(number, src=0)
    return int(number)


class GlooGroup(ProcessGroup):
    """A group of processes.

    Tensors, also those on GPUs, pass through main memory and return to their device.

    Args:
        group: Gloo group of the processes.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self._is_over = False

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """See `ProcessGroup`; torch raises RuntimeError if a process died."""
        counts = self._announce(len(tensors[0]))
        if self._is_over:
            raise ProcessGroupLeft
        columns = [self._gather_rows(tensor, counts) for tensor in tensors]
        return [list(process) for process in zip(*columns, strict=True)]

    def leave(self) -> None:
        """See `ProcessGroup`."""
        if not self._is_over:
            self._announce(_LEAVING)

    def _announce(self, count: int) -> list[int]:
        """Sends the number of rows of this process, or `_LEAVING`; returns the numbers of all processes."""
        counts = [int(count) for count in self._exchange(torch.tensor([count]))]
        self._is_over = _LEAVING in counts
        return counts

    def _gather_rows(self, rows: Tensor, counts: list[int]) -> list[Tensor]:
        """Gathers a tensor of `counts[rank]` rows, padded to the longest because gloo requires equal shapes."""
        padded = rows.new_zeros((max(counts), *rows.shape[1:]), device="cpu")
        padded[: len(rows)] = rows
        received = self._exchange(padded) if padded.numel() else [padded] * self.size
        return [sent[:count].to(rows.device) for sent, count in zip(received, counts, strict=True)]

    def _exchange(self, sent: Tensor) -> list[Tensor]:
        received = [torch.empty_like(sent) for _ in range(self.size)]
        self._is_over = True  # a connection that breaks here stays broken
        dist.all_gather(received, sent, group=self._group)
        self._is_over = False
        return received
