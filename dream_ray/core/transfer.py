"""The way of arrays to the device that computes with them."""

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Returns an array as a tensor of a device; on the CPU without a copy where it can be.

    The host does not wait: a GPU fetches the values by itself, in the order of its work, for they lie in pinned memory.
    From any other memory every copy holds up a loop that could already ask for the next operations.

    Args:
        values: Any shape.
        device: Where to.
        dtype: Of the tensor; None: as the array's.
    """
    tensor = torch.from_numpy(values)
    tensor = tensor if dtype is None else tensor.to(dtype)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
