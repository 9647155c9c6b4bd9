"""The waveforms of Rohde & Schwarz oscilloscopes: what was asked of them, by name, and CHANnel:DATA.

    FORM UINT,16;BORD LSBF;KEPT 5000;HEAD -5.0E-04,5.5E-03,6000,1;YINC 7.8E-07;YOR -2.55E-02;XINC 1.0E-06;DATA #5...

KEPT is how many of the samples are here, from the first on: a screen can be longer than the record that was wanted.

Source: RTB2000 user manual 1333.1611.02, chapters 15.2.1.3 and 15.2.1.4, RTM3000 1335.9090.02, 17.2.1.4: volts are
YORigin + YINCrement * code; in the format REAL they are volts already.
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

WIRE = "rohde-schwarz/1"
# What is asked of a waveform beside its data.
ASKED = ("HEAD", "YINC", "YOR", "XINC")
# Formats that are no text, as they are told, and numpy's letter and bytes for them.
FORMATS: Mapping[str, tuple[str, int]] = {"UINT,8": ("u", 1), "UINT,16": ("u", 2), "REAL,32": ("f", 4)}
PREAMBLE_BYTES = 1000
_DATA = re.compile(rb";DATA (?=#)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """CHANnel:DATA:HEADer: when the first and the last sample are against the trigger, and how many there are."""

    start_s: float
    stop_s: float
    points: int


def head(text: str) -> Head:
    """Raises DataError for a waveform that has two values to a sample, or none."""
    fields = text.split(",")
    if len(fields) < 3:
        raise DataError(f"{text!r} does not describe a waveform.", "Switch the channel on.")
    start, stop, points, values = (number(field) for field in (*fields[:3], fields[3] if len(fields) > 3 else "1"))
    if values != 1:
        raise DataError("The waveform is an envelope or of a peak detector.", "Set the oscilloscope to sample mode.")
    if start is None or stop is None or not points:
        raise DataError("The waveform has no samples.", "Record anew; what came before is kept.")
    return Head(start_s=start, stop_s=stop, points=int(points))


@dataclass(frozen=True, slots=True, kw_only=True)
class Waveform:
    """`values` (n,) are codes, or volts where `scale_v` is None. `least`, `most`: the ends of the codes."""

    values: NDArray[np.float64]
    scale_v: float | None
    zero_v: float
    least: float
    most: float
    interval_s: float


def join(told: Mapping[str, str], data: bytes) -> bytes:
    """A part: `told` are FORM, BORD, KEPT and the answers to ASKED."""
    text = ";".join(f"{name} {value}" for name, value in told.items())
    return f"{text};DATA #9{len(data):09d}".encode("latin-1") + data


def parse(part: bytes) -> Waveform:
    """Raises DataError for what is no waveform, or shorter than it says."""
    begin = _DATA.search(part, 0, PREAMBLE_BYTES)
    header = None if begin is None else block_header(part[begin.end() : begin.end() + 16])
    if begin is None or header is None or header.length is None:
        raise DataError("These bytes hold no R&S waveform.", "Use the JouleMeter that recorded them.")
    told = dict(field.partition(" ")[::2] for field in part[: begin.start()].decode("latin-1").split(";"))
    missing = [name for name in ("FORM", "BORD", *ASKED) if name not in told]
    if missing or told["FORM"] not in FORMATS:
        raise DataError(
            f"The waveform comes as {told.get('FORM', 'no format')}, and without {', '.join(missing) or 'nothing'}.",
            "Read it as UINT,8, UINT,16 or REAL,32.",
        )
    letter, width = FORMATS[told["FORM"]]
    count = int(told.get("KEPT", head(told["HEAD"]).points))
    start = begin.end() + header.start
    if header.length != count * width or len(part) < start + header.length:
        raise DataError(
            f"A waveform of {count} samples came with {min(header.length, len(part) - start)} bytes.",
            "Record anew; what came before is kept.",
        )
    kind = np.dtype(f"{'>' if told['BORD'].startswith('MSB') else '<'}{letter}{width}")
    # Converters of ten bits leave the last six zero: the first and the last step of eight bits count as the ends.
    step = 1 << 8 * (width - 1)
    return Waveform(
        values=np.frombuffer(part, kind, count, start).astype(np.float64),
        scale_v=None if letter == "f" else _real(told, "YINC"),
        zero_v=_real(told, "YOR"),
        least=step - 1,
        most=255 * step,
        interval_s=_real(told, "XINC"),
    )


def _real(told: Mapping[str, str], name: str) -> float:
    value = number(told[name])
    if value is None:
        raise DataError(f"The waveform's {name} is not known.", "Record anew.")
    return value


def trace(part: bytes) -> Trace:
    """Volts are YORigin + YINCrement * code. Codes at the ends are clipped; of REAL that cannot be told."""
    wave = parse(part)
    if wave.scale_v is None:
        return Trace(volts=wave.values, interval_s=wave.interval_s)
    return Trace(
        volts=wave.zero_v + wave.scale_v * wave.values,
        interval_s=wave.interval_s,
        clipped=(wave.values <= wave.least) | (wave.values >= wave.most),
    )
