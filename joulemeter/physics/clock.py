"""The host's clock against the instrument's sample count, the true length of holes, and clocks that jump.

Arrival is one-sided: a sample is never seen before it was taken, and may be seen much later. So both questions are
answered by the earliest arrivals, never by the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Anchor, Gap, Limit, Timebase
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.units import show_duration

# What even the earliest arrival is late by: bytes wait for a USB frame, 1 ms at full speed (USB 2.0, 5.3.3), and a
# host cannot see how long. Serial and network meters are no quicker: ten bytes take 0.9 ms at 115200 baud.
MIN_LATENCY_S = 1e-3
# What a single arrival may be late by when the host is busy; with a few arrivals none needs to be an early one.
STALL_S = 0.2
FEW_ANCHORS = 3
# The recording is cut into parts of this many anchors, within limits of their number; the earliest arrivals of the
# parts show how well such a time repeats.
PART_ANCHORS = 8
MIN_PARTS, MAX_PARTS = 5, 20
CRYSTAL = Limit(value=50e-6)


def fit(
    index: NDArray[np.float64],
    anchors: Sequence[Anchor],
    rate_hz: float,
    limit: Limit = CRYSTAL,
    min_latency_s: float = MIN_LATENCY_S,
) -> Timebase:
    """Relate sample indices to the host's clocks.

    `index` (n,) is the sample index reached at each anchor and `limit` the sample clock's, as a ratio. The line is the
    one below all arrivals with the least total delay: the edge of the lower convex hull under the mean sample time. It
    is moved earlier by half of `min_latency_s`, for the least delay itself lies anywhere between zero and that.

    `u_host_s`, in the middle of the recording, is that rectangle and the scatter of the parts' earliest arrivals about
    the line. `u_drift_ppm` takes both for the two ends on their own: a sample clock that beats slowly with the USB
    frames lets the least delay wander and looks like drift. Where that is worse than `limit`, no drift is claimed.
    """
    if not anchors:
        return Timebase(rate_hz=rate_hz)
    monotonic = np.array([anchor.monotonic_ns for anchor in anchors], dtype=np.int64)
    x = index / rate_hz
    delay = (monotonic - monotonic[0]).astype(np.float64) * 1e-9 - x
    span_s = float(x[-1] - x[0])
    middle_s = float(x[0] + x[-1]) / 2
    slope, offset = _lower_line(x, delay) if span_s > 0 else (0.0, float(delay.min()))
    if len(anchors) > FEW_ANCHORS:
        count = min(max(len(anchors) // PART_ANCHORS, MIN_PARTS), MAX_PARTS, len(anchors))
        parts = np.array_split(delay - (offset + slope * x), count)
        # The line touches two of them, so these say nothing.
        scatter_s = float(np.sqrt(sum(part.min() ** 2 for part in parts) / (count - 2)))
    else:
        scatter_s = STALL_S / 3**0.5
    u_slope = float(np.sqrt(min_latency_s**2 / 6 + 2 * scatter_s**2)) / span_s if span_s > 0 else np.inf
    # A clock that is plainly outside its limit is believed all the same.
    seen = u_slope < limit.standard or abs(slope) > limit.value + 4 * u_slope
    applied = slope if seen else 0.0
    at_middle_s = offset + slope * middle_s - min_latency_s / 2
    zero_ns = int(monotonic[0]) + round((at_middle_s - applied * middle_s) * 1e9)
    first = anchors[0]
    return Timebase(
        rate_hz=rate_hz,
        monotonic_ns=zero_ns,
        utc_ns=first.utc_ns - first.monotonic_ns + zero_ns,
        # A host second holds 1 / (1 + slope) seconds of the instrument's.
        drift_ppm=-slope / (1 + slope) * 1e6 if seen else None,
        u_host_s=float(np.hypot(min_latency_s / 12**0.5, scatter_s)),
        u_drift_ppm=(u_slope if seen else limit.standard) * 1e6,
        reference_ns=round(middle_s * 1e9),
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


# -- clocks that jump -------------------------------------------------------------------------------------------------

# The two host clocks are read one after the other; a difference that stays changed by more than this is a step.
MIN_STEP_S = 2e-3
# Anchors farther apart than this, and than ten times the usual distance, while the meter made no samples.
MIN_SLEEP_S = 1.0


class Jump(StrEnum):
    UTC_STEP = "utc-step"  # the host's calendar clock was set
    SUSPEND = "suspend"  # the host, or the host and the meter, slept


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """`jump_s` seconds between the anchors at `before_ns` and `after_ns` of the monotonic clock.

    UTC_STEP: what the calendar clock gained on the monotonic one. SUSPEND: how long the clock or the samples stood.
    """

    kind: Jump
    jump_s: float
    before_ns: int
    after_ns: int

    @property
    def caveat(self) -> Caveat:
        if self.kind is Jump.UTC_STEP:
            return note(
                Code.CLOCK_STEP,
                f"The host's calendar clock was set by {show_duration(abs(self.jump_s))} "
                f"{'forward' if self.jump_s > 0 else 'back'} during the recording (or the host slept for as long). "
                "Energies and durations do not rest on it; dates after it differ from those before. Let the clock "
                "settle before recording.",
                jump_s=self.jump_s,
            )
        return doubt(
            Code.HOST_SLEPT,
            f"The host slept for about {show_duration(self.jump_s)} during the recording. Host stamps before and after "
            "it do not share one clock relation with the samples, so windows placed by the host may be off by as "
            "much. Keep the host awake, or use a trigger line.",
            jump_s=self.jump_s,
        )


def steps(
    anchors: Sequence[Anchor], index: NDArray[np.float64] | None = None, rate_hz: float | None = None
) -> tuple[ClockStep, ...]:
    """Where the host's clocks jumped between anchors.

    `index` (n,), the sample index at each anchor, tells sleep from a set clock: Linux's monotonic clock stands still
    while the host sleeps and the samples do not; other systems' run on. Without it a forward step of the calendar
    clock may be either, and its caveat says so.
    """
    if len(anchors) < 2:
        return ()
    monotonic = np.array([anchor.monotonic_ns - anchors[0].monotonic_ns for anchor in anchors]) * 1e-9
    apart = np.array([anchor.utc_ns - anchors[0].utc_ns for anchor in anchors]) * 1e-9 - monotonic
    passed = np.diff(monotonic)
    usual_s = float(np.median(passed))
    made = passed if index is None or not rate_hz else np.diff(index) / rate_hz
    found = []
    for k, gap_s in enumerate(passed.tolist()):
        # Medians of three on either side: one reading between which the host was interrupted is no step.
        jump_s = float(np.median(apart[k + 1 : k + 4]) - np.median(apart[max(k - 2, 0) : k + 1]))
        ahead_s = float(made[k]) - gap_s
        here = ClockStep(
            kind=Jump.UTC_STEP,
            jump_s=jump_s,
            before_ns=anchors[k].monotonic_ns,
            after_ns=anchors[k + 1].monotonic_ns,
        )
        if abs(jump_s) > MIN_STEP_S and abs(apart[k + 1] - apart[k] - jump_s) < abs(jump_s) / 2:
            # Samples that the monotonic clock has no time for were made while it stood still.
            stood = ahead_s > jump_s / 2 and jump_s > STALL_S
            found.append(replace(here, kind=Jump.SUSPEND) if stood else here)
        elif gap_s > max(MIN_SLEEP_S, 10 * usual_s) and -ahead_s > gap_s / 2:
            found.append(replace(here, kind=Jump.SUSPEND, jump_s=-ahead_s))
    return tuple(found)
