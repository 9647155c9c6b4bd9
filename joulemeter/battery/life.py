"""How long a cell lasts under a load, and what ends it.

Two scales. Within a cycle the depth of discharge hardly moves: the circuit is solved for its periodic steady state at
each depth (circuit.py, sheet.py). Over the life, dD/dt = I(D) / Q + s, so that age is an integral over D. The life ends
at the first of: a rail below the level the load accepts, the rated charge gone, the charge at hand gone (slow term),
the shelf life.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import numpy as np

from joulemeter.battery.cell import YEAR_S, Cell, Float, known
from joulemeter.battery.load import Load
from joulemeter.battery.sheet import Bench, Sheet, bench, ripple, sustained_a
from joulemeter.battery.supply import Supply
from joulemeter.caveat import Caveat, Code, doubt, invalid, note
from joulemeter.units import show, show_duration

NODES: Final = 160
# Depths between two nodes when a crossing is looked at closer, and how often.
CLOSER: Final = 13
ROUNDS: Final = 2
# No maker of coin cells vouches for more (Ganssle, ultra-low-power report); taken where a cell's data has none.
SHELF_S: Final = 10 * YEAR_S
# A life that ends within this share of what the voltage at rest allows ended for want of charge, not by a sag.
USED_UP: Final = 0.98
# Fewer cycles, or circuit times above this share of the life, and the two scales are not apart.
FEW_CYCLES: Final = 1000
FEW_EVENTS: Final = 100
SLOW_SHARE: Final = 0.01
# Mean currents that empty the cell sooner than this need a slow term or a rate table: 1 mA from a CR2032.
RATE_S: Final = 200 * 3600.0
PASSIVE_A: Final = 3e-6


class Cause(StrEnum):
    """What ends the life."""

    CHARGE = "charge used up"
    SAG = "sag"
    SLOW = "charge not at hand in time"
    SHELF = "shelf life"
    NEVER_STARTS = "never starts"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curves:
    """Over the life, (n,) each: age, depth of discharge, lowest and highest rail in a cycle, mean current."""

    age_s: Float
    dod: Float
    rail_min_v: Float
    rail_max_v: Float
    mean_a: Float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Life:
    """A projection.

    life_s              None where it is refused: the model does not hold there, and `model_life_s`, what it would say,
                        is an upper bound that nobody should be shown as a life
    cause, sag_label    what ended it, and the step whose sag did; the label is None for other causes
    rail_fresh_v        lowest rail of the fresh cell; rail_end_v at the end
    naive_life_s        rated charge over mean current, as others print it
    charge_left_c       rated charge that is neither used nor lost
    cycles              of the load's period; a load that never changes has no cycles: None
    relied_on           figures of the cell that were used, by their names in Cell.grades
    """

    cell: str
    life_s: float | None
    cause: Cause
    sag_label: str | None
    rail_fresh_v: float
    rail_end_v: float
    cutoff_v: float
    dod_end: float
    naive_life_s: float
    model_life_s: float
    mean_current_a: float
    peak_current_a: float
    delivered_c: float
    charge_left_c: float
    cycles: float | None
    worst_grade: str | None
    relied_on: tuple[str, ...]
    curves: Curves
    caveats: tuple[Caveat, ...] = field(default_factory=tuple)


def project(cell: Cell, load: Load, supply: Supply, *, nodes: int = NODES) -> Life:
    """The life of `cell` under `load` behind `supply`, from `nodes` depths of discharge.

    UsageError for a load, cell or supply that is not possible. A load beyond the cell's continuous limit is answered
    with life_s None, cause REFUSED and an invalid caveat.
    """
    known(nodes >= 8, f"{nodes} depths of discharge are too few.", "Use the default.")
    here = bench(cell, load, supply)
    sheet = here.sheet(here.grid(nodes))
    sheet, end, row = crossing(here, sheet)
    age = ages(cell, supply, sheet)
    mean_a = _mean_current(sheet, age)
    peak_a = float(max(sheet.cycle_a[:, 0].max(), *(part[:, 0].max() + here.base[0] for part in sheet.event_a), 0.0))
    cause = _cause(cell, here, end, row)
    if cause is not Cause.NEVER_STARTS and cell.slow is not None:
        starved = starving(here, sheet, age)
        if starved is not None and starved < end:
            end, cause = starved, Cause.SLOW
    end_s = float(np.interp(end, sheet.dod, age))
    shelf_s = cell.shelf_s or SHELF_S
    unclipped_s = end_s
    if end_s > shelf_s:
        end, end_s, cause = float(np.interp(shelf_s, age, sheet.dod)), shelf_s, Cause.SHELF
    # A sheet that ends at the crossing has one label there; the others end without one.
    label = here.labels[row] if cause in (Cause.SAG, Cause.NEVER_STARTS) and row is not None else None
    curves = _curves(sheet, age, end)
    steady_load = len(here.cycle.durations_s) == 1 and not here.events
    delivered_c = float(np.trapezoid(curves.mean_a, curves.age_s)) if len(curves.age_s) > 1 else 0.0
    life = Life(
        cell=cell.name,
        life_s=end_s,
        cause=cause,
        sag_label=label,
        rail_fresh_v=float(sheet.low_v[:, 0].min()),
        rail_end_v=float(curves.rail_min_v[-1]),
        cutoff_v=supply.rail_cutoff_v,
        dod_end=end,
        naive_life_s=cell.capacity_c / mean_a,
        model_life_s=end_s,
        mean_current_a=mean_a,
        peak_current_a=peak_a,
        delivered_c=delivered_c,
        charge_left_c=cell.capacity_c * max(0.0, 1.0 - end),
        cycles=None if steady_load else end_s / load.period_s,
        worst_grade=None,
        relied_on=_relied_on(cell, supply, cause),
        curves=curves,
    )
    caveats = tuple(_caveats(here, sheet, life, unclipped_s))
    refused = any(caveat.code is Code.BATTERY_REFUSED for caveat in caveats)
    return replace(
        life,
        worst_grade=cell.worst_grade(life.relied_on),
        caveats=caveats,
        life_s=None if refused else end_s,
        cause=Cause.REFUSED if refused else cause,
        sag_label=None if refused else label,
    )


def crossing(here: Bench, sheet: Sheet) -> tuple[Sheet, float, int | None]:
    """The sheet up to the first depth at which the rail is too low, that depth, and the row of low_v that is lowest.

    Depth 1 and no row where the rail stays above the level; depth 0 where the fresh cell is too low already.
    """
    level = here.supply.rail_cutoff_v
    dead = sheet.low_v.min(axis=0) < level
    if not dead.any():
        return sheet, 1.0, None
    first = int(np.argmax(dead))
    if first == 0:
        return sheet, 0.0, int(np.argmin(sheet.low_v[:, 0]))
    close = sheet
    for _ in range(ROUNDS):
        close = here.sheet(np.linspace(close.dod[first - 1], close.dod[first], CLOSER))
        # The first node is alive by the round before.
        first = 1 + int(np.argmax(close.low_v.min(axis=0)[1:] < level))
    before, after = (close.low_v[:, first - step] for step in (1, 0))
    row = int(np.argmin(after))
    share = float((before.min() - level) / (before.min() - after.min()))
    end = float(close.dod[first - 1] + share * (close.dod[first] - close.dod[first - 1]))
    return _until(sheet, close, first, end), end, row


def _until(sheet: Sheet, close: Sheet, first: int, end: float) -> Sheet:
    """The nodes of `sheet` before `end`, and `end` itself between the nodes `first` - 1 and `first` of `close`."""
    keep = sheet.dod < close.dod[first - 1]
    share = (end - close.dod[first - 1]) / (close.dod[first] - close.dod[first - 1])

    def joined(rows: Float, near: Float) -> Float:
        last = near[..., first - 1] + share * (near[..., first] - near[..., first - 1])
        return np.concatenate([rows[..., keep], near[..., first - 1, None], last[..., None]], axis=-1)

    return Sheet(
        dod=joined(sheet.dod, close.dod),
        low_v=joined(sheet.low_v, close.low_v),
        high_v=joined(sheet.high_v, close.high_v),
        mean_a=joined(sheet.mean_a, close.mean_a),
        cycle_a=joined(sheet.cycle_a, close.cycle_a),
        event_a=tuple(joined(rows, near) for rows, near in zip(sheet.event_a, close.event_a, strict=True)),
        lag_s=sheet.lag_s,
    )


def loss_per_s(cell: Cell, supply: Supply) -> float:
    """Self-discharge, as a share of the rated charge per second, in the mean over the temperatures."""
    return float(sum(share * cell.loss_per_s(celsius) for celsius, share in supply.climate))


def ages(cell: Cell, supply: Supply, sheet: Sheet) -> Float:
    """Age in s at each node: the integral of dD / (I / Q + s)."""
    slope = 1 / (sheet.mean_a / cell.charge_at(sheet.mean_a) + loss_per_s(cell, supply))
    return np.concatenate([[0.0], np.cumsum(np.diff(sheet.dod) * (slope[1:] + slope[:-1]) / 2)])


def starving(here: Bench, sheet: Sheet, age_s: Float) -> float | None:
    """The depth at which no charge is at hand: y - (1 - c) d = 0, d' = I / c - k' d, I the mean over a cycle.

    Within long cycles and events d stands above its mean by `ripple`. None where that does not happen.
    """
    slow, cell = here.cell.slow, here.cell
    if slow is None:
        return None
    full_c = slow.full_c(cell.capacity_c, cell.rated_a)
    spans = np.diff(age_s)
    decay = np.exp(-slow.k_per_s * spans)
    inflow = (sheet.mean_a[1:] + sheet.mean_a[:-1]) / 2 / slow.c / slow.k_per_s * (1 - decay)
    gap = np.empty_like(age_s)
    gap[0] = value = 0.0
    for index, (kept, gained) in enumerate(zip(decay.tolist(), inflow.tolist(), strict=True), 1):
        gap[index] = value = value * kept + gained
    above = ripple(here.cycle.durations_s, sheet.cycle_a, slow.k_per_s)
    for event, steps, extra in zip(here.load.events, here.events, sheet.event_a, strict=True):
        quiet_s = event.every_s - event.profile.duration_s
        durations = np.append(steps.durations_s, max(quiet_s, 1e-9))
        above = above + ripple(durations, np.vstack([extra, np.zeros_like(extra[:1])]), slow.k_per_s)
    at_hand = full_c - cell.capacity_c * sheet.dod - (1 - slow.c) * (gap + above / slow.c)
    empty = at_hand < 0
    if not empty.any():
        return None
    first = int(np.argmax(empty))
    if first == 0:
        return 0.0
    share = at_hand[first - 1] / (at_hand[first - 1] - at_hand[first])
    return float(sheet.dod[first - 1] + share * (sheet.dod[first] - sheet.dod[first - 1]))


def _mean_current(sheet: Sheet, age_s: Float) -> float:
    """Mean over the life; of the fresh cell where there is no life."""
    if age_s[-1] <= 0:
        return float(sheet.mean_a[0])
    return float(np.trapezoid(sheet.mean_a, age_s) / age_s[-1])


def _cause(cell: Cell, here: Bench, end: float, row: int | None) -> Cause:
    if row is None:
        return Cause.CHARGE
    if end <= 0:
        return Cause.NEVER_STARTS
    at_rest = np.linspace(0, 1, 2001)
    enough = cell.ocv.at(at_rest) >= here.supply.rail_cutoff_v
    reach = float(at_rest[enough].max(initial=0.0))
    return Cause.CHARGE if end >= USED_UP * reach else Cause.SAG


def _curves(sheet: Sheet, age_s: Float, end: float) -> Curves:
    keep = sheet.dod < end
    last = np.array([end])
    if end <= 0:
        keep, last = sheet.dod <= 0, np.empty(0)

    def cut(column: Float) -> Float:
        return np.concatenate([column[keep], np.interp(last, sheet.dod, column)])

    return Curves(
        age_s=cut(age_s),
        dod=np.concatenate([sheet.dod[keep], last]),
        rail_min_v=cut(sheet.low_v.min(axis=0)),
        rail_max_v=cut(sheet.high_v),
        mean_a=cut(sheet.mean_a),
    )


def _relied_on(cell: Cell, supply: Supply, cause: Cause) -> tuple[str, ...]:
    away = any(abs(celsius - cell.reference_c) > 1e-9 for celsius, _ in supply.climate)
    resistance = cell.resistance
    used = {
        "capacity": True,
        "ocv": True,
        "resistance": resistance is not None,
        "arrhenius": resistance is not None and resistance.arrhenius_k is not None and away,
        "slow": cell.slow is not None,
        "rate": cell.rate is not None,
        "loss": cell.loss_per_year is not None,
        "loss_doubling": cell.loss_doubling_k is not None and away,
        "shelf": cause is Cause.SHELF,
        "limits": cell.limits.continuous_a is not None or cell.limits.pulse_a is not None,
    }
    return tuple(name for name, yes in used.items() if yes)


def _caveats(here: Bench, sheet: Sheet, life: Life, unclipped_s: float) -> list[Caveat]:
    return [
        caveat
        for told in (
            _limits(here, sheet, life),
            _start(life),
            _shelf(here.cell, life, unclipped_s),
            _scales(here, sheet, life),
            _chemistry(here.cell, life),
            _assumed(here.cell, here.supply, life),
        )
        for caveat in told
    ]


def _limits(here: Bench, sheet: Sheet, life: Life) -> list[Caveat]:
    """Over the continuous limit the model does not hold; over the pulse limit it is doubted."""
    limits, told = here.cell.limits, []
    drain_a = sustained_a(sheet, here)
    if limits.continuous_a is not None and drain_a > limits.continuous_a * (1 + 1e-6):
        told.append(
            invalid(
                Code.BATTERY_REFUSED,
                f"The load draws {show(drain_a, 'A', 3)} over minutes; a {life.cell} is meant for "
                f"{show(limits.continuous_a, 'A', 3)} at most. Real cells fail far sooner than any model of them says "
                "there, so no life is given. Use a larger cell, or draw less.",
                continuous_a=drain_a,
                limit_a=limits.continuous_a,
            )
        )
    if limits.pulse_a is not None and life.peak_current_a > limits.pulse_a * (1 + 1e-6):
        told.append(
            doubt(
                Code.BATTERY_PULSE,
                f"The load draws pulses of {show(life.peak_current_a, 'A', 3)}; a {life.cell} is listed for "
                f"{show(limits.pulse_a, 'A', 3)}. Makers do not say what happens beyond; life may be shorter. Use a "
                "larger cell or a capacitor.",
                peak_a=life.peak_current_a,
                limit_a=limits.pulse_a,
            )
        )
    return told


def _start(life: Life) -> list[Caveat]:
    if life.cause is not Cause.NEVER_STARTS:
        return []
    return [
        doubt(
            Code.BATTERY_NEVER_STARTS,
            f"A fresh {life.cell} sags to {life.rail_fresh_v:.2f} V at {life.sag_label!r}, below the "
            f"{life.cutoff_v:.2f} V needed: the device does not run at all, though charge over mean current says "
            f"{show_duration(life.naive_life_s)}. Use a larger cell or a capacitor, or draw the pulse more slowly.",
            rail_v=life.rail_fresh_v,
            cutoff_v=life.cutoff_v,
        )
    ]


def _shelf(cell: Cell, life: Life, unclipped_s: float) -> list[Caveat]:
    told = []
    if life.cause is Cause.SHELF and life.life_s is not None:
        told.append(
            note(
                Code.BATTERY_SHELF,
                f"The charge would last {show_duration(unclipped_s)}; nobody vouches for a {life.cell} beyond "
                f"{show_duration(life.life_s)}, so the projection ends there.",
                unclipped_s=unclipped_s,
            )
        )
        if cell.shelf_s is None:
            told.append(
                note(
                    Code.BATTERY_ASSUMED,
                    f"The shelf life of a {life.cell} is not known; {show_duration(SHELF_S)} is assumed.",
                )
            )
    return told


def _scales(here: Bench, sheet: Sheet, life: Life) -> list[Caveat]:
    """Where a cycle is not short against the life, or the circuit's memory is not, the figure is coarse."""
    if life.cause is Cause.NEVER_STARTS:
        return []
    reasons = []
    if life.cycles is not None and life.cycles < FEW_CYCLES and len(here.cycle.durations_s) > 1:
        reasons.append(f"the life has only {life.cycles:.0f} cycles")
    if sheet.lag_s > SLOW_SHARE * life.model_life_s:
        reasons.append(f"the circuit takes {show_duration(sheet.lag_s)} to settle")
    for event in here.load.events:
        if life.model_life_s < FEW_EVENTS * event.every_s:
            reasons.append(f"{event.label} comes only {life.model_life_s / event.every_s:.0f} times")
        if event.every_s < 10 * max(sheet.lag_s, here.load.period_s):
            reasons.append(f"{event.label} is not rare against the cycle; write it into the cycle")
    if not reasons:
        return []
    return [
        doubt(
            Code.BATTERY_SEPARATION,
            f"The projection takes the cell as unchanged within a cycle, but {', and '.join(reasons)}. The life is "
            "coarse by about one cycle. Trust its order, not its digits.",
            reasons=reasons,
        )
    ]


def _chemistry(cell: Cell, life: Life) -> list[Caveat]:
    kind = cell.chemistry.lower().replace("-", "").replace("/", "")
    if "mno2" in kind and life.mean_current_a < PASSIVE_A:
        return [
            note(
                Code.BATTERY_PASSIVATION,
                f"At {show(life.mean_current_a, 'A', 3)} on average, resistance of Li/MnO2 cells is reported to grow "
                "over years, and is not in this model; what then fails first is the pulse. Test aged cells.",
            )
        ]
    if "socl2" in kind:
        return [
            note(
                Code.BATTERY_DELAY,
                "After storage, Li/SOCl2 cells dip at their first load (voltage delay), more when cold and with more "
                "current. That dip is not in this model. A capacitor at the rail carries the device over it.",
            )
        ]
    return []


def _assumed(cell: Cell, supply: Supply, life: Life) -> list[Caveat]:
    """What is not known of the cell, and how it was taken."""
    told = []
    if cell.loss_per_year is None:
        told.append(
            doubt(
                Code.BATTERY_ASSUMED,
                f"What a {life.cell} loses by itself is not known, so no loss is counted: the life is an upper bound, "
                "and the longer it is the further off.",
            )
        )
    if cell.resistance is None:
        told.append(
            doubt(
                Code.BATTERY_ASSUMED,
                f"The resistance of a {life.cell} is not known, so no sag is counted and a capacitor does nothing: the "
                "life is an upper bound.",
            )
        )
    if len(set(cell.ocv.y)) == 1:
        told.append(
            doubt(
                Code.BATTERY_ASSUMED,
                f"How the voltage of a {life.cell} falls with discharge is not known; {cell.ocv.y[0]:g} V is taken to "
                "the end, so that no brown-out is seen coming: the life is an upper bound.",
            )
        )
    drain_s = cell.capacity_c / life.mean_current_a
    if cell.slow is None and cell.rate is None and drain_s < RATE_S:
        told.append(
            doubt(
                Code.BATTERY_RATE,
                f"At {show(life.mean_current_a, 'A', 3)} on average a {life.cell} gives less than its rated charge; by "
                "how much is not known here, so the life is an upper bound.",
            )
        )
    far = [celsius for celsius, _ in supply.climate if abs(celsius - cell.reference_c) > 5]
    if far and cell.resistance is not None and cell.resistance.arrhenius_k is None:
        told.append(
            doubt(
                Code.BATTERY_ASSUMED,
                f"How the resistance of a {life.cell} changes with temperature is not known; it is taken as at "
                f"{cell.resistance.reference_c:g} C. In the cold it is several times higher, and life shorter.",
            )
        )
    elif far and cell.resistance is not None:
        told.append(
            note(
                Code.BATTERY_ASSUMED,
                f"Resistance against temperature follows an assumed law (B = {cell.resistance.arrhenius_k:.0f} K); "
                "the voltage at rest and the slow term are taken as at room temperature.",
            )
        )
    if cell.loss_per_year is None:
        told.append(note(Code.BATTERY_ASSUMED, f"The self-discharge of a {life.cell} is not known; none is counted."))
    return told
