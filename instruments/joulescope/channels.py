"""What a Joulescope delivers and how wrong it may be.

The only figure found as text is the maker's for the JS110's 2 A range: ±(0.3 % of reading + 1.5 mA). The gain is taken
for all ranges and models and for the voltage; the offset, being 0.075 % of that range, as the same share of each. All
but the one row are assumptions until a zero run replaces them (`joulemeter calibrate`).
"""

from __future__ import annotations

from collections.abc import Sequence

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from . import wire

GAIN = 0.003
OFFSET_SHARE = 1.5e-3 / 2.0
STATED = ("js110", "2A")
STATED_SOURCE = "Jetperch, forum.joulescope.com thread 388: ±(0.3 % + 1.5 mA) in the JS110's 2 A range"
ASSUMED_SOURCE = f"assumed for this range and model from: {STATED_SOURCE}"
VOLTAGE_TOP_V = 15.0
# The meter adds up its totals so often.
STATISTICS_HZ = 10.0


def channels(model: str, signals: Sequence[str]) -> tuple[Channel, ...]:
    """Of a recording of `signals` (names in wire.SIGNALS) with a meter of that model (a key of wire.MODELS)."""
    ranges = wire.MODELS[model].ranges
    rows = tuple(_row(code, top_a, (model, label) == STATED) for code, (label, top_a) in enumerate(ranges.items()))
    current = Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.MEAN, accuracy=rows)
    voltage = Channel(
        name="voltage",
        quantity=Quantity.VOLTAGE,
        unit="V",
        kind=Kind.MEAN,
        accuracy=(_row(None, VOLTAGE_TOP_V, False),),
    )
    lines = tuple(name for name in signals if name in wire.MODELS[model].lines)
    optional = [
        Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE) if "range" in signals else None,
        Channel(name="digital", quantity=Quantity.DIGITAL, unit="", kind=Kind.STATE, lines=lines) if lines else None,
    ]
    counted = Channel(
        name="counted energy",
        quantity=Quantity.ENERGY,
        unit="J",
        kind=Kind.CUMULATIVE,
        refresh_s=1 / STATISTICS_HZ,
        witness=True,
    )
    return (current, voltage, *filter(None, optional), counted)


def _row(code: int | None, top: float, stated: bool) -> Accuracy:
    return Accuracy(
        range=code,
        gain=Limit(value=GAIN),
        offset=Limit(value=OFFSET_SHARE * top),
        source=STATED_SOURCE if stated else ASSUMED_SOURCE,
        verified=stated,
    )
