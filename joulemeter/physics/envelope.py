"""The waveform thinned for drawing, of every kind of samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from joulemeter.capture import Block, Stream
from joulemeter.physics.counters import cutter_for
from joulemeter.physics.kinds import Float, Pieces, Source, as_float, source_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Lowest, highest and mean value in each of n equal spans, (n,) float64; NaN where nothing was recorded."""

    start_s: float
    step_s: float
    unit: str
    low: Float
    high: Float
    mean: Float


class _Buckets:
    """Extremes, area and seen time of equal spans of `size` ticks."""

    def __init__(self, duration: float, size: float) -> None:
        self.size = size
        # A billionth of a span is rounding.
        self.count = max(1, math.ceil(duration / size - 1e-9))
        self._low, self._high = np.full(self.count, np.inf), np.full(self.count, -np.inf)
        self._total, self._seen = np.zeros(self.count), np.zeros(self.count)

    def add_samples(self, blocks: Iterable[Block], source: Source) -> None:
        """Evenly spaced samples; one loop, since arrays that die at each call cost more than the work on them."""
        size = int(self.size)
        for block in blocks:
            values = source.power_w(block)
            if values is None:
                values = as_float(block.data[source.main.name])
            good = np.isfinite(values)
            where = (block.first_index + np.arange(len(values))) // size
            inside = good & (where < self.count)
            values, where = values[inside], where[inside]
            if not len(values):
                continue
            starts = np.flatnonzero(np.concatenate([[True], where[1:] != where[:-1]]))
            at = where[starts]
            np.minimum.at(self._low, at, np.minimum.reduceat(values, starts))
            np.maximum.at(self._high, at, np.maximum.reduceat(values, starts))
            np.add.at(self._total, at, np.add.reduceat(values, starts))
            np.add.at(self._seen, at, np.diff(np.concatenate([starts, [len(values)]])))

    def add_pieces(self, pieces: Pieces) -> None:
        """Pieces are cut at the borders of the spans first."""
        first = np.clip(np.floor(pieces.begin / self.size).astype(np.intp), 0, self.count - 1)
        last = np.clip(np.ceil(pieces.end / self.size).astype(np.intp) - 1, first, self.count - 1)
        each = last - first + 1
        piece = np.repeat(np.arange(len(first)), each)
        at = first[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(each) - each, each)
        begin, end = pieces.begin[piece], pieces.end[piece]
        start, stop = np.maximum(begin, at * self.size), np.minimum(end, (at + 1) * self.size)
        slope = (pieces.main[1][piece] - pieces.main[0][piece]) / (end - begin)
        a, b = (pieces.main[0][piece] + slope * (edge - begin) for edge in (start, stop))
        length = np.maximum(stop - start, 0.0)
        np.minimum.at(self._low, at, np.minimum(a, b))
        np.maximum.at(self._high, at, np.maximum(a, b))
        np.add.at(self._total, at, (a + b) / 2 * length)
        np.add.at(self._seen, at, length)

    def envelope(self, tick_s: float, unit: str) -> Envelope:
        empty = self._seen == 0
        self._low[empty] = self._high[empty] = np.nan
        mean = np.where(empty, np.nan, self._total / np.where(empty, 1.0, self._seen))
        return Envelope(start_s=0.0, step_s=self.size * tick_s, unit=unit, low=self._low, high=self._high, mean=mean)


def envelope(stream: Stream, buckets: int = 4000) -> Envelope:
    """The waveform as power (or current where power is not to be had), thinned for drawing but with every peak kept.

    Of a counter: the mean power between its readings. Raises DataError where there is nothing to draw.
    """
    source = source_of(stream.header)
    rate_hz = stream.timebase.rate_hz
    unit = "W" if source.has_power else "A"
    length = max(stream.length, 1)
    size: float = max(1, -(-length // buckets))
    blocks = iter(stream.blocks())
    first = next((block for block in blocks if len(block)), None)
    if first is None or (cutter := cutter_for(source, rate_hz, first)) is None:
        even = _Buckets(length, size)
        even.add_samples(chain([] if first is None else [first], blocks), source)
        return even.envelope(1.0 / rate_hz, unit)
    if cutter.polled:
        length = max(int(block.times_ns[-1]) for block in stream.blocks() if block.times_ns is not None and len(block))
        size = max(length / buckets, 1.0)
    cut = _Buckets(length, size)
    for block in chain([first], blocks):
        if len(block):
            cut.add_pieces(cutter.cut(block))
    rest = cutter.finish()
    if rest is not None:
        cut.add_pieces(rest)
    return cut.envelope(cutter.tick_s, unit)
