"""Reports to samples, one for each second that the meter says it has run.

A report stands for the second before it came. The meter's own seconds say how many reports are missing between two,
so nothing that Bluetooth does to their arrival moves any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from joulemeter.capture import Block, Header
from joulemeter.errors import DataError, UsageError

from . import wire

# A longer jump of the meter's seconds is somebody's doing, not a loss.
LONGEST_S = 3600
# So many bytes in a row without a report are not a disturbance but something else.
GARBAGE_BYTES = 30 * wire.REPORT_BYTES


class AtorchDecoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError for a stream of another format."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the JouleMeter that recorded it."
            )
        self._names = [channel.name for channel in header.channels]
        self._begin = wire.BEGIN + bytes([header.parameters["kind"]])
        self._sum_from: int = header.parameters["sum_from"]
        self._pending = b""
        self._consumed = 0  # bytes before `_pending`
        self._spoilt = 0  # bytes since the last report
        self._index = 0
        self._run_s: int | None = None

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        held, at = self._pending + raw, 0
        blocks = []
        while len(held) - at >= wire.REPORT_BYTES:
            block = held[at : at + wire.REPORT_BYTES]
            if block.startswith(self._begin) and wire.checksum(block, self._sum_from) == block[-1]:
                at += wire.REPORT_BYTES
                blocks.append(self._sample(block, self._consumed + at))
                continue
            following = held.find(self._begin, at + 1)
            # The beginning of one may stand at the end.
            following = len(held) - len(self._begin) + 1 if following < 0 else following
            self._spoilt += following - at
            at = following
            if self._spoilt > GARBAGE_BYTES:
                raise DataError(
                    f"{self._spoilt} bytes of the stream, from byte {self._consumed + at - self._spoilt} on, are no "
                    "reports.",
                    "What came before is kept. Record anew.",
                )
        self._consumed += at
        self._pending = held[at:]
        return blocks

    def _sample(self, block: bytes, ends: int) -> Block:
        report = wire.parse(block)
        assert report is not None  # noqa: S101 -- only the kind in the header, which is known, gets here
        lost = self._lost(report.run_s)
        values = (report.current_a, report.voltage_v, report.energy_j)
        made = Block(
            first_index=self._index + lost,
            data={name: np.array([value], dtype=np.float64) for name, value in zip(self._names, values, strict=False)},
            lost_before=lost,
            consumed=ends,
        )
        self._index += lost + 1
        self._run_s, self._spoilt = report.run_s, 0
        return made

    def _lost(self, run_s: int) -> int:
        """Reports missing before this one: by the meter's seconds, by the bytes that were spoilt where these stand."""
        if self._run_s is None:
            return 0
        passed_s = (run_s - self._run_s) % wire.RUN_MODULO
        if 0 < passed_s <= LONGEST_S:
            return passed_s - 1
        return round(self._spoilt / wire.REPORT_BYTES)

    def finish(self) -> list[Block]:
        """Nothing is held back but a report without its end."""
        return []

    def state(self) -> dict[str, Any]:
        return {
            "pending": self._pending.hex(),
            "consumed": self._consumed,
            "spoilt": self._spoilt,
            "index": self._index,
            "run_s": self._run_s,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._pending = bytes.fromhex(state["pending"])
        self._consumed, self._spoilt = state["consumed"], state["spoilt"]
        self._index, self._run_s = state["index"], state["run_s"]
