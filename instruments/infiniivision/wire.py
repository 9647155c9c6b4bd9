"""The waveform of InfiniiVision oscilloscopes: a preamble of ten fields, and codes without a sign.

A part of a record is what the instrument said, one after the other: the byte order, the preamble, the codes.

    LSBF;+0,+0,+5000,+1,+1.0E-06,-5.0E-04,+0,+4.020E-04,+1.2E-02,+128 LF codes

Source: Programmer's Guides of the 2000, 3000 and 4000 X-Series, chapters :WAVeform:PREamble and :WAVeform:DATA.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from joulemeter.errors import DataError
from joulemeter.scope.decode import Trace

WIRE = "infiniivision/1"
FIELDS = 10
# The longest head that could be meant: a byte order and ten numbers.
HEAD_BYTES = 400
ORDERS = {"LSBF": "<", "MSBF": ">"}
SIZES = {0: 1, 1: 2}  # of a code, by the format
NORMAL, HIGH_RESOLUTION = 0, 3
# Codes that are no voltage: not acquired, beyond the lower and the upper end.
HOLE, LOW = 0, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Preamble:
    """Its fields in order; increments and origins in s and V."""

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

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises DataError for what has not ten numbers with a time step, or describes no plain record."""
        fields = text.split(",")
        try:
            told = [float(field) for field in fields]
            if len(told) != FIELDS or not told[4] > 0:
                raise ValueError
            form, kind, points, count = (int(value) for value in told[:4])
        except (ValueError, OverflowError) as error:
            raise DataError(
                f"The oscilloscope describes its waveform as {text[:80]!r}.", "Record anew; what came before is kept."
            ) from error
        if form not in SIZES:
            raise DataError("The waveform is no block of codes.", "Leave the oscilloscope alone while it records.")
        if kind not in (NORMAL, HIGH_RESOLUTION) or count > 1:
            raise DataError(
                "The waveform is an average or an envelope of several.",
                "Set the acquisition type to Normal: each pulse counts here.",
            )
        return cls(
            format=form,
            type=kind,
            points=points,
            count=count,
            x_increment=told[4],
            x_origin=told[5],
            x_reference=told[6],
            y_increment=told[7],
            y_origin=told[8],
            y_reference=told[9],
        )

    @property
    def before(self) -> int:
        """Samples ahead of the trigger: those whose time is below zero."""
        return max(round(self.x_reference - self.x_origin / self.x_increment), 0)


def part(order: str, preamble: str, codes: bytes) -> bytes:
    """What the instrument said of one input, as it is kept."""
    return f"{order};{preamble}\n".encode("ascii") + codes


def trace(part: bytes) -> Trace:
    """Volts are (code - y_reference) x y_increment + y_origin, at the probe's tip.

    The lowest code is a hole, the next one and the highest are clipped. Raises DataError.
    """
    head, line, _ = part[:HEAD_BYTES].partition(b"\n")
    order, _, text = head.decode("ascii", "replace").partition(";")
    if not line or order not in ORDERS:
        raise DataError("These bytes hold no InfiniiVision waveform.", "Record anew; what came before is kept.")
    told = Preamble.parse(text)
    size = SIZES[told.format]
    came = len(part) - len(head) - 1
    if told.points <= 0 or came != told.points * size:
        raise DataError(
            f"A waveform of {told.points} samples came with {came} bytes.", "Record anew; what came before is kept."
        )
    codes = np.frombuffer(part, f"{ORDERS[order]}u{size}", offset=len(head) + 1)
    volts = (codes.astype(np.float64) - told.y_reference) * told.y_increment + told.y_origin
    hole = codes == HOLE
    volts[hole] = np.nan
    return Trace(
        volts=volts,
        interval_s=told.x_increment,
        clipped=(codes == LOW) | (codes == np.iinfo(codes.dtype).max),
        hole=hole,
    )
