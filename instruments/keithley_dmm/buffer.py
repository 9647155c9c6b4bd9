"""The meter's reading buffer, which goes round: how far it is, and what is in it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError
from joulemeter.scpi import Scpi

from . import wire

# How much faster than by the host's clock readings may come, as a share.
HASTE = 0.02


class Buffer:
    """Readings are counted from 0 since it was cleared. All methods raise IncompleteError, most also DataError."""

    def __init__(self, scpi: Scpi, held: int, rate_hz: float) -> None:
        self.held = held
        self.total = 0  # readings made so far
        self.looked_s = self.grown_s = time.monotonic()
        self._scpi = scpi
        self._rate_hz = rate_hz

    def look(self) -> bool:
        """Brings `total` up to date; False where more readings than it holds may have come since the last look.

        The last index tells the number only modulo the buffer's length.
        """
        asked_s = time.monotonic()
        answer = self._scpi.ask(f':TRAC:ACT? "{wire.BUFFER}"', f':TRAC:ACT:END? "{wire.BUFFER}"', retries=0)
        try:
            there, end = (int(float(part)) for part in answer.split(";"))
        except ValueError as error:
            raise DataError(f"The meter says {answer!r} of its buffer.", "Start it anew.") from error
        certain = not there or self.due(asked_s) < self.held
        grown = (end - self.total) % self.held if there and end != (self.total - 1) % self.held + 1 else 0
        if certain and grown > self.due(time.monotonic()):
            raise DataError(f"The meter says {answer!r} of its buffer, which cannot be yet.", "Check the connection.")
        if grown:
            self.total += grown
            self.grown_s = asked_s
        self.looked_s = asked_s
        return certain

    def due(self, now_s: float) -> int:
        """Readings that may have come since the last look, at most."""
        return int((now_s - self.looked_s) * self._rate_hz * (1 + HASTE)) + 1

    def recount(self) -> None:
        """`total` from the stamp of the newest reading, where they came without pause."""
        end = (self.total - 1) % self.held
        rel_s = float(self.stamps(end, 1)[0])
        self.total = end + 1 + self.held * round((rel_s * self._rate_hz - end) / self.held)

    def readings(self, first: int, count: int) -> bytes:
        """As the meter sends them, single precision."""
        return self._data("SREAL", "READ", "<f4", first, count).tobytes()

    def stamps(self, first: int, count: int) -> NDArray[np.float64]:
        """Seconds since the first reading after it was cleared, (count,)."""
        return self._data("REAL", "REL", "<f8", first, count)

    def _data(self, form: str, element: str, dtype: str, first: int, count: int) -> NDArray[Any]:
        size = np.dtype(dtype).itemsize
        pieces = [
            self._scpi.ask_block(
                f":FORM {form}",
                f':TRAC:DATA? {begin},{end},"{wire.BUFFER}",{element}',
                dtype=dtype,
                # A block #0 does not tell its length.
                length=size * (end - begin + 1),
                retries=0,
            )
            for begin, end in wire.spans(first, count, self.held)
        ]
        return np.concatenate(pieces)
