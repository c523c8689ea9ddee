"""A process group whose processes are threads of the test."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from dream_ray.core.process_group import ProcessGroup, ProcessGroupLeft

Result = TypeVar("Result")
DEADLOCK_S = 120.0


class ThreadGroup(ProcessGroup):
    """Threads put their tensors on a table, wait for all, and read. None on the table: the thread leaves."""

    def __init__(self, rank: int, table: list, barrier: threading.Barrier) -> None:
        self.rank, self.size = rank, len(table)
        self._table, self._barrier = table, barrier
        self._is_over = False
        self.num_gathers = 0

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        assert len({len(tensor) for tensor in tensors}) == 1, "one first dimension"
        self.num_gathers += 1
        gathered = self._exchange(list(tensors))
        if self._is_over:
            raise ProcessGroupLeft
        assert len({tuple((t.dtype, t.shape[1:]) for t in sent) for sent in gathered}) == 1, "all send the same kinds"
        return gathered

    def leave(self) -> None:
        if not self._is_over:
            self._exchange(None)

    def _exchange(self, what: list[Tensor] | None) -> list:
        self._table[self.rank] = what
        self._barrier.wait(DEADLOCK_S)
        found = list(self._table)
        self._barrier.wait(DEADLOCK_S)
        self._is_over = any(sent is None for sent in found)
        return found


def run_group(size: int, work: Callable[[ProcessGroup], Result]) -> list[Result]:
    """Runs `work` in each thread of a group; raises the error of the lowest rank."""
    table: list = [None] * size
    barrier = threading.Barrier(size)

    def process(rank: int) -> Result:
        torch.set_num_threads(1)
        group = ThreadGroup(rank, table, barrier)
        try:
            return work(group)
        finally:
            group.leave()

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(process, rank) for rank in range(size)]
        return [future.result() for future in futures]
