"""How much larger one set of values is than another, without a shape of either: order statistics of all the ratios."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from joulemeter.physics import series

Float = NDArray[np.float64]

# Up to this many pairs the rank distribution is counted out; beyond it is normal to three digits.
EXACT_PAIRS = 1600
# Up to this many ratios are sorted; beyond they are only counted.
SORTED_PAIRS = 1_000_000
TAIL = 0.025
NORMAL_TAIL = 1.959964
# Normal quantile beyond which a trend counts: chance shows one as clear in half of all sets. One that is missed costs a
# false alarm, one too many only width.
TREND_QUANTILE = 0.674


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """`middle` is the median of all ratios of a new value to an old one; [low, high] holds the ratio with 95 %."""

    middle: float
    low: float
    high: float


def ratio(new: Float, old: Float) -> Ratio | None:
    """New over old, both (n,) float64 above 0 in the order measured; None where too few values reach 95 %.

    The interval is that of Hodges and Lehmann (Annals of Mathematical Statistics 34 (1963) 598) for the shift of the
    logarithms, from the distribution of Mann and Whitney's U: exact for independent values of any one shape. Neighbours
    that are alike make it wider by the root of their correlation time. A trend moves the median of its set by up to
    half of its total against where it began or will end; so much is added on either side.
    """
    m, n = len(new), len(old)
    if not m or not n or min(new.min(), old.min()) <= 0:
        return None
    rank = _rank(m, n)
    if rank < 1:
        return None
    low, middle, high = _ordered(np.sort(new), np.sort(old), rank)
    times = series.correlation_time(new) / m + series.correlation_time(old) / n
    wider = math.sqrt(times / (1 / m + 1 / n))
    drifted = (trend(new) + trend(old)) / 2
    return Ratio(
        middle=middle,
        low=middle * math.exp(wider * math.log(low / middle) - drifted),
        high=middle * math.exp(wider * math.log(high / middle) + drifted),
    )


def trend(values: Float) -> float:
    """Size of a trend from the first value to the last, as a share of the median; 0 where none is likely.

    Spearman's rank correlation with time decides, the medians of the outer thirds give the size (Tukey's line).
    """
    n = len(values)
    if n < 4 or values.min() == values.max():
        return 0.0
    ordered = np.sort(values)
    rank = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    r = float(np.corrcoef(rank, np.arange(n))[0, 1])
    independent = n / series.correlation_time(values)
    z = math.atanh(min(abs(r), 1 - 1e-15)) * math.sqrt(max(independent - 3, 0.5) / 1.06)
    if z < TREND_QUANTILE:
        return 0.0
    third = n // 3
    rise = float(np.median(values[-third:]) - np.median(values[:third]))
    return abs(rise) * (n - 1) / (n - third) / float(np.median(values))


def _rank(m: int, n: int) -> int:
    """The largest k for which fewer than k pairs are out of order in at most 2.5 % of cases; 0: there is none."""
    if m * n > EXACT_PAIRS:
        return math.floor(m * n / 2 - NORMAL_TAIL * math.sqrt(m * n * (m + n + 1) / 12) + 0.5)
    return _exact_rank(min(m, n), max(m, n))


@lru_cache(maxsize=256)
def _exact_rank(m: int, n: int) -> int:
    """The same counted out: U of m and n values has the generating function prod (1 - q^(n+i)) / (1 - q^i), i to m."""
    counts = [1] + [0] * (m * n)
    for i in range(1, m + 1):
        for at in range(m * n, n + i - 1, -1):
            counts[at] -= counts[at - n - i]
        for at in range(i, m * n + 1):
            counts[at] += counts[at - i]
    allowed, below, rank = TAIL * math.comb(m + n, m), 0, 0
    while (below := below + counts[rank]) <= allowed:
        rank += 1
    return rank


def _ordered(new: Float, old: Float, rank: int) -> tuple[float, float, float]:
    """The ratio of that rank, the middle one, and the one of that rank from above; both sets sorted."""
    pairs = len(new) * len(old)
    if pairs <= SORTED_PAIRS:
        ratios = np.sort(np.divide.outer(new, old), axis=None)
        return float(ratios[rank - 1]), float(np.median(ratios)), float(ratios[pairs - rank])
    low, middle, high = (_counted(new, old, k) for k in (rank, (pairs + 1) // 2, pairs + 1 - rank))
    return low, middle, high


def _counted(new: Float, old: Float, rank: int) -> float:
    """The ratio of that rank of too many to hold: the least that as many are not above."""
    low, high = float(new[0] / old[-1]), float(new[-1] / old[0])
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high
        if int(np.searchsorted(new, old * middle, side="right").sum()) < rank:
            low = middle
        else:
            high = middle
