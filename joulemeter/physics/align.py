"""Triggers become windows.

Edges that are missing, extra, bouncing or cut off by the ends of the recording are counted by name, never repaired in
silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from joulemeter.capture import Recording, Stream, Timebase
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import DataError, UsageError
from joulemeter.physics import shape
from joulemeter.physics.gate import Expected, expect
from joulemeter.physics.lines import U_READ_ONCE, from_channel, from_line, from_records
from joulemeter.physics.stamps import Found, Span, begin_end, from_events, stamped
from joulemeter.result import Sync
from joulemeter.trigger import Trigger
from joulemeter.window import Window

CONVENTIONS = ("native", "eembc")

# A window that differs from the median by more than this share is named.
ODD_SHARE = 0.5
# An operating system interrupts now and then; odd windows rarer than this are worth a note, not a doubt.
RARE_SHARE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """`counted`: whether the trigger itself told how many inferences each window holds."""

    windows: tuple[Window, ...]
    rejected: dict[str, int]
    sync: Sync
    caveats: tuple[Caveat, ...] = field(default=())
    counted: bool = True


def align(
    recording: Recording,
    stream: Stream | None,
    trigger: Trigger,
    *,
    inferences_per_window: int = 1,
    convention: str = "native",
    debounce_s: float | None = None,
    gated: bool = True,
) -> Alignment:
    """The windows of `trigger` in the time of `stream` (None: host stamps alone, timing without a meter).

    `debounce_s` is the shortest pulse and pause that count; None finds bounces by their shortness beside the median.
    `gated`: of a line only edges within the windows count that the host asked for, where it stamped them.
    Raises DataError when the trigger marks nothing, UsageError when the stream has no such line.
    """
    expected = _expected(recording, stream) if gated and stream is not None else None
    found, grade, u_edge_s = _find(recording, stream, trigger, convention, debounce_s, expected)
    clocked = stream.timebase if stream is not None and grade == "host-marker" else None
    windows = tuple(
        Window(
            start_ns=span.start_ns,
            stop_ns=span.stop_ns,
            index=number,
            label=span.label,
            inferences=span.inferences or inferences_per_window,
            u_edge_s=_u_edge_s(u_edge_s, clocked, span),
            timed_s=span.timed_s,
        )
        for number, span in enumerate(found.spans)
    )
    return Alignment(
        windows=windows,
        rejected=found.rejected,
        caveats=(*found.caveats, *_odd(windows)),
        counted=all(span.inferences for span in found.spans),
        sync=Sync(
            grade=grade,
            trigger=str(trigger),
            offset_s=0.0 if grade == "in-band" else None,
            drift_ppm=0.0 if grade == "in-band" else clocked.drift_ppm if clocked else None,
            residual_s=max((window.u_edge_s for window in windows), default=None) if stream is not None else None,
            confidence=found.confidence,
            matched=len(windows),
            missed=found.missed,
            extra=found.extra,
        ),
    )


def _find(
    recording: Recording,
    stream: Stream | None,
    trigger: Trigger,
    convention: str,
    debounce_s: float | None,
    expected: Expected | None,
) -> tuple[Found, str, float]:
    """Spans, grade, and the standard uncertainty of an edge in seconds."""
    if trigger.stamped:
        events = stamped(recording, stream, trigger)
        spans, caveats = begin_end(events, trigger)
        u_stamp_s = max((event.u_s or 0.0 for _, _, event in events), default=0.0)
        return Found(spans=spans, caveats=caveats), "host-marker", u_stamp_s
    if trigger.source == "events":
        stamps = [event.u_s for event in recording.events if event.u_s is not None]
        return from_events(recording, stream, trigger, convention), "in-band", max(stamps, default=0.0)
    if stream is None:
        raise UsageError(
            f"The trigger {trigger.source} is found in a meter's samples, and no meter was used.",
            "Name one with --meter, or use --trigger host.",
        )
    if trigger.source == "shape":
        return _from_shape(stream, trigger)
    if trigger.source == "records":
        return from_records(stream), "in-band", U_READ_ONCE / stream.timebase.rate_hz
    read = from_line if trigger.digital else from_channel
    found, u_samples = read(stream, trigger, debounce_s, expected)
    return found, "in-band", u_samples / stream.timebase.rate_hz


def _expected(recording: Recording, stream: Stream) -> Expected | None:
    """The windows that the host asked the workload for, where it stamped them."""
    host = Trigger(source="host", form="pairs")
    if stream.timebase.monotonic_ns is None or not any(event.source == "host" for event in recording.events):
        return None
    events = stamped(recording, stream, host)
    spans, _ = begin_end(events, host)
    return expect(stream, spans, max((event.u_s or 0.0 for _, _, event in events), default=0.0))


def _u_edge_s(u_stamp_s: float, clock: Timebase | None, span: Span) -> float:
    """Of a stamp placed in the stream's time: the stamp's own uncertainty and the clocks' at that moment."""
    if clock is None:
        return u_stamp_s
    edges = (clock.u_host_at(span.start_ns), clock.u_host_at(span.stop_ns))
    known = [edge for edge in edges if edge is not None]
    if not known:
        raise DataError(
            "How well the meter's time is related to the host's clock is not known, so host stamps cannot be placed.",
            "Use a digital trigger, or record again.",
        )
    return math.hypot(u_stamp_s, max(known))


def _from_shape(stream: Stream, trigger: Trigger) -> tuple[Found, str, float]:
    """Windows told from the power alone. Raises DataError where they are more likely invented than found."""
    hint = None if trigger.form == "steps" else shape.Hint(direction=trigger.form)
    seen = shape.find(stream, hint=hint)
    others = f" Also possible: {'; '.join(seen.alternatives)}." if seen.alternatives else ""
    if seen.confidence < shape.LEAST_CONFIDENCE:
        raise DataError(
            f"The shape of the power does not tell the windows: the best guess, {len(seen.spans)} windows, has a "
            f"confidence of {seen.confidence:.0%} only.{others}",
            "Give the meter a trigger line, or leave idle time between the inferences.",
        )
    caveats = []
    if seen.confidence < shape.GOOD_CONFIDENCE:
        caveats.append(
            doubt(
                Code.SHAPE_DOUBT,
                f"The windows were found by the shape of the power alone, with a confidence of {seen.confidence:.0%}."
                f"{others} A warm-up before an inference counts as part of it. A trigger line settles it.",
                confidence=seen.confidence,
            )
        )
    spans = [Span(start_ns=start, stop_ns=stop) for start, stop in seen.spans]
    u_edge_s = max((*seen.u_start_s, *seen.u_stop_s), default=0.0)
    return Found(spans=spans, caveats=caveats, confidence=seen.confidence), "shape", u_edge_s


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
