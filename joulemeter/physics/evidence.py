"""What speaks for a reading of a waveform, and which of several readings to believe."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]

# Two readings are the same when they share at least this part of their joint time.
SAME = 0.9
# Two windows of two readings are meant to be one when they share this part of their joint time.
ALIKE = 0.5
# What is shorter than this share of a window and lies at its edge is the edge.
BRIEF = 0.1
# A fuller reading is taken instead of a better one when it is at least this good beside it.
PREFERRED = 0.7
# Windows that hold fewer periods of a finer reading than this may be a beat with it ...
FEW_PERIODS = 4.0
# ... if at least this share of that reading's windows lies inside of them, and outside, of at least so many.
CROSSING, MANY = 0.1, 5
# What is left of a rival that lost a comparison of its own.
LOST = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """What the user knows. `direction` is "above" or "below": where the windows lie against their surroundings."""

    count: int | None = None
    duration_s: float | None = None
    direction: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What speaks for a reading, each 0 (against) to 1 (for). The confidence is their product.

    `repeats` how many windows there are; `level` (with ripple) and `duration` how alike they are; `contrast` how far
    they stand out from the scatter; `whole` how much of a window is of one level and ripple; `complete` how many pieces
    of this level are windows and not misfits or cut off by the ends of the recording; `apart` that no piece outside has
    almost the level of the windows; `swing` that the windows are not a small thing beside larger changes of the same
    recording; `direction` that work costs power: less where windows lie below their surroundings; `hint` agreement with
    what the user said; `alone` that no other reading is as good.
    """

    repeats: float
    level: float
    duration: float
    contrast: float
    whole: float
    complete: float
    apart: float
    swing: float
    direction: float
    hint: float = 1.0
    alone: float = 1.0

    @property
    def product(self) -> float:
        product = 1.0
        for one in fields(self):
            product *= getattr(self, one.name)
        return product


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Windows as samples [start, stop) of the stream, (n,) each, before their edges are placed."""

    kind: str
    start: Int
    stop: Int
    evidence: Evidence
    look: int
    span: int

    @property
    def rank(self) -> float:
        """Coarser looks first among equals."""
        return self.evidence.product * 0.98**self.look


def repeatability(values: Float, allowance: float = 0.0) -> float:
    """1 for equal values, 1/2 where they scatter by 30 % of their mean beyond the relative `allowance`."""
    scatter = max(float(np.std(values)) / float(np.mean(values)) - allowance, 0.0)
    return 1 / (1 + (scatter / 0.3) ** 2)


def overlap(one: Reading, other: Reading) -> float:
    """Shared time over joint time of two readings."""
    borders = np.unique(np.concatenate([one.start, one.stop, other.start, other.stop]))
    length = np.diff(borders)
    both = [
        np.searchsorted(r.start, borders[:-1], side="right") > np.searchsorted(r.stop, borders[:-1], side="right")
        for r in (one, other)
    ]
    joint = float(length[both[0] | both[1]].sum())
    return float(length[both[0] & both[1]].sum()) / joint if joint else 0.0


def _shares(one: Reading, other: Reading) -> Float:
    """For each window of `one` the share of joint time with the window of `other` that it meets most, (n,)."""
    place = np.searchsorted(other.stop, one.start, side="right")
    shares = np.zeros(len(one.start))
    for step in (0, 1):
        at = np.minimum(place + step, len(other.start) - 1)
        both = np.minimum(one.stop, other.stop[at]) - np.maximum(one.start, other.start[at])
        joint = np.maximum(one.stop, other.stop[at]) - np.minimum(one.start, other.start[at])
        shares = np.maximum(shares, both / joint)
    return shares


def contradicts(other: Reading, best: Reading) -> bool:
    """Whether two readings cannot both be right.

    They can where `other` is as good as the same, sees some of the same windows only, divides the windows further, or
    names the transients at their edges.
    """
    if overlap(other, best) >= SAME or within(other, best):
        return False
    slack = 2 * max(other.span, best.span)
    if len(other.start) == len(best.start) and all(
        int(np.abs(mine - theirs).max()) <= slack
        for mine, theirs in ((best.start, other.start), (best.stop, other.stop))
    ):
        return False
    if len(other.start) < len(best.start) and float(_shares(other, best).min()) > ALIKE:
        return False
    slack = max(other.span, best.span)
    edges = np.sort(np.concatenate([best.start, best.stop]))
    near = np.abs(edges[None, :] - (other.start + other.stop)[:, None] / 2).min(axis=1) if len(edges) < 2000 else None
    brief = float(np.median(other.stop - other.start)) < BRIEF * float(np.median(best.stop - best.start))
    reach = (other.stop - other.start) / 2 + slack
    return not (brief and near is not None and bool((near <= reach).all()))


def within(fine: Reading, coarse: Reading) -> bool:
    """Whether `fine` only divides the windows of `coarse` further."""
    if len(fine.start) < 2 * len(coarse.start):
        return False
    slack = coarse.span
    where = np.searchsorted(coarse.start - slack, fine.start, side="right") - 1
    inside = (where >= 0) & (fine.stop <= coarse.stop[np.maximum(where, 0)] + slack)
    return bool(inside.mean() > 0.9)


def unaliased(found: list[Reading]) -> list[Reading]:
    """Without those that only beat: a look as coarse as the spacing of pulses sees now one of them and now two."""
    return [
        one
        for one in found
        if not any(beats(one, other) for other in found if other.evidence.product > PREFERRED * one.evidence.product)
    ]


def beats(coarse: Reading, fine: Reading) -> bool:
    """Whether windows of `coarse` hold only a few of `fine`, of which as good ones lie outside as well."""
    if fine.look <= coarse.look or len(fine.start) < 2 * MANY:
        return False
    period = float(np.median(np.diff(fine.start)))
    if float(np.median(coarse.stop - coarse.start)) > FEW_PERIODS * period:
        return False
    middles = (fine.start + fine.stop) // 2
    where = np.searchsorted(coarse.start, middles, side="right") - 1
    inside = (where >= 0) & (middles < coarse.stop[np.maximum(where, 0)])
    return bool(CROSSING < float(inside.mean()) < 1 - CROSSING)


def chosen_of(found: list[Reading]) -> Reading:
    """The best reading; a good one is preferred to one that only divides its windows or misses some of them."""
    best = found[0]
    for other in found[1:]:
        good = other.evidence.product > PREFERRED * best.evidence.product
        more = len(other.start) > len(best.start) and float(_shares(best, other).min()) > ALIKE
        if good and (within(best, other) or more):
            best = other
    return best


def believed(best: Reading, found: list[Reading], losers: list[Reading]) -> tuple[Reading, list[Reading]]:
    """`best` with `alone` set, and the readings that contradict it, best first.

    `losers` were found worse by something that their evidence does not hold, and readings like them count less.
    """
    rivals = [other for other in found if other is not best and contradicts(other, best)]
    share = 0.0
    for rival in rivals:
        lost = any(not contradicts(rival, loser) for loser in losers)
        share = max(share, (LOST if lost else 1.0) * rival.evidence.product / best.evidence.product)
    alone = 1 - 0.5 * min(share, 1.0) ** 4
    return replace(best, evidence=replace(best.evidence, alone=alone)), rivals
