"""Launches of compiled programs, from the code that Inductor generates for a GPU; the machine needs none.

A program is traced on the CPU. Before Inductor lowers the traced operations, they and their inputs move to the device
"cuda" of an H100 that is not there. The generated code is read, and never executed.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo import register_backend
from torch._guards import detect_fake_mode
from torch._inductor import config as inductor
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.graph import GraphLowering
from torch.fx import GraphModule
from torch.fx.node import map_aggregate
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.utils import _triton

from dream_ray.engine.networks.program_form import inductor_settings

GPU = torch.device("cuda", 0)
BACKEND = "lowered_for_cuda"
"""Backend of `torch.compile` for programs whose launches are counted by `launches_of`."""

_H100 = SimpleNamespace(
    name="H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    warp_size=32,
)
_ANSWERS: dict[str, Any] = {
    "_lazy_init": lambda: None,
    "_get_device_properties": lambda device: _H100,
    "_exchange_device": lambda index: 0,
    "_maybe_exchange_device": lambda index: 0,
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "get_device_capability": lambda device=None: (_H100.major, _H100.minor),
    "get_rng_state": lambda device=None: torch.empty(0, dtype=torch.uint8),
    "set_rng_state": lambda state, device=None: None,
}
"""What `torch.cuda` answers."""


class _Generated(BaseException):
    """Carries the generated code out of the compiler, which handles every `Exception`."""

    def __init__(self, code: str) -> None:
        super().__init__()
        self.code = code


def _leave_with(code: str) -> None:
    raise _Generated(code)


@contextmanager
def _gpu_of_inductor() -> Iterator[None]:
    """Lends Inductor and Triton an H100 for a block."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    target = GPUTarget("cuda", 10 * _H100.major + _H100.minor, _H100.warp_size)
    with pytest.MonkeyPatch.context() as patch:
        for name, answer in _ANSWERS.items():
            patch.setattr(torch.cuda, name, answer, raising=False)
        patch.setattr(GraphLowering, "save_output_code", staticmethod(_leave_with))
        # Without a GPU, the default driver fails to start.
        patch.setattr(type(driver), "active", SimpleNamespace(get_current_target=lambda: target))
        _triton.has_triton.cache_clear()  # it has looked for a GPU before
        try:
            yield
        finally:
            _triton.has_triton.cache_clear()


def _lower_on_gpu(graph: GraphModule, inputs: Any, **options: Any) -> Any:
    """Stands in for `compile_fx_inner`."""

    def on_gpu(argument: Any) -> Any:
        return GPU if isinstance(argument, torch.device) else argument

    for node in graph.graph.nodes:
        node.args, node.kwargs = map_aggregate(node.args, on_gpu), map_aggregate(node.kwargs, on_gpu)
    graph.recompile()
    mode = detect_fake_mode(inputs)
    assert mode is not None
    with mode:
        inputs = [torch.empty_strided(one.shape, one.stride(), dtype=one.dtype, device=GPU) for one in inputs]
    FakeTensorProp(graph, mode).propagate_dont_convert_inputs(*inputs)
    with _gpu_of_inductor():
        return compile_fx_inner(graph, inputs, **options)


@register_backend(name=BACKEND)
def _lower(graph: GraphModule, inputs: Any) -> Any:
    return compile_fx(graph, inputs, _lower_on_gpu, inductor_settings(graph, GPU))


def launches_of(call: Callable[[], object]) -> list[str]:
    """Returns the launches of a program: Triton kernels and calls of library functions, in the generated order.

    One call of a library function may launch several kernels, such as `convolution_backward`.

    Args:
        call: Calls the program, compiled by BACKEND, for the first time with tensors on the CPU; it does not return.
    """
    # In this process and from nothing; a cache would keep code for a GPU that is not there.
    settings = {"compile_threads": 1, "fx_graph_cache": False, "fx_graph_remote_cache": False}
    with inductor.patch(settings):
        try:
            call()
        except _Generated as generated:
            return launches_in(generated.code)
    raise AssertionError("the call has compiled nothing")


def launches_in(code: str) -> list[str]:
    """Returns the launches in the function `call` of generated code."""
    (call,) = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef) and node.name == "call"]
    calls = sorted((node for node in ast.walk(call) if isinstance(node, ast.Call)), key=lambda node: node.lineno)
    names = [ast.unparse(node.func) for node in calls]
    return [name for name in names if is_kernel(name) or name.startswith(_LIBRARIES)]


_LIBRARIES = ("extern_kernels.", "torch.ops.", "aten.")


def is_kernel(launch: str) -> bool:
    """Tells whether a launch is one of a generated kernel; otherwise it is a call of a library function."""
    return launch.endswith(".run")
