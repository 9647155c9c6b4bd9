"""Lines of rounds to samples: index by the slot of each round, time by the middle of its reads on the board's clock.

A round is one sample. It is lost where it was skipped, where its bytes were spoilt, or where a source could not be
read: its line tells why. Stream time 0 is when slot 0 was due. A reading is placed where the middle of what it stands
for lies: its age before it was read. The first readings may so lie before 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from joulemeter.boardfiles import wire
from joulemeter.capture import Block, Header, Status
from joulemeter.errors import DataError, UsageError
from joulemeter.polled import Runs

# So many bytes in a row without a round are not a disturbance but something else.
GARBAGE_BYTES = 1 << 16

Values = Callable[[wire.Round], Sequence[float] | None]


class RoundDecoder:
    def __init__(self, header: Header, values: Values) -> None:
        """`values` makes the values of header.channels, in that order, of a round in which everything was read.

        None loses the sample; a NaN marks it as no measurement. Raises UsageError.
        """
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the version of JouleMeter that recorded it."
            )
        parameters = header.parameters
        self._values = values
        self._sources = len(parameters["sources"])
        self._size = header.word_bytes
        self._interval_ns: int = parameters["interval_ns"]
        self._first_ns: int = parameters["first_ns"]  # when slot 0 was due
        self._zero_ns = self._first_ns + int(parameters["age_ns"])
        self._pending = b""
        self._consumed = 0
        self._spoilt = 0  # bytes before `_consumed` since the last round
        self._runs = Runs([channel.name for channel in header.channels])

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more; what came before it has been given out."""
        lines = (self._pending + raw).split(b"\n")
        self._pending = lines.pop()
        for line in lines:
            begins, self._consumed = self._consumed, self._consumed + len(line) + 1
            found = self._round(line)
            self._spoilt = 0 if found is not None else self._spoilt + len(line) + 1
            if found is None or any(read.text is None for read in found.reads):
                continue
            values = self._values(found)
            if values is not None:
                self._runs.add(found.slot, found.middle_ns - self._zero_ns, values, begins, self._consumed)
        blocks = [_marked(block) for block in self._runs.take()]
        if self._spoilt + len(self._pending) > GARBAGE_BYTES and not blocks:
            raise DataError(
                f"{self._spoilt + len(self._pending)} bytes of the stream, from byte {self._consumed - self._spoilt} "
                "on, are no rounds of readings.",
                "What came before is kept. Record anew.",
            )
        return blocks

    def finish(self) -> list[Block]:
        """Nothing is held back but a line without its end."""
        return self.feed(b"")

    def state(self) -> dict[str, Any]:
        return {
            "pending": self._pending.hex(),
            "consumed": self._consumed,
            "spoilt": self._spoilt,
            "index": self._runs.index,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._pending = bytes.fromhex(state["pending"])
        self._consumed = state["consumed"]
        self._spoilt = state["spoilt"]
        self._runs.index = state["index"]

    def _round(self, line: bytes) -> wire.Round | None:
        """A round says twice when it was: a digit that was spoilt in between shows."""
        found = wire.parse_round(line, self._sources, self._size)
        if found is None or found.slot < self._runs.index:
            return None
        stamps = [stamp for read in found.reads for stamp in (read.before_ns, read.after_ns)]
        late_ns = stamps[0] - self._first_ns - found.slot * self._interval_ns
        return found if 0 <= late_ns < self._interval_ns and stamps == sorted(stamps) else None


def _marked(block: Block) -> Block:
    wrong = np.isnan([*block.data.values()]).any(axis=0)
    return (
        replace(block, status=np.where(wrong, Status.INVALID, Status.GOOD).astype(np.uint8)) if wrong.any() else block
    )
