"""What a PPK2 delivers and how wrong it may be.

Gain and offset: Nordic's PPK2 user guide, "Measurement accuracy" and "Measurement resolution". Both tables say
*typical*, of the average; no bound is stated. Typical is entered as one standard deviation, which gives back the
"better than ±20 %" of the maker's own listing at 95 %. No offset is stated either: the typical resolution stands in
as its bound until a zero run replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable

from joulemeter.capture import Accuracy, Channel, Distribution, Kind, Limit, Quantity

SOURCE = (
    "Nordic PPK2 user guide, pages Measurement accuracy (typical, of the average) and Measurement resolution (typical)"
)

# range: top of its span (A), gain (u, ratio), offset (half-width, A),
# and what a default in place of a unit's own constant can add (half-widths: ratio, A).
RANGES = {
    0: (50e-6, 0.10, 0.2e-6, 0.12, 0.0),
    1: (500e-6, 0.10, 0.5e-6, 0.12, 0.0),
    2: (5e-3, 0.10, 5e-6, 0.12, 0.0),
    3: (50e-3, 0.10, 50e-6, 0.12, 0.5e-3),
    4: (1.0, 0.15, 1e-3, 0.40, 8e-3),
}
SPAN_TOPS_A = tuple(row[0] for row in RANGES.values())

LINES = tuple(f"d{line}" for line in range(8))


def _normal(*standard: float) -> Limit:
    """Independent terms as one standard uncertainty (JCGM 100, 5.1.2)."""
    return Limit(value=sum(u * u for u in standard) ** 0.5, distribution=Distribution.NORMAL)


def accuracy(range_: int, *, defaulted: bool) -> Accuracy:
    _, gain, offset, more_gain, more_offset = RANGES[range_]
    if not defaulted:
        return Accuracy(range=range_, gain=_normal(gain), offset=Limit(value=offset), source=SOURCE, verified=True)
    return Accuracy(
        range=range_,
        gain=_normal(gain, Limit(value=more_gain).standard),
        offset=_normal(Limit(value=offset).standard, Limit(value=more_offset).standard),
        source=f"{SOURCE}; widened by the spread of calibrated units, because constants of this one are unknown",
        verified=False,
    )


def channels(defaulted: Iterable[int] = ()) -> tuple[Channel, ...]:
    """`defaulted` are the ranges in which a constant of the calibration had to be replaced by a default."""
    widened = set(defaulted)
    return (
        Channel(
            name="current",
            quantity=Quantity.CURRENT,
            unit="A",
            kind=Kind.MEAN,
            accuracy=tuple(accuracy(range_, defaulted=range_ in widened) for range_ in RANGES),
        ),
        Channel(name="range", quantity=Quantity.RANGE, unit="", kind=Kind.STATE),
        Channel(name="digital", quantity=Quantity.DIGITAL, unit="", kind=Kind.STATE, lines=LINES),
    )
