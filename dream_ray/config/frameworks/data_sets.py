"""The image sets of published settings: their images, and how published code normalises them.

Mean and standard deviation are for pixels in [0, 1]. They are constants of the code, rounded or of another set, and not
the statistics of the images: the deviations of CIFAR-10 are 0.247, 0.243 and 0.262. A step of normalised pixels depends
on their square.
"""

from typing import NamedTuple

from dream_ray.config.frameworks.origins import Settings


class ImageSet(NamedTuple):
    """The images that settings were published for."""

    classes: int
    side: int
    channels: int

    def __str__(self) -> str:
        return f"{self.classes} classes of {self.channels} x {self.side} x {self.side} images"


IMAGE_SETS = {
    "mnist": ImageSet(10, 28, 1),
    "fashion-mnist": ImageSet(10, 28, 1),
    "svhn": ImageSet(10, 32, 3),
    "cifar10": ImageSet(10, 32, 3),
    "cifar100": ImageSet(100, 32, 3),
    "tiny-imagenet": ImageSet(200, 64, 3),
    "imagenet10": ImageSet(10, 224, 3),
    "imagenet100": ImageSet(100, 224, 3),
    "imagenet1k": ImageSet(1000, 224, 3),
}
"""By the names of the families. Settings of ours, such as those of smoke, are for any images."""

TRAIN_IMAGES = {"imagenet1k": 1_281_167, "imagenet100": 128_100, "imagenet10": 12_810}
"""Training images of ImageNet-1K, and about as many per class of its subsets."""


def _normalised_by(mean: list[float], std: list[float]) -> Settings:
    return {"data": {"normalisation": {"mean": mean, "std": std}}}


CIFAR10 = _normalised_by([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
"""DC's, MTT's and IDC's code for CIFAR-10; MTT's and IDC's for CIFAR-100 too."""
CIFAR100 = _normalised_by([0.5071, 0.4866, 0.4409], [0.2673, 0.2564, 0.2762])
"""DC's code for CIFAR-100."""
SVHN = _normalised_by([0.4377, 0.4438, 0.4728], [0.1980, 0.2010, 0.1970])
MNIST = _normalised_by([0.1307], [0.3081])
FASHION_MNIST = _normalised_by([0.2861], [0.3530])
IMAGENET = _normalised_by([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
"""ImageNet and Tiny-ImageNet; also the normalisation of torchvision's networks."""
