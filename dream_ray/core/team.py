"""Several processes that share the work on one class, and sums that do not depend on how many they are.

Work is cut into chunks whose size is fixed. Members take chunks that follow each other, exchange what they made of
them, and everybody combines it in one order: so every member has the same result, and it is the one of a process that
works alone, bit for bit.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor


class TeamLeft(Exception):  # noqa: N818 (not an error)
    """A member left the team while others still wanted to exchange something."""


class Member(Protocol):
    """One of those that share a class; the first one owns it."""

    @property
    def rank(self) -> int:
        """Number of this member; 0 is the owner."""

    @property
    def size(self) -> int:
        """Number of members."""


class Team(Member, Protocol):
    """All members, as one of them sees them."""

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Gives every member the tensors of all members; all members must call it, in the same order of calls.

        Args:
            tensors: At least one, all with the same first dimension, which may differ between members (0 too). Their
                number, types and other dimensions must not.

        Returns:
            The tensors of each member, in the order of ranks.

        Raises:
            TeamLeft: If a member has left.
        """

    def leave(self) -> None:
        """Tells the others that this member takes part no more; waits for them to hear it or leave as well."""


class Alone:
    """The team of a process that shares nothing."""

    rank = 0
    size = 1

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Returns what came in."""
        return [list(tensors)]

    def leave(self) -> None:
        """Nobody waits."""


ALONE = Alone()


def own_part(num_items: int, team: Member, *, chunk: int = 1) -> range:
    """Returns the items of this member: whole chunks (only the last may be short), dealt evenly in order of ranks."""
    num_chunks = -(-num_items // chunk)
    # Rounded up, so that the owner is the one who has the only chunk of a small work.
    first, end = (-(-num_chunks * rank // team.size) for rank in (team.rank, team.rank + 1))
    return range(min(first * chunk, num_items), min(end * chunk, num_items))


def gather_rows(values: Tensor, team: Team) -> Tensor:
    """Joins the rows that members have, in order of ranks."""
    return torch.cat([rows for [rows] in team.all_gather([values])])


def count_rows(values: Tensor, team: Team) -> int:
    """Returns the number of rows that all members have together; sends none of them."""
    return sum(len(rows) for [rows] in team.all_gather([values.flatten(1)[:, :0]]))


def sum_chunks(values: Iterable[Tensor], num_chunks: int, zero: Tensor, team: Team) -> Tensor:
    """Sums one tensor per chunk over all members.

    Neighbours are added, then neighbouring pairs, and so on: a binary tree over the chunks of all members. A member
    sends only the largest subtrees that lie whole within its part, at most 2 log2(chunks).

    Args:
        values: A tensor for each chunk of this member, in the order of `own_part(num_chunks, team)`.
        num_chunks: Chunks of all members, >= 1.
        zero: Gives shape and type to a member that has no chunk.
        team: The members.
    """
    own: dict[tuple[int, int], Tensor] = {}
    for index, value in zip(own_part(num_chunks, team), values, strict=True):
        _climb(own, 0, index, value, num_chunks)
    nodes = torch.tensor(list(own), dtype=torch.int64).reshape(-1, 2)
    sums = torch.stack(list(own.values())) if own else zero.new_empty(0, *zero.shape)
    tree: dict[tuple[int, int], Tensor] = {}
    for member_nodes, member_sums in team.all_gather([nodes, sums]):
        for (level, index), value in zip(member_nodes.tolist(), member_sums, strict=True):
            _climb(tree, level, index, value, num_chunks)
    (total,) = tree.values()
    return total


def _climb(tree: dict[tuple[int, int], Tensor], level: int, index: int, value: Tensor, num_chunks: int) -> None:
    """Puts a node into the tree and adds it to its neighbour, and so on upwards, as far as neighbours are there."""
    while (width := -(-num_chunks >> level)) > 1:
        neighbour = index ^ 1
        if neighbour < width:
            if (level, neighbour) not in tree:
                break
            value = tree.pop((level, neighbour)) + value
        level, index = level + 1, index // 2
    tree[level, index] = value
