"""Idle power, and what the inference cost above it.

Idle is measured in the same session, in spans before, between or after the windows. Each span gives one value, its
mean power, however many samples it holds: samples are correlated, spans nearly are not, and what correlation is left
between them is counted. A drift is a straight line in time where the spans show one, else power is constant. A line
is interpolated and never extrapolated: beyond the outermost spans the value at the end holds, and the drift that
may have gone on counts as doubt.

Net energy is the energy of a window less idle power times its duration. It may be negative and is shown so. Both
parts come from one instrument, so an offset of the meter cancels (the part of it that stays the same in between), and
a gain acts on the difference alone (JCGM 100, 5.2.2: the two are fully correlated).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from joulemeter import units
from joulemeter.capture import Stream
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import DataError
from joulemeter.physics import series
from joulemeter.physics.integrate import complement
from joulemeter.physics.kinds import source_of
from joulemeter.physics.stats import t95
from joulemeter.window import Window, WindowEnergy

# After an edge a meter may still switch its range; so many samples are left out on both sides of a window.
GUARD_SAMPLES = 3.0
# Spans shorter than this share of the median one say little and are mostly edge.
SHORT_SHARE = 0.1
# A line through fewer spans always fits.
MIN_DRIFT_SPANS = 3
# A change over the session of less than this share of idle power is arithmetic, not drift.
ROUNDING = 1e-9


def guard_s(stream: Stream) -> float:
    """The least guard for this meter, for `spans`: its range switch, or how old its readings may be.

    In seconds. The decay of the board after a window comes on top.
    """
    refresh_s = source_of(stream.header).main.refresh_s or 0.0
    return max(GUARD_SAMPLES / stream.timebase.rate_hz, refresh_s)


def spans(
    windows: Sequence[Window], start_ns: int, stop_ns: int, *, guard_s: float = 0.0, min_span_s: float = 0.0
) -> list[Window]:
    """The idle time of [start, stop): what lies outside all windows and `guard_s` around them, as IDLE windows.

    Spans that would be shorter than `min_span_s` are left out.
    """
    guard_ns = round(guard_s * 1e9)
    kept_away = [
        Window(start_ns=window.start_ns - guard_ns, stop_ns=window.stop_ns + guard_ns, index=window.index)
        for window in windows
    ]
    return [
        span
        for span in complement(kept_away, start_ns, stop_ns)
        if span.duration_s >= min_span_s and span.duration_s > 0
    ]


def split(window: Window, parts: int) -> list[Window]:
    """A long baseline in equal parts, so that it shows its own scatter and drift."""
    borders = [window.start_ns + k * (window.stop_ns - window.start_ns) // parts for k in range(parts + 1)]
    return [
        Window(start_ns=start, stop_ns=stop, index=k, role=window.role, label=window.label)
        for k, (start, stop) in enumerate(pairwise(borders))
        if stop > start
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """Idle power over time: `power_w` at `middle_s`, changing by `slope_w_per_s` from `first_s` to `last_s`.

    `u_power_w` and `u_slope_w_per_s` are standard uncertainties from the scatter of `spans` spans with `dof` degrees of
    freedom, independent of each other; None where one span leaves them unknown. `seconds` is the idle time seen.
    """

    power_w: float
    slope_w_per_s: float
    middle_s: float
    first_s: float
    last_s: float
    u_power_w: float | None
    u_slope_w_per_s: float
    dof: int | None
    spans: int
    seconds: float
    caveats: tuple[Caveat, ...] = ()

    def at(self, time_s: float) -> tuple[float, float | None]:
        """Idle power and its standard uncertainty at a stream time."""
        inside = min(max(time_s, self.first_s), self.last_s)
        power_w = self.power_w + self.slope_w_per_s * (inside - self.middle_s)
        if self.u_power_w is None:
            return power_w, None
        beyond_w = self.slope_w_per_s * (time_s - inside) / math.sqrt(3)
        return power_w, math.hypot(self.u_power_w, self.u_slope_w_per_s * (inside - self.middle_s), beyond_w)

    def u_mean_j(self, windows: Sequence[WindowEnergy]) -> float | None:
        """Standard uncertainty that idle gives to the mean net energy per inference of `windows`.

        One idle power is taken off all windows, so their errors are one error: it does not shrink with their number.
        """
        if self.u_power_w is None or not windows:
            return None
        count = sum(one.window.inferences for one in windows)
        level_s = slope_s2 = beyond_j = 0.0
        for one in windows:
            time_s, seen_s = _middle_s(one.window), _seen_s(one)
            inside = min(max(time_s, self.first_s), self.last_s)
            level_s += seen_s
            slope_s2 += seen_s * (inside - self.middle_s)
            beyond_j += seen_s * abs(self.slope_w_per_s * (time_s - inside)) / math.sqrt(3)
        return math.hypot(self.u_power_w * level_s, self.u_slope_w_per_s * slope_s2, beyond_j) / count


def model(idle: Sequence[WindowEnergy], *, min_span_s: float | None = None) -> Idle:
    """Idle power from spans measured anywhere in the session, in any order.

    Spans with less than `min_span_s` of samples (None: a tenth of the median span) are not used. Means are weighted by
    time; their uncertainty comes from the scatter of the spans whatever its cause (White 1980, with the correction HC2
    of MacKinnon and White 1985), and grows with the correlation of neighbouring spans. A slope is used from three
    spans on when Student's t finds it with 95 %.

    Raises DataError when no span has power.
    """
    seen = sorted(
        (one for one in idle if one.mean_power_w is not None and _seen_s(one) > 0), key=lambda one: one.window.start_ns
    )
    if seen and min_span_s is None:
        min_span_s = SHORT_SHARE * float(np.median([_seen_s(one) for one in seen]))
    seen = [one for one in seen if _seen_s(one) >= (min_span_s or 0.0)]
    if not seen:
        raise DataError(
            "No idle time with known power was recorded.",
            "Leave pauses between the inferences, or record some idle time with --baseline.",
        )
    time = np.array([_middle_s(one.window) for one in seen])
    power = np.array([one.mean_power_w for one in seen], dtype=np.float64)
    weight = np.array([_seen_s(one) for one in seen])
    total = float(weight.sum())
    middle = float(weight @ time) / total
    x = time - middle
    mean = float(weight @ power) / total
    caveats: list[Caveat] = []
    slope, u_slope = 0.0, 0.0
    dof: int | None = None
    rest, leverage = power - mean, weight / total
    if len(seen) >= MIN_DRIFT_SPANS and (spread := float(weight @ x**2)) > 0:
        line = float(weight @ (x * power)) / spread
        left = rest - line * x
        bent = leverage + weight * x**2 / spread
        u_line, line_dof = _scatter(weight * x / spread, weight, left, bent)
        rounding = ROUNDING * abs(mean) / float(time[-1] - time[0])
        if abs(line) > max(t95(line_dof) * u_line, rounding):
            slope, u_slope, rest, leverage = line, u_line, left, bent
            change_w = slope * float(time[-1] - time[0])
            caveats.append(
                note(
                    Code.IDLE_DRIFT,
                    f"Idle power changed by {units.show(change_w, 'W')} ({change_w / mean:+.1%}) over the session, and "
                    "net energy follows it as a straight line in time. Let the board warm up first.",
                    change_w=change_w,
                )
            )
    u_power: float | None = None
    if len(seen) > 1:
        u_power, dof = _scatter(weight / total, weight, rest, leverage)
    else:
        caveats.append(
            doubt(
                Code.IDLE_ONE_SPAN,
                "Idle power was measured in one span only, so how far it scatters is unknown and net energy has no "
                "uncertainty for it. Record idle before and after, or pauses between the inferences.",
            )
        )
    return Idle(
        power_w=mean,
        slope_w_per_s=slope,
        middle_s=middle,
        first_s=float(time[0]),
        last_s=float(time[-1]),
        u_power_w=u_power,
        u_slope_w_per_s=u_slope,
        dof=dof,
        spans=len(seen),
        seconds=total,
        caveats=tuple(caveats),
    )


def _scatter(
    sensitivity: series.Float, weight: series.Float, rest: series.Float, leverage: series.Float
) -> tuple[float, int]:
    """Standard uncertainty of sum(sensitivity * value), from what a fit of this leverage left over, and its dof.

    Correlated neighbours count as one, and what they have in common is missing in the rest.
    """
    time = series.correlation_time(rest)
    free = np.maximum(1 - leverage, 1e-9)
    variance = float((sensitivity**2 * rest**2 / free).sum()) * time / (1 - (time - 1) / len(rest))
    independent = float(weight.sum()) ** 2 / float(weight @ weight) / time
    return math.sqrt(variance), max(1, round(independent - float(leverage.sum())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """`net_j` of a window is its energy less `idle_j`. `u_idle_j` is the standard uncertainty that idle gives to it.

    None is unknown. Errors of idle are common to all windows.
    """

    window: Window
    idle_j: float
    u_idle_j: float | None
    net_j: float | None

    @property
    def per_inference_j(self) -> float | None:
        return None if self.net_j is None else self.net_j / self.window.inferences


def net(windows: Sequence[WindowEnergy], idle: Idle) -> list[Net]:
    """Net energy of each window, with idle power as it was at its middle; never clamped at zero.

    Offsets of the meter cancel in it; its random uncertainty is `random_u`, its systematic one that of the gain terms
    times the net energy, and of the edges.
    """
    found = []
    for one in windows:
        power_w, u_w = idle.at(_middle_s(one.window))
        seen_s = _seen_s(one)
        found.append(
            Net(
                window=one.window,
                idle_j=power_w * seen_s,
                u_idle_j=None if u_w is None else u_w * seen_s,
                net_j=None if one.energy_j is None else one.energy_j - power_w * seen_s,
            )
        )
    return found


def random_u(windows: Sequence[WindowEnergy], idle: Idle, u_scatter_j: float | None) -> float | None:
    """Random standard uncertainty of the typical net energy per inference: scatter of the windows and of idle.

    `u_scatter_j` is that of the net energies themselves (stats.summarise), which shrinks with their number; the part
    of idle does not. None where either is unknown.
    """
    u_idle_j = idle.u_mean_j(windows)
    return None if u_scatter_j is None or u_idle_j is None else math.hypot(u_scatter_j, u_idle_j)


def _middle_s(window: Window) -> float:
    return (window.start_ns + window.stop_ns) / 2 * 1e-9


def _seen_s(one: WindowEnergy) -> float:
    return max(one.window.duration_s - one.missing_s, 0.0)
