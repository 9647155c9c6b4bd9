"""Lines of JSON between programs and the Otii app, and what a recording keeps of them. Pure functions and tables.

A line ends in CRLF. The app speaks first, `{"type":"information","info":"connected","data":{...}}`; a request is
`{"type":"request","cmd":...,"data":...,"trans_id":...}` and its answer has the type response or error and the same
trans_id (Qoitech's TCP server documentation and otii_tcp_client 1.0.13).

What was pulled is kept as it came, in frames of frames.py: number = index of the first current sample in the app's
recording, kind = whether this piece is the last one of a pull. A payload, little-endian:

    current: count u32, offset u32, time stamp f64, interval f64    voltage: the same    length of the lines u32
    count f64, count f64, JSON of the entries of the digital inputs and of the log, zeros

The time stamp is that of the pull's first sample, of which this piece's first is `offset` later. Zeros fill a piece up
to a multiple of the header's word_bytes, so that bytes can be counted as samples.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter import frames

FORMAT = "otii-pull/1"
SERVER = "127.0.0.1:1905"
# What the simulator calls itself where the app names its server.
SIMULATED_SERVER = "joulemeter-simulator"
LINE_END = b"\r\n"
# The longest line that the client's own pieces of 40000 values can make is a tenth of it.
MAX_LINE = 1 << 24

CURRENT, VOLTAGE = "mc", "mv"
# Digital inputs and log of the meter, in the order of the bits that they become.
INPUTS = ("i1", "i2")
LOG = "rx"

PIECE_S = 0.02
MORE, LAST = 0, 1
_SPARE_BYTES = 400  # of a piece, beside its values: frame, head and a few edges
_SERIES = struct.Struct("<IIdd")
_LENGTH = struct.Struct("<I")
_HEAD_BYTES = 2 * _SERIES.size + _LENGTH.size


# -- the app's lines --------------------------------------------------------------------------------------------------


def line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + LINE_END


def parse(raw: bytes) -> dict[str, Any] | None:
    """The message on a line, None for anything else."""
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) and isinstance(message.get("type"), str) else None


class Lines:
    """Bytes to lines, whatever the chunks."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, raw: bytes) -> Iterator[bytes]:
        *whole, self._pending = (self._pending + raw).split(LINE_END)
        if len(self._pending) > MAX_LINE:
            self._pending = b""
        yield from whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    version: str
    server: str

    @property
    def simulated(self) -> bool:
        return self.server == SIMULATED_SERVER


def greeting(message: Mapping[str, Any]) -> Greeting | None:
    """What the app says first; None of anything else."""
    match message:
        case {"type": "information", "info": "connected", "data": {**data}}:
            return Greeting(version=str(data.get("otii_version", "")), server=str(data.get("server", "")))
    return None


# -- what is kept -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Evenly spaced values; `start_s` is the time of the first in the app's recording."""

    start_s: float
    interval_s: float
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.values)


NOTHING = Series(start_s=0.0, interval_s=0.0, values=np.empty(0))

# Entries as the app gives them, by channel: {"timestamp": s, "value": bool or text}.
Entries = Mapping[str, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    current: Series
    voltage: Series
    entries: Entries
    last: bool


def series(data: Any) -> Series | None:
    """The data of an analog answer, None if it is spoilt."""
    match data:
        case {"timestamp": int() | float() as start, "interval": int() | float() as interval, "values": [*values]}:
            try:
                made = Series(start_s=float(start), interval_s=float(interval), values=np.array(values, np.float64))
            except (ValueError, TypeError, OverflowError):
                return None
            if math.isfinite(made.start_s) and made.interval_s > 0 and made.values.ndim == 1:
                return made
    return None


def entries(data: Any, kind: type[Any]) -> list[dict[str, Any]] | None:
    """The entries of a digital or log answer, None if it is spoilt."""
    values = data.get("values") if isinstance(data, dict) else None
    if not isinstance(values, list):
        return None
    for entry in values:
        match entry:
            case {"timestamp": int() | float() as at, "value": value} if math.isfinite(at) and isinstance(value, kind):
                continue
        return None
    return values


def word_bytes(current_hz: float, voltage_hz: float) -> int:
    """What one current sample takes on disk, with its share of everything else."""
    return math.ceil(8 + 8 * voltage_hz / current_hz + _SPARE_BYTES / (current_hz * PIECE_S))


def pack(number: int, pulled: Piece, word: int, piece_samples: int, before_ns: int, after_ns: int) -> bytes:
    """What was pulled at once as frames of about `piece_samples` current samples each."""
    current, voltage = pulled.current, pulled.voltage
    parts = max(1, math.ceil(len(current) / piece_samples))
    cuts = [(k * len(current) // parts, k * len(voltage) // parts) for k in range(parts + 1)]
    packed = b""
    for k in range(parts):
        (i, v), (j, w) = cuts[k], cuts[k + 1]
        text = json.dumps(dict(pulled.entries)).encode() if k == parts - 1 else b""
        payload = b"".join(
            (
                _SERIES.pack(j - i, i, current.start_s, current.interval_s),
                _SERIES.pack(w - v, v, voltage.start_s, voltage.interval_s),
                _LENGTH.pack(len(text)),
                current.values[i:j].astype("<f8").tobytes(),
                voltage.values[v:w].astype("<f8").tobytes(),
                text,
            )
        )
        payload = payload.ljust(word * (j - i) - frames.OVERHEAD, b"\0")
        frame = frames.Frame(
            kind=LAST if k == parts - 1 else MORE,
            number=number + i,
            before_ns=before_ns,
            after_ns=after_ns,
            payload=payload,
        )
        packed += frames.pack(frame)
    return packed


def unpack(frame: frames.Frame) -> Piece | None:
    """None of a frame that holds something else."""
    payload = frame.payload
    if len(payload) < _HEAD_BYTES or frame.kind not in (MORE, LAST):
        return None
    heads = [_SERIES.unpack_from(payload, at) for at in (0, _SERIES.size)]
    (length,) = _LENGTH.unpack_from(payload, 2 * _SERIES.size)
    at, read = _HEAD_BYTES, []
    for count, offset, start_s, interval_s in heads:
        if len(payload) < at + 8 * count:
            return None
        values = np.frombuffer(payload, "<f8", count, at).astype(np.float64)
        read.append(Series(start_s=start_s + offset * interval_s, interval_s=interval_s, values=values))
        at += 8 * count
    try:
        text = json.loads(payload[at : at + length]) if length else {}
    except ValueError:
        return None
    return Piece(current=read[0], voltage=read[1], entries=text, last=frame.kind == LAST)
