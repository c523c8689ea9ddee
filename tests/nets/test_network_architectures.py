"""Facts about single networks: sizes, initial weights and limits."""

import math

import pytest
import torch

from dream_ray.errors import UsageError


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "shape_CHW", "options", "expected"),
    [
        # ConvNet-3: 3 convolutions and norms of 128 channels, and 128 * 4 * 4 features.
        (
            "convnet",
            (3, 32, 32),
            {},
            (3 * 9 + 1) * 128 + 2 * (128 * 9 + 1) * 128 + 3 * 2 * 128 + (2048 + 1) * 10,
        ),
        # The figures that the literature gives for 32 px and 10 classes.
        ("resnet18", (3, 32, 32), {}, 11_173_962),
        ("resnet50", (3, 32, 32), {}, 23_520_842),
        ("densenet121", (3, 32, 32), {}, 6_956_298),
        # The forms of IDC's and DREAM's tables on CIFAR-10: 1.23 and 1.00 million.
        ("resnet10", (3, 32, 32), {"width": 0.5}, 1_228_970),
        ("densenet121", (3, 32, 32), {"growth": 12}, 1_000_618),
    ],
)
def test_parameter_counts(build, name, shape_CHW, options, expected):
    assert num_parameters(build(name, num_classes=10, shape_CHW=shape_CHW, **options)) == expected


@pytest.mark.parametrize(
    ("shape_CHW", "depth", "num_features"),
    [
        ((3, 32, 32), 3, 2 * 4 * 4),
        ((1, 28, 28), 3, 2 * 4 * 4),  # padded to 32
        ((1, 28, 28), 5, 2),  # padded to 32
        ((3, 28, 28), 3, 2 * 3 * 3),  # only grey images are padded
        ((1, 8, 8), 3, 2),
        ((3, 15, 40), 2, 2 * 3 * 10),  # odd sides lose their last row; images need not be square
    ],
)
def test_convnet_features(build, shape_CHW, depth, num_features):
    assert build("convnet", shape_CHW=shape_CHW, depth=depth, width=2).head.in_features == num_features


def test_convnet_flattens_channels_first(build):
    network = build("convnet", shape_CHW=(3, 8, 8), depth=1, width=2)
    images_NCHW = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    features_ND, _ = network(images_NCHW)
    maps_NCHW = network.trunk[:-1](images_NCHW)
    assert maps_NCHW.shape == (2, 2, 4, 4)
    torch.testing.assert_close(features_ND, maps_NCHW.reshape(2, 32), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["resnetap10", "resnet10"])
def test_resnet_initial_weights(build, name):
    state = build(name, shape_CHW=(3, 32, 32), width=0.5).state_dict()
    weight = state["trunk.stage4.0.conv2.weight"]
    assert weight.shape == (256, 256, 3, 3)
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.01)
    shortcut = state["trunk.stage4.0.shortcut.conv.weight"]
    assert shortcut.std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.02)
    assert torch.equal(state["trunk.stage4.0.norm1.weight"], torch.ones(256))
    assert torch.equal(state["trunk.stage4.0.norm1.bias"], torch.zeros(256))


@pytest.mark.parametrize(
    ("name", "side", "last_side"),
    [("resnetap10", 32, 4), ("resnetap10", 96, 6), ("resnetap10", 160, 5), ("resnet10", 32, 4), ("resnet10", 96, 3)],
)
def test_resnet_stem_follows_the_side(build, name, side, last_side):
    network = build(name, shape_CHW=(3, side, side), width=0.0625)
    maps_NCHW = network.trunk[:-2](torch.zeros(2, 3, side, side))
    assert maps_NCHW.shape == (2, 32, last_side, last_side)


@pytest.mark.parametrize("name", ["resnetap10", "resnet10"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_smallest_side_of_a_resnet_works_and_one_less_is_refused(build, name, norm):
    smallest = {
        ("resnetap10", "instance"): 16,
        ("resnetap10", "batch"): 8,
        ("resnetap10", "none"): 8,
        ("resnet10", "instance"): 9,
    }.get((name, norm), 1)
    network = build(name, shape_CHW=(3, smallest, smallest), width=0.25, norm=norm)
    images_NCHW = torch.randn(4, 3, smallest, smallest, generator=torch.Generator().manual_seed(0))
    features_ND, _ = network(images_NCHW)
    assert features_ND.std(dim=0).max() > 0
    if smallest > 1:
        with pytest.raises(UsageError, match=f"at least {smallest} px .* {norm} norm; got {smallest - 1} px"):
            build(name, shape_CHW=(3, smallest - 1, smallest - 1), norm=norm)


def test_building_draws_from_nothing_but_the_ambient_generator(build):
    before = torch.random.get_rng_state()
    build("convnet", width=4)
    assert torch.equal(before, torch.random.get_rng_state())
