"""Populations, sensitivities, what-ifs and balances, against the projection cell by cell and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from battery_cells import DAY_S, FAST, GOOD, MAH, POOR, YEAR_S, coin, ti_load

from joulemeter.battery import Capacitor, Cause, Event, Kind, Load, Supply, constant, project, steps
from joulemeter.battery.harvest import balance, energy_life_s
from joulemeter.battery.spread import Spread, population, sensitivities
from joulemeter.battery.whatif import (
    capacitor_by_charge,
    capacitor_for,
    largest_resistance,
    mean_current_for,
    period_for,
    periods,
    recharge_s,
    rest_for,
)
from joulemeter.errors import UsageError

AT_2V = Supply(cutoff_v=2.0)
NODE = Load(profile=steps((0.4e-3, 0.05, "inference")), rest_a=1e-6, every_s=1.0)
RADIO = replace(NODE, events=(Event(label="radio", profile=steps((10e-3, 3e-3)), every_s=10.0),))
STILL = Spread(capacity_sd=0, ir_sigma=0, loss_per_year=(0.01, 0.01), farad_share=(1.0, 1.0))


@pytest.mark.parametrize("load", [ti_load(30e-3), RADIO, constant(2e-3)], ids=["resistors", "events", "continuous"])
@pytest.mark.parametrize("farad", [None, 100e-6])
def test_a_population_without_spread_is_the_projection(load: Load, farad: float | None) -> None:
    supply = replace(AT_2V, capacitor=None if farad is None else Capacitor(farad=farad))
    lives = population(GOOD, load, supply, STILL, count=100)
    assert lives.p50_s == pytest.approx(project(GOOD, load, supply).model_life_s, rel=5e-4)
    assert lives.p5_s == lives.p95_s


def test_the_table_gives_what_cell_by_cell_projections_give() -> None:
    """The same spread drawn here anew, each cell projected in full."""
    spread = Spread(capacity_sd=0.05, ir_sigma=0.3, loss_per_year=(0.005, 0.02), farad_share=(0.5, 1.0), rest_sd=0.2)
    load = Load(profile=steps((15e-3, 5e-3, "transmit")), rest_a=20e-6, every_s=2.0)
    supply = Supply(cutoff_v=2.1, capacitor=Capacitor(farad=220e-6))
    quick = population(POOR, load, supply, spread, count=10_000)
    rng = np.random.default_rng(1)
    one_by_one = []
    for _ in range(500):
        cell = coin(
            220 * (1 + 0.05 * rng.standard_normal()),
            0.42,
            0.05,
            fresh_ohm=10 * math.exp(0.3 * rng.standard_normal()),
            loss_per_year=rng.uniform(0.005, 0.02),
        )
        drawn = replace(load, rest_a=20e-6 * (1 + 0.2 * rng.standard_normal()))
        capacitor = Capacitor(farad=220e-6 * rng.uniform(0.5, 1.0))
        one_by_one.append(project(cell, drawn, replace(supply, capacitor=capacitor), nodes=32).model_life_s)
    p5, p50, p95 = np.quantile(one_by_one, (0.05, 0.5, 0.95))
    # Quantiles of 500 cells scatter by a few per cent of the band's width.
    width = p95 - p5
    assert quick.p50_s == pytest.approx(p50, abs=0.08 * width)
    assert quick.p5_s == pytest.approx(p5, abs=0.12 * width)
    assert quick.p95_s == pytest.approx(p95, abs=0.12 * width)


def test_one_known_spread_comes_out_as_it_went_in() -> None:
    """Capacity alone, no loss: life is proportional to it, so its quantiles are the normal ones."""
    cell = replace(FAST, loss_per_year=0.0)
    lives = population(cell, constant(0.3e-3), AT_2V, replace(STILL, capacity_sd=0.05, loss_per_year=(0, 0)))
    assert lives.p50_s is not None
    assert lives.p5_s == pytest.approx(lives.p50_s * (1 - 1.645 * 0.05), rel=0.005)
    assert lives.p95_s == pytest.approx(lives.p50_s * (1 + 1.645 * 0.05), rel=0.005)


def test_an_unknown_brand_spans_a_factor_of_two() -> None:
    lives = population([(GOOD, 1), (POOR, 1)], ti_load(30e-3), AT_2V)
    assert lives.p5_s is not None
    assert lives.p95_s is not None
    assert 1.8 < lives.p95_s / lives.p5_s < 2.8
    assert lives.causes == {Cause.SAG: 1.0}
    again = population([(GOOD, 1), (POOR, 1)], ti_load(30e-3), AT_2V)
    assert np.array_equal(lives.lives_s, again.lives_s)


def test_causes_are_counted_and_shelf_life_clips_a_population() -> None:
    shelved = population(GOOD, constant(1e-6), AT_2V)
    assert shelved.causes == {Cause.SHELF: 1.0}
    assert shelved.p95_s == pytest.approx(10 * YEAR_S)
    starved = population(GOOD, constant(3e-3), AT_2V, count=1000)
    assert starved.causes == {Cause.SLOW: 1.0}
    # Some of the cells do not bear the pulse even when fresh.
    weak = Load(profile=steps((100e-3, 1e-3, "pulse")), rest_a=1e-6, every_s=100.0)
    some = population(GOOD, weak, AT_2V, Spread(ir_sigma=0.3))
    assert 0.05 < some.causes[Cause.NEVER_STARTS] < 0.95
    assert some.p5_s == 0


def test_a_refused_load_has_no_population() -> None:
    lives = population(GOOD, constant(13e-3), AT_2V)
    assert (lives.p5_s, lives.p50_s, lives.p95_s) == (None, None, None)
    assert lives.causes == {Cause.REFUSED: 1.0}


def test_sensitivities_know_what_dominates() -> None:
    by_name = {one.name: one for one in sensitivities(GOOD, NODE, AT_2V)}
    # 20.95 uA: 0.95 of them at rest, 20 active; a hundredth a year of loss.
    elasticity = by_name["capacity"].elasticity
    assert elasticity is not None
    assert 0.95 < elasticity < 1
    active, rest = by_name["active load"].elasticity, by_name["sleep current"].elasticity
    assert active is not None
    assert rest is not None
    assert active / rest == pytest.approx(20 / 0.95, rel=0.03)
    assert "capacitor" not in by_name
    saved = sensitivities(GOOD, ti_load(30e-3), replace(AT_2V, capacitor=Capacitor(farad=20e-6)))
    assert {"capacitor", "temperature", "cut-off"} <= {one.name for one in saved}
    assert [one.swing_s for one in saved] == sorted((one.swing_s for one in saved), reverse=True)


# What would have to change


def test_texas_instruments_appendix() -> None:
    """SWRA349, appendix A: 87 uF and 169 ms; 29.2 and 58.3 ohm at 0.8 of 30 and 15 mA."""
    pulses = [(8e-3, 2e-3), (30e-3, 1e-3), (8e-3, 2e-3)]
    farad = capacitor_by_charge(pulses, high_v=2.6, low_v=2.0, resistance_ohm=1000.0)
    assert round(farad * 1e6) == 87
    assert round(recharge_s(farad, 1000.0, source_v=2.7, low_v=2.0, high_v=2.6) * 1e3) == 169
    assert round(largest_resistance(2.7, 2.0, 0.8 * 30e-3), 1) == 29.2
    assert round(largest_resistance(2.7, 2.0, 0.8 * 15e-3), 1) == 58.3


@pytest.mark.parametrize(("years", "microamps"), [(0.25, 107), (1, 26.5), (2, 13.1), (5, 5.1), (10, 2.4)])
def test_e3_mean_current_that_a_coin_cell_allows(years: float, microamps: float) -> None:
    assert mean_current_for(GOOD, years * YEAR_S) * 1e6 == pytest.approx(microamps, rel=0.01)


def test_the_periods_table_and_the_period_that_meets_a_life() -> None:
    rows = periods(GOOD, Load(profile=steps((5e-3, 2.0, "inference")), rest_a=2e-6, every_s=60.0), AT_2V)
    assert [period_s for period_s, _ in rows] == [1, 10, 60, 3600]
    assert rows[0][1] is None
    lives = [life.model_life_s for _, life in rows[1:] if life is not None]
    assert lives == sorted(lives)
    needed_s = period_for(GOOD, NODE, AT_2V, 2 * YEAR_S)
    assert needed_s is not None
    met = project(GOOD, replace(NODE, every_s=needed_s), AT_2V)
    assert met.life_s == pytest.approx(2 * YEAR_S, rel=1e-3)
    # By averages alone: 20 uA s each period over 13.1 uA less 1 uA at rest.
    assert needed_s == pytest.approx(0.05 * 0.399e-3 / (13.1e-6 - 1e-6), rel=0.01)
    assert period_for(GOOD, NODE, AT_2V, 11 * YEAR_S) is None
    with pytest.raises(UsageError, match="no period"):
        period_for(GOOD, constant(1e-3), AT_2V, YEAR_S)


def test_sleep_current_and_capacitor_that_meet_a_life() -> None:
    rest_a = rest_for(GOOD, NODE, AT_2V, 300 * DAY_S)
    assert rest_a is not None
    assert project(GOOD, replace(NODE, rest_a=rest_a), AT_2V).life_s == pytest.approx(300 * DAY_S, rel=1e-3)
    assert rest_for(GOOD, NODE, AT_2V, 5 * YEAR_S) is None
    wlan = Load(profile=steps((120e-3, 0.01, "upload")), rest_a=10e-6, every_s=60.0)
    supply = Supply(cutoff_v=2.3)
    saves = capacitor_for(FAST, wlan, supply, 100 * DAY_S)
    assert saves is not None
    life = project(FAST, wlan, replace(supply, capacitor=Capacitor(farad=saves)))
    assert life.life_s == pytest.approx(100 * DAY_S, rel=0.01)
    best = capacitor_for(FAST, wlan, supply)
    assert best is not None
    assert best > saves
    assert capacitor_for(FAST, NODE, AT_2V) is None
    assert capacitor_for(FAST, wlan, supply, 5 * YEAR_S) is None


# Balances


@pytest.mark.parametrize(
    ("watt_hours", "loss", "days", "behind_converter"),
    [(0.68, 0.01, 28, 24), (2.90, 0.01, 120, 102), (9.36, 0.01, 386, 329), (12.2, 0.24, 382, 337), (2.4, 0.15, 96, 82)],
    ids=["CR2032", "CR2477", "AA Li-SOCl2", "18650", "AA NiMH"],
)
def test_e12_a_milliwatt_for_a_year(watt_hours: float, loss: float, days: float, behind_converter: float) -> None:
    plain_s, converted_s = (
        energy_life_s(watt_hours * 3600, 1e-3, efficiency=efficiency, loss_per_year=loss) for efficiency in (1, 0.85)
    )
    assert plain_s / DAY_S == pytest.approx(days, abs=1)
    assert converted_s / DAY_S == pytest.approx(behind_converter, abs=1)


def test_harvest_sustains_or_stretches() -> None:
    without = project(GOOD, NODE, AT_2V)
    nothing = balance(GOOD, NODE, AT_2V, harvested_w=0.0, efficiency=1.0)
    assert not nothing.sustained
    assert nothing.life_s == pytest.approx(without.model_life_s, rel=2e-3)
    half = balance(GOOD, NODE, AT_2V, harvested_w=nothing.load_w, efficiency=0.5)
    assert half.life_s == pytest.approx(2 * without.model_life_s, rel=2e-3)
    enough = balance(GOOD, NODE, AT_2V, harvested_w=1.3 * nothing.load_w, efficiency=0.8)
    assert enough.sustained
    assert enough.life_s == pytest.approx(10 * YEAR_S)
    assert enough.autonomy_s == pytest.approx(without.model_life_s)
    assert not enough.storable
    assert balance(replace(GOOD, rechargeable=True), NODE, AT_2V, harvested_w=1e-3, efficiency=0.8).storable
    # A harvest does not help over a pulse that the cell cannot give.
    wlan = Load(profile=steps((120e-3, 0.01)), rest_a=10e-6, every_s=60.0)
    dead = balance(FAST, wlan, Supply(cutoff_v=2.3), harvested_w=1.0, efficiency=1.0)
    assert (dead.sustained, dead.life_s, dead.autonomy_s) == (False, None, None)


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: Spread(capacity_sd=-0.1), "spread is below zero"),
        (lambda: population(GOOD, NODE, AT_2V, count=5), "too few"),
        (lambda: population([], NODE, AT_2V), "mixture needs cells"),
        (lambda: balance(GOOD, NODE, AT_2V, harvested_w=-1.0, efficiency=1.0), "harvest of -1.0 W"),
        (lambda: balance(GOOD, NODE, AT_2V, harvested_w=1.0, efficiency=0.0), "efficiency of 0.0"),
        (lambda: energy_life_s(0.0, 1.0), "energy of 0.0 J"),
        (lambda: mean_current_for(GOOD, 200 * YEAR_S), "Self-discharge alone"),
        (lambda: period_for(GOOD, NODE, AT_2V, -1.0), "cannot be wanted"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(ask: Callable[[], object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ask()


def test_charge_and_energy_routes_agree() -> None:
    """1 mW at about 3 V on a coin cell: 29.3 days by charge, 28 by the energy at 2.9 V."""
    life = project(FAST, constant(1e-3, kind=Kind.POWER), AT_2V)
    assert life.model_life_s / DAY_S == pytest.approx(235 * MAH * 2.9 / 1e-3 / DAY_S, rel=0.03)
