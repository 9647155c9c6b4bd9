"""Frames of records, or of arrays, to samples. Fill is no data, and many of it are no measurement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from joulemeter import frames
from joulemeter.capture import Block, Header, Status
from joulemeter.errors import UsageError

from . import wire


class N6705Decoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the JouleMeter that recorded it."
            )
        self._names = [channel.name for channel in header.channels]
        self._frames = frames.Splitter()
        self._index = 0

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        blocks = []
        for frame in self._frames.feed(raw):
            block = self._block(frame)
            if block is not None:
                blocks.append(block)
        return blocks

    def _block(self, frame: frames.Frame) -> Block | None:
        values = wire.columns(frame.payload, frame.kind, len(self._names))
        if frame.number < self._index or not len(values[0]):
            return None
        fill = np.zeros(len(values[0]), dtype=np.bool_)
        for column in values:
            # Written so that NaN is fill too.
            fill |= ~(np.abs(column) <= wire.FILL)
        for column in values:
            column[fill] = np.nan
        lost = frame.number - self._index
        self._index = frame.number + len(fill)
        return Block(
            first_index=frame.number,
            data=dict(zip(self._names, values, strict=True)),
            lost_before=lost,
            status=np.where(fill, Status.INVALID, 0).astype(np.uint8) if fill.any() else None,
            consumed=frame.ends,
        )

    def finish(self) -> list[Block]:
        """Nothing is held back but a frame without its end."""
        return []

    def state(self) -> dict[str, Any]:
        return {"frames": self._frames.state(), "index": self._index}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._frames.restore(state["frames"])
        self._index = state["index"]
