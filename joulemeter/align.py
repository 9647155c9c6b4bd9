"""Triggers become windows.

Edges that are missing, extra, bouncing or cut off by the ends of the recording are counted by name, never repaired in
silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from joulemeter import units
from joulemeter.capture import Recording, Stream, Timebase
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.edges import Int, LineScanner, debounce, digital_line, missing
from joulemeter.errors import DataError, UsageError
from joulemeter.result import Sync
from joulemeter.stamps import Found, Span, begin_end, from_events, pair_stamps, stamped
from joulemeter.trigger import Trigger
from joulemeter.window import Window

CONVENTIONS = ("native", "eembc")

# A window that differs from the median by more than this share is named.
ODD_SHARE = 0.5
# An operating system interrupts now and then; odd windows rarer than this are worth a note, not a doubt.
RARE_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    windows: tuple[Window, ...]
    rejected: dict[str, int]
    sync: Sync
    caveats: tuple[Caveat, ...] = field(default=())


def align(
    recording: Recording,
    stream: Stream | None,
    trigger: Trigger,
    *,
    inferences_per_window: int = 1,
    convention: str = "native",
    debounce_s: float | None = None,
) -> Alignment:
    """The windows of `trigger` in the time of `stream` (None: host stamps alone, timing without a meter).

    `debounce_s` is the shortest pulse and pause that count; None finds bounces by their shortness beside the median.
    Raises DataError when the trigger marks nothing, UsageError when the stream has no such line.
    """
    found, grade, u_edge_s = _find(recording, stream, trigger, convention, debounce_s)
    windows = tuple(
        Window(
            start_ns=span.start_ns,
            stop_ns=span.stop_ns,
            index=number,
            label=span.label,
            inferences=span.inferences or inferences_per_window,
            u_edge_s=u_edge_s,
            timed_s=span.timed_s,
        )
        for number, span in enumerate(found.spans)
    )
    timebase = stream.timebase if stream is not None and grade == "host-marker" else None
    return Alignment(
        windows=windows,
        rejected=found.rejected,
        caveats=(*found.caveats, *_odd(windows)),
        sync=Sync(
            grade=grade,
            trigger=str(trigger),
            offset_s=0.0 if grade == "in-band" else None,
            drift_ppm=0.0 if grade == "in-band" else timebase.drift_ppm if timebase else None,
            residual_s=u_edge_s if stream is not None else None,
            matched=len(windows),
            missed=found.missed,
            extra=found.extra,
        ),
    )


def _find(
    recording: Recording, stream: Stream | None, trigger: Trigger, convention: str, debounce_s: float | None
) -> tuple[Found, str, float]:
    """Spans, grade, and the standard uncertainty of an edge in seconds."""
    if trigger.source in ("host", "serial"):
        events = stamped(recording, stream, trigger)
        spans, caveats = begin_end(events, trigger)
        u_clock_s = 0.0 if stream is None else stream.timebase.u_host_s or 0.0
        u_stamp_s = max((event.u_s or 0.0 for _, _, event in events), default=0.0)
        return Found(spans=spans, caveats=caveats), "host-marker", math.hypot(u_clock_s, u_stamp_s)
    if trigger.source == "events":
        stamps = [event.u_s for event in recording.events if event.u_s is not None]
        return from_events(recording, stream, trigger, convention), "in-band", max(stamps, default=0.0)
    if stream is None:
        raise UsageError(
            f"The trigger {trigger.source} is found in a meter's samples, and no meter was used.",
            "Name one with --meter, or use --trigger host.",
        )
    # The line is read once per sample, so an edge lies anywhere within one interval.
    return _from_line(stream, trigger, debounce_s), "in-band", 1.0 / stream.timebase.rate_hz / 12**0.5


# -- digital lines ----------------------------------------------------------------------------------------------------


def _from_line(stream: Stream, trigger: Trigger, debounce_s: float | None) -> Found:
    channel, bit = digital_line(stream, trigger.source)
    scanner = LineScanner(channel.name, bit)
    seen_high = np.uint8(0)
    seen_low = np.uint8(0)
    for block in stream.blocks():
        scanner.feed(block)
        seen_high |= np.bitwise_or.reduce(block.data[channel.name])
        seen_low |= ~np.bitwise_and.reduce(block.data[channel.name])
    if scanner.first_level is None:
        raise DataError(f"The stream {stream.name!r} holds no samples.", "Check the meter and record again.")
    edges, bounced = debounce(scanner.edges, stream.timebase.rate_hz, debounce_s)
    if not len(edges):
        moving = [line for k, line in enumerate(channel.lines) if seen_high >> k & 1 and seen_low >> k & 1]
        state = "high" if scanner.first_level else "low"
        others = f"Lines that did change: {', '.join(moving)}." if moving else "No other line changed either."
        raise DataError(
            f"The trigger never came: {trigger.source} stayed {state} for all "
            f"{units.show_duration(scanner.length / stream.timebase.rate_hz)}. {others}",
            "Check the wire from the board's pin, the common ground, and that the firmware raises the pin.",
        )
    found = _windows_from_edges(stream.timebase, trigger, edges, scanner.first_level, scanner.length)
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
    return found


def _windows_from_edges(timebase: Timebase, trigger: Trigger, edges: Int, first_level: bool, length: int) -> Found:
    """Windows of one form from alternating edges of a line that began at `first_level`."""
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
        return pair_stamps([timebase.time_ns(int(edge)) for edge in edges[~levels]])
    else:
        chosen = edges[levels] if trigger.form == "rising" else edges[~levels]
        found = Found(spans=_spans(timebase, chosen[:-1], chosen[1:]))
    found.missed = missing(starts if trigger.form in ("high", "low") else chosen)
    if found.missed:
        found.caveats.append(
            doubt(
                Code.MISSING_EDGES,
                f"{found.missed} window(s) seem to be missing: the others come at regular intervals with holes of "
                "whole multiples. What remains is right, the count is not. Check the trigger wire.",
                missed=found.missed,
            )
        )
    return found


def _spans(timebase: Timebase, starts: Int, stops: Int) -> list[Span]:
    return [
        Span(start_ns=timebase.time_ns(start), stop_ns=timebase.time_ns(stop))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]


# -- what the windows look like together ------------------------------------------------------------------------------


def _odd(windows: Sequence[Window]) -> list[Caveat]:
    if len(windows) < 3:
        return []
    durations = np.array([window.duration_s / window.inferences for window in windows])
    middle = float(np.median(durations))
    odd = np.flatnonzero(np.abs(durations - middle) > ODD_SHARE * middle)
    if not len(odd):
        return []
    shown = ", ".join(str(k) for k in odd[:5].tolist()) + (", ..." if len(odd) > 5 else "")
    say = doubt if len(odd) > RARE_SHARE * len(windows) else note
    return [
        say(
            Code.ODD_WINDOWS,
            f"{len(odd)} of {len(windows)} windows differ from the median duration by more than half (windows "
            f"{shown}). They count in the statistics; look at them in the report before trusting mean and percentiles.",
            windows=odd.tolist(),
        )
    ]
