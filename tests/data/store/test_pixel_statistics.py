"""Tests of the pixel sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.data.store import statistics
from dream_ray.data.store.statistics import mean_and_std, pixel_sums
from tests.data.samples import noise


def test_against_numpy():
    images = noise(0, 37, 3, 5, 7)
    sums_3C = pixel_sums(images)
    mean, std = mean_and_std(sums_3C)
    unit = images / 255
    np.testing.assert_allclose(mean, unit.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(std, unit.std((0, 2, 3)), rtol=1e-12)
    assert (sums_3C[0] == 37 * 35).all()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 51), (16, 16), (257, 1), (50, 40), (224, 224)])
@pytest.mark.parametrize("cached", [1, 3000, 1 << 16])
def test_integer_arithmetic(height, width, cached, monkeypatch):
    monkeypatch.setattr(statistics, "_CACHED_VALUES", cached)
    images = noise(2, 3, 2, height, width)
    wide = images.astype(object)
    expected = [[3 * height * width] * 2, wide.sum((0, 2, 3)).tolist(), (wide**2).sum((0, 2, 3)).tolist()]
    assert pixel_sums(images).tolist() == expected


def test_no_overflow():
    sums_3C = pixel_sums(np.full((1, 1, 4096, 4096), 255, np.uint8))
    assert mean_and_std(sums_3C) == ((1.0,), (0.0,))
    assert mean_and_std(sums_3C * (10**14 // 4096**2)) == ((1.0,), (0.0,))


@given(st.integers(1, 6), st.randoms(use_true_random=False))
def test_merging_in_any_order_gives_the_same_bits(count, random):
    images = noise(1, count, 2, 2, 2)
    parts = [pixel_sums(image[None]) for image in images]
    random.shuffle(parts)
    assert np.array_equal(sum(parts), pixel_sums(images))
