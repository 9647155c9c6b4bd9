"""Windows from the shape of the power alone, with a stated confidence.

No marker says when the model ran, so the recording must: the waveform is cut where its mean or its ripple changes, the
pieces are grouped by level, and each group is a *reading* of the recording: these pieces are the windows and the rest
lies between them. A reading is believed as far as its windows repeat (level and duration), stand out from their
surroundings, are of one piece, and lie inside the recording with something else at both ends; less where another
reading that contradicts it is nearly as good. The edges of the reading believed are then placed at full rate.

What the power shows is when it changed. A warm-up before the measured inferences is part of the window, and whether a
board works or waits at its higher level only its owner knows: a Hint can say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from joulemeter import units
from joulemeter.capture import ArrayStream, Channel, Kind, Quantity, Stream
from joulemeter.errors import DataError
from joulemeter.physics.changepoints import Edge, Float, Level, Trace, located, placed, thinned
from joulemeter.physics.envelope import envelope
from joulemeter.physics.evidence import (
    SAME,
    Evidence,
    Hint,
    Reading,
    believed,
    chosen_of,
    contradicts,
    overlap,
    repeatability,
    unaliased,
)
from joulemeter.physics.integrate import LEAST_READINGS
from joulemeter.physics.kinds import MAX_GAP_PERIODS, reading_s, source_of
from joulemeter.physics.readings import readings

__all__ = ["Evidence", "Hint", "Shape", "find"]

# Below this the windows are more likely invented than found; callers should refuse them.
LEAST_CONFIDENCE = 0.5
# Above this none of 40 real recordings and 2 of 152 made-up ones were wrong (results/measured/shape.md); below, callers
# should say a doubt.
GOOD_CONFIDENCE = 0.9
# Beneath this there is nothing to report but noise.
NOTHING = 0.3
# Of readings that are equally good, at least this share of each other, the one is taken whose windows last the same to
# less than a third of the other's scatter: the same work takes the same time, and the waits between do so less.
EQUAL = 0.65
STEADIER = 0.33
ENOUGH = 4
# Standard deviation of a level as a share of the step, at least: beside a window there are waits and uploads of other
# levels than the usual one, and they are not the window.
TOLERANCE = 0.2
# An edge is looked for this many spans of the look to either side.
REACH = 3
# What is not evenly spaced is brought to so many spans for each reading, and never to more in all.
SPANS_PER_READING, MOST_SPANS = 4, 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The windows found: (start_ns, stop_ns) in stream time, in order.

    `kind` is the rule that found them: "above" or "below" their surroundings in power, "band" between two other
    levels, "ripple" by a change of ripple alone. `u_start_s` and `u_stop_s` are the standard uncertainty of each edge
    as a change of power; how the change of power relates to the work (a warm-up before it, a print after it) is not in
    them. Levels are the medians inside and around the windows, in `unit`, W or A. `alternatives` tell the best readings
    that contradict this one.
    """

    spans: tuple[tuple[int, int], ...]
    u_start_s: tuple[float, ...]
    u_stop_s: tuple[float, ...]
    confidence: float
    evidence: Evidence
    kind: str
    level_low_w: float
    level_high_w: float
    unit: str = "W"
    alternatives: tuple[str, ...] = field(default=())


def find(stream: Stream, *, hint: Hint | None = None) -> Shape:
    """The windows that the power steps of `stream` show. Memory does not grow with the recording.

    One pass thins it, another places the edges, and up to three more place those of readings that are as good. What is
    not evenly spaced means already is brought to them first (`evened`).

    Raises DataError where nothing repeats or stands out: no step, noise only, one step that never comes back.
    """
    least_s = LEAST_READINGS * reading_s(stream.header)
    stream = evened(stream)
    trace = thinned(stream)
    # What is shorter than the meter can measure is an edge that it saw half of, not a window.
    found = unaliased([one for one in readings(trace, hint or Hint()) if _usual_s(one, stream) >= least_s])
    if not found:
        raise _nothing(stream)
    best = chosen_of(found)
    rivals = [reading for reading in found if contradicts(reading, best)]
    placing = _placing(stream, trace, best)
    losers: list[Reading] = []
    for rival in _equals(best, rivals):
        other = _placing(stream, trace, rival)
        if other.scatter < STEADIER * placing.scatter:
            losers.append(best)
            best, placing = rival, other
        elif placing.scatter < STEADIER * other.scatter:
            losers.append(rival)
    best, rivals = believed(best, found, losers)
    if (placing.duration <= 0).any():
        raise DataError(
            f"The windows in the power of {stream.name!r} cannot be told from each other.",
            "Use a trigger that marks the inference.",
        )
    rate_hz = stream.timebase.rate_hz
    starts, stops, edges = placing.places[0::2], placing.places[1::2], placing.edges
    spans = tuple(
        (stream.timebase.time_ns(start), stream.timebase.time_ns(stop))
        for (start, _), (stop, _) in zip(starts, stops, strict=True)
    )
    seconds = placing.duration / rate_hz
    evidence = replace(best.evidence, duration=repeatability(seconds))
    if hint is not None and hint.duration_s is not None:
        evidence = replace(
            evidence, hint=evidence.hint * repeatability(np.array([float(np.median(seconds)), hint.duration_s]))
        )
    if evidence.product < NOTHING:
        raise _nothing(stream)
    inside = float(np.median([edge.after.mean for edge in edges[0::2]]))
    around = float(np.median([edge.before.mean for edge in edges[0::2]]))
    return Shape(
        spans=spans,
        u_start_s=tuple(u / rate_hz for _, u in starts),
        u_stop_s=tuple(u / rate_hz for _, u in stops),
        confidence=evidence.product,
        evidence=evidence,
        kind=best.kind,
        level_low_w=min(inside, around),
        level_high_w=max(inside, around),
        unit=trace.unit,
        alternatives=_told(rivals, rate_hz),
    )


def evened(stream: Stream) -> Stream:
    """Polled readings and counters as means over even spans of stream time, a few for each reading.

    A reading stands for the time that is nearer to it than to any other: straight lines between them would be ramps,
    and ramps that repeat look like windows. A counter's power is constant between two moves. What is evenly spaced
    already is left as it is.
    """
    source = source_of(stream.header)
    first = next((block for block in stream.blocks() if len(block)), None)
    if first is None or (first.times_ns is None and source.main.kind is not Kind.CUMULATIVE):
        return stream
    spans = min(SPANS_PER_READING * max(stream.length, 1), MOST_SPANS)
    if source.main.kind is Kind.CUMULATIVE:
        drawn = envelope(stream, spans)
        step_s, unit, values = drawn.step_s, drawn.unit, drawn.mean
    else:
        step_s, unit, values = _nearest(stream, spans)
    channel = Channel(
        name="shape", quantity=Quantity.POWER if unit == "W" else Quantity.CURRENT, unit=unit, kind=Kind.MEAN
    )
    return ArrayStream(
        name=stream.name,
        header=replace(stream.header, channels=(channel,), rate_hz=1 / step_s, voltage=None),
        timebase=replace(stream.timebase, rate_hz=1 / step_s),
        data={channel.name: values},
    )


def _usual_s(reading: Reading, stream: Stream) -> float:
    return float(np.median(reading.stop - reading.start)) / stream.timebase.rate_hz


def _nearest(stream: Stream, spans: int) -> tuple[float, str, Float]:
    """Width of the spans in seconds, unit, and the reading nearest to the middle of each; NaN in holes."""
    source = source_of(stream.header)
    blocks = [block for block in stream.blocks() if len(block) and block.times_ns is not None]
    times_s = np.concatenate([block.times_ns for block in blocks if block.times_ns is not None]) * 1e-9
    powers = [source.power_w(block) for block in blocks]
    watts = [power for power in powers if power is not None]
    readings = watts if len(watts) == len(blocks) else [block.data[source.main.name] for block in blocks]
    values = np.concatenate(readings)
    step_s = float(times_s[-1]) / spans
    middles = (np.arange(spans) + 0.5) * step_s
    after = np.clip(np.searchsorted(times_s, middles), 1, max(len(times_s) - 1, 1))
    near = np.where(middles - times_s[after - 1] <= times_s[after] - middles, after - 1, after)
    far = np.abs(times_s[near] - middles) > MAX_GAP_PERIODS / stream.timebase.rate_hz
    return step_s, "W" if watts else "A", np.where(far, np.nan, values[near])


def _nothing(stream: Stream) -> DataError:
    return DataError(
        f"The power of {stream.name!r} shows no windows: nothing in it rises, or falls, and comes back in a pattern.",
        "Use a trigger that marks the inference, or leave idle time before, between and after the inferences.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placing:
    """The edges of a reading, start and stop in turn, and where they are in samples with the standard uncertainty."""

    edges: list[Edge]
    places: list[tuple[float, float]]

    @property
    def duration(self) -> Float:
        at = np.array([place for place, _ in self.places])
        length: Float = at[1::2] - at[0::2]
        return length

    @property
    def scatter(self) -> float:
        """Of the durations, relative, and no better than a sample can show; infinite where too few tell nothing."""
        length = self.duration
        if len(length) < ENOUGH or (length <= 0).any():
            return float("inf")
        return max(float(np.std(length)), 0.5) / float(np.mean(length))


def _placing(stream: Stream, trace: Trace, reading: Reading) -> _Placing:
    edges = _located(trace, reading)
    return _Placing(edges=edges, places=placed(stream, edges))


def _equals(best: Reading, rivals: Sequence[Reading]) -> list[Reading]:
    """The rivals that are nearly as good, of each group of alike ones the best."""
    equals: list[Reading] = []
    for rival in rivals:
        close = rival.evidence.product > EQUAL * best.evidence.product
        few = len(rival.start) <= 10 * len(best.start)
        if close and few and len(equals) < 3 and all(overlap(rival, other) < SAME for other in equals):
            equals.append(rival)
    return equals


def _located(trace: Trace, reading: Reading) -> list[Edge]:
    """Start and stop of each window in turn, narrowed to a few spans of the thinned waveform.

    Twice: the levels that the first round could only take from a coarse look are clean in the second.
    """
    floor = trace.floor()
    for _ in range(2):
        edges = located(trace, _edges(trace, reading, floor))
        middles = np.array([(edge.start + edge.stop) // 2 for edge in edges], dtype=np.int64)
        if (np.diff(middles) <= 0).any():
            break
        reading = replace(reading, start=middles[0::2], stop=middles[1::2])
    return edges


def _edges(trace: Trace, reading: Reading, floor: float) -> list[Edge]:
    """Start and stop of each window in turn, each with what the samples on its two sides look like."""
    size, reach = trace.size, REACH * reading.span
    starts, stops = reading.start.tolist(), reading.stop.tolist()
    before = [start - end for start, end in zip(starts, [0, *stops[:-1]], strict=True)]
    after = [begin - stop for begin, stop in zip([*starts[1:], trace.length], stops, strict=True)]
    windows, quiet, later = [], [], []
    for start, stop, lead, tail in zip(starts, stops, before, after, strict=True):
        inner = min(reach, (stop - start) // 4)
        windows.append(_level(trace, start + inner, stop - inner, floor))
        near, far = min(reach, lead // 3), min(5 * reach, lead)
        quiet.append(_level(trace, start - far, start - near, floor))
        near, far = min(reach, tail // 3), min(5 * reach, tail)
        later.append(_level(trace, stop + near, stop + far, floor))
    edges = []
    for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        half = max(min(reach, (stop - start) // 2), size)
        lead, tail = (min(2 * reach, max(2 * room // 3, size)) for room in (before[k], after[k]))
        if k == len(starts) - 1:
            tail = min(2 * reach, trace.length - stop)
        edges += [
            _edge(max(start - lead, 0), start + half, _usual(quiet, k, before[k] >= 2 * reading.span), windows[k]),
            _edge(
                stop - half, min(stop + tail, trace.length), windows[k], _usual(later, k, after[k] >= 2 * reading.span)
            ),
        ]
    return edges


def _usual(levels: Sequence[Level], k: int, known: bool) -> Level:
    """The surroundings beside window `k`, no steadier than is usual; where too little is `known`, the usual ones."""
    seen = [level for level in levels if np.isfinite(level.mean)] or list(levels)
    variance = float(np.median([level.variance for level in seen]))
    if not known or not np.isfinite(levels[k].mean):
        return Level(mean=float(np.median([level.mean for level in seen])), variance=variance)
    return Level(mean=levels[k].mean, variance=max(variance, levels[k].variance))


def _edge(start: int, stop: int, before: Level, after: Level) -> Edge:
    """An edge whose levels are wide enough that a third one between them belongs to the nearer."""
    least = (TOLERANCE * (after.mean - before.mean)) ** 2
    return Edge(
        start=start,
        stop=stop,
        before=replace(before, variance=max(before.variance, least)),
        after=replace(after, variance=max(after.variance, least)),
    )


def _level(trace: Trace, start: int, stop: int, floor: float) -> Level:
    low = start // trace.size
    mean, variance = trace.moments(low, max(-(-stop // trace.size), low + 1))
    return Level(mean=mean, variance=max(variance, floor**2))


def _told(rivals: Sequence[Reading], rate_hz: float, most: int = 3) -> tuple[str, ...]:
    return tuple(
        f"{len(rival.start)} windows {rival.kind} of about "
        f"{units.show_duration(float(np.median(rival.stop - rival.start)) / rate_hz)}, the first at "
        f"{units.show_duration(float(rival.start[0]) / rate_hz)} (confidence {rival.evidence.product:.2f})"
        for rival in rivals[:most]
    )
