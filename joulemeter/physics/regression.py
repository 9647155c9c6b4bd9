"""Whether a kernel got hungrier: one result against an earlier one.

A rise fails a limit when it is no scatter and the limit is not excluded: the 95 % interval of new over old lies above
1, and reaches the limit or beyond. So of two recordings of the same kernel, at most one pair in forty can fail, and a
rise as large as the limit goes unnoticed in one pair in forty at most, as long as the interval is narrower than the
limit. Where it is wider, nothing is proved and that is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from joulemeter.errors import DataError, UsageError
from joulemeter.physics import ranks
from joulemeter.physics.combine import Comparison, compare_same_meter
from joulemeter.result import Result, Term

# What has to be the same for the meter's errors to cancel.
SAME_METER = ("key", "model", "serial", "voltage_basis", "voltage_v")
RANGED = "offset, range "
BY_RANKS, BY_BUDGETS = "ranks of the windows (Hodges and Lehmann)", "budgets, Student t"


class Verdict(StrEnum):
    """`LOOSE`: neither a rise nor its absence is shown, because the interval is wider than the limit."""

    WORSE = "worse"
    LOOSE = "loose"
    HELD = "held"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """`ratio` is new energy per inference over old; [low, high] holds it with 95 %.

    `same_meter`: whether the meter's own errors were taken to be one and the same in both. `cancelled` names them.
    `method` says what the scatter was taken from.
    """

    ratio: float
    low: float
    high: float
    same_meter: bool
    cancelled: tuple[str, ...] = ()
    method: str = ""

    @property
    def u95(self) -> float:
        """Half of the interval."""
        return (self.high - self.low) / 2

    @property
    def resolved(self) -> bool:
        """Whether the two differ at all, at 95 %."""
        return not self.low <= 1 <= self.high

    def against(self, limit: float) -> Verdict:
        """A rise of `limit` (0.03 is 3 %) or more must not go unnoticed, and scatter is no rise."""
        if self.high - 1 < limit:
            return Verdict.HELD
        return Verdict.WORSE if self.low > 1 else Verdict.LOOSE

    def worse_than(self, limit: float) -> bool:
        """Whether energy rose, and a rise of `limit` is not excluded."""
        return self.against(limit) is Verdict.WORSE

    def __str__(self) -> str:
        seen = "" if self.resolved else ", not resolved"
        low, middle, high = (_percent(value) for value in (self.low, self.ratio, self.high))
        return f"{middle} ({low} to {high} with 95 %{seen})"


def _percent(ratio: float) -> str:
    change = (ratio - 1) * 100
    return f"{change:+.2f} %" if abs(change) < 100 else f"{change:+.0f} %"


def change(
    new: Result,
    old: Result,
    new_j: Sequence[float] | None = None,
    old_j: Sequence[float] | None = None,
    *,
    between_runs: float = 0.0,
) -> Change:
    """Energy per inference of `new` beside `old`.

    `new_j` and `old_j` are the energies per inference of the windows used, in their order: given both, the scatter is
    judged by ranks (physics.ranks), which outliers do not move; else by the budgets. `between_runs` is the standard
    deviation, relative, by which runs of one kernel differ beyond the scatter within them.

    Raises DataError where one has no energy or no scatter, UsageError where a simulated result meets a measured one.
    """
    if new.simulated != old.simulated:
        raise UsageError(
            "One of the two results is simulated and the other is not.", "Measure both with the same meter."
        )
    a, b = known(new, "The result"), known(old, "The baseline")
    same = same_meter(new, old)
    by_rank = None if new_j is None or old_j is None else ranks.ratio(_array(new_j), _array(old_j))
    terms = [[term for term in result.uncertainty if by_rank is None or not term.random] for result in (new, old)]
    if by_rank is None:
        for result, name in ((new, "The result"), (old, "The baseline")):
            if not any(term.random for term in result.uncertainty):
                raise DataError(
                    f"{name} rests on {_windows(result)} and shows no scatter, so that nothing can be told of a "
                    "change.",
                    "Record at least four windows; ten are better.",
                )
    found = _compared(a, terms[0], b, terms[1], same=same)
    fixed = 0.0 if same else _loss(new) + _loss(old)
    between = 1.96 * math.sqrt(2) * between_runs
    rest = math.hypot(found.k95_ratio * found.u_ratio / found.ratio, between)
    middle, low, high = (
        (found.ratio, 1.0, 1.0)
        if by_rank is None
        else (by_rank.middle, by_rank.low / by_rank.middle, by_rank.high / by_rank.middle)
    )
    return Change(
        ratio=middle,
        low=max(middle * (1 - math.hypot(1 - low, rest) - fixed), 0.0),
        high=middle * (1 + math.hypot(high - 1, rest) + fixed),
        same_meter=same,
        cancelled=found.cancelled_in_ratio,
        method=BY_BUDGETS if by_rank is None else BY_RANKS,
    )


def known(result: Result, name: str = "The result") -> float:
    """Energy per inference. Raises DataError where there is none above 0."""
    energy = result.energy_per_inference_j
    if energy.median is None or not energy.median > 0:
        why = "it is not above 0" if energy.median is not None else energy.reason or "nobody says why"
        raise DataError(f"{name} has no energy per inference to compare: {why}.")
    return energy.median


def same_meter(new: Result, old: Result) -> bool:
    """Whether both were measured by one meter in the same ranges and calibration, as far as the results say."""
    return (
        new.instrument is not None
        and old.instrument is not None
        and all(new.instrument.get(name) == old.instrument.get(name) for name in SAME_METER)
        and ranges(new) == ranges(old)
        and calibrations(new) == calibrations(old)
    )


def ranges(result: Result) -> set[str]:
    """The ranges that took part, by the offsets in the budget; empty where the meter has one or states none."""
    return {term.term for term in result.uncertainty if RANGED in term.term}


def calibrations(result: Result) -> set[str]:
    """What scales the energy rests on: the maker's table or a calibration, a shunt, an amplifier, a probe."""
    scaling = (term for term in result.uncertainty if term.unit == "1" and not term.term.endswith("sample clock"))
    return {term.source for term in scaling}


def _windows(result: Result) -> str:
    return "one window" if result.windows.used == 1 else f"{result.windows.used} windows"


def _array(values: Sequence[float]) -> ranks.Float:
    return np.asarray(values, dtype=np.float64)


def _compared(a: float, a_terms: Sequence[Term], b: float, b_terms: Sequence[Term], *, same: bool) -> Comparison:
    """On one meter shared terms are subtracted; on two, or in other ranges, none is shared."""
    if not same:
        if not all(any(term.term.endswith("gain") for term in terms) for terms in (a_terms, b_terms)):
            raise DataError(
                "The results come from different meters, ranges or calibrations, and the accuracy of one is not known.",
                "Measure both with the same meter.",
            )
        b_terms = [replace(term, term=f"baseline: {term.term}") for term in b_terms]
    return compare_same_meter(a, a_terms, b, b_terms)


def _loss(result: Result) -> float:
    """What the edges are known to lose, relative: `expanded_k2` is twice the uncertainty plus that."""
    energy = result.energy_per_inference_j
    if energy.median is None or energy.expanded_k2 is None or energy.u_systematic is None:
        return 0.0
    return max(energy.expanded_k2 - 2 * math.hypot(energy.u_random or 0.0, energy.u_systematic), 0.0) / energy.median
