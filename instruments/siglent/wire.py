"""The waveforms of Siglent oscilloscopes.

Old dialect (Siglent, Digital Oscilloscopes Programming Guide, SDS1104X-E, p. 141-143): a part is what the instrument
said of scale, offset and rate, then codes of one signed byte.

    DAT2;2.00E-02;-1.50E-02;1.00E+09Sa/s LF codes            volts = code x scale / 25 - offset

New dialect (SDS Series Programming Guide EN11, chapter :WAVeform:PREamble): a part is the descriptor and the codes. The
descriptor looks like LeCroy's WAVEDESC and means other things: scale in volts per division, codes per division, both
before the probe, and 0 for little-endian.

    volts = (code / codes_per_div x scale - offset) x probe
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError
from joulemeter.scope.decode import Trace

WIRE = "siglent/1"
OLD = b"DAT2;"
NAME = b"WAVEDESC"
SIZE = 346
HEAD_BYTES = 200
OLD_CODES_PER_DIV = 25
# More than this from the middle is beyond what a converter of either dialect shows; the screen has four.
MOST_DIVISIONS = 6.0

# Name, numpy format, offset.
FIELDS: Sequence[tuple[str, str, int]] = (
    ("name", "S16", 0),
    ("template", "S16", 16),
    ("word", "i2", 32),
    ("big_endian", "i2", 34),
    ("descriptor_bytes", "i4", 36),
    ("data_bytes", "i4", 60),
    ("instrument", "S16", 76),
    ("points", "i4", 116),
    ("first_point", "i4", 132),
    ("data_interval", "i4", 136),
    ("read_frames", "i4", 144),
    ("sum_frames", "i4", 148),
    ("volts_per_div", "f4", 156),
    ("offset_v", "f4", 160),
    ("codes_per_div", "f4", 164),
    ("bits", "i2", 172),
    ("frame_index", "i2", 174),
    ("interval_s", "f4", 176),
    ("delay_s", "f8", 180),
    ("timebase", "i2", 324),
    ("coupling", "i2", 326),
    ("probe", "f4", 328),
    ("bandwidth_limit", "i2", 334),
    ("source", "i2", 344),
)
_LAYOUT = np.dtype(
    {
        "names": [name for name, _, _ in FIELDS],
        "formats": [kind if kind[0] == "S" else "<" + kind for _, kind, _ in FIELDS],
        "offsets": [offset for _, _, offset in FIELDS],
        "itemsize": SIZE,
    }
)
_PREFIXES = {"p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_QUANTITY = re.compile(r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([pnumkKMG]?)(V|Sa/s|Sa|pts|[sSX])?")


def quantity(reply: str) -> float:
    """In SI units: `TRDL -5.000000ns`, `1.00GSa/s`, `14Mpts`, `C1:VDIV 2.00E-02V`, `5.00E+01`. Raises DataError."""
    match = _QUANTITY.fullmatch(reply.split()[-1]) if reply.split() else None
    if match is None:
        raise DataError(f"The oscilloscope answers {reply[:60]!r} where a number is due.", "Check its firmware.")
    return float(match[1]) * _PREFIXES[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """`raw` are its bytes as sent, `fields` all of FIELDS by name."""

    raw: bytes
    fields: np.void

    def whole(self, name: str) -> int:
        return int(self.fields[name])

    def real(self, name: str) -> float:
        return float(self.fields[name])

    @property
    def codes(self) -> np.dtype[np.int8] | np.dtype[np.int16]:
        if not self.whole("word"):
            return np.dtype(np.int8)
        return np.dtype(">i2" if self.whole("big_endian") else "<i2")

    @property
    def codes_per_div(self) -> float:
        """In the codes that are sent: it is stated for the converter's own width, whatever the width asked for.

        Of more than 8 bits, bytes are the upper halves (seen on an SDS814X HD); of 8 bits, words are 256 times them.
        """
        stated, word, wide = self.real("codes_per_div"), bool(self.whole("word")), self.whole("bits") > 8
        if word == wide:
            return stated
        return stated * 256 if word else stated / 256

    @property
    def interval_s(self) -> float:
        """Of a float32, rounded to what it can hold."""
        return float(f"{self.real('interval_s'):.7g}")

    @property
    def last_codes(self) -> tuple[int, int]:
        """The lowest and the highest code. Fewer bits than 16 stand on the left, and some of 10 or 12 are called 16."""
        if not self.whole("word"):
            return -128, 127
        return -(1 << 15), (1 << 15) - (1 << (8 if self.whole("bits") <= 8 else 6))


def descriptor(block: bytes) -> Descriptor:
    """The descriptor at the beginning of `block`. Raises DataError, also for one of zeros: no waveform is held."""
    raw = bytes(block[:SIZE])
    if len(raw) < SIZE or not raw.startswith(NAME):
        raise DataError(
            "The oscilloscope describes no waveform." if not any(raw) else "These bytes hold no Siglent waveform.",
            "Record anew; what came before is kept.",
        )
    return Descriptor(raw=raw, fields=np.frombuffer(raw, _LAYOUT)[0])


def old_part(scale: str, offset: str, rate: str, codes: bytes) -> bytes:
    """What an instrument of the old dialect said of one input, as it is kept."""
    return OLD + f"{scale};{offset};{rate}\n".encode("latin-1") + codes


def trace(part: bytes) -> Trace:
    """Raises DataError for bytes that are neither, or whose codes cannot be on the screen."""
    return _old(part) if part.startswith(OLD) else _new(part)


def _old(part: bytes) -> Trace:
    head, line, _ = part[:HEAD_BYTES].partition(b"\n")
    said = head[len(OLD) :].decode("latin-1").split(";")
    if not line or len(said) != 3:
        raise DataError("These bytes hold no Siglent waveform.", "Record anew; what came before is kept.")
    scale_v, offset_v, rate_hz = (quantity(one) for one in said)
    codes = np.frombuffer(part, np.int8, offset=len(head) + 1)
    if rate_hz <= 0:
        raise DataError(f"A waveform has {rate_hz:g} samples per second.", "Record anew; what came before is kept.")
    return Trace(
        volts=codes.astype(np.float64) * (scale_v / OLD_CODES_PER_DIV) - offset_v,
        interval_s=1 / rate_hz,
        clipped=_clipped(codes.astype(np.int16), -128, 127),
    )


def _new(part: bytes) -> Trace:
    told = descriptor(part)
    size = told.codes.itemsize
    count, rest = divmod(len(part) - SIZE, size)
    if rest or count != told.whole("points") or told.whole("data_interval") > 1:
        raise DataError(
            f"A waveform of {told.whole('points')} samples came with {len(part) - SIZE} bytes.",
            "Record anew; what came before is kept.",
        )
    if told.codes_per_div <= 0 or told.real("probe") <= 0:
        raise DataError("A waveform has no scale.", "Record anew; what came before is kept.")
    codes: NDArray[np.int16] = np.frombuffer(part, told.codes, offset=SIZE).astype(np.int16)
    divisions = codes.astype(np.float64) / told.codes_per_div
    if count and float(np.abs(divisions).max()) > MOST_DIVISIONS:
        raise DataError(
            f"The codes reach {np.abs(divisions).max():.3g} divisions, which no screen has: the number of codes to a "
            f"division, {told.real('codes_per_div'):g}, is meant otherwise than is known here.",
            "Report it with the model and its firmware.",
        )
    return Trace(
        volts=(divisions * told.real("volts_per_div") - told.real("offset_v")) * told.real("probe"),
        interval_s=told.interval_s,
        clipped=_clipped(codes, *told.last_codes),
    )


def _clipped(codes: NDArray[np.int16], low: int, high: int) -> NDArray[np.bool_]:
    return (codes <= low) | (codes >= high)
