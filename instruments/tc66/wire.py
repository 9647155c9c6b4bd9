"""One question, one answer of 192 encrypted bytes. Pure functions and tables.

`getva` (without a line end) is answered by twelve blocks of AES-256 in ECB mode under one key that all meters share:
it keeps no secret and only hides the layout. Inside are three blocks of 64 bytes, `pac1` to `pac3`, each with a
CRC-16/Modbus of its first 60 bytes as u32 at 60; all little-endian. `query` is answered by `firm`, or by `boot` while
the meter waits for firmware. Layout, key and commands as sigrok's wiki and rdtech-tc driver and TheHWcave/TC66 have
them; the three agree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from joulemeter.errors import MissingExtraError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher as Aes
    from cryptography.hazmat.primitives.ciphers.modes import ECB

FORMAT = "rdtech-tc/1"
QUERY, MEASURING, LOADER = b"query", b"firm", b"boot"
ASK = b"getva"
ANSWER_BYTES = 192
# Over USB an answer takes 80 to 100 ms, by how much the display shows (fqueze/usb-power-profiling).
USUAL_S = 0.15

KEY = bytes.fromhex("5821fa5601b2f02687ff1204622a4fb086f40260816f9a0ba7f106619ab87288")
BLOCK_BYTES = 64
TAGS = (b"pac1", b"pac2", b"pac3")
_CRC = struct.Struct("<I")
# Name, firmware, serial; voltage and current; two groups of charge and energy.
_IDENTITY, _IDENTITY_AT = struct.Struct("<4s4sI"), 4
_READING, _READING_AT = struct.Struct("<II"), 48
_GROUPS, _GROUPS_AT = struct.Struct("<IIII"), BLOCK_BYTES + 8
STEP_V, STEP_A = 1e-4, 1e-5
JOULES_PER_MWH = 3.6
# Real meters leave the third block empty; the simulator signs there.
_SIGNATURE_AT = 2 * BLOCK_BYTES + 4
SIMULATED = b"JouleMeter"

_PLACES = {tag: slice(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES) for at, tag in enumerate(TAGS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    model: str
    firmware: str
    serial: int
    voltage_v: float
    current_a: float
    energy_j: float
    simulated: bool


class Cipher:
    """The meters' encryption. Raises MissingExtraError."""

    def __init__(self) -> None:
        self._key = _cipher()

    def parse(self, answer: bytes) -> Reading | None:
        """One answer; None where it is spoilt or comes from another meter."""
        if len(answer) != ANSWER_BYTES:
            return None
        decryptor = self._key.decryptor()
        return parse_plain(decryptor.update(answer) + decryptor.finalize())

    def values(self, answer: bytes) -> tuple[float, float, float] | None:
        """Current, voltage and counted energy, as channels.py orders them; None of a spoilt answer."""
        reading = self.parse(answer)
        return None if reading is None else (reading.current_a, reading.voltage_v, reading.energy_j)


def _cipher() -> Aes[ECB]:
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher as Aes
        from cryptography.hazmat.primitives.ciphers import algorithms, modes
    except ImportError as error:
        raise MissingExtraError(
            "The TC66 encrypts what it sends, and the package cryptography is missing.", "joulemeter[tc66]"
        ) from error
    return Aes(algorithms.AES256(KEY), modes.ECB())  # noqa: S305 -- the meter's choice


def parse_plain(plain: bytes) -> Reading | None:
    """192 decrypted bytes; None where a block lacks its tag or its checksum is wrong."""
    if not all(_whole(tag, plain[place]) for tag, place in _PLACES.items()):
        return None
    name, firmware, serial = _IDENTITY.unpack_from(plain, _IDENTITY_AT)
    volts, amperes = _READING.unpack_from(plain, _READING_AT)
    _, first_mwh, _, second_mwh = _GROUPS.unpack_from(plain, _GROUPS_AT)
    return Reading(
        model=_text(name),
        firmware=_text(firmware),
        serial=serial,
        voltage_v=volts * STEP_V,
        current_a=amperes * STEP_A,
        # The user chooses which of the two counts: their sum grows whichever it is.
        energy_j=(first_mwh + second_mwh) * JOULES_PER_MWH,
        simulated=plain[_SIGNATURE_AT:].startswith(SIMULATED),
    )


def _whole(tag: bytes, block: bytes) -> bool:
    (crc,) = _CRC.unpack_from(block, BLOCK_BYTES - _CRC.size)
    return block.startswith(tag) and bool(crc == crc16(block[: -_CRC.size]))


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0 ").decode("ascii", errors="replace")


def crc16(data: bytes) -> int:
    """CRC-16/Modbus: polynomial 0x8005 reflected, initial value 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc
