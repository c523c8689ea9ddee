"""The space in which synthetic pixels move: [0, 1], or what the networks see.

A step of one size is another step in another space: normalised pixels that move by lr * g move by lr * std^2 * g in
[0, 1], channel by channel. N images, C channels, H, W.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dream_ray.core.images.normalisation import Normalise


class PixelSpace(Protocol):
    """Where synthetic images live, seen from [0, 1] and from the networks."""

    def from_unit(self, images_NCHW: Tensor) -> Tensor:
        """Returns images in [0, 1] as they live here."""
        ...

    def to_unit(self, images_NCHW: Tensor) -> Tensor:
        """Returns images that live here with pixels nominally in [0, 1]."""
        ...

    def to_inputs(self, images_NCHW: Tensor) -> Tensor:
        """Returns decoded images that live here as a network sees them; differentiable."""
        ...

    def from_noise(self, noise_NCHW: Tensor) -> Tensor:
        """Returns standard normal noise as images that live here."""
        ...

    def clamp(self, images_NCHW: Tensor) -> Tensor:
        """Returns the images with pixels that are allowed here."""
        ...


@dataclass(frozen=True)
class UnitPixels:
    """Pixels in [0, 1], clamped (IDC, DREAM, DREAM+); see `PixelSpace`.

    Attributes:
        normalise: From [0, 1] to what the networks see.
    """

    normalise: Normalise

    def from_unit(self, images_NCHW: Tensor) -> Tensor:
        """Returns them."""
        return images_NCHW

    def to_unit(self, images_NCHW: Tensor) -> Tensor:
        """Returns them."""
        return images_NCHW

    def to_inputs(self, images_NCHW: Tensor) -> Tensor:
        """Normalises."""
        return self.normalise(images_NCHW)

    def from_noise(self, noise_NCHW: Tensor) -> Tensor:
        """Returns grey noise: mean 0.5, deviation 0.25, clamped."""
        return self.clamp(noise_NCHW / 4 + 0.5)

    def clamp(self, images_NCHW: Tensor) -> Tensor:
        """Clamps to [0, 1]."""
        return images_NCHW.clamp(0, 1)


@dataclass(frozen=True)
class NormalisedPixels:
    """Pixels as the networks see them, never clamped (DC, DSA, DM, MTT); see `PixelSpace`.

    Attributes:
        normalise: From [0, 1] to what the networks see.
    """

    normalise: Normalise

    def from_unit(self, images_NCHW: Tensor) -> Tensor:
        """Normalises."""
        return self.normalise(images_NCHW)

    def to_unit(self, images_NCHW: Tensor) -> Tensor:
        """Undoes the normalisation; what lies outside of [0, 1] stays there."""
        return self.normalise.inverse(images_NCHW)

    def to_inputs(self, images_NCHW: Tensor) -> Tensor:
        """Returns them."""
        return images_NCHW

    def from_noise(self, noise_NCHW: Tensor) -> Tensor:
        """Returns it."""
        return noise_NCHW

    def clamp(self, images_NCHW: Tensor) -> Tensor:
        """Returns them."""
        return images_NCHW


PIXEL_SPACES: dict[str, Callable[[Normalise], PixelSpace]] = {"unit": UnitPixels, "normalised": NormalisedPixels}
"""By `pixels.space`."""
