"""torchvision's networks as classifiers, and as the oracle of ours. Its import alone takes seconds."""

import re
import subprocess
import sys

import pytest
import torch

from dream_ray.errors import UsageError


def images(side, num_images=2):
    return torch.randn(num_images, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_torchvision_is_imported_only_when_used():
    code = (
        "import sys, dream_ray.nets as nets;"
        "nets.build_network('convnet', num_classes=2, shape_CHW=(3, 8, 8), options={});"
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "side", "num_features"),
    [("efficientnet_b0", 32, 1280), ("googlenet", 32, 1024), ("mobilenet_v3_small", 64, 1024)],
)
def test_split(build, model, side, num_features):
    network = build(f"torchvision:{model}", shape_CHW=(3, side, side))
    assert network.training
    features_ND, logits_NK = network(images(side))
    assert features_ND.shape == (2, num_features)
    assert logits_NK.shape == (2, 5)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"trunk", "head"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("torchvision:resnet19", {}, "must name one of alexnet, "),
        ("torchvision:fcn_resnet50", {}, "got 'torchvision:fcn_resnet50'"),
        ("torchvision:resnet18", {"shape_CHW": (1, 8, 8)}, "must get images of 3 channels; got 1"),
        ("torchvision:resnet18", {"width": 2}, "options of network 'torchvision:resnet18' must be among: none; got "),
        ("torchvision:vit_b_16", {"shape_CHW": (3, 32, 32)}, "on images of shape (3, 32, 32) failed: AssertionError"),
        ("torchvision:squeezenet1_1", {"shape_CHW": (3, 32, 32)}, "got a network without nn.Linear"),
    ],
)
def test_refused(build, name, arguments, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        build(name, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_our_resnets_are_torchvisions_above_64_px(build, name):
    from torchvision.models import get_model

    theirs = get_model(name, weights=None, num_classes=5)
    ours = build(name, shape_CHW=(3, 96, 96))
    renamed = {
        re.sub(r"^(trunk|head)\.", "", key)
        .replace("stem.conv", "conv1")
        .replace("stem.norm", "bn1")
        .replace("shortcut.conv", "downsample.0")
        .replace("shortcut.norm", "downsample.1")
        .replace("stage", "layer")
        .replace("norm", "bn"): value
        for key, value in ours.state_dict().items()
    }
    renamed |= {f"fc.{key}": renamed.pop(key) for key in ("weight", "bias")}
    theirs.load_state_dict(renamed)
    with torch.no_grad():
        torch.testing.assert_close(ours(images(96))[1], theirs(images(96)), rtol=1e-4, atol=1e-4)
