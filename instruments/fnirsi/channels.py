"""What these meters deliver and how wrong it may be.

Figures of the makers of USB meters (here ±0.05 % and two digits at best) are known not to be limits: a meter of this
class was seen 20 mA off at 460 mA (S. Toth, 2015), and an FNB48's cable resistance came out as less than half of what
its own readings give (O. Duffy). The half-widths are assumed, with few degrees of freedom; `joulemeter calibrate`
replaces them.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

SOURCE = "no figure could be checked: wide half-widths assumed for USB inline meters"
DOF = 8.0
# Of the four samples of a report one was found to be a reading, the others to lie between two of them.
REFRESH_S = 0.04
# Nobody states it. USB allows a full-speed device 0.25 % (USB 2.0, 7.1.11); the rest is for a firmware nobody timed.
CLOCK = Limit(value=0.01)


def channels() -> tuple[Channel, ...]:
    """In the order of wire.samples."""
    return (
        _channel("current", Quantity.CURRENT, "A", _row(0.01, 2e-3)),
        _channel("voltage", Quantity.VOLTAGE, "V", _row(0.005, 2e-3)),
        _channel("temperature", Quantity.TEMPERATURE, "°C"),
    )


def _channel(name: str, quantity: Quantity, unit: str, *rows: Accuracy) -> Channel:
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=rows, refresh_s=REFRESH_S)


def _row(gain: float, offset: float) -> Accuracy:
    return Accuracy(
        range=None,
        gain=Limit(value=gain, dof=DOF),
        offset=Limit(value=offset, dof=DOF),
        source=SOURCE,
        verified=False,
    )
