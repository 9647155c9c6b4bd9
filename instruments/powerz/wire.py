"""The meter's packets: requests, answers, samples. Pure functions and tables, all little-endian.

Facts from okhsunrog/km003c-protocol-research (protocol, adcqueue, authentication), ChargerLAB's "KM002C&3C API
Description", and recordings of a KM003C's USB traffic in the first. A packet names its own length, so it is found in a
stream of bytes as well as in USB transfers:

    control     kind u7 | flag, number u8, u16 = attribute << 1             4 bytes
    put data    0x41, number u8, u16 >> 6 = words, then parts; 0: no part at all
                part: u32 = attribute u15, next u1, chunk u6, size u10, then its bytes
                (AdcQueue: chunk samples of size 20; all others: size bytes)
    memory      0xC4, number u8, 01 01, address, size, FFFFFFFF, CRC-32; then enciphered blocks without a head
    credential  0x4C, 00, u16 with the level in bits 1 and 2, 32 enciphered bytes
"""

from __future__ import annotations

import math
import os
import struct
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from . import aes

QUEUE_FORMAT = "powerz-adcqueue/1"
SNAPSHOT_FORMAT = "powerz-adc/1"

VENDOR = 0x5FC9
KM002C, KM003C = 0x0061, 0x0063
MODELS = {KM002C: "KM002C", KM003C: "KM003C"}
INTERFACE, ENDPOINT_OUT, ENDPOINT_IN = 0, 0x01, 0x81


class Kind(IntEnum):
    CONNECT = 0x02
    DISCONNECT = 0x03
    ACCEPT = 0x05
    REJECT = 0x06
    GET_DATA = 0x0C
    START_GRAPH = 0x0E
    STOP_GRAPH = 0x0F
    NOT_READABLE = 0x27
    PUT_DATA = 0x41
    MEMORY_READ = 0x44
    CREDENTIAL = 0x4C


ADC, QUEUE, SETTINGS = 0x0001, 0x0002, 0x0008

# The key of memory reads and that of the credential, as the maker's program for Windows holds them.
MEMORY_KEY = b"Lh2yfB7n6X7d9a5Z"
CREDENTIAL_KEY = b"Fa0b4tA25f4R038a"
HARDWARE_ID, HARDWARE_ID_BYTES = 0x40010450, 12
DEVICE_BLOCK, FIRMWARE_BLOCK, CALIBRATION_BLOCK, BLOCK_BYTES = 0x0420, 0x4420, 0x03000C00, 64
ALL_ONES = 0xFFFFFFFF

_CONTROL = struct.Struct("<BBH")
_MEMORY = struct.Struct("<III")
_SIZES = {Kind.MEMORY_READ: 20, Kind.CREDENTIAL: 36}
_CONTROLS = {kind for kind in Kind if kind < Kind.PUT_DATA}
# Snapshots of the KM003C, and of the KM002C as its description prints one.
_SNAPSHOT_SIZES = (44, 40)
_SETTINGS_SIZE = 180
_NAME_AT, _NAME_BYTES = 0x70, 64

# The simulator is called so in its settings; a real meter is called POWER-Z there.
SIMULATED_NAME = "JouleMeter simulator"

TICKS_HZ = 1000
TICKS_MODULO = 1 << 16
SAMPLE = np.dtype(
    [("ticks", "<u2"), ("marker", "<u2"), ("voltage", "<i4"), ("current", "<i4"), ("lines", "<u2", 4)],
)  # 20 bytes; µV and µA
MOST_SAMPLES = 63  # chunk has six bits
SNAPSHOT_BYTES = 52
# Beyond what the meters are made for (50 V, 6 A), so that only spoilt bytes lie outside.
LEAST_V, MOST_V, MOST_A = -1.0, 100.0, 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`index` selects it; `step` is by how many ticks the samples are apart."""

    index: int
    hz: float

    @property
    def step(self) -> int:
        return round(TICKS_HZ / self.hz)

    @property
    def modulo(self) -> int:
        """So many samples on, the ticks are the same again."""
        return TICKS_MODULO // math.gcd(TICKS_MODULO, self.step)

    def apart(self, before: int, after: int) -> int:
        """How many samples lie from one count of ticks to another, known modulo `modulo`."""
        ticks = (after - before) % TICKS_MODULO
        common = math.gcd(TICKS_MODULO, self.step)
        if ticks % common:
            return round(ticks / self.step)  # the count was disturbed: the nearest
        return ticks // common * pow(self.step // common, -1, self.modulo) % self.modulo


RATES = {
    "1000": Rate(index=3, hz=1000.0),
    "50": Rate(index=2, hz=50.0),
    "10": Rate(index=1, hz=10.0),
    "2": Rate(index=0, hz=2.0),
}


def control(kind: Kind, number: int, attribute: int = 0) -> bytes:
    return _CONTROL.pack(kind, number, attribute << 1)


def memory_asked(address: int, size: int) -> bytes:
    """In clear; a meter that agrees says it again."""
    asked = _MEMORY.pack(address, size, ALL_ONES)
    return asked + zlib.crc32(asked).to_bytes(4, "little")


def memory_read(address: int, size: int, number: int) -> bytes:
    plain = memory_asked(address, size) + b"\xff" * aes.BLOCK
    return bytes((Kind.MEMORY_READ, number, 1, 1)) + aes.encrypt(plain, MEMORY_KEY)


def memory(secret: bytes, size: int) -> bytes:
    """What follows the confirmation of a memory read, in clear."""
    return aes.decrypt(secret, MEMORY_KEY)[:size]


def blocks(size: int) -> int:
    """How many enciphered bytes so many make."""
    return -size % aes.BLOCK + size


def credential(hardware_id: bytes, number: int) -> bytes:
    """What the meter wants to see before it streams. Of the plain text it compares the hardware id only."""
    plain = round(time.time() * 1e3).to_bytes(8, "little") + hardware_id + os.urandom(12)
    return bytes((Kind.CREDENTIAL, number, 0, 2)) + aes.encrypt(plain, CREDENTIAL_KEY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """`word` is the second half of the head. `parts` are those of put data by attribute, `body` that of the others."""

    kind: Kind
    number: int
    word: int
    size: int
    body: bytes = b""
    parts: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def level(self) -> int:
        """Of a credential's answer: 0 refused, 1 as the owner, 2 as the maker."""
        return self.word >> 1 & 3


def packet(data: bytes) -> Packet | None:
    """The packet that `data` begins with; None where more bytes are needed. Raises ValueError where there is none."""
    if not data:
        return None
    try:
        kind = Kind(data[0] & 0x7F)
    except ValueError:
        raise ValueError(f"no packet begins with {data[0]:02X}") from None
    if len(data) < _CONTROL.size:
        return None
    _, number, word = _CONTROL.unpack_from(data)
    if kind is Kind.PUT_DATA:
        return _put_data(data, number, word)
    size = _CONTROL.size if kind in _CONTROLS else _SIZES[kind]
    if len(data) < size:
        return None
    return Packet(kind=kind, number=number, word=word, size=size, body=data[_CONTROL.size : size])


def _put_data(data: bytes, number: int, word: int) -> Packet | None:
    parts: dict[int, bytes] = {}
    at, following = _CONTROL.size, word >> 6 != 0
    while following:
        if len(data) < at + 4:
            return None
        head = int.from_bytes(data[at : at + 4], "little")
        attribute, following = head & 0x7FFF, bool(head >> 15 & 1)
        size = _part_size(attribute, chunk=head >> 16 & 0x3F, size=head >> 22)
        at += 4
        if len(data) < at + size:
            return None
        parts[attribute] = data[at : at + size]
        at += size
    return Packet(kind=Kind.PUT_DATA, number=number, word=word, size=at, parts=parts)


def _part_size(attribute: int, *, chunk: int, size: int) -> int:
    """Raises ValueError for a part that was never asked for."""
    if attribute == QUEUE and size == SAMPLE.itemsize and chunk:
        return chunk * size
    if (attribute == ADC and size in _SNAPSHOT_SIZES) or (attribute == SETTINGS and size == _SETTINGS_SIZE):
        return size
    raise ValueError(f"no part {attribute:#x} of {chunk} times {size} bytes")


def flows(answer: bytes) -> tuple[float, float] | None:
    """Current in amperes, signed as the meter does, and voltage of a snapshot; None of a spoilt one."""
    try:
        whole = packet(answer)
    except ValueError:
        return None
    body = b"" if whole is None else whole.parts.get(ADC, b"")
    if not body:
        return None
    voltage_uv, current_ua = struct.unpack_from("<ii", body)
    voltage_v, current_a = voltage_uv * 1e-6, current_ua * 1e-6
    plausible = LEAST_V <= voltage_v <= MOST_V and abs(current_a) <= MOST_A
    return (current_a, voltage_v) if plausible else None


def plausible(samples: NDArray[np.void]) -> NDArray[np.bool_]:
    voltage, current = samples["voltage"], samples["current"]
    good: NDArray[np.bool_] = (voltage >= LEAST_V * 1e6) & (voltage <= MOST_V * 1e6)
    good &= (current >= -MOST_A * 1e6) & (current <= MOST_A * 1e6)
    return good


def name(settings: bytes) -> str:
    return _text(settings[_NAME_AT : _NAME_AT + _NAME_BYTES])


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the meter says of itself; None where it does not."""

    model: str | None = None
    hardware: str | None = None
    firmware: str | None = None
    serial: str | None = None


def identity(device: bytes | None, firmware: bytes | None, calibration: bytes | None) -> Identity:
    """From three blocks of its memory, of BLOCK_BYTES each."""
    return Identity(
        model=_text(device[0x10:0x1C]) or None if device else None,
        hardware=_text(device[0x1C:0x28]) or None if device else None,
        firmware=_text(firmware[0x1C:0x28]) or None if firmware else None,
        serial=_text(calibration[:7]) or None if calibration else None,
    )


def _text(field_: bytes) -> str:
    """Up to the first zero; "" where it is not text."""
    plain = field_.partition(b"\0")[0]
    return plain.decode("ascii").strip() if plain.isascii() and plain.decode("ascii").isprintable() else ""
