"""Published settings that several families of frameworks share."""

from dream_ray.config.frameworks.base import Settings

ONE_OF_ALL = "color|crop|cutout|flip|scale|rotate"
"""DSA's augmentation (arXiv 2102.08259): one of its operations a batch."""


def convnet(depth: int = 3) -> Settings:
    """Returns the network of all papers up to 64 px: a ConvNet of width 128 with instance norm."""
    return {"name": "convnet", "options": {"depth": depth, "width": 128, "norm": "instance"}}


def evaluation(*, epochs: int, augmentation: str) -> Settings:
    """Returns the evaluation recipe of DC and of the methods that build on its code."""
    return {
        "epochs": epochs,
        "batch_size": 256,
        "cutmix_probability": 0.0,
        "augmentation": augmentation,
        "lr_decay": 0.1,
        "lr_milestones": [0.5],
    }
