"""Rules of CUDA as functions of an operation and its arguments: device mixes, host waits and kernel launches.

They follow `torch.cuda` with its default stream. An operation is an overload of `torch.ops`; its arguments are the
tensors that the dispatcher passes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload

IsOnGpu = Callable[[Tensor], bool]
Arguments = Sequence[Any]

_ANY_DEVICES = {"copy_", "_to_copy", "_foreach_copy_", "is_same_size", "_has_same_storage_numel"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
# Besides those that torch tags as pointwise.
_TAKE_HOST_SCALARS = {"masked_fill", "masked_fill_", "index_fill", "index_fill_", "fill", "fill_"}
# Their results have a size, or are Python values, that the host reads from the GPU.
_READ_BY_HOST = {
    "_local_scalar_dense": "reads a number",
    "equal": "compares tensors",
    "is_nonzero": "reads a number",
    "nonzero": "reads the number of nonzero elements",
    "masked_select": "reads the number of selected elements",
    "bincount": "reads the largest element",
    "_unique": "reads the number of distinct elements",
    "_unique2": "reads the number of distinct elements",
    "unique_dim": "reads the number of distinct elements",
    "unique_consecutive": "reads the number of distinct elements",
}
_FREE = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "resize_",
    "_unsafe_view",
    "unsafe_split",
    "unsafe_split_with_sizes",
    "is_same_size",
    "_has_same_storage_numel",
    "_local_scalar_dense",
}
"""Operations without a kernel, besides views. The copy that reads a number is a host wait, and counts as one only."""


def name_of(operation: OpOverload) -> str:
    """Returns the name without namespace and overload."""
    return str(operation.overloadpacket.__name__)


def device_mix(operation: OpOverload, arguments: Arguments, tensors: Sequence[Tensor], is_on_gpu: IsOnGpu) -> str:
    """Returns which device mix CUDA refuses, or an empty text.

    Args:
        operation: The operation.
        arguments: Its positional arguments.
        tensors: All tensors in its arguments.
        is_on_gpu: Tells where a tensor is.
    """
    on_host = [tensor for tensor in tensors if not is_on_gpu(tensor)]
    name = name_of(operation)
    if name in _ANY_DEVICES or not on_host or len(on_host) == len(tensors):
        return ""
    if name in _INDEXING:
        indexed, indices, *values = arguments[:3]
        if not is_on_gpu(indexed):
            return "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
        # CUDA copies indices from the host, and scalar values; both are allowed.
        host_values = [value for value in values if not is_on_gpu(value) and value.dim() > 0]
        return f"values of shape {tuple(host_values[0].shape)} are on the host" if host_values else ""
    takes_scalars = torch.Tag.pointwise in operation.tags or name in _TAKE_HOST_SCALARS or name.startswith("_foreach_")
    refused = [tensor for tensor in on_host if tensor.dim() > 0 or not takes_scalars]
    return f"tensors of shapes {[tuple(tensor.shape) for tensor in refused]} are on the host" if refused else ""


def host_wait(
    operation: OpOverload,
    arguments: Arguments,
    options: dict[str, Any],
    is_on_gpu: IsOnGpu,
    is_pinned: IsOnGpu,
) -> str | None:
    """Returns why the host waits for the GPU in an operation on it, or None if it does not.

    Args:
        operation: The operation; at least one argument or the result is on the GPU.
        arguments: Its positional arguments.
        options: Its keyword arguments.
        is_on_gpu: Tells where a tensor is.
        is_pinned: Tells whether a tensor of the host is in pinned memory.
    """
    name = name_of(operation)
    if name == "repeat_interleave":
        return None if options.get("output_size") is not None else "reads the number of repeats"
    if name in _INDEXING:
        return _wait_of_indexing(arguments, is_on_gpu)
    if name == "_to_copy":
        to_host = options.get("device") is not None and torch.device(options["device"]).type == "cpu"
        return _wait_of_copy(
            arguments[0], to_host, options.get("non_blocking", False), is_on_gpu(arguments[0]), is_pinned
        )
    if name == "copy_":
        target, source, *rest = arguments
        from_gpu, to_host = is_on_gpu(source), not is_on_gpu(target)
        non_blocking = bool(rest and rest[0]) or options.get("non_blocking", False)
        if to_host and from_gpu and non_blocking and is_pinned(target):
            return None
        return _wait_of_copy(source, to_host, non_blocking, from_gpu, is_pinned)
    return _READ_BY_HOST.get(name)


def _wait_of_copy(source: Tensor, to_host: bool, non_blocking: bool, from_gpu: bool, is_pinned: IsOnGpu) -> str | None:
    if from_gpu:
        return "copies to the host" if to_host else None
    if is_pinned(source) and non_blocking:
        return None
    return "copies from pageable memory" if not is_pinned(source) else "waits for a copy from pinned memory"


def _wait_of_indexing(arguments: Arguments, is_on_gpu: IsOnGpu) -> str | None:
    _, indices, *values = arguments[:3]
    given = [index for index in indices if index is not None]
    masks = [index for index in given if index.dtype in (torch.bool, torch.uint8)]
    # One number under one mask is a masked fill.
    if masks and not (values and values[0].numel() == 1 and len(given) == 1):
        return "reads the number of elements of a mask"
    if any(not is_on_gpu(index) for index in given):
        return "copies an index from the host"
    return None


def launches(operation: OpOverload) -> bool:
    """Tells whether an operation launches a kernel or a copy: views and allocations do not."""
    return not operation.is_view and name_of(operation) not in _FREE
