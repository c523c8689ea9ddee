"""Sums over a binary tree: neighbours are added, then neighbouring pairs, and so on.

Only the number of terms determines the order of the additions. A sum has the same bits whether one process adds all
terms or several processes each add a part of them.
"""

from collections.abc import Iterable

from torch import Tensor

Node = tuple[int, int]
"""(level, index): node `index` of level l is the sum of the terms from `index * 2**l` on, at most `2**l` of them."""


def tree_sum(terms: Iterable[Tensor], num_terms: int) -> Tensor:
    """Sums all terms, in their order; holds at most log2(num_terms) + 1 tensors.

    Args:
        terms: Tensors of one shape.
        num_terms: Number of terms, >= 1.
    """
    (total,) = subtrees(terms, 0, num_terms).values()
    return total


def subtrees(terms: Iterable[Tensor], first: int, num_terms: int) -> dict[Node, Tensor]:
    """Sums consecutive terms into the largest subtrees that they fill, at most 2 log2(num_terms).

    Args:
        terms: Terms `first`, `first + 1`, ...
        first: Index of the first term.
        num_terms: Number of terms of the whole tree.
    """
    nodes: dict[Node, Tensor] = {}
    for index, term in enumerate(terms, start=first):
        add_node(nodes, (0, index), term, num_terms)
    return nodes


def add_node(nodes: dict[Node, Tensor], node: Node, value: Tensor, num_terms: int) -> None:
    """Inserts a node; while its neighbour exists, replaces the two by their sum, one level higher."""
    level, index = node
    while (width := -(-num_terms >> level)) > 1:
        neighbour = index ^ 1
        if neighbour < width:
            if (level, neighbour) not in nodes:
                break
            value = nodes.pop((level, neighbour)) + value
        level, index = level + 1, index // 2
    nodes[level, index] = value
