"""Answers to values, in the order of the header's channels."""

from __future__ import annotations

from joulemeter.capture import Header, Quantity
from joulemeter.errors import DataError
from joulemeter.polled import PolledDecoder

from . import wire


def decoder(header: Header) -> PolledDecoder:
    """Raises UsageError, DataError."""
    parse = wire.PARSERS.get(header.parameters.get("format", wire.FLOAT))
    if parse is None:
        raise DataError("The header names no format of answers that this driver knows.", "Record anew.")
    order = [channel.quantity for channel in header.channels]

    def values(payload: bytes) -> list[float] | None:
        reading = parse(payload)
        if reading is None:
            return None
        by_quantity = {
            Quantity.ENERGY: reading.energy_j,
            Quantity.POWER: reading.power_w,
            Quantity.CURRENT: reading.current_a,
            Quantity.VOLTAGE: reading.voltage_v,
        }
        return [by_quantity[quantity] for quantity in order]

    return PolledDecoder(header, wire.FORMAT, values)
