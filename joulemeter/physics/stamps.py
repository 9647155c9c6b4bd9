"""Windows from stamps: of the host, of the device's text, or kept in a recording."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from joulemeter.capture import Event, Recording, Stream
from joulemeter.caveat import Caveat, Code, doubt
from joulemeter.errors import DataError
from joulemeter.trigger import Trigger


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A window to be: `timed_s` and `inferences` are None where the trigger does not tell them."""

    start_ns: int
    stop_ns: int
    label: str = ""
    inferences: int | None = None
    timed_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Found:
    """What a trigger marked, and what was wrong with it."""

    spans: list[Span]
    rejected: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    extra: int = 0
    confidence: float | None = None
    caveats: list[Caveat] = field(default_factory=list)


def pair_stamps(stamps_ns: Sequence[int]) -> Found:
    """EEMBC stamps: the first is a set-up pulse; window w lies between stamps w-1 and w; even windows infer."""
    found = Found(
        spans=[
            Span(start_ns=stamps_ns[w - 1], stop_ns=stamps_ns[w], label=f"window {w}")
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


def from_events(recording: Recording, stream: Stream | None, trigger: Trigger, convention: str) -> Found:
    events = [event for event in recording.events if event.time_ns is not None]
    if trigger.form == "pairs":
        spans, caveats = begin_end([(event.label, event.time_ns or 0, event) for event in events], trigger)
        return Found(spans=spans, caveats=caveats)
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


def _eembc_spans(spans: Sequence[Span], stream: Stream) -> list[Span]:
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
            Span(
                start_ns=stream.timebase.time_ns(first),
                stop_ns=stream.timebase.time_ns(after),
                label=span.label,
                timed_s=stop_s - start_s,
            )
        )
    return snapped


# What firmware prints around its inferences, begin and end; a number in the first is the count of inferences.
SERIAL_MARKS = (
    (re.compile(r"m-infer-start-(\d+)"), re.compile(r"m-infer-done")),  # MLPerf Tiny
    (re.compile(r"(?i)\binfer\w*[ -_]*(?:start|begin)"), re.compile(r"(?i)\binfer\w*[ -_]*(?:stop|end|done)")),
)


def stamped(recording: Recording, stream: Stream | None, trigger: Trigger) -> list[tuple[str, int, Event]]:
    """Host stamps in stream time (in the host's own time where there is no stream), as begin and end."""
    kept = [event for event in recording.events if event.source == trigger.source and event.monotonic_ns is not None]
    if trigger.source in ("serial", "stdout"):
        kept = _read_marks(kept, trigger)
    if stream is None:
        return [(event.label, event.monotonic_ns or 0, event) for event in kept]
    if stream.timebase.monotonic_ns is None:
        raise DataError(
            f"The stream {stream.name!r} was never related to the host's clock, so host stamps cannot be placed in it.",
            "Use a digital trigger, or record again.",
        )
    return [(event.label, stream.timebase.from_monotonic(event.monotonic_ns or 0), event) for event in kept]


def _read_marks(lines: Sequence[Event], trigger: Trigger) -> list[Event]:
    """The lines that begin or end a window, relabelled."""
    if trigger.words:
        begin, end = (re.compile(re.escape(word)) for word in trigger.words)
    else:
        used = [pair for pair in SERIAL_MARKS if any(pair[0].search(line.label) for line in lines)]
        begin, end = used[0] if used else SERIAL_MARKS[0]
    marks = []
    for line in lines:
        if match := begin.search(line.label):
            count = int(match[1]) if match.re.groups and match[1] else None
            marks.append(replace(line, label="begin", data={"inferences": count}))
        elif end.search(line.label):
            marks.append(replace(line, label="end"))
    return marks


def begin_end(events: Iterable[tuple[str, int, Event]], trigger: Trigger) -> tuple[list[Span], list[Caveat]]:
    """Pair each "begin" with the "end" that follows it."""
    spans: list[Span] = []
    caveats: list[Caveat] = []
    opened: int | None = None
    begun: Mapping[str, Any] = {}
    loose = 0
    for label, time_ns, event in events:
        if label == "begin":
            loose += opened is not None
            opened, begun = time_ns, event.data
        elif label == "end":
            if opened is None:
                loose += 1
                continue
            count = event.data.get("inferences") or begun.get("inferences")
            spans.append(
                Span(
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
    return sorted(spans, key=lambda span: span.start_ns), caveats
