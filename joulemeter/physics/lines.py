"""Windows from the edges of a line in the samples themselves: a digital line, or a channel with a threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter import units
from joulemeter.capture import Kind, Stream, Timebase
from joulemeter.caveat import Code, doubt
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.edges import AnalogScanner, LineScanner, analog_channel, debounce, digital_line, missing
from joulemeter.physics.gate import Expected, gate
from joulemeter.physics.kinds import source_of
from joulemeter.physics.stamps import Found, Span, pair_stamps
from joulemeter.trigger import FALLS, Trigger

# A line that is read once per sample has its edge anywhere within one interval.
U_READ_ONCE = 1 / 12**0.5
# An edge that was reported beside a sample lies anywhere up to one interval before or behind its beginning.
U_REPORTED = 1 / 3**0.5


def from_line(
    stream: Stream, trigger: Trigger, debounce_s: float | None, expected: Expected | None = None
) -> tuple[Found, float]:
    """Windows of a digital line, and the standard uncertainty of an edge in samples. Raises DataError, UsageError.

    `expected` are the windows that the host stamped; edges outside of them do not count.
    """
    channel, bit = digital_line(stream, trigger.source)
    if channel.falls_only and trigger.form not in FALLS:
        raise UsageError(
            f"The {stream.header.model} reports only when {trigger.source} falls, not whether it is high.",
            f"Use {' or '.join(f'{trigger.source}:{form}' for form in FALLS)}.",
        )
    scanner = LineScanner(channel.name, bit)
    seen_high = np.uint8(0)
    seen_low = np.uint8(0)
    for block in stream.blocks():
        scanner.feed(block)
        seen_high |= np.bitwise_or.reduce(block.data[channel.name])
        seen_low |= ~np.bitwise_and.reduce(block.data[channel.name])
    if scanner.first_level is None:
        raise DataError(f"The stream {stream.name!r} holds no samples.", "Check the meter and record again.")
    at = np.asarray(scanner.edges - _reading_lag(stream), dtype=np.float64)
    edges, bounced = debounce(at, stream.timebase.rate_hz, debounce_s)
    if not len(edges):
        moving = [line for k, line in enumerate(channel.lines) if seen_high >> k & 1 and seen_low >> k & 1]
        state = "high" if scanner.first_level else "low"
        others = f"Lines that did change: {', '.join(moving)}." if moving else "No other line changed either."
        raise DataError(
            f"The trigger never came: {trigger.source} stayed {state} for all "
            f"{units.show_duration(scanner.length / stream.timebase.rate_hz)}. {others}",
            "Check the wire from the board's pin, the common ground, and that the firmware raises the pin.",
        )
    u_samples = U_REPORTED if channel.falls_only else U_READ_ONCE
    return _found(stream, trigger, edges, scanner.first_level, bounced, expected), u_samples


def _reading_lag(stream: Stream) -> float:
    """Samples between an edge and the reading that shows it, in the mean.

    Beside means a line is read within the interval, so that the border of the interval is the best guess. Beside
    instants both are read at the same moment, and the edge lies within the interval before.
    """
    main = source_of(stream.header).main
    return 0.5 if main.kind is Kind.INSTANT else 0.0


def from_channel(
    stream: Stream, trigger: Trigger, debounce_s: float | None, expected: Expected | None = None
) -> tuple[Found, float]:
    """As `from_line`, where a sampled channel crosses the trigger's level; edges lie between samples."""
    channel = analog_channel(stream, trigger.source)
    scanner = AnalogScanner(channel.name, trigger.level or 0.0)
    for block in stream.blocks():
        scanner.feed(block)
    late_s = channel.delay_s - source_of(stream.header).main.delay_s
    at = scanner.edges - late_s * stream.timebase.rate_hz
    # What lies between two records makes pauses that say nothing of bounces.
    unasked = stream.header.triggered and debounce_s is None
    edges, bounced = (at, 0) if unasked else debounce(at, stream.timebase.rate_hz, debounce_s)
    if scanner.first_level is None or not len(edges):
        raise DataError(
            f"The trigger never came: {channel.name} did not cross {trigger.level:g} {channel.unit}; it moved by "
            f"{units.show(scanner.swing, channel.unit)} in all.",
            "Check the probe, its attenuation, the common ground, and the level.",
        )
    # A window with an edge in a hole is left out, so that edge says nothing of the others.
    u_edges = scanner.u_edges[scanner.seen] if scanner.seen.any() else scanner.u_edges
    u_samples = float(np.sqrt(np.mean(u_edges**2)))
    return _found(stream, trigger, edges, scanner.first_level, bounced, expected), u_samples


def from_records(stream: Stream) -> Found:
    """A window for each record of a triggered instrument. Raises UsageError for one that streams."""
    if not stream.header.triggered:
        raise UsageError(
            f"The {stream.header.model} measures without pause, so it has no records.", "Name another trigger."
        )
    alone = source_of(stream.header).main.kind is Kind.MEAN
    spans: list[Span] = []
    first = following = 0
    borders = [(block.first_index, block.first_index + len(block)) for block in stream.blocks() if len(block)]
    for begins, ends in [*borders, (math.inf, 0)]:
        if begins != following:
            last = following if alone else following - 1
            if last > first:
                spans.append(Span(start_ns=stream.timebase.time_ns(first), stop_ns=stream.timebase.time_ns(last)))
            first = int(begins) if math.isfinite(begins) else 0
        following = ends
    return Found(spans=spans)


def _found(
    stream: Stream,
    trigger: Trigger,
    edges: NDArray[Any],
    first_level: bool,
    bounced: int,
    expected: Expected | None,
) -> Found:
    found = _windows_from_edges(stream.timebase, trigger, edges, first_level)
    if stream.header.triggered:
        found.missed = 0  # between two records they are expected to be missing
    if found.missed:
        found.caveats.append(
            doubt(
                Code.MISSING_EDGES,
                f"{found.missed} window(s) seem to be missing: the others come at regular intervals with holes of "
                "whole multiples. What remains is right, the count is not. Check the trigger wire.",
                missed=found.missed,
            )
        )
    if bounced:
        found.extra += bounced
        found.caveats.append(
            doubt(
                Code.BOUNCING_EDGES,
                f"{trigger.source} bounced {bounced} times; bounces were joined to the edge they follow. Windows may "
                "begin late or end early by a bounce. A cleaner edge or --debounce settles it.",
                edges=bounced,
            )
        )
    if expected is None:
        return found
    falls = edges[np.arange(len(edges)) % 2 == (0 if first_level else 1)]
    return gate(found, falls * 1e9 / stream.timebase.rate_hz, expected, trigger.form)


def _windows_from_edges(timebase: Timebase, trigger: Trigger, edges: NDArray[Any], first_level: bool) -> Found:
    """Windows of one form from alternating edges, in samples, of a line that began at `first_level`."""
    levels = np.arange(len(edges)) % 2 == (1 if first_level else 0)  # True where the edge rises
    if trigger.form in ("high", "low"):
        opens = levels if trigger.form == "high" else ~levels
        starts, stops = edges[opens], edges[~opens]
        found = Found(spans=[])
        if len(stops) and (not len(starts) or stops[0] < starts[0]):
            stops = stops[1:]
            found.rejected["cut-at-start"] = 1
        if len(starts) > len(stops):
            starts = starts[:-1]
            found.rejected["cut-at-end"] = 1
        found.spans = _spans(timebase, starts, stops)
    elif trigger.form == "falling-pairs":
        return pair_stamps([timebase.time_ns(edge) for edge in edges[~levels].tolist()])
    else:
        starts = edges[levels] if trigger.form == "rising" else edges[~levels]
        found = Found(spans=_spans(timebase, starts[:-1], starts[1:]))
    found.missed = missing(starts)
    return found


def _spans(timebase: Timebase, starts: NDArray[Any], stops: NDArray[Any]) -> list[Span]:
    return [
        Span(start_ns=timebase.time_ns(start), stop_ns=timebase.time_ns(stop))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]
