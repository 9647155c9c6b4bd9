"""What the order and the shape of a set of values give away: correlation, drift, warm-up, outliers, two modes.

All functions take `values` (n,) float64 in the order in which they were measured, and use numpy only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

# Below this many values neither correlation nor drift can be told from chance.
MIN_ORDERED = 8
# A trend is called drift when chance would show one as clear in one set of a hundred.
DRIFT_ALARM = 0.01
# Values called outliers by chance: one set of normal values in a hundred.
OUTLIER_ALARM = 0.01
# Standard deviation of a normal set whose median (Hampel 1974) or mean absolute deviation is 1.
MAD_TO_SIGMA = 1.4826
MEAN_DEVIATION_TO_SIGMA = 1.2533
# Maximum of standardised rank sums over all beginnings: chance exceeds it about once in a hundred sets.
CHANGE_LIMIT = 3.8
# Distance of two modes in units of the spread within them (Ashman, Bird, Zepf 1994, call 2 the least that can be told;
# the best cut through normal values gives 2.65 and through evenly spread ones 3.46).
MODES_APART = 4.0
MODE_SHARE = 0.1
MODE_VALUES = 4


def sigma(values: Float) -> float:
    """A standard deviation that outliers do not move: from the median absolute deviation.

    Where more than half of the values are equal it is taken from the mean absolute deviation (Iglewicz and Hoaglin,
    How to Detect and Handle Outliers, 1993).
    """
    distance = np.abs(values - np.median(values))
    return MAD_TO_SIGMA * float(np.median(distance)) or MEAN_DEVIATION_TO_SIGMA * float(distance.mean())


def outliers(values: Float) -> NDArray[np.intp]:
    """Indices of values too far from the median for a normal set of this size; shape (k,).

    Iglewicz and Hoaglin cut at 3.5 robust deviations. That finds an outlier in four of ten clean sets of a thousand, so
    the cut grows with n, and for few values, whose robust deviation is itself uncertain, it is wider too.
    """
    n = len(values)
    if n < MIN_ORDERED or (spread := sigma(values)) == 0:
        return np.empty(0, np.intp)
    cut = NormalDist().inv_cdf(1 - OUTLIER_ALARM / (2 * n)) * (1 + 10 / n)
    return np.flatnonzero(np.abs(values - np.median(values)) > max(cut, 3.5) * spread)


def correlation_time(values: Float) -> float:
    """How many neighbouring values say as much as one independent value; at least 1.

    1 + 2 times the sum of autocorrelations, ended where a pair of them is no longer positive (Geyer, Statistical
    Science 7 (1992) 473, initial monotone sequence). A linear trend is no correlation and is taken off first.
    """
    n = len(values)
    if n < MIN_ORDERED:
        return 1.0
    rest = values - np.polyval(np.polyfit(np.linspace(-1, 1, n), values, 1), np.linspace(-1, 1, n))
    scale = float(np.abs(values).max())
    if float(np.abs(rest).max()) <= 1e-12 * scale or scale == 0:
        return 1.0
    rest = rest / np.abs(rest).max()
    size = 1 << (2 * n - 1).bit_length()
    covariance = np.fft.irfft(np.abs(np.fft.rfft(rest, size)) ** 2, size)[:n]
    rho = covariance / covariance[0]
    pairs = rho[0 : n - 1 : 2] + rho[1:n:2]
    ends = np.flatnonzero(pairs <= 0)
    kept = np.minimum.accumulate(pairs[: int(ends[0])] if len(ends) else pairs)
    return float(min(max(2 * kept.sum() - 1, 1.0), n / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """`total` is the change from the first value to the last, `p` how often chance shows a trend as clear."""

    total: float
    p: float


def drift(values: Float) -> Drift | None:
    """A monotone trend, or None where chance explains it.

    Spearman's rank correlation with time (Daniels' test; Conover, Practical Nonparametric Statistics, 5.4), with the
    number of values reduced by their correlation. The size is that of Tukey's resistant line: the medians of the outer
    thirds.
    """
    n = len(values)
    if n < MIN_ORDERED or values.min() == values.max():
        return None
    rank = _ranks(values)
    r = float(np.corrcoef(rank, np.arange(n))[0, 1])
    effective = max(n / correlation_time(values), 4.0)
    # Fisher's z: the normal limit of the t statistic, and on the safe side of it for few values.
    z = math.atanh(min(abs(r), 1 - 1e-15)) * math.sqrt(max(effective - 3, 0.5) / 1.06)
    p = 2 * (1 - NormalDist().cdf(z))
    if p > DRIFT_ALARM:
        return None
    third = n // 3
    rise = float(np.median(values[-third:]) - np.median(values[:third]))
    return Drift(total=rise * (n - 1) / (n - third), p=p)


def warm_up(values: Float) -> int:
    """How many values at the beginning belong to another state than the rest; 0 where there is none.

    Either the set begins with outliers to one side, or a beginning of up to a third of the set has ranks that chance
    does not give it, and what follows no longer drifts.
    """
    n = len(values)
    leading = _leading_outliers(values)
    if n < 2 * MIN_ORDERED:
        return leading
    rank = _ranks(values) - (n + 1) / 2
    k = np.arange(3, n // 3 + 1)
    variance = k * (n - k) * float((rank**2).mean()) / (n - 1)
    if variance[0] == 0:
        return leading
    z = np.abs(np.cumsum(rank)[k - 1]) / np.sqrt(variance)
    best = int(np.argmax(z))
    cut = int(k[best])
    after = values[cut:]
    clear = float(z[best]) > CHANGE_LIMIT * math.sqrt(correlation_time(after))
    return max(leading, cut) if clear and drift(after) is None else leading


def _leading_outliers(values: Float) -> int:
    far = outliers(values)
    side = np.sign(values - np.median(values))
    count = 0
    while count < len(far) and far[count] == count and side[count] == side[0]:
        count += 1
    return count


def skewness_p(values: Float) -> float | None:
    """How often a normal set is as lopsided, two-sided (D'Agostino, Biometrika 57 (1970) 679); None below 8 values."""
    n = len(values)
    centred = values - values.mean()
    variance = float((centred**2).mean())
    if n < MIN_ORDERED or variance <= (1e-12 * float(np.abs(values).max())) ** 2:
        return None
    skew = float((centred**3).mean()) / variance**1.5
    y = skew * math.sqrt((n + 1) * (n + 3) / (6 * (n - 2)))
    beta = 3 * (n**2 + 27 * n - 70) * (n + 1) * (n + 3) / ((n - 2) * (n + 5) * (n + 7) * (n + 9))
    w2 = math.sqrt(2 * (beta - 1)) - 1
    z = math.asinh(y / math.sqrt(2 / (w2 - 1))) / math.sqrt(0.5 * math.log(w2))
    return 2 * (1 - NormalDist().cdf(abs(z)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Modes:
    """Two groups of values: their means, the share of the upper one, their distance in spreads within a group."""

    low: float
    high: float
    upper_share: float
    apart: float


def modes(values: Float) -> Modes | None:
    """Two groups far apart, or None.

    The sorted values are cut where the spread within both parts is least; each part must hold a tenth of the values.
    Ashman's D of the parts then tells two groups from one that was cut in the middle. Values in steps count as spread
    over their step, so that two neighbouring steps of a clock are not two modes. Outliers too few to be a group are
    left out.
    """
    far = outliers(values)
    kept = np.delete(values, far) if len(far) < MODE_SHARE * len(values) else values
    n = len(kept)
    if n < 2 * MIN_ORDERED:
        return None
    x = np.sort(kept) - np.median(kept)
    least = max(MODE_VALUES, math.ceil(MODE_SHARE * n))
    k = np.arange(least, n - least + 1)
    total, square = np.cumsum(x), np.cumsum(x**2)
    within = (square[k - 1] - total[k - 1] ** 2 / k) + (
        square[-1] - square[k - 1] - (total[-1] - total[k - 1]) ** 2 / (n - k)
    )
    cut = int(k[np.argmin(within)])
    low, high = x[:cut], x[cut:]
    steps = np.diff(np.unique(x))
    if not len(steps):
        return None
    step = float(steps.min())
    spread = math.sqrt((float(low.var(ddof=1)) + float(high.var(ddof=1))) / 2 + step**2 / 12)
    apart = float(high.mean() - low.mean()) / spread
    # The best cut through few values looks better than it is.
    if apart <= MODES_APART * (1 + 6 / n):
        return None
    centre = float(np.median(kept))
    return Modes(
        low=float(low.mean()) + centre, high=float(high.mean()) + centre, upper_share=len(high) / n, apart=apart
    )


def _ranks(values: Float) -> Float:
    """Ranks from 1, ties sharing their mean; shape (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    ranks: Float = mean_rank[inverse]
    return ranks
