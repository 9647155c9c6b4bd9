"""Lines of rounds to samples: index by the slot of each round, time by the middle of its reads on the board's clock.

A round is one sample. It is lost where it was skipped, where its bytes were spoilt, or where a file that it needs
could not be read: its line tells why. Stream time 0 lies one interval before the first slot that was recorded, moved by
what a round takes (see driver.py), and a reading is placed where the middle of what it stands for lies: the chip's age
before it was read. The first readings may so lie before 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Header
from joulemeter.errors import DataError, UsageError

from . import wire

# So many bytes in a row without a round are not a disturbance but something else.
GARBAGE_BYTES = 1 << 16


class HwmonDecoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the version of JouleMeter that recorded it."
            )
        parameters = header.parameters
        self._per_si: list[float] = [file["per_si"] for file in parameters["files"]]
        # Each channel is a sum of products of files.
        self._sums: dict[str, list[list[int]]] = parameters["channels"]
        self._interval_ns: int = parameters["interval_ns"]
        self._first_ns: int = parameters["first_ns"]  # when slot 0 was due
        self._first_slot: int = parameters["first_slot"]
        self._offset_ns: int = parameters["zero_ns"] + parameters["age_ns"]
        self._pending = b""
        self._consumed = 0
        self._spoilt = 0  # bytes before `_consumed` since the last round
        self._index = 0  # of the next sample

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more; what came before it has been given out."""
        lines = (self._pending + raw).split(b"\n")
        self._pending = lines.pop()
        runs: list[_Run] = []
        for line in lines:
            self._consumed += len(line) + 1
            taken = self._take(line)
            if taken is None:
                continue
            index, time_ns, values = taken
            begins = self._consumed - len(line) - 1
            if not runs or index != self._index or runs[-1].consumed != begins:
                runs.append(_Run(first=index, lost=index - self._index))
            runs[-1].add(time_ns, values, self._consumed)
            self._index = index + 1
        if self._spoilt + len(self._pending) > GARBAGE_BYTES and not runs:
            raise DataError(
                f"{self._spoilt + len(self._pending)} bytes of the stream, from byte {self._consumed - self._spoilt} "
                "on, are no rounds of readings.",
                "What came before is kept. Record anew.",
            )
        return [run.block([*self._sums]) for run in runs]

    def finish(self) -> list[Block]:
        """Nothing is held back but a line without its end."""
        return self.feed(b"")

    def state(self) -> dict[str, Any]:
        return {
            "pending": self._pending.hex(),
            "consumed": self._consumed,
            "spoilt": self._spoilt,
            "index": self._index,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._pending = bytes.fromhex(state["pending"])
        self._consumed = state["consumed"]
        self._spoilt = state["spoilt"]
        self._index = state["index"]

    def _take(self, line: bytes) -> tuple[int, int, list[float]] | None:
        """Index, stream time and values of a line's round; None where it is no round, or not a whole one."""
        found = wire.parse_round(line, len(self._per_si))
        if found is None or not self._in_its_slot(found):
            self._spoilt += len(line) + 1
            return None
        self._spoilt = 0
        numbers = [read.number for read in found.reads]
        files = [number / per_si for number, per_si in zip(numbers, self._per_si, strict=True) if number is not None]
        if len(files) < len(numbers):
            return None
        middle_ns = (found.reads[0].before_ns + found.reads[-1].after_ns) // 2
        values = [
            sum(float(np.prod([files[k] for k in product])) for product in products) for products in self._sums.values()
        ]
        return found.slot - self._first_slot, middle_ns - self._offset_ns, values

    def _in_its_slot(self, found: wire.Round) -> bool:
        """A round says twice when it was: a digit that was spoilt in between shows."""
        due_ns = self._first_ns + found.slot * self._interval_ns
        stamps = [stamp for read in found.reads for stamp in (read.before_ns, read.after_ns)]
        ahead = found.slot - self._first_slot >= self._index
        return ahead and 0 <= stamps[0] - due_ns < self._interval_ns and stamps == sorted(stamps)


class _Run:
    """Rounds that follow each other."""

    def __init__(self, *, first: int, lost: int) -> None:
        self._first, self._lost = first, lost
        self._times: list[int] = []
        self._values: list[list[float]] = []
        self.consumed = 0

    def add(self, time_ns: int, values: list[float], consumed: int) -> None:
        self._times.append(time_ns)
        self._values.append(values)
        self.consumed = consumed

    def block(self, names: list[str]) -> Block:
        columns: NDArray[np.float64] = np.array(self._values, dtype=np.float64).T
        return Block(
            first_index=self._first,
            data=dict(zip(names, columns, strict=True)),
            lost_before=self._lost,
            consumed=self.consumed,
            times_ns=np.array(self._times, dtype=np.int64),
        )
