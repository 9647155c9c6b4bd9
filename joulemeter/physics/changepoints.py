"""Where the power of a recording changes: thinned waveform, optimal partition, edges placed at full rate.

The partition minimises a penalised likelihood (Jackson et al., "An algorithm for optimal partitioning of data on an
interval", IEEE Signal Processing Letters 12, 2005) with the pruning of Killick, Fearnhead and Eckley, "Optimal
detection of changepoints with a linear computational cost", JASA 107, 2012. A piece is normal with its own mean and
variance, so that a burst with ripple is one piece of large variance and not many of small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Stream
from joulemeter.errors import DataError
from joulemeter.physics.integrate import source_of

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# Spans of the thinned waveform: three arrays of this length are all the memory a recording of any length costs.
BUCKETS = 1 << 18
# Twice this times log n is the price of one more change; Schwarz's criterion for two parameters and a position is 1.5.
# Ripple is correlated and breaks its assumption, so more is asked.
PENALTY = 6.0
# A sample may count this much for either side of an edge: one spike does not move it.
MOST_EVIDENCE = 4.0
# How many spans to either side of an edge are looked at again at full rate.
NEXT = 3
# A step of fewer standard deviations of a sample tells nothing about where within the sample it came.
SHARP = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A waveform in equal spans of `size` samples: samples seen, their mean, and their variance; (n,) float64.

    Mean and variance are NaN where nothing was recorded. `length` counts the stream's samples, lost ones included.
    """

    size: int
    length: int
    count: Float
    mean: Float
    variance: Float
    unit: str

    def coarsened(self, factor: int) -> Trace:
        """`factor` spans joined into one."""
        if factor == 1:
            return self
        spans = -(-len(self.mean) // factor)
        pad = spans * factor - len(self.mean)
        count, mean, variance = (
            np.pad(np.nan_to_num(values), (0, pad)).reshape(spans, factor)
            for values in (self.count, self.mean, self.variance)
        )
        total = count.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            middle = (count * mean).sum(axis=1) / total
            spread = (count * (variance + (mean - middle[:, None]) ** 2)).sum(axis=1) / total
        return Trace(
            size=self.size * factor, length=self.length, count=total, mean=middle, variance=spread, unit=self.unit
        )

    def floor(self) -> float:
        """A standard deviation that no level may fall below: noise-free and rounded samples have to stay possible."""
        held = self.count > 0
        return max(0.3 * noise_of(self.mean[held]), 1e-4 * float(np.ptp(self.mean[held])), 1e-150)

    def moments(self, start: int, stop: int) -> tuple[float, float]:
        """Mean and variance of the samples in the spans [start, stop); NaN where there are none."""
        count = self.count[start:stop]
        total = float(count.sum())
        if not total:
            return float("nan"), float("nan")
        mean = np.nan_to_num(self.mean[start:stop])
        middle = float((count * mean).sum()) / total
        spread = float((count * (np.nan_to_num(self.variance[start:stop]) + (mean - middle) ** 2)).sum()) / total
        return middle, spread


def _values(stream: Stream, start: int, stop: int) -> Iterator[tuple[int, Float]]:
    """First index and power (or current) of each block, (n,) float64."""
    source = source_of(stream.header)
    for block in stream.blocks(start, stop):
        values = source.power_w(block)
        if values is None:
            if source.current is None:
                raise DataError("The stream holds neither current nor power.", "There are no power steps to find.")
            values = np.asarray(block.data[source.current.name], dtype=np.float64)
        yield block.first_index, values


def thinned(stream: Stream, buckets: int = BUCKETS) -> Trace:
    """The stream's power (or current, where power is not to be had) in at most `buckets` spans, in one pass.

    Raises DataError where the stream holds neither, or not one good sample.
    """
    size = max(1, -(-stream.length // buckets))
    spans = max(1, -(-stream.length // size))
    count, total, square = np.zeros(spans), np.zeros(spans), np.zeros(spans)
    # Squares of differences from a value of the recording keep digits that squares of the values would lose.
    origin: float | None = None
    for first, values in _values(stream, 0, stream.length):
        good = np.isfinite(values)
        if not good.any():
            continue
        if origin is None:
            origin = float(np.median(values[good]))
        where = (first + np.flatnonzero(good)) // size
        offset = values[good] - origin
        low, high = int(where[0]), min(int(where[-1]) + 1, spans)
        where = where[where < spans] - low
        offset = offset[: len(where)]
        count[low:high] += np.bincount(where, minlength=high - low)
        total[low:high] += np.bincount(where, weights=offset, minlength=high - low)
        square[low:high] += np.bincount(where, weights=offset * offset, minlength=high - low)
    if origin is None:
        raise DataError(f"The stream {stream.name!r} holds no good sample.", "Check the meter and record again.")
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count
        variance = np.maximum(square / count - mean * mean, 0.0)
    unit = "W" if source_of(stream.header).has_power else "A"
    return Trace(size=size, length=stream.length, count=count, mean=mean + origin, variance=variance, unit=unit)


def noise_of(values: Float) -> float:
    """Standard deviation of white noise under whatever steps, from the median of successive differences."""
    if len(values) < 2:
        return 0.0
    return float(np.median(np.abs(np.diff(values)))) / (0.6744897501960817 * 2**0.5)


def partition(mean: Float, spread: Float, floor: float, least: int = 2) -> Int:
    """Borders of the pieces of two series of equal length, (k + 1,) with 0 and n.

    `mean` pieces are normal with their own mean and variance of at least floor**2; `spread` pieces have their own mean
    and a common variance (that of its differences). No piece is shorter than `least`.
    """
    n = len(mean)
    if n < 2 * least:
        return np.array([0, n], dtype=np.int64)
    centred = mean - np.median(mean)
    scale = max(noise_of(spread), 0.05)
    other = (spread - np.median(spread)) / scale
    sums = [np.concatenate([[0.0], np.cumsum(values)]) for values in (centred, centred**2, other, other**2)]
    least_variance = max(floor, 1e-9 * float(np.abs(centred).max()), 1e-150) ** 2
    penalty = 2 * PENALTY * np.log(n)
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    back = np.zeros(n + 1, dtype=np.int64)
    starts = np.zeros(0, dtype=np.int64)
    for stop in range(least, n + 1):
        starts = np.append(starts, stop - least)
        length = stop - starts
        part, squares, side, sides = (total[stop] - total[starts] for total in sums)
        variance = np.maximum((squares - part * part / length) / length, least_variance)
        cost = length * np.log(variance) + np.minimum(sides - side * side / length, 9.0 * length)
        reach = best[starts] + cost
        pick = int(np.argmin(reach))
        best[stop] = reach[pick] + penalty
        back[stop] = starts[pick]
        starts = starts[reach <= best[stop] + penalty]
    borders = [n]
    while borders[-1]:
        borders.append(int(back[borders[-1]]))
    return np.array(borders[::-1], dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What the samples on one side of an edge look like."""

    mean: float
    variance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """A change from `before` to `after` somewhere in the samples [start, stop)."""

    start: int
    stop: int
    before: Level
    after: Level


def _evidence(count: Float, mean: Float, variance: Float, edge: Edge) -> Float:
    """By how much each span speaks for the level before the edge: log of the likelihood ratio."""
    ratio = np.zeros(len(mean))
    for sign, level in ((1.0, edge.before), (-1.0, edge.after)):
        off = variance + (mean - level.mean) ** 2
        ratio -= sign * 0.5 * count * (np.log(level.variance) + off / level.variance)
    return np.clip(np.where(count > 0, ratio, 0.0), -MOST_EVIDENCE * count, MOST_EVIDENCE * count)


def _split(evidence: Float) -> tuple[int, float]:
    """The most likely number of elements before the change, and the standard deviation of that number.

    The evidence of neighbours is not independent; it is weakened by their correlation before it becomes a probability.
    """
    gain = np.concatenate([[0.0], np.cumsum(evidence)])
    best = int(np.argmax(gain))
    weight = np.exp((gain - gain[best]) / _correlated(evidence, best))
    weight /= weight.sum()
    middle = np.arange(len(gain)) - best
    return best, float((weight * middle * middle).sum()) ** 0.5


def _correlated(evidence: Float, at: int) -> float:
    """How many neighbours say the same: (1 + r) / (1 - r) of a first-order process with correlation r."""
    worst = 1.0
    for part in (evidence[:at], evidence[at:]):
        if len(part) < 8:
            continue
        off = part - part.mean()
        power = float((off * off).sum())
        r = float((off[1:] * off[:-1]).sum()) / power if power > 0 else 0.0
        worst = max(worst, (1 + min(r, 0.98)) / (1 - min(r, 0.98)))
    return worst


def located(trace: Trace, edges: Sequence[Edge]) -> list[Edge]:
    """Each edge narrowed to the spans of `trace` next to its most likely place."""
    narrowed = []
    for edge in edges:
        low, high = edge.start // trace.size, -(-edge.stop // trace.size)
        part = slice(low, high)
        best, _ = _split(
            _evidence(trace.count[part], np.nan_to_num(trace.mean[part]), np.nan_to_num(trace.variance[part]), edge)
        )
        first, after = max(best - NEXT, 0), min(best + NEXT, high - low)
        # Next to a hole the edge may be anywhere within it.
        while first > 0 and not trace.count[low + first]:
            first -= 1
        while after < high - low and not trace.count[low + after - 1]:
            after += 1
        narrowed.append(
            Edge(
                start=(low + first) * trace.size,
                stop=min((low + after) * trace.size, trace.length),
                before=edge.before,
                after=edge.after,
            )
        )
    return narrowed


def placed(stream: Stream, edges: Sequence[Edge]) -> list[tuple[float, float]]:
    """Sample index (with its fraction) and standard uncertainty in samples of each edge, in one pass at full rate."""
    pieces = [np.full(max(edge.stop - edge.start, 0), np.nan) for edge in edges]
    order = sorted(range(len(edges)), key=lambda k: edges[k].start)
    if order:
        first_sample, last_sample = edges[order[0]].start, max(edge.stop for edge in edges)
        active: list[int] = []
        waiting = order[::-1]
        for first, values in _values(stream, first_sample, last_sample):
            end = first + len(values)
            while waiting and edges[waiting[-1]].start < end:
                active.append(waiting.pop())
            for k in active:
                low, high = max(edges[k].start, first), min(edges[k].stop, end)
                if high > low:
                    pieces[k][low - edges[k].start : high - edges[k].start] = values[low - first : high - first]
            active = [k for k in active if edges[k].stop > end]
    return [_place(edge, values) for edge, values in zip(edges, pieces, strict=True)]


def _place(edge: Edge, values: Float) -> tuple[float, float]:
    good = np.isfinite(values)
    filled = np.where(good, values, 0.0)
    best, wide = _split(_evidence(good.astype(np.float64), filled, np.zeros(len(values)), edge))
    at, u = float(edge.start + best), max(wide, 12**-0.5)
    # A hole at the edge leaves it anywhere within.
    first, after = _hole(good, best)
    if after - first > 1:
        return edge.start + (first + after) / 2, (after - first) / 12**0.5
    sharp = _within(filled, best, edge)
    if sharp is not None and wide < 1.0:
        offset, u = sharp
        at += offset
    return at, u


def _hole(good: NDArray[np.bool_], at: int) -> tuple[int, int]:
    """The run of missing samples that touches position `at`, [first, after)."""
    low = high = at
    while low > 0 and not good[low - 1]:
        low -= 1
    while high < len(good) and not good[high]:
        high += 1
    return low, high


def _within(values: Float, at: int, edge: Edge) -> tuple[float, float] | None:
    """Offset in samples from border `at`, and its uncertainty, from the one sample that saw part of the step.

    A sample that is the mean over its interval holds both levels in proportion to their shares. The levels are those
    of the nearest three samples beyond; None where they scatter too much or are no step.
    """
    found = None
    for partial in (at - 1, at):
        before, after = values[max(partial - 3, 0) : partial], values[partial + 1 : partial + 4]
        if len(before) < 2 or len(after) < 2 or not 0 <= partial < len(values):
            continue
        low, high = float(np.mean(before)), float(np.mean(after))
        scatter = max(float(np.std(before, ddof=1)), float(np.std(after, ddof=1)))
        step = high - low
        if abs(step) <= SHARP * scatter or step * (edge.after.mean - edge.before.mean) <= 0:
            continue
        share = (high - float(values[partial])) / step
        offset = partial + min(max(share, 0.0), 1.0) - at
        u = max(scatter / abs(step), 1e-3)
        if found is None or u < found[1]:
            found = (offset, u)
    return found


def crossings(mean: Float) -> Int:
    """Borders of the pieces of a waveform of two levels, (k + 1,): where it has crossed a third of the step.

    For more pulses than a partition can be asked for. Only 0 and n where there are no two levels far apart.
    """
    n = len(mean)
    low, high = float(np.quantile(mean, 0.02)), float(np.quantile(mean, 0.98))
    for _ in range(10):
        middle = (low + high) / 2
        if not (mean > middle).any() or not (mean <= middle).any():
            break
        low, high = float(np.median(mean[mean <= middle])), float(np.median(mean[mean > middle]))
    if high - low <= SHARP * noise_of(mean):
        return np.array([0, n], dtype=np.int64)
    third = (high - low) / 3
    state = np.where(mean > high - third, 1, np.where(mean < low + third, -1, 0))
    known = np.flatnonzero(state)
    change = known[1:][state[known[1:]] != state[known[:-1]]]
    return np.concatenate([[0], change, [n]]).astype(np.int64)
