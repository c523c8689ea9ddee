"""The stand-in GPU: one block in which this process sees a CUDA device that computes on the CPU.

The product runs unchanged with `device="cuda"`. Inside the block, `torch.cuda` answers for the stand-in, and every
thread that starts handles the tensors of the stand-in. A computation takes the CPU's kernels, so its bits are the
CPU's. What it cannot show: streams, memory of the GPU, TF32, autocast, generated code.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.optim.optimizer as optimizer
from torch import Tensor

from tests.standin_gpu import graphs
from tests.standin_gpu.tally import record
from tests.standin_gpu.tensor import GPU, StandInMode, StandInTensor, is_pinned, pin, unpin_all

NAME = "stand-in GPU"
TOTAL_BYTES = 80 * 10**9
FREE_BYTES = 79 * 10**9
PEAK_BYTES = 10**6


class _Event:
    """Stands in for `torch.cuda.Event`; the stand-in has finished all work when the host goes on."""

    def __init__(self, *, enable_timing: bool = False) -> None:
        self._at_s = 0.0

    def record(self) -> None:
        self._at_s = time.monotonic()

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _synchronize()

    def elapsed_time(self, later: "_Event") -> float:
        return 1000 * (later._at_s - self._at_s)


def _synchronize(device: Any = None) -> None:
    record(wait="synchronises")


_ANSWERS: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_name": lambda device=None: NAME,
    "get_device_properties": lambda device=None: SimpleNamespace(name=NAME, total_memory=TOTAL_BYTES, major=9, minor=0),
    "mem_get_info": lambda device=None: (FREE_BYTES, TOTAL_BYTES),
    "max_memory_reserved": lambda device=None: PEAK_BYTES,
    "reset_peak_memory_stats": lambda device=None: None,
    "manual_seed": lambda seed: None,
    "get_rng_state": lambda device=None: torch.empty(0, dtype=torch.uint8),
    "set_rng_state": lambda state, device=None: None,
    "synchronize": _synchronize,
    "Event": _Event,
    **graphs.ANSWERS,
}
"""What `torch.cuda` answers; an attribute that is missing here fails as on a machine without a GPU."""


def _by_way_of_host(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns `torch.tensor` or `torch.as_tensor` with a visible copy to the device: torch hides its own from modes."""

    def made(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        made_on_host = make(data, **options)
        return made_on_host if device is None else made_on_host.to(device)

    return made


def _to_an_index(to: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Returns `Tensor.to` with cuda:0 for "cuda", whose index torch asks the driver for."""

    def indexed(value: Any) -> Any:
        return GPU if isinstance(value, (str, torch.device)) and str(value) == GPU.type else value

    def to_an_index(tensor: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return to(tensor, *map(indexed, arguments), **{name: indexed(value) for name, value in options.items()})

    return to_an_index


@contextmanager
def standin_gpu() -> Iterator[None]:
    """Lends this process the stand-in GPU for a block."""
    original_run = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        with StandInMode():
            original_run(thread)

    with pytest.MonkeyPatch.context() as patch, StandInMode():
        for name, answer in _ANSWERS.items():
            patch.setattr(torch.cuda, name, answer)
        for name in ("tensor", "as_tensor"):
            patch.setattr(torch, name, _by_way_of_host(getattr(torch, name)))
        patch.setattr(Tensor, "to", _to_an_index(Tensor.to))
        patch.setattr(Tensor, "pin_memory", pin)
        patch.setattr(Tensor, "is_pinned", is_pinned)
        patch.setattr(threading.Thread, "run", run)
        # Optimizers take their `foreach` form on a GPU, for the types of tensors in this list.
        types = [*optimizer._foreach_supported_types, StandInTensor]
        patch.setattr(optimizer, "_foreach_supported_types", types)
        try:
            yield
        finally:
            unpin_all()
