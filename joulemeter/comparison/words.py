"""What every face of a comparison says alike: numbers, ranks, intervals, verdicts, and where a result stands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from joulemeter.comparison.amounts import ENERGY, LIFE, QUANTITIES, Amount, Rests
from joulemeter.comparison.entry import Entry, Origin
from joulemeter.comparison.pair import Ground, Pair
from joulemeter.comparison.ranking import Rank
from joulemeter.comparison.table import Group, Placed
from joulemeter.units import PREFIXES, show, show_duration

# How the four kinds of lines are announced; they are never one list.
SECTIONS = {
    Origin.MEASURED: "Measured",
    Origin.SIMULATED: "SIMULATED, no real hardware",
    Origin.PUBLISHED: "Published by others",
    Origin.BOUND: "Upper bounds by others: published time x rated or peak power, not an energy",
}
RESTS = {
    Rests.TOTAL: "all known errors",
    Rests.SCATTER: "scatter alone",
    Rests.CELLS: "90 % of cells",
    Rests.PRINTED: "as printed",
    Rests.NOTHING: "no interval",
}
GROUNDS = {
    Ground.ERRORS: "",
    Ground.SCATTER: "scatter only",
    Ground.ONE_SIDED: "one-sided",
    Ground.FIGURES: "as printed",
}
MOST_DIGITS = 7


def number(value: float, digits: int = 3) -> str:
    """A plain number in few columns: 144, 1.04k, 0.0123."""
    if abs(value) >= 999.5:
        for prefix in ("G", "M", "k"):
            if abs(value) >= PREFIXES[prefix] * 0.9995:
                return f"{_significant(value / PREFIXES[prefix], digits)}{prefix}"
    if 0 < abs(value) < 0.001:
        return f"{value:.{digits - 1}e}"
    return _significant(value, digits)


def _significant(value: float, digits: int) -> str:
    if not value:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{round(value, digits - 1 - exponent):.{max(digits - 1 - exponent, 0)}f}"


def quantity(value: float | None, unit: str, digits: int = 3) -> str:
    if value is None:
        return "unknown"
    return number(value, digits) if unit.startswith("1/") else show(value, unit, digits)


def shown(name: str, value: float | None, digits: int = 3) -> str:
    """An amount of one of amounts.QUANTITIES; long times as people say them."""
    long = QUANTITIES[name].unit == "s" and value is not None and value >= 60
    return show_duration(value) if long else quantity(value, QUANTITIES[name].unit, digits)


def rank(found: Rank | None) -> str:
    """1, or 3-7 where no difference tells which."""
    if found is None:
        return "-"
    return f"{found.first}-{found.last}" if found.tied else str(found.first)


def interval(amount: Amount, name: str, digits: int = 4) -> str:
    """`low to high`, either of which a source may leave open; empty without one."""
    if amount.low is None and amount.high is None:
        return ""
    if amount.low is None or amount.high is None:
        end = amount.low if amount.high is None else amount.high
        return f"{'at least' if amount.high is None else 'at most'} {shown(name, end, digits)}"
    while shown(name, amount.low, digits) == shown(name, amount.high, digits) and digits < MOST_DIGITS:
        digits += 1
    low, high = (shown(name, end, digits) for end in (amount.low, amount.high))
    if low == high:
        return "no scatter seen"
    alike = name != LIFE and low.partition(" ")[2] == high.partition(" ")[2]
    return f"{low.partition(' ')[0] if alike else low} to {high}"


def energy(entry: Entry, digits: int = 3) -> str:
    """Energy per inference, or its upper bound."""
    if entry.energy_max_j is not None:
        return f"≤{show(entry.energy_max_j, 'J', digits)}"
    return shown(ENERGY, entry.amount(ENERGY).value, digits)


def verdict(pair: Pair, entry: Entry) -> str:
    """What the ratio of an entry says."""
    said = "not resolved" if not pair.resolved else "more" if pair.ratio > 1 else "less"
    simulated = "SIMULATED" if entry.simulated else ""
    return ", ".join(filter(None, (said, "gain cancels" if pair.same_meter else "", GROUNDS[pair.ground], simulated)))


def ratio(pair: Pair) -> tuple[str, str]:
    """A ratio, and its interval with as many digits as tell its ends apart."""
    if pair.ground is Ground.FIGURES:
        return number(pair.ratio, 4), ""
    if pair.high is None:
        return number(pair.ratio, 4), f"from {number(pair.low, 4)}"
    spread = (pair.high - pair.low) / pair.ratio
    digits = next((digits for digits in (3, 4, 5) if spread > 30 * 10.0**-digits), 6)
    return number(pair.ratio, digits), f"{number(pair.low, digits)} to {number(pair.high, digits)}"


def per(group: Group) -> str:
    return "" if group.per == "inference" else f", per {group.per}"


def standing(group: Group, sort: str) -> Iterator[str]:
    """Where each result stands among what others published, a sentence each."""
    rows = [one for one in group.of(Origin.PUBLISHED) if one.rank is not None]
    if not rows:
        return
    label, best = QUANTITIES[sort].label, rows[0].entry
    for one in group.of(Origin.MEASURED, Origin.SIMULATED):
        mark = "SIMULATED: " if one.entry.simulated else ""
        if one.rank is None:
            yield f"{mark}{one.entry.name} has no place: {label} is unknown."
            continue
        mine = one.entry.amount(sort).value or 0.0
        text = f"{mark}{one.entry.name} {'would rank' if one.entry.simulated else 'ranks'} {rank(one.rank)}"
        text += f" of {one.rank.of} by {label} ({shown(sort, mine, 4)})"
        text += "".join(
            f", next {what} {near}"
            for what, near in zip(("better", "worse"), _neighbours(mine, rows, sort), strict=True)
            if near
        )
        top = best.amount(sort).value or 0.0
        yield f"{text}; the best, {best.name}, has {number(top / mine)} times that."


def _neighbours(mine: float, rows: Sequence[Placed], sort: str) -> tuple[str, str]:
    """The published rows just before and just after a value, with theirs; empty where there is none."""
    more = QUANTITIES[sort].more
    ahead = [row for row in rows if ((row.entry.amount(sort).value or 0.0) > mine) is more]
    behind = [row for row in rows if row not in ahead]
    return _told(ahead[-1], sort) if ahead else "", _told(behind[0], sort) if behind else ""


def _told(placed: Placed, sort: str) -> str:
    return f"{placed.entry.name} ({shown(sort, placed.entry.amount(sort).value)})"
