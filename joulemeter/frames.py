"""Records that a driver makes itself, for meters whose bytes do not carry their own time or count.

A frame is what one meter gave at once, untouched, with a number (of the slot it was asked in, or of its first sample)
and the host's monotonic clock before and after. Both checksums are CRC-32, of the head and of the payload:

    mark 4s, kind u32, number i64, before_ns i64, after_ns i64, length u32, crc u32, payload, crc u32    (little-endian)
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from joulemeter.errors import DataError

MARK = b"JMfr"
_HEAD = struct.Struct("<4sIqqqI")
_CRC = struct.Struct("<I")
_BEGIN = _HEAD.size + _CRC.size
OVERHEAD = _BEGIN + _CRC.size
MAX_PAYLOAD = 1 << 30
# So many bytes in a row without a frame are not a disturbance but something else.
GARBAGE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """`kind` is the instrument's own. `size` is what it takes on disk, `ends` the byte of the stream after it."""

    kind: int = 0
    number: int
    before_ns: int
    after_ns: int
    payload: bytes
    ends: int = 0

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.payload)


def pack(frame: Frame) -> bytes:
    head = _HEAD.pack(MARK, frame.kind, frame.number, frame.before_ns, frame.after_ns, len(frame.payload))
    return b"".join(
        (head, _CRC.pack(zlib.crc32(head)), frame.payload, _CRC.pack(zlib.crc32(frame.payload))),
    )


class Splitter:
    """Bytes to frames, whatever the chunks. What is no frame is skipped up to the next one."""

    def __init__(self) -> None:
        self._pending = b""
        self._consumed = 0  # bytes before `_pending`
        self._spoilt = 0  # of them, since the last frame

    def feed(self, raw: bytes) -> Iterator[Frame]:
        """The frames that these bytes complete. Raises DataError once the stream makes no sense any more."""
        held, at = self._pending + raw, 0
        try:
            while len(held) - at >= _BEGIN:
                taken = self._take(held, at)
                if taken == 0:
                    return
                if isinstance(taken, Frame):
                    at += taken.size
                    self._spoilt = 0
                    yield taken
                    continue
                following = held.find(MARK, at + 1)
                # The beginning of a mark may stand at the end.
                following = len(held) - len(MARK) + 1 if following < 0 else following
                self._spoilt += following - at
                at = following
                if self._spoilt > GARBAGE_BYTES:
                    raise DataError(
                        f"{self._spoilt} bytes of the stream, from byte {self._consumed + at - self._spoilt} on, are "
                        "no frames.",
                        "What came before is kept. Record anew.",
                    )
        finally:
            self._consumed += at
            self._pending = held[at:]

    def _take(self, held: bytes, at: int) -> Frame | int | None:
        """The frame at `at`; 0 where more bytes are needed to tell, None where there is none."""
        head = held[at : at + _HEAD.size]
        mark, kind, number, before_ns, after_ns, length = _HEAD.unpack(head)
        (crc,) = _CRC.unpack_from(held, at + _HEAD.size)
        if mark != MARK or crc != zlib.crc32(head) or length > MAX_PAYLOAD:
            return None
        if len(held) - at < OVERHEAD + length:
            return 0
        payload = held[at + _BEGIN : at + _BEGIN + length]
        (crc,) = _CRC.unpack_from(held, at + _BEGIN + length)
        if crc != zlib.crc32(payload):
            return None
        return Frame(
            kind=kind,
            number=number,
            before_ns=before_ns,
            after_ns=after_ns,
            payload=payload,
            ends=self._consumed + at + OVERHEAD + length,
        )

    def state(self) -> dict[str, Any]:
        return {"pending": self._pending.hex(), "consumed": self._consumed, "spoilt": self._spoilt}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._pending = bytes.fromhex(state["pending"])
        self._consumed, self._spoilt = state["consumed"], state["spoilt"]
