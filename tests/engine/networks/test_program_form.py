"""Compilation of whole functions."""

import logging
from collections.abc import Callable, Sequence

import pytest
import torch

from dream_ray.engine.networks.program_form import compile_whole, inductor_settings


def test_a_process_may_compile_more_runs_than_torch_keeps_versions_of_a_function() -> None:
    def shifted(values_N: torch.Tensor) -> torch.Tensor:
        return values_N + 1

    for size in range(2, 14):
        assert torch.equal(compile_whole(shifted, "eager")(torch.zeros(size)), torch.ones(size))


@pytest.mark.parametrize(
    ("message", "is_shown"), [("No CUDA runtime is found, using CUDA_HOME='/usr/local'", False), ("Another one", True)]
)
def test_compiling_without_a_gpu_prints_no_warning_about_cuda(message: str, is_shown: bool) -> None:
    logger = logging.getLogger("torch.utils.cpp_extension")
    assert bool(logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (), None))) == is_shown


@pytest.mark.parametrize(
    ("device", "dtype", "tf32", "is_changed"),
    [
        ("cpu", torch.float32, False, True),
        ("cuda", torch.float32, False, False),
        ("cuda", torch.float32, True, True),
        ("cuda", torch.bfloat16, False, True),
    ],
)
def test_convolutions_keep_their_layout_where_no_tensor_core_computes_them(
    device: str, dtype: torch.dtype, tf32: bool, is_changed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []

    def backend(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., object]:
        found.append(inductor_settings(graph, torch.device(device)))
        return graph

    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    torch.compile(lambda values_N: values_N.to(dtype) + 1, backend=backend)(torch.zeros(2))
    assert found == [{"layout_optimization": is_changed}]
