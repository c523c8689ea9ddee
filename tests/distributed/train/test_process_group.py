"""A process group over gloo: the same contract as a group of threads."""

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroupLeft, group_sum, own_part
from dream_ray.core.tree_sum import tree_sum
from dream_ray.distributed.train.process_group import join_world_group

SIZE, LEAVES_FIRST = 3, 1


def process(rank: int, rendezvous: str, results: multiprocessing.SimpleQueue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=SIZE)
    group = join_world_group(SIZE)
    rows = torch.arange(group.rank)
    mixed = group.all_gather([rows, rows.float().reshape(-1, 1), torch.empty(len(rows), 0)])
    gathered = [(i.tolist(), f.flatten().tolist(), tuple(e.shape)) for i, f, e in mixed]
    here = own_part(7, group)
    terms = torch.linspace(0.1, 7.7, 7)[:, None] ** 3
    total = group_sum(terms[here.start : here.stop], 7, torch.zeros(1), group)
    is_equal = torch.equal(total, tree_sum(terms, 7))
    has_learned = False
    try:
        if rank != LEAVES_FIRST:
            group.all_gather([rows])
    except ProcessGroupLeft:
        has_learned = True
    group.leave()
    results.put((rank, gathered, is_equal, has_learned))
    dist.destroy_process_group()  # else its threads may abort the process at its end


@pytest.mark.slow
def test_processes_exchange_rows_and_learn_that_one_left(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=process, args=(r, tmp_path / "rendezvous", results)) for r in range(SIZE)]
    for one in processes:
        one.start()
    for one in processes:
        one.join(timeout=120)
    assert [one.exitcode for one in processes] == [0] * SIZE
    found = {rank: rest for rank, *rest in (results.get() for _ in processes)}
    gathered = [([], [], (0, 0)), ([0], [0.0], (1, 0)), ([0, 1], [0.0, 1.0], (2, 0))]
    assert found == {rank: [gathered, True, rank != LEAVES_FIRST] for rank in range(SIZE)}


def test_one_worker_needs_no_process_group() -> None:
    assert join_world_group(1) is SINGLE_PROCESS_GROUP
