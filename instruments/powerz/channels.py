"""What these meters deliver and how wrong it may be.

No maker's figure could be checked, and printed figures of USB meters are known not to be limits (a meter of this class
was seen 20 mA off at 460 mA: S. Toth, 2015). The half-widths here are ten times what shops print for the gain of a
KM003C, and 2 mV and 2 mA; `joulemeter calibrate` replaces them.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

SOURCE = "no figure could be checked: wide half-widths assumed for USB inline meters"
GAIN_V, OFFSET_V = 0.005, 2e-3
GAIN_A, OFFSET_A = 0.01, 2e-3
STEP = 1e-6

# At 1000 S/s voltage and current are new in turn, each every other sample: see notes.md.
FAST_HZ = 1000.0
FAST_REFRESH_S = 2e-3
# A snapshot shows what a meter that is not streaming makes twice a second.
SNAPSHOT_REFRESH_S = 0.5


def streamed(rate_hz: float) -> tuple[Channel, ...]:
    return _channels(Kind.MEAN, FAST_REFRESH_S if rate_hz == FAST_HZ else None)


def polled() -> tuple[Channel, ...]:
    return _channels(Kind.INSTANT, SNAPSHOT_REFRESH_S)


def _channels(kind: Kind, refresh_s: float | None) -> tuple[Channel, ...]:
    return (
        _channel("current", Quantity.CURRENT, "A", kind, refresh_s, GAIN_A, OFFSET_A),
        _channel("voltage", Quantity.VOLTAGE, "V", kind, refresh_s, GAIN_V, OFFSET_V),
    )


def _channel(
    name: str, quantity: Quantity, unit: str, kind: Kind, refresh_s: float | None, gain: float, offset: float
) -> Channel:
    row = Accuracy(
        range=None, gain=Limit(value=gain), offset=Limit(value=offset + STEP / 2), source=SOURCE, verified=False
    )
    return Channel(name=name, quantity=quantity, unit=unit, kind=kind, accuracy=(row,), refresh_s=refresh_s)
