"""Differentiable Siamese augmentation (DSA): sample parameters once, then apply them to any batch.

`sample_params` draws on the host, `view_of` moves a draw to the device, and `augment` applies it: a function of tensors
that reads no value on the host, so a compiler or `torch.func.vmap` can take it whole.

Source: DSA (Zhao & Bilen, ICML 2021, arXiv 2102.08259), which draws one of its operations ("color|crop|cutout"), and
IDC's variant (arXiv 2205.14959), which applies several ("color_crop_cutout"): flip, then colour (brightness,
saturation, contrast), then one operation drawn from those of {crop, scale, rotate} that the strategy lists, then
cutout. SRe2L (arXiv 2306.13092) augments by random resized crops (resize). Images are normalised before. L classes, N
images, C channels, H, W; P = 1 (one draw for the whole batch, so that real and synthetic images of a class step see the
same) or P = N (one draw per image).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.augmentation_strategy import parse_strategy
from dream_ray.core.images.random_crops import sample_crops
from dream_ray.core.transfer import to_device

_ONE_OF = ("crop", "scale", "rotate")
_COLOURS = ("brightness", "saturation", "contrast")

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
row and column of the square that is set to zero. resize: (P, 2, 3) matrices of `sample_crops`.
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
    if "resize" in names:
        drawn["resize"] = sample_crops(num_draws, rng)
    if "color" in names:
        for colour in _COLOURS:
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


View = dict[str, Tensor]
"""A draw on the device: the parameters of every operation, in the order of their application.

flip, brightness, saturation, contrast: (P, 1). crop, cutout: (P, 2), as in `AugmentParams`. scale: (P, 2). rotate:
(P, 2), cosine and sine. resize: (P, 6), a matrix. One more column tells whether the operation is applied, if some draws
lack it.
"""


def view_of(params: AugmentParams, device: torch.device, dtype: torch.dtype = torch.float32) -> View:
    """Moves a draw to the device, in one copy."""
    columns = {operation: _columns(operation, values) for operation, values in params.items()}
    return _split(columns, device, dtype)


def views_of(draws: Sequence[AugmentParams], device: torch.device, strategy: str | None = None) -> View:
    """Moves the draws of L classes, with P = 1 each, to the device, in one copy.

    Args:
        draws: Draws of the classes.
        device: The device.
        strategy: Strategy of the draws, so that the shapes depend on nothing else; None: only the operations that some
            class has drawn are applied.

    Returns:
        Parameters (L, 1, ...) of every operation.
    """
    possible = [frozenset(draw) for draw in draws] if strategy is None else _possible(strategy)
    columns = {}
    for operation in _OPERATIONS:
        is_drawn = [operation in one for one in possible]
        if any(is_drawn):
            nothing, width = np.zeros(_WIDTHS[operation] + 1), _WIDTHS[operation] + (not all(is_drawn))
            rows = [
                np.append(_columns(operation, draw[operation])[0], 1.0) if operation in draw else nothing
                for draw in draws
            ]
            columns[operation] = np.stack(rows)[:, None, :width]
    return _split(columns, device, torch.float32)


def _possible(strategy: str) -> list[frozenset[str]]:
    """Returns every set of operations that a strategy can draw."""
    possible: list[frozenset[str]] = []
    for names in parse_strategy(strategy):
        fixed = (names & {"flip", "resize", "cutout"}) | frozenset(_COLOURS if "color" in names else ())
        possible += [fixed | {chosen} for chosen in _ONE_OF if chosen in names] or [fixed]
    return possible


def _columns(operation: str, values: np.ndarray) -> np.ndarray:
    """Returns the parameters (P, width) of an operation."""
    if operation == "rotate":
        return np.stack([np.cos(values), np.sin(values)], axis=1)
    return values.reshape(len(values), _WIDTHS[operation])


def _split(columns: dict[str, np.ndarray], device: torch.device, dtype: torch.dtype) -> View:
    if not columns:
        return {}
    packed = to_device(np.concatenate(list(columns.values()), axis=-1), device, dtype)
    parts = torch.split(packed, [values.shape[-1] for values in columns.values()], dim=-1)
    return dict(zip(columns, parts, strict=True))


def augment(images_NCHW: Tensor, view: View) -> Tensor:
    """Applies one draw to a batch; differentiable in the images.

    Args:
        images_NCHW: Normalised images, float.
        view: A draw with P = 1 or P = N.

    Returns:
        Augmented images of the same shape.
    """
    for operation, values in view.items():
        width = _WIDTHS[operation]
        changed = _OPERATIONS[operation](images_NCHW, values[:, :width])
        has_flag = values.shape[1] > width
        images_NCHW = torch.where(_column(values[:, width]) > 0, changed, images_NCHW) if has_flag else changed
    return images_NCHW


def _column(values_P: Tensor) -> Tensor:
    return values_P.reshape(-1, 1, 1, 1)


def _flip(x: Tensor, flips: Tensor) -> Tensor:
    return torch.where(_column(flips) > 0, x.flip(3), x)


def _brightness(x: Tensor, u: Tensor) -> Tensor:
    return x + (_column(u) - 0.5) * BRIGHTNESS


def _saturation(x: Tensor, u: Tensor) -> Tensor:
    grey = x.mean(dim=1, keepdim=True)
    return (x - grey) * (_column(u) * SATURATION) + grey


def _contrast(x: Tensor, u: Tensor) -> Tensor:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (x - mean) * (_column(u) + CONTRAST) + mean


def _crop(x: Tensor, shifts: Tensor) -> Tensor:
    """Shifts by whole pixels and fills with zeros."""
    n, channels, height, width = x.shape
    padded = F.pad(x, (1, 1, 1, 1))  # shifted-out positions read the border of zeros

    def positions(side: int, shift: Tensor) -> Tensor:
        return (torch.arange(1, side + 1, device=x.device) + shift).clamp(0, side + 1).long()

    rows = positions(height, shifts[:, :1])[:, None, :, None].expand(n, channels, height, width + 2)
    columns = positions(width, shifts[:, 1:])[:, None, None, :].expand(n, channels, height, width)
    return padded.gather(2, rows).gather(3, columns)


def _resize(x: Tensor, matrices: Tensor) -> Tensor:
    return warp(x, matrices.reshape(-1, 2, 3), padding_mode="reflection")


def _scale(x: Tensor, factors: Tensor) -> Tensor:
    horizontal, vertical = factors.unbind(dim=1)
    zeros = torch.zeros_like(horizontal)
    return warp(x, _matrices([horizontal, zeros, zeros], [zeros, vertical, zeros]))


def _rotate(x: Tensor, angles: Tensor) -> Tensor:
    cos, sin = angles.unbind(dim=1)
    zeros = torch.zeros_like(cos)
    return warp(x, _matrices([cos, -sin, zeros], [sin, cos, zeros]))


def _matrices(*rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)


def warp(x: Tensor, matrices_P23: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Samples images (N, C, H, W) on an affine grid.

    Args:
        x: Images.
        matrices_P23: Matrices from output to input positions in [-1, 1]; P = 1 or P = N.
        padding_mode: See `torch.nn.functional.grid_sample`.
    """
    height, width = x.shape[2:]
    vertical, horizontal = (
        (2 * torch.arange(side, device=x.device, dtype=x.dtype) + 1) / side - 1 for side in (height, width)
    )
    # Not by `affine_grid`, which `torch.func.vmap` cannot batch.
    by_x, by_y, shift = matrices_P23[:, None, None].unbind(dim=4)
    grid = by_x * horizontal[:, None] + by_y * vertical[:, None, None] + shift
    return F.grid_sample(x, grid.expand(len(x), -1, -1, -1), padding_mode=padding_mode, align_corners=False)


def _cutout(x: Tensor, centres: Tensor) -> Tensor:
    def outside(side: int, centre: Tensor) -> Tensor:
        size = int(side * CUTOUT_FRACTION + 0.5)
        start = centre - size // 2
        position = torch.arange(side, device=x.device)
        return (position < start) | (position >= start + size)

    rows = outside(x.shape[2], centres[:, :1])[:, None, :, None]
    columns = outside(x.shape[3], centres[:, 1:])[:, None, None, :]
    return x * (rows | columns)


_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "flip": _flip,
    "resize": _resize,
    "brightness": _brightness,
    "saturation": _saturation,
    "contrast": _contrast,
    "crop": _crop,
    "scale": _scale,
    "rotate": _rotate,
    "cutout": _cutout,
}
_WIDTHS = dict.fromkeys(_OPERATIONS, 1) | {"crop": 2, "scale": 2, "rotate": 2, "cutout": 2, "resize": 6}
