"""What batteries deliver and how wrong it may be.

Neither Linux nor ACPI states it. The Smart Battery Data Specification (1.1, Voltage() and Current()) allows a gauge
1 % of the design voltage and, in amperes, 1 % of the design capacity over an hour; that is taken for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from joulemeter.capture import Accuracy, Channel, Distribution, Kind, Limit, Quantity

from . import wire

SHARE = 0.01
SOURCE = "Smart Battery Data Specification 1.1, 1 % of design voltage and capacity: taken for any gauge, not checked"
HOURS = 1e-6


def design_wh(supply: wire.Supply) -> float | None:
    """Watt hours; None where it is not said."""
    energy, charge, voltage = map(supply.number, ("energy_full_design", "charge_full_design", "voltage_now"))
    if energy:
        return energy * HOURS
    return charge * HOURS * voltage * wire.MICRO if charge and voltage else None


def power(batteries: Sequence[wire.Supply], refresh_s: float) -> Channel:
    sizes = [design_wh(battery) for battery in batteries]
    known = [size for size in sizes if size is not None]
    rows: tuple[Accuracy, ...] = ()
    if known and len(known) == len(sizes):
        offset_w = SHARE * sum(Limit(value=size).standard ** 2 for size in known) ** 0.5
        rows = (_row(Limit(value=offset_w, distribution=Distribution.NORMAL)),)
    return _channel("power", Quantity.POWER, "W", refresh_s, rows)


def current(battery: wire.Supply, refresh_s: float) -> Channel:
    charge = battery.number("charge_full_design")
    rows = (_row(Limit(value=SHARE * charge * HOURS)),) if charge else ()
    return _channel("current", Quantity.CURRENT, "A", refresh_s, rows)


def voltage(refresh_s: float) -> Channel:
    return _channel("voltage", Quantity.VOLTAGE, "V", refresh_s, (_row(Limit(value=0.0)),))


def counted(batteries: Sequence[wire.Supply], refresh_s: float) -> Channel | None:
    """The gauges' own counters, where all count the same."""
    kinds = {battery.counter for battery in batteries}
    if len(kinds) != 1 or None in kinds:
        return None
    energy = kinds == {"energy_now"}
    return Channel(
        name="counted",
        quantity=Quantity.ENERGY if energy else Quantity.CHARGE,
        unit="J" if energy else "C",
        kind=Kind.CUMULATIVE,
        refresh_s=refresh_s,
        witness=True,
    )


def _row(offset: Limit) -> Accuracy:
    return Accuracy(range=None, gain=Limit(value=SHARE), offset=offset, source=SOURCE, verified=False)


def _channel(name: str, quantity: Quantity, unit: str, refresh_s: float, rows: tuple[Accuracy, ...]) -> Channel:
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=rows, refresh_s=refresh_s)


def usual() -> tuple[Channel, ...]:
    """A laptop's, for INFO; a header has what the battery at hand does."""
    texts = {"energy_full_design": "45280000", "power_now": "1", "energy_now": "1"}
    battery = wire.Supply(name="BAT0", folder="", texts=texts, failures={})
    made = (power([battery], 30.0), voltage(30.0), counted([battery], 30.0))
    return tuple(channel for channel in made if channel is not None)
