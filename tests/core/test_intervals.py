"""Confidence intervals against scipy.stats."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dream_ray.core.intervals import half_width


@given(values=st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_the_interval_is_that_of_the_t_distribution(values: list[float]) -> None:
    mean, scale = sum(values) / len(values), statistics.stdev(values) / len(values) ** 0.5
    expected = (stats.t.interval(0.95, len(values) - 1, mean, scale)[1] - mean) if scale else 0.0
    assert half_width(values) == pytest.approx(expected, abs=1e-9)


def test_one_value_has_no_interval() -> None:
    assert half_width([0.5]) is None
