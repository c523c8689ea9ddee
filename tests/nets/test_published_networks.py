"""The networks reproduce the published code's numbers, parameter by parameter."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

PUBLISHED = Path(__file__).parents[1] / "published_numbers.npz"
RENAMED_IN_RESNETAP = [
    (r"^fc\.", "head."),
    (r"^layer0\.conv1\.", "trunk.stem.conv."),
    (r"^layer0\.bn1\.", "trunk.stem.norm."),
    (r"^layer(\d)\.", r"trunk.stage\1."),
    (r"\.bn(\d)\.", r".norm\1."),
    (r"\.downsample\.0\.", ".shortcut.conv."),
    (r"\.downsample\.2\.", ".shortcut.norm."),
]


def published(case):
    """Return the case's arrays as tensors, and its parameters under the published names."""
    with np.load(PUBLISHED) as arrays:
        tensors = {
            key.removeprefix(f"{case}/"): torch.from_numpy(arrays[key]).float()
            for key in arrays.files
            if key.startswith(f"{case}/")
        }
    parameters = {key.removeprefix("param/"): value for key, value in tensors.items() if key.startswith("param/")}
    return tensors, parameters


def renamed(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def assert_same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("case", "shape_CHW"), [("convnet", (3, 32, 32)), ("convnet_gray28", (1, 28, 28))])
def test_convnet(build, case, shape_CHW):
    tensors, parameters = published(case)
    network = build("convnet", shape_CHW=shape_CHW, width=8)
    rules = [(r"^classifier\.", "head."), (r"^(conv|norm)", r"trunk.\1")]
    network.load_state_dict({renamed(name, rules): value for name, value in parameters.items()})
    with torch.no_grad():
        features_ND, logits_NK = network(tensors["input"])
    assert_same(features_ND, tensors["features"])
    assert_same(logits_NK, tensors["logits"])


@pytest.mark.parametrize(("size", "side"), [("small", 32), ("mid", 96), ("large", 160)])
def test_resnetap10(build, size, side):
    tensors, parameters = published(f"resnetap10_{size}")
    network = build("resnetap10", shape_CHW=(3, side, side), width=0.0625)
    network.load_state_dict({renamed(name, RENAMED_IN_RESNETAP): value for name, value in parameters.items()})
    with torch.no_grad():
        _, logits_NK = network(tensors["input"])
    assert_same(logits_NK, tensors["logits"])
