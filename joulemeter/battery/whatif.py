"""What would have to change: the period, the capacitor, the sleep current. And the rules of thumb of makers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from joulemeter.battery.cell import YEAR_S, Cell, known
from joulemeter.battery.life import Life, project
from joulemeter.battery.load import Load
from joulemeter.battery.supply import Capacitor, Supply

PERIODS_S: Final = (1.0, 10.0, 60.0, 3600.0)
FARADS: Final = (1e-7, 1.0)
# A capacitor saves a life when it gives this share of what any capacitor could give.
SAVED: Final = 0.98
HALVINGS: Final = 40


def periods(
    cell: Cell, load: Load, supply: Supply, periods_s: Sequence[float] = PERIODS_S
) -> tuple[tuple[float, Life | None], ...]:
    """Life at each period; None where the active part does not fit into it. UsageError for a load without a period."""
    _periodic(load)
    return tuple(
        (
            period_s,
            project(cell, replace(load, every_s=period_s), supply) if period_s >= load.profile.duration_s else None,
        )
        for period_s in periods_s
    )


def period_for(cell: Cell, load: Load, supply: Supply, wanted_s: float) -> float | None:
    """The shortest period in s with which the cell lasts `wanted_s`; None where no period does."""
    _periodic(load)
    _wanted(wanted_s)

    def lasts(period_s: float) -> bool:
        return _lasts(cell, replace(load, every_s=period_s), supply, wanted_s)

    return _least(lasts, load.profile.duration_s, max(wanted_s / 10, 10 * load.profile.duration_s))


def rest_for(cell: Cell, load: Load, supply: Supply, wanted_s: float) -> float | None:
    """The largest sleep current in A with which the cell lasts `wanted_s`; None where not even zero does."""
    _periodic(load)
    _wanted(wanted_s)

    def fails(rest_a: float) -> bool:
        return not _lasts(cell, replace(load, rest_a=rest_a), supply, wanted_s)

    draws = load.profile.values.max() > 0
    if draws and fails(0.0):
        return None
    return _least(fails, 1e-12, 10 * cell.capacity_c / wanted_s)


def capacitor_for(cell: Cell, load: Load, supply: Supply, wanted_s: float | None = None) -> float | None:
    """The smallest capacitor in F with which the cell lasts `wanted_s`; None where none up to 1 F does.

    Without `wanted_s`: the smallest that gives 98 % of the life that 1 F gives, which is the one worth adding; None
    where there is no life to be had or none is needed. Leakage and derating are those of the supply's capacitor.
    """
    base = supply.capacitor or Capacitor(farad=FARADS[0])

    def life_s(farad: float) -> float:
        return project(cell, load, replace(supply, capacitor=replace(base, farad=farad))).life_s or 0.0

    if wanted_s is None:
        most_s = life_s(FARADS[1])
        bare_s = project(cell, load, replace(supply, capacitor=None)).life_s or 0.0
        if most_s <= 0 or bare_s >= SAVED * most_s:
            return None
        target_s = SAVED * most_s
    else:
        _wanted(wanted_s)
        target_s = wanted_s
    return _least(lambda farad: life_s(farad) >= target_s, *FARADS)


def mean_current_for(cell: Cell, wanted_s: float) -> float:
    """Mean current in A that empties the cell in just `wanted_s`, self-discharge counted; no pulses, no cut-off.

    I = Q (1 / t - s); UsageError where self-discharge alone takes it all sooner.
    """
    _wanted(wanted_s)
    current_a = cell.capacity_c * (1 / wanted_s - (cell.loss_per_year or 0.0) / YEAR_S)
    known(current_a > 0, f"Self-discharge alone empties a {cell.name} sooner than that.", "Ask for a shorter life.")
    return current_a


def capacitor_by_charge(
    pulses: Sequence[tuple[float, float]], *, high_v: float, low_v: float, resistance_ohm: float
) -> float:
    """Capacitor in F that carries (current in A, duration in s) from `high_v` to `low_v`.

    C = (sum(I t) - Vmin / R sum(t)) / (Vmax - Vmin); the cell itself is counted with the current it gives into
    `low_v`. Texas Instruments, SWRA349, "Coin cells and peak current draw", appendix.
    """
    known(high_v > low_v > 0 and resistance_ohm > 0, "The rule needs high_v above low_v above 0, and a resistance.")
    charge_c = sum(current_a * duration_s for current_a, duration_s in pulses)
    total_s = sum(duration_s for _, duration_s in pulses)
    return max(0.0, charge_c - low_v / resistance_ohm * total_s) / (high_v - low_v)


def recharge_s(farad: float, resistance_ohm: float, *, source_v: float, low_v: float, high_v: float) -> float:
    """Time in s in which `source_v` behind a resistance lifts a capacitor from `low_v` to `high_v`.

    t = R C ln((Vp - Vmin) / (Vp - Vmax)); the same appendix.
    """
    known(low_v < high_v < source_v, "The rule needs low_v below high_v below source_v.")
    return resistance_ohm * farad * math.log((source_v - low_v) / (source_v - high_v))


def largest_resistance(rest_v: float, cutoff_v: float, peak_a: float) -> float:
    """Resistance in ohm that a cell may have without a capacitor: (E - Vcut) / Ipeak."""
    known(rest_v > cutoff_v > 0 and peak_a > 0, "The rule needs rest_v above cutoff_v above 0, and a peak current.")
    return (rest_v - cutoff_v) / peak_a


def _periodic(load: Load) -> None:
    known(
        load.every_s is not None,
        "The load has no period that could be changed: it repeats at once.",
        "Give the active part, the current at rest and a period.",
    )


def _wanted(wanted_s: float) -> None:
    known(math.isfinite(wanted_s) and wanted_s > 0, f"A life of {wanted_s} s cannot be wanted.")


def _lasts(cell: Cell, load: Load, supply: Supply, wanted_s: float) -> bool:
    life_s = project(cell, load, supply).life_s
    return life_s is not None and life_s >= wanted_s


def _least(enough: Callable[[float], bool], low: float, high: float) -> float | None:
    """The least value from `low` to `high` that is enough, halved on a logarithmic scale; None where `high` is not."""
    if enough(low):
        return low
    if not enough(high):
        return None
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        if enough(middle):
            high = middle
        else:
            low = middle
        if high <= low * (1 + 1e-4):
            break
    return high
