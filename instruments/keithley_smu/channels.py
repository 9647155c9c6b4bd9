"""What the unit delivers and how wrong it may be: SPEC-2450 rev. A (July 2013), one year, 23 +- 5 degrees, 1 PLC.

Faster readings have more noise, which the data themselves show. No table of the 2460 and 2461 was found: the 2450's is
taken, and twice that of its highest range above 1 A.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

SOURCE = "SPEC-2450 rev. A, measured, 1 year, 1 PLC"
TAKEN = "assumed: the table of the 2450, SPEC-2450 rev. A"
DOF = 8.0

# Range: share of the reading, offset.
CURRENT_A = {
    10e-9: (0.001, 50e-12),
    100e-9: (0.0006, 100e-12),
    1e-6: (0.00025, 300e-12),
    10e-6: (0.00025, 700e-12),
    100e-6: (0.0002, 6e-9),
    1e-3: (0.0002, 60e-9),
    10e-3: (0.0002, 600e-9),
    100e-3: (0.00025, 6e-6),
    1.0: (0.0003, 500e-6),
}
VOLTAGE_V = {0.2: (0.00012, 200e-6), 2.0: (0.00012, 300e-6), 20.0: (0.00015, 1e-3)}
ABOVE = (0.0006, 1e-3)


def channels(model: str, range_a: float, range_v: float) -> tuple[Channel, ...]:
    """`range_a` and `range_v` as the unit has them."""
    of_current = _nearest(CURRENT_A, range_a) or (ABOVE[0], ABOVE[1] * range_a)
    of_voltage = _nearest(VOLTAGE_V, range_v) or VOLTAGE_V[20.0]
    return (
        _channel("current", Quantity.CURRENT, "A", model, of_current),
        _channel("voltage", Quantity.VOLTAGE, "V", model, of_voltage),
    )


def _nearest(table: dict[float, tuple[float, float]], range_: float) -> tuple[float, float] | None:
    return next((row for top, row in table.items() if abs(top / range_ - 1) < 1e-3), None)


def _channel(name: str, quantity: Quantity, unit: str, model: str, figures: tuple[float, float]) -> Channel:
    known = model == "2450"
    gain, offset = figures
    row = Accuracy(
        range=None,
        gain=Limit(value=gain, dof=None if known else DOF),
        offset=Limit(value=offset, dof=None if known else DOF),
        source=SOURCE if known else TAKEN,
        verified=known,
    )
    # A reading lasts a part of the interval only, and nothing is known of the rest.
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.INSTANT, accuracy=(row,))
