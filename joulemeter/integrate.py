"""Samples to joules, in one pass and constant memory.

A MEAN sample stands for its whole interval, so a window's energy is the sum of its samples, with the border samples
shared in proportion to their overlap. Every sum is float64 over the window itself; partial sums of blocks are added
by math.fsum. Differences of a running total are never used: their error grows with the recording.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Array, Block, Channel, Header, Kind, Quantity, Status, Stream
from joulemeter.caveat import Code
from joulemeter.errors import DataError
from joulemeter.window import Role, Window, WindowEnergy

Float = NDArray[np.float64]

# A window shorter than this many samples is placed no better than its energy is large.
FEW_SAMPLES = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """How power and current are had from a stream's channels. None: not to be had."""

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

    def power_w(self, block: Block) -> Float | None:
        """Power of each sample, (n,) watts."""
        if self.power is not None:
            return _float(block.data[self.power.name])
        if self.current is None:
            return None
        current = _float(block.data[self.current.name])
        if self.voltage is not None:
            return current * _float(block.data[self.voltage.name])
        return None if self.volts is None else current * self.volts


def source_of(header: Header) -> Source:
    """Raises DataError for kinds of samples that this version cannot integrate."""
    power, current = header.channel(Quantity.POWER), header.channel(Quantity.CURRENT)
    for channel in (power, current):
        if channel is not None and channel.kind is not Kind.MEAN:
            raise DataError(
                f"Channel {channel.name!r} of {header.model} holds {channel.kind} samples, which this version cannot "
                "integrate.",
                "Export the recording and integrate it elsewhere.",
            )
    return Source(
        power=power,
        current=current,
        voltage=header.channel(Quantity.VOLTAGE),
        volts=None if header.voltage is None else header.voltage.volts,
        range=header.channel(Quantity.RANGE),
    )


def _float(values: Array) -> Float:
    return np.asarray(values, dtype=np.float64)


@dataclass(slots=True)
class _Tally:
    """Sums of one window while blocks go by."""

    window: Window
    start: float
    stop: float
    energy: list[float] = field(default_factory=list)
    charge: list[float] = field(default_factory=list)
    covered: float = 0.0
    peak: float = -math.inf
    clipped: int = 0
    altered: int = 0
    altered_sum: float = 0.0
    first_power: float = 0.0
    last_power: float = 0.0
    by_range: dict[int, list[float]] = field(default_factory=dict)
    dwell: dict[int, float] = field(default_factory=dict)


def integrate(stream: Stream, windows: Sequence[Window]) -> list[WindowEnergy]:
    """The energy of each window, in the order given. Windows may overlap or nest; missing samples are told, not filled.

    `energy_j` is None where neither power nor a voltage is known, `charge_c` None where there is no current.
    """
    source = source_of(stream.header)
    rate_hz = stream.timebase.rate_hz
    tallies = [
        _Tally(window, stream.timebase.index(window.start_ns), stream.timebase.index(window.stop_ns))
        for window in windows
    ]
    waiting = sorted(tallies, key=lambda tally: tally.start, reverse=True)
    active: list[_Tally] = []
    last = max((tally.stop for tally in tallies), default=0.0)
    for block in stream.blocks(0, math.ceil(last)):
        end = block.first_index + len(block)
        while waiting and waiting[-1].start < end:
            active.append(waiting.pop())
        if active:
            _add_block(active, block, source)
            active = [tally for tally in active if tally.stop > end]
        if not active and not waiting:
            break
    return [_finish(tally, source, rate_hz) for tally in tallies]


def _add_block(active: Iterable[_Tally], block: Block, source: Source) -> None:
    power = source.power_w(block)
    current = None if source.current is None else _float(block.data[source.current.name])
    main = power if power is not None else current
    if main is None:
        raise DataError("The stream holds neither current nor power.", "Nothing can be integrated.")
    bad = ~np.isfinite(main)
    clean = not bad.any()
    if not clean:
        main = np.where(bad, 0.0, main)
        power = None if power is None else main
        current = None if current is None else np.where(bad, 0.0, current)
    ranges = None if source.range is None else block.data[source.range.name]
    status = block.status
    altered = None
    if status is not None and (status & Status.ALTERED).any():
        altered = _altered_bound(main, (status & Status.ALTERED) != 0)
    for tally in active:
        first = max(tally.start - block.first_index, 0.0)
        after = min(tally.stop - block.first_index, float(len(block)))
        if after <= first:
            continue
        i, j = math.floor(first), math.ceil(after)
        # Shares of the border samples that lie outside, taken off the plain sum of i..j.
        head, tail = first - i, j - after
        view = main[i:j]
        if power is not None:
            tally.energy += _share(view, head, tail)
        if current is not None:
            tally.charge += _share(current[i:j], head, tail)
        tally.covered += after - first
        if not clean:
            tally.covered -= math.fsum(_share(bad[i:j].astype(np.float64), head, tail))
        tally.peak = max(tally.peak, float(view.max()))
        if not tally.dwell and tally.covered:
            tally.first_power = float(np.abs(view[:2]).max())
        tally.last_power = float(np.abs(view[-2:]).max())
        if ranges is None:
            tally.dwell[0] = 1.0
        else:
            _by_range(tally, ranges[i:j], view)
        if status is not None:
            tally.clipped += int(np.count_nonzero(status[i:j] & Status.CLIPPED))
            if altered is not None:
                tally.altered += int(np.count_nonzero(status[i:j] & Status.ALTERED))
                tally.altered_sum += float(altered[i:j].sum())


def _share(values: Float, head: float, tail: float) -> list[float]:
    """Terms whose exact sum is that of `values` with `head` of the first and `tail` of the last sample left out."""
    return [float(values.sum()), -head * float(values[0]), -tail * float(values[-1])]


def _by_range(tally: _Tally, ranges: Array, values: Float) -> None:
    first = int(ranges[0])
    if (ranges == first).all():
        counts = {first: (len(ranges), float(values.sum()))}
    else:
        sums = np.bincount(ranges, weights=values)
        counts = {r: (int(n), float(sums[r])) for r, n in enumerate(np.bincount(ranges)) if n}
    for r, (count, total) in counts.items():
        tally.by_range.setdefault(r, []).append(total)
        tally.dwell[r] = tally.dwell.get(r, 0.0) + count


def _altered_bound(values: Float, altered: NDArray[np.bool_]) -> Float:
    """For each altered sample the step it hides: |next true value - last true value|; 0 elsewhere."""
    index = np.arange(len(values))
    before = np.maximum.accumulate(np.where(altered, -1, index))
    after = np.minimum.accumulate(np.where(altered, len(values), index)[::-1])[::-1]
    before = np.where(before < 0, np.minimum(after, len(values) - 1), before)
    after = np.where(after == len(values), before, after)
    return np.where(altered, np.abs(values[after] - values[before]), 0.0)


def _finish(tally: _Tally, source: Source, rate_hz: float) -> WindowEnergy:
    window = tally.window
    wanted = tally.stop - tally.start
    missing_s = max(wanted - tally.covered, 0.0) / rate_hz
    # A millionth of a sample is the rounding of nanosecond stamps, not a loss.
    missing_s = 0.0 if missing_s * rate_hz < 1e-6 * max(wanted, 1.0) else missing_s
    nothing = tally.covered <= 0
    energy_j = None if nothing or not source.has_power else math.fsum(tally.energy) / rate_hz
    charge_c = None if nothing or source.current is None else math.fsum(tally.charge) / rate_hz
    scale = 1.0 if source.has_power else 0.0
    ranged = source.range is not None
    caveats = []
    if missing_s:
        caveats.append(Code.LOST_SAMPLES)
    if tally.clipped:
        caveats.append(Code.CLIPPED)
    if wanted < FEW_SAMPLES:
        caveats.append(Code.FEW_SAMPLES)
    return WindowEnergy(
        window=window,
        energy_j=energy_j,
        charge_c=charge_c,
        mean_power_w=None if energy_j is None else energy_j / (tally.covered / rate_hz),
        peak_power_w=None if nothing or not source.has_power else tally.peak,
        samples=tally.covered,
        missing_s=missing_s,
        clipped_samples=tally.clipped,
        altered_samples=tally.altered,
        altered_j=tally.altered_sum / rate_hz * scale,
        edge_power_w=max(tally.first_power, tally.last_power) * scale,
        energy_by_range_j={r: math.fsum(parts) / rate_hz * scale for r, parts in tally.by_range.items()}
        if ranged
        else {None: energy_j or 0.0},
        dwell_by_range_s={r: count / rate_hz for r, count in tally.dwell.items()}
        if ranged
        else {None: tally.covered / rate_hz},
        caveats=tuple(caveats),
    )


def complement(windows: Iterable[Window], start_ns: int, stop_ns: int) -> list[Window]:
    """The spans of [start, stop) outside all windows, as IDLE windows."""
    rest: list[Window] = []
    at = start_ns
    for window in sorted(windows, key=lambda window: window.start_ns):
        if window.start_ns > at:
            rest.append(Window(start_ns=at, stop_ns=min(window.start_ns, stop_ns), index=len(rest), role=Role.IDLE))
        at = max(at, window.stop_ns)
    if at < stop_ns:
        rest.append(Window(start_ns=at, stop_ns=stop_ns, index=len(rest), role=Role.IDLE))
    return rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """Lowest, highest and mean value in each of n equal spans, (n,) float64; NaN where nothing was recorded."""

    start_s: float
    step_s: float
    unit: str
    low: Float
    high: Float
    mean: Float


def envelope(stream: Stream, buckets: int = 4000) -> Envelope:
    """The waveform as power (or current where power is not to be had), thinned for drawing but with every peak kept."""
    source = source_of(stream.header)
    length = max(stream.length, 1)
    size = max(1, -(-length // buckets))
    count = -(-length // size)
    low, high = np.full(count, np.inf), np.full(count, -np.inf)
    total, seen = np.zeros(count), np.zeros(count)
    for block in stream.blocks():
        values = source.power_w(block)
        if values is None:
            if source.current is None:
                raise DataError("The stream holds neither current nor power.", "There is no waveform to draw.")
            values = _float(block.data[source.current.name])
        good = np.isfinite(values)
        where = (block.first_index + np.arange(len(values))) // size
        inside = good & (where < count)
        values, where = values[inside], where[inside]
        if not len(values):
            continue
        starts = np.flatnonzero(np.concatenate([[True], where[1:] != where[:-1]]))
        at = where[starts]
        np.minimum.at(low, at, np.minimum.reduceat(values, starts))
        np.maximum.at(high, at, np.maximum.reduceat(values, starts))
        np.add.at(total, at, np.add.reduceat(values, starts))
        np.add.at(seen, at, np.diff(np.concatenate([starts, [len(values)]])))
    empty = seen == 0
    low[empty] = high[empty] = np.nan
    with np.errstate(invalid="ignore"):
        mean = np.where(empty, np.nan, total / np.where(empty, 1.0, seen))
    return Envelope(
        start_s=0.0,
        step_s=size / stream.timebase.rate_hz,
        unit="W" if source.has_power else "A",
        low=low,
        high=high,
        mean=mean,
    )
