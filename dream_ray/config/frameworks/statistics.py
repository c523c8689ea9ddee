"""Class-wise statistics of batch norms under frozen networks, as LPLD matches them.

Source: SRe2L (Yin et al., NeurIPS 2023, arXiv 2306.13092) for the loss and the optimiser, and the published code of
LPLD (Xiao & He, NeurIPS 2024, arXiv 2410.15919), which takes the statistics of each class instead of those of the whole
set, so that classes are independent. Images start at real crops (RDED), as in EDC and FADRM, and not at noise. Both
move normalised pixels; here pixels in [0, 1] move by the published rate times their standard deviation. They are
clamped at every step, because each is an outer step of its own.
"""

from dream_ray.config.frameworks import frozen
from dream_ray.config.frameworks.base import Family, Framework, convnet, scales_of
from dream_ray.config.frameworks.origins import Layer, Origin, Scale, Settings

_CODE = Origin("published code", "SRe2L and LPLD, recover")
_ON_TINY = Origin("published code", "LPLD, scripts/tiny_recover.sh")
_ON_CIFAR = Origin("by rule", "as SRe2L on CIFAR-100, which shifts images by up to 4 pixels and does not crop them")
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


def _rate(published: float) -> Layer:
    """Returns the rate in [0, 1] of one for normalised pixels."""
    rule = f"{published:g} (LPLD) times the standard deviation of ImageNet's channels, 0.226 on average"
    return Layer(Origin("by rule", rule), {"pixels": {"lr": published * 0.226}})


def _family(data: str, *layers: Layer, note: str = "") -> Family:
    return Family(layers, scales_of(data, frozen.IPCS, USUAL.factor), note)


STATISTICS = Framework(
    "Class-wise statistics",
    "Xiao & He, NeurIPS 2024, arXiv 2410.15919 (LPLD)",
    (
        Layer(_CODE, _STATISTICS),
        _rate(0.25),
        Layer(_START, _EASY),
        Layer(_OURS, frozen.HARD_LABELS),
    ),
    {
        **{data: _family(data, *frozen.shared_layers(data), note=frozen.NOT_RUN) for data in frozen.SUBSETS},
        "cifar10": _family(
            "cifar10",
            Layer(_NETWORK, {"network": convnet(3)}),
            Layer(_ON_CIFAR, {"outer_steps": 1000, "matching": {"augmentation": "crop"}}),
        ),
        "tiny-imagenet": _family(
            "tiny-imagenet",
            *frozen.shared_layers("tiny-imagenet"),
            Layer(_ON_TINY, {"weights": {"feature": 0.05}}),
            _rate(0.1),
            note=frozen.NOT_RUN,
        ),
    },
    USUAL,
    "{scale}-statistics",
)
