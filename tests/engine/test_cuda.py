"""The engine on a GPU: the same run within rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api
from dream_ray.config import parse_config
from dream_ray.engine.run.artefacts import read_synthetic

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_cpu_and_gpu_agree_after_eight_steps(tiny: dict[str, Any], digits_store: str, tmp_path: Path) -> None:
    images = []
    for device in ("cpu", "cuda"):
        out = str(tmp_path / device)
        api.distill(parse_config(tiny), store=digits_store, out=out, local=True, device=device)
        images.append(read_synthetic(f"{out}/synthetic.parquet")[0].images_LNCHW)
    assert torch.allclose(*images, atol=1e-2)
