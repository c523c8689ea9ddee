"""Process groups: parts, and sums whose bits do not depend on the number of processes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dream_ray.core import rng
from dream_ray.core.process_group import SINGLE_PROCESS_GROUP, ProcessGroup, ProcessGroupLeft, group_sum, own_part
from dream_ray.core.tree_sum import tree_sum
from tests.thread_group import run_group


class SpyGroup(ProcessGroup):
    """Keeps the tensors that its process sends, and ends the exchange."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.sent: list[torch.Tensor] = []

    def all_gather(self, tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
        self.sent = tensors
        raise ProcessGroupLeft


@given(num_items=st.integers(0, 500), size=st.integers(1, 20))
def test_parts_cover_all_items_evenly(num_items: int, size: int) -> None:
    parts = [own_part(num_items, SpyGroup(rank, size)) for rank in range(size)]
    assert [item for items in parts for item in items] == list(range(num_items))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert len(parts[0]) == max(map(len, parts))


def terms_of(num_terms: int) -> torch.Tensor:
    return torch.from_numpy(rng.stream(0, "values").normal(size=(num_terms, 3)) ** 9).float()


def recursive_sum(terms: torch.Tensor) -> torch.Tensor:
    """Adds neighbours, then neighbouring pairs, and so on."""
    if len(terms) == 1:
        return terms[0]
    return recursive_sum(torch.stack([pair.sum(0) for pair in terms.split(2)]))


@given(num_terms=st.integers(1, 33))
def test_a_tree_sum_adds_neighbours_first(num_terms: int) -> None:
    terms = terms_of(num_terms)
    total = tree_sum(iter(terms), num_terms)
    assert torch.equal(total, recursive_sum(terms))
    assert torch.allclose(total.double(), terms.double().sum(0), rtol=1e-4, atol=1e-2)


@settings(max_examples=25)
@given(num_terms=st.integers(1, 33), size=st.integers(1, 6))
def test_a_group_sum_has_the_bits_of_one_process(num_terms: int, size: int) -> None:
    terms = terms_of(num_terms)

    def work(group: ProcessGroup) -> torch.Tensor:
        here = own_part(num_terms, group)
        return group_sum(terms[here.start : here.stop], num_terms, torch.zeros(3), group)

    expected = tree_sum(terms, num_terms)
    assert torch.equal(group_sum(terms, num_terms, torch.zeros(3), SINGLE_PROCESS_GROUP), expected)
    assert all(torch.equal(total, expected) for total in run_group(size, work))


def test_a_process_sends_subtrees_instead_of_terms() -> None:
    group = SpyGroup(1, 3)
    here = own_part(64, group)
    with pytest.raises(ProcessGroupLeft):
        group_sum(terms_of(64)[here.start : here.stop], 64, torch.zeros(3), group)
    nodes, sums = group.sent
    # Terms 22 to 42: pairs of pairs as far as they lie within.
    assert nodes.tolist() == [[1, 11], [3, 3], [3, 4], [1, 20], [0, 42]]
    assert len(sums) == 5 < len(here)


def test_a_process_that_leaves_ends_the_exchange_of_the_others() -> None:
    def work(group: ProcessGroup) -> str:
        if group.rank == 1:
            return "left"
        try:
            group.all_gather([torch.zeros(2)])
        except ProcessGroupLeft:
            return "told"
        return "went on"

    assert run_group(3, work) == ["told", "left", "told"]
