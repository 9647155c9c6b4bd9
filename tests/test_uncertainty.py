"""The budget against figures worked by hand, the GUM's own example, and closed forms."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from helpers import CURRENT, header, recording, stream

from joulemeter.capture import Accuracy, Basis, Channel, Distribution, Header, Kind, Limit, Quantity, Voltage
from joulemeter.physics.analyze import analyze
from joulemeter.physics.combine import combine, compare_same_meter, coverage_factor, effective_dof, evaluate, t95
from joulemeter.physics.placement import Edges, edge_loss_j, motion
from joulemeter.physics.stats import Spread, summarise
from joulemeter.physics.uncertainty import Conditions, at_one_volt, budget, mean_power
from joulemeter.result import Term
from joulemeter.synthetic import parse_load
from joulemeter.window import Window, WindowEnergy

ROOT = Path(__file__).parent.parent
RATE = 100_000.0


def spread_of(median: float, stdev: float, count: int) -> Spread:
    return Spread(
        count=count, median=median, mean=median, stdev=stdev, min=median, max=median, p5=None, p95=None, p99=None,
        ci95=None, ci95_method=None, u_median=1.2533 * stdev / math.sqrt(count), dof=count - 1.0,
    )  # fmt: skip


def window(
    energy: dict[int | None, float], dwell: dict[int | None, float], *, volts: float = 3.0, index: int = 0,
    u_edge_s: float = 0.0, edge_w: float = 0.0, start_s: float = 0.0,
) -> WindowEnergy:  # fmt: skip
    energy_j, span_s = sum(energy.values()), sum(dwell.values())
    start_ns = round(start_s * 1e9)
    return WindowEnergy(
        window=Window(start_ns=start_ns, stop_ns=start_ns + round(span_s * 1e9), index=index, u_edge_s=u_edge_s),
        energy_j=energy_j, charge_c=energy_j / volts, mean_power_w=energy_j / span_s, peak_power_w=edge_w,
        samples=span_s * RATE, edge_power_w=edge_w, energy_by_range_j=energy, dwell_by_range_s=dwell,
    )  # fmt: skip


def meter(*rows: Accuracy, voltage: Voltage | None = None, more: tuple[Channel, ...] = ()) -> Header:
    return replace(header(RATE), channels=(replace(CURRENT, accuracy=rows), *more), voltage=voltage)


def row(key: int | None, gain: float, offset: float, distribution: Distribution = Distribution.NORMAL) -> Accuracy:
    limit = Limit(value=gain, distribution=distribution)
    return Accuracy(range=key, gain=limit, offset=Limit(value=offset), source="by hand", verified=True)


def by_name(terms: tuple[Term, ...]) -> dict[str, float]:
    return {term.term: term.contribution_j for term in terms}


def coverage() -> ModuleType:
    """The study, loaded from where its command lies."""
    folder = ROOT / "results" / "measured"
    sys.path.insert(0, str(folder))
    try:
        spec = importlib.util.spec_from_file_location("coverage_study", folder / "coverage.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["coverage_study"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


# -- the example in the docs -----------------------------------------------------------------------------

STATED = Voltage(volts=3.0, basis=Basis.SET, limit=Limit(value=0.05))


def test_the_example_of_the_docs_is_what_the_code_says() -> None:
    text = (ROOT / "docs" / "uncertainty.md").read_text(encoding="utf-8")
    example = text[text.index("## An example") :]
    lines = re.findall(r"^\| ([a-z ]+) \| [AB][^|]*\|[^|]*\|[^|]*\| ([\d.]+) \|$", example, re.MULTILINE)
    printed = {name: float(figure) * 1e-6 for name, figure in lines}
    used = [window({None: 480e-6}, {None: 20e-3}, u_edge_s=10e-6 / math.sqrt(12), edge_w=24e-3) for _ in range(25)]
    terms = budget(used, meter(row(None, 0.01, 10e-6), voltage=STATED), spread_of(480e-6, 4e-6, 25))
    assert by_name(terms) == pytest.approx(printed, abs=0.5e-9)
    assert len(printed) == 6
    found = combine(480e-6, terms)
    bold = [float(figure) for figure in re.findall(r"\*\*([\d.]+)(?: µJ)?\*\*", example)]
    assert [
        round(found.u_systematic * 1e6, 3), round(found.u_combined * 1e6, 3), round(found.expanded_k2 * 1e6, 2),
        round(found.k95, 2),
    ] == bold  # fmt: skip
    assert found.dof_effective == pytest.approx(49000, rel=0.02)
    assert f"{found.k95 * found.u_combined * 1e6:.1f}" in example


# -- combination -----------------------------------------------------------------------------


def test_degrees_of_freedom_are_those_of_the_gums_own_example() -> None:
    """JCGM 100, H.1: end gauge, 25 nm (18), 9.7 nm (25.6), 2.9 nm (50), 16.6 nm (2) give 16.7."""
    parts = [(25.0, 18.0), (9.7, 25.6), (2.9, 50.0), (16.6, 2.0)]
    assert effective_dof(parts) == pytest.approx(16.7, abs=0.1)
    assert effective_dof([(1.0, None), (2.0, None)]) is None


def test_students_t() -> None:
    """JCGM 100, table G.2, 95 %."""
    known = {1: 12.71, 2: 4.30, 5: 2.57, 11: 2.20, 14: 2.14, 18: 2.10, 25: 2.06, 45: 2.01, 100: 1.984}
    assert {dof: t95(dof) for dof in known} == pytest.approx(known, abs=0.006)
    assert t95(None) == pytest.approx(1.96, abs=1e-4)
    assert t95(0.4) == t95(1)


def test_the_factor_follows_the_shape() -> None:
    assert coverage_factor(1.0, []) == pytest.approx(1.96, abs=1e-3)
    assert coverage_factor(0.0, [1.0]) == pytest.approx(0.95 * math.sqrt(3), abs=1e-3)
    assert coverage_factor(0.0, [2.0, 2.0]) == pytest.approx((1 - math.sqrt(0.05)) * math.sqrt(6), abs=1e-3)
    rng = np.random.default_rng(5)
    drawn = 0.4 * rng.standard_normal(400_000) + rng.uniform(-1, 1, 400_000) + rng.uniform(-0.5, 0.5, 400_000)
    quantile = float(np.quantile(np.abs(drawn), 0.95)) / math.sqrt(0.16 + 1 / 3 + 0.25 / 3)
    assert coverage_factor(0.4, [1.0, 0.5]) == pytest.approx(quantile, abs=0.005)


def test_few_degrees_of_freedom_widen_the_interval() -> None:
    used = [window({None: 1e-3}, {None: 1e-2})] * 3
    exact = meter(row(None, 0.0, 0.0))
    found = combine(1e-3, budget(used, exact, spread_of(1e-3, 1e-4, 3)))
    assert found.k95 == pytest.approx(4.303, abs=0.01)
    assert found.dof_effective == pytest.approx(2, rel=0.01)


# -- terms -----------------------------------------------------------------------------

TWO_RANGES = (row(0, 0.10, 1e-6), row(1, 0.02, 1e-3))


def test_gains_of_ranges_add_and_offsets_go_with_the_time_there() -> None:
    used = [window({0: 1e-3, 1: 4e-3}, {0: 0.3, 1: 0.1})]
    terms = by_name(budget(used, meter(*TWO_RANGES, voltage=STATED), summarise([5e-3])))
    assert terms["gain"] == pytest.approx(0.10 * 1e-3 + 0.02 * 4e-3)
    assert terms["offset, range 0"] == pytest.approx(1e-6 / math.sqrt(3) * 3.0 * 0.3)
    assert terms["offset, range 1"] == pytest.approx(1e-3 / math.sqrt(3) * 3.0 * 0.1)
    assert "repeatability" not in terms


def test_a_range_without_a_row_gets_the_widest() -> None:
    terms = by_name(budget([window({7: 1e-3}, {7: 0.3})], meter(*TWO_RANGES), summarise([1e-3])))
    assert terms["gain"] == pytest.approx(1e-4)


def test_net_energy_loses_the_offset_of_a_shared_range_only() -> None:
    used = [window({1: 5e-3}, {1: 0.1})]
    near, far = [window({1: 2e-3}, {1: 0.2})], [window({0: 2e-3}, {0: 0.2})]
    one = meter(*TWO_RANGES)
    same = by_name(budget(used, one, summarise([4e-3]), idle=near))
    assert same["offset, range 1"] == pytest.approx(0.0, abs=1e-15)
    assert same["gain"] == pytest.approx(0.02 * 4e-3)
    other = by_name(budget(used, one, summarise([4e-3]), idle=far))
    assert other["offset, range 1"] == pytest.approx(1e-3 / math.sqrt(3) * 3.0 * 0.1)
    assert other["offset, range 0"] == pytest.approx(1e-6 / math.sqrt(3) * 3.0 * 0.1)
    assert other["gain"] == pytest.approx(abs(0.02 * 5e-3 - 0.10 * 1e-3))


def test_a_measured_voltage_has_its_own_gain_and_offset() -> None:
    volts = Channel(
        name="voltage", quantity=Quantity.VOLTAGE, unit="V", kind=Kind.MEAN,
        accuracy=(row(None, 0.005, 0.03, Distribution.RECTANGULAR),),
    )  # fmt: skip
    terms = by_name(
        budget([window({None: 6e-3}, {None: 0.1})], meter(row(None, 0.01, 1e-6), more=(volts,)), summarise([6e-3]))
    )
    assert terms["gain"] == pytest.approx(6e-5)
    assert terms["voltage gain"] == pytest.approx(0.005 / math.sqrt(3) * 6e-3)
    assert terms["voltage offset"] == pytest.approx(0.03 / math.sqrt(3) * 2e-3)
    assert "voltage" not in terms


def test_temperature_age_steps_and_capacitors() -> None:
    used = [window({None: 6e-3}, {None: 0.1}, edge_w=0.06)]
    plain = by_name(budget(used, meter(row(None, 0.01, 1e-6)), summarise([6e-3])))
    hot = Conditions(ambient_c=38.0, calibrated_years_ago=2.0)
    assert hot.widening == pytest.approx(2.5 * 1.2)
    wide = by_name(budget(used, meter(row(None, 0.01, 1e-6)), summarise([6e-3]), conditions=hot))
    assert {name: wide[name] / plain[name] for name in ("gain", "offset", "sample clock")} == pytest.approx(
        {"gain": 3.0, "offset": 3.0, "sample clock": 1.0}
    )
    assert Conditions(ambient_c=20.0, calibrated_years_ago=0.5).widening == 1.0
    board = Conditions(resolution={"current": 1e-4}, decoupling_f=10e-6, source_ohm=10.0)
    more = by_name(budget(used, meter(row(None, 0.01, 1e-6)), summarise([6e-3]), conditions=board))
    assert more["resolution"] == pytest.approx(0.5e-4 / math.sqrt(3) * 3.0 * 0.1)
    assert more["decoupling"] == pytest.approx(0.06 * 100e-6 / math.sqrt(3))


def test_power_and_charge_drop_what_does_not_touch_them() -> None:
    used = [window({None: 6e-3}, {None: 0.1}, u_edge_s=1e-3, edge_w=0.06)]
    one = meter(row(None, 0.01, 1e-6), voltage=STATED)
    energy = budget(used, one, summarise([6e-3]))
    power = by_name(mean_power(energy, used))
    assert power["gain"] == pytest.approx(0.01 * 0.06)
    assert power["sample clock"] == 0
    assert power["window edges"] == pytest.approx(0.0, abs=1e-12)  # a rectangular pulse has its mean power at the edge
    charge = by_name(budget(*at_one_volt(used, one), summarise([2e-3])))
    assert charge["gain"] == pytest.approx(0.01 * 2e-3)
    assert charge["offset"] == pytest.approx(1e-6 / math.sqrt(3) * 0.1)
    assert charge["window edges"] == pytest.approx(math.sqrt(2) * 0.02 * 1e-3)
    assert "voltage" not in charge


def test_one_meter_against_itself_forgets_gain_or_offset() -> None:
    one = meter(row(None, 0.10, 1e-4), voltage=STATED)
    results = [(e, budget([window({None: e}, {None: 0.1})] * 9, one, spread_of(e, 1e-5, 9))) for e in (6e-3, 9e-3)]
    (a, a_terms), (b, b_terms) = results
    found = compare_same_meter(a, a_terms, b, b_terms)
    assert set(found.cancelled_in_ratio) == {"gain", "voltage", "sample clock"}
    assert found.cancelled_in_difference == ("offset",)
    u_scatter = 1.2533 * 1e-5 / 3
    offset = 1e-4 / math.sqrt(3) * 3.0 * 0.1
    relative = math.hypot(u_scatter / a, u_scatter / b, offset * (1 / a - 1 / b))
    assert found.u_ratio / found.ratio == pytest.approx(relative)
    shared = math.hypot(0.10, 0.05 / math.sqrt(3) / 3.0, 50e-6 / math.sqrt(3)) * 3e-3
    assert found.u_difference == pytest.approx(math.hypot(u_scatter, u_scatter, shared))
    assert found.ratio == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="ratio to zero"):
        compare_same_meter(a, a_terms, 0.0, b_terms)


# -- edges -----------------------------------------------------------------------------


def placed(starts_s: list[float]) -> list[WindowEnergy]:
    return [
        window({None: 1e-3}, {None: 1e-3}, start_s=start, index=k, u_edge_s=1 / RATE / math.sqrt(12), edge_w=1.0)
        for k, start in enumerate(starts_s)
    ]


def test_edges_repeat_where_trigger_and_clock_are_locked() -> None:
    one = meter(row(None, 0.01, 1e-6))
    locked = placed([0.002 * k for k in range(20)])
    free = placed([round(0.0020043 * k * RATE) / RATE for k in range(20)])
    stamps = placed([0.0020043 * k for k in range(20)])
    assert motion(locked, one) is Edges.COMMON
    assert motion(free, one) is motion(stamps, one) is Edges.INDEPENDENT
    assert motion(free[:5], one) is Edges.COMMON
    spread = spread_of(1e-3, 1e-5, 20)
    assert "window edges" in by_name(evaluate(locked, one, spread, outside_w=0.0).terms)
    assert "window edges" not in by_name(evaluate(free, one, spread, outside_w=0.0).terms)
    assert "window edges" in by_name(evaluate(free, one, spread, outside_w=0.0, grade="host-marker").terms)
    assert "window edges" in by_name(evaluate(free, one, summarise([1e-3]), outside_w=0.0).terms)


def test_moving_edges_lose_what_the_closed_form_says() -> None:
    """A line read once per sample loses a quarter of a sample's step; the mean of many pulses shows it."""
    load = parse_load("1mA/1.00037ms,9mA/0.20013ms/d0,1mA/1.0021ms")
    count = 400_000
    made = stream(load.mean_current_a(0, count, RATE), load.lines(0, count, RATE), RATE)
    analysis = analyze(recording(made))
    used = [one for one, good in zip(analysis.windows, analysis.used, strict=True) if good]
    truth_j = 3.0 * 9e-3 * 0.20013e-3
    mean_j = math.fsum(one.energy_j or math.nan for one in used) / len(used)
    step_j = 3.0 * 8e-3 / RATE
    assert (truth_j - mean_j) / step_j == pytest.approx(0.25, abs=0.03)
    lost_j = edge_loss_j(used, made.header, 3e-3, edges=motion(used, made.header))
    assert lost_j == pytest.approx(0.25 * step_j, rel=0.02)


def test_one_draw_of_phases_scatters_as_stated() -> None:
    """Edges and readings at random phases, drawn here sample by sample, on a step from 2 W to 9 W and back."""
    rng = np.random.default_rng(3)
    late = rng.uniform(-0.5, 0.5, (2, 200_000))
    start = -9.0 * np.maximum(late[0], 0) + 2.0 * np.maximum(-late[0], 0)
    stop = 2.0 * np.maximum(late[1], 0) - 9.0 * np.maximum(-late[1], 0)
    one = placed([0.0])[0]
    used = [replace(one, edge_power_w=9.0, window=replace(one.window, u_edge_s=1 / math.sqrt(12)))]
    plain = meter(row(None, 0.01, 1e-6))
    terms = by_name(budget(used, plain, summarise([1e-3]), outside_w=2.0))
    assert terms["window edges"] == pytest.approx(float(np.std(start + stop)), rel=0.01)
    assert edge_loss_j(used, plain, 2.0) == pytest.approx(-float(np.mean(start + stop)), rel=0.01)
    assert edge_loss_j(used, plain, 2.0, edges=Edges.SHIFTED) == 0
    phase = rng.uniform(0, 1, (2, 200_000))
    for kind, lost in ((Kind.MEAN, phase * (1 - phase)), (Kind.INSTANT, (1 - phase) ** 2 / 2)):
        slow = replace(plain, channels=(replace(CURRENT, kind=kind),))
        read = [replace(used[0], resolution_j=7.0, window=replace(one.window, u_edge_s=0.0))]
        terms = by_name(budget(read, slow, summarise([1e-3]), outside_w=2.0))
        assert terms["refresh"] == pytest.approx(7.0 * float(np.std(lost.sum(axis=0))), rel=0.01)
        assert edge_loss_j(read, slow, 2.0) == pytest.approx(7.0 * float(np.mean(lost.sum(axis=0))), rel=0.01)
        bound = by_name(budget(read, slow, summarise([1e-3])))
        assert bound["refresh"] == pytest.approx(7.0 / math.sqrt(3))


# -- coverage -----------------------------------------------------------------------------


@pytest.mark.parametrize(("which", "short"), [(1, True), (4, False)])
def test_the_interval_covers_the_truth(which: int, short: bool) -> None:
    """A short run of results/measured/coverage.py; the seed makes it the same every time."""
    study = coverage()
    cell = study.study(study.METERS[which], np.random.default_rng(7), 200, short=short, amperes=True)
    assert 0.90 <= cell.covered <= 0.99
