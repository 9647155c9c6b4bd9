"""The offset between the clocks of two meters on one load, from the shape of what they measured.

Where the load repeats itself, several offsets fit; the one nearest to what the host's clock says is taken, another is
named. A period shorter than some sixteen samples of the slower meter cannot be told from its neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Stream
from joulemeter.physics.envelope import envelope

Float = NDArray[np.float64]

# Bins of the resampled power: never finer than so many samples of the slower meter, nor more than so many.
SAMPLES_PER_BIN = 4
MAX_BINS = 50_000
MAX_SAMPLES = 2_000_000
# Below this many bins there is no shape to compare.
MIN_BINS = 16
# A second place where the powers match within this of the best one makes the offset ambiguous.
RIVAL = 0.02
# The drift between two clocks is fitted from this span on; below it the noise of the fit is larger than any crystal's.
MIN_DRIFT_SPAN_S = 30.0
# A sample of the slower meter hides where in it a step was; this share of it stays after many steps.
GRID_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """Stream time of b = stream time of a + `offset_s` at `middle_s` of a; standard uncertainty `u_s`.

    `drift_ppm` is how much faster the clock of b counts, None where the recording is too short to say. `likeness` is
    the correlation of both powers there, `bin_s` the width of the bins compared. `rival_s` is another offset that fits
    nearly as well, as under a periodic load.
    """

    offset_s: float
    u_s: float
    drift_ppm: float | None
    u_drift_ppm: float | None
    likeness: float
    bin_s: float
    middle_s: float
    rival_s: float | None = None

    def at(self, time_s: float) -> float:
        """Offset at a stream time of a, seconds."""
        return self.offset_s + (self.drift_ppm or 0.0) * 1e-6 * (time_s - self.middle_s)


def host_offset_s(a: Stream, b: Stream) -> float | None:
    """Stream time of b less that of a by the host's clock; None where one was never related to it."""
    zero_a, zero_b = a.timebase.monotonic_ns, b.timebase.monotonic_ns
    return None if zero_a is None or zero_b is None else (zero_a - zero_b) * 1e-9


class Trace:
    """Power of a stream as a total that can be asked at any time: what falls between two times is exact to a sample."""

    def __init__(self, stream: Stream) -> None:
        thinned = envelope(stream, min(max(stream.length, 1), MAX_SAMPLES))
        seen = np.isfinite(thinned.mean)
        self.step_s = thinned.step_s
        self.stop_s = len(thinned.mean) * thinned.step_s
        self._total = np.concatenate([[0.0], np.cumsum(np.where(seen, thinned.mean, 0.0))]) * thinned.step_s
        self._holes = np.concatenate([[0.0], np.cumsum(~seen)])

    def means(self, start_s: Float, stop_s: Float) -> Float:
        """Mean power in each span, (n,) watts; NaN where a part of it was not recorded."""
        i, j = start_s / self.step_s, stop_s / self.step_s
        at = np.arange(len(self._total))
        missing = np.interp(j, at, self._holes) - np.interp(i, at, self._holes)
        mean: Float = (np.interp(j, at, self._total) - np.interp(i, at, self._total)) / (stop_s - start_s)
        mean[(missing > 1e-9) | (start_s < -1e-12) | (stop_s > self.stop_s * (1 + 1e-12))] = np.nan
        return mean


def find_offset(a: Stream, b: Stream, search_s: float | None = None) -> Offset | None:
    """The offset of the clocks by the shape of the power; None where the load has no shape to find it by.

    First the best place of the cross-correlation of both powers in equal bins, then least squares of
    power_a(t) = g * power_b(t + offset + drift * t) + o, which gives a fraction of a bin and its uncertainty.
    """
    one, other = Trace(a), Trace(b)
    host = host_offset_s(a, b) or 0.0
    span_s = min(one.stop_s, other.stop_s)
    slower_s = max(1 / a.timebase.rate_hz, 1 / b.timebase.rate_hz)
    bin_s = max(SAMPLES_PER_BIN * slower_s, span_s / MAX_BINS)
    reach_s = min(search_s if search_s is not None else span_s / 10, span_s / 2)
    count = int(span_s / bin_s)
    if count < MIN_BINS:
        return None
    coarse = _correlate(one, other, bin_s, host, reach_s)
    if coarse is None:
        return None
    lag_s, rival_s = coarse
    best = _refine(one, other, bin_s, host + lag_s, slower_s)
    if best is None or rival_s is None:
        return best
    # Among equals the one nearest to the host's word, which may lie between two bins.
    near = _refine(one, other, bin_s, host, slower_s)
    if near is not None and near.likeness > best.likeness - RIVAL:
        near, best = best, near
    rival_s = host + (lag_s if abs(host + rival_s - best.offset_s) < bin_s else rival_s)
    return replace(best, rival_s=rival_s) if abs(rival_s - best.offset_s) > bin_s else best


def _correlate(
    one: Trace, other: Trace, bin_s: float, host_s: float, reach_s: float
) -> tuple[float, float | None] | None:
    """Lag of the best match around `host_s`, and of a rival; Pearson's correlation over the bins both have."""
    count = int(one.stop_s / bin_s)
    start = np.arange(count, dtype=np.float64) * bin_s
    x = one.means(start, start + bin_s)
    y = other.means(start + host_s, start + host_s + bin_s)
    (x, seen_x), (y, seen_y) = (_filled(v) for v in (x, y))
    if not seen_x.any() or not seen_y.any():
        return None
    size = 1 << (2 * count).bit_length()

    def cross(p: Float, q: Float) -> Float:
        product: Float = np.fft.irfft(np.conj(np.fft.rfft(p, size)) * np.fft.rfft(q, size), size)
        return product

    reach = min(int(reach_s / bin_s) + 1, count - MIN_BINS)
    lags = np.arange(-reach, reach + 1)
    n = np.maximum(np.rint(cross(seen_x, seen_y)[lags]), 1.0)
    sum_x, sum_y = cross(x, seen_y)[lags], cross(seen_x, y)[lags]
    var_x = cross(x**2, seen_y)[lags] - sum_x**2 / n
    var_y = cross(seen_x, y**2)[lags] - sum_y**2 / n
    steady = (var_x <= 1e-9 * (x**2).sum()) | (var_y <= 1e-9 * (y**2).sum()) | (n < max(MIN_BINS, count / 4))
    root = np.sqrt(np.where(steady, 1.0, var_x * var_y))
    r = np.where(steady, -1.0, (cross(x, y)[lags] - sum_x * sum_y / n) / root)
    best = int(np.argmax(r))
    # Chance reaches sqrt(2 ln(lags) / n) among so many lags; twice that is a shape.
    if r[best] < 2 * math.sqrt(2 * math.log(len(lags) + 1) / n[best]):
        return None
    peak = (r >= np.roll(r, 1)) & (r >= np.roll(r, -1)) & (r > r[best] - RIVAL * (1 + r[best]))
    rivals = lags[peak & (np.abs(lags - lags[best]) > 2)]
    rival = float(rivals[np.argmin(np.abs(rivals))]) * bin_s if len(rivals) else None
    chosen = float(lags[best]) * bin_s
    # Among equals the host's clock decides.
    if rival is not None and abs(rival) < abs(chosen):
        chosen, rival = rival, chosen
    return chosen, rival


def _filled(values: Float) -> tuple[Float, Float]:
    """Values about their mean with zeros where nothing is known, and where something is, (n,) each."""
    seen = np.isfinite(values)
    mean = values[seen].mean() if seen.any() else 0.0
    return np.where(seen, values - mean, 0.0), seen.astype(np.float64)


def _refine(one: Trace, other: Trace, bin_s: float, offset_s: float, slower_s: float) -> Offset | None:
    count = int(one.stop_s / bin_s)
    start = np.arange(count, dtype=np.float64) * bin_s
    x = one.means(start, start + bin_s)
    middle = one.stop_s / 2
    drifting = one.stop_s >= MIN_DRIFT_SPAN_S
    slope = 0.0
    for _ in range(30):
        begin: Float = start + offset_s + slope * (start - middle)
        y = other.means(begin, begin + bin_s)
        later, earlier = (other.means(begin + h, begin + h + bin_s) for h in (bin_s / 4, -bin_s / 4))
        good = np.isfinite(x) & np.isfinite(y) & np.isfinite(later) & np.isfinite(earlier)
        if good.sum() < MIN_BINS:
            return None
        rate = (later - earlier) / (bin_s / 2)
        ramp = (start - middle) / max(middle, bin_s)
        columns = [y, np.ones(count), rate, rate * ramp] if drifting else [y, np.ones(count), rate]
        table = np.column_stack(columns)[good]
        size = np.linalg.norm(table, axis=0)
        if (size == 0).any():
            return None
        solved, *_ = np.linalg.lstsq(table / size, x[good], rcond=None)
        solved = solved / size
        gain = solved[0] or 1.0
        step = float(np.clip(solved[2] / gain, -bin_s, bin_s))
        offset_s += step
        slope += float(solved[3] / gain) / max(middle, bin_s) if drifting else 0.0
        if abs(step) < 1e-4 * bin_s:
            break
    residual = x[good] - table @ solved
    dof = max(int(good.sum()) - table.shape[1], 1)
    covariance = (
        np.linalg.pinv((table / size).T @ (table / size)) / np.outer(size, size) * float(residual @ residual) / dof
    )
    u_s = math.hypot(math.sqrt(covariance[2, 2]) / abs(gain), GRID_SHARE * slower_s)
    u_slope = math.sqrt(covariance[3, 3]) / abs(gain) / max(middle, bin_s) if drifting else None
    return Offset(
        offset_s=offset_s,
        u_s=u_s,
        drift_ppm=slope * 1e6 if drifting else None,
        u_drift_ppm=None if u_slope is None else float(u_slope) * 1e6,
        likeness=float(np.corrcoef(x[good], y[good])[0, 1]),
        bin_s=bin_s,
        middle_s=middle,
    )
