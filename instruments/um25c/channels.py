"""What these meters deliver and how wrong it may be.

No maker's figure could be checked, and printed figures of USB meters are known not to be limits (a meter of this class
was seen 20 mA off at 460 mA: S. Toth, 2015). The half-widths here are ten times the UM25C's printed ones, and for the
coarser models twice to four times; `joulemeter calibrate` replaces them.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from . import wire

SOURCE = "no figure could be checked: wide half-widths assumed for USB inline meters"
# How often there is something new is not stated; programs see a new value two to ten times a second.
REFRESH_S = 0.5


def channels(model: wire.Model) -> tuple[Channel, ...]:
    return (
        _channel("current", Quantity.CURRENT, "A", model.gain_a, model.offset_a + model.step_a / 2),
        _channel("voltage", Quantity.VOLTAGE, "V", model.gain_v, model.offset_v + model.step_v / 2),
        Channel(
            name="counted energy",
            quantity=Quantity.ENERGY,
            unit="J",
            kind=Kind.CUMULATIVE,
            accuracy=(_row(model.gain_a, wire.JOULES_PER_MWH),),
            wrap=2**32 * wire.JOULES_PER_MWH,
            refresh_s=REFRESH_S,
            witness=True,
        ),
    )


def _channel(name: str, quantity: Quantity, unit: str, gain: float, offset: float) -> Channel:
    rows = (_row(gain, offset),)
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=rows, refresh_s=REFRESH_S)


def _row(gain: float, offset: float) -> Accuracy:
    return Accuracy(range=None, gain=Limit(value=gain), offset=Limit(value=offset), source=SOURCE, verified=False)
