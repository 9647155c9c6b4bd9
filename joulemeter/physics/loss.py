"""What the measuring set-up takes itself, in a shunt, kept apart from the energy of the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from joulemeter.capture import Basis, Stream, View
from joulemeter.physics import summary
from joulemeter.physics.integrate import integrate
from joulemeter.physics.stats import summarise
from joulemeter.result import Summary
from joulemeter.window import Window


def loss(stream: Stream, windows: Sequence[Window], basis: Basis) -> Summary | None:
    """Energy per inference that never reached the device; None where no channel tells it."""
    lossy = [channel for channel in stream.header.channels if channel.loss]
    if not lossy:
        return None
    channels = tuple(replace(channel, loss=False) for channel in lossy)
    seen = integrate(View(stream=stream, own_header=replace(stream.header, channels=channels)), windows)
    per_inference = [one.per_inference_j for one in seen if one.per_inference_j is not None and not one.missing_s]
    return summary.of(summarise(per_inference), basis, None) if per_inference else None
