"""Summaries that keep what they summarise: no scatter from one value, an interval for the median without a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Two-sided 95 % points of Student's t for 1 to 30 degrees of freedom (any table of the t distribution).
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip

# The standard error of a normal sample's median is larger than the mean's by sqrt(pi / 2).
_MEDIAN_FACTOR = math.sqrt(math.pi / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """`stdev`, `ci95` and `u_median` are None where there are too few values to know."""

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


def summarise(values: Sequence[float]) -> Spread:
    """`values` (n,), n >= 1. Percentiles interpolate between order statistics (Hyndman-Fan type 7)."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        raise ValueError("no values to summarise")
    mean = math.fsum(ordered.tolist()) / n
    stdev = math.sqrt(math.fsum(((ordered - mean) ** 2).tolist()) / (n - 1)) if n > 1 else None
    ci95, method = median_interval(ordered.tolist())
    many = n > 1
    p5, p95, p99 = (float(p) for p in np.quantile(ordered, [0.05, 0.95, 0.99]))
    return Spread(
        count=n,
        median=float(np.median(ordered)),
        mean=mean,
        stdev=stdev,
        min=float(ordered[0]),
        max=float(ordered[-1]),
        p5=p5 if many else None,
        p95=p95 if many else None,
        p99=p99 if many else None,
        ci95=ci95,
        ci95_method=method,
        u_median=None if stdev is None else _MEDIAN_FACTOR * stdev / math.sqrt(n),
    )


def median_interval(ordered: Sequence[float]) -> tuple[tuple[float, float] | None, str | None]:
    """95 % interval of the median from sorted values.

    From six values on: order statistics k and n+1-k with the largest k for which the binomial(n, 1/2) tail stays
    within 2.5 % on each side (distribution-free; Conover, Practical Nonparametric Statistics, 3.2). From two to five
    values no order statistics reach 95 %, so Student's t about the mean is used and said.
    """
    n = len(ordered)
    if n < 2:
        return None, None
    if n < 6:
        mean = math.fsum(ordered) / n
        stdev = math.sqrt(math.fsum((x - mean) ** 2 for x in ordered) / (n - 1))
        half = t95(n - 1) * stdev / math.sqrt(n)
        return (mean - half, mean + half), "mean, Student t"
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


def t95(dof: int) -> float:
    """Two-sided 95 % point of Student's t."""
    if dof <= len(_T95):
        return _T95[dof - 1]
    # Cornish-Fisher expansion around the normal quantile; within 1e-4 beyond 30 degrees of freedom.
    z = 1.959964
    return z + (z**3 + z) / (4 * dof) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * dof**2)
