"""What a Joulescope's library delivers, and how it is kept. Pure functions and tables.

The library (pyjoulescope_driver) hands over one message for each signal from time to time: a dict with `sample_id` of
its first element, `sample_rate` in which sample ids count, `decimate_factor` from one element to the next, `utc`, and
`data`. A message becomes one frame (joulemeter.frames) of the signal's kind, whose number is the sample id and whose
payload is

    utc i64 (2**-30 s since 2018), sample_rate u32, decimate_factor u32 (little-endian), then the data:
    float32 as they came; bits (8 in a byte, lowest first) and ranges (a byte each) compressed by zlib

A message of the meter's own statistics is a frame of kind STATISTICS, as JSON, numbered by the sample id after it.
A frame of kind LOST says that the library counted on although so many sample ids are missing (u32).

Facts from jetperch/joulescope_driver 2.2.12 and 2.3.4 (src/devices, pyjoulescope_driver/binding.pyx) and from the
maker's application (jetperch/pyjoulescope_ui, devices/jsdrv).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError

FORMAT = "joulescope/1"
VENDOR = 0x16D0

STATISTICS, LOST = 32, 33
STATISTICS_TOPIC = "s/stats"
# A second of the time in `utc`.
SECOND = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """`topic` and "/ctrl" switches it on, `topic` and "/!data" brings it. `bits`: eight elements in a byte."""

    kind: int
    topic: str
    dtype: str
    bits: bool = False

    @property
    def measured(self) -> bool:
        return self.dtype == "<f4"


GPI_KIND = 16
TRIGGER_IN = 7
SIGNALS: dict[str, Signal] = {
    "current": Signal(kind=1, topic="s/i", dtype="<f4"),
    "voltage": Signal(kind=2, topic="s/v", dtype="<f4"),
    "range": Signal(kind=4, topic="s/i/range", dtype="u1"),
} | {
    f"d{index}": Signal(kind=GPI_KIND + index, topic=f"s/gpi/{index}", dtype="u1", bits=True)
    for index in (0, 1, 2, 3, TRIGGER_IN)
}
BY_KIND = {signal.kind: name for name, signal in SIGNALS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`ranges` maps what a user writes to the top of the range, in the order of the codes in the range stream.

    `select_base` and the range's bit make the value that selects it. `rates_hz` begins with the full one.
    `statistics_hz` is the rate of the samples that a block of statistics counts. `lines_beside_range`: more lines than
    that and the range stream at once are too much for its USB connection, and nothing comes at all.
    """

    name: str
    product: int
    rates_hz: tuple[float, ...]
    statistics_hz: float
    lines: tuple[str, ...]
    ranges: Mapping[str, float]
    select_base: int
    lines_beside_range: int

    @property
    def full_hz(self) -> float:
        return self.rates_hz[0]


_REDUCED_HZ = (200e3, 100e3, 50e3, 20e3, 10e3, 5e3, 2e3, 1e3)
_SIX = {"10A": 10.0, "180mA": 0.18, "18mA": 0.018, "1.8mA": 1.8e-3, "180uA": 180e-6, "18uA": 18e-6}
_FIVE_LINES = ("d0", "d1", "d2", "d3", "d7")

MODELS = {
    "js110": Model(
        name="JS110",
        product=0x0E88,
        rates_hz=(2e6, 1e6, *_REDUCED_HZ),
        statistics_hz=2e6,
        lines=("d0", "d1"),
        ranges={"10A": 10.0, "2A": 2.0, **{key: top for key, top in _SIX.items() if key != "10A"}},
        select_base=0,
        lines_beside_range=2,
    ),
    "js220": Model(
        name="JS220",
        product=0x10BA,
        rates_hz=(1e6, *_REDUCED_HZ),
        statistics_hz=1e6,
        lines=_FIVE_LINES,
        ranges=_SIX,
        select_base=0x80,
        lines_beside_range=3,
    ),
    "js320": Model(
        name="JS320",
        product=0x135A,
        rates_hz=(1e6, *_REDUCED_HZ),
        statistics_hz=1e6,
        lines=_FIVE_LINES,
        ranges=_SIX,
        select_base=0x80,
        lines_beside_range=3,
    ),
}

# Range switching by itself, and the voltage of the JS110's GPI pins, as the JS110 numbers them.
JS110_AUTO = 128
JS110_IO_MV = {"1.8V": 1800, "2.1V": 2100, "2.5V": 2500, "2.7V": 2700, "3.0V": 3000, "3.3V": 3300, "3.6V": 3600}
JS110_IO_MV["5.0V"] = 5000
# The reference of a JS220's and JS320's GPI pins.
VREF = {"vref": 0, "3.3V": 1}
# From firmware and FPGA of this version on a JS220 averages by itself where less than the full rate is asked for.
AVERAGING_VERSION = (1, 3, 0)
WIDEBAND, AVERAGING = 0, 1
SAMPLES_PER_PACKET = 126  # of a JS110's USB packet: 512 bytes, 8 of them header, 4 for each sample


def version(number: int) -> tuple[int, int, int]:
    """Major, minor, patch of the library's u32."""
    return number >> 24 & 0xFF, number >> 16 & 0xFF, number & 0xFFFF


def filter_delay(decimate: int, step: int) -> int:
    """Sample ids from the middle of the library's low-pass filter to the sample id that it gives the result.

    It halves (39 taps) as often as the factor allows and then takes one in five (89 taps), each stage at the rate that
    the one before left; `step` are the sample ids between its input samples, `decimate` those between its results.
    """
    delay = 0
    while step < decimate:
        taps, factor = (39, 2) if decimate // step % 2 == 0 else (89, 5)
        delay += taps // 2 * step
        step *= factor
    return delay


# -- frames -----------------------------------------------------------------------------------------------------------

_HEAD = struct.Struct("<qII")
_LOST = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """`values` (n,) are float32, or uint8 one for each element."""

    utc: int
    sample_rate: int
    decimate_factor: int
    values: NDArray[Any]


def pack(signal: Signal, message: Mapping[str, Any]) -> bytes:
    """The payload of a message as the library delivers it."""
    data = np.ascontiguousarray(message["data"], dtype=signal.dtype).tobytes()
    head = _HEAD.pack(message["utc"], message["sample_rate"], message["decimate_factor"])
    return head + (data if signal.measured else zlib.compress(data, 1))


def unpack(signal: Signal, payload: bytes) -> Message:
    """Raises DataError for a payload that is none."""
    try:
        utc, sample_rate, decimate = _HEAD.unpack_from(payload)
        data = payload[_HEAD.size :]
        values = np.frombuffer(data if signal.measured else zlib.decompress(data), dtype=signal.dtype)
    except (struct.error, zlib.error, ValueError) as error:
        raise DataError(f"A frame of {signal.topic} cannot be read ({error}).", "Record anew.") from error
    if not sample_rate or not decimate:
        raise DataError(f"A frame of {signal.topic} states no rate.", "Record anew.")
    if signal.bits:
        values = np.unpackbits(values, bitorder="little")
    return Message(utc=utc, sample_rate=sample_rate, decimate_factor=decimate, values=values)


def pack_statistics(message: Mapping[str, Any]) -> tuple[int, bytes]:
    """The sample id up to which they count, and the payload."""
    return int(message["time"]["samples"]["value"][1]), json.dumps(message, separators=(",", ":")).encode()


def energy_j(payload: bytes) -> float:
    """The running total of a frame of statistics. Raises DataError."""
    try:
        return float(json.loads(payload)["accumulators"]["energy"]["value"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"A frame of statistics cannot be read ({error}).", "Record anew.") from error


def pack_lost(sample_ids: int) -> bytes:
    return _LOST.pack(sample_ids)


def unpack_lost(payload: bytes) -> int:
    (sample_ids,) = _LOST.unpack(payload)
    return int(sample_ids)


def sample_bytes(signals: Sequence[str]) -> int:
    """What a sample takes on disk but for what every frame adds: lines and ranges all but vanish in compression."""
    return 4 * sum(SIGNALS[name].measured for name in signals)
