"""Two entries and one quantity: their ratio, its interval, and whether they differ at all."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from joulemeter.comparison.amounts import (
    ABOVE_IDLE,
    ENERGY,
    NET,
    PER_JOULE,
    QUANTITIES,
    TOTAL,
    Amount,
    Rests,
)
from joulemeter.comparison.entry import Entry
from joulemeter.errors import JouleMeterError
from joulemeter.physics.regression import change

# An interval that reaches farther, as a logarithm, has no end on that side.
FARTHEST = 300.0
# What is one over another quantity has one over its ratio.
_INVERSES = {PER_JOULE: ENERGY, TOTAL: ENERGY, ABOVE_IDLE: NET}


class Ground(StrEnum):
    """What a verdict rests on, from the strongest to the weakest.

    `ERRORS`: every error that is known of either. `SCATTER`: what repeating shows; how wrong a meter may be is not
    known. `ONE_SIDED`: the interval of one of them, the other has none. `FIGURES`: neither has one.
    """

    ERRORS = "errors"
    SCATTER = "scatter"
    ONE_SIDED = "one-sided"
    FIGURES = "figures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """`ratio` is the first over the second; [low, high] holds it with 95 %, high None where it has no end.

    `same_meter`: both were measured by one meter in the same ranges and calibration, so that what `cancelled` names
    is not in the interval.
    """

    ratio: float
    low: float
    high: float | None
    ground: Ground
    same_meter: bool = False
    cancelled: tuple[str, ...] = ()

    @property
    def resolved(self) -> bool:
        """Whether they differ, as far as the ground goes."""
        return self.low > 1 or (self.high is not None and self.high < 1)

    def inverse(self) -> Pair:
        return Pair(
            ratio=1 / self.ratio,
            low=0.0 if self.high is None else 1 / self.high,
            high=None if self.low <= math.exp(-FARTHEST) else 1 / self.low,
            ground=self.ground,
            same_meter=self.same_meter,
            cancelled=self.cancelled,
        )


@dataclass(slots=True)
class Pairs:
    """Ratios between entries, each made once."""

    _made: dict[tuple[int, int, str], Pair | None] = field(default_factory=dict)

    def of(self, a: Entry, b: Entry, quantity: str) -> Pair | None:
        """`a` over `b`; None where one of them is unknown or not above 0."""
        if (direct := _INVERSES.get(quantity)) is not None:
            found = self.of(a, b, direct)
            return None if found is None else found.inverse()
        key, turned = (id(a), id(b), quantity), (id(b), id(a), quantity)
        if key not in self._made:
            self._made[key] = made = _pair(a, b, quantity)
            self._made[turned] = None if made is None else made.inverse()
        return self._made[key]

    def better(self, a: Entry, b: Entry, quantity: str) -> bool | None:
        """Whether `a` is the better of the two; None where they are not resolved, or one is unknown."""
        found = self.of(a, b, quantity)
        if found is None or not found.resolved:
            return None
        return (found.ratio > 1) is QUANTITIES[quantity].more


def _pair(a: Entry, b: Entry, quantity: str) -> Pair | None:
    one, other = a.amount(quantity), b.amount(quantity)
    if not one.comparable or not other.comparable:
        return None
    if quantity == ENERGY and a.result is not None and b.result is not None:
        try:
            found = change(a.result, b.result, a.windows_j, b.windows_j)
        except (JouleMeterError, ArithmeticError):
            # Accuracy or scatter of one of them is not known, or one is simulated: each has its interval by itself.
            return _apart(one, other)
        whole = one.rests is other.rests is Rests.TOTAL
        return Pair(
            ratio=found.ratio,
            low=found.low,
            high=found.high,
            ground=Ground.ERRORS if whole else Ground.SCATTER,
            same_meter=found.same_meter,
            cancelled=found.cancelled,
        )
    return _apart(one, other)


def _apart(one: Amount, other: Amount) -> Pair:
    """Two amounts whose errors have nothing in common: the distances to their ends add as squares, in logarithms."""
    ratio = (one.value or 0.0) / (other.value or 1.0)
    down, up = math.hypot(_reach(one, down=True), _reach(other)), math.hypot(_reach(one), _reach(other, down=True))
    known = [amount.rests for amount in (one, other) if amount.bounded]
    if len(known) < 2:
        ground = Ground.ONE_SIDED if known else Ground.FIGURES
    else:
        ground = Ground.ERRORS if known == [Rests.TOTAL, Rests.TOTAL] else Ground.SCATTER
    return Pair(
        ratio=ratio,
        low=ratio * math.exp(-down),
        high=None if up > FARTHEST else ratio * math.exp(up),
        ground=ground,
    )


def _reach(amount: Amount, *, down: bool = False) -> float:
    """How far an end is from the value, as a logarithm; 0 without an interval, infinite where it reaches 0."""
    if amount.value is None or amount.low is None or amount.high is None:
        return 0.0
    end = amount.low if down else amount.high
    return math.inf if end <= 0 else abs(math.log(end / amount.value))
