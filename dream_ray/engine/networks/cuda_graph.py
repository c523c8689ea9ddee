"""Replay of a program from a CUDA graph: the host launches all of its operations at once. Untested on a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

_WARM_UP_CALLS = 3


class GraphedProgram:
    """A program that is captured at its first call and replayed from then on.

    A graph reads its inputs at fixed addresses, and every replay overwrites its results. So inputs are copied in, and
    results are copied out. Nothing inside waits for the host; a copy from pinned memory would be captured with its
    address, so programs take tensors of the device.

    Args:
        program: A function of tensors on a GPU, in nested tuples and dictionaries, which it does not change, to results
            of the same kind. All calls have the same shapes; arguments that are not tensors are constants.
    """

    def __init__(self, program: Callable[..., Any]) -> None:
        self._program = program
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._outputs: Any = None

    @torch.no_grad()
    def __call__(self, *arguments: Any) -> Any:
        """Returns the results of the program."""
        leaves, _ = tree_flatten(arguments)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        graph = self._capture(arguments) if self._graph is None else self._graph
        shapes, expected = ([tensor.shape for tensor in some] for some in (tensors, self._inputs))
        assert shapes == expected, f"a captured program takes the shapes {expected}; got {shapes}"
        torch._foreach_copy_(self._inputs, tensors)
        graph.replay()
        outputs, structure = tree_flatten(self._outputs)
        results = [torch.empty_like(output) for output in outputs]
        torch._foreach_copy_(results, outputs)
        return tree_unflatten(results, structure)

    def _capture(self, arguments: tuple[Any, ...]) -> torch.cuda.CUDAGraph:
        leaves, structure = tree_flatten(arguments)
        static = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._inputs = [leaf for leaf in static if isinstance(leaf, Tensor)]
        inputs = tree_unflatten(static, structure)
        # The first calls compile, choose algorithms and allocate, which a capture forbids.
        current, beside = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP_CALLS):
                self._program(*inputs)
        current.wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, which prefetch and write checkpoints, may use the GPU meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._outputs = self._program(*inputs)
        return self._graph
