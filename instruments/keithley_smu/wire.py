"""What is said to the unit and what its rows mean. Pure functions and tables.

Commands as in the 2450 and 2461 reference manuals (2450-901-01 Rev. B, 2461-901-01 Rev. A) unless notes.md says
otherwise. Readings are fetched as text: in binary the state of the source (SOURSTAT) cannot be asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from joulemeter import frames
from joulemeter.capture import Status

FORMAT = "keithley-smu/1"
PORT = 5025
# Present on every model from the first firmware on, and nothing is left behind when a program dies.
BUFFER = "defbuffer1"
HELD = 100_000
# Rows that one query asks for at most, and the fields of a row.
PIECE = 500
ELEMENTS = ("READ", "REL", "SOUR", "SOURSTAT")
# The longest row: three numbers of ten digits and a state.
ROW_BYTES = 80
WORD_BYTES = frames.OVERHEAD + ROW_BYTES
NPLC = (0.01, 10.0)
# Output voltages for which there is a range, up to where no interlock is needed and a board lives.
SOURCE_RANGES_V = (0.2, 2.0, 20.0)

# SCPI-99, 7.2.1: overflow and not-a-number.
OVERFLOW, NOT_A_NUMBER = 9.9e37, 9.91e37

# State of the source beside each reading (2461 manual p. 8-31).
PROTECTED, HOT, LIMITED, OUTPUT_ON = 4, 16, 32, 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Current ranges in amperes."""

    ranges_a: tuple[float, ...]


_MIDDLE_A = (1e-6, 10e-6, 100e-6, 1e-3, 10e-3, 100e-3, 1.0)
MODELS = {
    "2450": Model(ranges_a=(10e-9, 100e-9, *_MIDDLE_A)),
    "2460": Model(ranges_a=(*_MIDDLE_A, 4.0, 5.0, 7.0)),
    "2461": Model(ranges_a=(*_MIDDLE_A, 4.0, 5.0, 7.0, 10.0)),
}
# Newer firmware, older firmware.
MEASURE_BLOCKS = ("MDIG", "MEAS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`rel_s` counts from the first reading after the buffer was cleared."""

    amperes: float
    rel_s: float
    volts: float
    status: Status


def source_range(volts: float) -> float:
    return next(one for one in SOURCE_RANGES_V if one >= volts)


def set_up(volts: float, range_a: float, limit_a: float, nplc: float, *, four_wire: bool) -> list[str]:
    """Everything fixed, nothing by itself: no range change and no zeroing between readings."""
    return [
        "*RST",
        "*CLS",
        ":SOUR:FUNC VOLT",
        f":SOUR:VOLT:RANG {source_range(volts):g}",
        f":SOUR:VOLT {volts:.6g}",
        f":SOUR:VOLT:ILIM {limit_a:.6g}",
        ":SOUR:VOLT:READ:BACK ON",
        ':SENS:FUNC "CURR"',
        f":SENS:CURR:RANG {range_a:g}",
        f":SENS:CURR:NPLC {nplc:g}",
        f":SENS:CURR:RSEN {'ON' if four_wire else 'OFF'}",
        ":SENS:CURR:AZER OFF",
        ":SENS:AZER:ONCE",
        ":FORM ASC",
        ":FORM:ASC:PREC 10",
        f':TRAC:POIN {HELD},"{BUFFER}"',
        f':TRAC:FILL:MODE CONT,"{BUFFER}"',
    ]


def trigger_model(measure: str) -> list[str]:
    """One reading after the other until it is aborted; `measure` is one of MEASURE_BLOCKS."""
    return [
        ':TRIG:LOAD "EMPTY"',
        f':TRIG:BLOC:BUFF:CLE 1,"{BUFFER}"',
        f':TRIG:BLOC:{measure} 2,"{BUFFER}"',
        ":TRIG:BLOC:BRAN:ALW 3,2",
    ]


def rows(answer: str, count: int) -> list[bytes] | None:
    """The rows of an answer to TRACe:DATA?, each as it came; None where they are not that many."""
    # The manual's own example separates rows by semicolons and commas.
    fields = [field.strip() for field in answer.replace(";", ",").split(",") if field.strip()]
    width = len(ELEMENTS)
    if len(fields) != width * count:
        return None
    return [",".join(fields[k : k + width]).encode() for k in range(0, len(fields), width)]


def parse(row: bytes) -> Row | None:
    """One row; None of a spoilt one. A current that is over range has no value: it is CLIPPED, and NaN."""
    try:
        amperes, rel_s, volts, state = map(float, row.rstrip(b"\0").split(b","))
    except ValueError:
        return None
    if not (math.isfinite(rel_s) and rel_s >= 0 and math.isfinite(state) and 0 <= state < 1 << 16):
        return None
    marks = int(state)
    status = Status.CLIPPED if marks & (LIMITED | PROTECTED) else Status.GOOD
    if not _real(amperes) or not _real(volts):
        over = abs(amperes) >= OVERFLOW * 0.999 and abs(abs(amperes) / NOT_A_NUMBER - 1) > 1e-6
        status |= Status.INVALID | (Status.CLIPPED if over else Status.GOOD)
        amperes = volts = math.nan
    if not marks & OUTPUT_ON or marks & HOT:
        status |= Status.INVALID
        amperes = volts = math.nan
    return Row(amperes=amperes, rel_s=rel_s, volts=volts, status=status)


def _real(value: float) -> bool:
    return math.isfinite(value) and abs(value) < OVERFLOW * 0.999
