"""The PPK2's bytes: commands, the calibration text, sample words. Pure functions and tables.

Facts from Nordic's application (NordicSemiconductor/pc-nrfconnect-ppk) and from the behaviour of ppk2-api 0.9.2.

A sample is a little-endian u32, one per 10 µs:

    bits 0-13    ADC code, in units of 4
    bits 14-16   range 0..4; larger values are not samples
    bit  17      unused
    bits 18-23   sample counter, modulo 64
    bits 24-31   digital inputs D0..D7
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError

FORMAT = "ppk2-words/1"
RATE_HZ = 100_000.0
WORD_BYTES = 4
SUPPLY_MIN_V, SUPPLY_MAX_V = 0.8, 5.0

RANGES = 5
CODES = 1 << 14
CODE_MASK = CODES - 1
RANGE_SHIFT = 14
CODE_AND_RANGE_MASK = 0x1FFFF
CODES_AND_RANGES = CODES * RANGES  # code and range together are an index below this
COUNTER_SHIFT = 18
COUNTER_MODULO = 64
LINES_SHIFT = 24


class Command(IntEnum):
    """No framing, no acknowledgement, no checksum."""

    START = 0x06
    STOP = 0x07
    POWER = 0x0C  # u8: 1 on, 0 off
    REGULATOR = 0x0D  # u16 big-endian, millivolts
    MODE = 0x11  # u8: Mode
    METADATA = 0x19


class Mode(IntEnum):
    AMMETER = 1
    SOURCE = 2


START = bytes([Command.START])
STOP = bytes([Command.STOP])
METADATA = bytes([Command.METADATA])


def power(on: bool) -> bytes:
    return bytes([Command.POWER, on])


def regulator(millivolts: int) -> bytes:
    return bytes([Command.REGULATOR]) + millivolts.to_bytes(2, "big")


def mode(mode: int) -> bytes:
    return bytes([Command.MODE, mode])


# The constants of the conversion and what stands in for one that the unit does not know (Nordic's application).
DEFAULTS: dict[str, tuple[float, ...]] = {
    "R": (1031.64, 101.65, 10.15, 0.94, 0.043),  # shunt, ohms
    "GS": (1.0,) * RANGES,
    "GI": (1.0,) * RANGES,
    "O": (0.0,) * RANGES,
    "S": (0.0,) * RANGES,
    "I": (0.0,) * RANGES,
    "UG": (1.0,) * RANGES,  # the user's own gain
}

_LINE = re.compile(r"(Calibrated|VDD|HW|mode|IA|Simulator|(?:R|GS|GI|O|S|I|UG)[0-4]): *(\S+)\s*$", re.MULTILINE)
_END = re.compile(rb"(?:^|\n)END\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One row of five values per constant, by its name on the wire."""

    constants: Mapping[str, Sequence[float]]

    def current_table_a(self, volts: float) -> NDArray[np.float64]:
        """Current of every code in every range; shape (5 x 16384,), amperes, index = range x 16384 + code.

        x = (4·code − O)·(k/R), i = UG·(x·(GS·x + GI) + (S·V + I)), k = 1.8/163840, V the supply in volts. The order
        of evaluation is part of the contract: it makes the result equal to ppk2-api's in every bit.
        """
        r, gs, gi, o, s, i, ug = (
            np.array(self.constants[name], dtype=np.float64)[:, None] for name in ("R", "GS", "GI", "O", "S", "I", "UG")
        )
        x = (np.arange(0, 4 * CODES, 4, dtype=np.float64) - o) * ((1.8 / 163840) / r)
        current: NDArray[np.float64] = ug * (x * (gs * x + gi) + (s * volts + i))
        return current.reshape(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the unit says of itself. `defaulted` names the constants that were replaced, such as "GS4"."""

    calibration: Calibration
    defaulted: tuple[str, ...]
    calibrated: bool | None
    supply_v: float | None
    mode: Mode | None
    hardware: str | None
    simulator: bool
    text: str


def complete(answer: bytes) -> bool:
    """Whether the calibration text has arrived to its end."""
    return _END.search(answer) is not None


def parse_metadata(answer: bytes) -> Metadata:
    """Read `Key: value` lines up to END; anything that is not such a line is passed over.

    The default is taken for a constant that is absent or not a number, and for a shunt of zero. A zero elsewhere is
    kept, as ppk2-api does (Nordic's application takes its default for every zero: with GS0 = 0, which real units
    report, that is a difference below 100 ppm). ppk2-api also keeps "-nan"; no current can come of that.

    Raises DataError where a constant is not written as a number, or none is there.
    """
    text = answer[: end.start()].decode("latin-1") if (end := _END.search(answer)) else answer.decode("latin-1")
    values = dict(_LINE.findall(text))
    constants, defaulted = {}, []
    for name, defaults in DEFAULTS.items():
        row = []
        for range_, default in enumerate(defaults):
            value = _number(values.get(f"{name}{range_}", "nan"), f"{name}{range_}")
            if not math.isfinite(value) or (name == "R" and value == 0):
                defaulted.append(f"{name}{range_}")
                value = default
            row.append(value)
        constants[name] = tuple(row)
    if len(defaulted) == len(DEFAULTS) * RANGES:
        raise DataError(
            "The meter's answer holds no calibration.", "Unplug it, plug it in again, and update its firmware."
        )
    vdd_v = _number(values.get("VDD", "nan"), "VDD") / 1000
    mode_text = values.get("mode", "")
    return Metadata(
        calibration=Calibration(constants=constants),
        defaulted=tuple(defaulted),
        calibrated={"0": False, "1": True}.get(values.get("Calibrated", "")),
        supply_v=vdd_v if math.isfinite(vdd_v) else None,
        mode=Mode(int(mode_text)) if mode_text in ("1", "2") else None,
        hardware=values.get("HW"),
        simulator="Simulator" in values,
        text=text,
    )


def _number(text: str, key: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(
            f"The meter's calibration has {key} = {text!r}, which is not a number.",
            "Try again; if it stays, the unit needs service.",
        ) from error
