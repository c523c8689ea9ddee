"""The README's Python example does what it says, as it stands there."""

import re
from pathlib import Path
from typing import Any

import torch

from dream_ray import api
from dream_ray.config import parse_config

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_example_trains_a_plain_network(tiny: dict[str, Any], digits_store: str, out: str) -> None:
    api.distill(parse_config({**tiny, "outer_steps": 1}), store=digits_store, out=out, local=True)
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    statements = [line for line in example.splitlines() if line.strip()]
    assert len(statements) < 25
    names: dict[str, Any] = {}
    with torch.random.fork_rng(devices=[]):
        exec(example.replace("runs/quickstart/run", out), names)
    images, labels = names["data"].images_NCHW, names["data"].labels_N
    with torch.no_grad():
        reached = (names["network"](images).argmax(dim=1) == labels).float().mean()
    assert reached > 0.9, "it learns the images it was trained on"
