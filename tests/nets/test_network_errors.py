"""Wrong names, options and values are refused with the parameter, the rule and the value."""

import re

import pytest

from dream_ray.errors import UsageError


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "convet",
            {},
            "network must be one of convnet, densenet121, resnet10, resnet18, resnet50, resnetap10, torchvision:NAME, "
            "timm:NAME or module:factory; got 'convet'",
        ),
        ("convnet", {"dpth": 3}, "options of network 'convnet' must be among: depth, width, norm; got 'dpth'"),
        ("resnet18", {"depth": 3}, "options of network 'resnet18' must be among: width, norm; got 'depth'"),
        ("densenet121", {"norm": "batch"}, "options of network 'densenet121' must be among: growth; got 'norm'"),
        ("densenet121", {"growth": 0}, "network.growth must be an int >= 1; got 0"),
        ("convnet", {"depth": 0}, "network.depth must be an int >= 1; got 0"),
        ("convnet", {"depth": 2.0}, "network.depth must be an int >= 1; got 2.0"),
        ("convnet", {"depth": True}, "network.depth must be an int >= 1; got True"),
        ("convnet", {"width": 0.5}, "network.width must be an int >= 1; got 0.5"),
        ("convnet", {"norm": "layer"}, "network.norm must be one of batch, instance, none; got 'layer'"),
        ("resnet10", {"norm": ["batch"]}, "network.norm must be one of batch, instance, none; got ['batch']"),
        (
            "convnet",
            {"shape_CHW": (3, 6, 6)},
            "network.depth must be at most log2 of the images' shorter side, as each block halves it; "
            "got depth 3 at 6 px",
        ),
        ("convnet", {"depth": 10**12}, "got depth 1000000000000 at 16 px"),
        ("convnet", {"shape_CHW": (1, 28, 28), "depth": 6}, "got depth 6 at 28 px"),
        ("densenet121", {"shape_CHW": (3, 7, 32)}, "images must be at least 8 px for densenet121; got 7 px"),
        (
            "resnet10",
            {"width": 128},
            "network.width must be a multiple of 64 channels, a number above 0 and at most 16 that gives a channel; "
            "got 128",
        ),
        ("resnet10", {"width": 0}, "above 0 and at most 16 that gives a channel; got 0"),
        ("resnet10", {"width": "1"}, "that gives a channel; got '1'"),
        ("resnet10", {"width": float("nan")}, "that gives a channel; got nan"),
        ("resnet10", {"width": 0.001}, "that gives a channel; got 0.001"),
    ],
)
def test_refused(build, name, arguments, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        build(name, **arguments)
