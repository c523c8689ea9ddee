"""Checks of settings and store: factors of mosaics, networks that draw at random, and the number of workers."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dream_ray.config import PRESETS, Config, parse_config
from dream_ray.config.frameworks.data_sets import IMAGE_SETS
from dream_ray.data.store.store import Store
from dream_ray.engine.networks.from_config import build
from dream_ray.engine.run import checks
from dream_ray.engine.run.checks import check_fit, small_classes
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


@pytest.mark.parametrize("data", ["smoke", *IMAGE_SETS])
def test_presets_fit_the_images_of_their_data_set(
    digits_store: str, data: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Store.open(digits_store).manifest
    _, side, channels = IMAGE_SETS.get(data, (10, 8, 1))
    counts = dict.fromkeys(manifest.counts, (500,) * 10)
    store = Store("", replace(manifest, channels=channels, height=side, width=side, counts=counts))
    networks: dict[str, Any] = {}

    def built_once(config: Config, store: Store) -> Any:
        name = str(config.network)
        if name not in networks:
            networks[name] = build(config, store)
        return networks[name]

    monkeypatch.setattr(checks, "build", built_once)
    presets = [preset for preset in PRESETS.values() if preset.data == data]
    for preset in presets:
        check_fit(parse_config(preset.settings), store)
    assert presets and not caplog.messages


def test_every_published_data_set_has_its_images() -> None:
    assert {preset.data.partition("/")[0] for preset in PRESETS.values()} == {"smoke", *IMAGE_SETS}


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


NAMES = ("ants", "bees", "cats")


@pytest.mark.parametrize(
    ("counts", "changes", "ways"),
    [
        ([12, 40, 90], {}, "ipc=3 or factor=1 or initialisation.strategy=noise"),
        ([9, 40, 90], {}, "ipc=2 or initialisation.strategy=noise"),
        ([3, 3, 3], {}, "initialisation.strategy=noise"),
        ([5, 5, 5], {"factor": 1}, "ipc=5 or initialisation.strategy=noise"),
        ([40, 40, 40], {}, None),
        ([12, 40, 90], {"initialisation": {"strategy": "noise"}}, None),
    ],
)
def test_classes_smaller_than_their_mosaics_are_named_with_the_ways_out(
    tiny: dict[str, Any], counts: list[int], changes: dict[str, Any], ways: str | None
) -> None:
    config = parse_config({**tiny, "ipc": 10, "selection": {"strategy": "random"}, **changes})
    lines = list(small_classes(config, counts, NAMES))
    assert len(lines) == (ways is not None)
    if ways is not None:
        assert lines[0].endswith(f"If all should differ, set {ways}.")
        assert f"(class 'ants' has {counts[0]})" in lines[0]


def test_classes_smaller_than_the_real_batch_are_named(tiny: dict[str, Any]) -> None:
    (line,) = small_classes(parse_config({**tiny, "selection": {"num_clusters": 64}}), [63, 64, 65], NAMES)
    assert line.startswith("1 of 3 classes has fewer images than the real batch of 64 (class 'ants' has 63)")


def test_a_rate_that_can_only_give_noise_is_named_with_the_usual_range(
    tiny: dict[str, Any], digits_store: str, caplog: pytest.LogCaptureFixture
) -> None:
    check_fit(parse_config({**tiny, "pixels": {"lr": 1e9}, "update": {"lr": 10.0}}), Store.open(digits_store))
    (message,) = caplog.messages
    assert message.startswith("pixels.lr 1e+09 is more than 100 times any rate of the presets of dream_plus (7.65")
