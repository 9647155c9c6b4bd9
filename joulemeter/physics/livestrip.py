"""A strip of the last seconds of a stream, for drawing while it comes in. Memory is constant."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from joulemeter.physics.kinds import Float

# A strip keeps so many bins; a terminal shows several of them in one column.
BINS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Least, greatest and mean value in each of n equal spans, (n,) float64; NaN where nothing was measured."""

    low: Float
    high: Float
    mean: Float
    step_s: float

    @property
    def top(self) -> float | None:
        """The greatest value shown, or None."""
        return float(np.nanmax(self.high)) if np.isfinite(self.high).any() else None


class Strip:
    """Least, greatest and mean value in each of the last BINS bins of `step_s` seconds."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self._newest: int | None = None
        self._low, self._high = np.full(BINS, np.inf), np.full(BINS, -np.inf)
        self._total, self._seen = np.zeros(BINS), np.zeros(BINS)

    def add(self, begin: Float, end: Float, a: Float, b: Float) -> None:
        """Pieces in order of time, (n,) each: begin and end in seconds, the value at both."""
        oldest_s = end[-1:] - BINS * self.step_s
        late = (end > oldest_s) & (end > begin)
        begin, end, a, b = begin[late], end[late], a[late], b[late]
        if not len(begin):
            return
        if float((end - begin).max()) > self.step_s:
            begin, end, a, b = self._split(np.maximum(begin, oldest_s), end, a, b)
        where = np.floor((begin + end) / 2 / self.step_s).astype(np.int64)
        self._advance(int(where[-1]))
        starts = np.flatnonzero(np.concatenate([[True], where[1:] != where[:-1]]))
        at = where[starts] % BINS
        length = end - begin
        self._low[at] = np.minimum(self._low[at], np.minimum.reduceat(np.minimum(a, b), starts))
        self._high[at] = np.maximum(self._high[at], np.maximum.reduceat(np.maximum(a, b), starts))
        self._total[at] += np.add.reduceat((a + b) / 2 * length, starts)
        self._seen[at] += np.add.reduceat(length, starts)

    def _split(self, begin: Float, end: Float, a: Float, b: Float) -> tuple[Float, Float, Float, Float]:
        """The same pieces, cut at the borders of bins."""
        first = np.floor(begin / self.step_s).astype(np.int64)
        each = np.maximum(np.ceil(end / self.step_s).astype(np.int64) - first, 1)
        piece = np.repeat(np.arange(len(begin)), each)
        at = first[piece] + np.arange(len(piece)) - np.repeat(np.cumsum(each) - each, each)
        start, stop = np.maximum(begin[piece], at * self.step_s), np.minimum(end[piece], (at + 1) * self.step_s)
        slope = (b - a)[piece] / (end - begin)[piece]
        from_a, from_b = (a[piece] + slope * (edge - begin[piece]) for edge in (start, stop))
        real = stop > start
        return start[real], stop[real], from_a[real], from_b[real]

    def _advance(self, newest: int) -> None:
        """Clear the bins that come into use."""
        if self._newest is not None and newest <= self._newest:
            return
        fresh = BINS if self._newest is None else min(newest - self._newest, BINS)
        at = np.arange(newest - fresh + 1, newest + 1) % BINS
        self._low[at], self._high[at] = np.inf, -np.inf
        self._total[at] = self._seen[at] = 0.0
        self._newest = newest

    def columns(self, count: int) -> Columns:
        """At most `count` columns, the newest last. Their borders stay where they are while time goes on."""
        width = math.ceil(BINS / max(count, 1))
        shown = BINS // width
        newest = self._newest if self._newest is not None else 0
        bins = (np.arange(newest // width - shown + 1, newest // width + 1) * width)[:, None] + np.arange(width)
        at = bins % BINS
        seen = np.where(bins <= newest, self._seen[at], 0.0)
        empty = seen.sum(axis=1) == 0
        total = np.where(seen > 0, self._total[at], 0.0).sum(axis=1)
        return Columns(
            low=np.where(empty, np.nan, np.where(seen > 0, self._low[at], np.inf).min(axis=1)),
            high=np.where(empty, np.nan, np.where(seen > 0, self._high[at], -np.inf).max(axis=1)),
            mean=np.where(empty, np.nan, total / np.where(empty, 1.0, seen.sum(axis=1))),
            step_s=width * self.step_s,
        )
