"""Whether a kernel got hungrier: one result against an earlier one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from joulemeter.errors import DataError, UsageError
from joulemeter.physics.combine import compare_same_meter
from joulemeter.result import Result

# What has to be the same for the meter's errors to cancel.
SAME_METER = ("key", "model", "serial", "voltage_basis", "voltage_v")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`ratio` is new energy per inference over old, `u95` the half width of its 95 % interval.

    `same_meter`: whether the meter's own errors were taken to be one and the same in both. `cancelled` names them.
    """

    ratio: float
    u95: float
    same_meter: bool
    cancelled: tuple[str, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether the two differ at all, at 95 %."""
        return abs(self.ratio - 1) > self.u95

    def worse_than(self, limit: float) -> bool:
        """Whether energy rose by more than `limit` (0.03 is 3 %), and the rise is no scatter."""
        return self.ratio - 1 > limit and self.resolved

    def __str__(self) -> str:
        seen = "" if self.resolved else ", which is within the scatter"
        return f"{(self.ratio - 1) * 100:+.2f} % ± {self.u95 * 100:.2f} % (95 %){seen}"


def change(new: Result, old: Result) -> Change:
    """Energy per inference of `new` beside `old`. Raises DataError where one has none, UsageError where they mix."""
    if new.simulated != old.simulated:
        raise UsageError(
            "One of the two results is simulated and the other is not.", "Measure both with the same meter."
        )
    a, b = new.energy_per_inference_j, old.energy_per_inference_j
    for result, energy in ((new, a), (old, b)):
        if energy.median is None or not energy.median > 0:
            raise DataError(
                f"{result.name} has no energy per inference to compare: {energy.reason or 'it is not above 0'}."
            )
    if a.median is None or b.median is None:
        raise DataError("There is no energy per inference to compare.")
    same = (
        new.instrument is not None
        and old.instrument is not None
        and all(new.instrument.get(name) == old.instrument.get(name) for name in SAME_METER)
    )
    if same:
        found = compare_same_meter(a.median, new.uncertainty, b.median, old.uncertainty)
        return Change(
            ratio=found.ratio,
            u95=(found.k95_ratio or 2.0) * found.u_ratio,
            same_meter=True,
            cancelled=found.cancelled_in_ratio,
        )
    if a.expanded_k2 is None or b.expanded_k2 is None:
        raise DataError(
            "The results come from different meters, and the accuracy of one is not known.",
            "Measure both with the same meter.",
        )
    ratio = a.median / b.median
    return Change(
        ratio=ratio, u95=ratio * math.hypot(a.expanded_k2 / a.median, b.expanded_k2 / b.median), same_meter=False
    )
