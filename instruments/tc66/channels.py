"""What these meters deliver and how wrong it may be.

No maker's figure could be checked: 0.05 % + 2 digits for voltage and 0.1 % + 5 digits for current are what shops print,
and printed figures of USB meters are known not to be limits (a meter of this class was seen 20 mA off at 460 mA:
S. Toth, 2015). The half-widths here are ten times those, with few degrees of freedom; `joulemeter calibrate` replaces
them.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from . import wire

SOURCE = "no figure could be checked: ten times what shops print is assumed"
DOF = 8.0
GAIN_V, OFFSET_V = 0.005, 2e-3
GAIN_A, OFFSET_A = 0.01, 2e-3
# A step of power takes up to so long to be shown in full (fqueze/usb-power-profiling, seen on a TC66C).
REFRESH_S = 0.5


def _row(gain: float, offset: float) -> Accuracy:
    return Accuracy(
        range=None,
        gain=Limit(value=gain, dof=DOF),
        offset=Limit(value=offset, dof=DOF),
        source=SOURCE,
        verified=False,
    )


def _channel(name: str, quantity: Quantity, unit: str, gain: float, offset: float) -> Channel:
    rows = (_row(gain, offset),)
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=rows, refresh_s=REFRESH_S)


CHANNELS = (
    _channel("current", Quantity.CURRENT, "A", GAIN_A, OFFSET_A + wire.STEP_A / 2),
    _channel("voltage", Quantity.VOLTAGE, "V", GAIN_V, OFFSET_V + wire.STEP_V / 2),
    # No wrap: 32 bits of milliwatt-hours last for ever, so where it falls somebody has cleared it.
    Channel(
        name="counted energy",
        quantity=Quantity.ENERGY,
        unit="J",
        kind=Kind.CUMULATIVE,
        accuracy=(_row(GAIN_A, wire.JOULES_PER_MWH),),
        refresh_s=REFRESH_S,
        witness=True,
    ),
)
