"""Tensors of the stand-in GPU: they claim the device cuda:0 and compute on the CPU.

For the C++ code of torch they are on the device "meta", which needs neither a driver nor a thread of autograd. Python
code reads cuda:0. Inside the transforms of `torch.func`, Python reads "meta" too, so both names mean the stand-in.
"""

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from tests.standin_gpu.rules import device_mix, host_wait, launches, name_of
from tests.standin_gpu.tally import record

GPU = torch.device("cuda", 0)


class StandInTensor(Tensor):
    """A tensor on the stand-in GPU.

    Attributes:
        values: The same tensor on the CPU.
    """

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "StandInTensor":
        made: StandInTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            layout=values.layout,
            device="meta",
        )
        made.values = values
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(operation, args, kwargs or {})

    device = property(lambda self: GPU)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def __repr__(self, **options: Any) -> str:
        return f"{self.values!r} on the stand-in GPU"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **options: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __deepcopy__(self, memo: dict[int, Any]) -> "StandInTensor":
        with torch.no_grad():
            copied = self.clone().requires_grad_(self.requires_grad)
        copied.__dict__ |= {name: value for name, value in self.__dict__.items() if name != "values"}
        memo[id(self)] = copied
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise AssertionError("a tensor on the GPU is pickled: its reader opens a context on GPU 0")


def is_on_gpu(tensor: Tensor) -> bool:
    return isinstance(tensor, StandInTensor)


_PINNED: dict[int, torch.UntypedStorage] = {}
"""Memory that counts as pinned, by address. It is kept, so that no other tensor gets an address."""


def pin(tensor: Tensor) -> Tensor:
    """Stands in for `Tensor.pin_memory`."""
    assert not is_on_gpu(tensor), "only tensors on the host can be pinned"
    if is_pinned(tensor):
        return tensor
    pinned = tensor.clone()
    storage = _storage(pinned)
    _PINNED[storage.data_ptr()] = storage
    return pinned


def is_pinned(tensor: Tensor) -> bool:
    return _storage(tensor).data_ptr() in _PINNED


def unpin_all() -> None:
    """Forgets which memory is pinned."""
    _PINNED.clear()


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # in a transform of torch.func
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


class StandInMode(TorchDispatchMode):
    """Handles operations without a tensor on the stand-in GPU, in this thread."""

    def __torch_dispatch__(self, operation: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(operation, args, kwargs or {})


def dispatch(operation: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Computes an operation on the CPU, under the rules of CUDA.

    Raises:
        RuntimeError: If the tensors are on devices that CUDA does not mix.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    on_gpu = [tensor for tensor in tensors if is_on_gpu(tensor)]
    wanted = kwargs.get("device")
    to_gpu = wanted is not None and torch.device(wanted).type != "cpu"
    if not on_gpu and not to_gpu:
        return _on_host(operation, args, kwargs)
    if problem := device_mix(operation, args, tensors, is_on_gpu):
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! In "
            f"{name_of(operation)}, {problem}"
        )
    if _moves_nothing(operation, args, kwargs):
        return StandInTensor(torch.ops.aten.alias.default(args[0].values))
    record(
        operation=name_of(operation) if launches(operation) else None,
        wait=host_wait(operation, args, kwargs, is_on_gpu, is_pinned),
    )
    host_args, host_kwargs = tree_map_only(StandInTensor, lambda tensor: tensor.values, (args, kwargs))
    if to_gpu:
        host_kwargs["device"] = torch.device("cpu")
    result = operation(*host_args, **host_kwargs)
    if wanted is not None and not to_gpu:
        return result
    if torch.Tag.inplace_view in operation.tags:
        with no_dispatch():
            operation(*args, **kwargs)  # the shape that the C++ code sees
    for tensor in on_gpu:
        assert tensor.shape == tensor.values.shape, f"{operation} changed a shape in place, which has no stand-in"
    # What is written in place comes back as the same object.
    given = {id(_values(tensor)): tensor for tensor in tensors}
    return tree_map_only(
        Tensor, lambda values: given[id(values)] if id(values) in given else StandInTensor(values), result
    )


def _values(tensor: Tensor) -> Tensor:
    return tensor.values if isinstance(tensor, StandInTensor) else tensor


def _on_host(operation: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    pins = kwargs.pop("pin_memory", False)
    result = operation(*args, **kwargs)
    return pin(result) if pins else result


def _moves_nothing(operation: OpOverload, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tells whether `Tensor.to` is called with the device and the type that a tensor on the GPU has already.

    The C++ code compares cuda:0 with "meta" and asks for a copy.
    """
    return (
        name_of(operation) == "_to_copy"
        and is_on_gpu(args[0])
        and kwargs.get("device") is not None
        and torch.device(kwargs["device"]).type != "cpu"
        and kwargs.get("dtype") in (None, args[0].dtype)
        and kwargs.get("memory_format") is None
    )
