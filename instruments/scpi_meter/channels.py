"""From the readings of a profile to channels."""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from .profile import COUNTERS, OFFSET_UNITS, UNITS, Profile, Reading, Row


def channels(profile: Profile) -> tuple[Channel, ...]:
    return tuple(_channel(reading) for reading in profile.readings)


def _channel(reading: Reading) -> Channel:
    counts = reading.quantity in COUNTERS
    return Channel(
        name=f"counted {reading.quantity}" if counts else reading.quantity,
        quantity=Quantity(reading.quantity),
        unit=UNITS[reading.quantity],
        kind=Kind.CUMULATIVE if counts else Kind.INSTANT,
        accuracy=tuple(_accuracy(row, OFFSET_UNITS[reading.quantity]) for row in reading.accuracy),
        wrap=reading.wraps_at,
        refresh_s=float(reading.refresh_s),
        witness=reading.witness,
    )


def _accuracy(row: Row, unit: str) -> Accuracy:
    return Accuracy(
        range=None,
        gain=Limit(value=float(row.gain), dof=row.dof),
        offset=Limit(value=row.offset_in(unit), dof=row.dof),
        source=row.source,
        verified=row.verified,
    )
