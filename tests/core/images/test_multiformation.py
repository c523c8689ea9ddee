"""Decode against a loop over pixels, and compose against decode."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dream_ray.core.images.decode_schedule import (
    bound_schedule,
    decoded_count,
    decoded_factors,
    fills_every_tile,
    tile_side,
)
from dream_ray.core.images.multiformation import compose, decode, decode_factor


def _bilinear(tile: Tensor, side: int) -> Tensor:
    """Upsamples a (h, h) tile to (side, side), pixel by pixel, pixel centres at half integers."""
    scale = len(tile) / side
    result = torch.empty(side, side)
    for i in range(side):
        for j in range(side):
            y, x = (max((p + 0.5) * scale - 0.5, 0.0) for p in (i, j))
            top, left = int(y), int(x)
            bottom, right = (min(p + 1, len(tile) - 1) for p in (top, left))
            upper = tile[top, left] * (1 - (x - left)) + tile[top, right] * (x - left)
            lower = tile[bottom, left] * (1 - (x - left)) + tile[bottom, right] * (x - left)
            result[i, j] = upper * (1 - (y - top)) + lower * (y - top)
    return result


@pytest.mark.parametrize(("side", "factor"), [(6, 2), (7, 2), (8, 3), (5, 5)])
def test_decode_equals_a_loop_over_pixels(side: int, factor: int) -> None:
    images = torch.linspace(0, 1, 2 * side * side).reshape(2, 1, side, side).sin()
    size = tile_side(side, factor)
    padded = torch.full((2, 1, size * factor, size * factor), 0.5)
    padded[:, :, :side, :side] = images
    expected = [
        _bilinear(padded[n, 0, i * size : (i + 1) * size, j * size : (j + 1) * size], side)
        for i in range(factor)
        for j in range(factor)
        for n in range(2)
    ]
    assert torch.allclose(decode_factor(images, factor)[:, 0], torch.stack(expected), atol=1e-5)


@settings(max_examples=20)
@given(a=st.floats(-2, 2), factor=st.integers(1, 3), mode=st.sampled_from(["single", "multi", "bound"]))
def test_decode_is_linear_where_nothing_is_padded(a: float, factor: int, mode: str) -> None:
    x, y = torch.rand(2, 3, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    combined = decode(a * x + y, factor, mode, 8)
    assert torch.allclose(combined, a * decode(x, factor, mode, 8) + decode(y, factor, mode, 8), atol=1e-4)


def test_the_gradient_of_multi_sums_the_factors_in_one_order() -> None:
    """Another order, as of slices of the images, changes the bits of a synthetic set."""
    images, weights = torch.rand(2, 1, 8, 8), torch.randn(28, 1, 8, 8)

    def loss(images: Tensor) -> Tensor:
        return (decode(images, 3, "multi", 0) * weights).sum()

    def by_hand(images: Tensor) -> Tensor:
        return (torch.cat([decode_factor(images, f) for f in (1, 2, 3)]) * weights).sum()

    assert torch.equal(torch.func.grad(loss)(images), torch.func.grad(by_hand)(images))


@pytest.mark.parametrize(("side", "factor"), [(8, 2), (9, 2), (28, 3), (7, 3)])
def test_each_tile_of_a_mosaic_decodes_to_its_own_image(side: int, factor: int) -> None:
    count = 2 * factor**2
    values = torch.arange(1.0, count + 1)
    images = values.reshape(-1, 1, 1, 1).expand(-1, 1, side, side)
    mosaics = compose(images, factor)
    assert mosaics.shape == (2, 1, side, side)
    # The first pixel of a tile is its own image's; the last tiles may end in padding.
    assert torch.allclose(decode_factor(mosaics, factor)[:, 0, 0, 0], values)


@given(num_stored=st.integers(1, 200), factor=st.integers(1, 5), bound=st.integers(1, 300))
def test_bound_uses_every_image_once_and_keeps_the_bound_if_it_can(num_stored: int, factor: int, bound: int) -> None:
    schedule = bound_schedule(num_stored, factor, bound)
    assert [image for _, stored in schedule for image in stored] == list(range(num_stored))
    decoded = decoded_count(num_stored, factor, "bound", bound)
    assert decoded <= max(bound, num_stored)
    assert decoded == sum(len(stored) * f**2 for f, stored in schedule)


@pytest.mark.parametrize("side", [7, 8, 9, 28])
def test_a_factor_fills_every_tile_or_decodes_padding_alone(side: int) -> None:
    for factor in range(1, side + 1):
        images = torch.rand(1, 1, side, side) / 4  # no pixel is near the grey of the padding
        is_grey = decode_factor(images, factor).isclose(torch.tensor(0.5)).flatten(1).all(1)
        assert fills_every_tile(side, factor) == (not is_grey.any()), factor
    assert not fills_every_tile(side, side + 1)


@pytest.mark.parametrize(
    ("num_stored", "mode", "bound", "expected"),
    [(2, "single", 1, [4]), (2, "multi", 1, [1, 2, 3, 4]), (2, "bound", 128, [4]), (10, "bound", 30, [1, 2, 4])],
)
def test_decoded_factors(num_stored: int, mode: str, bound: int, expected: list[int]) -> None:
    assert decoded_factors(num_stored, 4, mode, bound) == expected


def test_tile_side_rounds_up() -> None:
    assert [tile_side(side, 3) for side in (7, 8, 9)] == [math.ceil(side / 3) for side in (7, 8, 9)]
