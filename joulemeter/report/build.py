"""From a recording to the report's file: analysis and waveform brought together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from joulemeter.capture import Quantity, Recording, Stream
from joulemeter.errors import AccessError
from joulemeter.lifetime import analyzed
from joulemeter.physics.analyze import Analysis, Request
from joulemeter.physics.edges import line_spans
from joulemeter.physics.integrate import envelope
from joulemeter.report.html import Waveform, render
from joulemeter.store import window_rows


def write(recording: Recording, request: Request, path: Path, analysis: Analysis | None = None) -> None:
    """Write the report to `path`. Raises what the analysis raises, and AccessError."""
    analysis = analysis or analyzed(recording, request)
    waveform = _waveform(recording.streams[0]) if recording.streams else None
    text = render(analysis.result.to_dict(), window_rows(analysis.windows), waveform)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise AccessError(f"{path} cannot be written ({error.strerror}).", "Choose another place.") from error


def _waveform(stream: Stream) -> Waveform:
    drawn = envelope(stream)
    digital = [channel for channel in stream.header.channels if channel.quantity is Quantity.DIGITAL]
    lines = {name: spans for channel in digital for name, spans in line_spans(stream, channel).items()}
    return Waveform(
        time_s=drawn.start_s + drawn.step_s * (np.arange(len(drawn.mean), dtype=np.float64) + 0.5),
        low_w=drawn.low,
        high_w=drawn.high,
        mean_w=drawn.mean,
        unit=drawn.unit,
        lines=lines,
    )
