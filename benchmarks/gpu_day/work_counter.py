"""The work of a call: its arithmetic and the bytes that it moves, counted, and its kernels, profiled."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu_day.timing import wait

# They make memory, but write none of it.
_UNWRITTEN = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class _BytesMoved(TorchDispatchMode):
    """Adds up the tensors that operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in _UNWRITTEN:
            return result
        read, written = _tensors((args, kwargs)), _tensors(result)
        memories = {tensor.untyped_storage().data_ptr() for tensor in read}
        is_view = all(tensor.untyped_storage().data_ptr() in memories for tensor in written)
        if func._schema.is_mutable or not is_view:
            self.total += sum(tensor.nbytes for tensor in [*read, *written])
        return result


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def counted_work(call: Callable[[], object]) -> dict[str, int]:
    """Returns the floating-point operations of convolutions and products in a call, and the bytes that it moves."""
    moved = _BytesMoved()
    with FlopCounterMode(display=False) as counter, moved:
        call()
    return {"flop": int(counter.get_total_flops()), "bytes": moved.total}


def kernels(call: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Profiles a call.

    Returns:
        launches: Kernels and copies on the device; 0 on a CPU. busy_ms: The sum of their times, which do not overlap in
        one stream.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    wait(device)
    with profile(activities=activities) as profiler:
        call()
        wait(device)
    # Ranges that the host names, such as the step of an optimizer, appear beside the kernels in them.
    found = [one for one in profiler.events() if one.device_type.name == "CUDA" and not one.is_user_annotation]
    return {"launches": len(found), "busy_ms": sum(one.time_range.elapsed_us() for one in found) / 1000}
