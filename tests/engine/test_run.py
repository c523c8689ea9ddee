"""What a run depends on, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dream_ray import api, storage
from dream_ray.config import parse_config
from dream_ray.engine.artefacts import read_synthetic
from dream_ray.engine.environment import describe_environment, differences
from dream_ray.engine.run import finish_run, open_run


def test_a_run_on_gpus_ends_on_a_machine_without(tiny: dict[str, Any], digits_store: str, out: str) -> None:
    api.distill(parse_config(tiny), store=digits_store, out=out, local=True)
    product = f"{out}/synthetic.parquet"
    made = read_synthetic(product)[0]
    storage.delete(product)
    environment = Path(out, "env.json")
    environment.write_text(json.dumps({**json.loads(environment.read_text()), "device": "cuda"}))
    finish_run(open_run(out))
    assert read_synthetic(product)[0].images_LNCHW.equal(made.images_LNCHW)


def test_a_gpu_that_rounds_otherwise_is_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "some GPU")
    began = describe_environment(torch.device("cuda"))
    assert began["device_name"] == "some GPU" and {"cuda", "cudnn"} <= set(began["versions"])
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    now = describe_environment(torch.device("cuda"))
    assert differences(began, now) == ["tf32.convolutions was True, is False"]
