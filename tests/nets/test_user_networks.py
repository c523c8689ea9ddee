"""Networks from a user's module: split, checked, or refused with a reason."""

import re
import sys

import pytest
import torch

from dream_ray.errors import UsageError

MODULE = '''
import math

import torch
from torch import nn

NOT_CALLABLE = 3


def linear(num_classes, shape_CHW, hidden=6, inplace=False):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(shape_CHW), hidden), nn.ReLU(inplace), nn.Linear(hidden, num_classes)
    )


def frozen(num_classes, shape_CHW, **options):
    return linear(num_classes, shape_CHW, **options).eval()


def lazy(num_classes, shape_CHW):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.LazyLinear(num_classes))


class Nested(nn.Module):
    """The classification layer is not a direct child, and a BatchNorm must not learn from the check."""

    def __init__(self, *, num_classes, shape_CHW, width):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(shape_CHW[0], width, 3), nn.BatchNorm2d(width), nn.AdaptiveAvgPool2d(1))
        self.tail = nn.ModuleDict({"fc": nn.Linear(width, num_classes)})

    def forward(self, images):
        return self.tail["fc"](self.body(images).flatten(1))


def no_module(num_classes, shape_CHW):
    return "a network"


def bare(num_classes, shape_CHW):
    return nn.Linear(shape_CHW[-1], num_classes)


def convolutional(num_classes, shape_CHW):
    return nn.Sequential(nn.Conv2d(3, num_classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def softmax(num_classes, shape_CHW):
    return nn.Sequential(linear(num_classes, shape_CHW), nn.Softmax(dim=1))


def too_many(num_classes, shape_CHW):
    return linear(num_classes + 1, shape_CHW)


def tuple_out(num_classes, shape_CHW):
    class Pair(nn.Module):
        def forward(self, images):
            return images, images
    return Pair()


def wrong_order(num_classes, shape_CHW):
    class WrongOrder(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, num_classes)
            self.body = nn.Linear(math.prod(shape_CHW), 6)

        def forward(self, images):
            return self.head(self.body(images.flatten(1)))
    return WrongOrder()


class PerPixel(nn.Module):
    def __init__(self, num_classes, shape_CHW, reduce):
        super().__init__()
        self.head = nn.Linear(shape_CHW[0], num_classes)
        self.reduce = reduce

    def forward(self, images):
        return self.reduce(self.head(images.flatten(2).transpose(1, 2)))


def pixel_mean(num_classes, shape_CHW):
    return PerPixel(num_classes, shape_CHW, lambda logits: logits.mean(1))


def pixel_max(num_classes, shape_CHW):
    return PerPixel(num_classes, shape_CHW, lambda logits: logits.amax(1))


def sometimes_3d(num_classes, shape_CHW):
    return PerPixel(num_classes, shape_CHW, lambda x: x.mean(1) if x.shape[-1] == num_classes else x[:, :1])


def uses_weight(num_classes, shape_CHW):
    class UsesWeight(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(math.prod(shape_CHW), num_classes)

        def forward(self, images):
            return images.flatten(1) @ self.head.weight.T
    return UsesWeight()


def other_size(num_classes, shape_CHW):
    return nn.Sequential(nn.Flatten(), nn.Linear(7, num_classes))


def broken(num_classes, shape_CHW):
    raise KeyError("no such setting")


def needs_option(num_classes, shape_CHW, growth):
    return linear(num_classes, shape_CHW, growth)
'''


@pytest.fixture(autouse=True)
def user_modules(tmp_path, monkeypatch):
    (tmp_path / "nets_of_a_user.py").write_text(MODULE)
    (tmp_path / "nets_with_a_bug.py").write_text("import nets_of_nobody\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("nets_of_a_user", "nets_with_a_bug"):
        sys.modules.pop(name, None)


def images(seed=0):
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("factory", "options", "num_features"),
    [
        ("linear", {}, 6),
        ("linear", {"hidden": 9, "inplace": True}, 9),
        ("frozen", {"hidden": 3}, 3),
        ("lazy", {}, 4),
        ("pixel_mean", {}, 3),  # a mean after the layer is the same as one before it
        ("Nested", {"width": 7}, 7),
    ],
)
def test_split(build, factory, options, num_features):
    network = build(f"nets_of_a_user:{factory}", **options)
    assert network.training
    features_ND, logits_NK = network(images())
    assert features_ND.shape == (3, num_features)
    assert logits_NK.shape == (3, 5)
    names = [name for name, _ in network.named_parameters()]
    assert all(name.startswith(("trunk.", "head.")) for name in names)
    assert [name for name in names if name.startswith("head.")] == ["head.weight", "head.bias"]


def test_the_check_leaves_the_network_as_it_was_built(build):
    network = build("nets_of_a_user:Nested", width=7, seed=3)
    assert network.trunk.body[1].num_batches_tracked == 0

    import nets_of_a_user

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        whole = nets_of_a_user.Nested(num_classes=5, shape_CHW=(3, 16, 16), width=7)
    torch.testing.assert_close(network(images())[1], whole(images()), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nets_of_nobody:net", {}, "must be on Python's search path): import of nets_of_nobody failed: ModuleNotFound"),
        ("nets_with_a_bug:net", {}, "import of nets_with_a_bug failed: ModuleNotFoundError: No module named"),
        ("nets_of_a_user:nothing", {}, "must name a callable in nets_of_a_user; got no such name"),
        ("nets_of_a_user:NOT_CALLABLE", {}, "must name a callable in nets_of_a_user; got int"),
        ("nets_of_a_user:", {}, "a user's network must have the form module:factory; got 'nets_of_a_user:'"),
        (".nets:net", {}, "a user's network must have the form module:factory; got '.nets:net'"),
        ("builtins:dict", {}, "must be a Python callable whose signature can be read"),
        (
            "torch.hub:load",
            {"repo_or_dir": "/", "model": "x"},
            "must have the parameters num_classes and shape_CHW",
        ),
        ("nets_of_a_user:linear", {"hiden": 2}, "must be among: hidden, inplace; got 'hiden'"),
        ("nets_of_a_user:needs_option", {}, "needs the option 'growth'; its options are: growth"),
        ("nets_of_a_user:no_module", {}, "must return a torch.nn.Module; got str"),
        ("nets_of_a_user:broken", {}, "network 'nets_of_a_user:broken' failed: KeyError: 'no such setting'"),
        ("nets_of_a_user:bare", {}, "must return logits of shape (2, 5) for 2 images; got shape (2, 3, 16, 5)"),
        ("nets_of_a_user:convolutional", {}, "got a network without nn.Linear"),
        ("nets_of_a_user:softmax", {}, "must end in its last nn.Linear"),
        ("nets_of_a_user:too_many", {}, "must return logits of shape (2, 5) for 2 images; got shape (2, 6)"),
        ("nets_of_a_user:tuple_out", {}, "must return logits of shape (2, 5) for 2 images; got tuple"),
        ("nets_of_a_user:wrong_order", {}, "(out_features 5) as the last nn.Linear; got body with out_features 6"),
        ("nets_of_a_user:pixel_max", {}, "must end in its last nn.Linear"),
        ("nets_of_a_user:sometimes_3d", {}, "features of shape (N, 3); got (2, 1, 3) for N = 2"),
        ("nets_of_a_user:uses_weight", {}, "without its last nn.Linear failed: AttributeError"),
        ("nets_of_a_user:other_size", {}, "on images of shape (3, 16, 16) failed: RuntimeError"),
    ],
)
def test_refused(build, name, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        build(name, **options)
