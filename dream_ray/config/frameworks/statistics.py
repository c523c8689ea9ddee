"""Class-wise statistics of batch norms under frozen networks, as LPLD matches them.

Source: SRe2L (Yin et al., NeurIPS 2023, arXiv 2306.13092) for the loss and the optimiser, and the published code of
LPLD (Xiao & He, NeurIPS 2024, arXiv 2410.15919), which takes the statistics of each class instead of those of the whole
set, so that classes are independent. Images start at real crops (RDED), as in EDC and FADRM, and not at noise. SRe2L
moves normalised pixels by 0.25; here pixels in [0, 1] move by 0.25 times their standard deviation. They are clamped at
every step, because each is an outer step of its own.
"""

from dream_ray.config.frameworks import frozen
from dream_ray.config.frameworks.base import Family, Framework, convnet, scales_of
from dream_ray.config.frameworks.origins import Layer, Origin, Scale, Settings

_CODE = Origin("published code", "SRe2L and LPLD, recover")
_RULE = Origin("by rule", "0.25 (LPLD) times the standard deviation of ImageNet's channels, 0.226 on average")
_START = Origin("published code", "RDED: 5 crops of 300 images, the best of each")
_OURS = Origin("ours", "LPLD evaluates with soft labels; the recipe of IDC for hard ones")
_NETWORK = Origin("ours", "the network of evaluations; LPLD evaluates with ResNet-18")

_STATISTICS: Settings = {
    "outer_steps": 4000,
    "inner_steps": 1,
    "decode": "single",
    "batch_synthetic_max": frozen.ALL_TILES,
    "weights": {"feature": 0.01, "gradient": 0.0, "label": 1.0},
    "matching": {"objective": "bidirectional", "pairing": "statistics", "augmentation": "flip_resize"},
    "pixels": {
        "optimizer": "adamw",
        "betas": [0.5, 0.9],
        "schedule": "cosine",
        "space": "unit",
    },
    "source": {"kind": "frozen"},
}
_EASY: Settings = {
    "initialisation": {"strategy": "easy", "score": "cross_entropy", "candidates": 300, "crops": 5},
}
USUAL = Scale(10, 1)


def _family(data: str, *layers: Layer, note: str = "") -> Family:
    return Family(layers, scales_of(data, frozen.IPCS, USUAL.factor), note)


STATISTICS = Framework(
    "Class-wise statistics",
    "Xiao & He, NeurIPS 2024, arXiv 2410.15919 (LPLD)",
    (
        Layer(_CODE, _STATISTICS),
        Layer(_RULE, {"pixels": {"lr": 0.25 * 0.226}}),
        Layer(_START, _EASY),
        Layer(_OURS, frozen.HARD_LABELS),
    ),
    {
        "cifar10": _family("cifar10", Layer(_NETWORK, {"network": convnet(3)})),
        **{
            data: _family(data, *frozen.shared_layers(data), note=frozen.NOT_RUN)
            for data in (*frozen.SUBSETS, "tiny-imagenet")
        },
    },
    USUAL,
    "{scale}-statistics",
)
