"""Multi-formation: one stored image is an f x f mosaic that decodes into f^2 training images.

Source: IDC (Kim et al., ICML 2022, arXiv 2205.14959), section 4. N stored images, C channels, side H = W, factor f.
Decoded images are ordered tile by tile (row-major), and within a tile by stored image.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DECODE_MODES = ("single", "multi", "bound")


def tile_side(side: int, factor: int) -> int:
    """Returns the side of one tile in pixels, ceil(side / factor)."""
    return math.ceil(side / factor)


def fills_every_tile(side: int, factor: int) -> bool:
    """Returns whether each tile contains a part of the image; otherwise the last tiles are padding only."""
    return (factor - 1) * tile_side(side, factor) < side


def decode_factor(images_NCHW: Tensor, factor: int) -> Tensor:
    """Cuts every image into factor^2 tiles and upsamples each to the full size (bilinear).

    Args:
        images_NCHW: Stored images, float, any range, square.
        factor: Tiles per side, f >= 1. If f does not divide the side, 0.5 is padded right and bottom first.

    Returns:
        (N * factor^2, C, H, W) images.
    """
    if factor == 1:
        return images_NCHW
    n, channels, height, width = images_NCHW.shape
    side = tile_side(height, factor)
    missing = side * factor - height
    if missing:
        images_NCHW = F.pad(images_NCHW, (0, missing, 0, missing), value=0.5)
    tiles = images_NCHW.reshape(n, channels, factor, side, factor, side).permute(2, 4, 0, 1, 3, 5)
    tiles = tiles.reshape(factor * factor * n, channels, side, side)
    return F.interpolate(tiles, size=(height, width), mode="bilinear", align_corners=False)


def bound_schedule(num_stored: int, factor: int, bound: int) -> list[tuple[int, range]]:
    """Splits stored images over factors so that the decoded count stays within `bound`.

    IDC's rule: from the largest factor down, each factor decodes as many images as fit if all others count once; factor
    1 takes the rest. The rule is not optimal: sometimes one more image would fit.

    Returns:
        [(factor, consecutive stored images)], from the largest factor down; together all images.
    """
    schedule = []
    first, decoded = 0, 0
    for f in range(factor, 0, -1):
        remaining = num_stored - first
        free = bound - decoded - remaining
        count = remaining if f == 1 else max(0, min(free // f**2, remaining))
        schedule.append((f, range(first, first + count)))
        first += count
        decoded += count * f**2
        if first == num_stored:
            break
    return schedule


def decode_schedule(num_stored: int, factor: int, mode: str, bound: int) -> list[tuple[int, range]]:
    """Returns [(factor, stored images that it decodes)] in the order of `decode`, whose arguments it takes."""
    if mode == "bound":
        return bound_schedule(num_stored, factor, bound)
    assert mode in DECODE_MODES, mode
    return [(f, range(num_stored)) for f in range(factor if mode == "single" else 1, factor + 1)]


def decode(images_NCHW: Tensor, factor: int, mode: str, bound: int) -> Tensor:
    """Decodes stored images into training images.

    Args:
        images_NCHW: Stored images, float.
        factor: f >= 1.
        mode: "single" (factor f only), "multi" (factors 1..f together) or "bound" (see `bound_schedule`).
        bound: Largest decoded count, for mode "bound" only.

    Returns:
        (M, C, H, W) images with M = `decoded_count(N, factor, mode, bound)`.
    """
    if mode == "single":
        return decode_factor(images_NCHW, factor)
    schedule = decode_schedule(len(images_NCHW), factor, mode, bound)
    if mode == "multi":  # without slices, which change the order in which autograd sums the gradients
        return torch.cat([decode_factor(images_NCHW, f) for f, _ in schedule])
    return torch.cat([decode_factor(images_NCHW[stored.start : stored.stop], f) for f, stored in schedule])


def decoded_factors(num_stored: int, factor: int, mode: str, bound: int) -> list[int]:
    """Returns the factors that `decode` uses, ascending."""
    return sorted(f for f, stored in decode_schedule(num_stored, factor, mode, bound) if stored)


def decoded_count(num_stored: int, factor: int, mode: str, bound: int) -> int:
    """Returns the number of training images that `decode` returns for `num_stored` images."""
    return sum(len(stored) * f**2 for f, stored in decode_schedule(num_stored, factor, mode, bound))


def compose(images_NCHW: Tensor, factor: int) -> Tensor:
    """Shrinks factor^2 images into each mosaic (nearest), on the tile grid of `decode_factor`.

    If f does not divide the side, the published code composes on another grid, and its first decoded images are mixed.

    Args:
        images_NCHW: (M * factor^2, C, H, W) images, tile by tile as `decode_factor` orders them.
        factor: f >= 1.

    Returns:
        (M, C, H, W) mosaics; if f does not divide the side, the last tiles lose their outermost pixels.
    """
    if factor == 1:
        return images_NCHW
    total, channels, height, width = images_NCHW.shape
    side = tile_side(height, factor)
    tiles = F.interpolate(images_NCHW, size=(side, side), mode="nearest")
    tiles = tiles.reshape(factor, factor, total // factor**2, channels, side, side).permute(2, 3, 0, 4, 1, 5)
    mosaics = tiles.reshape(total // factor**2, channels, factor * side, factor * side)
    return mosaics[:, :, :height, :width].contiguous()
