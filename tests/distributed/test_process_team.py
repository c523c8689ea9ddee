"""Teams of processes over gloo: the same contract as a team of threads."""

import multiprocessing
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dream_ray.core.team import ALONE, TeamLeft, count_rows, gather_rows, own_part, sum_chunks
from dream_ray.distributed.process_team import join_team

TEAMS = [(0,), (1, 2, 3), (1, 2, 3), (1, 2, 3)]


def member(rank: int, rendezvous: str, results: multiprocessing.SimpleQueue) -> None:
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=len(TEAMS))
    team = join_team(TEAMS, rank)
    if rank == 0:
        results.put((rank, team is ALONE))
        return
    rows = torch.arange(team.rank)
    mixed = team.all_gather([rows, rows.float().reshape(-1, 1), torch.empty(len(rows), 0)])
    gathered = [(i.tolist(), f.flatten().tolist(), tuple(e.shape)) for i, f, e in mixed]
    here = own_part(7, team)
    values = torch.linspace(0.1, 7.7, 7)[:, None] ** 3
    total = sum_chunks(values[here.start : here.stop], 7, torch.zeros(1), team)
    equal = torch.equal(total, sum_chunks(values, 7, torch.zeros(1), ALONE))
    counts = (gather_rows(rows, team).tolist(), count_rows(rows[:, None], team))
    heard = rank != 2
    try:
        if rank != 2:
            team.all_gather([rows])
            heard = False
    except TeamLeft:
        pass
    team.leave()
    results.put((rank, gathered, equal, counts, heard))


@pytest.mark.slow
def test_members_exchange_rows_and_hear_who_leaves(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    members = [context.Process(target=member, args=(rank, tmp_path / "rendezvous", results)) for rank in range(4)]
    for process in members:
        process.start()
    for process in members:
        process.join(timeout=120)
    assert [process.exitcode for process in members] == [0] * 4
    found = {rank: rest for rank, *rest in (results.get() for _ in members)}
    gathered = [([], [], (0, 0)), ([0], [0.0], (1, 0)), ([0, 1], [0.0, 1.0], (2, 0))]
    assert found == {
        0: [True],
        1: [gathered, True, ([0, 0, 1], 3), True],
        2: [gathered, True, ([0, 0, 1], 3), False],
        3: [gathered, True, ([0, 0, 1], 3), True],
    }
