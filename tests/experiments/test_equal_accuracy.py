"""Equal accuracy against slow, obvious code."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dream_ray.core import rng
from dream_ray.experiments.equal_accuracy import Bounds, Curves, compare, divide, gain_of_last_third, monotone, needed

ACCURACIES = st.lists(st.integers(0, 20), min_size=2, max_size=8)


def slow_monotone(values: list[float]) -> list[float]:
    """The oracle: the min-max formula of isotonic regression."""
    n = len(values)
    return [max(min(sum(values[j : k + 1]) / (k + 1 - j) for k in range(i, n)) for j in range(i + 1)) for i in range(n)]


def slow_needed(xs: list[list[float]], accuracies: list[list[float]], target: float) -> Bounds:
    """The oracle: walks along the mean curve from point to point."""
    seeds = len(xs)
    mean_xs = [sum(column) / seeds for column in zip(*xs, strict=True)]
    curve = slow_monotone([sum(column) / seeds for column in zip(*accuracies, strict=True)])
    if curve[0] >= target:
        return (0.0, mean_xs[0])
    for i in range(1, len(curve)):
        if curve[i] >= target:
            x = mean_xs[i - 1] + (target - curve[i - 1]) / (curve[i] - curve[i - 1]) * (mean_xs[i] - mean_xs[i - 1])
            return (x, x)
    return (mean_xs[-1], math.inf)


@given(values=ACCURACIES)
def test_the_monotone_curve_is_the_isotonic_regression(values: list[int]) -> None:
    found = monotone(np.array(values, dtype=float))
    assert found.tolist() == pytest.approx(slow_monotone([float(value) for value in values]))


@given(data=st.data(), num_seeds=st.integers(1, 3), num_points=st.integers(2, 6))
def test_n_is_where_the_mean_curve_reaches_the_target(data: st.DataObject, num_seeds: int, num_points: int) -> None:
    rows = st.lists(st.floats(0, 1), min_size=num_points, max_size=num_points)
    accuracies = data.draw(st.lists(rows, min_size=num_seeds, max_size=num_seeds))
    xs = [[float(i * (seed + 1)) for i in range(num_points)] for seed in range(num_seeds)]
    target = data.draw(st.floats(0.05, 0.95))
    found = needed(Curves(np.array(xs), np.array(accuracies)), target)
    # Within rounding of a point of the curve, either side of it is right.
    expected = {slow_needed(xs, accuracies, target + error) for error in (-1e-9, 0.0, 1e-9)}
    assert any(found == pytest.approx(one, abs=1e-5) for one in expected)


def test_bounds_of_a_ratio() -> None:
    assert divide((6, 6), (2, 2)) == (3, 3)
    assert divide((30, math.inf), (2, 2)) == (15, math.inf), "the reference never reached the target"
    assert divide((6, 6), (10, math.inf)) == (0, 0.6), "the arm never did"
    assert divide((30, math.inf), (10, math.inf)) == (0, math.inf)
    assert divide((6, 6), (0, 0)) == (math.inf, math.inf), "the arm began at the target"
    assert divide((0, 0), (0, 0)) == (0, math.inf)
    assert divide((0, 2), (4, 4)) == (0, 0.5)


def curves(steps: list[float], *accuracies: list[float]) -> Curves:
    return Curves(np.array([steps] * len(accuracies)), np.array(accuracies))


SLOW = curves([0, 10, 20, 40], [0.1, 0.2, 0.35, 0.5], [0.1, 0.25, 0.3, 0.45], [0.05, 0.2, 0.4, 0.5])
FAST = curves([0, 5, 10], [0.2, 0.4, 0.5], [0.15, 0.45, 0.4])


def test_the_interval_is_that_of_a_bootstrap_over_seeds() -> None:
    targets = (0.18, 0.3, 0.45, 0.49)
    generator = rng.stream(3, "bootstrap-equal-accuracy")
    picks = [generator.integers(len(one.xs_SP), size=(2000, len(one.xs_SP))) for one in (SLOW, FAST)]
    for target, ratio in zip(targets, compare(SLOW, FAST, targets, seed=3), strict=True):
        lows, highs = [], []
        for of_slow, of_fast in zip(*picks, strict=True):
            bounds = [
                slow_needed(
                    [one.xs_SP[i].tolist() for i in chosen], [one.accuracies_SP[i].tolist() for i in chosen], target
                )
                for one, chosen in ((SLOW, of_slow), (FAST, of_fast))
            ]
            low, high = divide(*bounds)
            lows.append(low)
            highs.append(high)
        # 0.025 * 1999 = 49.975: the order statistics at or outside of it.
        assert ratio.interval == pytest.approx((sorted(lows)[49], sorted(highs)[1950]))
        assert ratio.interval[0] <= ratio.ratio[0] and ratio.ratio[1] <= ratio.interval[1]


def test_a_target_that_nobody_reaches_has_bounds() -> None:
    (ratio,) = compare(SLOW, FAST, (0.48,))
    assert ratio.reference[0] == ratio.reference[1] == pytest.approx(39.0, abs=1.5)
    assert ratio.arm == (10, math.inf)
    assert ratio.ratio[0] == 0 and ratio.ratio[1] == pytest.approx(ratio.reference[0] / 10)
    (ratio,) = compare(FAST, SLOW, (0.48,))
    assert ratio.ratio[1] == math.inf and ratio.interval[1] == math.inf


def test_equal_arms_have_ratio_one() -> None:
    (ratio,) = compare(SLOW, SLOW, (0.3,))
    assert ratio.ratio == (1, 1) and ratio.interval[0] < 1 < ratio.interval[1]


def test_a_single_seed_says_nothing_about_the_interval() -> None:
    one = Curves(SLOW.xs_SP[:1], SLOW.accuracies_SP[:1])
    (ratio,) = compare(one, FAST, (0.3,))
    assert ratio.interval == (0, math.inf) and 0 < ratio.ratio[0] == ratio.ratio[1] < math.inf


def test_the_gain_of_the_last_third_is_read_off_the_monotone_curve() -> None:
    assert gain_of_last_third(curves([0, 20, 30], [0.1, 0.4, 0.45])) == pytest.approx(0.05)
    assert gain_of_last_third(curves([0, 20, 30], [0.1, 0.4, 0.3])) == pytest.approx(0.0)
