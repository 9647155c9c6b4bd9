"""What a WT310 or WT310E answers. Pure functions and tables.

`:NUMeric:NORMal:VALue?` gives the items that were chosen: as text with commas between, or as a block of IEEE single
precision, most significant byte first. What is no number is told by two finite ones (Yokogawa IM WT3001E-17EN, p. 6-97,
and IM 760101-11E, p. 5-70, in the same words) or, by the page of IM WT310-17EN on its other interface (p. 9-7), by NaN
and infinity. So bits are compared, and all four are known.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

FORMAT = "yokogawa-wt310/1"
# Voltage, current, active power and the integrator's watt-hours, of element 1.
ITEMS = ("U,1", "I,1", "P,1", "WH,1")
VALUES = struct.Struct(f">{len(ITEMS)}f")
ASCII, FLOAT = "ascii", "float"
# Items in text have six digits and an exponent.
TEXT_BYTES = 64
JOULES_PER_WH = 3600.0

OVER, NO_DATA = 0x7E94F56A, 0x7E951BEE
INFINITE, NOT_A_NUMBER = 0x7F800000, 0x7FC00000
NOTHING = frozenset({OVER, NO_DATA, INFINITE, NOT_A_NUMBER})
_SIGN = 0x7FFFFFFF

RATES = {"100ms": 0.1, "250ms": 0.25, "500ms": 0.5, "1s": 1.0}

# At crest factor 3 (IM WT310E-01EN, p. 2-6 and 2-7).
RANGES_V = (15.0, 30.0, 60.0, 150.0, 300.0, 600.0)
_SMALL_A, _LARGE_A = (5e-3, 10e-3, 20e-3, 50e-3, 100e-3, 200e-3), (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
# Vendor of Yokogawa's test and measurement instruments on USB.
USB_VENDOR = 0x0B21
_MODEL = re.compile(r"WT310(EH|HC|E)?(?![0-9A-Z])", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`ranges_a` are the current ranges of the direct input, smallest first. `high`: the inputs for 40 A.

    `stated`: the maker's accuracy of this very series was at hand.
    """

    name: str
    ranges_a: tuple[float, ...]
    high: bool = False
    stated: bool = True


MODELS = {
    "WT310E": Model(name="WT310E", ranges_a=(*_SMALL_A, *_LARGE_A)),
    "WT310EH": Model(name="WT310EH", ranges_a=(*_LARGE_A[1:], 40.0), high=True),
    "WT310": Model(name="WT310", ranges_a=(*_SMALL_A, *_LARGE_A), stated=False),
    "WT310HC": Model(name="WT310HC", ranges_a=(*_LARGE_A[1:], 40.0), high=True, stated=False),
}


def model_of(maker: str, model: str) -> Model | None:
    match = _MODEL.match(model)
    return MODELS[match[0].upper()] if match is not None and "yokogawa" in maker.lower() else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    voltage_v: float
    current_a: float
    power_w: float
    energy_j: float


def parse_float(payload: bytes) -> Reading | None:
    """The payload of a block; None where an item is over its range, or nothing."""
    if len(payload) != VALUES.size:
        return None
    bits = struct.unpack(f">{len(ITEMS)}I", payload)
    if any(one & _SIGN in NOTHING for one in bits):
        return None
    return _reading(VALUES.unpack(payload))


def parse_ascii(text: bytes) -> Reading | None:
    """A line of text; None where an item is over its range, or nothing, or the line is spoilt."""
    fields = text.strip(b" \t\r\n\0").split(b",")
    if len(fields) != len(ITEMS):
        return None
    try:
        return _reading([float(field) for field in fields])
    except ValueError:
        return None


def _reading(values: tuple[float, ...] | list[float]) -> Reading | None:
    # INF and NAN are words that Python takes for numbers.
    if not all(math.isfinite(value) and abs(value) < 1e37 for value in values):
        return None
    voltage_v, current_a, power_w, watt_hours = values
    return Reading(voltage_v=voltage_v, current_a=current_a, power_w=power_w, energy_j=watt_hours * JOULES_PER_WH)


def is_over(answer: bytes) -> bool:
    """Whether an answer of either format says that an item is over its range."""
    if len(answer) == VALUES.size and any(one & _SIGN in (OVER, INFINITE) for one in struct.unpack(">4I", answer)):
        return True
    return any(field.strip().lstrip(b"+-").upper() == b"INF" for field in answer.split(b","))


PARSERS = {ASCII: parse_ascii, FLOAT: parse_float}
WIDTHS = {ASCII: TEXT_BYTES, FLOAT: VALUES.size}
