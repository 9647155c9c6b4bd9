"""Frames of readings to samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from joulemeter import frames
from joulemeter.capture import Block, Header
from joulemeter.errors import UsageError

from . import wire


class DmmDecoder:
    """A block to each frame: part of a stream, or a whole record. A reading that never came is a lost sample."""

    def __init__(self, header: Header) -> None:
        """Raises UsageError for a stream of another format."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the JouleMeter that recorded it."
            )
        self._frames = frames.Splitter()
        self._index = 0

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        return [block for frame in self._frames.feed(raw) if (block := self._block(frame)) is not None]

    def _block(self, frame: frames.Frame) -> Block | None:
        readings = wire.unpack(frame.payload)
        if readings is None or frame.number < self._index:
            return None
        amperes, status = wire.values(readings)
        lost, self._index = frame.number - self._index, frame.number + len(amperes)
        return Block(
            first_index=frame.number,
            data={"current": amperes},
            lost_before=lost,
            status=status,
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
