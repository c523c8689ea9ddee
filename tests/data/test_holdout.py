"""Tests of the keyed choice of held-out images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.data.holdout import held_out


@given(st.integers(0, 200), st.floats(0, 0.999))
def test_counts(num_images, fraction):
    chosen = held_out("validation", "cat", num_images, fraction)
    assert len(chosen) == num_images
    assert abs(int(chosen.sum()) - fraction * num_images) < 1 + 1e-9 and chosen.sum() <= fraction * num_images + 1e-9


@pytest.mark.parametrize(("fraction", "count"), [(0.29, 29), (0.1, 10), (0.0, 0), (0.999, 99)])
def test_fractions_are_decimal(fraction, count):
    assert held_out("validation", "cat", 100, fraction).sum() == count


def test_the_choice_is_fixed():
    assert np.flatnonzero(held_out("validation", "cat", 12, 0.25)).tolist() == [0, 3, 6]


def test_the_choice_is_keyed():
    base = held_out("validation", "cat", 100, 0.5)
    assert not np.array_equal(base, held_out("validation", "dog", 100, 0.5))
    assert not np.array_equal(base, held_out("test", "cat", 100, 0.5))
