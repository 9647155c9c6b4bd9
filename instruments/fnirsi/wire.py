"""HID reports of 64 bytes each way, without numbers. Pure functions and tables.

As baryluk/fnirsi-usb-power-data-logger, Randomblock1/fnirsi-usb-tool and yeckel/OpenFNB58 have it: byte 0 is AA, byte 1
the kind, byte 63 a CRC-8 of bytes 1 to 62. A report of kind 4 holds four samples of 15 bytes from byte 2 on,
little-endian: voltage u32 and current u32 (10 µV, 10 µA), D+ u16 and D- u16 (mV), a byte that is 1, temperature u16
(0.1 °C). What byte 62 means is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.instrument import UsbId

FORMAT = "fnirsi-hid/1"
RATE_HZ = 100.0
REPORT_BYTES, SAMPLES = 64, 4
# What the bytes of a report come to for each of its samples.
WORD_BYTES = REPORT_BYTES // SAMPLES

MARK, DATA = 0xAA, 0x04
# The simulator sends a report of a kind that no meter has; other programs pass over every kind but DATA.
SIMULATED = 0x4A

_SAMPLE = np.dtype(
    {
        "names": ["volts", "amperes", "celsius"],
        "formats": ["<u4", "<u4", "<u2"],
        "offsets": [0, 4, 13],
        "itemsize": 15,
    }
)
PER_VOLT, PER_AMPERE, PER_DEGREE = 100_000, 100_000, 10
# USB knows 48 V and 5 A at the most. The first report after a restart may hold something else (188 V, 170 A).
MOST_V, MOST_A = 60.0, 20.0

# How often a meter is told to go on. No program does it more often than once for each report.
KEEPALIVES = {"1s": 1.0, "3ms": 3e-3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`start` are the kinds of the commands that make it stream."""

    usb: UsbId
    start: tuple[int, ...]
    keepalive: str


MODELS = {
    "FNB48": Model(usb=UsbId(vendor=0x0483, product=0x003A), start=(0x81, 0x82, 0x83), keepalive="3ms"),
    "C1": Model(usb=UsbId(vendor=0x0483, product=0x003B), start=(0x81, 0x82, 0x83), keepalive="3ms"),
    "FNB48S": Model(usb=UsbId(vendor=0x2E3C, product=0x0049), start=(0x81, 0x82, 0x82), keepalive="1s"),
    "FNB58": Model(usb=UsbId(vendor=0x2E3C, product=0x5558), start=(0x81, 0x82, 0x82), keepalive="1s"),
}


def _table() -> bytes:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte << 1 ^ (0x139 if byte & 0x80 else 0)
        table.append(byte)
    return bytes(table)


_CRC = _table()


def checksum(body: bytes) -> int:
    """CRC-8 with polynomial 0x39 from 0x42 on, not reflected; of bytes 1 to 62 of a report."""
    crc = 0x42
    for byte in body:
        crc = _CRC[crc ^ byte]
    return crc


def command(kind: int) -> bytes:
    body = bytes([kind]).ljust(REPORT_BYTES - 2, b"\0")
    return bytes([MARK, *body, checksum(body)])


KEEPALIVE = command(0x83)


def whole(report: bytes) -> bool:
    """Whether these are the bytes of one report, of any kind."""
    return len(report) == REPORT_BYTES and report[0] == MARK and checksum(report[1:-1]) == report[-1]


def samples(report: bytes) -> NDArray[np.float64] | None:
    """Current (A), voltage (V) and temperature (°C) of the four samples of a whole report, (3, 4).

    None for one of another kind, and for one that holds what no meter can have measured.
    """
    if report[1] != DATA:
        return None
    raw = np.frombuffer(report, _SAMPLE, SAMPLES, 2)
    current, voltage = raw["amperes"] / PER_AMPERE, raw["volts"] / PER_VOLT
    if (voltage > MOST_V).any() or (current > MOST_A).any():
        return None
    return np.stack([current, voltage, raw["celsius"] / PER_DEGREE])
