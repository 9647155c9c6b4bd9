"""The waveforms of Tektronix oscilloscopes: a preamble of named fields, then CURVe.

A part is written as the instrument itself does with its headers on, and as an .isf file has it:

    :WFMOUTPRE:BYT_NR 2;BN_FMT RI;BYT_OR LSB;NR_PT 5000;...;:CURVE #510000<codes>

Source: WFMOutpre and CURVe in the programmer manuals; volts are (code - YOFF) * YMULT + YZERO.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError
from joulemeter.scope.decode import Trace
from joulemeter.scpi import block_header, number

WIRE = "tektronix/1"
# Fields of the preamble in their short and their long form: firmware sends either.
FIELDS: Mapping[str, str] = {
    "BYT_N": "BYT_NR",
    "ENC": "ENCDG",
    "BN_F": "BN_FMT",
    "BYT_O": "BYT_OR",
    "NR_P": "NR_PT",
    "PT_F": "PT_FMT",
    "XIN": "XINCR",
    "XUN": "XUNIT",
    "YMU": "YMULT",
    "YOF": "YOFF",
    "YZE": "YZERO",
    "YUN": "YUNIT",
}
# Where the codes begin at the latest.
PREAMBLE_BYTES = 2000
_CURVE = re.compile(rb";\s*:?CURVE?\s+(?=#)", re.IGNORECASE)
_FIELD = re.compile(r'\s*((?:[^;"]|"[^"]*")+)')
_UNITS = ("V", "VOLTS", "A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Waveform:
    """`codes` (n,) as converted, `least` and `most` of them where they end."""

    codes: NDArray[np.int32]
    least: int
    most: int
    scale_v: float
    offset: float
    zero_v: float
    interval_s: float


def preamble(text: str) -> dict[str, str]:
    """The fields by their long names, without quotes. Those that are not used here are left out."""
    told = {}
    for match in _FIELD.finditer(text):
        name, _, value = match[1].strip().partition(" ")
        name = name.rpartition(":")[2].upper()
        for short, long in FIELDS.items():
            if name.startswith(short) and long.startswith(name):
                told[long] = value.strip().strip('"')
    return told


def parse(part: bytes) -> Waveform:
    """Raises DataError for what is no plain waveform, or shorter than it says."""
    begin = _CURVE.search(part, 0, PREAMBLE_BYTES)
    header = None if begin is None else block_header(part[begin.end() : begin.end() + 16])
    if begin is None or header is None or header.length is None:
        raise DataError("These bytes hold no Tektronix waveform.", "Check the format that the oscilloscope is set to.")
    told = preamble(part[: begin.start()].decode("latin-1"))
    missing = [name for name in ("BYT_NR", "NR_PT", "XINCR", "YMULT", "YOFF", "YZERO") if name not in told]
    if missing:
        raise DataError(f"The waveform comes without {', '.join(missing)}.", "Switch its channel on.")
    width, count = int(_real(told, "BYT_NR")), int(_real(told, "NR_PT"))
    if width not in (1, 2) or not told.get("ENCDG", "BIN").upper().startswith("BIN"):
        raise DataError("The waveform is not of binary integers.", "Read it with DATa:ENCdg SRIbinary.")
    if not told.get("PT_FMT", "Y").upper().startswith("Y"):
        raise DataError("The waveform is an envelope.", "Set the oscilloscope to sample mode.")
    if told.get("XUNIT", "s").upper() != "S" or told.get("YUNIT", "V").upper() not in _UNITS:
        raise DataError("The waveform is not one of volts over seconds.", "Read the channel itself.")
    start = begin.end() + header.start
    if count <= 0 or header.length != count * width or len(part) < start + header.length:
        raise DataError(
            f"A waveform of {count} samples came with {min(header.length, len(part) - start)} bytes.",
            "Record anew; what came before is kept.",
        )
    order = ">" if told.get("BYT_OR", "MSB").upper().startswith("MSB") else "<"
    signed = told.get("BN_FMT", "RI").upper() == "RI"
    kind = np.dtype(f"{order}{'i' if signed else 'u'}{width}")
    step = 1 << 8 * (width - 1)
    bottom = -128 * step if signed else 0
    return Waveform(
        codes=np.frombuffer(part, kind, count, start).astype(np.int32),
        # Converters of eight bits leave the lower byte zero, those of twelve some bits of it: the last step of eight
        # bits at each end counts as the end.
        least=bottom + step - 1,
        most=bottom + 255 * step,
        scale_v=_real(told, "YMULT"),
        offset=_real(told, "YOFF"),
        zero_v=_real(told, "YZERO"),
        interval_s=_real(told, "XINCR"),
    )


def _real(told: Mapping[str, str], name: str) -> float:
    value = number(told[name])
    if value is None:
        raise DataError(f"The waveform's {name} is not known.", "Record anew.")
    return value


def trace(part: bytes) -> Trace:
    """Volts are (code - YOFF) times YMULT, and YZERO; codes at the ends of their range are clipped."""
    wave = parse(part)
    volts = (wave.codes.astype(np.float64) - wave.offset) * wave.scale_v + wave.zero_v
    clipped = (wave.codes <= wave.least) | (wave.codes >= wave.most)
    return Trace(volts=volts, interval_s=wave.interval_s, clipped=clipped)
