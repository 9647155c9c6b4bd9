"""The sync code's place in a power trace, to a bin: decimation and normalised correlation (see synccode)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError

Float = NDArray[np.float64]
# (start, stop) -> pieces of the trace that cover it: index of the first sample, and the samples.
Trace = Callable[[int, int], Iterator[tuple[int, Float]]]

# Bins per shortest span, and the most that two crystals differ by.
COARSE_BINS = 4
MAX_DRIFT = 300e-6
# Below this correlation the trace does not look like the pattern; below this confidence another place does as well.
MIN_CORRELATION = 0.5
MIN_CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Host times in seconds since the first stamp: the span that the pattern covers and its changes of state."""

    start_s: float
    stop_s: float
    edges_s: Float  # (k,), alternately to busy and to idle, beginning with busy


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Stream time in seconds at which each group that was `found` begins, to a bin."""

    found: tuple[int, ...]
    begins_s: tuple[float, ...]
    correlation: float
    rival: float
    confidence: float


def search(trace: Trace, length: int, rate_hz: float, groups: Sequence[Group], chip_s: float) -> Place:
    """Correlate the decimated trace with all groups together; 8 bytes per bin and group, four bins per chip."""
    from scipy.ndimage import maximum_filter1d
    from scipy.special import ndtr

    width = max(1, int(chip_s * rate_hz / COARSE_BINS))
    bin_s = width / rate_hz
    power = binned(trace, 0, length, width, partly=True)
    good = np.isfinite(power)
    power = np.where(good, power, np.median(power[good]) if good.any() else 0.0)
    apart = [round((group.start_s - groups[0].start_s) / bin_s) for group in groups]
    slack = [math.ceil(MAX_DRIFT * far) + 1 if far else 0 for far in apart]
    # Place p in these arrays: group 0 begins in bin p - apart[-1], so that it may lie before the trace.
    joint = np.zeros(len(power) + apart[-1])
    single = []
    for group, far, free in zip(groups, apart, slack, strict=True):
        likeness = _likeness(power, group, bin_s)
        at = apart[-1] - far
        placed = np.zeros(len(joint))
        placed[at : at + len(likeness)] = likeness
        single.append(placed)
        joint += np.maximum(maximum_filter1d(placed, 2 * free + 1), 0.0) / len(groups)
    peak = int(np.argmax(joint))
    around = math.ceil(chip_s / bin_s) + slack[-1]
    others = np.concatenate([joint[: max(peak - around, 0)], joint[peak + around + 1 :]])
    rival = float(others.max()) if len(others) else 0.0
    own = [max(peak - free, 0) + int(np.argmax(likeness[max(peak - free, 0) : peak + free + 1]))
           for likeness, free in zip(single, slack, strict=True)]  # fmt: skip
    found = tuple(k for k, at in enumerate(own) if single[k][at] >= MIN_CORRELATION)
    correlation = float(np.mean([single[k][own[k]] for k in found])) if found else float(joint[peak])
    # Fisher's z of two correlations, with as many independent readings as there are chips.
    chips = sum((groups[k].edges_s[-1] - groups[k].edges_s[0]) / chip_s for k in found)
    above = math.atanh(min(float(joint[peak]), 0.9999)) - math.atanh(min(rival, 0.9999))
    confidence = float(ndtr(above * math.sqrt(max(chips - 3, 0) / 2)))
    if not found or confidence < MIN_CONFIDENCE:
        raise DataError(
            f"The sync code does not stand out in the power trace: its best place correlates to {joint[peak]:.2f}, "
            f"another one to {rival:.2f}.",
            "Make the busy work heavier or its spans longer, and see that the recording holds the whole pattern.",
        )
    return Place(
        found=found,
        begins_s=tuple((own[k] - apart[-1] + apart[k]) * bin_s for k in found),
        correlation=correlation,
        rival=rival,
        confidence=confidence,
    )


def binned(trace: Trace, start: int, stop: int, width: int, *, partly: bool = False) -> Float:
    """Means of `width` samples from `start` on; NaN where samples are lost (`partly`: more than half of them)."""
    count = max((stop - start) // width, 0)
    total = np.zeros(count)
    there = np.zeros(count)
    for first, values in trace(start, stop):
        skip = max(start - first, 0)
        values = values[skip : max(start + count * width - first, 0)]
        if not len(values):
            continue
        number = (np.arange(first + skip, first + skip + len(values)) - start) // width
        low, high = int(number[0]), int(number[-1]) + 1
        good = np.isfinite(values)
        total[low:high] += np.bincount(number - low, np.where(good, values, 0.0), high - low)
        there[low:high] += np.bincount(number - low, good, high - low)
    enough = there >= (width / 2 if partly else width)
    return np.where(enough, total / np.maximum(there, 1), np.nan)


def _likeness(power: Float, group: Group, bin_s: float) -> Float:
    """Correlation of each stretch of `power` with the group, both freed from mean and slope; (n - m + 1,)."""
    from scipy.signal import oaconvolve

    count = int((group.stop_s - group.start_s) / bin_s)
    if not 4 <= count <= len(power):
        return np.zeros(0)
    borders = group.start_s + np.arange(count + 1, dtype=np.float64) * bin_s
    wanted = np.diff(responses(borders, group.edges_s, 0.0)[0])
    ramp = np.arange(count) - (count - 1) / 2
    ramp /= math.sqrt(float(ramp @ ramp))
    wanted = wanted - wanted.mean()
    wanted -= ramp * float(ramp @ wanted)
    wanted /= math.sqrt(float(wanted @ wanted))
    power = power - np.median(power)
    sums = oaconvolve(power, np.ones(count), mode="valid")
    squares = oaconvolve(power**2, np.ones(count), mode="valid")
    slopes = oaconvolve(power, ramp[::-1], mode="valid")
    energy = squares - sums**2 / count - slopes**2
    floor = 1e-9 * float(squares.max()) + np.finfo(float).tiny
    likeness: Float = oaconvolve(power, wanted[::-1], mode="valid") / np.sqrt(np.maximum(energy, floor))
    return likeness


def responses(times_s: Float, edges_s: Float, tau_s: float) -> tuple[Float, Float]:
    """Integral of the response up to each time, and the response itself: on-off at `edges_s` behind one pole.

    From tau y' = b - y: the integral of y is that of b, less tau times what y has gained.
    """
    number = np.searchsorted(edges_s, times_s, side="right")
    state = number % 2
    ontime = np.concatenate([[0.0, 0.0], np.cumsum(np.diff(edges_s) * (np.arange(len(edges_s) - 1) % 2 == 0))])
    since = times_s - edges_s[np.maximum(number - 1, 0)]
    busy: Float = ontime[number] + state * np.where(number > 0, since, 0.0)
    if tau_s <= 0:
        return busy, state.astype(np.float64)
    at_edge = np.zeros(len(edges_s) + 1)
    for k, hold in enumerate(np.diff(edges_s).tolist()):
        target = 1.0 if k % 2 == 0 else 0.0
        at_edge[k + 2] = target + (at_edge[k + 1] - target) * math.exp(-hold / tau_s)
    decay = np.where(number > 0, np.exp(-np.maximum(since, 0.0) / tau_s), 0.0)
    response: Float = state + (at_edge[number] - state) * decay
    return busy - tau_s * response, response
