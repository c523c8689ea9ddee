"""Checks of settings and store: factors of mosaics, networks that draw at random, and the number of workers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_ray.config import parse_config
from dream_ray.data.store.store import Store
from dream_ray.engine.run.checks import check_fit
from dream_ray.engine.run.spec import RunSpec, check_against_store
from dream_ray.errors import UsageError

RULE = "factor must have (factor - 1) * ceil(side / factor) < side (8), or whole tiles of a mosaic would be padding; "


@pytest.mark.parametrize(
    ("factor", "decode", "got"),
    [
        (5, "single", "got 5 (the next smaller one is 4)"),
        (9, "single", "got 9 (the next smaller one is 8)"),
        (8, "multi", "got 8 with decode multi, which cuts by 5 too (the next smaller one is 4)"),
        (7, "bound", "got 7 (the next smaller one is 4)"),
    ],
)
def test_a_factor_that_leaves_tiles_empty_is_refused(
    tiny: dict[str, Any], digits_store: str, factor: int, decode: str, got: str
) -> None:
    settings = {**tiny, "factor": factor, "decode": decode}
    with pytest.raises(UsageError, match=f"^{re.escape(RULE + got)}$"):
        check_fit(parse_config(settings), Store.open(digits_store))


@pytest.mark.parametrize(("factor", "decode"), [(1, "single"), (3, "multi"), (4, "multi"), (8, "single"), (8, "bound")])
def test_other_factors_are_accepted(tiny: dict[str, Any], digits_store: str, factor: int, decode: str) -> None:
    check_fit(parse_config({**tiny, "factor": factor, "decode": decode}), Store.open(digits_store))


DRAWING = """
import math
from functools import partial
from torch import nn
from torch.nn import functional as F
from torchvision.ops import StochasticDepth

class Functional(nn.Module):
    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, features):
        return F.dropout(features, self.rate, self.training)

def make(num_classes, shape_CHW, kind, rate):
    drawing = {"dropout": nn.Dropout, "functional": Functional, "depth": partial(StochasticDepth, mode="row")}
    return nn.Sequential(nn.Flatten(), drawing[kind](rate), nn.Linear(math.prod(shape_CHW), num_classes))
"""


@pytest.mark.parametrize("kind", ["dropout", "functional", "depth"])
def test_a_network_that_draws_at_random_is_refused(
    tiny: dict[str, Any], digits_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Its bits would depend on the process and the order of its training."""
    (tmp_path / "drawing.py").write_text(DRAWING)
    monkeypatch.syspath_prepend(str(tmp_path))
    network = {"name": "drawing:make", "options": {"kind": kind, "rate": 0.5}}
    with pytest.raises(UsageError, match=r"network\.name must be a network that draws nothing .*; drawing:make does"):
        check_fit(parse_config({**tiny, "network": network}), Store.open(digits_store))
    network["options"] = {"kind": kind, "rate": 0.0}
    check_fit(parse_config({**tiny, "network": network}), Store.open(digits_store))


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("strategy", ["representative", "random"])
def test_more_workers_than_classes_are_refused(
    tiny: dict[str, Any], digits_store: str, local: bool, strategy: str
) -> None:
    config, store = parse_config({**tiny, "selection": {"strategy": strategy}}), Store.open(digits_store)
    spec = RunSpec(config=config, store=digits_store, out=None, workers=10, local=local)
    check_against_store(spec, store)
    message = (
        "workers must be at most the number of classes (10); got 40. More would wait: 40 workers for 10 classes "
        "(CIFAR-10) were predicted to be 2.74 times as fast as one, and 10 workers 2.59 times. Use at most 10 workers, "
        "and --producers for the networks"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        check_against_store(replace(spec, workers=40), store)
