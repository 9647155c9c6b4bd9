"""What an Otii delivers and how wrong it may be.

Low currents: Qoitech's blog "How accurate is your low current measurement?", where "would be a maximum of" makes them
limits. The figures of the high range and of the voltage could not be checked against a data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

BLOG = "Qoitech, How accurate is your low current measurement? (limits at low currents)"
UNCHECKED = "half-widths assumed after the maker's low-current figures; no data sheet could be checked"

LOW, HIGH = 0, 1
# Up to here auto-ranging may use the low range (Elektor's review of the Arc).
LOW_TOP_A = 20e-3
# Accuracy in the high range and of the voltage, of both models: ratio, A or V.
HIGH_A = (1e-3, 150e-6)
VOLTAGE_V = (1e-3, 1.5e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Rates of current and voltage; the highest voltage that the main output gives; accuracy at low currents."""

    name: str
    current_hz: float
    voltage_hz: float
    top_v: float
    low_a: tuple[float, float]
    free_rate: bool = False


ARC = Model(name="Arc", current_hz=4000.0, voltage_hz=1000.0, top_v=5.0, low_a=(1e-3, 50e-9))
ACE = Model(name="Ace", current_hz=50_000.0, voltage_hz=50_000.0, top_v=25.0, low_a=(0.5e-3, 25e-9), free_rate=True)
# The app's own device for trying it out counts as an Arc.
MODELS = {"Arc": ARC, "Ace": ACE, "Simulator": ARC}
BOTTOM_V = 0.5

LINES = ("d0", "d1", "d2")


def channels(model: Model, *, voltage: bool = True, lines: int = 2) -> tuple[Channel, ...]:
    """`voltage`: whether the meter sees the board's; `lines`: two inputs, three with the log."""
    rows = (_row(LOW, model.low_a, BLOG, verified=True), _row(HIGH, HIGH_A, UNCHECKED, verified=False))
    made = [Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.MEAN, accuracy=rows)]
    if voltage:
        row = _row(None, VOLTAGE_V, UNCHECKED, verified=False)
        made.append(Channel(name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.MEAN, accuracy=(row,)))
    return (
        *made,
        Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE),
        Channel(name="digital", quantity=Quantity.DIGITAL, unit="", kind=Kind.STATE, lines=LINES[:lines]),
    )


def _row(range_: int | None, figures: tuple[float, float], source: str, *, verified: bool) -> Accuracy:
    gain, offset = figures
    return Accuracy(range=range_, gain=Limit(value=gain), offset=Limit(value=offset), source=source, verified=verified)
