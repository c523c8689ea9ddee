"""The mean and standard deviation by which published code normalises a data set, for pixels in [0, 1].

They are constants of the code, rounded or of another set, and not the statistics of the images: the deviations of
CIFAR-10 are 0.247, 0.243 and 0.262. A step of normalised pixels depends on their square.
"""

from dream_ray.config.frameworks.origins import Settings


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
"""ImageNet and Tiny-ImageNet."""
