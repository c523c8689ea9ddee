"""A team whose members are threads of the test."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from dream_ray.core.team import Team, TeamLeft

Result = TypeVar("Result")
DEADLOCK_S = 120.0


class ThreadTeam:
    """Members put what they have on a table, wait for all, and read. None on the table: the member leaves."""

    def __init__(self, rank: int, table: list, barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(table)
        self._table, self._barrier = table, barrier
        self._is_over = False
        self.num_gathers = 0

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        assert len({len(tensor) for tensor in tensors}) == 1, "one first dimension"
        self.num_gathers += 1
        members = self._exchange(list(tensors))
        if self._is_over:
            raise TeamLeft
        assert len({tuple((t.dtype, t.shape[1:]) for t in member) for member in members}) == 1, "members agree"
        return members

    def leave(self) -> None:
        if not self._is_over:
            self._exchange(None)

    def _exchange(self, what: list[Tensor] | None) -> list:
        self._table[self.rank] = what
        self._barrier.wait(DEADLOCK_S)
        found = list(self._table)
        self._barrier.wait(DEADLOCK_S)
        self._is_over = any(member is None for member in found)
        return found


def run_team(size: int, work: Callable[[Team], Result]) -> list[Result]:
    """Runs `work` in each member of a team; raises what the first of them raised, its rank the order."""
    table: list = [None] * size
    barrier = threading.Barrier(size)

    def member(rank: int) -> Result:
        torch.set_num_threads(1)
        team = ThreadTeam(rank, table, barrier)
        try:
            return work(team)
        finally:
            team.leave()

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(member, rank) for rank in range(size)]
        return [future.result() for future in futures]
