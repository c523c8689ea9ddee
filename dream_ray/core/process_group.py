"""Processes that exchange tensors at every step, and sums that do not depend on how many processes there are."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from dream_ray.core.tree_sum import Node, add_node, subtrees


class ProcessGroupLeft(Exception):  # noqa: N818 (not an error)
    """A process left the group before the others had exchanged all tensors."""


class ProcessGroup:
    """One process's side of a group; this class is the group of a process that exchanges nothing.

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    rank = 0
    size = 1

    def all_gather(self, tensors: Sequence[Tensor]) -> list[list[Tensor]]:
        """Gathers the tensors of all processes; every process must make the same sequence of calls.

        Args:
            tensors: At least one, all with the same first dimension. It may be 0 and may differ between processes; the
                number of tensors, their types and their other dimensions must not.

        Returns:
            The tensors of each process, in the order of ranks.

        Raises:
            ProcessGroupLeft: If a process has left.
        """
        return [list(tensors)]

    def leave(self) -> None:
        """Takes this process out of the group; waits until every other process knows it or has left."""


SINGLE_PROCESS_GROUP = ProcessGroup()


def own_part(num_items: int, group: ProcessGroup) -> range:
    """Returns the items of this process: consecutive ones, distributed evenly in the order of ranks."""
    # Rounded up, so a single item belongs to rank 0.
    first, end = (-(-num_items * rank // group.size) for rank in (group.rank, group.rank + 1))
    return range(first, end)


def group_sum(terms: Iterable[Tensor], num_terms: int, zero: Tensor, group: ProcessGroup) -> Tensor:
    """Sums terms that the processes of a group hold; every process gets the bits of `tree_sum` over all terms.

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
