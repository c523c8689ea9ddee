"""Features of a layer, beside the plain network with a hook."""

import re

import pytest
import torch

from dream_ray.errors import UsageError
from dream_ray.nets import build_network
from dream_ray.nets.layers import LayerFeatures, check_layer, layers_of

NETWORKS = {
    "convnet": ("norm1", "relu0", "pool1", "flatten"),
    "resnet10": ("stem", "stage2", "stage2.0", "stage2.0.norm1", "flatten"),
    "torchvision:resnet18": ("layer1", "layer2.1", "bn1"),
}
OPTIONS = {"convnet": {"depth": 2, "width": 4}, "resnet10": {"width": 0.05}, "torchvision:resnet18": {}}


@pytest.mark.parametrize("with_logits", [False, True])
@pytest.mark.parametrize(("name", "layer"), [(name, layer) for name, layers in NETWORKS.items() for layer in layers])
def test_features_are_the_maps_of_the_layer(name: str, layer: str, with_logits: bool) -> None:  # noqa: FBT001
    torch.manual_seed(0)
    network = build_network(name, num_classes=3, shape_CHW=(3, 32, 32), options=OPTIONS[name]).eval()
    images = torch.randn(2, 3, 32, 32)
    seen: list[torch.Tensor] = []
    hook = network.trunk.get_submodule(layer).register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    _, logits = network(images)
    hook.remove()
    tapped = LayerFeatures(network, layer, with_logits=with_logits)
    features, found = tapped(images)
    torch.testing.assert_close(features, seen[0].flatten(1))
    if with_logits:
        torch.testing.assert_close(found, logits)
    assert {name for name, _ in tapped.named_parameters()} <= {name for name, _ in network.named_parameters()}


def test_what_the_layer_does_not_need_is_not_computed() -> None:
    network = build_network("resnet10", num_classes=3, shape_CHW=(3, 32, 32), options={"width": 0.05}).eval()
    tapped = LayerFeatures(network, "stage1", with_logits=False)
    assert not any("stage2" in name or "head" in name for name, _ in tapped.named_parameters())


def test_layers_are_named() -> None:
    network = build_network("convnet", num_classes=3, shape_CHW=(1, 8, 8), options={"depth": 2, "width": 4})
    blocks = [f"{kind}{block}" for block in (0, 1) for kind in ("conv", "norm", "relu", "pool")]
    assert layers_of(network) == (*blocks, "flatten")
    check_layer(network, "conv1")
    with pytest.raises(UsageError, match=re.escape("feature_layer must be one of conv0, norm0, ") + ".*; got 'layer2'"):
        check_layer(network, "layer2")


def test_layers_within_stages_are_named() -> None:
    network = build_network("resnet10", num_classes=3, shape_CHW=(3, 32, 32), options={"width": 0.05})
    assert "stage2.0" in layers_of(network)
    with pytest.raises(UsageError, match="stem, stage1, stage2, stage3, stage4, pool, flatten, or one in them"):
        check_layer(network, "stage5")
