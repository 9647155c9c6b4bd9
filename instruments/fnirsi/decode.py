"""Bytes to reports, reports to samples. Nothing in them tells time or number: time is the count of samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Header
from joulemeter.errors import DataError, UsageError

from . import wire

# So many bytes in a row without a measurement are not a disturbance but something else (2.5 s).
GARBAGE_BYTES = 64 * wire.REPORT_BYTES


class Splitter:
    """Bytes to whole reports, whatever the chunks. What is none is skipped up to the next one.

    USB never shifts a report, so after a spoilt one the next is looked for where it should be. Where it is not, which
    takes another link than USB, only a measurement is believed.
    """

    def __init__(self) -> None:
        self.pending = b""
        self.consumed = 0  # bytes up to the end of the last report, or of what was skipped after it
        self.skipped = 0  # of them, since the last report
        self._lost_place = False

    def feed(self, raw: bytes) -> Iterator[bytes]:
        """The reports that these bytes complete; `consumed` and `skipped` are those at each."""
        held, begun = self.pending + raw, self.consumed
        try:
            while (taken := self._take(held, self.consumed - begun)) is not None:
                self.consumed += len(taken)
                yield taken
                self.skipped = 0
        finally:
            self.pending = held[self.consumed - begun :]

    def _take(self, held: bytes, at: int) -> bytes | None:
        """The next report from `at` on, past what is skipped; None where more bytes are needed to tell."""
        size = wire.REPORT_BYTES
        while len(held) - at >= size:
            report = held[at : at + size]
            if wire.whole(report) and not (self._lost_place and wire.samples(report) is None):
                self._lost_place = False
                return report
            if self._lost_place:
                following = held.find(bytes([wire.MARK]), at + 1)
                step = following - at if following > 0 else len(held) - at
            elif len(held) - at < 2 * size:
                return None
            elif wire.whole(held[at + size : at + 2 * size]):
                step = size
            else:
                self._lost_place = True
                continue
            at += step
            self.skipped += step
            self.consumed += step
        return None

    def state(self) -> dict[str, Any]:
        return {
            "pending": self.pending.hex(),
            "consumed": self.consumed,
            "skipped": self.skipped,
            "lost_place": self._lost_place,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.pending = bytes.fromhex(state["pending"])
        self.consumed, self.skipped, self._lost_place = state["consumed"], state["skipped"], state["lost_place"]


@dataclass(slots=True, kw_only=True)
class _Run:
    """Measurements that follow each other, (3, 4) each, up to byte `ends`; `lost` samples are missing before them."""

    lost: int
    ends: int = 0
    values: list[NDArray[np.float64]] = field(default_factory=list)


class FnirsiDecoder:
    """A spoilt report, or one that holds no measurement, is four lost samples; one of another kind is none."""

    def __init__(self, header: Header) -> None:
        """Raises UsageError for a stream of another format."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the JouleMeter that recorded it."
            )
        self._names = [channel.name for channel in header.channels]
        self._reports = Splitter()
        self._index = 0
        self._lost = 0  # samples since the last measurement
        self._spoilt = 0  # bytes since the last measurement
        self._broken = False

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        if self._broken:
            raise self._nonsense()
        runs: list[_Run] = []
        for report in self._reports.feed(raw):
            values = wire.samples(report)
            spoilt = values is None and report[1] == wire.DATA
            self._lose(self._reports.skipped + spoilt * wire.REPORT_BYTES)
            if self._broken:
                break
            if values is None:
                continue
            self._spoilt = 0
            if self._lost or not runs or runs[-1].ends != self._reports.consumed - wire.REPORT_BYTES:
                runs.append(_Run(lost=self._lost))
                self._lost = 0
            runs[-1].values.append(values)
            runs[-1].ends = self._reports.consumed
        self._broken |= self._spoilt + self._reports.skipped > GARBAGE_BYTES
        return [self._block(run) for run in runs]

    def finish(self) -> list[Block]:
        """Nothing is held back but the part of a report. Raises DataError as `feed` does."""
        if self._broken:
            raise self._nonsense()
        return []

    def _lose(self, count: int) -> None:
        self._lost += wire.SAMPLES * math.ceil(count / wire.REPORT_BYTES)
        self._spoilt += count
        self._broken |= self._spoilt > GARBAGE_BYTES

    def _block(self, run: _Run) -> Block:
        # What came before the first measurement was never counted.
        lost = run.lost if self._index else 0
        values = np.concatenate(run.values, axis=1)
        first = self._index + lost
        self._index = first + values.shape[1]
        return Block(
            first_index=first,
            data=dict(zip(self._names, values, strict=True)),
            lost_before=lost,
            consumed=run.ends,
        )

    def _nonsense(self) -> DataError:
        return DataError(
            f"More than {GARBAGE_BYTES} bytes of the stream, up to byte {self._reports.consumed}, are no measurements.",
            "What came before is kept. Unplug the meter and plug it in again; then record anew.",
        )

    def state(self) -> dict[str, Any]:
        return {
            "reports": self._reports.state(),
            "index": self._index,
            "lost": self._lost,
            "spoilt": self._spoilt,
            "broken": self._broken,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._reports.restore(state["reports"])
        self._index, self._lost = state["index"], state["lost"]
        self._spoilt, self._broken = state["spoilt"], state["broken"]
