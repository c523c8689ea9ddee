"""How the programs of a run are executed: features, matching steps and network updates."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from torch.fx import GraphModule

from dream_ray.engine.networks.cuda_graph import GraphedProgram

# Compiling CPU code does not need a GPU for the installed CUDA toolkit.
logging.getLogger("torch.utils.cpp_extension").addFilter(
    lambda record: not record.getMessage().startswith("No CUDA runtime is found")
)


@dataclass(frozen=True)
class ProgramForm:
    """It decides the last bits, so a run records it when it begins.

    Attributes:
        class_batch: Classes that are selected together.
        is_batched: Whether one program matches as many classes; False: class by class.
        backend: Backend of `torch.compile`; None: the programs are eager.
        is_graphed: Whether matching steps and network updates are replayed from CUDA graphs.
    """

    class_batch: int = 1
    is_batched: bool = False
    backend: str | None = None
    is_graphed: bool = False

    @property
    def is_fixed(self) -> bool:
        """Whether all calls of a program must have the same shapes."""
        return self.backend is not None or self.is_graphed

    @property
    def match_batch(self) -> int:
        """Classes that one program matches."""
        return self.class_batch if self.is_batched else 1

    def taking(self, class_batch: int) -> "ProgramForm":
        """Returns the form for fewer classes at a time."""
        return replace(self, class_batch=class_batch, is_batched=self.is_batched and class_batch > 1)

    @property
    def mode(self) -> str:
        """The value of `compile` that leads to this form."""
        return "graphs" if self.is_graphed else "off" if self.backend is None else "on"

    def prepared(self, program: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a program as it is executed."""
        compiled = compile_whole(program, self.backend)
        return GraphedProgram(compiled) if self.is_graphed else compiled


EAGER = ProgramForm()
INDUCTOR = "inductor"


def inductor_settings(graph: GraphModule, device: torch.device) -> dict[str, Any]:
    """Returns the settings of Inductor for a traced program that runs on a device.

    On a GPU in float32, convolutions keep the layout of their maps: one kernel then computes an instance norm, whose
    pixels lie together, and only tensor cores are faster with channels last. They compute TF32 and bfloat16.
    """
    values = (node.meta.get("example_value") for node in graph.graph.nodes)
    has_bfloat16 = any(isinstance(value, Tensor) and value.dtype == torch.bfloat16 for value in values)
    on_tensor_cores = has_bfloat16 or torch.backends.cudnn.allow_tf32
    return {"layout_optimization": device.type == "cpu" or on_tensor_cores}


def _inductor(graph: GraphModule, inputs: Sequence[Tensor]) -> Callable[..., Any]:
    from torch._inductor.compile_fx import compile_fx

    device = next(one.device for one in inputs if isinstance(one, Tensor))
    compiled = compile_fx(graph, inputs, config_patches=inductor_settings(graph, device))
    return cast(Callable[..., Any], compiled)


_COMPILERS = {INDUCTOR: _inductor}


def compile_whole(function: Callable[..., Any], backend: str | None) -> Callable[..., Any]:
    """Compiles a function as one graph for one shape; returns it unchanged without a backend.

    The first call takes about a minute, less with a warm disk cache.
    """
    if backend is None:
        return function
    assert isinstance(function, FunctionType)
    compiler = _COMPILERS.get(backend, backend)
    # With a copy of its code: torch keeps versions by code and gives up at the ninth.
    code = function.__code__.replace()
    own = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
    compiled: Callable[..., Any] = torch.compile(own, fullgraph=True, dynamic=False, backend=compiler)
    return compiled
