"""What these meters deliver and how wrong it may be.

No maker's figure could be checked, and printed figures of USB meters are known not to be limits (a meter of this class
was seen 20 mA off at 460 mA: S. Toth, 2015). The half-widths here are ten times the UM25C's printed ones, and for the
coarser models twice to four times, with few degrees of freedom; `joulemeter calibrate` replaces them.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from . import wire

SOURCE = "no figure could be checked: wide half-widths assumed for USB inline meters"
DOF = 8.0
# The UM25C is sold with "refresh rate 2 Hz"; the others are taken to be no slower.
REFRESH_S = 0.5


def channels(model: wire.Model) -> tuple[Channel, ...]:
    return (
        _channel("current", Quantity.CURRENT, "A", model.gain_a, model.offset_a + model.step_a / 2),
        _channel("voltage", Quantity.VOLTAGE, "V", model.gain_v, model.offset_v + model.step_v / 2),
        # No wrap: 32 bits of milliwatt-hours last for ever, so where it falls somebody has cleared it.
        Channel(
            name="counted energy",
            quantity=Quantity.ENERGY,
            unit="J",
            kind=Kind.CUMULATIVE,
            accuracy=(_row(model.gain_a, wire.JOULES_PER_MWH),),
            refresh_s=REFRESH_S,
            witness=True,
        ),
    )


def _channel(name: str, quantity: Quantity, unit: str, gain: float, offset: float) -> Channel:
    rows = (_row(gain, offset),)
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=rows, refresh_s=REFRESH_S)


def _row(gain: float, offset: float) -> Accuracy:
    return Accuracy(
        range=None,
        gain=Limit(value=gain, dof=DOF),
        offset=Limit(value=offset, dof=DOF),
        source=SOURCE,
        verified=False,
    )
