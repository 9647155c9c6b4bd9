"""What is said to the meter and what its readings mean. Pure functions and tables.

Commands as in the DMM7510 Reference Manual (DMM7510-901-01 Rev. B) unless notes.md says otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter import frames
from joulemeter.capture import Status

FORMAT = "keithley-digitizer/1"
PORT = 5025
# Present on every model from the first firmware on, and nothing is left behind when a program dies.
BUFFER = "defbuffer1"
RATES_HZ = (1e3, 1e6)
# What one query asks for at most: longer answers would hold up the stop.
PIECE = 100_000

STREAM, EXTERNAL, GATE = MODES = ("stream", "external", "gate")
EDGES = {"rising": "RIS", "falling": "FALL"}

# SCPI-99, 7.2.1: overflow and not-a-number, as single precision gives them back.
OVERFLOW, NOT_A_NUMBER = 9.9e37, 9.91e37
_CLOSE = 1e-6

# A reading on disk: four bytes, and one for its share of a frame. Fewer readings than this do not fill their frame.
WORD_BYTES = 5
_COUNT = struct.Struct("<I")
LEAST_READINGS = frames.OVERHEAD + _COUNT.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`ranges_a` of the digitizer for current."""

    ranges_a: tuple[float, ...]


_RANGES_A = (100e-6, 1e-3, 10e-3, 100e-3, 1.0, 3.0, 10.0)
MODELS = {
    "DMM6500": Model(ranges_a=_RANGES_A),
    "DMM7510": Model(ranges_a=(10e-6, *_RANGES_A)),
    "DAQ6510": Model(ranges_a=_RANGES_A[:-1]),
}
# Newer firmware, older firmware.
DIGITIZE_BLOCKS = ("MDIG", "DIG")


def set_up(range_a: float, rate_hz: float, held: int) -> list[str]:
    """A fixed range, an aperture that fills the interval, and a buffer that goes round."""
    return [
        "*RST",
        "*CLS",
        ':DIG:FUNC "CURR"',
        f":DIG:CURR:RANG {range_a:g}",
        f":DIG:CURR:SRAT {rate_hz:.0f}",
        ":DIG:CURR:APER AUTO",
        ":FORM:BORD SWAP",
        ':TRAC:POIN 10,"defbuffer2"',
        f':TRAC:POIN {held},"{BUFFER}"',
        f':TRAC:FILL:MODE CONT,"{BUFFER}"',
    ]


def trigger_model(mode: str, edge: str, readings: int, digitize: str) -> list[str]:
    """The blocks for a mode; `digitize` is one of DIGITIZE_BLOCKS.

    An endless count goes on in the background until the next digitize block, so the model must not come to its end:
    it waits for a command that is never sent. Where records have a fixed length an edge during one is forgotten
    (ENTer), or the next would begin late; where they last until the next edge none may be (NEVer).
    """
    endless = f":TRIG:BLOC:{digitize} {{}}," + f'"{BUFFER}",INF'
    if mode == STREAM:
        rest = [endless.format(2), ":TRIG:BLOC:WAIT 3,COMM,ENT"]
    elif mode == EXTERNAL:
        counted = f':TRIG:BLOC:{digitize} 3,"{BUFFER}",{readings}'
        rest = [":TRIG:BLOC:WAIT 2,EXT,ENT", counted, ":TRIG:BLOC:BRAN:ALW 4,2"]
    else:
        ended = f':TRIG:BLOC:{digitize} 5,"{BUFFER}",0'
        waits = [f":TRIG:BLOC:WAIT {number},EXT,NEV" for number in (2, 4)]
        rest = [waits[0], endless.format(3), waits[1], ended, ":TRIG:BLOC:BRAN:ALW 6,2"]
    line = [] if mode == STREAM else [f":TRIG:EXT:IN:EDGE {EDGES[edge] if mode == EXTERNAL else 'EITH'}"]
    line += [] if mode == STREAM else [":TRIG:EXT:IN:CLE"]
    return [*line, ':TRIG:LOAD "EMPTY"', f':TRIG:BLOC:BUFF:CLE 1,"{BUFFER}"', *rest]


def spans(first: int, count: int, held: int) -> Iterator[tuple[int, int]]:
    """Where readings from `first` on, counted from 0, lie in a buffer of `held`: first and last index for DATA?."""
    while count:
        begin = first % held
        here = min(count, held - begin, PIECE)
        yield begin + 1, begin + here
        first, count = first + here, count - here


def pack(number: int, readings: bytes, before_ns: int, after_ns: int) -> bytes:
    """Readings as the meter sent them, single precision, as one frame. `number` is the index of the first."""
    count = len(readings) // 4
    payload = (_COUNT.pack(count) + readings).ljust(WORD_BYTES * count - frames.OVERHEAD, b"\0")
    return frames.pack(frames.Frame(number=number, before_ns=before_ns, after_ns=after_ns, payload=payload))


def unpack(payload: bytes) -> NDArray[np.float32] | None:
    """The readings of a frame, (n,); None of a frame that holds something else."""
    if len(payload) < _COUNT.size:
        return None
    (count,) = _COUNT.unpack_from(payload)
    if not count or len(payload) < _COUNT.size + 4 * count:
        return None
    return np.frombuffer(payload, "<f4", count, _COUNT.size)


def values(readings: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.uint8] | None]:
    """Amperes and status, (n,) each, the status None where all are good.

    What is over range has no value: it is CLIPPED, and NaN.
    """
    made = readings.astype(np.float64)
    size = np.abs(made)
    nothing = ~np.isfinite(made) | (np.abs(size - NOT_A_NUMBER) <= _CLOSE * NOT_A_NUMBER)
    over = ~nothing & (size >= OVERFLOW * (1 - _CLOSE))
    if not (nothing | over).any():
        return made, None
    made[nothing | over] = np.nan
    status = np.where(over, Status.CLIPPED | Status.INVALID, np.where(nothing, Status.INVALID, Status.GOOD))
    return made, status.astype(np.uint8)
