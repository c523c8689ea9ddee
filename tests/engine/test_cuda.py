"""The engine on a GPU: one step within the rounding of its precision, and a whole run without TF32."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dream_ray import api
from dream_ray.config import Config, parse_config
from dream_ray.core.images.normalisation import Normalisation
from dream_ray.data.store.store import Store
from dream_ray.engine.matching.from_config import class_matcher
from dream_ray.engine.matching.state import RunState
from dream_ray.engine.networks.from_config import build, recipe_of
from dream_ray.engine.networks.sources import Snapshot, blank_network
from dream_ray.engine.run.artefacts import read_synthetic
from tests.standin_gpu.gpu import standin_gpu

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@contextmanager
def tf32(*, allowed: bool) -> Iterator[None]:
    """Sets whether convolutions and matrix products round their float32 inputs to ten bits, as cuDNN's default does."""
    switches = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = allowed
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


@pytest.fixture(params=["stand-in", pytest.param("CUDA", marks=[pytest.mark.cuda, NEEDS_CUDA])])
def gpu(request: pytest.FixtureRequest) -> Iterator[None]:
    """A GPU, or the stand-in, which keeps the test running where there is none."""
    with standin_gpu() if request.param == "stand-in" else nullcontext():
        yield


@pytest.mark.cuda
@NEEDS_CUDA
def test_cpu_and_gpu_agree_after_eight_steps(tiny: dict[str, Any], digits_store: str, tmp_path: Path) -> None:
    """With TF32, k-means picks other images, and the runs part."""
    images = []
    for device in ("cpu", "cuda"):
        out = str(tmp_path / device)
        with tf32(allowed=False):
            api.distill(parse_config(tiny), store=digits_store, out=out, local=True, device=device)
        images.append(read_synthetic(f"{out}/synthetic.parquet")[0].images_LNCHW)
    assert torch.allclose(*images, atol=1e-2)


@pytest.mark.parametrize(("allowed", "tolerance"), [(False, 1e-3), (True, 0.1)])
def test_cpu_and_gpu_agree_in_a_step_on_given_inputs(
    allowed: bool, tolerance: float, gpu: None, tiny: dict[str, Any], digits_store: str
) -> None:
    """With the inputs of convolutions and products rounded to ten bits on a CPU, the gradient moved by up to 0.027."""
    matching = {**tiny["matching"], "distance": "mse"}
    config = parse_config({**tiny, "matching": matching, "initialisation": {"strategy": "random"}})
    with tf32(allowed=allowed):
        here, there = (results_of_a_step(config, Store.open(digits_store), device) for device in (CPU, CUDA))
    for name, expected in here.items():
        error = (there[name].cpu() - expected).norm() / expected.norm()
        assert error <= tolerance, f"{name} differs by {error:.2g} of its norm"


def results_of_a_step(config: Config, store: Store, device: torch.device) -> dict[str, Tensor]:
    """Matches class 0 once, from its first images and an untrained network that are the same on any device."""
    normalise = Normalisation.of(store.manifest.mean, store.manifest.std, device)
    network = blank_network(lambda: build(config, store)).to(device)
    snapshot = Snapshot(0, 0, network, recipe_of(config).optimizer(network))
    matcher = class_matcher(config, store, [0], normalise)
    state = RunState(classes={0: matcher.initial_images.state(snapshot, 0)})
    state.classes[0].indices = torch.arange(config.real_batch)
    losses = matcher.match(snapshot, (0,), state)
    return {
        "features": matcher.selector.embed(snapshot, 0),
        "loss": losses[0],
        "gradient": state.classes[0].momenta,
    }
