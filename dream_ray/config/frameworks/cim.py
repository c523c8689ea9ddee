"""CIM: features of paired tiles and real images under frozen networks.

Source: the published code of CIM (condense/condense.py and its arguments). Each synthetic image is a mosaic of the
easiest images of its class; AdamW moves its difference from that start, so that the features of every tile approach
those of the real image that it shows. CIM keeps images as float32 outside of [0, 1] and evaluates with soft labels of
its network; here images are clamped at the end, and labels are hard.
"""

from dream_ray.config.frameworks import frozen
from dream_ray.config.frameworks.base import Family, Framework, convnet, scales_of
from dream_ray.config.frameworks.origins import Layer, Origin, Scale, Settings, by_ipc

_CODE = Origin("published code", "CIM, condense/condense.py")
_OURS = Origin("ours", "CIM publishes no hard-label recipe of its own; the recipe of IDC")
_NETWORK = Origin("ours", "the network of evaluations; CIM evaluates with the architecture of its frozen network")

_CIM: Settings = {
    "outer_steps": 1,
    "inner_steps": 200,
    "decode": "single",
    "batch_synthetic_max": frozen.ALL_TILES,
    "initialisation": {
        "strategy": "easy",
        "score": "cross_entropy",
        "candidates": by_ipc({1: 300, 10: 300, 50: 300, 100: 500, 200: 1000}),
        "crops": 0,
    },
    "weights": {"feature": 1.0, "gradient": 0.0},
    "matching": {
        "objective": "bidirectional",
        "distance": "l1_mean",
        "pairing": "anchor",
        "augmentation": "crop_cutout_flip",
    },
    "pixels": {"lr": 0.01, "optimizer": "adamw", "weight_decay": 0.01, "space": "unit"},
    "source": {"kind": "frozen"},
}
USUAL = Scale(10, frozen.FACTOR)
_LAYER2: Settings = {"matching": {"feature_layer": "layer2"}}
_AS_ON_1K = Origin("by rule", "as on ImageNet-1K at 224 px; CIM runs its subsets at 128 px, with ConvNets")


def _family(data: str, *layers: Layer, note: str = "") -> Family:
    return Family(layers, scales_of(data, frozen.IPCS, frozen.FACTOR), note)


_ON_IMAGENET = {
    data: _family(
        data,
        *frozen.shared_layers(data),
        Layer(_CODE if data == "imagenet1k" else _AS_ON_1K, _LAYER2),
        note=frozen.NOT_RUN,
    )
    for data in frozen.SUBSETS
}


CIM = Framework(
    "CIM",
    "published code; features of the last block of a ConvNet-3 or -4, or of layer2 of a ResNet-18 at 224 px",
    (Layer(_CODE, _CIM), Layer(_OURS, frozen.HARD_LABELS)),
    {
        **_ON_IMAGENET,
        "cifar10": _family("cifar10", Layer(_NETWORK, {"network": convnet(3)})),
        "tiny-imagenet": _family("tiny-imagenet", *frozen.shared_layers("tiny-imagenet"), note=frozen.NOT_RUN),
    },
    USUAL,
    "{scale}-cim",
)
