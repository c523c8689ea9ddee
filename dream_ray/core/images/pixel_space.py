"""The space in which synthetic pixels move: [0, 1], or normalised network inputs.

The same step size differs between the spaces: normalised pixels that move by lr * g move by lr * std^2 * g in [0, 1],
channel by channel. N images, C channels, H, W.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from dream_ray.core.images.normalisation import Normalise

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PixelSpace:
    """Maps between stored synthetic images, pixels in [0, 1] and network inputs; all images are (N, C, H, W).

    Attributes:
        from_unit: Pixels in [0, 1] -> stored images.
        to_unit: Stored images -> pixels nominally in [0, 1].
        to_inputs: Decoded stored images -> network inputs; differentiable.
        from_noise: Standard normal noise -> stored images.
        clamp: Stored images -> stored images within the allowed range.
    """

    from_unit: Map
    to_unit: Map
    to_inputs: Map
    from_noise: Map
    clamp: Map


def _unchanged(images_NCHW: Tensor) -> Tensor:
    return images_NCHW


def unit_pixels(normalise: Normalise) -> PixelSpace:
    """Returns the space [0, 1], clamped (IDC, DREAM, DREAM+); noise is grey, with mean 0.5 and deviation 0.25."""

    def clamp(images_NCHW: Tensor) -> Tensor:
        return images_NCHW.clamp(0, 1)

    return PixelSpace(_unchanged, _unchanged, normalise, lambda noise_NCHW: clamp(noise_NCHW / 4 + 0.5), clamp)


def normalised_pixels(normalise: Normalise) -> PixelSpace:
    """Returns the space of network inputs, never clamped (DC, DSA, DM, MTT); in [0, 1] its images may lie outside."""
    return PixelSpace(normalise, normalise.inverse, _unchanged, _unchanged, _unchanged)


PIXEL_SPACES: dict[str, Callable[[Normalise], PixelSpace]] = {"unit": unit_pixels, "normalised": normalised_pixels}
"""By `pixels.space`."""
