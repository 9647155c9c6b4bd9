"""The host's clock against the instrument's sample count, and the true length of holes.

Arrival is one-sided: a sample is never seen before it was taken, and may be seen much later. So both questions are
answered by the earliest arrivals, never by the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Anchor, Gap, Timebase

# Below this span the jitter of a few early arrivals looks like more drift than any crystal has.
MIN_DRIFT_SPAN_S = 30.0


def fit(index: NDArray[np.float64], anchors: Sequence[Anchor], rate_hz: float) -> Timebase:
    """Relate sample indices to the host's clocks.

    `index` (n,) is the sample index reached at each anchor. The line is the one below all arrivals with the least
    total delay: the edge of the lower convex hull under the mean sample time. `u_host_s` takes the true delay of the
    earliest arrivals as rectangular between zero and the median delay above the line.
    """
    if not anchors:
        return Timebase(rate_hz=rate_hz)
    monotonic = np.array([anchor.monotonic_ns for anchor in anchors], dtype=np.int64)
    x = index / rate_hz
    y = (monotonic - monotonic[0]).astype(np.float64) * 1e-9
    delay = y - x
    slope, offset = 0.0, float(delay.min())
    fitted = float(x[-1] - x[0]) >= MIN_DRIFT_SPAN_S
    if fitted:
        slope, offset = _lower_line(x, delay)
    residual = delay - (offset + slope * x)
    zero_ns = int(monotonic[0]) + round(offset * 1e9)
    first = anchors[0]
    return Timebase(
        rate_hz=rate_hz,
        monotonic_ns=zero_ns,
        utc_ns=first.utc_ns - first.monotonic_ns + zero_ns,
        # A host second holds 1 / (1 + slope) seconds of the instrument's.
        drift_ppm=-slope / (1 + slope) * 1e6 if fitted else None,
        u_host_s=float(np.median(residual)) / 3**0.5,
    )


def _lower_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and offset of the lower hull's edge under the mean of x (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) >= 2 and _turn(hull[-2], hull[-1], point) <= 0:
            hull.pop()
        hull.append(point)
    middle = float(x.mean())
    for (x0, y0), (x1, y1) in pairwise(hull):
        if x0 <= middle <= x1 and x1 > x0:
            slope = (y1 - y0) / (x1 - x0)
            return slope, y0 - slope * x0
    return 0.0, float(y.min())


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def size_gaps(
    gaps: Sequence[Gap], modulo: int, index: NDArray[np.float64], anchors: Sequence[Anchor], rate_hz: float
) -> tuple[Gap, ...]:
    """Holes whose counter only tells their length modulo `modulo`, sized by the host's clock.

    `gaps` hold the counter's answer and `index` (n,) the sample index at each anchor by the same count. The step of
    the earliest arrivals from before to after a hole is what the counter did not see. `doubt` is non-zero where
    the clock could not decide.
    """
    if not gaps:
        return ()
    x = index / rate_hz
    y = np.array([anchor.monotonic_ns - anchors[0].monotonic_ns for anchor in anchors], dtype=np.float64) * 1e-9
    delay = y - x
    period_s = modulo / rate_hz
    sized = []
    extra = 0
    borders = [gap.index / rate_hz for gap in gaps]
    for k, gap in enumerate(gaps):
        earlier = delay[(x < borders[k] - gap.lost / rate_hz) & (x >= (borders[k - 1] if k else -np.inf))]
        later = delay[(x >= borders[k]) & (x < (borders[k + 1] if k + 1 < len(gaps) else np.inf))]
        turns, doubt = 0, modulo
        if len(earlier) and len(later):
            step_s = float(later.min() - earlier.min())
            turns = max(0, round(step_s / period_s))
            spread_s = _early_spread(earlier) + _early_spread(later)
            doubt = modulo * round(spread_s / period_s)
        sized.append(Gap(index=gap.index + extra + turns * modulo, lost=gap.lost + turns * modulo, doubt=doubt))
        extra += turns * modulo
    return tuple(sized)


def _early_spread(delay: NDArray[np.float64]) -> float:
    """How well the earliest arrival is known: the distance to the tenth part of arrivals that follow it."""
    return float(np.quantile(delay, 0.1) - delay.min()) if len(delay) > 1 else float("inf") if not len(delay) else 0.0
