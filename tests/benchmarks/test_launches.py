"""The counts of `benchmarks.launches`, at small sizes."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from benchmarks.launches import SELECTION, SMALL, Scale, calls_of_programs, counts_of_parts, form_of
from dream_ray.engine.networks.program_form import compile_whole
from tests.standin_gpu.lowering import BACKEND, is_kernel, launches_of

FEW = replace(SMALL, images_per_class=256)

needs_generated_code = pytest.mark.skipif(
    not torch.backends.cuda.is_built() or torch.cuda.is_available(), reason="replaces a missing GPU in a build for CUDA"
)


@needs_generated_code
def test_a_program_counts_as_its_kernels_and_library_calls() -> None:
    pytest.importorskip("triton")

    def program(x: Tensor) -> Tensor:
        return (torch.relu(x @ x) + torch.arange(len(x), device=x.device)) @ x

    lowered = compile_whole(program, BACKEND)
    launches = launches_of(lambda: lowered(torch.zeros(8, 8)))
    assert [is_kernel(launch) for launch in launches] == [False, True, False]
    assert [launch for launch in launches if not is_kernel(launch)] == ["extern_kernels.mm"] * 2


@needs_generated_code
def test_features_have_a_library_call_for_each_convolution() -> None:
    pytest.importorskip("triton")
    launches = launches_of(calls_of_programs(1, 8, FEW)[SELECTION])
    assert [launch for launch in launches if not is_kernel(launch)] == ["extern_kernels.convolution"] * 3
    assert any(is_kernel(launch) for launch in launches)


@pytest.mark.slow
def test_images_and_networks_of_any_size_take_the_same_operations() -> None:
    form = form_of("eager", 10)
    small, larger = (counts_of_parts(form, 128, scale) for scale in (FEW, Scale(16, 8, FEW.images_per_class)))
    assert small == larger
