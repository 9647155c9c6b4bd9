"""Waveforms of Rigol oscilloscopes: the preamble as text, a line feed, then the codes, all as the instrument sent them.

Volts are (code - yorigin - yreference) * yincrement (MSO1000Z/DS1000Z and DHO800/DHO900 Programming Guides,
:WAVeform:DATA?). Codes are unsigned; in WORD two bytes, the low one first. A DS1000Z leaves the high one empty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulemeter.errors import DataError
from joulemeter.scope.decode import Trace

WIRE = "rigol/1"
BYTE, WORD = 0, 1
NORMAL, RAW = 0, 2
_FIELDS = 10
_SEPARATOR = b"\n"
# An 8-bit converter has its zero near 127, a 12-bit one near 32768 with four bits empty.
_EIGHT_BITS = 256
_LOWEST, _HIGHEST = {True: 0, False: 15}, {True: 255, False: 65520}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """The answer to :WAVeform:PREamble?. Increments are in seconds and volts, `y_origin` and `y_reference` in codes."""

    format: int
    type: int
    points: int
    count: int
    x_increment: float
    x_origin: float
    x_reference: float
    y_increment: float
    y_origin: float
    y_reference: float

    @property
    def blank(self) -> bool:
        """Whether it says nothing yet: instruments answer with zeros until they have a waveform."""
        return self.y_increment == 0 or self.x_increment == 0


def preamble(text: str) -> Preamble:
    """Raises DataError for text that is none."""
    fields = text.strip().split(",")
    try:
        if len(fields) != _FIELDS:
            raise ValueError(len(fields))
        whole = [int(float(field)) for field in fields[:4]]
        real = [float(field) for field in fields[4:]]
    except ValueError as error:
        raise DataError(
            f"{text[:80]!r} is no preamble of a Rigol waveform.", "Record anew; what came before is kept."
        ) from error
    return Preamble(
        format=whole[0],
        type=whole[1],
        points=whole[2],
        count=whole[3],
        x_increment=real[0],
        x_origin=real[1],
        x_reference=real[2],
        y_increment=real[3],
        y_origin=real[4],
        y_reference=real[5],
    )


def pack(text: str, data: bytes) -> bytes:
    """A waveform as it is kept."""
    return text.strip().encode("latin-1") + _SEPARATOR + data


def trace(part: bytes) -> Trace:
    """Volts of a waveform. The lowest and the highest code are clipped. Raises DataError."""
    text, separator, data = part.partition(_SEPARATOR)
    told = preamble(text.decode("latin-1"))
    if not separator or told.format not in (BYTE, WORD) or told.y_increment <= 0:
        raise DataError("A waveform has no scale.", "Record anew; what came before is kept.")
    if told.count > 1:
        raise DataError("The waveform is an average of several.", "Switch averaging off: each pulse counts here.")
    kind = np.dtype("<u2") if told.format == WORD else np.dtype(np.uint8)
    if len(data) % kind.itemsize:
        raise DataError("A waveform ends within a sample.", "Record anew; what came before is kept.")
    codes = np.frombuffer(data, kind).astype(np.int32)
    narrow = told.y_reference < _EIGHT_BITS
    return Trace(
        volts=(codes.astype(np.float64) - told.y_origin - told.y_reference) * told.y_increment,
        interval_s=told.x_increment or None,
        clipped=(codes <= _LOWEST[narrow]) | (codes >= _HIGHEST[narrow]),
    )
