"""One question, one answer of 130 bytes. Pure functions and tables.

Layout, all big-endian, as sigrok's rdtech-um driver and rfinnie/rdserialtool read it: model u16, voltage u16, current
u16, power u32 (mW), temperatures, selected group u16 at 14, then ten groups of charge and energy (mAh, mWh, u32 each)
from 16 on; trailer FF F1, on the UM34C a checksum instead.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import reduce
from operator import xor

FORMAT = "rdtech-um/1"
ASK = b"\xf0"
ANSWER_BYTES = 130
# What a round over Bluetooth takes lies between 0.1 and 0.5 s; the meter has something new twice a second.
USUAL_S = 0.25

_HEAD = struct.Struct(">HHHI")
# Charge and energy of each group.
_COUNTED, _COUNTED_AT = struct.Struct(">20I"), 16
GROUPS, SELECTED_AT, SCREEN_AT = 10, 14, 126
TRAILER = b"\xff\xf1"
JOULES_PER_MWH = 3.6
# The simulator shows a screen that no meter has.
SIMULATED_SCREEN = 0x4A4D
# Power is computed in the meter, so it tells a spoilt answer where there is no checksum: share and watts.
CONSISTENT, CONSISTENT_W = 0.1, 0.05

# Which bytes of a UM34C's answer its last one is the exclusive or of.
SUMMED = (
    *(1, 3, 7, 9, 15, 17, 19, 23, 31, 39, 41, 45, 49, 53, 55, 57, 59, 63, 67, 69, 73, 79, 83, 89, 97, 99, 109),
    *(111, 113, 119, 121, 127),
)

UM24C, UM25C, UM34C = 0x0963, 0x09C9, 0x0D4C


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Steps of the last digit; accuracy as used for the budget (channels.py)."""

    name: str
    step_v: float
    step_a: float
    gain_v: float
    gain_a: float
    offset_v: float
    offset_a: float
    trailer: bytes | None = TRAILER


MODELS = {
    UM24C: Model(name="UM24C", step_v=10e-3, step_a=1e-3, gain_v=0.01, gain_a=0.02, offset_v=20e-3, offset_a=5e-3),
    UM25C: Model(name="UM25C", step_v=1e-3, step_a=0.1e-3, gain_v=0.005, gain_a=0.01, offset_v=2e-3, offset_a=2e-3),
    UM34C: Model(
        name="UM34C", step_v=10e-3, step_a=1e-3, gain_v=0.01, gain_a=0.02, offset_v=20e-3, offset_a=5e-3, trailer=None
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    model: Model
    voltage_v: float
    current_a: float
    power_w: float
    energy_j: float
    simulated: bool


def parse(answer: bytes) -> Reading | None:
    """One answer; None where it is spoilt or comes from another meter."""
    if len(answer) != ANSWER_BYTES:
        return None
    number, volts, amperes, milliwatts = _HEAD.unpack_from(answer)
    model = MODELS.get(number)
    selected = int.from_bytes(answer[SELECTED_AT : SELECTED_AT + 2], "big")
    if model is None or selected >= GROUPS or not _whole(model, answer):
        return None
    voltage_v, current_a, power_w = volts * model.step_v, amperes * model.step_a, milliwatts * 1e-3
    if abs(voltage_v * current_a - power_w) > CONSISTENT_W + CONSISTENT * power_w:
        return None
    # One of the groups counts: their sum grows whichever the user selects.
    milliwatthours = sum(_COUNTED.unpack_from(answer, _COUNTED_AT)[1::2])
    return Reading(
        model=model,
        voltage_v=voltage_v,
        current_a=current_a,
        power_w=power_w,
        energy_j=milliwatthours * JOULES_PER_MWH,
        simulated=int.from_bytes(answer[SCREEN_AT : SCREEN_AT + 2], "big") == SIMULATED_SCREEN,
    )


def _whole(model: Model, answer: bytes) -> bool:
    if model.trailer is not None:
        return answer.endswith(model.trailer)
    return checksum(answer) == answer[-1]


def values(answer: bytes) -> tuple[float, float, float] | None:
    """Current, voltage and counted energy, as channels.py orders them; None of a spoilt answer."""
    reading = parse(answer)
    return None if reading is None else (reading.current_a, reading.voltage_v, reading.energy_j)


def checksum(answer: bytes) -> int:
    """As the UM34C makes it, of 32 of the bytes."""
    return reduce(xor, (answer[at] for at in SUMMED))
