"""Networks whose features are the maps of a layer.

Shapes: N images, D features, K classes.
"""

from typing import Any

from torch import Tensor, nn

from dream_ray.errors import UsageError
from dream_ray.nets.classifier import Classifier, foreign_code

_FEATURES, _PENULTIMATE = "features", "penultimate"


def layers_of(network: Classifier) -> tuple[str, ...]:
    """Return the names of the layers of a network whose maps can be matched, outer ones before those in them."""
    return tuple(name for name, _ in network.trunk.named_modules() if name)


def check_layer(network: Classifier, name: str) -> None:
    """Raise UsageError with the valid names unless a network has a layer of a name."""
    layers = layers_of(network)
    if name not in layers:
        outer = [layer for layer in layers if "." not in layer]
        inner = next((layer for layer in layers if "." in layer), None)
        within = "" if inner is None else f", or one in them such as {inner}"
        raise UsageError(f"matching.feature_layer must be one of {', '.join(outer)}{within}; got {name!r}")


class LayerFeatures(nn.Module):
    """A network whose features are the maps of a layer; what it does not need is not computed.

    Its parameters have the names that they have in the network.

    Args:
        network: the network; it is not modified.
        layer: name of a layer of its trunk.
        with_logits: whether it computes logits too.

    Raises:
        UsageError: there is no such layer, or torch.fx cannot trace the network.
    """

    def __init__(self, network: Classifier, layer: str, *, with_logits: bool) -> None:
        super().__init__()
        from torchvision.models import feature_extraction

        check_layer(network, layer)
        with foreign_code("matching.feature_layer needs a network that torch.fx can trace; tracing"):
            _, nodes = feature_extraction.get_graph_node_names(network.trunk, suppress_diff_warning=True)
            wanted = {layer: _FEATURES} if layer != nodes[-1] else {}
            if with_logits or not wanted:
                wanted[nodes[-1]] = _PENULTIMATE
            self.trunk = feature_extraction.create_feature_extractor(
                network.trunk, return_nodes=wanted, suppress_diff_warning=True
            )
        for module in self.trunk.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # it would change the maps of the layer before it
        self.head = network.head if with_logits else None

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return (features_ND, logits_NK); features in place of logits that are not computed."""
        found: dict[str, Any] = self.trunk(images_NCHW)
        features_ND = found.get(_FEATURES, found.get(_PENULTIMATE)).flatten(1)  # type: ignore[union-attr]
        return features_ND, features_ND if self.head is None else self.head(found[_PENULTIMATE])
