"""Host clock against sample clock from the power trace alone: a known pattern of busy and idle, found again.

A group is one playing of the pattern, stamped by the host (pattern.py). Each group is searched for in the decimated
trace by normalised correlation; then a least-squares fit of what the meter should have shown gives offset and drift
to a fraction of a sample. The model of a sample is the mean over its interval of

    baseline (a parabola per group) + level (one per group) x busy state behind one pole of time constant tau,

with every border where the host stamped it. tau, the decoupling capacitor of the supply, delays all borders alike and
so looks like an offset where the meter cannot see the shape: it is averaged over, each value weighed by its fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from joulemeter.capture import Event, Kind, Limit, Quantity, Stream, Timebase
from joulemeter.errors import DataError
from joulemeter.pattern import BUSY, END, SOURCE
from joulemeter.physics.clock import CRYSTAL
from joulemeter.physics.codefit import Model
from joulemeter.physics.codesearch import Float, Group, Trace, search

# From the clock's reading to the first busy instruction and back, never negative.
ONSET_S = 10e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFit:
    """Where the pattern was found.

    `offset_ns` is the host's monotonic clock at the beginning of sample 0. `u_offset_s` is the standard uncertainty at
    the stream time `reference_ns`, where it does not depend on the drift's; `drift_ppm` is None where the groups tell
    less than the limit of the sample clock. `correlation` is that of the best place and `rival` of the next best;
    `confidence` is the probability that these two are told apart. `tau_s` is the mean time constant of the power.
    """

    offset_ns: int
    u_offset_s: float
    drift_ppm: float | None
    u_drift_ppm: float
    reference_ns: int
    confidence: float
    correlation: float
    rival: float
    tau_s: float
    groups: int
    borders: int


def timebase_from_code(stream: Stream, events: Sequence[Event]) -> tuple[Timebase, SyncFit]:
    """The host relation of `stream` from the events of the source "sync".

    Raises DataError when there are none, or when the trace does not show them once and clearly.
    """
    channel = stream.header.channel(Quantity.POWER) or stream.header.channel(Quantity.CURRENT)
    if channel is None or channel.kind not in (Kind.MEAN, Kind.INSTANT):
        raise DataError(
            f"The sync code needs samples of power or current, and {stream.header.model} gives none.",
            "Use a trigger line or host stamps.",
        )
    rate_hz = stream.timebase.rate_hz
    first = next((block for block in stream.blocks() if len(block)), None)
    polled = first is not None and first.times_ns is not None
    # An instant stands for the interval around it.
    early_s = 0.5 / rate_hz if polled or channel.kind is Kind.INSTANT else 0.0
    if polled:
        power = _evenly(stream, channel.name)
        fit = _locate(_in_memory(power), len(power), rate_hz, events, stream.header.clock, early_s)
    else:

        def trace(start: int, stop: int) -> Iterator[tuple[int, Float]]:
            for block in stream.blocks(start, stop):
                yield block.first_index, np.asarray(block.data[channel.name], dtype=np.float64)

        fit = _locate(trace, stream.length, rate_hz, events, stream.header.clock, early_s)
    known = stream.timebase
    utc_ns = None
    if known.utc_ns is not None and known.monotonic_ns is not None:
        utc_ns = known.utc_ns - known.monotonic_ns + fit.offset_ns
    timebase = Timebase(
        rate_hz=known.rate_hz,
        monotonic_ns=fit.offset_ns,
        utc_ns=utc_ns,
        drift_ppm=fit.drift_ppm,
        u_host_s=fit.u_offset_s,
        u_drift_ppm=fit.u_drift_ppm,
        reference_ns=fit.reference_ns,
    )
    return timebase, fit


def locate(power: Float, rate_hz: float, stamps: Sequence[Event], limit: Limit = CRYSTAL) -> SyncFit:
    """Find the pattern of `stamps` (source "sync") in `power`, (n,) means over the sample intervals, NaN where lost.

    `power` may be a current or anything else that is greater when busy. Raises DataError.
    """
    return _locate(_in_memory(power), len(power), rate_hz, stamps, limit, 0.0)


def _in_memory(power: Float) -> Trace:
    def trace(start: int, stop: int) -> Iterator[tuple[int, Float]]:
        yield start, np.asarray(power[start:stop], dtype=np.float64)

    return trace


def _evenly(stream: Stream, name: str) -> Float:
    """The readings of a polled meter as instants at its nominal rate, on straight lines between readings."""
    blocks = [block for block in stream.blocks() if block.times_ns is not None]
    at_s = np.concatenate([block.times_ns for block in blocks if block.times_ns is not None]) * 1e-9
    values = np.concatenate([np.asarray(block.data[name], dtype=np.float64) for block in blocks])
    good = np.isfinite(values)
    if not good.any():
        raise DataError(f"The stream {stream.name!r} holds no readings.", "Check the meter and record again.")
    rate_hz = stream.timebase.rate_hz
    grid_s = np.arange(int(at_s[-1] * rate_hz) + 1) / rate_hz
    even: Float = np.interp(grid_s, at_s[good], values[good])
    return even


def _locate(
    trace: Trace, length: int, rate_hz: float, stamps: Sequence[Event], limit: Limit, early_s: float
) -> SyncFit:
    stamps = [event for event in stamps if event.source == SOURCE and event.monotonic_ns is not None]
    zero_ns = (stamps[0].monotonic_ns or 0) if stamps else 0
    groups = groups_of(stamps, zero_ns)
    chip_s = min((float(np.diff(group.edges_s).min()) for group in groups), default=0.0)
    if not chip_s * rate_hz >= 2:
        raise DataError(
            f"The sync code has {len(stamps)} stamps, and its spans are too short or too few for this meter.",
            "Play the default pattern of the meter's rate, at the beginning and at the end.",
        )
    place = search(trace, length, rate_hz, groups, chip_s)
    model = Model(trace, length, rate_hz, [groups[k] for k in place.found], place, chip_s, early_s)
    best = model.solve(drift=len(place.found) > 1)
    if best.u_slope is not None and best.u_slope > limit.standard and abs(best.slope) < limit.value + 4 * best.u_slope:
        best = model.solve(drift=False)
    u_stamp_s = float(np.median([event.u_s or 0.0 for event in stamps]))
    # Host time h = middle + (1 + slope) (x - x_middle); the clocks' relation at sample 0 follows.
    offset_s = best.host_s - (1 + best.slope) * best.stream_s
    drift = -best.slope / (1 + best.slope) * 1e6
    return SyncFit(
        offset_ns=zero_ns + round(offset_s * 1e9),
        # Instants cannot tell borders of one phase closer than to a sample.
        u_offset_s=math.hypot(best.u_s, ONSET_S / 3**0.5, u_stamp_s, early_s / 3**0.5),
        drift_ppm=None if best.u_slope is None else drift,
        u_drift_ppm=(limit.standard if best.u_slope is None else best.u_slope) * 1e6,
        reference_ns=round(best.stream_s * 1e9),
        confidence=place.confidence,
        correlation=place.correlation,
        rival=place.rival,
        tau_s=best.tau_s,
        groups=len(place.found),
        borders=model.borders,
    )


def groups_of(stamps: Sequence[Event], zero_ns: int) -> list[Group]:
    """One group up to each "end"; a group without one goes up to its last stamp."""
    groups = []
    taken: list[tuple[float, str]] = []
    for event in (*stamps, Event(label=END, source=SOURCE)):
        if event.monotonic_ns is not None:
            taken.append((((event.monotonic_ns) - zero_ns) * 1e-9, event.label))
        if event.label == END:
            changes = [next(run) for _, run in groupby(taken, key=lambda stamp: stamp[1] == BUSY)]
            edges = [at for at, _ in changes[changes[0][1] != BUSY :]] if changes else []
            if len(edges) >= 4:
                groups.append(Group(start_s=taken[0][0], stop_s=taken[-1][0], edges_s=np.array(edges)))
            taken = []
    return groups
