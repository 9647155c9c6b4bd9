"""Kinds of samples, brought to one form: pieces of time in which power is a straight line.

    MEAN        evenly spaced: sample k stands for [k, k + 1). Polled: a reading stands for the time since the one
                before it, for a mean cannot be told before it has passed
    INSTANT     sample k is the value at the beginning of interval k (polled: at its stamp); a straight line joins it
                to the next. The last sample before a hole or the end therefore covers no time
    STATE       holds until the next sample
    CUMULATIVE  reading k is the total at the beginning of interval k; see counters.py

Times are in ticks: sample intervals where samples are evenly spaced, nanoseconds where they are polled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Array, Block, Channel, Header, Kind, Quantity, Status, Stream
from joulemeter.errors import DataError

Float = NDArray[np.float64]
Bool = NDArray[np.bool_]
Line = tuple[Float, Float]  # a quantity at the beginning and at the end of each piece, (n,) each

COUNTERS = (Quantity.ENERGY, Quantity.CHARGE)
# Polled readings further apart than this many periods are a hole, not a straight line.
MAX_GAP_PERIODS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How power and current are had from a stream's channels, totals included. None: not to be had."""

    power: Channel | None
    current: Channel | None
    voltage: Channel | None
    volts: float | None
    range: Channel | None

    @property
    def has_power(self) -> bool:
        return self.power is not None or (
            self.current is not None and (self.voltage is not None or self.volts is not None)
        )

    @property
    def main(self) -> Channel:
        """The channel whose kind decides. Raises DataError where there is none."""
        main = self.power or self.current
        if main is None:
            raise DataError("The stream holds neither current nor power.", "Nothing can be integrated.")
        return main

    def power_w(self, block: Block) -> Float | None:
        """Power of each sample, (n,) watts; None for a counter, which tells it only between two readings."""
        main = self.power or self.current
        if main is None or main.kind is Kind.CUMULATIVE:
            return None
        if self.power is not None:
            return as_float(block.data[self.power.name])
        current = as_float(block.data[main.name])
        if self.voltage is not None:
            return current * as_float(block.data[self.voltage.name])
        return None if self.volts is None else current * self.volts


def source_of(header: Header) -> Source:
    """Samples or counters, whichever the header names first; within them power or energy before current or charge.

    Raises DataError for a quantity whose kind makes no sense.
    """
    flows = [
        channel
        for channel in header.channels
        if channel.quantity in (Quantity.POWER, Quantity.CURRENT, *COUNTERS) and not channel.aside
    ]
    for channel in flows:
        if (channel.kind is Kind.CUMULATIVE) != (channel.quantity in COUNTERS):
            raise DataError(
                f"Channel {channel.name!r} of {header.model} is a {channel.quantity} and holds {channel.kind} samples, "
                "which cannot be integrated.",
                "Totals of energy or charge are cumulative; power and current are not.",
            )
    same = [channel for channel in flows if channel.kind is Kind.CUMULATIVE] if _counts(flows[:1]) else flows
    first = {channel.quantity: channel for channel in reversed(same)}
    counting = _counts(same[:1])
    return Source(
        power=first.get(Quantity.ENERGY if counting else Quantity.POWER),
        current=first.get(Quantity.CHARGE if counting else Quantity.CURRENT),
        voltage=header.channel(Quantity.VOLTAGE),
        volts=None if header.voltage is None else header.voltage.volts,
        range=header.channel(Quantity.RANGE),
    )


def reading_s(header: Header) -> float:
    """How long one reading stands for: the sample period, or longer where there is something new more seldom."""
    return max(1 / header.rate_hz, source_of(header).main.refresh_s or 0.0)


def _counts(channels: list[Channel]) -> bool:
    return any(channel.kind is Kind.CUMULATIVE for channel in channels)


def as_float(values: Array) -> Float:
    return np.asarray(values, dtype=np.float64)


@dataclass(slots=True, kw_only=True)
class Pieces:
    """Consecutive pieces of time, (n,) each, holes left out. `begin` and `end` in ticks, power in watts, current in A.

    `ranges`, `status` and `hidden` (see altered_bound) belong to the sample each piece rests on. `resets` are spans
    in which a counter lost count.
    """

    begin: Float
    end: Float
    power: Line | None
    current: Line | None
    ranges: Array | None = None
    status: NDArray[np.uint8] | None = None
    hidden: Float | None = None
    resets: list[tuple[float, float]] = field(default_factory=list)

    @property
    def main(self) -> Line:
        line = self.power if self.power is not None else self.current
        assert line is not None  # noqa: S101 -- Source.main has refused streams without either
        return line

    def touched(self, start: float, stop: float) -> tuple[int, int]:
        """The pieces [i, j) that lie at least in part in [start, stop)."""
        i = int(np.searchsorted(self.end, start, side="right"))
        return i, max(int(np.searchsorted(self.begin, stop, side="left")), i)

    def within(self, start: float, stop: float) -> tuple[Pieces, float]:
        """What lies in [start, stop), border pieces cut, and how many whole pieces that makes."""
        i, j = self.touched(start, stop)
        if i == j:
            return Pieces(begin=self.begin[:0], end=self.end[:0], power=None, current=None), 0.0
        begin, end = self.begin[i:j].copy(), self.end[i:j].copy()
        begin[0], end[-1] = max(begin[0], start), min(end[-1], stop)
        first = (begin[0] - self.begin[i]) / (self.end[i] - self.begin[i])
        last = (end[-1] - self.begin[j - 1]) / (self.end[j - 1] - self.begin[j - 1])

        def cut(line: Line | None) -> Line | None:
            if line is None:
                return None
            a, b = line[0][i:j].copy(), line[1][i:j].copy()
            # Both from the uncut line: first and last may be the same piece.
            a[0], b[-1] = a[0] + (b[0] - a[0]) * first, a[-1] + (b[-1] - a[-1]) * last
            return a, b

        part = Pieces(
            begin=begin,
            end=end,
            power=cut(self.power),
            current=cut(self.current),
            ranges=None if self.ranges is None else self.ranges[i:j],
            status=None if self.status is None else self.status[i:j],
            hidden=None if self.hidden is None else self.hidden[i:j],
        )
        return part, float(j - i - first - (1.0 - last))


class Cutter:
    """Cuts the blocks of one stream into pieces, in order and constant memory; block borders leave no trace.

    `reached` is the tick up to which everything that was seen has been cut. What is not known about the edge of a
    window lies within `reach` ticks of it.
    """

    def __init__(self, source: Source, rate_hz: float, polled: bool, max_gap_s: float | None = None) -> None:
        self.source = source
        self.main = source.main
        self.polled = polled
        self.tick_s = 1e-9 if polled else 1.0 / rate_hz
        self.reached = -math.inf
        refresh_s = self.main.refresh_s or 0.0
        self.refresh = refresh_s / self.tick_s
        spaced = polled or self.main.kind is Kind.CUMULATIVE
        self.reach = max(refresh_s, 1.0 / rate_hz if spaced else 0.0) / self.tick_s
        if max_gap_s is None and self.main.kind is not Kind.CUMULATIVE:
            max_gap_s = MAX_GAP_PERIODS * max(1.0 / rate_hz, refresh_s)
        self._max_gap = math.inf if max_gap_s is None else max_gap_s / self.tick_s
        if not polled and self.main.kind is not Kind.CUMULATIVE:
            # Neighbours are one tick apart; anything wider is a hole whether or not the block says so.
            self._max_gap = 1.5
        self._carry: dict[str, Array] = {}

    def cut(self, block: Block) -> Pieces:
        """The pieces that this block completes. Raises DataError for stamps that run backwards."""
        columns = self._columns(block)
        power = self.source.power_w(block)
        if power is not None:
            columns["power"] = power
        if self.source.current is not None:
            columns["current"] = as_float(block.data[self.source.current.name])
        if self.main.kind is Kind.MEAN and not self.polled:
            tick = columns["tick"]
            self.reached = float(tick[-1]) + 1.0
            return self._pieces(columns, tick, tick + 1.0, slice(None), slice(None))
        if self._carry and not block.lost_before:
            columns = joined(self._carry, columns)
        self._carry = {name: values[-1:] for name, values in columns.items()}
        tick = columns["tick"]
        self.reached = float(tick[-1])
        left, right = slice(None, -1), slice(1, None)
        before, after = {Kind.MEAN: (right, right), Kind.STATE: (left, left)}.get(self.main.kind, (left, right))
        return self._pieces(columns, tick[:-1], tick[1:], before, after)

    def finish(self) -> Pieces | None:
        """What was held back until the end of the stream."""
        return None

    def _columns(self, block: Block) -> dict[str, Array]:
        ticks = block.first_index + np.arange(len(block)) if block.times_ns is None else block.times_ns
        columns: dict[str, Array] = {"tick": as_float(ticks)}
        if block.status is not None:
            columns["status"] = block.status
        if self.source.range is not None:
            columns["range"] = block.data[self.source.range.name]
        return columns

    def _pieces(self, columns: dict[str, Array], begin: Float, end: Float, before: slice, after: slice) -> Pieces:
        spacing = forwards(end - begin)
        good = (spacing > 0) & (spacing <= self._max_gap)
        for name in ("power", "current"):
            if name in columns:
                known = np.isfinite(columns[name])
                good &= known[before] & known[after]
        status = columns.get("status")
        hidden = None
        if status is not None and (status & Status.ALTERED).any():
            main = columns["power"] if "power" in columns else columns["current"]
            hidden = altered_bound(main, (status & Status.ALTERED) != 0)[before][good]
        return Pieces(
            begin=begin[good],
            end=end[good],
            power=(columns["power"][before][good], columns["power"][after][good]) if "power" in columns else None,
            current=(columns["current"][before][good], columns["current"][after][good])
            if "current" in columns
            else None,
            ranges=columns["range"][before][good] if "range" in columns else None,
            status=None if status is None else status[before][good],
            hidden=hidden,
        )


def invalid_at(block: Block) -> Float:
    """Ticks of the readings that the meter itself says to be no measurement."""
    if block.status is None:
        return np.empty(0)
    bad = (block.status & Status.INVALID) != 0
    ticks = block.first_index + np.arange(len(block)) if block.times_ns is None else block.times_ns
    return as_float(ticks[bad])


def covered_until_ns(stream: Stream) -> int:
    """Stream time at which the samples end: energy is known up to there. Polled recordings are read through for it.

    The last instant, reading or state covers no time of its own; the last evenly spaced mean covers its interval.
    """
    polled_ns = 0
    for block in stream.blocks():
        if not len(block):
            continue
        if block.times_ns is None:
            alone = source_of(stream.header).main.kind is Kind.MEAN
            return stream.timebase.time_ns(stream.length if alone else stream.length - 1)
        polled_ns = int(block.times_ns[-1])
    return polled_ns


def forwards(spacing: Float) -> Float:
    if (spacing < 0).any():
        raise DataError("The stamps of this recording run backwards.", "Its samples cannot be put in order.")
    return spacing


def joined(before: dict[str, Array], after: dict[str, Array]) -> dict[str, Array]:
    count = {"before": len(before["tick"]), "after": len(after["tick"])}
    joined = {}
    for name in {**before, **after}:
        # Status may be left out of a block in which all samples are good.
        first = before.get(name, np.zeros(count["before"], dtype=np.uint8))
        joined[name] = np.concatenate([first, after.get(name, np.zeros(count["after"], dtype=np.uint8))])
    return joined


def altered_bound(values: Float, altered: Bool) -> Float:
    """For each altered sample the step it hides: |next true value - last true value|; 0 elsewhere."""
    index = np.arange(len(values))
    before = np.maximum.accumulate(np.where(altered, -1, index))
    after = np.minimum.accumulate(np.where(altered, len(values), index)[::-1])[::-1]
    before = np.where(before < 0, np.minimum(after, len(values) - 1), before)
    after = np.where(after == len(values), before, after)
    return np.where(altered, np.abs(values[after] - values[before]), 0.0)
