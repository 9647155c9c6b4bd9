"""Frames of raw waveforms to samples."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter import frames
from joulemeter.capture import Block, Header, Status
from joulemeter.errors import DataError, UsageError
from joulemeter.scope.driver import unpack_parts
from joulemeter.scope.frontend import FrontEnd

# The interval of a waveform may be a float32, and then differs from the header's by its rounding.
SAME_INTERVAL = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A waveform of one input: `volts` (n,) float64 at the probe's tip, `clipped` and `hole` (n,) bool or None.

    `interval_s` is None where the waveform does not tell it.
    """

    volts: NDArray[np.float64]
    interval_s: float | None = None
    clipped: NDArray[np.bool_] | None = None
    hole: NDArray[np.bool_] | None = None


class ScopeDecoder:
    """A block to each record. `trace` makes a waveform of what the instrument sent, and raises DataError."""

    def __init__(self, header: Header, wire: str, trace: Callable[[bytes], Trace]) -> None:
        """Raises UsageError for a stream of another format."""
        if header.wire != wire:
            raise UsageError(f"This stream is {header.wire}, not {wire}.", "Use the JouleMeter that recorded it.")
        self._header = header
        self._trace = trace
        self._front = FrontEnd.from_dict(header.parameters["front"])
        self._inputs = [int(number) for number in header.parameters["inputs"]]
        self._before = int(header.parameters["before"])
        self._frames = frames.Splitter()
        self._index = 0
        self._broken: DataError | None = None

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError for a waveform that cannot be."""
        blocks: list[Block] = []
        for frame in self._frames.feed(raw) if self._broken is None else ():
            try:
                blocks.append(self._block(frame))
            except DataError as error:
                # What came before it is told first.
                self._broken = error
                break
        if self._broken is not None and not blocks:
            raise self._broken
        return blocks

    def _block(self, frame: frames.Frame) -> Block:
        if frame.number < self._index:
            raise DataError("A record begins before the one ahead of it has ended.", "Record anew.")
        try:
            parts = unpack_parts(frame.payload)
        except struct.error as error:
            raise DataError("A record is no set of waveforms.", "Record anew; what came before is kept.") from error
        if len(parts) != len(self._inputs):
            raise DataError(f"A record holds {len(parts)} waveforms, not {len(self._inputs)}.", "Record anew.")
        traces = {number: self._trace(part) for number, part in zip(self._inputs, parts, strict=True)}
        lengths = {len(trace.volts) for trace in traces.values()}
        if len(lengths) != 1 or 0 in lengths:
            raise DataError(
                f"The waveforms of a record have {sorted(lengths)} samples.", "Record anew; what came before is kept."
            )
        for trace in traces.values():
            interval_s = trace.interval_s
            if interval_s is not None and abs(interval_s * self._header.rate_hz - 1) > SAME_INTERVAL:
                raise DataError(
                    f"A waveform has a sample every {interval_s:.9g} s, the recording {self._header.rate_hz:g} in a "
                    "second.",
                    "Leave the oscilloscope's controls alone while it records.",
                )
        data = self._front.columns({number: trace.volts for number, trace in traces.items()}, self._before)
        status = _status(traces, self._front)
        if np.isnan(data["current"]).all():
            status = np.full(len(data["current"]), Status.INVALID, dtype=np.uint8)
        block = Block(
            first_index=frame.number,
            data=data,
            lost_before=frame.number - self._index,
            status=status,
            consumed=frame.ends,
        )
        self._index = frame.number + len(block)
        return block

    def finish(self) -> list[Block]:
        """Nothing is held back but a frame without its end. Raises DataError."""
        if self._broken is not None:
            raise self._broken
        return []

    def state(self) -> dict[str, Any]:
        return {"frames": self._frames.state(), "index": self._index}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._frames.restore(state["frames"])
        self._index = state["index"]


def _status(traces: Mapping[int, Trace], front: FrontEnd) -> NDArray[np.uint8] | None:
    """Marks of the samples; of the trigger line only holes matter, for it may well leave the screen."""
    marked: NDArray[np.uint8] | None = None
    for number, trace in traces.items():
        feeds = number != front.trigger
        for where, mark in ((trace.clipped if feeds else None, Status.CLIPPED), (trace.hole, Status.INVALID)):
            if where is None or not where.any():
                continue
            if marked is None:
                marked = np.zeros(len(where), dtype=np.uint8)
            marked |= np.where(where, np.uint8(mark), np.uint8(0))
    return marked
