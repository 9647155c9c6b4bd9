"""Summaries that keep what they summarise: no scatter from one value, an interval for the median without a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.physics import series
from joulemeter.units import show

# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom (any table of the t distribution).
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

# The standard error of a normal sample's median is larger than the mean's by sqrt(pi / 2).
_MEDIAN_FACTOR = math.sqrt(math.pi / 2)


# Correlation of neighbours that costs less than this share of the values is not told from chance by an interval of
# whole ranks.
CORRELATED = 0.8
# Least number of values for a distribution-free interval of the median at 95 %.
MIN_FOR_MEDIAN = 6
# A set is called lopsided when chance gives a normal one its skewness in one set of a hundred and one tail is so much
# longer than the other.
SKEW_ALARM = 0.01
SKEW_RATIO = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """`stdev`, `ci95`, `u_median` and `dof` are None where there are too few values to know.

    `effective` is how many independent values say as much as these, `drift` the change from the first to the last,
    None where chance explains it. `u_median` is the standard uncertainty of the median with both in it, never less than
    `stdev` alone would give; `dof` are its effective degrees of freedom.
    """

    count: int
    median: float
    mean: float
    stdev: float | None
    min: float
    max: float
    p5: float | None
    p95: float | None
    p99: float | None
    ci95: tuple[float, float] | None
    ci95_method: str | None
    u_median: float | None
    dof: float | None = None
    effective: float | None = None
    drift: float | None = None


def summarise(values: Sequence[float]) -> Spread:
    """`values` (n,), n >= 1, in the order measured. Percentiles interpolate between order statistics (Hyndman-Fan 7).

    A drift is no scatter: repeating does not average it out. Its value within the measurement is rectangular over its
    total, and that much is added to `u_median` and to the interval.
    """
    measured = np.asarray(values, dtype=np.float64)
    ordered = np.sort(measured)
    n = len(ordered)
    if n == 0:
        raise ValueError("no values to summarise")
    median, mean = float(np.median(ordered)), math.fsum(ordered.tolist()) / n
    if n == 1:
        return Spread(
            count=1, median=median, mean=mean, min=mean, max=mean, stdev=None, p5=None, p95=None, p99=None, ci95=None,
            ci95_method=None, u_median=None,
        )  # fmt: skip
    stdev = math.sqrt(math.fsum(((ordered - mean) ** 2).tolist()) / (n - 1))
    effective = n / series.correlation_time(measured)
    trend = series.drift(measured)
    u_drift = 0.0 if trend is None else abs(trend.total) / math.sqrt(12)
    u_random = _MEDIAN_FACTOR * stdev / math.sqrt(effective)
    u_median = math.hypot(u_random, u_drift)
    ci95, method = median_interval(ordered.tolist(), effective)
    if trend is not None and ci95 is not None:
        below, above = (math.hypot(edge - median, 1.96 * u_drift) for edge in ci95)
        ci95, method = (median - below, median + above), f"{method}, drift"
    p5, p95, p99 = (float(p) for p in np.quantile(ordered, [0.05, 0.95, 0.99]))
    dof = max(effective - 1, 1.0)
    return Spread(
        count=n,
        median=median,
        mean=mean,
        stdev=stdev,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        p5=p5,
        p95=p95,
        p99=p99,
        ci95=ci95,
        ci95_method=method,
        u_median=u_median,
        # Welch-Satterthwaite: the drift's bounds are taken as known.
        dof=dof * (u_median / u_random) ** 4 if u_random else dof,
        effective=effective,
        drift=None if trend is None else trend.total,
    )


def median_interval(
    ordered: Sequence[float], effective: float | None = None
) -> tuple[tuple[float, float] | None, str | None]:
    """95 % interval of the median from sorted values, of which `effective` are independent (None: all).

    From six values on: order statistics k and n+1-k with the largest k for which the binomial(n, 1/2) tail stays
    within 2.5 % on each side (distribution-free; Conover, Practical Nonparametric Statistics, 3.2). From two to five
    values no order statistics reach 95 %, so Student's t about the mean is used and said. With fewer independent values
    than values, the ranks are those of the normal limit for the independent ones.
    """
    n = len(ordered)
    if n < 2:
        return None, None
    if n < MIN_FOR_MEDIAN:
        mean = math.fsum(ordered) / n
        stdev = math.sqrt(math.fsum((x - mean) ** 2 for x in ordered) / (n - 1))
        half = t95(n - 1) * stdev / math.sqrt(n)
        return (mean - half, mean + half), "mean, Student t"
    if effective is not None and effective < CORRELATED * n:
        k = max(1, math.floor(n * (1 - 1.959964 / math.sqrt(effective)) / 2))
        return (ordered[k - 1], ordered[n - k]), "median, order statistics, correlated"
    if n > 1000:
        # The binomial's normal limit; exact tails overflow no float but take long for millions of windows.
        k = max(1, math.floor((n - 1.959964 * math.sqrt(n)) / 2))
    else:
        k, tail, below = 0, 0.5**n, 0.5**n
        while tail <= 0.025:
            k += 1
            below *= (n - k + 1) / k
            tail += below
    return (ordered[k - 1], ordered[n - k]), "median, order statistics"


def needed(values: Sequence[float], target: float) -> int | None:
    """How many more values until the 95 % interval of the median lies within `target` (a ratio) of it; 0: reached.

    None where nobody can tell: from one value, around a median of zero, or under a drift, which repeating keeps.
    The interval narrows with the root of the number of values; the answer is as good as this interval is, about
    ±30 % from twenty values.
    """
    spread = summarise(values)
    wanted = target * abs(spread.median)
    if spread.ci95 is None or spread.stdev is None or spread.effective is None or wanted <= 0:
        return None
    reached = max(abs(edge - spread.median) for edge in spread.ci95)
    if reached <= wanted:
        return 0
    fixed = 0.0 if spread.drift is None else 1.96 * abs(spread.drift) / math.sqrt(12)
    if fixed >= wanted:
        return None
    if spread.count >= 20:
        # Half of the interval is steadier than its longer side; in the long run they are the same.
        half = math.sqrt(max(((spread.ci95[1] - spread.ci95[0]) / 2) ** 2 - fixed**2, 0.0))
    else:
        # Order statistics of few values jump; the normal limit of the same interval does not.
        half = 1.959964 * _MEDIAN_FACTOR * spread.stdev / math.sqrt(spread.effective)
    total = max(spread.count * half**2 / (wanted**2 - fixed**2), MIN_FOR_MEDIAN)
    return max(math.ceil(total) - spread.count, 1)


def inspect(values: Sequence[float], unit: str = "") -> tuple[Caveat, ...]:
    """What `values` (n,), in the order measured, give reason to doubt. `unit` is for the texts."""
    measured = np.asarray(values, dtype=np.float64)
    found = (_outliers(measured, unit), _skewed(measured, unit), _bimodal(measured, unit), _unsteady(measured, unit))
    return tuple(caveat for caveat in found if caveat is not None)


def _outliers(values: series.Float, unit: str) -> Caveat | None:
    far = series.outliers(values)
    if not len(far):
        return None
    median = float(np.median(values))
    furthest = float(values[far[np.argmax(np.abs(values[far] - median))]])
    return note(
        Code.OUTLIERS,
        f"{len(far)} of {len(values)} windows lie too far from the median to be its scatter; the furthest is "
        f"{show(furthest, unit)} against {show(median, unit)}. Mean and stdev move with them, the median does not. "
        "Look at them in windows.csv; close other programs, or mask interrupts on the board.",
        indices=far.tolist(),
        furthest=furthest,
    )


def _skewed(values: series.Float, unit: str) -> Caveat | None:
    p = series.skewness_p(values)
    mean = float(values.mean())
    below, above = mean - float(values.min()), float(values.max()) - mean
    if p is None or p > SKEW_ALARM or max(above, below) < SKEW_RATIO * min(above, below):
        return None
    sigmas = max(above, below) / float(values.std(ddof=1))
    return note(
        Code.SKEWED,
        f"The windows are lopsided: mean - min is {show(below, unit, 3)}, max - mean is {show(above, unit, 3)} "
        f"({sigmas:.0f} sigma). A mean ± sigma hides this and reaches values that never occurred. Quote the median "
        "with its interval, and the percentiles.",
        below=below,
        above=above,
        sigmas=sigmas,
    )


def _bimodal(values: series.Float, unit: str) -> Caveat | None:
    modes = series.modes(values)
    if modes is None:
        return None
    return doubt(
        Code.BIMODAL,
        f"The windows fall into two groups, around {show(modes.low, unit)} and {show(modes.high, unit)} "
        f"({modes.upper_share:.0%} in the upper one). The median belongs to the larger group and says nothing of the "
        "other. Find what alternates (input, cache, clock step, a timer's interrupt) and measure both by themselves.",
        low=modes.low,
        high=modes.high,
        upper_share=modes.upper_share,
    )


def _unsteady(values: series.Float, unit: str) -> Caveat | None:
    first = series.warm_up(values)
    if first:
        before, after = float(np.median(values[:first])), float(np.median(values[first:]))
        return doubt(
            Code.WARM_UP,
            f"The first {first} windows differ from the rest: {show(before, unit)} against {show(after, unit)} "
            "afterwards. They pull every figure their way. Let the board run for longer before the first window "
            "(--warmup).",
            windows=first,
            before=before,
            after=after,
        )
    trend = series.drift(values)
    if trend is None:
        return None
    median = float(np.median(values))
    share = f" ({abs(trend.total / median):.2%} of the median)" if median else ""
    return doubt(
        Code.DRIFT,
        f"The windows drift by {show(trend.total, unit, 3)}{share} from the first to the last. Repeating does not "
        "average that out, so the uncertainty holds the drift and not only the scatter. Let temperature and supply "
        "settle, and measure again.",
        total=trend.total,
        p=trend.p,
    )


def t95(dof: int) -> float:
    """Two-sided 95 % point of Student's t."""
    if dof <= len(_T95):
        return _T95[dof - 1]
    # Cornish-Fisher expansion around the normal quantile; within 1e-4 beyond 30 degrees of freedom.
    z = 1.959964
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
