"""The quantities that are compared: their names, units, and which end of each is the good one."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from enum import StrEnum

from joulemeter.errors import UsageError

ENERGY, NET, LATENCY = "energy_per_inference_j", "net_energy_per_inference_j", "latency_s"
PER_JOULE, PER_SECOND = "inferences_per_joule", "inferences_per_second"
TOTAL, ABOVE_IDLE = "inferences_per_second_per_watt_total", "inferences_per_second_per_watt_above_idle"
EDP, POWER, MEAN_POWER, LIFE = "edp_js", "power_inferring_w", "mean_power_w", "life_s"


# No device is beyond these, in any unit; a damaged file may be, and their inverses are no numbers.
LEAST, MOST = 1e-30, 1e30


class Rests(StrEnum):
    """What the interval of an amount holds.

    `TOTAL`: every error that is known of. `SCATTER`: what repeating shows, and nothing of the meter's accuracy.
    `CELLS`: the spread between cells of a kind, 90 %. `PRINTED`: the range that a source prints. `NOTHING`: there is no
    interval.
    """

    TOTAL = "total"
    SCATTER = "scatter"
    CELLS = "cells"
    PRINTED = "printed"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A value in its SI unit and what holds it with 95 %; None is unknown, and `reason` says why."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    rests: Rests = Rests.NOTHING
    reason: str | None = None

    @property
    def comparable(self) -> bool:
        """Whether it has a ratio to others."""
        return self.value is not None and LEAST < self.value < MOST

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None

    def inverse(self) -> Amount:
        """One over it; an interval that reaches 0 has no inverse."""
        if self.value is None or not self.comparable:
            return Amount(reason=self.reason or "what it is the inverse of is not above 0")
        if self.low is None or self.high is None or not LEAST < self.low <= self.high < MOST:
            return Amount(value=1 / self.value)
        return Amount(value=1 / self.value, low=1 / self.high, high=1 / self.low, rests=self.rests)


UNKNOWN = Amount()


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """`more` is whether more of it is better; `label` and `short` are for people."""

    label: str
    short: str
    unit: str
    more: bool = False


QUANTITIES = {
    ENERGY: Quantity(label="energy per inference", short="energy", unit="J"),
    NET: Quantity(label="energy per inference above idle", short="energy above idle", unit="J"),
    LATENCY: Quantity(label="latency", short="latency", unit="s"),
    PER_JOULE: Quantity(label="inferences per joule", short="inf/J", unit="1/J", more=True),
    PER_SECOND: Quantity(label="inferences per second", short="inf/s", unit="1/s", more=True),
    TOTAL: Quantity(label="inferences per second per watt, total", short="inf/s/W total", unit="1/J", more=True),
    ABOVE_IDLE: Quantity(
        label="inferences per second per watt above idle", short="inf/s/W above idle", unit="1/J", more=True
    ),
    EDP: Quantity(label="energy-delay product", short="EDP", unit="Js"),
    POWER: Quantity(label="mean power while inferring", short="power inferring", unit="W"),
    MEAN_POWER: Quantity(label="mean power of the recording", short="mean power", unit="W"),
    LIFE: Quantity(label="battery life", short="life", unit="s", more=True),
}

SHORT = {
    "energy": ENERGY,
    "net_energy": NET,
    "latency": LATENCY,
    "efficiency": PER_JOULE,
    "inferences_per_second_per_watt": TOTAL,
    "edp": EDP,
    "power": POWER,
    "mean_power": MEAN_POWER,
    "life": LIFE,
}


def named(text: str) -> str:
    """The quantity of that name, or of a short one. Raises UsageError with the nearest."""
    plain = text.strip().lower().replace("-", "_")
    found = SHORT.get(plain, plain)
    if found not in QUANTITIES:
        known = [*SHORT, *QUANTITIES]
        near = difflib.get_close_matches(plain, known, n=2)
        raise UsageError(
            f"{text!r} is nothing that rows could be sorted by.",
            f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(QUANTITIES)}.",
        )
    return found
