"""What a person wants to see of a stream while it comes in: power, totals, lines, and a strip of the last seconds.

Nothing here is a result: results are computed from whole recordings. Energy is the area under the same pieces
(kinds.py, counters.py) all the same, and what was lost is left out of every mean. Memory is constant.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Header, Quantity, Status
from joulemeter.physics.counters import cutter_for
from joulemeter.physics.kinds import Cutter, Float, Line, as_float, source_of
from joulemeter.physics.livelines import LinePulses, Pulses, SignalPulses
from joulemeter.physics.livestrip import BINS, Strip


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A quantity in SI units: its mean since the last look, and mean, least and greatest since the start."""

    now: float
    mean: float
    low: float
    high: float


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


class Live:
    """Figures of one stream. Feed it every block in order, and look as often as you like.

    The strip holds the last `span_s` seconds, of a triggered instrument the last record. `samples` counts those that
    came, `unit` is W where power is known and A where it is not.
    Raises DataError for a stream that holds neither power nor current.
    """

    def __init__(self, header: Header, span_s: float) -> None:
        self._header = header
        self._source = source_of(header)
        self.unit = "W" if self._source.has_power else "A"
        self._main = self._source.main
        self._strip = Strip(span_s / BINS)
        self._power, self._current, self._volts = _Tally(), _Tally(), _Tally()
        self._started = False
        self._cutter: Cutter | None = None
        self.samples = self._lost = self._clipped = 0
        self._records = Records(count=0)
        self._record_s = 0.0
        self._record = (0.0, 0.0)  # energy and charge so far
        self._origin_s = 0.0  # of the strip
        self._lines = [
            (channel.name, bit, LinePulses(line, channel.falls_only, span_s / BINS))
            for channel in header.channels
            if channel.quantity is Quantity.DIGITAL
            for bit, line in enumerate(channel.lines)
        ]
        signal = header.channel(Quantity.SIGNAL) if header.triggered else None
        self._signal = None if signal is None else SignalPulses(signal.name)

    def feed(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            if len(block):
                self._take(block)

    def _take(self, block: Block) -> None:
        if not self._started:
            self._cutter = cutter_for(self._source, self._header.rate_hz, block)
        new_record = self._header.triggered and (not self._started or block.lost_before > 0)
        self._started = True
        self.samples += len(block)
        if block.lost_before:
            self._lost += 0 if self._header.triggered else block.lost_before
            for _, _, line in self._lines:
                line.interrupt(unseen=self._header.triggered)
        if block.status is not None:
            self._clipped += int(((block.status & Status.CLIPPED) != 0).sum())
        if new_record:
            self._begin_record(block)
        self._add(block)
        if self._source.voltage is not None:
            volts = as_float(block.data[self._source.voltage.name])
            volts = volts[np.isfinite(volts)]
            if len(volts):
                self._volts.add((volts, volts), np.ones(len(volts)))
        for channel, bit, line in self._lines:
            high = (block.data[channel] & np.uint8(1 << bit)) != 0
            line.feed(high, lambda at: self._seconds(block, at), self._origin_s)

    def _seconds(self, block: Block, at: NDArray[np.intp]) -> Float:
        if block.times_ns is not None:
            return as_float(block.times_ns[at]) * 1e-9
        seconds: Float = (block.first_index + at) / self._header.rate_hz
        return seconds

    def _begin_record(self, block: Block) -> None:
        step_s = len(block) / self._header.rate_hz / BINS
        self._strip = Strip(step_s)
        self._origin_s = block.first_index / self._header.rate_hz
        self._record_s, self._record = 0.0, (0.0, 0.0)
        self._records = Records(count=self._records.count + 1)
        for _, _, line in self._lines:
            line.restart(step_s)

    def _add(self, block: Block) -> None:
        begin, end, power, current = self._pieces(block)
        energy = charge = 0.0
        length_s = end - begin
        if len(begin):
            if power is not None:
                energy = self._power.add(power, length_s)
            if current is not None:
                charge = self._current.add(current, length_s)
            shown = power if power is not None else current
            if shown is not None:
                self._strip.add(begin - self._origin_s, end - self._origin_s, *shown)
        if self._header.triggered:
            self._add_to_record(block, energy, charge)

    def _add_to_record(self, block: Block, energy_j: float, charge_c: float) -> None:
        self._record_s += len(block) / self._header.rate_hz
        self._record = (self._record[0] + energy_j, self._record[1] + charge_c)
        pulse_j = self._records.pulse_j
        pulse = None if self._signal is None else self._signal.feed(block, self._header.rate_hz)
        power = self._source.power_w(block)
        if pulse is not None and power is not None:
            inside = power[math.ceil(pulse[0]) : math.floor(pulse[1]) + 1]
            inside = inside[np.isfinite(inside)]
            pulse_j = float(inside.mean()) * (pulse[1] - pulse[0]) / self._header.rate_hz if len(inside) else None
        self._records = Records(
            count=self._records.count,
            duration_s=self._record_s,
            energy_j=self._record[0] if self._source.has_power else None,
            charge_c=self._record[1] if self._source.current is not None else None,
            pulse_j=pulse_j,
        )

    def _pieces(self, block: Block) -> tuple[Float, Float, Line | None, Line | None]:
        """Begin and end of each piece in seconds of the stream, with power and current at both."""
        if self._cutter is not None:
            pieces = self._cutter.cut(block)
            return pieces.begin * self._cutter.tick_s, pieces.end * self._cutter.tick_s, pieces.power, pieces.current
        power, channel = self._source.power_w(block), self._source.current
        current = None if channel is None else as_float(block.data[channel.name])
        good = np.ones(len(block), dtype=np.bool_)
        for values in (power, current):
            if values is not None:
                good &= np.isfinite(values)
        index = as_float(np.flatnonzero(good) + block.first_index)
        power, current = (None if values is None else values[good] for values in (power, current))
        period_s = 1.0 / self._header.rate_hz
        return (
            index * period_s,
            (index + 1) * period_s,
            None if power is None else (power, power),
            None if current is None else (current, current),
        )

    def look(self) -> Figures:
        """The figures now; what is called "now" in them begins anew."""
        power, current, volts = self._power.look(), self._current.look(), self._volts.look()
        lines = [line.look() for _, _, line in self._lines]
        return Figures(
            samples=self.samples,
            lost=self._lost,
            clipped=self._clipped,
            covered_s=self._power.seen_s or self._current.seen_s,
            power=power,
            current=current,
            volts=volts.now if volts is not None else self._source.volts,
            energy_j=self._power.area if power is not None else None,
            charge_c=self._current.area if current is not None else None,
            pulses=(*lines, *(() if self._signal is None else (self._signal.look(),))),
            records=self._records if self._header.triggered else None,
            strip=self._strip,
        )
