"""A meter's own counter against what its samples add up to.

Inline meters and analysers count energy or charge by themselves. Both rest on one converter, so its gain cancels; what
the comparison shows are readings that were lost, repeated or placed wrongly, and changes that fall between readings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from joulemeter.capture import Channel, Kind, Quantity, Stream
from joulemeter.caveat import Caveat, Code, doubt
from joulemeter.physics.integrate import integrate
from joulemeter.units import show
from joulemeter.window import Role, Window

# A counter that moved less often than this says nothing yet.
LEAST_MOVES = 5
# What rounding in the meter may make of a total.
SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossCheck:
    """`counted` and `integrated` are over the same `duration_s`, in `unit`; `tolerance` is what they may differ by."""

    channel: str
    unit: str
    counted: float
    integrated: float
    tolerance: float
    duration_s: float

    @property
    def agrees(self) -> bool:
        return abs(self.counted - self.integrated) <= self.tolerance


def cross_check(stream: Stream) -> CrossCheck | None:
    """None where the meter has no counter of its own, or one that moved too little to say anything.

    The counter is taken from one move to another, where it is known to its last digit; each move is seen late by up to
    a refresh, which at mean power is the tolerance, beside two of the counter's steps and `SHARE` of the total.
    """
    channel = next((one for one in stream.header.channels if one.witness and one.kind is Kind.CUMULATIVE), None)
    if channel is None:
        return None
    times, totals = _moves(stream, channel)
    if len(times) < LEAST_MOVES:
        return None
    steps = np.diff(totals)
    steps = np.where(steps < 0, steps + (channel.wrap or math.nan), steps)
    counted, duration_s = float(steps.sum()), (times[-1] - times[0]) * 1e-9
    (whole,) = integrate(stream, [Window(start_ns=times[0], stop_ns=times[-1], index=0, role=Role.IDLE)])
    integrated = whole.energy_j if channel.quantity is Quantity.ENERGY else whole.charge_c
    if integrated is None or whole.missing_s or not math.isfinite(counted):
        return None
    late_s = max(channel.refresh_s or 0.0, 1 / stream.timebase.rate_hz)
    tolerance = 2 * (integrated / duration_s * late_s + float(steps.min())) + SHARE * abs(integrated)
    return CrossCheck(
        channel=channel.name,
        unit=channel.unit,
        counted=counted,
        integrated=integrated,
        tolerance=tolerance,
        duration_s=duration_s,
    )


def _moves(stream: Stream, channel: Channel) -> tuple[list[int], list[float]]:
    """Stream times, ns, at which the counter was first seen at a new total, and the totals."""
    times: list[int] = []
    totals: list[float] = []
    before: float | None = None
    for block in stream.blocks():
        values = np.asarray(block.data[channel.name], dtype=np.float64)
        known = np.isfinite(values)
        at = block.times_ns
        if at is None:
            ticks = (block.first_index + np.arange(len(block))) * 1e9 / stream.timebase.rate_hz
            at = np.rint(ticks).astype(np.int64)
        values, at = values[known], at[known]
        if not len(values):
            continue
        moved = np.concatenate([[before is not None and values[0] != before], values[1:] != values[:-1]])
        times += at[moved].tolist()
        totals += values[moved].tolist()
        before = float(values[-1])
    return times, totals


def about(found: CrossCheck | None) -> list[Caveat]:
    if found is None or found.agrees:
        return []
    return [
        doubt(
            Code.METERS_DIFFER,
            f"The meter's own counter says {show(found.counted, found.unit)} where its readings add up to "
            f"{show(found.integrated, found.unit)}, more than the {show(found.tolerance, found.unit)} that both can "
            "differ by. Changes fall between its readings, or some were lost: use longer windows or a faster meter.",
            counted=found.counted,
            integrated=found.integrated,
            tolerance=found.tolerance,
        )
    ]
