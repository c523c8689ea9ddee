"""Teams of Ray Train workers: they exchange tensors over the gloo process group that Ray Train has set up."""

import time
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from dream_ray.core.team import ALONE, Team, TeamLeft

_LEAVING = -1


def join_team(teams: Sequence[tuple[int, ...]], worker: int) -> Team:
    """Returns the team of a worker; all workers must call it, as every group is made by all of them.

    Args:
        teams: Team of each worker, as ranks of the default process group.
        worker: Rank of this worker.
    """
    groups = {team: dist.new_group(list(team), backend="gloo") for team in sorted(set(teams)) if len(team) > 1}
    group = groups.get(teams[worker])
    return ProcessTeam(group) if isinstance(group, dist.ProcessGroup) else ALONE


def join_everyone(num_workers: int) -> Team:
    """Returns the team of all workers, beside those that share classes; all workers must call it."""
    return join_team([tuple(range(num_workers))] * num_workers, dist.get_rank()) if num_workers > 1 else ALONE


def group_number(num_workers: int) -> int:
    """Returns a number that the workers of a Ray Train group share, and no group before or after them has.

    All workers must call it.
    """
    number = torch.tensor([time.time_ns()])
    if num_workers > 1:
        dist.broadcast(number, src=0)
    return int(number)


class ProcessTeam:
    """Members that are processes.

    Tensors travel through main memory, from GPUs too, and come back to the device that they were on.

    Args:
        group: Gloo group of the members.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)
        self._is_over = False

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """See `Team`; torch raises RuntimeError where a member died."""
        counts = self._announce(len(tensors[0]))
        if self._is_over:
            raise TeamLeft
        columns = [self._gather_rows(tensor, counts) for tensor in tensors]
        return [list(member) for member in zip(*columns, strict=True)]

    def leave(self) -> None:
        """See `Team`."""
        if not self._is_over:
            self._announce(_LEAVING)

    def _announce(self, count: int) -> list[int]:
        """Says how many rows come from here, or that none will come any more, and hears it from the others."""
        counts = [int(count) for count in self._talk(torch.tensor([count]))]
        self._is_over = _LEAVING in counts
        return counts

    def _gather_rows(self, rows: Tensor, counts: list[int]) -> list[Tensor]:
        """Gathers a tensor of `counts[rank]` rows, padded to the longest: gloo wants equal shapes."""
        padded = rows.new_zeros((max(counts), *rows.shape[1:]), device="cpu")
        padded[: len(rows)] = rows
        members = self._talk(padded) if padded.numel() else [padded] * self.size
        return [member[:count].to(rows.device) for member, count in zip(members, counts, strict=True)]

    def _talk(self, sent: Tensor) -> list[Tensor]:
        received = [torch.empty_like(sent) for _ in range(self.size)]
        self._is_over = True  # a connection that breaks here stays broken
        dist.all_gather(received, sent, group=self._group)
        self._is_over = False
        return received
