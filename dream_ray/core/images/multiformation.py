"""Multi-formation: one stored image is an f x f mosaic that decodes into f^2 training images.

Source: IDC (Kim et al., ICML 2022, arXiv 2205.14959), section 4. N stored images, C channels, side H = W, factor f.
Decoded images are ordered tile by tile (row-major), and within a tile by stored image.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dream_ray.core.images.decode_schedule import decode_schedule, tile_side


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
    _, _, height, width = images_NCHW.shape
    side = tile_side(height, factor)
    return arrange(F.interpolate(images_NCHW, size=(side, side), mode="nearest"), factor, (height, width))


def arrange(tiles_NCHW: Tensor, factor: int, size: tuple[int, int]) -> Tensor:
    """Puts tiles into mosaics.

    Args:
        tiles_NCHW: (M * factor^2, C, side, side) tiles, tile by tile as `decode_factor` orders them; side ceil(H / f).
        factor: f >= 1.
        size: H and W.

    Returns:
        (M, C, H, W) mosaics; if f does not divide the side, the last tiles lose their outermost pixels.
    """
    total, channels, side, _ = tiles_NCHW.shape
    height, width = size
    tiles = tiles_NCHW.reshape(factor, factor, total // factor**2, channels, side, side).permute(2, 3, 0, 4, 1, 5)
    mosaics = tiles.reshape(total // factor**2, channels, factor * side, factor * side)
    return mosaics[:, :, :height, :width].contiguous()
