"""What a person wants to see of a stream while it comes in: power, totals, lines, and a strip of the last seconds.

Nothing here is a result: results are computed from whole recordings. Energy is the area under the same pieces
(kinds.py, counters.py) all the same, and what was lost is left out of every mean. Memory is constant.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Header, Kind, Quantity, Status
from joulemeter.physics.counters import cutter_for
from joulemeter.physics.edges import AnalogScanner
from joulemeter.physics.kinds import Bool, Cutter, Float, Line, as_float, source_of

# A strip keeps so many bins; a terminal shows several of them in one column.
BINS = 600
# Pulses of a line that are remembered.
LAST_PULSES = 10
# A signal that swings less than this many times its noise is quiet.
CLEAR_SWING = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A quantity in SI units: its mean since the last look, and mean, least and greatest since the start."""

    now: float
    mean: float
    low: float
    high: float


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulses:
    """A digital line, or the trigger channel of a triggered instrument.

    `count` are whole pulses, `widths_s` and `periods_s` those of the last LAST_PULSES, latest last. `high` is None
    where the instrument does not show the level; then falling edges are counted. `strip` is of a level of 0 and 1, None
    where the line has never changed.
    """

    name: str
    high: bool | None
    count: int
    widths_s: tuple[float, ...]
    periods_s: tuple[float, ...]
    strip: Strip | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Of a triggered instrument: how many records, and how long the last one was with its energy and charge.

    `pulse_j` is the energy of the last pulse in it. None: unknown.
    """

    count: int
    duration_s: float | None = None
    energy_j: float | None = None
    charge_c: float | None = None
    pulse_j: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """`covered_s` is the time that means and totals stand for; None is unknown, never 0.

    `volts` is the mean since the last look, or what was stated. `strip` shows power, or current where power is unknown.
    """

    samples: int
    lost: int
    clipped: int
    covered_s: float
    power: Level | None
    current: Level | None
    volts: float | None
    energy_j: float | None
    charge_c: float | None
    pulses: tuple[Pulses, ...]
    records: Records | None
    strip: Strip


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
        late = end > oldest_s
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


class _Tally:
    """Area, extremes and time of one quantity, over all and since the last look."""

    def __init__(self) -> None:
        self.area = self.seen_s = 0.0
        self._low, self._high = math.inf, -math.inf
        self._new_area = self._new_s = 0.0
        self._now: float | None = None

    def add(self, line: Line, length_s: Float) -> float:
        """The area that came with these pieces."""
        area, seen_s = float(((line[0] + line[1]) / 2 * length_s).sum()), float(length_s.sum())
        for values in line:
            self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        self.area += area
        self.seen_s += seen_s
        self._new_area += area
        self._new_s += seen_s
        return area

    def look(self) -> Level | None:
        """A meter that has told nothing new since the last look still shows what it said last."""
        if self._new_s:
            self._now = self._new_area / self._new_s
            self._new_area = self._new_s = 0.0
        if self._now is None:
            return None
        return Level(now=self._now, mean=self.area / self.seen_s, low=self._low, high=self._high)


class _LinePulses:
    """Pulses of one digital line, block by block."""

    def __init__(self, name: str, falls_only: bool, step_s: float) -> None:
        self.name = name
        self._falls_only = falls_only
        self._step_s = step_s
        self._strip: Strip | None = None
        self._high: bool | None = None
        self._begun = False
        self._count = 0
        self._rose_s: float | None = None
        self._last_s: float | None = None
        self._widths: deque[float] = deque(maxlen=LAST_PULSES)
        self._periods: deque[float] = deque(maxlen=LAST_PULSES)

    def interrupt(self, unseen: bool) -> None:
        """A hole: the pulse across it has no known width. `unseen`: nobody was to look, so it is no edge either."""
        self._rose_s = self._last_s = None
        if unseen:
            self._high, self._begun = None, False

    def feed(self, high: Bool, seconds: Callable[[NDArray[np.intp]], Float], origin_s: float) -> None:
        """`seconds` gives the time of a sample by its place in the block; the strip begins at `origin_s`."""
        edges = np.flatnonzero(high[1:] != high[:-1]) + 1
        if self._high is not None and bool(high[0]) != self._high:
            edges = np.concatenate([[0], edges])
        self._high = bool(high[-1])
        if len(edges):
            self._take(high[edges], seconds(edges))
            self._strip = self._strip or Strip(self._step_s)
        if self._strip is not None and not self._falls_only:
            at = np.concatenate([[0], edges[edges > 0], [len(high) - 1]]).astype(np.intp)
            times = seconds(at) - origin_s
            value = as_float(high[at[:-1]])
            self._strip.add(times[:-1], times[1:], value, value)

    def restart(self, step_s: float) -> None:
        """A strip of a new record."""
        self._step_s, self._strip = step_s, None if self._strip is None else Strip(step_s)

    def _take(self, rising: Bool, at_s: Float) -> None:
        falls = int((~rising).sum())
        # A fall without a rise before it ends a pulse that had begun too early.
        if not self._falls_only and not self._begun and not rising[0]:
            falls -= 1
        self._begun = self._begun or bool(rising.any())
        self._count += falls
        some = slice(-2 * LAST_PULSES - 2, None)
        for rises, edge_s in zip(rising[some].tolist(), at_s[some].tolist(), strict=True):
            if rises is self._falls_only:
                if not rises and self._rose_s is not None:
                    self._widths.append(edge_s - self._rose_s)
                continue
            self.period(edge_s)
            self._rose_s = None if self._falls_only else edge_s
        if self._falls_only:
            return

    def period(self, edge_s: float) -> None:
        if self._last_s is not None:
            self._periods.append(edge_s - self._last_s)
        self._last_s = edge_s

    def look(self) -> Pulses:
        return Pulses(
            name=self.name,
            high=None if self._falls_only else self._high,
            count=self._count,
            widths_s=tuple(self._widths),
            periods_s=tuple(self._periods),
            strip=self._strip,
        )
