"""Running totals of energy or charge, brought to pieces of constant power.

Energy between two readings is their difference, and a straight line in between. A counter keeps counting while
samples are lost, so it bridges holes. Where it is read more often than it moves (Channel.refresh_s), only readings at
which it moved are used: the others repeat an old one. One that stands still for more than two refreshes is taken to
be right. It may turn over (Channel.wrap), even several times between two readings, and it may begin anew: what cannot
be told apart is a hole, not a guess.
"""

from __future__ import annotations

import math
from collections import deque

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Array, Block, Kind
from joulemeter.physics.kinds import Bool, Cutter, Float, Pieces, Source, as_float, forwards, joined

# Turns must not imply more than this many times the highest power seen before.
PLAUSIBLE = 10.0
# Where that leaves several answers, power must lie within the last RECENT steps' range, widened by this share.
RECENT, MARGIN = 8, 0.1


def cutter_for(source: Source, rate_hz: float, first: Block, max_gap_s: float | None = None) -> Cutter | None:
    """What cuts a stream that begins with block `first`; None: evenly spaced means, which need no pieces."""
    main, polled = source.main, first.times_ns is not None
    if main.kind is Kind.CUMULATIVE:
        return CounterCutter(source, rate_hz, polled, max_gap_s)
    if main.kind is Kind.MEAN and not polled and not main.refresh_s:
        return None
    return Cutter(source, rate_hz, polled, max_gap_s)


class CounterCutter(Cutter):
    """A Cutter of CUMULATIVE channels. Between blocks it holds the last reading that moved and the last one of all."""

    def __init__(self, source: Source, rate_hz: float, polled: bool, max_gap_s: float | None = None) -> None:
        super().__init__(source, rate_hz, polled, max_gap_s)
        self._still_gap = 0.0
        self._turns = Turns(self.main.wrap)

    def cut(self, block: Block) -> Pieces:
        columns = self._columns(block)
        columns.pop("status", None)
        lanes = {"energy": self.source.power, "charge": self.source.current, "voltage": self.source.voltage}
        columns |= {name: as_float(block.data[lane.name]) for name, lane in lanes.items() if lane is not None}
        main = "charge" if self.source.power is None else "energy"
        read = np.isfinite(columns[main])
        if not read.all():
            columns = {name: values[read] for name, values in columns.items()}
        held = len(self._carry["tick"]) if self._carry else 0
        if held:
            columns = joined(self._carry, columns)
        tick = columns["tick"]
        last = len(tick) - 1
        if last < 0:
            return self._between(columns, np.empty(0))
        gaps = forwards(np.diff(tick))
        if held == 2:
            gaps[0] = self._still_gap
        knots = self._knots(tick, columns[main])
        knot = int(knots[-1])
        self._carry = {name: values[[knot, last] if knot < last else [knot]] for name, values in columns.items()}
        self._still_gap = float(gaps[knot:].max()) if knot < last else 0.0
        self.reached = float(tick[knot])
        widest = np.maximum.reduceat(gaps[:knot], knots[:-1]) if knot else np.empty(0)
        return self._between({name: values[knots] for name, values in columns.items()}, widest)

    def finish(self) -> Pieces | None:
        if not self._carry or len(self._carry["tick"]) < 2:
            return None
        columns, self._carry = self._carry, {}
        self.reached = float(columns["tick"][-1])
        return self._between(columns, np.array([self._still_gap]))

    def _knots(self, tick: Float, total: Float) -> NDArray[np.intp]:
        """Positions of the readings that tell something new, the first always among them."""
        position = np.arange(len(tick))
        if not self.refresh:
            return position
        moved = np.concatenate([[True], total[1:] != total[:-1]])
        since = np.maximum.accumulate(np.where(moved, position, 0))
        # The last reading before a move ends a standstill, if that was longer than a late refresh.
        still = np.concatenate([moved[1:], [False]]) & (tick - tick[since] > 2 * self.refresh)
        return np.flatnonzero(moved | still)

    def _between(self, knots: dict[str, Array], widest: Float) -> Pieces:
        """Pieces between knots. `widest` (n - 1,) is the widest spacing of readings between two of them, in ticks."""
        begin, end = knots["tick"][:-1], knots["tick"][1:]
        seconds = (end - begin) * self.tick_s
        good = (seconds > 0) & (widest <= self._max_gap)
        rates: dict[str, Float] = {}
        resets: list[tuple[float, float]] = []
        for name, channel in (("energy", self.source.power), ("charge", self.source.current)):
            if channel is None:
                continue
            step = np.diff(knots[name])
            if channel is self.main:
                step, known = self._turns.add(step, seconds)
                resets = list(zip(begin[~known].tolist(), end[~known].tolist(), strict=True))
                good &= known
            else:
                step = np.where(step < 0, step + (channel.wrap or math.nan), step)
                good &= np.isfinite(step)
            rates[name] = np.divide(step, seconds, where=seconds > 0, out=np.zeros_like(step))
        power, current = rates.get("energy"), rates.get("charge")
        if power is None and current is not None and self.source.has_power:
            measured = knots.get("voltage")
            volts = self.source.volts or 0.0 if measured is None else (measured[:-1] + measured[1:]) / 2
            power = current * volts
            good &= np.isfinite(power)
        return Pieces(
            begin=begin[good],
            end=end[good],
            power=None if power is None else (power[good], power[good]),
            current=None if current is None else (current[good], current[good]),
            ranges=knots["range"][:-1][good] if "range" in knots else None,
            resets=resets,
        )


class Turns:
    """Adds the turns of a counter to its steps. Power so far says what is plausible."""

    def __init__(self, wrap: float | None) -> None:
        self._wrap = wrap
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._peak = 0.0

    def add(self, step: Float, seconds: Float) -> tuple[Float, Bool]:
        """Steps (n,) over so many seconds with turns added, and whether each is known."""
        known = np.ones(len(step), dtype=np.bool_)
        rates = np.divide(step, seconds, where=seconds > 0, out=np.zeros_like(step))
        strange = step < 0
        if self._wrap is not None and len(step):
            highest = max(self._peak, float(rates.max()))
            strange |= seconds * highest * PLAUSIBLE >= self._wrap
        step, done = step.copy(), 0
        for k in np.flatnonzero(strange).tolist():
            self._remember(rates[done:k])
            done = k + 1
            turns = self._count(float(step[k]), float(seconds[k]))
            known[k] = turns is not None
            step[k] += (turns or 0) * (self._wrap or 0.0)
            if turns is not None and seconds[k] > 0:
                self._remember(step[k : k + 1] / seconds[k : k + 1])
        self._remember(rates[done:])
        return step, known

    def _remember(self, rates: Float) -> None:
        if len(rates):
            self._recent.extend(rates[-RECENT:].tolist())
            self._peak = max(self._peak, float(rates.max()))

    def _count(self, step: float, seconds: float) -> int | None:
        """How often the counter went round in one step; None where that cannot be told, or it began anew."""
        if self._wrap is None:
            return None
        if not self._recent:
            return 1 if step < 0 else 0
        answers = self._between(step, 0.0, PLAUSIBLE * self._peak * seconds)
        if len(answers) > 1:
            low, high = min(self._recent) * (1 - MARGIN), max(self._recent) * (1 + MARGIN)
            answers = self._between(step, low * seconds, high * seconds)
        return answers[0] if len(answers) == 1 else None

    def _between(self, step: float, low: float, high: float) -> range:
        """The numbers of turns that put the step between two energies."""
        wrap = self._wrap or math.inf
        return range(max(0, math.ceil((low - step) / wrap)), math.floor((high - step) / wrap) + 1)
