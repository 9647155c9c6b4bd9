"""Frames to samples; where the instrument said that it had no reading, the sample is marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Header, Status
from joulemeter.polled import PolledDecoder

from . import wire


class Decoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError, DataError."""
        values = wire.reader(wire.places(header.parameters["readings"]), header.parameters["not_measured"])
        self._decoder = PolledDecoder(header, wire.FORMAT, values)
        self.state = self._decoder.state

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        return [_marked(block) for block in self._decoder.feed(raw)]

    def finish(self) -> list[Block]:
        return [_marked(block) for block in self._decoder.finish()]

    def restore(self, state: Mapping[str, Any]) -> None:
        self._decoder.restore(state)


def _marked(block: Block) -> Block:
    nothing: NDArray[np.bool_] = np.any([np.isnan(values) for values in block.data.values()], axis=0)
    if not nothing.any():
        return block
    status: NDArray[np.uint8] = np.where(nothing, np.uint8(Status.INVALID), np.uint8(0)).astype(np.uint8)
    return replace(block, status=status)
