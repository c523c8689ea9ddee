"""ZCA whitening of images, the input of MTT's networks for small images.

Source: MTT (Cazenavette et al., CVPR 2022, arXiv 2203.11932), whose code calls kornia: images in [0, 1] as
vectors x with mean m and covariance U diag(s) U^T (n - 1 in its denominator) become W (x - m),
W = U diag(s + eps)^(-1/2) U^T with eps = 0.1. The rotation back by U preserves the image structure.
N images, C channels, H, W; D = C * H * W numbers of an image.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_FULL_SCALE = 255
EPS = 0.1


@dataclass(frozen=True)
class ImageMoments:
    """First and second moments of uint8 images.

    The sums are integers below 2^53 for more than 10^11 images, so float64 holds them exactly. They are bit-equal for
    any batches and any order of the images.

    Attributes:
        num_images: N.
        sums_D: Sum of every number, float64.
        products_DD: Sum of the products of every two numbers of an image, float64.
    """

    num_images: int
    sums_D: Tensor
    products_DD: Tensor

    @classmethod
    def of(cls, batches: Iterable[np.ndarray], size: int) -> "ImageMoments":
        """Computes the moments of images; memory holds one D x D matrix and one batch.

        Args:
            batches: uint8 images (n, C, H, W).
            size: D.
        """
        num_images = 0
        sums_D, products_DD = (torch.zeros(shape, dtype=torch.float64) for shape in ((size,), (size, size)))
        for batch_NCHW in batches:
            assert batch_NCHW.dtype == np.uint8, batch_NCHW.dtype
            images_ND = torch.from_numpy(batch_NCHW.reshape(len(batch_NCHW), size)).double()
            num_images += len(images_ND)
            sums_D += images_ND.sum(dim=0)
            products_DD.addmm_(images_ND.T, images_ND)
        return cls(num_images, sums_D, products_DD)

    def mean(self) -> Tensor:
        """Returns the mean image (D,) of pixels scaled to [0, 1], float64."""
        return self.sums_D / (self.num_images * _FULL_SCALE)

    def covariance(self) -> Tensor:
        """Returns the covariance (D, D) of pixels scaled to [0, 1], unbiased, float64; of at least two images."""
        assert self.num_images > 1, f"a covariance needs two images; got {self.num_images}"
        of_means_DD = torch.outer(self.sums_D / self.num_images, self.sums_D)
        return of_means_DD.neg_().add_(self.products_DD).div_((self.num_images - 1) * _FULL_SCALE**2)


@dataclass(frozen=True)
class Whitening:
    """Removes the correlations between the pixels of images in [0, 1]; `inverse` restores them.

    Attributes:
        mean_D: Mean image m, float32.
        whiten_DD: W, symmetric, float32.
        colour_DD: Its inverse, symmetric, float32.
    """

    mean_D: Tensor
    whiten_DD: Tensor
    colour_DD: Tensor

    @classmethod
    def fit(cls, moments: ImageMoments, device: torch.device, *, eps: float = EPS) -> "Whitening":
        """Fits the whitening to the moments of the real images, by an eigendecomposition in float64 on the CPU.

        Args:
            moments: Of at least two images.
            device: Device of the result.
            eps: Added to every variance, > 0; limits the gain of directions with a small variance.
        """
        assert eps > 0, eps
        variances_D, directions_DD = torch.linalg.eigh(moments.covariance())
        scales_D = (variances_D.clamp(min=0) + eps).sqrt()  # some are 0 up to rounding if N < D
        whiten_DD, colour_DD = ((directions_DD * by) @ directions_DD.T for by in (1 / scales_D, scales_D))
        return cls(*(found.float().to(device) for found in (moments.mean(), whiten_DD, colour_DD)))

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
