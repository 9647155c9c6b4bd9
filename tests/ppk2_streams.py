"""PPK2 bytes made field by field, and the header to read them with. Shared by the PPK2's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Header
from joulemeter.instruments.ppk2 import channels

# What a real unit answered to 0x19, as the documentation of hdoordt/ppk2-rs (Metadata::from_bytes) prints it.
TRANSCRIPT = b"""Calibrated: 0
R0: 1003.3506
R1: 101.5865
R2: 10.3027
R3: 0.9636
R4: 0.0564
GS0: 0.0000
GS1: 112.7890
GS2: 18.0115
GS3: 2.4217
GS4: 0.0729
GI0: 1.0000
GI1: 0.9695
GI2: 0.9609
GI3: 0.9519
GI4: 0.9582
O0: 112.9420
O1: 75.4627
O2: 64.6020
O3: 50.4983
O4: 87.2177
VDD: 3000
HW: 9173
mode: 2
S0: 0.000000048
S1: 0.000000596
S2: 0.000005281
S3: 0.000062577
S4: 0.002940743
I0: -0.000000104
I1: -0.000001443
I2: 0.000036439
I3: -0.000374119
I4: -0.009388455
UG0: 1.00
UG1: 1.00
UG2: 1.00
UG3: 1.00
UG4: 1.00
IA: 56
END
"""

CONSTANTS = {
    "R": [1003.3506, 101.5865, 10.3027, 0.9636, 0.0564],
    "GS": [0.0, 112.789, 18.0115, 2.4217, 0.0729],
    "GI": [1.0, 0.9695, 0.9609, 0.9519, 0.9582],
    "O": [112.942, 75.4627, 64.602, 50.4983, 87.2177],
    "S": [0.000000048, 0.000000596, 0.000005281, 0.000062577, 0.002940743],
    "I": [-0.000000104, -0.000001443, 0.000036439, -0.000374119, -0.009388455],
    "UG": [1.0, 1.0, 1.0, 1.0, 1.0],
}


def header(filter_: str = "nordic", volts: float = 3.0) -> Header:
    return Header(
        instrument="ppk2",
        model="PPK2",
        wire="ppk2-words/1",
        rate_hz=100_000.0,
        word_bytes=4,
        channels=channels.channels(),
        loss_modulo=64,
        parameters={"calibration": CONSTANTS, "volts": volts, "filter": filter_},
    )


def pack(codes: Any, ranges: Any, lines: Any = 0, first_counter: int = 0) -> bytes:
    """code: bits 0-13, range: 14-16, counter: 18-23, lines: 24-31."""
    codes = np.asarray(codes, np.uint32)
    words = codes | np.asarray(ranges, np.uint32) << 14
    words = words | (np.arange(len(codes), dtype=np.uint32) + np.uint32(first_counter)) % 64 << 18
    raw: bytes = (words | np.asarray(lines, np.uint32) << 24).astype("<u4").tobytes()
    return raw


def typical(count: int, seed: int = 1, switches_per_s: float = 160.0) -> bytes:
    """Noisy codes, lines that change, and range switches at random: 160 a second is a lively board."""
    random = np.random.default_rng(seed)
    spell = np.cumsum(random.random(count) < switches_per_s / 1e5)
    level, range_ = random.integers(100, 1200, spell[-1] + 1), random.integers(0, 5, spell[-1] + 1)
    codes = np.clip(np.rint(level[spell] + 2.4 * random.standard_normal(count)), 0, 0x3FFF)
    lines = random.integers(0, 256, spell[-1] + 1)[spell]
    return pack(codes, range_[spell], lines)


def joined(blocks: list[Block]) -> dict[str, NDArray[Any]]:
    """All samples of the blocks, their status and the index of each."""
    columns: dict[str, list[Any]] = {"current": [], "range": [], "digital": [], "status": [], "index": []}
    for block in blocks:
        for name, values in block.data.items():
            columns[name].append(values)
        columns["status"].append(np.zeros(len(block), np.uint8) if block.status is None else block.status)
        columns["index"].append(block.first_index + np.arange(len(block)))
    return {name: np.concatenate(parts) if parts else np.empty(0) for name, parts in columns.items()}
