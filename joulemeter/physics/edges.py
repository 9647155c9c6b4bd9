"""Edges of trigger lines: where they are, which of them are real, and which are missing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Channel, Quantity, Stream
from joulemeter.errors import UsageError

Int = NDArray[np.int64]
Float = NDArray[np.float64]
# Edges are whole sample indices of a digital line, fractional ones of an analog channel.
Index = TypeVar("Index", np.int64, np.float64)

# Pulses and pauses shorter than this share of the usual ones are a line ringing or bouncing, not inferences.
BOUNCE_SHARE = 0.005
# Pulses come at regular intervals when these scatter by less than this share; then a missing one can be seen.
REGULAR_SHARE = 0.05


class LineScanner:
    """Finds the edges of one digital line, block by block, in constant memory but for the edges themselves."""

    def __init__(self, channel: str, bit: int) -> None:
        self._channel = channel
        self._mask = np.uint8(1 << bit)
        self._level: bool | None = None
        self._edges: list[Int] = []
        self.first_level: bool | None = None
        self.length = 0

    def feed(self, block: Block) -> int:
        """Take one block; the number of edges in it. An edge across a hole counts at the first sample after it."""
        high = (block.data[self._channel] & self._mask) != 0
        if not len(high):
            return 0
        if self._level is None:
            self.first_level = self._level = bool(high[0])
        where = np.flatnonzero(high[1:] != high[:-1]) + 1
        if bool(high[0]) != self._level:
            where = np.concatenate([[0], where])
        self._level = bool(high[-1])
        self.length = block.first_index + len(high)
        if len(where):
            self._edges.append(where + block.first_index)
        return len(where)

    @property
    def edges(self) -> Int:
        """Sample indices at which the line has changed; they alternate, beginning with the opposite of first_level."""
        return np.concatenate(self._edges) if self._edges else np.empty(0, dtype=np.int64)


# Without a stated hysteresis the band around the threshold is this share of the swing.
HYSTERESIS_SHARE = 0.1
# An edge that takes half the swing or more within one sample interval has no shape between its two samples.
STEEP_SHARE = 0.5
# Samples closer to the threshold than this share of their level's distance are on an edge.
PLATEAU_SHARE = 0.8
# So many samples of each level and block are enough to know its noise.
NOISE_SAMPLES = 2048
# Crossings that noise may pile up within the band before they are thinned.
PENDING = 1 << 16


@dataclass(slots=True)
class _Crossings:
    """Runs of crossings of the threshold, (n,) each, and the farthest from it that the signal went, (n + 1,).

    A run is a single crossing, or the first and the last of several between which the band was never left. It rises
    or falls as the sign of the excursion after it. `u` is what a step within one interval or across a hole leaves
    open, in samples; `slope` is per sample.
    """

    first: Float
    last: Float
    slope: Float
    u: Float
    excursion: Float

    def settled(self, half_band: float) -> _Crossings:
        """Runs joined where the signal has not left the band between them; an even number of runs is no edge.

        What comes after the last excursion out of the band is kept as it is: it is not decided yet.
        """
        out = np.flatnonzero(np.abs(self.excursion) >= half_band)
        if not len(out):
            none = self.first[:0]
            return _Crossings(none, none, none, none, self.excursion[-1:])
        a, b = out[:-1], out[1:]
        real = self.excursion[a] * self.excursion[b] < 0
        start, stop = a[real], b[real] - 1
        tail = int(out[-1])
        middle = (start + stop) // 2
        keep = np.concatenate([self.excursion[out[:1]], self.excursion[b[real]], self.excursion[tail + 1 :]])
        # The same side again without an edge between: the farther excursion counts.
        keep[: len(start) + 1] = _farthest(self.excursion[out], np.concatenate([[True], real]))
        return _Crossings(
            np.concatenate([self.first[start], self.first[tail:]]),
            np.concatenate([self.last[stop], self.last[tail:]]),
            np.concatenate([self.slope[middle], self.slope[tail:]]),
            np.concatenate([np.maximum(self.u[start], self.u[stop]), self.u[tail:]]),
            keep,
        )


def _farthest(values: Float, begins: NDArray[np.bool_]) -> Float:
    """Of each run of values of one sign the one farthest from zero."""
    starts = np.flatnonzero(begins)
    size: Float = np.maximum.reduceat(np.abs(values), starts)
    return np.copysign(size, values[starts])


class AnalogScanner:
    """Finds where a voltage crosses a threshold, between samples, with hysteresis.

    `hysteresis` is the whole width of the band around the threshold that the signal must cross to count; None: a
    tenth of the swing seen by the end. Where noise crosses the threshold several times within the band, the edge is
    the middle between the first and the last crossing. Sample k is the value at index k, as INSTANT samples are.
    Borders of blocks leave no trace but in the noise estimate; NaN counts as lost.
    """

    def __init__(self, channel: str, threshold: float, hysteresis: float | None = None) -> None:
        self._channel = channel
        self.threshold = threshold
        self._hysteresis = hysteresis
        empty = np.empty(0)
        self._runs = _Crossings(empty, empty, empty, empty, empty)
        self._compact_at = PENDING
        self._before: tuple[float, float] | None = None
        self._low, self._high = math.inf, -math.inf
        self._noise: list[float] = [0.0, 0.0]  # sum of squares, weight
        self.length = 0

    def feed(self, block: Block) -> int:
        """Take one block; how often the threshold was crossed in it, hysteresis not yet applied."""
        values = np.asarray(block.data[self._channel], dtype=np.float64)
        self.length = block.first_index + len(values)
        good = np.flatnonzero(np.isfinite(values))
        if not len(good):
            return 0
        index, above = (good + block.first_index).astype(np.float64), values[good] - self.threshold
        self._low, self._high = min(self._low, float(above.min())), max(self._high, float(above.max()))
        self._listen(above)
        if self._before is not None:
            index = np.concatenate([[self._before[0]], index])
            above = np.concatenate([[self._before[1]], above])
        self._before = (float(index[-1]), float(above[-1]))
        high = above >= 0
        k = np.flatnonzero(high[1:] != high[:-1])
        span, rise = index[k + 1] - index[k], above[k + 1] - above[k]
        whole = span == 1
        # Across a hole the first sample after it counts, as for a digital line.
        at = np.where(whole, index[k] - above[k] / rise, index[k + 1])
        starts = np.concatenate([[0], k + 1])
        size = np.maximum.reduceat(np.abs(above), starts)
        excursion = np.where(high[starts], size, -size)
        runs = self._runs
        if len(runs.excursion):
            # The signal was last where this block begins.
            joint = max(abs(float(runs.excursion[-1])), abs(float(excursion[0])))
            excursion[0] = math.copysign(joint, excursion[0])
        self._runs = _Crossings(
            np.concatenate([runs.first, at]),
            np.concatenate([runs.last, at]),
            np.concatenate([runs.slope, np.abs(rise)]),
            np.concatenate([runs.u, np.where(whole, 0.0, span / 3**0.5)]),
            np.concatenate([runs.excursion[:-1], excursion]),
        )
        if len(self._runs.first) > self._compact_at:
            # The band can only grow, so what is inside it now stays inside.
            self._runs = self._runs.settled(self.hysteresis / 2)
            self._compact_at = 2 * len(self._runs.first) + PENDING
        return len(k)

    def _listen(self, above: Float) -> None:
        """Scatter around either level: 1.4826 times the median absolute deviation (normal noise)."""
        for level in (above[above >= 0], above[above < 0]):
            if len(level) > 2:
                some = np.abs(level[:: max(1, len(level) // NOISE_SAMPLES)])
                # Samples on the way to the level are no noise of it.
                some = some[some > PLATEAU_SHARE * np.median(some)]
                noise = 1.4826 * float(np.median(np.abs(some - np.median(some))))
                self._noise[0] += len(level) * noise**2
                self._noise[1] += len(level)

    @property
    def swing(self) -> float:
        """Highest minus lowest value seen; 0 before the first."""
        return max(self._high - self._low, 0.0)

    @property
    def hysteresis(self) -> float:
        return HYSTERESIS_SHARE * self.swing if self._hysteresis is None else self._hysteresis

    @property
    def noise(self) -> float:
        """Standard deviation of the signal around its levels, in the channel's unit."""
        return math.sqrt(self._noise[0] / self._noise[1]) if self._noise[1] else 0.0

    def _settled(self) -> _Crossings:
        """What is decided by now."""
        runs = self._runs.settled(self.hysteresis / 2)
        out = np.flatnonzero(np.abs(runs.excursion) >= self.hysteresis / 2)
        count = int(out[-1]) if len(out) else 0
        return _Crossings(
            runs.first[:count], runs.last[:count], runs.slope[:count], runs.u[:count], runs.excursion[: count + 1]
        )

    @property
    def edges(self) -> Float:
        """Fractional sample indices of the crossings; they alternate, beginning with the opposite of first_level."""
        runs = self._settled()
        edges: Float = (runs.first + runs.last) / 2
        return edges

    @property
    def u_edges(self) -> Float:
        """Standard uncertainty of each edge in samples: noise over slope, with what noise, holes and steps hide.

        The interval between several crossings, and one sample interval for a step within it, count as rectangular.
        """
        runs = self._settled()
        steep = (runs.slope >= STEEP_SHARE * self.swing) & (runs.u == 0)
        noise = np.where(runs.u > 0, 0.0, self.noise / runs.slope)
        hidden = np.hypot(np.where(steep, 1.0, 0.0), runs.last - runs.first) / 12**0.5
        # Noise alone never moves an edge out of the run that it made.
        noise = np.where(runs.last > runs.first, np.minimum(noise, runs.last - runs.first), noise)
        u: Float = np.sqrt(noise**2 + hidden**2 + runs.u**2)
        return u

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Of each edge whether it was sampled, and does not lie somewhere in a hole."""
        seen: NDArray[np.bool_] = self._settled().u == 0
        return seen

    @property
    def first_level(self) -> bool | None:
        """Whether the signal was above the threshold when it first left the band; None: it never did."""
        runs = self._settled()
        if not len(runs.excursion) or abs(runs.excursion[0]) < self.hysteresis / 2:
            return None
        return bool(runs.excursion[0] > 0)


def analog_channel(stream: Stream, name: str) -> Channel:
    """A sampled channel by its name, such as c1. Raises UsageError naming those there are."""
    digital = (Quantity.DIGITAL, Quantity.RANGE)
    channels = [channel for channel in stream.header.channels if channel.quantity not in digital]
    for channel in channels:
        if channel.name.lower() == name.lower():
            return channel
    there = ", ".join(channel.name for channel in channels) or "none"
    raise UsageError(f"{stream.header.model} has no channel {name!r}.", f"Its channels: {there}.")


def digital_line(stream: Stream, name: str) -> tuple[Channel, int]:
    """The channel and bit of a digital line. Raises UsageError naming the lines there are."""
    channels = [channel for channel in stream.header.channels if channel.quantity is Quantity.DIGITAL]
    for channel in channels:
        if name in channel.lines:
            return channel, channel.lines.index(name)
    there = ", ".join(line for channel in channels for line in channel.lines) or "none"
    raise UsageError(f"{stream.header.model} has no digital line {name!r}.", f"Its lines: {there}.")


def debounce(edges: NDArray[Index], rate_hz: float, debounce_s: float | None) -> tuple[NDArray[Index], int]:
    """Edges without bounces, and how many were taken out.

    Edges closer together than the limit form a burst. A burst with an odd number is one edge, at its beginning; one
    with an even number is a glitch and no edge.
    """
    if len(edges) < 3:
        return edges, 0
    pauses = np.diff(edges)
    if debounce_s is None:
        # The upper quartiles of pulses and of pauses: where every edge bounces, half of each are bounces.
        usual = min(float(np.quantile(pauses[0::2], 0.75)), float(np.quantile(pauses[1::2], 0.75)))
        limit = usual * BOUNCE_SHARE
    else:
        limit = debounce_s * rate_hz
    close = pauses < limit
    if not close.any():
        return edges, 0
    burst = np.concatenate([[0], np.cumsum(~close)])
    first = np.flatnonzero(np.concatenate([[True], ~close]))
    odd = np.bincount(burst) % 2 == 1
    kept = edges[first[odd]]
    return kept, len(edges) - len(kept)


def missing(starts: NDArray[Index]) -> int:
    """Windows left out of an otherwise regular series; 0 where the series is not regular enough to tell."""
    if len(starts) < 5:
        return 0
    pauses = np.diff(starts)
    middle = float(np.median(pauses))
    scatter = float(np.median(np.abs(pauses - middle)))
    if scatter > REGULAR_SHARE * middle:
        return 0
    multiples = np.round(pauses / middle)
    whole = np.abs(pauses - multiples * middle) <= 2 * REGULAR_SHARE * middle
    return int(np.sum((multiples - 1)[whole & (multiples > 1)]))


def line_spans(stream: Stream, channel: Channel, limit: int = 2000) -> dict[str, list[tuple[float, float]]]:
    """When each line of a digital channel was high, in seconds; lines that never changed and more than `limit`
    spans of one line are left out, being no use in a drawing."""
    scanners = {name: LineScanner(channel.name, bit) for bit, name in enumerate(channel.lines)}
    for block in stream.blocks():
        for scanner in scanners.values():
            scanner.feed(block)
    spans = {}
    for name, scanner in scanners.items():
        borders = scanner.edges.tolist()
        if not borders or len(borders) > 2 * limit:
            continue
        borders = ([0] if scanner.first_level else []) + borders
        borders += [scanner.length] if len(borders) % 2 else []
        at = [border / stream.timebase.rate_hz for border in borders]
        spans[name] = list(zip(at[0::2], at[1::2], strict=True))
    return spans
