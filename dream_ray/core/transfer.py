"""Transfer of arrays to the device that computes with them."""

import numpy as np
import torch
from torch import Tensor


def to_device(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Returns an array as a tensor on a device; on the CPU without a copy if its type stays the same.

    The host does not wait: a GPU copies from pinned memory asynchronously, in the order of its stream. A copy from
    pageable memory would block the host, which could already launch the next operations.

    Args:
        values: Any shape.
        device: Device of the tensor.
        dtype: Type of the tensor; None: that of the array.
    """
    tensor = torch.from_numpy(values)
    tensor = tensor if dtype is None else tensor.to(dtype)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
