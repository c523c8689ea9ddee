"""Two ways to the same gradients: plain autograd, and the transforms of `torch.func`.

Plain autograd keeps no graph of the last derivative; `torch.func.grad` keeps one of every derivative. `torch.compile`
and `torch.func.vmap` take the transforms only.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

Values = Mapping[str, Tensor]
Scalar = Callable[[dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
"""Tensors by name -> a scalar to differentiate, and other results by name."""
Derivative = tuple[dict[str, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""Gradients by name, and the results of the function."""


class Differentiate(Protocol):
    """Computes the gradient of a scalar function; `by_autograd` or `by_transforms`."""

    def __call__(self, function: Scalar, values: Values, *, again: bool = False) -> Derivative:
        """Returns the gradients by name, and the results of the function.

        Args:
            function: Function of `values`.
            values: Tensors to differentiate by; constants otherwise.
            again: Whether the caller differentiates the gradients and results by other tensors.
        """


def by_autograd(function: Scalar, values: Values, *, again: bool = False) -> Derivative:
    """See `Differentiate`."""
    with torch.enable_grad():
        leaves = {name: tensor.detach().requires_grad_() for name, tensor in values.items()}
        scalar, other = function(leaves)
        gradients = torch.autograd.grad(scalar, list(leaves.values()), create_graph=again, materialize_grads=True)
    if not again:
        scalar, other = scalar.detach(), {name: tensor.detach() for name, tensor in other.items()}
    return dict(zip(leaves, gradients, strict=True)), (scalar, other)


def by_transforms(function: Scalar, values: Values, *, again: bool = False) -> Derivative:
    """See `Differentiate`; `again` has no effect, because the graph is always kept."""
    gradients, results = torch.func.grad_and_value(function, has_aux=True)(dict(values))
    return gradients, results
