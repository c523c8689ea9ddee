"""Confidence intervals of means."""

import math
import statistics
from collections.abc import Sequence

_TWO_SIDED_95 = 0.975


def half_width(values: Sequence[float]) -> float | None:
    """Returns half the width of the 95 % confidence interval of the mean; None for fewer than two values.

    The interval is Student's, which assumes independent values with a normal distribution.
    """
    if len(values) < 2:
        return None
    from scipy.special import stdtrit  # a quantile of the t distribution; its import takes a tenth of a second

    quantile = float(stdtrit(len(values) - 1, _TWO_SIDED_95))
    return quantile * statistics.stdev(values) / math.sqrt(len(values))
