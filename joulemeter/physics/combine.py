"""One interval from the terms of a budget, and two results on one meter against each other (JCGM 100:2008, 5 and 6).

The factor k that makes a 95 % interval depends on the shape of the sum. A sum of many terms is nearly normal and k is
1.96; one rectangular term alone reaches 95 % of its values at 1.645 standard deviations. Here the shape is computed by
convolving the distributions of the terms (JCGM 101:2008, 5.2), and the few degrees of freedom of a term known from
little are then allowed for by Student's t with the effective degrees of freedom of Welch and Satterthwaite (JCGM 100,
G.4). The product of the two is a rule of this project; it is exact where all terms are normal and where all degrees of
freedom are infinite, and `results/measured/coverage.md` shows what it is worth in between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from joulemeter.capture import Header
from joulemeter.physics.placement import Edges, edge_loss_j, motion
from joulemeter.physics.stats import Spread
from joulemeter.physics.uncertainty import Conditions, budget
from joulemeter.result import Term
from joulemeter.window import WindowEnergy

# The two-sided 95 % point of the normal distribution.
NORMAL_95 = 1.959964

# Two-sided 95 % points of Student's t (any table); between them 1 / dof is interpolated.
_T95 = {
    1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 12: 2.179,
    15: 2.131, 20: 2.086, 30: 2.042, 60: 2.000, 120: 1.980, math.inf: NORMAL_95,
}  # fmt: skip

# How many equal rectangles make up a distribution; what is not here counts as normal.
_RECTANGLES = {"rectangular": 1, "triangular": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """The uncertainty of one value, in its unit.

    `u_random` shrinks with repetition, `u_systematic` does not; None: not known. `dof_effective` None stands for
    infinitely many. `ci95_total` holds the true value with 95 %: the value less its known error `bias`, plus and minus
    `k95` times `u_combined`. `expanded_k2` is twice `u_combined`, whatever its shape, plus the size of the bias,
    because the value itself is left as it was measured (JCGM 100, F.2.4.5).
    """

    u_random: float | None
    u_systematic: float
    u_combined: float
    dof_effective: float | None
    k95: float
    expanded_k2: float
    ci95_total: tuple[float, float]
    bias: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The budget of a result and what it comes to."""

    terms: tuple[Term, ...]
    combined: Combined


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one meter contributes to a result; see `evaluate` for the rest.

    `name` is put before its terms where there are several meters. With `idle` windows the terms are of net energy.
    """

    name: str = ""
    header: Header
    used: Sequence[WindowEnergy]
    idle: Sequence[WindowEnergy] = ()
    outside_w: float | None = None
    grade: str | None = "in-band"


def evaluate(
    used: Sequence[WindowEnergy],
    header: Header,
    spread: Spread,
    *,
    outside_w: float | None = None,
    idle: Sequence[WindowEnergy] = (),
    grade: str | None = "in-band",
    conditions: Conditions | None = None,
) -> Evaluation:
    """Budget and interval of `spread.median`, energy per inference, or net energy where `idle` windows are given.

    `outside_w` is the mean power beside the windows; None leaves the loss at the edges where it is. `grade` is that of
    the sync report: edges stamped by another clock ("host-marker") are off by the same amount in every window.
    """
    part = Part(header=header, used=used, idle=idle, outside_w=outside_w, grade=grade)
    return evaluate_parts([part], spread, conditions)


def evaluate_parts(parts: Sequence[Part], spread: Spread, conditions: Conditions | None = None) -> Evaluation:
    """The same where several meters were added up; `spread` is that of the sums, whose scatter counts once."""
    terms: list[Term] = []
    lost_j = 0.0
    for part in parts:
        refresh = motion(part.used, part.header)
        edges = refresh if part.grade == "in-band" else Edges.SHIFTED
        if part.outside_w is not None:
            lost_j += edge_loss_j(part.used, part.header, part.outside_w, edges=edges)
        own = budget(
            part.used,
            part.header,
            spread,
            idle=part.idle,
            conditions=conditions,
            edges=edges,
            refresh=refresh,
            outside_w=part.outside_w,
        )
        known = {term.term for term in terms if term.random}
        prefix = f"{part.name}: " if part.name else ""
        terms += [
            term if term.random else replace(term, term=prefix + term.term) for term in own if term.term not in known
        ]
    return Evaluation(terms=tuple(terms), combined=combine(spread.median, terms, bias=-lost_j))


def combine(value: float, terms: Sequence[Term], *, bias: float = 0.0) -> Combined:
    """Uncertainty of `value` from its terms, taken as independent of each other.

    `bias` is a known error of the value, negative where the value is too low; the interval is moved against it.
    """
    random = [term.contribution_j for term in terms if term.random]
    u_random = math.hypot(*random) if random else None
    u_systematic = math.hypot(*(term.contribution_j for term in terms if not term.random))
    u_combined = math.hypot(u_random or 0.0, u_systematic)
    dof = effective_dof([(term.contribution_j, term.dof) for term in terms])
    k95 = _shape(terms) * t95(dof) / NORMAL_95
    middle, half = value - bias, k95 * u_combined
    return Combined(
        u_random=u_random,
        u_systematic=u_systematic,
        u_combined=u_combined,
        dof_effective=dof,
        k95=k95,
        expanded_k2=2 * u_combined + abs(bias),
        ci95_total=(middle - half, middle + half),
        bias=bias,
    )


def with_random(combined: Combined, value: float, u_random: float) -> Combined:
    """The same with another random part, such as one that idle power adds to; the shape of the budget is kept."""
    u_combined = math.hypot(u_random, combined.u_systematic)
    middle, half = value - combined.bias, combined.k95 * u_combined
    return replace(
        combined,
        u_random=u_random,
        u_combined=u_combined,
        expanded_k2=2 * u_combined + abs(combined.bias),
        ci95_total=(middle - half, middle + half),
    )


def effective_dof(parts: Sequence[tuple[float, float | None]]) -> float | None:
    """Welch and Satterthwaite (JCGM 100, G.2b) for pairs of standard uncertainty and its degrees of freedom.

    None stands for infinitely many, in and out.
    """
    total = math.fsum(u**2 for u, _ in parts)
    limited = math.fsum(u**4 / dof for u, dof in parts if dof is not None)
    return total**2 / limited if limited else None


def t95(dof: float | None) -> float:
    """Two-sided 95 % point of Student's t, degrees of freedom from 1 and not necessarily whole (JCGM 100, G.4.1)."""
    wanted = 1 / dof if dof is not None else 0.0
    if wanted >= 1:
        return _T95[1]
    for (low, at_low), (high, at_high) in pairwise(_T95.items()):
        if 1 / high <= wanted <= 1 / low:
            return at_high + (at_low - at_high) * (wanted - 1 / high) / (1 / low - 1 / high)
    return NORMAL_95


def _shape(terms: Sequence[Term]) -> float:
    """The factor on the standard uncertainty that holds 95 % of the sum of all terms."""
    halves = [
        abs(term.contribution_j) * math.sqrt(3 / count)
        for term in terms
        for count in [_RECTANGLES.get(term.distribution, 0)]
        for _ in range(count)
    ]
    normal = math.hypot(*(term.contribution_j for term in terms if term.distribution not in _RECTANGLES))
    return coverage_factor(normal, halves)


# Steps of the inversion below, in units of 1 / u: fine enough for sums that reach 100 u, long enough that a rectangle
# alone is right to four digits.
_STEP, _COUNT = 0.05, 4000


def coverage_factor(normal: float, half_widths: Sequence[float]) -> float:
    """k for 95 % of a normal distribution of standard deviation `normal` plus rectangles of the given half-widths.

    The characteristic function of the sum is the product of exp(-s^2 t^2 / 2) and sin(a t) / (a t); for a symmetric
    distribution P(|x| < k) = 2/pi * integral of phi(t) sin(k t) / t dt (Gil-Pelaez), here by the midpoint rule.
    """
    u = math.sqrt(normal**2 + math.fsum(half**2 for half in half_widths) / 3)
    if not u or not any(half_widths):
        return NORMAL_95
    t = (np.arange(_COUNT) + 0.5) * _STEP
    phi = np.exp(-((normal / u * t) ** 2) / 2)
    for half in half_widths:
        phi *= np.sinc(half / u * t / math.pi)
    weights = phi / t * (2 / math.pi * _STEP)
    low, high = 1.6, 2.0  # every sum of a normal and rectangles lies between 1.645 and the peak near 1.97
    for _ in range(25):
        k = (low + high) / 2
        if float(weights @ np.sin(k * t)) < 0.95:
            low = k
        else:
            high = k
    return (low + high) / 2


# -- two results on one meter ------------------------------------------------------------------------------------------

# What is less than this share of what it was has cancelled.
_CANCELLED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two results a and b on one meter. `u_` are standard uncertainties, `k95_` their factors for 95 %.

    `cancelled_in_` name the terms that the two results share and that are gone, or nearly, in the difference or ratio.
    """

    difference: float
    u_difference: float
    k95_difference: float
    ratio: float
    u_ratio: float
    k95_ratio: float
    cancelled_in_difference: tuple[str, ...]
    cancelled_in_ratio: tuple[str, ...]


def compare_same_meter(a: float, a_terms: Sequence[Term], b: float, b_terms: Sequence[Term]) -> Comparison:
    """a - b and a / b of two results of the same instrument, its ranges, voltage and clock unchanged between them.

    Gain, offset, voltage, clock and resolution are then one and the same error in both results: they are subtracted
    with their sensitivities before they are squared. So a gain leaves the ratio, and an offset leaves the difference
    of results that took the same time. Scatter and edges are each result's own. Raises ValueError where b is zero.
    """
    if not b:
        raise ValueError("a ratio to zero is not a number")
    plain, gone = _subtracted(a_terms, b_terms, 1.0, 1.0)
    # d(a / b) = da / b - a db / b^2
    shares, gone_in_ratio = _subtracted(a_terms, b_terms, 1 / b, a / b**2)
    ratio, difference = combine(a / b, shares), combine(a - b, plain)
    return Comparison(
        difference=a - b,
        u_difference=difference.u_combined,
        k95_difference=difference.k95,
        ratio=a / b,
        u_ratio=ratio.u_combined,
        k95_ratio=ratio.k95,
        cancelled_in_difference=gone,
        cancelled_in_ratio=gone_in_ratio,
    )


_OWN = ("repeatability", "window edges", "refresh", "range switch", "decoupling", "edge loss")


def _subtracted(
    a_terms: Sequence[Term], b_terms: Sequence[Term], a_factor: float, b_factor: float
) -> tuple[list[Term], tuple[str, ...]]:
    """Terms of factor * a - factor * b, and the names of shared terms that have cancelled."""
    left = {term.term: term for term in b_terms if term.term not in _OWN}
    terms, gone = [], []
    for term in a_terms:
        other = left.pop(term.term, None) if term.term not in _OWN else None
        mine = _signed(term) * a_factor
        theirs = 0.0 if other is None else _signed(other) * b_factor
        if other is not None and abs(mine - theirs) < _CANCELLED * max(abs(mine), abs(theirs)):
            gone.append(term.term)
        terms.append(_with(term, mine - theirs))
    terms += [_with(term, _signed(term) * b_factor) for term in left.values()]
    terms += [_with(term, _signed(term) * b_factor) for term in b_terms if term.term in _OWN]
    return terms, tuple(gone)


def _signed(term: Term) -> float:
    return math.copysign(term.contribution_j, term.sensitivity)


def _with(term: Term, contribution: float) -> Term:
    return replace(term, contribution_j=abs(contribution))
