"""Transfer of arrays and tensors to the device that computes with them."""

from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def to_device(values: np.ndarray | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Returns values as a tensor on a device; without a copy if they are there and their type stays the same.

    The host does not wait: a GPU copies from pinned memory asynchronously, in the order of its stream. A copy from
    pageable memory would block the host, which could already launch the next operations.

    Args:
        values: An array, or a tensor on the host or on the device; any shape.
        device: Device of the tensor.
        dtype: Type of the tensor; None: that of the values.
    """
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    tensor = tensor if dtype is None else tensor.to(dtype)
    return tensor if tensor.device.type == device.type else tensor.pin_memory().to(device, non_blocking=True)


def to_host(values: Tensor) -> Tensor:
    """Returns values on the host. A GPU copies them in the order of its stream, and the host does not wait.

    Read them only after the stream has passed an event that was put behind the copy.
    """
    if values.device.type == "cpu":
        return values
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def module_to_device(module: Module, device: torch.device) -> Module:
    """Moves a module from the host to a device, like `Module.to`, without a wait of the host; returns it."""
    if device.type != "cpu":
        for tensor in chain(module.parameters(), module.buffers()):
            tensor.data = tensor.data.pin_memory()
    return module.to(device, non_blocking=True)
