"""The device end of the bulk endpoints. It packs bytes by its own code, so that no mistake is shared with wire.py.

At 1000 S/s voltage and current are new in turn, as recordings of a KM003C show: here each current is the mean over the
two milliseconds up to the middle of its two samples. At the slower rates a sample is the mean over its interval, and a
snapshot the mean over the last half second. The load hangs on the socket or on the plug, as `direction` says, and
begins (t = 0) with each stream and, for snapshots, when the meter is plugged in.

A real meter keeps about 64 samples until they are fetched. This one keeps `queue` of them, so that a busy host does
not lose any unless that is what is to be seen. A simulated KM002C refuses to stream.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import UsageError
from joulemeter.synthetic import Draw

from . import aes

MEMORY_SECRET, STREAM_SECRET, ANSWER_SECRET = b"Lh2yfB7n6X7d9a5Z", b"Fa0b4tA25f4R038a", b"FX0b4tA25f4R038a"
# No real meter has these.
NAME, HARDWARE_ID = b"JouleMeter simulator", b"JMSIM0\x0d\xff\x00\x00\xff\xff"
STEPS = {0: 500, 1: 100, 2: 20, 3: 1}
REQUEST_BYTES = {0x44: 36, 0x4C: 36}
IN_ONE_ANSWER = 63
SNAPSHOT_HZ = 2.0


class PowerzSimulator:
    def __init__(self, load: Draw, settings: Mapping[str, str], volts: float) -> None:
        """Raises UsageError."""
        if not settings["queue"].isdigit() or not int(settings["queue"]):
            raise UsageError(f"A queue of {settings['queue']!r} samples is none.", "Give a whole number, such as 64.")
        self._load = self._drawn = load
        self._streams = settings["model"] == "KM003C"
        self._model = settings["model"].encode()
        self._sign = -1 if settings["direction"] == "plug-to-socket" else 1
        self._keeps = int(settings["queue"])
        self._microvolts = round(volts * 1e6)
        self._now_s = 0.0
        self._inbox = b""
        self._level = 0
        self._step: int | None = None  # of the stream, None: none runs
        self._start_s = 0.0
        self._made = 0  # samples of the stream
        self._fetched = 0  # of them, or lost
        load.powered(True, 0.0)

    def receive(self, data: bytes) -> None:
        self._inbox += data

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        if self._step is not None:
            # A hair more than the product, so that rounding never holds a due sample back.
            self._made = int((self._now_s - self._start_s) * 1000 / self._step + 1e-6)
            self._fetched = max(self._fetched, self._made - self._keeps)
        answers = b""
        while len(self._inbox) >= 4 and len(self._inbox) >= (size := REQUEST_BYTES.get(self._inbox[0], 4)):
            request, self._inbox = self._inbox[:size], self._inbox[size:]
            answers += self._answer(request)
        return answers

    def _answer(self, request: bytes) -> bytes:
        kind, number, word = request[0], request[1], int.from_bytes(request[2:4], "little") >> 1
        accepted, rejected = bytes((0x05, number, 0, 0)), bytes((0x06, number, 0, 0))
        match kind:
            case 0x02 | 0x03:
                return accepted
            case 0x0C:
                return self._data(number, word)
            case 0x0E if word in STEPS and self._level:
                self._step, self._start_s, self._made, self._fetched = STEPS[word], self._now_s, 0, 0
                self._drawn = self._load.from_time(self._now_s)
                return accepted
            case 0x0F:
                self._step = None
                return accepted
            case 0x44:
                return self._memory(request) or rejected
            case 0x4C:
                plain = aes.decrypt(request[4:], STREAM_SECRET)
                self._level = int(self._streams and plain[8:20] == HARDWARE_ID)
                return bytes((0x4C, 0, 1 | self._level << 1, 2)) + aes.encrypt(plain, ANSWER_SECRET)
        return rejected

    def _memory(self, request: bytes) -> bytes:
        plain = aes.decrypt(request[4:], MEMORY_SECRET)
        address, size, _, crc = struct.unpack_from("<IIII", plain)
        held = {
            0x420: bytes(16) + self._model.ljust(12, b"\0") + b"simulated".ljust(12, b"\0") + bytes(24),
            0x4420: bytes(16) + self._model.ljust(12, b"\0") + b"0.0".ljust(12, b"\0") + bytes(24),
            0x3000C00: b"000000 ".ljust(64, b"\xff"),
            0x40010450: HARDWARE_ID,
        }
        if address not in held or size > len(held[address]) or crc != zlib.crc32(plain[:12]):
            return b""
        content = held[address][:size]
        secret = aes.encrypt(content + bytes(-size % 16), MEMORY_SECRET)
        return bytes((0xC4, request[1], 1, 1)) + plain[:16] + secret

    def _data(self, number: int, mask: int) -> bytes:
        parts = []
        if mask & 1:
            parts.append((1, 0, self._snapshot()))
        if mask & 2 and self._step is not None and self._level and self._made > self._fetched:
            count = min(self._made - self._fetched, IN_ONE_ANSWER)
            parts.append((2, count, self._samples(self._fetched, count)))
            self._fetched += count
        if mask & 8:
            parts.append((8, 0, self._settings()))
        body = b""
        for left, (attribute, count, content) in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
            size = 20 if attribute == 2 else len(content)
            body += struct.pack("<HH", attribute | (0x8000 if left else 0), count | size << 6) + content
        words = len(body) // 4 - 2 if body else 0
        # The two low bits are set in all recordings of put data, by one.
        return struct.pack("<BBH", 0x41, number, words << 6 | 2) + body

    def _settings(self) -> bytes:
        first, second = bytes(92), bytes(16) + NAME.ljust(64, b"\0")
        return b"".join(block + zlib.crc32(block).to_bytes(4, "little") for block in (first, second))

    def _samples(self, first: int, count: int) -> bytes:
        step = self._step or 1
        currents = self._fast(first, count) if step == 1 else self._drawn.mean_current_a(first, count, 1000 / step)
        raw = np.zeros(count, [("t", "<u2"), ("m", "<u2"), ("v", "<i4"), ("i", "<i4"), ("l", "<u2", 4)])
        counted = round(self._start_s * 1000) + step * np.arange(first, first + count, dtype=np.int64)
        raw["t"] = (counted % 65536).astype(np.uint16)
        raw["m"] = 60
        raw["v"] = self._microvolts
        raw["i"] = np.rint(self._sign * 1e6 * currents)
        return raw.tobytes()

    def _fast(self, first: int, count: int) -> NDArray[np.float64]:
        conversions = np.arange(first, first + count) // 2
        begin, end = int(conversions[0]), int(conversions[-1]) + 1
        # Milliseconds 2m - 1 and 2m make conversion m; the first of all has one only.
        halves = self._drawn.mean_current_a(max(2 * begin - 1, 0), 2 * (end - begin) - (begin == 0), 1000.0)
        if begin == 0:
            halves = np.concatenate([halves[:1], halves])
        held: NDArray[np.float64] = halves.reshape(-1, 2).mean(axis=1)
        return held[conversions - begin]

    def _snapshot(self) -> bytes:
        # An interval that is not complete shows the one before.
        complete = max(int(self._now_s * SNAPSHOT_HZ + 1e-6), 1)
        microamperes = round(
            self._sign * 1e6 * float(self._load.mean_current_a(complete - 1, 1, SNAPSHOT_HZ)[0]),
        )
        flows = (self._microvolts, microamperes) * 3
        sizes = {"KM003C": 44, "KM002C": 40}
        return struct.pack("<6ih5H", *flows, 25 * 128, 0, 0, 0, 0, 33000).ljust(sizes[self._model.decode()], b"\0")
