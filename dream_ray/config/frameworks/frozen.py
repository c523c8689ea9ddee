"""Presets of networks that were trained before: what all forms share, DREAM+ at frozen networks, and easy images.

On ImageNet-1K and its subsets the network is torchvision's ResNet-18, from which CIM, RDED and FADRM distil too. Nobody
has run these presets with its published weights yet.
"""

from dream_ray.config.frameworks import data_sets, idc
from dream_ray.config.frameworks.base import Family, convnet, scales_of
from dream_ray.config.frameworks.origins import ByScale, Layer, Origin, Settings, scaled_rate

NOT_RUN = "never run with published weights"
IPCS = (1, 10, 50)
FACTOR = 2
SUBSETS = ("imagenet1k", "imagenet100", "imagenet10")
"""ImageNet-1K and its subsets at 224 px."""

ALL_TILES = ByScale(lambda scale: scale.ipc * scale.factor**2, "ipc * factor^2, all tiles at once")
HARD_LABELS: Settings = {
    "evaluation": {
        "epochs": 1000,
        "batch_size": 64,
        "lr": 0.01,
        "cutmix_probability": 0.5,
        "augmentation": "color_crop_flip_scale_rotate",
    }
}
"""IDC's recipe on CIFAR-10, for methods that publish none for hard labels."""

_NETWORK = Origin("published code", "the ResNet-18 of torchvision, as in CIM, RDED and FADRM, with its normalisation")
_AS_AT_64_PX = Origin("by rule", "ConvNet-4, as DM and DREAM on Tiny-ImageNet")
_RECIPE = Origin("by rule", "hard labels by IDC's recipe for ImageNet-10 (ten classes) or ImageNet-100")
_EPOCHS = Origin("published code", "CIM, RDED and FADRM train for 300 epochs on ImageNet-1K")

_EVALUATIONS: dict[str, tuple[Layer, ...]] = {
    "imagenet1k": (
        Layer(_RECIPE, {"evaluation": idc.EVALUATIONS["imagenet100"]}),
        Layer(_EPOCHS, {"evaluation": {"epochs": 300}}),
    ),
    **{data: (Layer(_RECIPE, {"evaluation": evaluation}),) for data, evaluation in idc.EVALUATIONS.items()},
}


def shared_layers(data: str) -> tuple[Layer, ...]:
    """Returns the network, the normalisation and the evaluation of all forms on a set of images."""
    if data not in SUBSETS:
        return (Layer(_AS_AT_64_PX, {"network": convnet(4)}),)
    network: Settings = {"network": {"name": "torchvision:resnet18"}, **data_sets.IMAGENET}
    return (Layer(_NETWORK, network), *_EVALUATIONS[data])


def _families(form: str, *layers: Layer, more: dict[str, tuple[Layer, ...]]) -> dict[str, Family]:
    """Returns the families DATA/FORM, with the presets DATA-ipcN-FORM."""
    found = {}
    for data in (*SUBSETS, "tiny-imagenet"):
        scales = {f"{name}-{form}": scale for name, scale in scales_of(data, IPCS, FACTOR).items()}
        family = Family((*shared_layers(data), *more.get(data, ()), *layers), scales, NOT_RUN)
        found[f"{data}/{form}"] = family
    return found


_FEW_STEPS = Layer(
    Origin("ours", "frozen networks are not trained between steps; DREAM+ publishes no run at them"),
    {"outer_steps": 20, "inner_steps": 50, "source": {"kind": "frozen"}},
)
_AS_IDC = Origin("by rule", "as IDC and DREAM on ImageNet-100 (ImageNet-10: its own rate)")
_RATES = {"imagenet1k": 1e-3, "imagenet100": 1e-3, "imagenet10": 3e-3}
_TINY_CODE = Origin("published code", "DREAM+ on Tiny-ImageNet, --reproduce")


def dream_plus_families(tiny_imagenet: Settings) -> dict[str, Family]:
    """Returns DREAM+ at frozen networks.

    Args:
        tiny_imagenet: How DREAM+ selects and moves images on Tiny-ImageNet.
    """
    matching: dict[str, tuple[Layer, ...]] = {
        data: (Layer(_AS_IDC, {"matching": {"distance": "l1"}, "pixels": {"lr": scaled_rate(rate)}}),)
        for data, rate in _RATES.items()
    }
    matching["tiny-imagenet"] = (Layer(_TINY_CODE, tiny_imagenet),)
    return _families("dream-plus-frozen", _FEW_STEPS, more=matching)


_EASY = Layer(
    Origin("published code", "CIM, condense/condense.py; RDED has as many candidates"),
    {"initialisation": {"strategy": "easy", "score": "cross_entropy", "candidates": 300, "crops": 0}},
)
_NO_STEPS = Layer(Origin("published", "PCA, arXiv 2502.06434: a selection, without synthesis"), {"outer_steps": 0})
EASY_FAMILIES = _families("easy", _EASY, _NO_STEPS, more={})
"""Easy images in mosaics, for `dream-ray select`."""
