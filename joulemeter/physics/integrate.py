"""Samples to joules, in one pass and constant memory.

A MEAN sample stands for its whole interval, so a window's energy is the sum of its samples, with the border samples
shared in proportion to their overlap. Other kinds, and readings that are polled, become pieces of straight lines first
(kinds.py, counters.py), and a window takes the area under them. Every sum is float64 over the window itself; partial
sums of blocks are added by math.fsum. Differences of a running total are taken between neighbouring readings only:
across the recording their error would grow with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from joulemeter.capture import Array, Block, Kind, Status, Stream
from joulemeter.caveat import Code
from joulemeter.physics.counters import cutter_for
from joulemeter.physics.envelope import Envelope as Envelope
from joulemeter.physics.envelope import envelope as envelope
from joulemeter.physics.kinds import Cutter, Float, Line, Pieces, altered_bound, as_float, invalid_at
from joulemeter.physics.kinds import Source as Source
from joulemeter.physics.kinds import source_of as source_of
from joulemeter.window import Role, Window, WindowEnergy

# A window shorter than this many samples, readings or refreshes is placed no better than its energy is large.
FEW_SAMPLES = 5.0
# Of a meter that is asked, or shows something new seldom, a window shorter than this many readings has no energy.
LEAST_READINGS = 3.0


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
    invalid: int = 0
    altered: int = 0
    altered_sum: float = 0.0
    first_power: float = 0.0
    last_power: float = 0.0
    by_range: dict[int, list[float]] = field(default_factory=dict)
    dwell: dict[int, float] = field(default_factory=dict)
    count: float = 0.0
    reset: bool = False
    edges: tuple[_Edge, ...] = ()


@dataclass(slots=True)
class _Edge:
    """What is seen around an edge of a window: the extremes of power, and the longest piece in ticks."""

    low: float = math.inf
    high: float = -math.inf
    spacing: float = 0.0

    def see(self, pieces: Pieces, start: float, stop: float) -> None:
        i, j = pieces.touched(start, stop)
        if i < j:
            for line in pieces.main:
                self.low = min(self.low, float(line[i:j].min()))
                self.high = max(self.high, float(line[i:j].max()))
            self.spacing = max(self.spacing, float((pieces.end[i:j] - pieces.begin[i:j]).max()))

    def half_width(self, cutter: Cutter) -> float:
        """Energy that this edge leaves open, in watts times ticks."""
        if self.low > self.high:
            return 0.0
        counts = cutter.main.kind is Kind.CUMULATIVE
        step = max(abs(self.low), abs(self.high)) if counts else self.high - self.low
        spacing = self.spacing if cutter.polled or counts else 0.0
        return step * max(cutter.refresh, spacing) / 2


def integrate(stream: Stream, windows: Sequence[Window], *, max_gap_s: float | None = None) -> list[WindowEnergy]:
    """The energy of each window, in the order given. Windows may overlap or nest; missing samples are told, not filled.

    `energy_j` is None where neither power nor a voltage is known, `charge_c` None where there is no current. Polled
    readings further apart than `max_gap_s` are a hole (None: ten periods; a counter bridges any hole).

    `resolution_j` is the half-width of the window's energy, both edges together, to be taken as rectangular and as
    the same for all windows, since a slow meter loses the same at each edge. A counter: at each edge half a refresh
    (or half the spacing of readings, if wider) at the power there. Polled power: half the spacing times the step of
    power there. `samples` counts readings, of a counter those at which it moved.

    Raises DataError where the stream holds nothing to integrate.
    """
    source = source_of(stream.header)
    rate_hz = stream.timebase.rate_hz
    tallies = [
        _Tally(window, stream.timebase.index(window.start_ns), stream.timebase.index(window.stop_ns))
        for window in windows
    ]
    blocks = iter(stream.blocks())
    first = next((block for block in blocks if len(block)), None)
    if first is None:
        return [_finish(tally, source, 1.0 / rate_hz) for tally in tallies]
    cutter = cutter_for(source, rate_hz, first, max_gap_s)
    if cutter is None:
        _sum_blocks(tallies, chain([first], blocks), source)
        return [_finish(tally, source, 1.0 / rate_hz) for tally in tallies]
    if cutter.polled:
        for tally in tallies:
            tally.start, tally.stop = float(tally.window.start_ns), float(tally.window.stop_ns)
    if cutter.reach:
        for tally in tallies:
            tally.edges = (_Edge(), _Edge())
    _sum_pieces(tallies, chain([first], blocks), cutter)
    return [_finish(tally, source, cutter.tick_s, cutter) for tally in tallies]


# -- evenly spaced means ----------------------------------------------------------------------------------------------


def _sum_blocks(tallies: Sequence[_Tally], blocks: Iterable[Block], source: Source) -> None:
    waiting = sorted(tallies, key=lambda tally: tally.start, reverse=True)
    active: list[_Tally] = []
    for block in blocks:
        end = block.first_index + len(block)
        while waiting and waiting[-1].start < end:
            active.append(waiting.pop())
        if active:
            _add_block(active, block, source)
            active = [tally for tally in active if tally.stop > end]
        if not active and not waiting:
            break


def _add_block(active: Iterable[_Tally], block: Block, source: Source) -> None:
    power = source.power_w(block)
    current = None if source.current is None else as_float(block.data[source.current.name])
    main = power if power is not None else current
    assert main is not None  # noqa: S101 -- cutter_for has refused streams without either
    bad = ~np.isfinite(main)
    if source.power is not None and current is not None:
        bad |= ~np.isfinite(current)
    clean = not bad.any()
    if not clean:
        main = np.where(bad, 0.0, main)
        power = None if power is None else main
        current = None if current is None else np.where(bad, 0.0, current)
    ranges = None if source.range is None else block.data[source.range.name]
    status = block.status
    altered = None
    if status is not None and (status & Status.ALTERED).any():
        altered = altered_bound(main, (status & Status.ALTERED) != 0)
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
            _by_range(tally, ranges[i:j], view, head, tail)
        if status is not None:
            tally.clipped += int(np.count_nonzero(status[i:j] & Status.CLIPPED))
            tally.invalid += int(np.count_nonzero(status[i:j] & Status.INVALID))
            if altered is not None:
                tally.altered += int(np.count_nonzero(status[i:j] & Status.ALTERED))
                tally.altered_sum += float(altered[i:j].sum())


def _share(values: Float, head: float, tail: float) -> list[float]:
    """Terms whose exact sum is that of `values` with `head` of the first and `tail` of the last sample left out."""
    return [float(values.sum()), -head * float(values[0]), -tail * float(values[-1])]


def _by_range(tally: _Tally, ranges: Array, values: Float, head: float, tail: float) -> None:
    first, last = int(ranges[0]), int(ranges[-1])
    if (ranges == first).all():
        counts = {first: (len(ranges), float(values.sum()))}
    else:
        sums = np.bincount(ranges, weights=values)
        counts = {r: (int(n), float(sums[r])) for r, n in enumerate(np.bincount(ranges)) if n}
    for r, (count, total) in counts.items():
        tally.by_range.setdefault(r, []).append(total)
        tally.dwell[r] = tally.dwell.get(r, 0.0) + count
    for r, outside, value in ((first, head, values[0]), (last, tail, values[-1])):
        tally.by_range[r].append(-outside * float(value))
        tally.dwell[r] -= outside


# -- pieces of straight lines -----------------------------------------------------------------------------------------


def _sum_pieces(tallies: Sequence[_Tally], blocks: Iterable[Block], cutter: Cutter) -> None:
    waiting = sorted(tallies, key=lambda tally: tally.start, reverse=True)
    active: list[_Tally] = []
    for pieces, invalid in chain(
        ((cutter.cut(block), invalid_at(block)) for block in blocks if len(block)),
        ((cutter.finish(), np.empty(0)) for _ in range(1)),
    ):
        while waiting and waiting[-1].start - cutter.reach < cutter.reached:
            active.append(waiting.pop())
        for tally in active if len(invalid) else ():
            tally.invalid += int(np.count_nonzero((invalid >= tally.start) & (invalid < tally.stop)))
        if pieces is not None and active:
            _add_pieces(active, pieces, cutter)
        active = [tally for tally in active if tally.stop + cutter.reach > cutter.reached]
        if not active and not waiting:
            break


def _add_pieces(active: Iterable[_Tally], pieces: Pieces, cutter: Cutter) -> None:
    for tally in active:
        tally.reset |= any(begin < tally.stop and end > tally.start for begin, end in pieces.resets)
        for edge, at in zip(tally.edges, (tally.start, tally.stop), strict=False):
            edge.see(pieces, at - cutter.reach, at + cutter.reach)
        part, count = pieces.within(tally.start, tally.stop)
        if not count:
            continue
        length = part.end - part.begin
        main = part.main
        area = _area(main, length)
        if part.power is not None:
            tally.energy.append(float(area.sum()))
        if part.current is not None:
            tally.charge.append(float((area if part.power is None else _area(part.current, length)).sum()))
        tally.covered += float(length.sum())
        tally.count += count
        tally.peak = max(tally.peak, float(main[0].max()), float(main[1].max()))
        if not tally.dwell:
            tally.first_power = max(float(np.abs(line[:2]).max()) for line in main)
        tally.last_power = max(float(np.abs(line[-2:]).max()) for line in main)
        if part.ranges is None:
            tally.dwell[0] = 1.0
        else:
            for r in np.unique(part.ranges).tolist():
                there = part.ranges == r
                tally.by_range.setdefault(r, []).append(float(area[there].sum()))
                tally.dwell[r] = tally.dwell.get(r, 0.0) + float(length[there].sum())
        if part.status is not None:
            tally.clipped += int(np.count_nonzero(part.status & Status.CLIPPED))
            if part.hidden is not None:
                tally.altered += int(np.count_nonzero(part.status & Status.ALTERED))
                tally.altered_sum += float((part.hidden * length).sum())


def _area(line: Line, length: Float) -> Float:
    """The trapezoid under each piece."""
    return (line[0] + line[1]) * 0.5 * length


# -- both -------------------------------------------------------------------------------------------------------------


def _finish(tally: _Tally, source: Source, tick_s: float, cutter: Cutter | None = None) -> WindowEnergy:
    wanted = tally.stop - tally.start
    missing = max(wanted - tally.covered, 0.0)
    # A millionth of a sample is the rounding of nanosecond stamps, not a loss.
    missing_s = 0.0 if missing < 1e-6 * max(wanted, 1.0) else missing * tick_s
    nothing = tally.covered <= 0
    energy_j = None if nothing or not source.has_power else math.fsum(tally.energy) * tick_s
    charge_c = None if nothing or source.current is None else math.fsum(tally.charge) * tick_s
    scale = tick_s if source.has_power else 0.0
    samples = tally.covered if cutter is None else tally.count
    # How many independent readings the window could have held at best.
    room = wanted if cutter is None or not cutter.reach else min(samples, wanted / cutter.reach)
    marks = {
        Code.LOST_SAMPLES: missing_s > 0,
        Code.CLIPPED: tally.clipped > 0,
        Code.FEW_SAMPLES: room < FEW_SAMPLES,
        Code.TOO_SHORT: cutter is not None and cutter.reach > 0 and wanted < LEAST_READINGS * cutter.reach,
        Code.COUNTER_RESET: tally.reset,
    }
    ranged = source.range is not None
    return WindowEnergy(
        window=tally.window,
        energy_j=energy_j,
        charge_c=charge_c,
        mean_power_w=None if energy_j is None else energy_j / (tally.covered * tick_s),
        peak_power_w=None if nothing or not source.has_power else tally.peak,
        samples=samples,
        missing_s=missing_s,
        clipped_samples=tally.clipped,
        altered_samples=tally.altered,
        invalid_samples=tally.invalid,
        altered_j=tally.altered_sum * scale,
        edge_power_w=max(tally.first_power, tally.last_power) if source.has_power else 0.0,
        resolution_j=0.0 if cutter is None else sum(edge.half_width(cutter) for edge in tally.edges) * scale,
        energy_by_range_j={r: math.fsum(parts) * scale for r, parts in tally.by_range.items()}
        if ranged
        else {None: energy_j or 0.0},
        dwell_by_range_s={r: count * tick_s for r, count in tally.dwell.items()}
        if ranged
        else {None: tally.covered * tick_s},
        caveats=tuple(code for code, true in marks.items() if true),
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
