"""Tests of the pixel sums."""

import functools
import operator

import numpy as np
from conftest import noise
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.data import statistics
from dream_ray.data.statistics import PixelSums


def test_against_numpy(monkeypatch):
    monkeypatch.setattr(statistics, "_BLOCK_VALUES", 500)
    images = noise(0, 37, 3, 5, 7)
    sums = PixelSums.of(images)
    unit = images / 255
    np.testing.assert_allclose(sums.mean(), unit.mean((0, 2, 3)), rtol=1e-13)
    np.testing.assert_allclose(sums.std(), unit.std((0, 2, 3)), rtol=1e-12)
    assert sums.num_pixels == 37 * 35


def test_no_overflow():
    sums = PixelSums.of(np.full((40, 1, 512, 512), 255, np.uint8))
    assert sums.mean() == (1.0,) and sums.std() == (0.0,)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_merging_in_any_order_gives_the_same_bits(lengths, random):
    images = noise(1, sum(lengths), 2, 2, 2)
    parts = [PixelSums.of(part) for part in np.split(images, np.cumsum(lengths)[:-1])]
    random.shuffle(parts)
    assert functools.reduce(operator.add, parts, PixelSums.zero(2)) == PixelSums.of(images)
