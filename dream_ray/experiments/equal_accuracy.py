"""How many times fewer steps an arm needs than a reference for the same accuracy, as a function of the accuracy.

A curve is the mean of its seeds, made monotone by least squares (isotonic regression), and linear between points.
An arm needs n(a): the first x at which its curve is at least a. x is a number of inner steps or CPU seconds. If a curve
begins at or above a, or stays below it, n(a) has only bounds. The interval of the ratio n_reference(a) / n_arm(a) is
that of a percentile bootstrap over the seeds of both arms.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dream_ray.core import rng

FLAT = 0.005
"""A curve has reached its end if it gains less over its last third; a fraction of accuracy."""
_DRAWS = 2000
_TAILS = (0.025, 0.975)
Bounds = tuple[float, float]
"""Smallest and largest possible value."""


@dataclass(frozen=True)
class Curves:
    """The curves of the seeds of an arm.

    Attributes:
        xs_SP: Steps or seconds of S seeds at P points, ascending, float64.
        accuracies_SP: Accuracies in [0, 1].
    """

    xs_SP: np.ndarray
    accuracies_SP: np.ndarray


@dataclass(frozen=True)
class Ratio:
    """The comparison of an arm with the reference at one accuracy.

    Attributes:
        target: Accuracy a in (0, 1).
        reference: Bounds of n_reference(a); equal if the curve crosses a.
        arm: Bounds of n_arm(a).
        ratio: Bounds of n_reference(a) / n_arm(a).
        interval: Its 95 % interval over seeds; 0 to infinity if an arm has a single seed.
    """

    target: float
    reference: Bounds
    arm: Bounds
    ratio: Bounds
    interval: Bounds


def compare(reference: Curves, arm: Curves, targets: Sequence[float], *, seed: int = 0) -> list[Ratio]:
    """Compares two arms at some accuracies.

    Args:
        reference: Curves of the reference.
        arm: Curves of the other arm; its points may be others.
        targets: Accuracies in (0, 1).
        seed: Seed of the bootstrap.
    """
    draws_BT2 = _bootstrap_ratios(reference, arm, targets, rng.stream(seed, "bootstrap-equal-accuracy"))
    found = []
    for number, target in enumerate(targets):
        of_reference, of_arm = needed(reference, target), needed(arm, target)
        interval = _interval(draws_BT2[:, number])
        if min(len(reference.xs_SP), len(arm.xs_SP)) < 2:
            interval = (0.0, math.inf)
        found.append(Ratio(target, of_reference, of_arm, divide(of_reference, of_arm), interval))
    return found


def _interval(bounds_B2: np.ndarray) -> Bounds:
    """Returns the lower quantile of the lower bounds and the upper one of the upper bounds, which may be infinite."""
    # Nothing is interpolated: infinity minus infinity is no number.
    low = np.quantile(bounds_B2[:, 0], _TAILS[0], method="lower")
    high = np.quantile(bounds_B2[:, 1], _TAILS[1], method="higher")
    return (float(low), float(high))


def _bootstrap_ratios(
    reference: Curves, arm: Curves, targets: Sequence[float], generator: np.random.Generator
) -> np.ndarray:
    """Returns the bounds (B, T, 2) of the ratio at T targets in B draws of seeds with replacement."""
    drawn = []
    for curves in (reference, arm):
        num_seeds = len(curves.xs_SP)
        picks_BS = generator.integers(num_seeds, size=(_DRAWS, num_seeds))
        means = [Curves(curves.xs_SP[picks_S], curves.accuracies_SP[picks_S]) for picks_S in picks_BS]
        drawn.append([_needed_at(mean, targets) for mean in means])
    return np.array(
        [
            [divide(of_reference, of_arm) for of_reference, of_arm in zip(*one, strict=True)]
            for one in zip(*drawn, strict=True)
        ]
    )


def needed(curves: Curves, target: float) -> Bounds:
    """Returns the bounds of n(target) on the monotone mean curve."""
    return _needed_at(curves, (target,))[0]


def _needed_at(curves: Curves, targets: Sequence[float]) -> list[Bounds]:
    xs_P, curve_P = curves.xs_SP.mean(axis=0), monotone(curves.accuracies_SP.mean(axis=0))
    return [_crossing(xs_P, curve_P, target) for target in targets]


def _crossing(xs_P: np.ndarray, curve_P: np.ndarray, target: float) -> Bounds:
    """Returns the bounds of the first x at which a monotone curve is at least `target`."""
    after = int(np.searchsorted(curve_P, target))
    if after == 0:
        return (0.0, float(xs_P[0]))
    if after == len(curve_P):
        return (float(xs_P[-1]), math.inf)
    rise = curve_P[after] - curve_P[after - 1]
    share = (target - curve_P[after - 1]) / rise
    x = float(xs_P[after - 1] + share * (xs_P[after] - xs_P[after - 1]))
    return (x, x)


def divide(numerator: Bounds, denominator: Bounds) -> Bounds:
    """Returns the bounds of the quotient of two numbers >= 0, given their bounds."""
    low = math.inf if denominator[1] == 0 else numerator[0] / denominator[1]
    high = math.inf if denominator[0] == 0 else numerator[1] / denominator[0]
    return (low if numerator[0] > 0 else 0.0, high)


def monotone(values_P: np.ndarray) -> np.ndarray:
    """Returns the non-decreasing sequence with the least squared distance to a sequence."""
    from sklearn.isotonic import isotonic_regression  # its import takes longer than the commands that do not compare

    found: np.ndarray = isotonic_regression(values_P)
    return found


def gain_of_last_third(curves: Curves) -> float:
    """Returns the rise of the monotone mean curve over the last third of x, in [0, 1]."""
    xs_P, curve_P = curves.xs_SP.mean(axis=0), monotone(curves.accuracies_SP.mean(axis=0))
    return float(curve_P[-1] - np.interp(xs_P[-1] * 2 / 3, xs_P, curve_P))
