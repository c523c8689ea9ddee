"""95 % confidence intervals of means and of fractions."""

import math
import statistics
from collections.abc import Sequence

_TWO_SIDED_95 = 0.975
NORMAL_95 = 1.959964
"""The quantile of the normal distribution for a two-sided interval of 95 %."""


def half_width(values: Sequence[float]) -> float | None:
    """Returns half the width of the 95 % confidence interval of the mean; None for fewer than two values.

    The interval is Student's, which assumes independent values with a normal distribution.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # a quantile of the t distribution; its import takes a tenth of a second

    quantile = float(stdtrit(len(values) - 1, _TWO_SIDED_95))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def wilson_interval(fraction: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval of a probability from the fraction of successes among independent trials.

    Source: Wilson, JASA 22 (1927). Unlike the normal interval it stays within [0, 1].

    Args:
        fraction: In [0, 1].
        count: Number of trials, >= 1.
    """
    squared = NORMAL_95**2
    centre = (fraction + squared / (2 * count)) / (1 + squared / count)
    spread = math.sqrt(fraction * (1 - fraction) / count + squared / (4 * count**2))
    half = NORMAL_95 / (1 + squared / count) * spread
    return max(0.0, centre - half), min(1.0, centre + half)
