"""From stored bytes to network inputs: uint8 -> [0, 1] -> (x - mean) / std, or ZCA-whitened.

N images, C channels, H, W; D = C * H * W numbers of an image.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dream_ray.core.transfer import to_device

_FULL_SCALE = 255
EPS = 0.1


def unit(images_NCHW: Tensor) -> Tensor:
    """Returns uint8 images as float32 in [0, 1]; float images, which are in [0, 1], unchanged."""
    return images_NCHW if images_NCHW.is_floating_point() else images_NCHW.float() / _FULL_SCALE


def to_unit(images_NCHW: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Moves uint8 images to the device and returns them as float32 in [0, 1]."""
    return unit(to_device(images_NCHW, device))


@dataclass(frozen=True)
class Normalisation:
    """Per-channel normalisation of images in [0, 1].

    Attributes:
        mean_1C11: Mean, float32.
        std_1C11: Standard deviation, float32, > 0.
    """

    mean_1C11: Tensor
    std_1C11: Tensor

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], device: torch.device) -> "Normalisation":
        """Builds it from one number per channel; a constant channel is not divided."""
        shape = (1, -1, 1, 1)
        divisors = torch.tensor([one or 1.0 for one in std], device=device)
        return cls(torch.tensor(mean, device=device).reshape(shape), divisors.reshape(shape))

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        return self.mean_1C11.device

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Returns the normalised images."""
        return (images_NCHW - self.mean_1C11) / self.std_1C11

    def inverse(self, inputs_NCHW: Tensor) -> Tensor:
        """Returns the images of normalised inputs, not clamped."""
        return inputs_NCHW * self.std_1C11 + self.mean_1C11


def mean_and_covariance(batches: Iterable[np.ndarray], size: int) -> tuple[Tensor, Tensor]:
    """Computes the moments of uint8 images; memory holds two D x D matrices and one batch.

    The sums are integers below 2^53 for more than 10^11 images, so float64 holds them exactly. The results are
    bit-equal for any batches and any order of the images.

    Args:
        batches: uint8 images (n, C, H, W), together at least two.
        size: D.

    Returns:
        The mean image (D,) and the unbiased covariance (D, D) of pixels scaled to [0, 1], float64.
    """
    num_images = 0
    sums_D, products_DD = (torch.zeros(shape, dtype=torch.float64) for shape in ((size,), (size, size)))
    for batch_NCHW in batches:
        images_ND = torch.from_numpy(batch_NCHW.reshape(len(batch_NCHW), size)).double()
        num_images += len(images_ND)
        sums_D += images_ND.sum(dim=0)
        products_DD.addmm_(images_ND.T, images_ND)
    assert num_images > 1, f"a covariance needs two images; got {num_images}"
    of_means_DD = torch.outer(sums_D / num_images, sums_D)
    covariance_DD = of_means_DD.neg_().add_(products_DD).div_((num_images - 1) * _FULL_SCALE**2)
    return sums_D / (num_images * _FULL_SCALE), covariance_DD


@dataclass(frozen=True)
class Whitening:
    """ZCA whitening, which removes the correlations between the pixels of images in [0, 1].

    Source: MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932), whose code calls kornia: images as vectors x with
    mean m and covariance U diag(s) U^T (n - 1 in its denominator) become W (x - m), W = U diag(s + eps)^(-1/2) U^T
    with eps = 0.1. The rotation back by U preserves the image structure.

    Attributes:
        mean_D: Mean image m, float32.
        whiten_DD: W, symmetric, float32.
        colour_DD: Its inverse, symmetric, float32.
    """

    mean_D: Tensor
    whiten_DD: Tensor
    colour_DD: Tensor

    @classmethod
    def fit(cls, batches: Iterable[np.ndarray], size: int, *, eps: float = EPS) -> "Whitening":
        """Fits the whitening to the real images, by an eigendecomposition in float64 on the CPU.

        Args:
            batches: uint8 images (n, C, H, W), together at least two.
            size: D.
            eps: Added to every variance, > 0; limits the gain of directions with a small variance.
        """
        mean_D, covariance_DD = mean_and_covariance(batches, size)
        variances_D, directions_DD = torch.linalg.eigh(covariance_DD)
        scales_D = (variances_D.clamp(min=0) + eps).sqrt()  # some are 0 up to rounding if N < D
        whiten_DD, colour_DD = ((directions_DD * by) @ directions_DD.T for by in (1 / scales_D, scales_D))
        return cls(mean_D.float(), whiten_DD.float(), colour_DD.float())

    @property
    def device(self) -> torch.device:
        """Device of the inputs."""
        return self.mean_D.device

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Returns the whitened images."""
        return ((images_NCHW.flatten(1) - self.mean_D) @ self.whiten_DD).reshape(images_NCHW.shape)

    def inverse(self, inputs_NCHW: Tensor) -> Tensor:
        """Returns the images of whitened inputs, not clamped."""
        return (inputs_NCHW.flatten(1) @ self.colour_DD + self.mean_D).reshape(inputs_NCHW.shape)


Normalise = Normalisation | Whitening
"""Maps images in [0, 1] to network inputs, channel by channel or by ZCA."""
