"""Compilation of whole functions."""

import logging

import pytest
import torch

from dream_ray.engine.networks.program_form import compile_whole


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
