"""CUDA graphs on the stand-in GPU: a capture records operations with their tensors, and a replay repeats them.

As on a GPU, a replay reads and writes the tensors of the capture, whatever the host has done since, and a capture fails
at a host wait and at a copy from the host.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.standin_gpu.tally import record, recording, unrecorded


class Graph:
    """Stands in for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.recorded: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []
        self.replays = 0

    def replay(self) -> None:
        """Repeats the operations, by one launch; their results go to the tensors of the capture."""
        self.replays += 1
        record(operation="replay")
        with unrecorded():
            for operation, arguments, options, results in self.recorded:
                again = operation(*arguments, **options)
                for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor) and old is not new:
                        old.copy_(new)


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        results = func(*args, **options)
        self._graph.recorded.append((func, args, options, results))
        return results


@contextmanager
def graph(captured: Graph, *, capture_error_mode: str) -> Iterator[None]:
    """Stands in for `torch.cuda.graph`."""
    assert capture_error_mode == "thread_local", "other threads use the GPU"
    with recording() as tally, _Recorder(captured):
        yield
    assert not tally.waits, tally.lines(tally.waits)
    sources = [(args[0], result) for _, args, _, result in captured.recorded if args and isinstance(args[0], Tensor)]
    crossed = [old for old, new in sources if isinstance(new, Tensor) and old.device.type != new.device.type]
    assert not crossed, "a graph copies from the host"


class Stream:
    """Stands in for `torch.cuda.Stream`; the stand-in has one order of work."""

    def wait_stream(self, other: "Stream") -> None:
        """Does nothing."""


@contextmanager
def stream(of: Stream) -> Iterator[None]:
    """Stands in for `torch.cuda.stream`."""
    yield


ANSWERS: dict[str, Any] = {
    "CUDAGraph": Graph,
    "graph": graph,
    "Stream": Stream,
    "stream": stream,
    "current_stream": Stream,
}
"""What `torch.cuda` answers."""
