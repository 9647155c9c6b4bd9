"""Streams made in memory for tests, with their truth beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import (
    Accuracy,
    ArrayStream,
    Basis,
    Channel,
    Distribution,
    Gap,
    Header,
    Kind,
    Limit,
    Quantity,
    Recording,
    Timebase,
    Voltage,
)
from joulemeter.synthetic import Load

CURRENT = Channel(
    name="current",
    quantity=Quantity.CURRENT,
    unit="A",
    kind=Kind.MEAN,
    accuracy=(
        Accuracy(
            range=None,
            gain=Limit(value=0.01, distribution=Distribution.NORMAL),
            offset=Limit(value=1e-6),
            source="made up for a test",
            verified=True,
        ),
    ),
)
DIGITAL = Channel(
    name="digital",
    quantity=Quantity.DIGITAL,
    unit="",
    kind=Kind.STATE,
    lines=tuple(f"d{k}" for k in range(8)),
)


def header(rate_hz: float, volts: float | None = 3.0, accuracy: bool = True) -> Header:
    channel = CURRENT if accuracy else Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.MEAN)
    return Header(
        instrument="test",
        model="test meter",
        wire="test/1",
        rate_hz=rate_hz,
        word_bytes=4,
        channels=(channel, DIGITAL),
        voltage=None if volts is None else Voltage(volts=volts, basis=Basis.SET, limit=Limit(value=0.02 * volts)),
    )


def stream(
    current_a: NDArray[np.float64],
    lines: NDArray[np.uint8],
    rate_hz: float,
    *,
    volts: float | None = 3.0,
    gaps: tuple[Gap, ...] = (),
    status: NDArray[np.uint8] | None = None,
) -> ArrayStream:
    return ArrayStream(
        name="test",
        header=header(rate_hz, volts),
        timebase=Timebase(rate_hz=rate_hz),
        data={"current": current_a, "digital": lines},
        gaps=gaps,
        status=status,
    )


def loaded(load: Load, duration_s: float, rate_hz: float, volts: float | None = 3.0) -> ArrayStream:
    """What a perfect meter would record of `load`."""
    count = round(duration_s * rate_hz)
    return stream(load.mean_current_a(0, count, rate_hz), load.lines(0, count, rate_hz), rate_hz, volts=volts)


def metered(
    values: Mapping[Quantity, NDArray[np.float64]],
    kind: Kind,
    rate_hz: float,
    *,
    volts: float | None = None,
    times_ns: NDArray[np.int64] | None = None,
    gaps: tuple[Gap, ...] = (),
    refresh_s: float | None = None,
    wrap: float | None = None,
) -> ArrayStream:
    """What a meter of any kind recorded: one channel per quantity, evenly spaced or polled at `times_ns`."""
    units = {
        Quantity.POWER: "W", Quantity.CURRENT: "A", Quantity.VOLTAGE: "V", Quantity.ENERGY: "J", Quantity.CHARGE: "C"
    }  # fmt: skip
    channels = tuple(
        Channel(name=str(quantity), quantity=quantity, unit=units[quantity], kind=kind, wrap=wrap, refresh_s=refresh_s)
        for quantity in values
    )
    return ArrayStream(
        name="test",
        header=replace(header(rate_hz, volts), channels=channels),
        timebase=Timebase(rate_hz=rate_hz),
        data={str(quantity): array for quantity, array in values.items()},
        gaps=gaps,
        times_ns=times_ns,
    )


def recording(one: ArrayStream, trigger: str = "d0") -> Recording:
    return Recording(name="test", streams=(one,), trigger=trigger, meta={"inferences_per_window": 1})
