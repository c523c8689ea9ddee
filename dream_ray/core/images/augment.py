"""Differentiable Siamese augmentation (DSA): sample parameters once, then apply them to any batch.

Source: DSA (Zhao & Bilen, ICML 2021, arXiv 2102.08259), which draws one of its operations ("color|crop|cutout"), and
IDC's variant (arXiv 2205.14959), which applies several ("color_crop_cutout"): flip, then colour (brightness,
saturation, contrast), then one operation drawn from those of {crop, scale, rotate} that the strategy lists, then
cutout. Images are normalised before. N images, C channels, H, W; P = 1 (one draw for the whole batch, so that real and
synthetic images of a class step see the same) or P = N (one draw per image).
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.augmentation_strategy import parse_strategy
from dream_ray.core.transfer import to_device

_ONE_OF = ("crop", "scale", "rotate")

FLIP_PROBABILITY = 0.5
BRIGHTNESS = 1.0
SATURATION = 2.0
CONTRAST = 0.5
CROP_FRACTION = 0.125
SCALE_MAX = 1.2
ROTATE_MAX_DEGREES = 15.0
CUTOUT_FRACTION = 0.5


AugmentParams = Mapping[str, np.ndarray]
"""One draw of the augmentation: the parameters of its operations, in the order of their application.

flip: (P,) bool, mirror left-right. brightness, saturation, contrast: (P,) u in [0, 1). crop: (P, 2) int, shift of rows
and columns in pixels. scale: (P, 2) zoom factors of x and y. rotate: (P,) angle in radians. cutout: (P, 2) int, centre
row and column of the square that is set to zero.
"""


def sample_params(
    strategy: str, rng: np.random.Generator, *, height: int, width: int, num_draws: int = 1
) -> AugmentParams:
    """Draws augmentation parameters.

    Args:
        strategy: Operations joined by "_" or "|", see `parse_strategy`.
        rng: Stream to draw from.
        height: Image height in pixels.
        width: Image width in pixels.
        num_draws: P; 1 for Siamese use, the batch size for one draw per image.
    """
    alternatives = parse_strategy(strategy)
    # A single alternative draws nothing.
    names = alternatives[int(rng.integers(len(alternatives)))] if len(alternatives) > 1 else alternatives[0]
    drawn: dict[str, np.ndarray] = {}
    if "flip" in names:
        drawn["flip"] = rng.random(num_draws) < FLIP_PROBABILITY
    if "color" in names:
        for colour in ("brightness", "saturation", "contrast"):
            drawn[colour] = rng.random(num_draws)
    candidates = [name for name in _ONE_OF if name in names]
    if candidates:
        chosen = candidates[int(rng.integers(len(candidates)))]
        drawn[chosen] = _SAMPLERS[chosen](rng, height, width, num_draws)
    if "cutout" in names:
        # Odd squares have one possible centre fewer, as in the published code.
        sizes = [int(side * CUTOUT_FRACTION + 0.5) for side in (height, width)]
        tops = [side + 1 - size % 2 for side, size in zip((height, width), sizes, strict=True)]
        drawn["cutout"] = rng.integers(0, tops, size=(num_draws, 2))
    return drawn


def _sample_crop(rng: np.random.Generator, height: int, width: int, num_draws: int) -> np.ndarray:
    limits = np.array([int(height * CROP_FRACTION + 0.5), int(width * CROP_FRACTION + 0.5)])
    return rng.integers(-limits, limits + 1, size=(num_draws, 2))


def scale_factor(u: np.ndarray) -> np.ndarray:
    """Maps u in [0, 1) to a zoom factor in [1 / 1.2, 1.2)."""
    return u * (SCALE_MAX - 1 / SCALE_MAX) + 1 / SCALE_MAX


def rotation_angle(u: np.ndarray) -> np.ndarray:
    """Maps u in [0, 1) to an angle within +-15 degrees, in radians."""
    return np.deg2rad((u - 0.5) * 2 * ROTATE_MAX_DEGREES)


_SAMPLERS: dict[str, Callable[[np.random.Generator, int, int, int], np.ndarray]] = {
    "crop": _sample_crop,
    "scale": lambda rng, height, width, num_draws: scale_factor(rng.random((num_draws, 2))),
    "rotate": lambda rng, height, width, num_draws: rotation_angle(rng.random(num_draws)),
}


def augment(images_NCHW: Tensor, params: AugmentParams) -> Tensor:
    """Applies one draw to a batch; differentiable in the images.

    Args:
        images_NCHW: Normalised images, float.
        params: A draw with P = 1 or P = N.

    Returns:
        Augmented images of the same shape.
    """
    for operation, values in params.items():
        images_NCHW = _OPERATIONS[operation](images_NCHW, values)
    return images_NCHW


def _flip(x: Tensor, flips: np.ndarray) -> Tensor:
    if len(flips) == 1:
        return x.flip(3) if flips[0] else x
    return torch.where(to_device(flips, x.device).reshape(-1, 1, 1, 1), x.flip(3), x)


def _column(values: np.ndarray, x: Tensor) -> Tensor:
    return to_device(values, x.device, x.dtype).reshape(-1, 1, 1, 1)


def _brightness(x: Tensor, u: np.ndarray) -> Tensor:
    return x + (_column(u, x) - 0.5) * BRIGHTNESS


def _saturation(x: Tensor, u: np.ndarray) -> Tensor:
    grey = x.mean(dim=1, keepdim=True)
    return (x - grey) * (_column(u, x) * SATURATION) + grey


def _contrast(x: Tensor, u: np.ndarray) -> Tensor:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (_column(u, x) + CONTRAST) + mean


def _crop(x: Tensor, shifts: np.ndarray) -> Tensor:
    """Shifts by whole pixels and fills with zeros."""
    if len(shifts) == 1:
        down, right = (int(shift) for shift in shifts[0])
        return F.pad(x, (-right, right, -down, down))
    n, channels, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))  # shifted-out positions read the border of zeros

    def positions(side: int, shift: np.ndarray) -> Tensor:
        index = np.clip(np.arange(side)[None, :] + shift[:, None] + 1, 0, side + 1)
        return to_device(index, x.device)

    rows = positions(height, shifts[:, 0])[:, None, :, None].expand(n, channels, height, width + 2)
    columns = positions(width, shifts[:, 1])[:, None, None, :].expand(n, channels, height, width)
    return padded.gather(2, rows).gather(3, columns)


def _scale(x: Tensor, factors: np.ndarray) -> Tensor:
    zeros = np.zeros(len(factors))
    return warp(x, [[factors[:, 0], zeros, zeros], [zeros, factors[:, 1], zeros]])


def _rotate(x: Tensor, angles: np.ndarray) -> Tensor:
    cos, sin, zeros = np.cos(angles), np.sin(angles), np.zeros(len(angles))
    return warp(x, [[cos, -sin, zeros], [sin, cos, zeros]])


def warp(x: Tensor, theta: list[list[np.ndarray]], padding_mode: str = "zeros") -> Tensor:
    """Samples images (N, C, H, W) on an affine grid.

    Args:
        x: Images.
        theta: The 2 x 3 entries of the matrices from output to input positions in [-1, 1], each (P,).
        padding_mode: See `torch.nn.functional.grid_sample`.
    """
    entries = np.stack([np.stack(row, axis=-1) for row in theta], axis=1)
    matrices = to_device(entries, x.device, x.dtype).expand(len(x), 2, 3)
    grid = F.affine_grid(matrices, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode=padding_mode, align_corners=False)


def _cutout(x: Tensor, centres: np.ndarray) -> Tensor:
    def outside(side: int, centre: np.ndarray) -> Tensor:
        size = int(side * CUTOUT_FRACTION + 0.5)
        start = (centre - size // 2)[:, None]
        position = np.arange(side)[None, :]
        return to_device((position < start) | (position >= start + size), x.device)

    rows = outside(x.shape[2], centres[:, 0])[:, None, :, None]
    columns = outside(x.shape[3], centres[:, 1])[:, None, None, :]
    return x * (rows | columns)


_OPERATIONS: dict[str, Callable[[Tensor, np.ndarray], Tensor]] = {
    "flip": _flip,
    "brightness": _brightness,
    "saturation": _saturation,
    "contrast": _contrast,
    "crop": _crop,
    "scale": _scale,
    "rotate": _rotate,
    "cutout": _cutout,
}
