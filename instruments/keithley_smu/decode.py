"""Frames of one row each to samples, which carry the unit's own stamps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from joulemeter import frames
from joulemeter.capture import Block, Header
from joulemeter.errors import UsageError

from . import wire


@dataclass(slots=True, kw_only=True)
class _Run:
    """Rows that follow each other, up to byte `ends`; `lost` are missing before them."""

    first: int
    lost: int
    ends: int = 0
    rows: list[wire.Row] = field(default_factory=list)

    def block(self) -> Block:
        status = np.array([row.status for row in self.rows], dtype=np.uint8)
        return Block(
            first_index=self.first,
            data={
                "current": np.array([row.amperes for row in self.rows], dtype=np.float64),
                "voltage": np.array([row.volts for row in self.rows], dtype=np.float64),
            },
            lost_before=self.lost,
            status=status if status.any() else None,
            consumed=self.ends,
            times_ns=np.array([round(row.rel_s * 1e9) for row in self.rows], dtype=np.int64),
        )


class SmuDecoder:
    """The number of a reading is its index; one that is spoilt or missing is a lost sample."""

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
        runs: list[_Run] = []
        for frame in self._frames.feed(raw):
            row = wire.parse(frame.payload)
            if row is None or frame.number < self._index:
                continue
            if not runs or frame.number != self._index or runs[-1].ends != frame.ends - frame.size:
                runs.append(_Run(first=frame.number, lost=frame.number - self._index))
            runs[-1].rows.append(row)
            runs[-1].ends = frame.ends
            self._index = frame.number + 1
        return [run.block() for run in runs]

    def finish(self) -> list[Block]:
        """Nothing is held back but a frame without its end."""
        return []

    def state(self) -> dict[str, Any]:
        return {"frames": self._frames.state(), "index": self._index}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._frames.restore(state["frames"])
        self._index = state["index"]
