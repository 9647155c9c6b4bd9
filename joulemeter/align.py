"""Triggers become windows.

A trigger names what marks the inference (INTERFACE): `d0`, `d0:low`, `d0:rising`, `d0:falling`, `d0:falling-pairs`,
`host`, `events`, `events:falling-pairs`. Edges that are missing, extra, bouncing or cut off by the ends of the
recording are counted by name, never repaired in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from joulemeter import units
from joulemeter.capture import Event, Recording, Stream, Timebase
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.edges import Int, LineScanner, debounce, digital_line, missing
from joulemeter.errors import DataError, UsageError
from joulemeter.result import Sync
from joulemeter.window import Window

FORMS = {
    "high": "window while the line is high",
    "low": "window while the line is low",
    "rising": "window from each rising edge to the next",
    "falling": "window from each falling edge to the next",
    "falling-pairs": "falling edges: a set-up pulse, then start and stop of each window (EEMBC)",
    "pairs": "stamps that say begin and end",
}
CONVENTIONS = ("native", "eembc")

# A window that differs from the median by more than this share is named.
ODD_SHARE = 0.5
# An operating system interrupts now and then; odd windows rarer than this are worth a note, not a doubt.
RARE_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Trigger:
    """`source` is a digital line's name, "host" or "events"; `form` one of FORMS."""

    source: str
    form: str

    def __str__(self) -> str:
        return self.source if self.form in ("high", "pairs") else f"{self.source}:{self.form}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    windows: tuple[Window, ...]
    rejected: dict[str, int]
    sync: Sync
    caveats: tuple[Caveat, ...] = field(default=())


_SYNTAX = re.compile(r"(d\d+|host|events)(?::([a-z-]+))?")
_LATER = re.compile(r"serial|shape|c\d+@.+")


def parse_trigger(text: str) -> Trigger:
    """Raises UsageError for a trigger that does not exist or that this version cannot use."""
    match = _SYNTAX.fullmatch(text.strip().lower())
    if match is None:
        if _LATER.fullmatch(text.strip().lower()):
            raise UsageError(
                f"The trigger {text!r} cannot be used in this version.", "Use a digital line, host or events."
            )
        raise UsageError(
            f"{text!r} is not a trigger.", "Triggers are d0, d0:low, d0:rising, d0:falling-pairs, host and events."
        )
    source, form = match[1], match[2]
    digital = source.startswith("d")
    allowed = ("high", "low", "rising", "falling", "falling-pairs") if digital else ("pairs", "falling-pairs")
    form = form or allowed[0]
    if form not in allowed or (source == "host" and form != "pairs"):
        raise UsageError(f"{text!r}: {source} has no form {form!r}.", f"Forms of {source}: {', '.join(allowed)}.")
    return Trigger(source=source, form=form)


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
    if trigger.source == "host":
        spans, caveats = _begin_end(_host_events(recording, stream), trigger)
        u_edge_s = 0.0 if stream is None else stream.timebase.u_host_s or 0.0
        found = _Found(spans=spans, caveats=caveats)
        grade = "host-marker"
    elif trigger.source == "events":
        found = _from_events(recording, stream, trigger, convention)
        stamps = [event.u_s for event in recording.events if event.u_s is not None]
        u_edge_s = max(stamps, default=0.0)
        grade = "in-band"
    else:
        if stream is None:
            raise UsageError(
                f"The trigger {trigger.source} is a line of a meter, and no meter was used.",
                "Name one with --meter, or use --trigger host.",
            )
        found = _from_line(stream, trigger, debounce_s)
        # The line is read once per sample, so an edge lies anywhere within one interval.
        u_edge_s = 1.0 / stream.timebase.rate_hz / 12**0.5
        grade = "in-band"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    start_ns: int
    stop_ns: int
    label: str = ""
    inferences: int | None = None
    timed_s: float | None = None


@dataclass(slots=True, kw_only=True)
class _Found:
    spans: list[_Span]
    rejected: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    extra: int = 0
    caveats: list[Caveat] = field(default_factory=list)


# -- digital lines ----------------------------------------------------------------------------------------------------


def _from_line(stream: Stream, trigger: Trigger, debounce_s: float | None) -> _Found:
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


def _windows_from_edges(timebase: Timebase, trigger: Trigger, edges: Int, first_level: bool, length: int) -> _Found:
    """Windows of one form from alternating edges of a line that began at `first_level`."""
    levels = np.arange(len(edges)) % 2 == (1 if first_level else 0)  # True where the edge rises
    if trigger.form in ("high", "low"):
        opens = levels if trigger.form == "high" else ~levels
        starts, stops = edges[opens], edges[~opens]
        found = _Found(spans=[])
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
        found = _Found(spans=_spans(timebase, chosen[:-1], chosen[1:]))
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


def _spans(timebase: Timebase, starts: Int, stops: Int) -> list[_Span]:
    return [
        _Span(start_ns=timebase.time_ns(start), stop_ns=timebase.time_ns(stop))
        for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)
    ]


# -- stamps -----------------------------------------------------------------------------------------------------------


def pair_stamps(stamps_ns: Sequence[int]) -> _Found:
    """EEMBC stamps: the first is a set-up pulse; window w lies between stamps w-1 and w; even windows infer."""
    found = _Found(
        spans=[
            _Span(start_ns=stamps_ns[w - 1], stop_ns=stamps_ns[w], label=f"window {w}")
            for w in range(2, len(stamps_ns), 2)
        ]
    )
    if len(stamps_ns) % 2 == 0 and stamps_ns:
        found.missed = 1
        found.rejected["no-stop"] = 1
        found.caveats.append(
            doubt(
                Code.ODD_STAMP_COUNT,
                f"{len(stamps_ns)} stamps do not make a set-up pulse and pairs: the last window has a start without a "
                "stop, or an edge is missing before it. Complete pairs were used in order; check that their durations "
                "agree.",
                stamps=len(stamps_ns),
            )
        )
    return found


def _from_events(recording: Recording, stream: Stream | None, trigger: Trigger, convention: str) -> _Found:
    events = [event for event in recording.events if event.time_ns is not None]
    if trigger.form == "pairs":
        spans, caveats = _begin_end([(event.label, event.time_ns or 0, event) for event in events], trigger)
        return _Found(spans=spans, caveats=caveats)
    stamps = [event.time_ns for event in events if event.label == "stamp" and event.time_ns is not None]
    if len(stamps) < 3:
        raise DataError(
            f"{recording.name} has {len(stamps)} time stamps; one window needs three.",
            "The set-up pulse, a start and a stop must all be recorded.",
        )
    found = pair_stamps(stamps)
    if stream is None:
        return found
    end_ns = stream.timebase.time_ns(stream.length)
    inside = [span for span in found.spans if span.stop_ns <= end_ns]
    if len(inside) < len(found.spans):
        found.rejected["cut-at-end"] = len(found.spans) - len(inside)
        found.caveats.append(
            doubt(
                Code.CUT_WINDOW,
                f"{len(found.spans) - len(inside)} window(s) end after the last sample and were left out: the "
                "recording is shorter than its stamps.",
            )
        )
    found.spans = _eembc_spans(inside, stream) if convention == "eembc" else inside
    if not found.spans:
        raise DataError(
            f"{recording.name} has stamps, but no window between them lies within its samples.",
            "The recording was cut off; record again.",
        )
    return found


def _eembc_spans(spans: Sequence[_Span], stream: Stream) -> list[_Span]:
    """Windows as EEMBC's EnergyRunner sums them, as spans on sample borders.

    It holds a time that starts at 0.0 and grows by 1/rate in double precision with each sample, and takes every
    sample whose time lies between the two stamps, both included. The rounding of that sum decides which of the
    border samples belong, so it is imitated exactly. The stamps alone give the run time.
    """
    times = np.zeros(stream.length)
    times[1:] = 1.0 / stream.timebase.rate_hz
    np.cumsum(times, out=times)
    snapped = []
    for span in spans:
        start_s, stop_s = span.start_ns / 1e9, span.stop_ns / 1e9
        first = int(np.searchsorted(times, start_s, side="left"))
        after = int(np.searchsorted(times, stop_s, side="right"))
        snapped.append(
            _Span(
                start_ns=stream.timebase.time_ns(first),
                stop_ns=stream.timebase.time_ns(after),
                label=span.label,
                timed_s=stop_s - start_s,
            )
        )
    return snapped


def _host_events(recording: Recording, stream: Stream | None) -> list[tuple[str, int, Event]]:
    """Host stamps in stream time; in the host's own time where there is no stream."""
    stamped = [event for event in recording.events if event.source == "host" and event.monotonic_ns is not None]
    if stream is None:
        return [(event.label, event.monotonic_ns or 0, event) for event in stamped]
    if stream.timebase.monotonic_ns is None:
        raise DataError(
            f"The stream {stream.name!r} was never related to the host's clock, so host stamps cannot be placed in it.",
            "Use a digital trigger, or record again.",
        )
    return [(event.label, stream.timebase.from_monotonic(event.monotonic_ns or 0), event) for event in stamped]


def _begin_end(events: Iterable[tuple[str, int, Event]], trigger: Trigger) -> tuple[list[_Span], list[Caveat]]:
    """Pair each "begin" with the "end" that follows it."""
    spans: list[_Span] = []
    caveats: list[Caveat] = []
    opened: int | None = None
    loose = 0
    for label, time_ns, event in events:
        if label == "begin":
            loose += opened is not None
            opened = time_ns
        elif label == "end":
            if opened is None:
                loose += 1
                continue
            count = event.data.get("inferences")
            spans.append(
                _Span(
                    start_ns=opened,
                    stop_ns=time_ns,
                    label=str(event.data.get("name", "")),
                    inferences=int(count) if count else None,
                )
            )
            opened = None
    loose += opened is not None
    if loose:
        caveats.append(
            doubt(
                Code.CUT_WINDOW,
                f"{loose} stamp(s) of {trigger} have no partner; their windows were left out.",
                stamps=loose,
            )
        )
    if not spans:
        raise DataError(
            f"The trigger never came: no pair of begin and end stamps from {trigger} was recorded.",
            "Check that the workload ran and marked its inferences.",
        )
    return spans, caveats


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
