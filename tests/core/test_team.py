"""Teams: parts, and sums whose bits do not depend on who shares the work."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.core import rng
from dream_ray.core.team import ALONE, Team, TeamLeft, count_rows, gather_rows, own_part, sum_chunks
from tests.thread_team import run_team


class Member:
    """Rank and size alone."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


@given(num_items=st.integers(0, 500), size=st.integers(1, 20), chunk=st.integers(1, 70))
def test_parts_cover_all_items_in_whole_chunks(num_items: int, size: int, chunk: int) -> None:
    parts = [own_part(num_items, Member(rank, size), chunk=chunk) for rank in range(size)]
    assert [item for items in parts for item in items] == list(range(num_items))
    assert all(items.start % chunk == 0 or items.start == num_items for items in parts)
    chunks = [-(-len(items) // chunk) for items in parts]
    assert max(chunks) - min(chunks) <= 1
    assert chunks[0] == max(chunks), "the owner is not the one who waits"


def values_of(num_chunks: int) -> torch.Tensor:
    return torch.from_numpy(rng.stream(0, "values").normal(size=(num_chunks, 3)) ** 9).float()


@settings(max_examples=25)
@given(num_chunks=st.integers(1, 33), size=st.integers(2, 6))
def test_a_sum_over_chunks_is_the_same_for_any_team(num_chunks: int, size: int) -> None:
    values = values_of(num_chunks)
    alone = sum_chunks(values, num_chunks, torch.zeros(3), ALONE)

    def work(team: Team) -> torch.Tensor:
        here = own_part(num_chunks, team)
        return sum_chunks(values[here.start : here.stop], num_chunks, torch.zeros(3), team)

    assert all(torch.equal(total, alone) for total in run_team(size, work))
    assert torch.allclose(alone.double(), values.double().sum(0), rtol=1e-4, atol=1e-2)


def test_a_member_sends_subtrees_not_chunks() -> None:
    sent = []

    class Spy:
        rank, size = 1, 3

        def all_gather(self, tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
            sent.append(tensors)
            raise TeamLeft

        def leave(self) -> None: ...

    here = own_part(64, Spy())
    with pytest.raises(TeamLeft):
        sum_chunks(values_of(64)[here.start : here.stop], 64, torch.zeros(3), Spy())
    nodes, sums = sent[0]
    # Chunks 22 to 42: pairs of pairs as far as they lie within.
    assert nodes.tolist() == [[1, 11], [3, 3], [3, 4], [1, 20], [0, 42]]
    assert len(sums) == 5 < len(here)


def test_rows_are_joined_and_counted() -> None:
    def work(team: Team) -> tuple[list[int], int]:
        own = torch.arange(team.rank).reshape(-1, 1)
        return gather_rows(own, team).flatten().tolist(), count_rows(own, team)

    assert run_team(4, work) == [([0, 0, 1, 0, 1, 2], 6)] * 4


def test_who_leaves_is_not_waited_for() -> None:
    def work(team: Team) -> str:
        if team.rank == 1:
            return "left"
        try:
            team.all_gather([torch.zeros(2)])
        except TeamLeft:
            return "heard it"
        return "went on"

    assert run_team(3, work) == ["heard it", "left", "heard it"]
