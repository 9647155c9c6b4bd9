"""The device end of a USB serial port. It packs bytes by its own code, so that no mistake is shared with wire.py.

The meter averages for 0.25 s and shows that until the next average is complete; an answer takes it 90 ms. The load
begins (t = 0) when it is plugged in, and goes on. Charge and energy are counted in the first group, beside what was
left in the second.
"""

from __future__ import annotations

import struct

from joulemeter.errors import MissingExtraError
from joulemeter.synthetic import Draw

RATE_HZ = 4.0
ANSWER_S = 0.09
# The commands of sigrok's wiki. The last one would make a meter in its loader forget its firmware.
COMMANDS = ("query", "getva", "lastp", "nextp", "rotat", "update")
SECRET = (
    0x58, 0x21, 0xFA, 0x56, 0x01, 0xB2, 0xF0, 0x26, 0x87, 0xFF, 0x12, 0x04, 0x62, 0x2A, 0x4F, 0xB0,
    0x86, 0xF4, 0x02, 0x60, 0x81, 0x6F, 0x9A, 0x0B, 0xA7, 0xF1, 0x06, 0x61, 0x9A, 0xB8, 0x72, 0x88,
)  # fmt: skip
SERIAL, RUNS, CELSIUS = 66, 1, 25
BEFORE_MWH, OTHER_MWH = 5, 1229
# A block that real meters leave empty: whoever records can say that this one is simulated.
SIGNED = b"JouleMeter simulator"


class Tc66Simulator:
    def __init__(self, load: Draw, volts: float, mode: str) -> None:
        """Raises MissingExtraError."""
        try:
            from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
        except ImportError as error:
            raise MissingExtraError("A simulated TC66 has to encrypt what it sends.", "joulemeter[tc66]") from error
        self._cipher = Cipher(algorithms.AES256(bytes(SECRET)), modes.ECB())  # noqa: S305 -- the meter's choice
        self._load = load
        self._volts = volts
        self._mode = mode
        self._now_s = 0.0
        self._averages = 0
        self._charge_c = 0.0
        self._current_a = float(load.mean_current_a(0, 1, RATE_HZ)[0])
        self._inbox = ""
        self._due: list[tuple[float, bytes]] = []
        load.powered(True, 0.0)

    def receive(self, data: bytes) -> None:
        """Commands need no line end, and line ends are ignored."""
        self._inbox = (self._inbox + data.decode("ascii", errors="replace")).lstrip("\r\n")[-32:]
        while command := next((one for one in COMMANDS if one in self._inbox), None):
            self._inbox = self._inbox.partition(command)[2].lstrip("\r\n")
            self._obey(command)

    def _obey(self, command: str) -> None:
        if command == "query":
            self._due.append((self._now_s, self._mode.encode()))
        elif command == "update" and self._mode == "boot":
            self._due.append((self._now_s, b"uprdy"))
        elif command == "getva" and self._mode == "firm":
            self._due.append((self._now_s + ANSWER_S, self._answer()))

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        due = int(self._now_s * RATE_HZ + 1e-6) - self._averages
        if due > 0:
            means = self._load.mean_current_a(self._averages, due, RATE_HZ)
            self._averages += due
            self._current_a = float(means[-1])
            self._charge_c += float(means.sum()) / RATE_HZ
        sent = b"".join(answer for at_s, answer in self._due if at_s <= self._now_s)
        self._due = [later for later in self._due if later[0] > self._now_s]
        return sent

    def _answer(self) -> bytes:
        milliwatthours = BEFORE_MWH + int(self._charge_c * self._volts / 3.6)
        ohms = self._volts / max(self._current_a, 1e-5)
        blocks = [bytearray(60) for _ in range(3)]
        struct.pack_into("<4s4s4sI", blocks[0], 0, b"pac1", b"TC66", b"1.18", SERIAL)
        shown = (self._volts * 1e4, self._current_a * 1e5, self._volts * self._current_a * 1e4)
        struct.pack_into("<4I", blocks[0], 44, RUNS, *map(round, shown))
        counted = (round(milliwatthours / self._volts), milliwatthours, round(OTHER_MWH / self._volts), OTHER_MWH)
        struct.pack_into("<4s5I", blocks[1], 0, b"pac2", min(round(ohms * 10), 99999), *counted)
        struct.pack_into("<4I", blocks[1], 24, 0, CELSIUS, 281, 280)
        struct.pack_into("<4s20s", blocks[2], 0, b"pac3", SIGNED)
        plain = b"".join(bytes(block) + _checked(block) for block in blocks)
        encryptor = self._cipher.encryptor()
        return encryptor.update(plain) + encryptor.finalize()


def _checked(block: bytes | bytearray) -> bytes:
    """CRC-16/Modbus, by a table of the polynomial's multiples and stored in four bytes."""
    crc = 0xFFFF
    for byte in block:
        crc = crc >> 8 ^ MULTIPLES[(crc ^ byte) & 0xFF]
    return crc.to_bytes(4, "little")


def _multiple(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0xA001 * (byte & 1))
    return byte


MULTIPLES = tuple(_multiple(byte) for byte in range(256))
