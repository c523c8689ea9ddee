"""Frameworks whose workers exchange something at every step, on Ray Train: the same bits as in one process."""

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.run_directory import open_run, read_sessions
from tests.frameworks import tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("framework", ["dc", "mtt"])
def test_two_workers_equal_one(local_ray: None, four_digits_store: str, out: str, framework: str) -> None:
    """DC gathers the synthetic images of both; the experts of MTT are trained by tasks, its segments shared."""
    config = parse_config(tiny_run(framework, "random"))
    api.distill(config, store=four_digits_store, out=out, workers=2)
    api.distill(config, store=four_digits_store, out=f"{out}-alone", local=True)
    alone, shared = (read_synthetic(f"{path}/synthetic.parquet")[0] for path in (f"{out}-alone", out))
    assert torch.equal(shared.images_LNCHW, alone.images_LNCHW)
    assert shared.step_size == alone.step_size
    received = [session["gathered_bytes"] for session in read_sessions(open_run(out)) if session["num_shards"] == 2]
    # Six updates of the networks, before each of which a worker receives the other's two images of 8 x 8 float32.
    assert received == [6 * 2 * 8 * 8 * 4 if framework == "dc" else 0] * 2
