"""Processes that exchange tensors at every step, and sums that do not depend on how many processes there are."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from dream_ray.core.tree_sum import Node, add_node, subtrees


class ProcessGroupLeft(Exception):  # noqa: N818 (not an error)
    """A process left the group while others still wanted to exchange tensors."""


class ProcessGroup(Protocol):
    """The processes of a group, as one of them sees them."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""

    @property
    def size(self) -> int:
        """Number of processes."""

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Gives every process the tensors of all processes; all must call it, in the same order of calls.

        Args:
            tensors: At least one, all with the same first dimension, which may differ between processes (0 too). Their
                number, types and other dimensions must not.

        Returns:
            The tensors of each process, in the order of ranks.

        Raises:
            ProcessGroupLeft: If a process has left.
        """

    def leave(self) -> None:
        """Tells the others that this process takes part no more; waits until they have heard it or left as well."""


class SingleProcessGroup:
    """The group of a process that exchanges nothing."""

    rank = 0
    size = 1

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Returns its argument as that of the only process."""
        return [list(tensors)]

    def leave(self) -> None:
        """Does nothing."""


SINGLE_PROCESS_GROUP = SingleProcessGroup()


def own_part(num_items: int, group: ProcessGroup) -> range:
    """Returns the items of this process: consecutive ones, dealt evenly in the order of ranks."""
    # Rounded up, so that rank 0 has the only item of one.
    first, end = (-(-num_items * rank // group.size) for rank in (group.rank, group.rank + 1))
    return range(first, end)


def group_sum(terms: Iterable[Tensor], num_terms: int, zero: Tensor, group: ProcessGroup) -> Tensor:
    """Sums terms that the processes of a group hold; every process gets the bits of `tree_sum` over all of them.

    A process sends the largest subtrees that lie within its part.

    Args:
        terms: Terms of this process, in the order of `own_part(num_terms, group)`.
        num_terms: Terms of all processes, >= 1.
        zero: Gives shape and type to a process without a term.
        group: The processes.
    """
    own = subtrees(terms, own_part(num_terms, group).start, num_terms)
    nodes = torch.tensor(list(own), dtype=torch.int64).reshape(-1, 2)
    sums = torch.stack(list(own.values())) if own else zero.new_empty(0, *zero.shape)
    tree: dict[Node, Tensor] = {}
    for process_nodes, process_sums in group.all_gather([nodes, sums]):
        for (level, index), value in zip(process_nodes.tolist(), process_sums, strict=True):
            add_node(tree, (level, index), value, num_terms)
    (total,) = tree.values()
    return total
