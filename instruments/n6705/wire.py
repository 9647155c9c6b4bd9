"""What an N6705 or N6700 sends of its measurements, and what it can be asked. Pure functions and tables.

The external data log gives IEEE single precision, for each interval the mean current and then the mean voltage of an
output (Keysight N6900/N7900 guide, p. 161; a public N6705C program takes them in that order). An array measurement
gives all currents, then all voltages. Byte order as FORMat:BORDer NORMal says: most significant byte first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter import frames

FORMAT = "keysight-n6705/1"
SINGLE = np.dtype(">f4")
CURRENT, VOLTAGE = "current", "voltage"

# Kinds of frames: records of the log, one after the other, or one array after the other.
LOG, ARRAY = 0, 1

# N6700C guide, p. 145: the least integration period, of each parameter that is logged, and its grid.
LEAST_S, GRID_S = 102.4e-6, 20.48e-6
LONGEST_S = 0.1
# N6705C guide, p. 213, for one and for two parameters.
LEAST_TINT_S = {1: 5.12e-6, 2: 10.24e-6}
# The buffer holds about 20 s, and then the oldest records are overwritten (N6700C guide, p. 143).
BUFFER_S = 20.0
# Numbers beyond it are fill, not data.
FILL = 1e6
# How long a single record is at least worth waiting for, and what one question asks for at most.
PACE_S, MOST_RECORDS = 0.02, 16384
# Frames hold so many records, so that their heads and ends spread evenly over them.
RECORDS = (44, 22, 11, 4, 2, 1)

# USB ids of Agilent and of Keysight.
VENDORS = (0x0957, 0x2A8D)
_MODEL = re.compile(r"N67(?:05|0[0-4])[ABC]?\b", re.IGNORECASE)
_MAKERS = ("agilent", "keysight", "hewlett")


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """An output's measuring side. `both`: it measures current and voltage at the same time.

    `ranges_a` are its current ranges, smallest first; `accuracy` says whether channels.py has a table for it.
    """

    both: bool
    ranges_a: tuple[float, ...] = ()
    accuracy: bool = False


# Only the N676x and the N678x SMUs measure both at once (N6705C guide, p. 158).
SMU = Module(both=True, ranges_a=(10e-6, 1e-3, 0.1, 3.0), accuracy=True)
MODULES = {
    "N6781A": SMU,
    "N6782A": Module(both=True),
    "N6784A": Module(both=True),
    "N6785A": Module(both=True),
    "N6786A": Module(both=True),
    "N6761A": Module(both=True),
    "N6762A": Module(both=True),
    "N6763A": Module(both=True),
    "N6764A": Module(both=True),
    "N6765A": Module(both=True),
    "N6766A": Module(both=True),
}
OTHER = Module(both=False)


def fits(maker: str, model: str) -> bool:
    return any(name in maker.lower() for name in _MAKERS) and _MODEL.match(model) is not None


def module(name: str) -> Module:
    return MODULES.get(name.strip().strip('"').upper(), OTHER)


def record_bytes(parameters: int) -> int:
    return parameters * SINGLE.itemsize


def records_of(period_s: float) -> int:
    """How many records a frame holds: what comes in PACE_S, at least one."""
    return next(count for count in RECORDS if count * period_s <= PACE_S or count == 1)


def word_bytes(parameters: int, period_s: float) -> int:
    """What a record takes of the stream, its share of the frame included; exact by the choice of RECORDS."""
    return record_bytes(parameters) + frames.OVERHEAD // records_of(period_s)


def columns(payload: bytes, kind: int, parameters: int) -> list[NDArray[np.float64]]:
    """Current and, of two parameters, voltage; (n,) each."""
    values = np.frombuffer(payload, SINGLE, len(payload) // SINGLE.itemsize).astype(np.float64)
    whole = values[: len(values) // parameters * parameters]
    shape, axis = ((-1, parameters), 1) if kind == LOG else ((parameters, -1), 0)
    return [np.take(whole.reshape(shape), k, axis=axis) for k in range(parameters)]
