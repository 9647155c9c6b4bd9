"""What is kept of each reading, and how the simulated GPUs are talked to. Pure functions and tables.

A reading is made by the driver of what NVML answered about one GPU, little-endian, untouched but for its place:

    energy_mj u64, energy_return u32, then of instantaneous and of average power: mw u32, return u32, timestamp_us i64,
    then temperature_c i32, temperature_return u32

Several GPUs stand behind each other. A return is NVML's own code, 0 for success; what failed holds 0 and is no value.

The simulated GPUs stand behind a link. A call and its answer are one line each, ASCII: the CRC-32 of the JSON in eight
digits, a blank, the JSON, a line end.

    {"n": 7, "call": "nvmlDeviceGetName", "args": [0]}
    {"n": 7, "simulated": true, "return": 0, "value": "Simulated RTX A4000"}
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = "nvml/1"

# nvml.h: return codes.
SUCCESS = 0
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
TIMEOUT = 10
LIBRARY_NOT_FOUND = 12
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIB_RM_VERSION_MISMATCH = 18
UNKNOWN = 999
# nvml.h: fields of nvmlDeviceGetFieldValues, in milliwatts, and of which part of the board they are.
POWER_AVERAGE, POWER_INSTANT = 185, 186
SCOPE_GPU = 0
# nvml.h: in which member of its union a field's value is, by its type.
MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
TEMPERATURE_GPU = 0
VIRTUAL_GPU = 2
MIG_ENABLED = 1
# The counter is an unsigned long long of millijoules.
WRAP_J = 2**64 * 1e-3

_READING = struct.Struct("<QI IIq IIq iI")
READING_BYTES = _READING.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one question was answered with: a value that counts only where `code` is SUCCESS."""

    value: int = 0
    code: int = NOT_SUPPORTED
    timestamp_us: int = 0

    @property
    def number(self) -> float:
        """NaN where there was none."""
        return self.value if self.code == SUCCESS else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Of one GPU: millijoules, milliwatts, degrees Celsius."""

    energy: Answer = Answer()
    instant: Answer = Answer()
    average: Answer = Answer()
    temperature: Answer = Answer()


def pack(reading: Reading) -> bytes:
    energy, instant, average, temperature = reading.energy, reading.instant, reading.average, reading.temperature
    return _READING.pack(
        *(energy.value, energy.code),
        *(instant.value, instant.code, instant.timestamp_us),
        *(average.value, average.code, average.timestamp_us),
        *(temperature.value, temperature.code),
    )


def parse(answer: bytes) -> list[Reading] | None:
    """The readings of all GPUs of an answer; None where it is none."""
    if not answer or len(answer) % READING_BYTES:
        return None
    return [_reading(fields) for fields in _READING.iter_unpack(answer)]


def _reading(fields: tuple[int, ...]) -> Reading:
    energy, energy_code, *powers, temperature, temperature_code = fields
    instant, average = (
        Answer(value=value, code=code, timestamp_us=timestamp_us)
        for value, code, timestamp_us in (powers[:3], powers[3:])
    )
    return Reading(
        energy=Answer(value=energy, code=energy_code),
        instant=instant,
        average=average,
        temperature=Answer(value=temperature, code=temperature_code),
    )


# How the value of each channel is made of the readings of all GPUs; NaN where one of them has none.
VALUES: Mapping[str, Callable[[Sequence[Reading]], float]] = {
    "energy": lambda readings: sum(reading.energy.number for reading in readings) * 1e-3,
    "power": lambda readings: sum(reading.instant.number for reading in readings) * 1e-3,
    "average power": lambda readings: sum(reading.average.number for reading in readings) * 1e-3,
    "temperature": lambda readings: max(reading.temperature.number for reading in readings),
}


def values(names: Sequence[str]) -> Callable[[bytes], list[float] | None]:
    """Answers to values of the channels of these names. Without the first one's value a reading is none."""

    def convert(answer: bytes) -> list[float] | None:
        readings = parse(answer)
        if readings is None:
            return None
        made = [float(VALUES[name](readings)) for name in names]
        return None if math.isnan(made[0]) else made

    return convert


def call(number: int, name: str, arguments: Sequence[Any]) -> bytes:
    text = json.dumps({"n": number, "call": name, "args": list(arguments)}).encode("ascii")
    return b"%08x %s\n" % (zlib.crc32(text), text)


def answer(line: bytes) -> dict[str, Any] | None:
    """What stands on a line without its end; None where that is spoilt or something else."""
    digits, _, text = line.partition(b" ")
    try:
        fields = json.loads(text) if int(digits, 16) == zlib.crc32(text) else None
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and fields.get("simulated") is True else None
