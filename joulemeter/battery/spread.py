"""Life over a population of cells, and what dominates it.

The depth at which the rail gives way depends on resistance and capacitor only, not on how much a cell holds. It is
tabulated once over both; each of many thousand cells is then an interpolation and a division. All widths are
assumptions of this project (grade D), except those of the measurement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from joulemeter.battery.cell import KELVIN, YEAR_S, Cell, Float, known
from joulemeter.battery.life import SHELF_S, Cause, Life, ages, project, starving
from joulemeter.battery.load import Load
from joulemeter.battery.sheet import Bench, Sheet, bench, ripple
from joulemeter.battery.supply import Supply

DEPTHS: Final = 64
SCALES: Final = 33
CAPACITORS: Final = 3
CLOSER: Final = 9
STEP: Final = 1.1
STEP_K: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How cells of one kind differ, and how well the load is known.

    capacity_sd       relative standard deviation of the capacity within a brand
    ir_sigma          standard deviation of ln(resistance) within a brand
    loss_per_year     range of self-discharge, rectangular; None: half to twice the cell's own figure
    temperature_sd_k  standard deviation of the place's temperature, in K
    farad_share       range of what a capacitor has of its nominal value, rectangular
    rest_sd           relative standard uncertainty of the measured sleep current
    active_sd         the same of the active load
    """

    capacity_sd: float = 0.04
    ir_sigma: float = 0.25
    loss_per_year: tuple[float, float] | None = None
    temperature_sd_k: float = 0.0
    farad_share: tuple[float, float] = (0.8, 1.0)
    rest_sd: float = 0.0
    active_sd: float = 0.0

    def __post_init__(self) -> None:
        widths = (self.capacity_sd, self.ir_sigma, self.temperature_sd_k, self.rest_sd, self.active_sd)
        known(all(math.isfinite(width) and width >= 0 for width in widths), "A spread is below zero or no number.")
        low, high = self.farad_share
        known(0 < low <= high <= 2, "A capacitor's share of its value is a range above zero.")
        if self.loss_per_year is not None:
            known(0 <= self.loss_per_year[0] <= self.loss_per_year[1], "A self-discharge is a range from low to high.")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Population:
    """Lives of `lives_s` (n,) cells. `causes` are shares. The quantiles are None where the load is refused."""

    p5_s: float | None
    p50_s: float | None
    p95_s: float | None
    causes: Mapping[Cause, float]
    lives_s: Float
    nominal: tuple[Life, ...]


def population(
    cells: Sequence[tuple[Cell, float]] | Cell,
    load: Load,
    supply: Supply,
    spread: Spread | None = None,
    *,
    count: int = 10_000,
    seed: int = 0,
) -> Population:
    """Lives of `count` cells drawn from `cells`: one kind, or several with their shares where the brand is unknown.

    The draw is the same for the same `seed`. Refused where any of the kinds refuses the load.
    """
    known(count >= 100, f"{count} cells are too few for quantiles.")
    kinds = [(cells, 1.0)] if isinstance(cells, Cell) else list(cells)
    known(bool(kinds) and all(share > 0 for _, share in kinds), "A mixture needs cells with shares above zero.")
    spread = spread or Spread()
    nominal = tuple(project(cell, load, supply) for cell, _ in kinds)
    if any(life.life_s is None for life in nominal):
        return Population(
            p5_s=None, p50_s=None, p95_s=None, causes={Cause.REFUSED: 1.0}, lives_s=np.empty(0), nominal=nominal
        )
    rng = np.random.default_rng(seed)
    total = sum(share for _, share in kinds)
    edges = np.round(np.cumsum([0.0] + [share / total for _, share in kinds]) * count).astype(int)
    lives, causes = np.empty(count), np.empty(count, dtype=np.int64)
    order = list(Cause)
    for (cell, _), begin, end in zip(kinds, edges[:-1], edges[1:], strict=True):
        lives[begin:end], causes[begin:end] = _draw(cell, load, supply, spread, rng, int(end - begin), order)
    p5, p50, p95 = (float(value) for value in np.quantile(lives, (0.05, 0.5, 0.95)))
    shares = np.bincount(causes, minlength=len(order)) / count
    return Population(
        p5_s=p5,
        p50_s=p50,
        p95_s=p95,
        causes={cause: float(share) for cause, share in zip(order, shares, strict=True) if share > 0},
        lives_s=lives,
        nominal=nominal,
    )


def _draw(
    cell: Cell, load: Load, supply: Supply, spread: Spread, rng: np.random.Generator, count: int, order: list[Cause]
) -> tuple[Float, NDArray[np.int64]]:
    """Lives (count,) and what ended them, as places in `order`."""
    capacity = np.maximum(1 + spread.capacity_sd * rng.standard_normal(count), 0.2)
    warmer = spread.temperature_sd_k * rng.standard_normal(count)
    rest = np.maximum(1 + spread.rest_sd * rng.standard_normal(count), 0.0)
    active = np.maximum(1 + spread.active_sd * rng.standard_normal(count), 0.01)
    kelvin = sum(share * celsius for celsius, share in supply.climate) + KELVIN
    b = (cell.resistance.arrhenius_k or 0.0) if cell.resistance else 0.0
    # Sag is current times resistance: a higher pulse is a higher resistance.
    ir = np.exp(spread.ir_sigma * rng.standard_normal(count) + b * (1 / (kelvin + warmer) - 1 / kelvin)) * active
    own = cell.loss_per_year or 0.0
    low, high = spread.loss_per_year or (own / 2, own * 2)
    grown = np.exp2(warmer / cell.loss_doubling_k) if cell.loss_doubling_k else 1.0
    base = sum(share * float(cell.loss_per_s(celsius)) for celsius, share in supply.climate)
    loss = rng.uniform(low, high, count) * grown * (base / own if own else 1 / YEAR_S)
    farad = rng.uniform(*spread.farad_share, count)

    table = _table(cell, load, supply, ir, farad)
    end, rate = table.at(np.log(ir), farad)
    rate = rate * (table.rest_share * rest + (1 - table.rest_share) * active) / capacity
    cause = np.where(end >= 1 - 1e-9, order.index(Cause.CHARGE), order.index(Cause.SAG))
    cause[end >= table.used_up] = order.index(Cause.CHARGE)
    cause[end <= 0] = order.index(Cause.NEVER_STARTS)
    if table.slow is not None:
        starved = np.interp(np.log(rate), table.slow[0], table.slow[1])
        cause[starved < end] = order.index(Cause.SLOW)
        end = np.minimum(end, starved)
    lives = end / (rate + loss)
    shelf_s = cell.shelf_s or SHELF_S
    cause[lives > shelf_s] = order.index(Cause.SHELF)
    return np.minimum(lives, shelf_s), cause


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Table:
    """Depth at the end and mean share of the charge used per second until then, over (ln resistance, capacitor)."""

    log_ir: Float
    farad: Float
    end: Float
    rate: Float
    rest_share: float
    used_up: float
    slow: tuple[Float, Float] | None

    def at(self, log_ir: Float, farad: Float) -> tuple[Float, Float]:
        """Both, linear in between."""
        i, u = _place(self.log_ir, log_ir)
        j, w = _place(self.farad, farad)
        across = np.minimum(j + 1, len(self.farad) - 1)

        def between(rows: Float) -> Float:
            least = rows[i, j] + w * (rows[i, across] - rows[i, j])
            most = rows[i + 1, j] + w * (rows[i + 1, across] - rows[i + 1, j])
            value: Float = least + u * (most - least)
            return value

        return between(self.end), between(self.rate)


def _place(grid: Float, where: Float) -> tuple[NDArray[np.int64], Float]:
    """Which interval of an even grid, and how far into it; (0, 0) for a grid of one point."""
    if len(grid) == 1:
        return np.zeros(where.shape, np.int64), np.zeros(where.shape)
    place = np.clip((where - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1)
    left = np.minimum(place.astype(np.int64), len(grid) - 2)
    return left, place - left


def _table(cell: Cell, load: Load, supply: Supply, ir: Float, farad: Float) -> _Table:
    here = bench(cell, load, supply)
    logs = np.linspace(math.log(ir.min()) - 1e-3, math.log(ir.max()) + 1e-3, SCALES)
    shares = np.linspace(farad.min(), farad.max(), CAPACITORS) if supply.capacitor and np.ptp(farad) > 0 else farad[:1]
    cases = (len(logs), len(shares))

    def rows(dod: Float) -> tuple[Float, Float, Sheet]:
        """(rail above the level, mean current), each (resistance, capacitor, depth) as `dod`, and all of it."""
        sheet = here.sheet(
            dod.ravel(),
            ir_scale=np.broadcast_to(np.exp(logs)[:, None, None], dod.shape).ravel(),
            farad_scale=np.broadcast_to(shares[:, None], dod.shape).ravel(),
        )
        above = sheet.low_v.min(axis=0) - supply.rail_cutoff_v
        return above.reshape(dod.shape), sheet.mean_a.reshape(dod.shape), sheet

    grid = here.grid(DEPTHS)
    dod = np.broadcast_to(grid, (*cases, len(grid)))
    above, mean_a, sheet = rows(dod)
    slope = cell.charge_at(mean_a) / mean_a
    spans = np.diff(grid)
    age = np.concatenate([np.zeros((*cases, 1)), np.cumsum(spans * (slope[..., 1:] + slope[..., :-1]) / 2, -1)], -1)
    left, right = _bracket(dod, above)
    closer = left[..., None] + (right - left)[..., None] * np.linspace(0, 1, CLOSER)
    near, _, _ = rows(closer)
    left, right = _bracket(closer, near)
    low, high = (_picked(closer, near, edge) for edge in (left, right))
    end = left + np.clip(low / np.where(low > high, low - high, 1.0), 0.0, 1.0) * (right - left)
    end = np.where((above >= 0).all(-1), 1.0, np.where(above[..., 0] < 0, 0.0, end))
    until = np.array([[np.interp(end[i, j], grid, age[i, j]) for j in range(cases[1])] for i in range(cases[0])])
    rate = np.where(until > 0, end / np.where(until > 0, until, 1.0), 1 / slope[..., 0])
    resting = np.linspace(0, 1, 2001)
    reach = float(resting[cell.ocv.at(resting) >= supply.rail_cutoff_v].max(initial=0.0))
    return _Table(
        log_ir=logs,
        farad=shares,
        end=end,
        rate=rate,
        rest_share=_rest_share(load, sheet.cycle_a[:, 0], here.cycle.durations_s, float(sheet.mean_a[0])),
        used_up=0.98 * reach,
        slow=_slow(here, grid),
    )


def _bracket(dod: Float, above: Float) -> tuple[Float, Float]:
    """The depths around each row's first fall below zero; the last two where there is none."""
    dead = above < 0
    first = np.clip(np.where(dead.any(-1), dead.argmax(-1), dod.shape[-1] - 1), 1, None)[..., None]
    return np.take_along_axis(dod, first - 1, -1)[..., 0], np.take_along_axis(dod, first, -1)[..., 0]


def _picked(dod: Float, values: Float, where: Float) -> Float:
    """The value of each row at the one of its depths that is `where`."""
    place = np.argmin(np.abs(dod - where[..., None]), -1)[..., None]
    return np.take_along_axis(values, place, -1)[..., 0]


def _rest_share(load: Load, currents_a: Float, durations_s: Float, mean_a: float) -> float:
    """Share of the mean current that is drawn at rest."""
    if load.rest_s <= 0:
        return 0.0
    return float(currents_a[-1] * durations_s[-1] / durations_s.sum() / mean_a)


def _slow(here: Bench, grid: Float) -> tuple[Float, Float] | None:
    """(ln rate, depth) at which no charge is at hand, under a constant rate in shares of the charge per second.

    From full - (1 - c) ripple / c = x (t + (1 - c) (1 - exp(-k' t)) / (c k')), explicit in x for each time t. Currents
    that change with the voltage shift the depth; the shift is that of the cell as stated.
    """
    cell, slow = here.cell, here.cell.slow
    if slow is None:
        return None
    sheet = here.sheet(grid)
    above = float(ripple(here.cycle.durations_s, sheet.cycle_a[:, :1], slow.k_per_s)[0])
    full = slow.full_c(cell.capacity_c, cell.rated_a) - (1 - slow.c) / slow.c * above
    t = np.geomspace(1e-4, 1e8, 600) / slow.k_per_s
    x = max(full, 0.0) / cell.capacity_c / (t + (1 - slow.c) / (slow.c * slow.k_per_s) * -np.expm1(-slow.k_per_s * t))
    log_x, depth = np.log(np.maximum(x, 1e-300))[::-1], (x * t)[::-1]
    age = ages(cell, here.supply, sheet)
    stated = starving(here, sheet, age)
    simple = float(np.interp(np.log(1 / age[-1]), log_x, depth))
    shift = max(0.0, 1.0 - simple) if stated is None else stated - simple
    return log_x, depth + shift


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Life where one input is lower and higher than stated.

    `elasticity` is d ln(life) / d ln(input), None for temperature and where there is no life on one side.
    """

    name: str
    low: str
    high: str
    life_low_s: float
    life_high_s: float
    elasticity: float | None

    @property
    def swing_s(self) -> float:
        return abs(self.life_high_s - self.life_low_s)


def sensitivities(cell: Cell, load: Load, supply: Supply) -> tuple[Sensitivity, ...]:
    """What dominates: each input a tenth up and down (temperature 10 K), the largest swing first."""
    return tuple(sorted(_sensitivities(cell, load, supply), key=lambda one: -one.swing_s))


def _sensitivities(cell: Cell, load: Load, supply: Supply) -> Iterator[Sensitivity]:
    for name in ("sleep current", "active load", "period", "capacitor", "cut-off", "capacity", "resistance", "loss"):
        if _scaled(name, 1.0, cell, load, supply) is None:
            continue
        sides = [_scaled(name, factor, cell, load, supply) for factor in (1 / STEP, STEP)]
        low, high = (0.0 if side is None else project(*side).model_life_s for side in sides)
        ready = low > 0 and high > 0
        yield Sensitivity(
            name=name,
            low=f"/ {STEP}",
            high=f"x {STEP}",
            life_low_s=low,
            life_high_s=high,
            elasticity=math.log(high / low) / (2 * math.log(STEP)) if ready else None,
        )
    colder, warmer = (
        project(cell, load, replace(supply, temperature_c=tuple((t + shift, share) for t, share in supply.climate)))
        for shift in (-STEP_K, STEP_K)
    )
    yield Sensitivity(
        name="temperature",
        low=f"- {STEP_K:g} K",
        high=f"+ {STEP_K:g} K",
        life_low_s=colder.model_life_s,
        life_high_s=warmer.model_life_s,
        elasticity=None,
    )


def _scaled(name: str, factor: float, cell: Cell, load: Load, supply: Supply) -> tuple[Cell, Load, Supply] | None:
    """The case with one input multiplied; None where there is no such input, or it cannot be that much."""
    capacitor, resistance = supply.capacitor, cell.resistance
    if name == "sleep current" and load.rest_a:
        return cell, replace(load, rest_a=load.rest_a * factor), supply
    if name == "active load":
        shift = 1 / factor if load.profile.kind == "resistance" else factor
        return cell, replace(load, profile=replace(load.profile, values=load.profile.values * shift)), supply
    if name == "period" and load.every_s and load.every_s * factor >= load.profile.duration_s:
        return cell, replace(load, every_s=load.every_s * factor), supply
    if name == "capacitor" and capacitor is not None:
        return cell, load, replace(supply, capacitor=replace(capacitor, farad=capacitor.farad * factor))
    if name == "cut-off":
        return cell, load, replace(supply, cutoff_v=supply.cutoff_v * factor)
    if name == "capacity":
        return replace(cell, capacity_c=cell.capacity_c * factor), load, supply
    if name == "resistance" and resistance is not None:
        return replace(cell, resistance=replace(resistance, fresh_ohm=resistance.fresh_ohm * factor)), load, supply
    if name == "loss" and cell.loss_per_year:
        return replace(cell, loss_per_year=cell.loss_per_year * factor), load, supply
    return None
