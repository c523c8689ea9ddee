"""DREAM and DREAM+: IDC with representative real images; DREAM+ also matches features.

Sources: DREAM (Liu et al., ICCV 2023, arXiv 2302.14416), DREAM+ (arXiv 2310.15052) and the settings of their authors'
code, for the argument `--reproduce`. The defaults of the settings are those of DREAM+.
"""

from dream_ray.config.frameworks import data_sets, frozen, idc
from dream_ray.config.frameworks.base import Family, Framework, convnet, scales_of
from dream_ray.config.frameworks.origins import Layer, Origin, Scale, Settings, scaled_rate

_DREAM_CODE = Origin("published code", "DREAM, --reproduce")
_DREAM_PLUS_CODE = Origin("published code", "DREAM+, --reproduce")
_EXTRAPOLATED = Origin(
    "extrapolated",
    "IDC's setting; the code of DREAM does not train networks before, and that of DREAM+ does not run ResNetAP-10",
)
_OURS = Origin("ours", "digits in under a minute on two CPU cores: a test of the installation, not of accuracy")

_DREAM: Settings = {
    "outer_steps": 2000,
    # The first network is untrained when it selects the initial images and is matched.
    "initialisation": {"strategy": "representative", "warmup_epochs": 0},
    "selection": {
        "strategy": "representative",
        "num_clusters": 128,
        "per_cluster": 1,
        "interval": 10,
        "rule": "each",
    },
    "update": {"batch_size": 128},
}
_DREAM_PLUS: Settings = {
    "initialisation": {"warmup_epochs": 1},
    "weights": {"feature": 1.0, "gradient": 1.0},
    "update": {"warmup_epochs": 1},
}
_TINY_IMAGENET: Settings = {
    **data_sets.IMAGENET,
    "network": convnet(4),
    "selection": {"num_clusters": 64},
    "pixels": {"lr": scaled_rate(5e-3, side=64, base_side=32, exceptions={50: 1e-6})},
    "update": {"num_images": 1000, "batch_size": 64},
}


def _families(code: Origin, more_on_tiny_imagenet: Settings) -> dict[str, Family]:
    tiny = (Layer(code, _TINY_IMAGENET), Layer(code, more_on_tiny_imagenet))
    return {
        **idc.families(code, _EXTRAPOLATED),
        "tiny-imagenet": Family(tiny, scales_of("tiny-imagenet", (1, 10, 50), 2)),
    }


_SMOKE: Settings = {
    "outer_steps": 6,
    "inner_steps": 20,
    "checkpoint_every": 10,
    "network": {"name": "convnet", "options": {"depth": 2, "width": 32, "norm": "instance"}},
    "selection": {"num_clusters": 32},
    "matching": {"augmentation": "color_crop"},
    "pixels": {"lr": 1e-3},
    "update": {"num_images": 256, "batch_size": 64, "cutmix_probability": 0.0},
    "evaluation": {
        "epochs": 300,
        "quick_epochs": 100,
        "whole_set_epochs": 100,
        "cutmix_probability": 0.0,
        "augmentation": "color_crop_scale_rotate",
    },
}

_ANY_RULE: Settings = {"selection": {"rule": "any"}}

DREAM = Framework(
    "DREAM",
    "Liu et al., ICCV 2023, arXiv 2302.14416",
    (idc.LAYER, Layer(_DREAM_CODE, _DREAM)),
    _families(_DREAM_CODE, {}),
    idc.USUAL,
    "dream-{scale}",
)
DREAM_PLUS = Framework(
    "DREAM+",
    "Liu et al., arXiv 2310.15052",
    (*DREAM.layers, Layer(_DREAM_PLUS_CODE, _DREAM_PLUS)),
    {
        "smoke": Family((Layer(_OURS, _SMOKE),), {"smoke": Scale(1, 1)}),
        **_families(_DREAM_PLUS_CODE, _ANY_RULE),
        **frozen.dream_plus_families(
            {
                "selection": {**_TINY_IMAGENET["selection"], **_ANY_RULE["selection"]},
                "pixels": _TINY_IMAGENET["pixels"],
            }
        ),
        **frozen.EASY_FAMILIES,
    },
    idc.USUAL,
)
