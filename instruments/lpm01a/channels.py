"""What an LPM01A delivers and how wrong it may be.

Gain: UM2243 rev 2, section 10: dynamic mode, 100 nA to 50 mA, accuracy "in the range of 2 %". That is no limit, so its
half-width carries few degrees of freedom. No offset is stated: the lower end of the range stands in as its bound until
a zero run replaces it. Supply: UM2269, section 4.4, about 1 %. Binary rounding: UM2269, section 4.4.2, 0.20 %.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Distribution, Kind, Limit, Quantity

from . import wire

SOURCE = "ST UM2243 rev 2, section 10 (dynamic mode: in the range of 2 %); the offset is the lower end of the range"
GAIN, GAIN_DOF = 0.02, 8.0
OFFSET_A = 100e-9
SUPPLY = 0.01
BINARY = 0.002

DIGITAL = Channel(name="digital", quantity=Quantity.DIGITAL, unit="", kind=Kind.STATE, lines=("d7",), falls_only=True)


def channels(output: str = "current", format_: str = "ascii", volts: float | None = None) -> tuple[Channel, ...]:
    """With `output energy` the meter multiplies by its own supply, so what that may be off by belongs to the channel.

    `volts` turns the offset into one of power. Events of D7 are documented in no binary form.
    """
    energy = output == "energy"
    terms = [Limit(value=GAIN).standard]
    terms += [Limit(value=BINARY).standard] if format_ == "binary" else []
    terms += [Limit(value=SUPPLY).standard] if energy else []
    gain = Limit(value=GAIN, dof=GAIN_DOF)
    if len(terms) > 1:
        gain = Limit(value=sum(u * u for u in terms) ** 0.5, distribution=Distribution.NORMAL, dof=GAIN_DOF)
    offset = OFFSET_A * (volts or wire.SUPPLY_MAX_V) if energy else OFFSET_A
    measured = Channel(
        name="power" if energy else "current",
        quantity=Quantity.POWER if energy else Quantity.CURRENT,
        unit="W" if energy else "A",
        kind=Kind.MEAN,
        accuracy=(Accuracy(range=None, gain=gain, offset=Limit(value=offset), source=SOURCE, verified=False),),
    )
    return (measured, DIGITAL) if format_ == "ascii" else (measured,)
