"""Laws that hold for every cell and load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from battery_cells import OCV, YEAR_S
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemeter.battery import (
    Capacitor,
    Cell,
    Event,
    Kind,
    Knee,
    Load,
    Resistance,
    SlowTerm,
    Supply,
    project,
    steps,
)

# What quadrature and interpolation over some hundred depths leave.
HAIR = 2e-4

resistances = st.builds(
    Resistance,
    fresh_ohm=st.floats(1, 60),
    shape=st.builds(Knee, dk=st.floats(0.3, 0.95), w=st.floats(0.03, 0.2)),
    fast_share=st.sampled_from([0.0, 0.6, 1.5]),
    tau1_s=st.floats(0.01, 2.0),
)
cells = st.builds(
    Cell,
    name=st.just("made up"),
    chemistry=st.just("none"),
    capacity_c=st.floats(50, 5000),
    ocv=st.just(OCV),
    resistance=resistances,
    slow=st.one_of(st.none(), st.builds(SlowTerm, c=st.floats(0.1, 0.6), k_per_s=st.floats(1e-5, 1e-3))),
    loss_per_year=st.floats(0, 0.2),
)
pulses = st.lists(st.tuples(st.floats(1e-4, 40e-3), st.floats(1e-4, 0.05)), min_size=1, max_size=4)


@st.composite
def loads(draw: st.DrawFn, kinds: tuple[Kind, ...] = tuple(Kind)) -> Load:
    kind = draw(st.sampled_from(kinds))
    parts = draw(pulses)
    scaled = [({Kind.CURRENT: a, Kind.POWER: 2.8 * a, Kind.RESISTANCE: 2.8 / a}[kind], s) for a, s in parts]
    events: tuple[Event, ...] = ()
    if draw(st.booleans()):
        event = steps((draw(st.floats(1e-3, 40e-3)), draw(st.floats(1e-3, 0.5))))
        events = (Event(label="event", profile=event, every_s=draw(st.floats(60, 1e5))),)
    return Load(
        profile=steps(*scaled, kind=kind),
        rest_a=draw(st.floats(0, 1e-4)),
        every_s=draw(st.floats(0.25, 100.0)),
        events=events,
    )


capacitors = st.one_of(
    st.none(), st.builds(Capacitor, farad=st.floats(1e-6, 1e-2), leakage_ohm=st.sampled_from([None, 1e6, 1e8]))
)
supplies = st.builds(Supply, cutoff_v=st.floats(1.6, 2.6), capacitor=capacitors)
more = st.floats(1.001, 3.0)


def life_s(cell: Cell, load: Load, supply: Supply) -> float:
    return project(cell, load, supply).model_life_s


def no_longer(worse_s: float, better_s: float) -> None:
    assert worse_s <= better_s * (1 + HAIR)


@settings(max_examples=80, deadline=None)
@given(cell=cells, load=loads(), supply=supplies, factor=more)
def test_life_never_rises_with_load(cell: Cell, load: Load, supply: Supply, factor: float) -> None:
    heavier = 1 / factor if load.profile.kind is Kind.RESISTANCE else factor
    profile = replace(load.profile, values=load.profile.values * heavier)
    before_s = life_s(cell, load, supply)
    no_longer(life_s(cell, replace(load, profile=profile), supply), before_s)
    no_longer(life_s(cell, replace(load, rest_a=(load.rest_a or 0) * factor + 1e-9), supply), before_s)


@settings(max_examples=80, deadline=None)
@given(cell=cells, load=loads(), supply=supplies, factor=more)
def test_life_never_rises_with_cutoff_resistance_or_loss(cell: Cell, load: Load, supply: Supply, factor: float) -> None:
    before_s = life_s(cell, load, supply)
    no_longer(life_s(cell, load, replace(supply, cutoff_v=supply.cutoff_v * min(factor, 1.2))), before_s)
    no_longer(life_s(replace(cell, loss_per_year=(cell.loss_per_year or 0) * factor + 1e-3), load, supply), before_s)
    if load.profile.kind is Kind.CURRENT:
        # A resistive load draws less from a weaker cell, so this law is of currents.
        assert cell.resistance is not None
        weaker = replace(cell.resistance, fresh_ohm=cell.resistance.fresh_ohm * factor)
        bare = replace(supply, capacitor=supply.capacitor and replace(supply.capacitor, leakage_ohm=None))
        no_longer(life_s(replace(cell, resistance=weaker), load, bare), life_s(cell, load, bare))


@settings(max_examples=80, deadline=None)
@given(cell=cells, load=loads((Kind.CURRENT,)), supply=supplies, farad=st.floats(1e-7, 1e-2), factor=more)
def test_a_capacitor_without_leakage_never_shortens_life(
    cell: Cell, load: Load, supply: Supply, farad: float, factor: float
) -> None:
    bare, some, larger = (
        life_s(cell, load, replace(supply, capacitor=capacitor))
        for capacitor in (None, Capacitor(farad=farad), Capacitor(farad=farad * factor))
    )
    no_longer(bare, some)
    no_longer(some, larger)


@settings(max_examples=60, deadline=None)
@given(cell=cells, load=loads((Kind.CURRENT,)), supply=supplies, factor=more)
def test_a_cell_and_its_load_scale_together(cell: Cell, load: Load, supply: Supply, factor: float) -> None:
    """Charge, currents and capacitor times x with resistances over x: the same voltages, and the same life."""
    assert cell.resistance is not None
    resistance = replace(cell.resistance, fresh_ohm=cell.resistance.fresh_ohm / factor)
    larger = replace(cell, capacity_c=cell.capacity_c * factor, resistance=resistance)
    events = tuple(
        replace(event, profile=replace(event.profile, values=event.profile.values * factor)) for event in load.events
    )
    heavier = Load(
        profile=replace(load.profile, values=load.profile.values * factor),
        rest_a=(load.rest_a or 0) * factor,
        every_s=load.every_s,
        events=events,
    )
    capacitor = supply.capacitor
    if capacitor is not None:
        leakage_ohm = capacitor.leakage_ohm and capacitor.leakage_ohm / factor
        capacitor = replace(capacitor, farad=capacitor.farad * factor, leakage_ohm=leakage_ohm)
    alike = project(larger, heavier, replace(supply, capacitor=capacitor))
    before = project(cell, load, supply)
    assert alike.model_life_s == pytest.approx(before.model_life_s, rel=1e-6)
    assert alike.cause is before.cause
    # With the resistance left alone it sags more; only a leaking capacitor gains by that.
    kept = replace(larger, resistance=cell.resistance)
    if capacitor is None or capacitor.leakage_ohm is None:
        no_longer(life_s(kept, heavier, replace(supply, capacitor=capacitor)), before.model_life_s)


@settings(max_examples=150, deadline=None)
@given(
    ohm=st.floats(-3, 3),
    tau=st.floats(-4, 3),
    kind=st.sampled_from(Kind),
    amps=st.lists(st.tuples(st.floats(-9, 1), st.floats(-6, 4)), min_size=1, max_size=4),
    pause=st.floats(-9, 4),
    farad=st.one_of(st.none(), st.floats(-9, 3)),
    cutoff_v=st.floats(0.2, 3.1),
    celsius=st.floats(-50, 80),
)
def test_every_possible_case_has_an_answer(
    ohm: float,
    tau: float,
    kind: Kind,
    amps: list[tuple[float, float]],
    pause: float,
    farad: float | None,
    cutoff_v: float,
    celsius: float,
) -> None:
    """Twelve orders of magnitude in every figure: a finite life between zero and the shelf's, and no warning."""
    cell = Cell(
        name="made up",
        chemistry="none",
        capacity_c=800.0,
        ocv=OCV,
        resistance=Resistance(
            fresh_ohm=10**ohm, shape=Knee(dk=0.6, w=0.05), fast_share=0.6, tau1_s=10**tau, arrhenius_k=3650.0
        ),
        slow=SlowTerm(c=0.2, k_per_s=1e-4),
        loss_per_year=0.01,
    )
    parts = [(3 / 10**a if kind is Kind.RESISTANCE else 10**a, 10**s) for a, s in amps]
    profile = steps(*parts, kind=kind)
    load = Load(profile=profile, rest_a=1e-6, every_s=profile.duration_s * (1 + 10**pause))
    capacitor = None if farad is None else Capacitor(farad=10**farad)
    life = project(cell, load, Supply(cutoff_v=cutoff_v, capacitor=capacitor, temperature_c=celsius))
    assert 0 <= life.model_life_s <= 10 * YEAR_S * (1 + 1e-9)
    assert 0 <= life.dod_end <= 1
    assert life.rail_fresh_v <= 3.2 * (1 + 1e-9)
