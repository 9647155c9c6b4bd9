"""What these meters deliver and how wrong it may be.

Nobody states any figure. For a meter without one a shunt and a converter of 1 % each are assumed, and some digits on
top, with few degrees of freedom; `joulemeter calibrate` replaces them.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from . import wire

SOURCE = "no figure is stated: wide half-widths assumed for inline meters"
DOF = 4.0
GAIN_V, GAIN_A = 0.01, 0.02
# In digits of the display: what a zero may be wrong by, and half a digit of rounding.
OFFSET_V = {wire.USB: 2.5, wire.DC: 1.5}
OFFSET_A = {wire.USB: 2.5, wire.DC: 5.5}
# One report a second; whether it shows the mean of that second or a moment of it is not known.
REFRESH_S = 1.0


def channels(kind: wire.Kind) -> tuple[Channel, ...]:
    number = next(number for number, one in wire.KINDS.items() if one is kind)
    offset_a, offset_v = OFFSET_A[number] * kind.step_a, OFFSET_V[number] * kind.step_v
    measured = (
        _channel("current", Quantity.CURRENT, "A", Kind.MEAN, GAIN_A, offset_a),
        _channel("voltage", Quantity.VOLTAGE, "V", Kind.MEAN, GAIN_V, offset_v),
    )
    if kind.energy_at is None:
        return measured
    # No wrap: 32 bits of its steps last for ever, so where it falls somebody has cleared it.
    counted = _channel("counted energy", Quantity.ENERGY, "J", Kind.CUMULATIVE, GAIN_A, wire.JOULES_PER_STEP)
    return (*measured, counted)


def _channel(name: str, quantity: Quantity, unit: str, kind: Kind, gain: float, offset: float) -> Channel:
    row = Accuracy(
        range=None,
        gain=Limit(value=gain, dof=DOF),
        offset=Limit(value=offset, dof=DOF),
        source=SOURCE,
        verified=False,
    )
    return Channel(
        name=name,
        quantity=quantity,
        unit=unit,
        kind=kind,
        accuracy=(row,),
        refresh_s=REFRESH_S,
        witness=kind is Kind.CUMULATIVE,
    )
