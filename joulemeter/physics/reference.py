"""Known loads for a calibration: what the meter showed, and the truth beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Channel, Header, Kind, Limit, Quantity, Status, Stream, View
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.lag import Trace, find_offset, host_offset_s

# The current needs this long to settle after the supply was switched on.
SETTLE_S = 0.2
# Batch means tell the noise of a mean without asking how fast it is (Schmeiser, Operations Research 30 (1982) 556).
BATCHES = 20
# A range that the load visits for less than this share of the time is a passage, not a reading.
LEAST_SHARE = 0.1
# A second meter is compared in spans of so many samples of the slower one.
SAMPLES_PER_SPAN = 50
LEAST_SPANS = 3
# A span in which the reading moves by more than this share is a step of the load.
STEADY = 0.02
NO_RANGE, MIXED = -1, -2

Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the meter showed in one range: mean in the channel's unit, its standard uncertainty by batch means."""

    channel: str
    range: int | None
    mean: float
    u: float
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A reading with the truth beside it.

    `u_scale` and `u_zero` are the truth's standard uncertainties, as a ratio and in the channel's unit; all points of a
    calibration share them, so that no number of points averages them out. `truth` 0 is a zero run.
    """

    reading: Reading
    truth: float
    u_scale: float = 0.0
    u_zero: float = 0.0


def only(stream: Stream, channel: Channel) -> View:
    """The stream with one of its channels alone."""
    return View(stream=stream, own_header=replace(stream.header, channels=(channel,), voltage=None))


def calibratable(header: Header) -> tuple[Channel, ...]:
    """Channels of current and power whose samples can be corrected one by one."""
    return tuple(
        channel
        for channel in header.channels
        if channel.quantity in (Quantity.CURRENT, Quantity.POWER) and channel.kind in (Kind.MEAN, Kind.INSTANT)
    )


def readings(stream: Stream, settle_s: float = SETTLE_S) -> tuple[Reading, ...]:
    """The mean of each channel in each range that a steady load stayed in. Raises DataError where nothing is left.

    Samples that a filter replaced, that are clipped or invalid, and the first `settle_s` seconds do not count.
    """
    header = stream.header
    ranges = header.channel(Quantity.RANGE)
    first = math.ceil(settle_s * stream.timebase.rate_hz)
    kept: dict[tuple[str, int | None], list[Float]] = {}
    for block in stream.blocks(first):
        good = np.arange(block.first_index, block.first_index + len(block)) >= first
        if block.status is not None:
            good &= (block.status & (Status.ALTERED | Status.CLIPPED | Status.INVALID)) == 0
        keys = None if ranges is None else block.data[ranges.name]
        for channel in calibratable(header):
            values = np.asarray(block.data[channel.name], dtype=np.float64)
            usable = good & np.isfinite(values)
            for key in [None] if keys is None else np.unique(keys[usable]).tolist():
                chosen = usable if keys is None else usable & (keys == key)
                kept.setdefault((channel.name, key), []).append(values[chosen])
    parts = {key: np.concatenate(chunks) for key, chunks in kept.items()}
    total = max((sum(len(v) for k, v in parts.items() if k[0] == name) for name, _ in parts), default=0)
    found = [
        _reading(name, key, values)
        for (name, key), values in parts.items()
        if len(values) >= max(2 * BATCHES, LEAST_SHARE * total)
    ]
    if not found:
        raise DataError(
            f"The recording of {header.model} holds too few good samples for a calibration.",
            f"Record at least {settle_s:g} s and {2 * BATCHES} samples more, with a steady load.",
        )
    return tuple(found)


def _reading(channel: str, range_: int | None, values: Float) -> Reading:
    means = np.array([batch.mean() for batch in np.array_split(values, BATCHES)])
    return Reading(
        channel=channel,
        range=range_,
        mean=float(values.mean()),
        u=float(means.std(ddof=1)) / math.sqrt(BATCHES),
        samples=len(values),
    )


# Truth of a resistor's channel from volts and ohms, and how often the relative uncertainty of either enters it.
_RESISTOR = {Quantity.CURRENT: (1, 1), Quantity.POWER: (2, 1)}


def resistor_points(
    stream: Stream, volts: float, volts_limit: Limit, ohms: float, ohms_limit: Limit, settle_s: float = SETTLE_S
) -> tuple[Point, ...]:
    """Points of a run with a resistor of `ohms` and `volts` across it; the limits are in volts and ohms."""
    points = []
    for channel, reading in _with_channel(stream, settle_s):
        by_volts, by_ohms = _RESISTOR[channel.quantity]
        scale = math.hypot(by_volts * volts_limit.standard / volts, by_ohms * ohms_limit.standard / ohms)
        points.append(Point(reading=reading, truth=volts**by_volts / ohms, u_scale=scale))
    return tuple(points)


def zero_points(stream: Stream, settle_s: float = SETTLE_S) -> tuple[Point, ...]:
    """Points of a run with nothing connected."""
    return tuple(Point(reading=reading, truth=0.0) for _, reading in _with_channel(stream, settle_s))


def _with_channel(stream: Stream, settle_s: float) -> Iterator[tuple[Channel, Reading]]:
    channels = {channel.name: channel for channel in calibratable(stream.header)}
    for reading in readings(stream, settle_s):
        yield channels[reading.channel], reading


def reference_points(stream: Stream, reference: Stream, settle_s: float = SETTLE_S) -> tuple[Point, ...]:
    """Points of a meter with a better one in series, both recorded at once: spans of time in which neither moved.

    The clocks are brought together by the shape of the power. A span counts where its range stays the same and the
    current does not step, for there the edges of both meters' samples would be compared and not their readings.
    Raises DataError where no such span is left.
    """
    mine, theirs = _same_quantity(stream, reference)
    if not theirs.header.channels[0].accuracy:
        raise DataError(
            f"The accuracy of the reference {reference.header.model} is not known.", "Calibrate it, or choose another."
        )
    found = find_offset(mine, theirs)
    shift_s = found.offset_s if found else host_offset_s(stream, reference) or 0.0
    span_s = SAMPLES_PER_SPAN / min(stream.timebase.rate_hz, reference.timebase.rate_hz)
    trace, truth_trace = Trace(mine), Trace(theirs)
    until_s = min(trace.stop_s, truth_trace.stop_s - shift_s) - span_s
    begin: Float = np.arange(max(settle_s, -shift_s), until_s, span_s)
    read = trace.means(begin, begin + span_s)
    truth = truth_trace.means(begin + shift_s, begin + shift_s + span_s)
    fifths = np.stack([trace.means(begin + k * span_s / 5, begin + (k + 1) * span_s / 5) for k in range(5)])
    noise = fifths.std(axis=0, ddof=1)
    usable = np.isfinite(fifths).all(axis=0) & np.isfinite(truth)
    usual = float(np.median(noise[usable])) if usable.any() else 0.0
    steady = usable & (np.ptp(fifths, axis=0) <= np.maximum(STEADY * np.abs(read), 6 * usual))
    keys = _ranges(stream, begin, begin + span_s)
    rows = theirs.header.channels[0].accuracy
    points = tuple(
        Point(
            reading=Reading(
                channel=mine.header.channels[0].name,
                range=None if keys[k] == NO_RANGE else int(keys[k]),
                mean=float(read[k]),
                u=max(float(noise[k]), usual) / math.sqrt(5),
                samples=round(span_s * stream.timebase.rate_hz),
            ),
            truth=float(truth[k]),
            u_scale=max(row.gain.standard for row in rows),
            u_zero=min(row.offset.standard for row in rows),
        )
        for k in np.flatnonzero(steady & (keys != MIXED)).tolist()
    )
    if len(points) < LEAST_SPANS:
        raise DataError(
            f"{stream.name} and {reference.name} have fewer than {LEAST_SPANS} steady spans in common.",
            f"Record them together on a load that holds each current for {2 * span_s:.2g} s or longer.",
        )
    return points


def _same_quantity(stream: Stream, reference: Stream) -> tuple[View, View]:
    for mine in calibratable(stream.header):
        for theirs in calibratable(reference.header):
            if mine.quantity is theirs.quantity:
                return only(stream, mine), only(reference, theirs)
    raise UsageError(
        f"{stream.header.model} and {reference.header.model} measure no common quantity.",
        "Choose a reference that measures current or power as the meter does.",
    )


def _ranges(stream: Stream, begin_s: Float, end_s: Float) -> NDArray[np.intp]:
    """The meter's range in each span, (n,); MIXED where it changes, NO_RANGE where the meter has only one."""
    channel = stream.header.channel(Quantity.RANGE)
    if channel is None:
        return np.full(len(begin_s), NO_RANGE)
    starts, keys = [-1], [MIXED]
    for block in stream.blocks():
        values = block.data[channel.name]
        changes = np.flatnonzero(np.diff(values)) + 1
        for at in [0, *changes.tolist()]:
            if (key := int(values[at])) != keys[-1]:
                starts.append(block.first_index + at)
                keys.append(key)
    first, last = (
        np.searchsorted(starts, np.asarray(edge * stream.timebase.rate_hz), "right") - 1 for edge in (begin_s, end_s)
    )
    return np.where(first == last, np.array(keys)[first], MIXED)
