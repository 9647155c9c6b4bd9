"""From a recording to the report's file: analysis and waveform brought together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING

from joulemeter.capture import Quantity, Recording, Stream
from joulemeter.errors import AccessError
from joulemeter.lifetime import analyzed
from joulemeter.physics.analyze import Analysis, Request
from joulemeter.physics.edges import line_spans
from joulemeter.physics.integrate import envelope
from joulemeter.report.detail import CLOSE, DRAWN, WHOLE, Part, Steps
from joulemeter.report.figures import MOST_NAMED, Row, Waveform, telling
from joulemeter.report.html import render
from joulemeter.store import window_rows

if TYPE_CHECKING:
    from joulemeter.report.standing import Standing


def write(
    recording: Recording,
    request: Request,
    path: Path,
    analysis: Analysis | None = None,
    standing: Standing | None = None,
    command: Sequence[str] = (),
) -> None:
    """Write the report to `path`. Raises what the analysis raises, and AccessError."""
    analysis = analysis or analyzed(recording, request)
    windows = window_rows(analysis.windows)
    streams = recording.streams
    inferences = [row for row in windows if row["label"] not in analysis.result.phases]
    drawn = waveform(streams[0], inferences) if streams else None
    if drawn is not None and len(streams) > 1:
        drawn = replace(drawn, name=streams[0].name)
    text = render(
        analysis.result.to_dict(),
        windows,
        drawn,
        table=None if standing is None else standing.table,
        left_out=() if standing is None else standing.left_out,
        command=command,
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AccessError(f"{path} cannot be written ({error.strerror}).", "Choose another place.") from error


def waveform(stream: Stream, windows: Sequence[Row]) -> Waveform:
    """A stream as the report draws it: few steps of the whole, and finer ones for a closer look.

    Raises DataError where there is nothing to draw.
    """
    drawn = envelope(stream, min(max(stream.length, DRAWN), WHOLE))
    whole = Steps.of(drawn)
    seen = whole.joined(DRAWN)
    digital = [channel for channel in stream.header.channels if channel.quantity is Quantity.DIGITAL]
    lines = {name: spans for channel in digital for name, spans in line_spans(stream, channel, MOST_NAMED).items()}
    return Waveform(
        time_s=seen.middles_s,
        low_w=seen.low,
        high_w=seen.high,
        mean_w=seen.mean,
        unit=drawn.unit,
        lines=lines,
        details=() if seen is whole else (whole, *_close(stream, windows, whole)),
    )


def _close(stream: Stream, windows: Sequence[Row], whole: Steps) -> Iterator[Steps]:
    """The windows that people look at first, in finer steps than those of the whole where the samples have them."""
    rate_hz = stream.timebase.rate_hz
    if whole.step_s * rate_hz <= 1.5 or _polled(stream):
        return
    for start_s, stop_s in telling(windows):
        first, last = max(floor(start_s * rate_hz), 0), min(ceil(stop_s * rate_hz), stream.length)
        if 0 < last - first < CLOSE * whole.step_s * rate_hz:
            yield Steps.of(envelope(Part(stream=stream, first=first, last=last), CLOSE), first / rate_hz)


def _polled(stream: Stream) -> bool:
    return any(block.times_ns is not None for block in islice(stream.blocks(), 1))
