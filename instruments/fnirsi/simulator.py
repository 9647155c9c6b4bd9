"""The device end of a HID interface. It packs bytes by its own code, so that no mistake is shared with wire.py.

The meter takes a reading of 40 ms all the time; of the four samples of a report the first is a reading, the others lie
on the line to the next one, as a user of an FNB48S found. The load begins (t = 0) when the meter is plugged in. The
first report of a stream holds what was published of an FNB48: not a measurement but, it seems, the model, its firmware
and the beginning of its serial number (48, 2.60).
"""

from __future__ import annotations

import struct

from joulemeter.synthetic import Draw

REPORTS_HZ = 25.0
# How long it goes on after it was last told to. Of a real meter that is not known.
GOES_ON_S = {"FNB48": 0.2, "C1": 0.2, "FNB48S": 1.3, "FNB58": 1.3}
STARTS, GOES_ON = (0x81, 0x82), 0x83
LEFT_OVER = bytes.fromhex("02002001 30000401 80ca")


class FnirsiSimulator:
    def __init__(self, load: Draw, model: str, volts: float) -> None:
        self._load = load
        self._volts = volts
        self._goes_on_s = GOES_ON_S[model]
        self._now_s = 0.0
        self._readings = 0
        self._until_s = 0.0
        self._fresh = False
        self._command = b""
        self._outbox = b""
        load.powered(True, 0.0)
        self._last_a = float(load.mean_current_a(0, 1, REPORTS_HZ)[0])

    def receive(self, data: bytes) -> None:
        """Commands of 64 bytes; what is not a whole one is not understood."""
        self._command += data
        while len(self._command) >= 64:
            command, self._command = self._command[:64], self._command[64:]
            if command[0] != 0xAA or _crc(command[1:63]) != command[63]:
                continue
            if command[1] in STARTS:
                # Of a kind that no meter sends: whoever records can say that this one is simulated.
                self._outbox += _report(0x4A, b"JouleMeter simulator")
                self._fresh = True
            if command[1] == 0x82 or (command[1] == GOES_ON and self._now_s <= self._until_s):
                self._until_s = self._now_s + self._goes_on_s

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        due = int(self._now_s * REPORTS_HZ + 1e-6) - self._readings
        if due > 0:
            means = self._load.mean_current_a(self._readings, due, REPORTS_HZ)
            for reading_a in means.tolist():
                self._readings += 1
                if self._readings / REPORTS_HZ <= self._until_s:
                    self._outbox += self._measured(reading_a)
                self._last_a = reading_a
        sent, self._outbox = self._outbox, b""
        return sent

    def _measured(self, reading_a: float) -> bytes:
        if self._fresh:
            self._fresh = False
            return _report(0x04, LEFT_OVER)
        line = (self._last_a + (reading_a - self._last_a) * quarter / 4 for quarter in range(4))
        samples = (
            struct.pack("<IIHHBH", round(self._volts * 1e5), round(current_a * 1e5), 2700, 2700, 1, 251)
            for current_a in line
        )
        return _report(0x04, b"".join(samples))


def _report(kind: int, content: bytes) -> bytes:
    body = bytes([kind]) + content.ljust(61, b"\0")
    return b"\xaa" + body + bytes([_crc(body)])


def _crc(body: bytes) -> int:
    """By division, bit by bit: x^8 + x^5 + x^4 + x^3 + 1, the register begins at 0x42."""
    register = 0x42
    for bit in range(8 * len(body)):
        register ^= body[bit // 8] << bit % 8 & 0x80
        register = (register << 1 ^ 0x39) & 0xFF if register & 0x80 else register << 1
    return register
