"""Results beside each other and beside published rows: choice, ratios, ranks, doubts, and what every face shows."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemeter import literature
from joulemeter.capture import Basis
from joulemeter.caveat import Code, doubt, note
from joulemeter.cli import common, comparetext, inert
from joulemeter.cli import compare as command
from joulemeter.comparison import Entry, Group, Origin, Table, choose, compare, of_result, of_row, words, work
from joulemeter.comparison.amounts import (
    ABOVE_IDLE,
    EDP,
    ENERGY,
    LATENCY,
    LIFE,
    MEAN_POWER,
    NET,
    PER_JOULE,
    PER_SECOND,
    POWER,
    TOTAL,
    Amount,
    Rests,
    named,
)
from joulemeter.comparison.doubts import Doubt
from joulemeter.comparison.pair import Ground, Pairs
from joulemeter.errors import UsageError
from joulemeter.literature import Row
from joulemeter.physics.rules import Measured
from joulemeter.physics.stats import summarise
from joulemeter.physics.summary import of
from joulemeter.profile import Scope
from joulemeter.report import compareplot
from joulemeter.report.comparehtml import render as page
from joulemeter.result import Power, Result, Summary, Term, Windows

ROOT = Path(__file__).parent.parent
JOULEMETER = [sys.executable, "-m", "joulemeter"]
RECORDINGS = ROOT.parent / "shared" / "data" / "mlperf_tiny"
METER = {"key": "test", "model": "test meter", "serial": "1", "voltage_basis": "set", "voltage_v": 3.0}
GAIN = 0.1


# -- made by hand ------------------------------------------------------------------------------------------------------


def amounts_j(level: float, *, noise: float = 0.001, n: int = 12) -> list[float]:
    """Energies of windows whose median is `level`, alternating about it."""
    return [level * (1 + noise * math.sin(7 * k + 1)) for k in range(n)]


def result(level: float = 2e-3, *, gain: float | None = GAIN, noise: float = 0.001, **changed: Any) -> Result:
    """What the analysis makes of such windows on a meter of that gain; None states no accuracy."""
    values = amounts_j(level, noise=noise)
    spread = summarise(values)
    terms = [
        Term(
            term="repeatability", type="A", distribution="normal", value=spread.stdev or 0.0, unit="J", sensitivity=1.0,
            contribution_j=spread.u_median or 0.0, random=True, source="", dof=spread.dof,
        )
    ]  # fmt: skip
    energy = of(spread, Basis.MEASURED, None)
    if gain is not None:
        terms.append(
            Term(
                term="gain", type="B", distribution="normal", value=gain, unit="1", sensitivity=spread.median,
                contribution_j=gain * spread.median, random=False, source="table",
            )
        )  # fmt: skip
        half = 1.96 * gain * spread.median
        energy = replace(energy, ci95_total=(spread.median - half, spread.median + half))
    made = Result(
        name="board",
        created="2026-11-20T10:00:00+00:00",
        simulated=False,
        device={"name": "a board", "class": "mcu"},
        workload={"model": "ic", "runtime": "TFLM", "precision": "int8", "batch": 1},
        instrument=METER,
        windows=Windows(found=12, used=12),
        energy_per_inference_j=energy,
        latency_s=Summary(median=0.1, ci95=(0.099, 0.101), basis=Basis.MEASURED),
        power_w=Power(mean=5e-3, inference=level / 0.1, basis=Basis.MEASURED),
        uncertainty=tuple(terms),
    )
    return replace(made, **changed)


def entry(level: float = 2e-3, *, source: str = "run", noise: float = 0.001, **changed: Any) -> Entry:
    about = {name: changed.pop(name) for name in ("model", "scope", "one_meter", "life") if name in changed}
    made = result(level, noise=noise, **changed)
    return of_result(Measured(result=made, windows_j=amounts_j(level, noise=noise)), source, **about)


def published(name: str = "a", energy_j: float | None = 1e-3, latency_s: float | None = 0.1, **changed: Any) -> Row:
    given: dict[str, Any] = {
        "name": f"inference_energy/{name}", "table": "inference_energy", "device": name, "device_class": "mcu",
        "model": "ic", "source": "a paper", "grade": "vendor", "basis": Basis.PUBLISHED, "per": "inference",
        "batch": 1, "energy_j": energy_j, "latency_s": latency_s,
    } | changed  # fmt: skip
    return Row(**given)


def rows_of(*energies: float) -> list[Entry]:
    return [of_row(published(f"board {at}", energy)) for at, energy in enumerate(energies)]


def only(table: Table) -> Group:
    assert len(table.groups) == 1
    return table.groups[0]


def ranks(group: Group) -> dict[str, tuple[int, int] | None]:
    found = {one.entry.name: one.rank for one in group.placed}
    return {name: None if rank is None else (rank.first, rank.last) for name, rank in found.items()}


def codes(group: Group) -> list[Doubt]:
    return [one.code for one in group.doubts]


# -- what was inferred -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "sha256", "key"),
    [
        ("ic", None, "mlperf-tiny:ic"),
        ("ResNet8", None, "mlperf-tiny:ic"),
        ("kws01", None, "mlperf-tiny:kws"),
        ("models/pretrainedResnet_quant.tflite", None, "mlperf-tiny:ic"),
        # The int8 file of github.com/mlcommons/tiny, under any name.
        ("x.tflite", "3c002613d1b2475eb51dd78dfb85a546c8ae658dee71cf6ade43b022fe205415", "mlperf-tiny:ic"),
        ("Conv3Dense1", None, "conv3dense1"),
        ("my network", None, "mynetwork"),
        (None, None, None),
        ("", None, None),
        ("!", None, None),
    ],
)
def test_a_model_is_known_by_any_of_its_names(model: str | None, sha256: str | None, key: str | None) -> None:
    found = work.of_model(model, sha256)
    assert (found and found.key) == key


def test_published_rows_and_results_meet_in_one_work() -> None:
    mobilenet = next(row for row in literature.rows() if row.table == "zhaw_latency" and row.model == "MobileNet")
    known = work.of_workload({"model": "mobilenet-cifar10"})
    assert known is not None
    assert work.of_row(mobilenet).key == known.key
    # An open network of a benchmark has the task of the benchmark.
    open_row = next(row for row in literature.rows() if row.model == "RN07")
    assert work.of_row(open_row).key == "mlperf-tiny:ic"


# -- which rows --------------------------------------------------------------------------------------------------------


def tiny_lines() -> list[dict[str, str]]:
    with (ROOT / "results" / "published" / "mlperf_tiny.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("benchmark", ["ad", "ic", "kws", "vww", "sww"])
def test_a_benchmark_is_the_whole_word_and_resubmissions_are_shown_once(benchmark: str) -> None:
    lines = [line for line in tiny_lines() if line["benchmark"] == benchmark]
    again = sum("byte-identical" in line["notes"] for line in lines)
    choice = choose([f"mlperf-tiny:{benchmark}"])
    assert {row.benchmark for row in choice.rows} == {benchmark}
    assert (len(choice.rows), choice.repeated) == (len(lines) - again, again)


def test_patterns_add_up_and_words_narrow() -> None:
    ic, kws = choose(["mlperf-tiny:ic"]).rows, choose(["MLPerf_Tiny:kws"]).rows
    assert set(choose(["mlperf-tiny:kws", "mlperf-tiny:ic"]).rows) == {*ic, *kws}
    assert {row.name.split("/")[1] for row in choose(["mlperf-tiny:ic:v1.3"]).rows} == {"v1.3"}
    assert {row.table for row in choose(["zhaw"]).rows} == {"zhaw_latency"}
    assert {row.table for row in choose(["*jetson*"]).rows} == {"inference_energy", "zhaw_latency", "detection_rates"}
    everything = choose(["all"])
    told = len(everything.rows) + everything.doubtful + everything.repeated + everything.empty
    assert told == len(literature.rows())
    assert everything.doubtful == len(literature.doubtful())
    assert choose([]).rows == ()


@pytest.mark.parametrize("pattern", ["nonsense-board", "mlperf-tiny:jetson", "zhaw:", ":", "mlperf-tiny:ic:zhaw"])
def test_what_fits_nothing_says_what_there_is(pattern: str) -> None:
    with pytest.raises(UsageError, match=r"There are the tables mlperf-tiny \(163 rows\)"):
        choose([pattern])


# -- entries -----------------------------------------------------------------------------------------------------------


def test_amounts_of_a_result_follow_from_energy_and_time() -> None:
    # 2 mJ in 100 ms, 1.6 mJ of it above idle.
    net = Summary(median=1.6e-3, ci95=(1.5e-3, 1.7e-3), basis=Basis.MEASURED)
    energy = Summary(median=2e-3, ci95=(1.99e-3, 2.01e-3), ci95_total=(1.6e-3, 2.5e-3), basis=Basis.MEASURED)
    made = of_result(Measured(result=result(energy_per_inference_j=energy, net_energy_per_inference_j=net)))
    assert made.amount(ENERGY) == Amount(value=2e-3, low=1.6e-3, high=2.5e-3, rests=Rests.TOTAL)
    for name in (PER_JOULE, TOTAL):
        found = made.amount(name)
        assert (found.value, found.low, found.high) == pytest.approx((500, 400, 625))
    above = made.amount(ABOVE_IDLE)
    assert above.value == pytest.approx(625)
    assert above.rests is Rests.SCATTER
    assert made.amount(PER_SECOND).value == pytest.approx(10)
    product = made.amount(EDP)
    assert (product.value, product.low, product.high) == pytest.approx((2e-4, 1.6e-3 * 0.099, 2.5e-3 * 0.101))
    assert product.rests is Rests.SCATTER  # the weaker of the two
    assert [made.amount(name).value for name in (POWER, MEAN_POWER)] == pytest.approx([0.02, 5e-3])
    assert made.amount(LIFE).value is None


def test_without_an_accuracy_the_interval_is_scatter_and_without_scatter_there_is_none() -> None:
    assert entry(gain=None).amount(ENERGY).rests is Rests.SCATTER
    one = Summary(median=2e-3, basis=Basis.MEASURED)
    lone = of_result(Measured(result=result(gain=None, energy_per_inference_j=one)))
    assert (lone.amount(ENERGY).rests, lone.amount(ENERGY).bounded) == (Rests.NOTHING, False)


def test_unknown_is_unknown_with_its_reason() -> None:
    nothing = of_result(Measured(result=result(energy_per_inference_j=Summary(reason="the voltage is unknown"))))
    for name in (ENERGY, PER_JOULE, TOTAL, EDP):
        assert nothing.amount(name).value is None
    assert nothing.amount(PER_JOULE).reason == "the voltage is unknown"
    negative = Summary(median=-1e-3, ci95=(-1.1e-3, -0.9e-3), basis=Basis.MEASURED)
    below = of_result(Measured(result=result(net_energy_per_inference_j=negative)))
    assert below.amount(NET).value == -1e-3
    assert below.amount(ABOVE_IDLE).value is None
    joined = of_result(Measured(result=result(caveats=(note(Code.TRIALS_JOINED, "Several."),))))
    assert joined.amount(MEAN_POWER).value is None


def test_a_published_row_has_no_interval_and_a_bound_no_energy() -> None:
    plain = of_row(published(energy_j=1e-3, latency_s=0.1, power_w=0.01))
    assert plain.amount(ENERGY) == Amount(value=1e-3)
    assert [plain.amount(name).value for name in (PER_JOULE, EDP)] == pytest.approx([1000, 1e-4])
    assert not any(amount.bounded for amount in plain.amounts.values())
    bound = of_row(published(energy_j=None, latency_s=32e-6, power_max_w=10.0, basis=Basis.DERIVED))
    assert (bound.origin, bound.amount(ENERGY).value) == (Origin.BOUND, None)
    assert bound.energy_max_j == pytest.approx(0.32e-3)  # Jetson Nano, Dense1
    batch = of_row(published(energy_j=1e-3, latency_s=0.1, batch=32))
    assert batch.amount(EDP).value is None
    ranged = of_row(published(energy_j=None, latency_s=None, rate_min_hz=50.0, rate_max_hz=60.0))
    rate = ranged.amount(PER_SECOND)
    assert (rate.value, rate.low, rate.high, rate.rests) == (None, 50, 60, Rests.PRINTED)


def test_energy_over_idle_is_not_taken_for_the_whole() -> None:
    above = [row for row in literature.rows() if row.boundary and "over the idle" in row.boundary and row.energy_j]
    assert above
    for row in above:
        made = of_row(row)
        assert made.amount(ENERGY).value is None
        assert made.amount(NET).value == row.energy_j


def test_quantities_are_named_and_near_ones_offered() -> None:
    assert named("energy") == ENERGY
    assert named("Inferences-per-joule") == PER_JOULE
    with pytest.raises(UsageError, match="latency"):
        named("latencie")


# -- ratios ------------------------------------------------------------------------------------------------------------


def test_on_one_meter_the_gain_cancels_and_three_per_cent_are_resolved() -> None:
    same = Pairs().of(entry(2.06e-3), entry(2e-3, source="other"), ENERGY)
    assert same is not None and same.high is not None
    assert (same.same_meter, same.cancelled, same.resolved) == (True, ("gain",), True)
    assert same.low < 1.03 < same.high
    assert same.high - same.low < 0.01
    other = {**METER, "serial": "2"}
    apart = Pairs().of(entry(2.06e-3), entry(2e-3, source="other", instrument=other), ENERGY)
    assert apart is not None
    assert (apart.same_meter, apart.cancelled, apart.resolved) == (False, (), False)
    # Two gains of 10 % each, k = 1.96.
    assert (apart.high or 0.0) - apart.low == pytest.approx(2 * 1.96 * GAIN * math.sqrt(2) * 1.03, rel=0.02)


@pytest.mark.parametrize(
    "unlike",
    [{"serial": "2"}, {"model": "other"}, {"voltage_v": 3.3}],
    ids=["serial", "model", "voltage"],
)
def test_the_gain_stays_where_anything_of_the_meter_differs(unlike: dict[str, Any]) -> None:
    pair = Pairs().of(entry(instrument={**METER, **unlike}), entry(source="other"), ENERGY)
    assert pair is not None
    assert not pair.same_meter


def test_meters_without_serial_numbers_are_two_unless_somebody_says_otherwise() -> None:
    nameless = {**METER, "serial": None}
    a, b = (entry(level, source=name, instrument=nameless) for level, name in ((2.06e-3, "a"), (2e-3, "b")))
    apart = Pairs().of(a, b, ENERGY)
    assert apart is not None
    assert not apart.same_meter
    assert Doubt.UNKNOWN_METER in codes(only(compare([a, b])))
    a, b = (
        entry(level, source=name, instrument=nameless, one_meter=True) for level, name in ((2.06e-3, "a"), (2e-3, "b"))
    )
    one = Pairs().of(a, b, ENERGY)
    assert one is not None
    assert one.same_meter
    assert Doubt.UNKNOWN_METER not in codes(only(compare([a, b])))


def test_inverse_quantities_have_inverse_ratios() -> None:
    pairs, a, b = Pairs(), entry(3e-3), entry(2e-3, source="other")
    energy, efficiency, turned = pairs.of(a, b, ENERGY), pairs.of(a, b, PER_JOULE), pairs.of(b, a, ENERGY)
    assert energy is not None and energy.high is not None
    assert efficiency is not None and turned is not None
    assert (efficiency.ratio, efficiency.low, efficiency.high) == pytest.approx(
        (1 / energy.ratio, 1 / energy.high, 1 / energy.low)
    )
    assert (turned.ratio, turned.low) == pytest.approx((efficiency.ratio, efficiency.low))


def test_what_a_ratio_rests_on_is_told() -> None:
    rough, printed, near = entry(2e-3), of_row(published(energy_j=1e-3)), of_row(published(energy_j=1.9e-3))
    pairs = Pairs()
    one_sided = pairs.of(rough, printed, ENERGY)
    assert one_sided is not None and one_sided.ground is Ground.ONE_SIDED
    # The interval of the measurement, over an exact figure.
    total = rough.amount(ENERGY)
    assert (one_sided.low, one_sided.high) == pytest.approx(((total.low or 0) / 1e-3, (total.high or 0) / 1e-3))
    close = pairs.of(rough, near, ENERGY)
    assert close is not None and not close.resolved
    figures = pairs.of(printed, near, ENERGY)
    assert figures is not None
    assert (figures.ground, figures.low, figures.high) == (Ground.FIGURES, figures.ratio, figures.ratio)
    same = pairs.of(printed, of_row(published("b", 1e-3)), ENERGY)
    assert same is not None and not same.resolved
    scatter = pairs.of(
        entry(gain=None, instrument=METER), entry(gain=None, instrument={**METER, "serial": "2"}), ENERGY
    )
    assert scatter is not None and scatter.ground is Ground.SCATTER
    assert pairs.of(rough, of_row(published(energy_j=None)), ENERGY) is None


def test_independent_intervals_combine_as_squares() -> None:
    def latency(middle: float, off: float, name: str) -> Entry:
        held = Summary(median=middle, ci95=(middle * (1 - off), middle * (1 + off)), basis=Basis.MEASURED)
        return entry(source=name, latency_s=held)

    pair = Pairs().of(latency(0.2, 0.03, "a"), latency(0.1, 0.04, "b"), LATENCY)
    assert pair is not None and pair.high is not None
    assert pair.ratio == pytest.approx(2)
    # 3 % and 4 % make 5 %, to first order.
    assert (pair.low, pair.high) == pytest.approx((2 * 0.95, 2 * 1.05), rel=0.004)


def test_an_interval_that_reaches_zero_resolves_nothing_from_below() -> None:
    loose = entry(energy_per_inference_j=Summary(median=1e-3, ci95=(-1e-3, 3e-3), basis=Basis.MEASURED), gain=None)
    pair = Pairs().of(loose, of_row(published(energy_j=0.9e-3)), ENERGY)
    assert pair is not None
    assert (pair.low, pair.resolved) == (0.0, False)
    assert loose.amount(PER_JOULE).bounded is False


@pytest.mark.parametrize("value", [5e-324, 1e-300, 0.0, -1e-3, 1e300, 1.7e308])
def test_what_no_device_takes_is_compared_with_nothing(value: float) -> None:
    held = (-1e308, 1.7e308)
    odd = Summary(median=value, ci95=held, ci95_total=held, basis=Basis.MEASURED)
    far = Summary(median=1e-3, ci95=(1e-300, 1e300), ci95_total=(1e-300, 1e300), basis=Basis.MEASURED)
    entries = [
        entry(energy_per_inference_j=odd, latency_s=odd, source="a", name="odd"),
        entry(energy_per_inference_j=far, gain=None, source="b", name="far"),
        entry(source="c"),
    ]
    table = compare(entries, rows_of(1e-3, 1e-4))
    assert ranks(only(table))["odd"] is None
    assert ranks(only(table))["far"] == (1, 4)
    for told in (comparetext.render(table, [], 20), comparetext.as_markdown(table, []), comparetext.as_csv(table)):
        assert not re.search(r"\b(inf|nan)\b(?![./])", told)
    json.loads(comparetext.as_json(table, []))
    page(table)


# -- ranks and the front -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([1e-6, 2e-6, 3e-3, 4e-3, 5e-1, 6.0]), min_size=1, max_size=12))
def test_ranks_of_exact_figures_are_those_of_scipy(energies: list[float]) -> None:
    from scipy.stats import rankdata

    found = ranks(only(compare([], rows_of(*energies), sort="energy_per_inference_j")))
    first, last = (rankdata(energies, method=method).astype(int) for method in ("min", "max"))
    assert [found[f"board {at}"] for at in range(len(energies))] == list(zip(first, last, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=12))
def test_the_front_of_exact_figures_is_that_of_a_sweep(points: list[tuple[int, int]]) -> None:
    rows = [of_row(published(f"board {at}", e * 1e-3, t * 1e-3)) for at, (e, t) in enumerate(points)]
    best, front = math.inf, set()
    # By time, then energy: on the front is what takes less energy than all that is faster, and its equals.
    for energy, time in sorted(set(points), key=lambda point: (point[1], point[0])):
        if energy < best:
            best = energy
            front.add((energy, time))
    placed = {one.entry.name: one.on_front for one in only(compare([], rows)).placed}
    assert [placed[f"board {at}"] for at in range(len(points))] == [point in front for point in points]


def test_what_is_not_resolved_shares_ranks() -> None:
    # 2 mJ ± 19.6 %: 1.9 and 2.2 mJ lie within it, 1 and 3 mJ do not.
    group = only(compare([entry(2e-3)], rows_of(1e-3, 1.9e-3, 2.2e-3, 3e-3), sort=ENERGY))
    assert ranks(group) == {
        "board 0": (1, 1), "board 1": (2, 3), "board": (2, 4), "board 2": (3, 4), "board 3": (5, 5),
    }  # fmt: skip
    assert [one.entry.name for one in group.placed] == ["board 0", "board 1", "board", "board 2", "board 3"]


def test_two_results_that_do_not_differ_have_equal_ranks() -> None:
    a, b = entry(2e-3, source="a", name="a"), entry(2e-3, source="b", name="b", created="later")
    group = only(compare([a, b]))
    assert ranks(group) == {"a": (1, 2), "b": (1, 2)}
    assert [one.on_front for one in group.placed] == [True, True]
    pair = next(one.against for one in group.placed if one.against is not None)
    assert "not resolved" in words.verdict(pair, a)


def test_unresolved_is_not_dominated() -> None:
    # A little faster by the figure and a little hungrier: within the interval of the measurement.
    near, far = of_row(published("near", 1.9e-3, 0.09)), of_row(published("far", 1e-3, 0.05))
    assert {one.entry.name: one.on_front for one in only(compare([entry(2e-3)], [near])).placed} == {
        "board": True,
        "near": True,
    }
    assert {one.entry.name: one.on_front for one in only(compare([entry(2e-3)], [far])).placed} == {
        "board": False,
        "far": True,
    }


def test_the_simulated_takes_a_rank_and_gives_none_away() -> None:
    simulated = entry(0.1e-3, simulated=True, latency_s=Summary(median=1e-3, basis=Basis.SIMULATED))
    group = only(compare([simulated], rows_of(1e-3, 2e-3)))
    assert ranks(group) == {"board": (1, 1), "board 0": (1, 1), "board 1": (2, 2)}
    assert {one.entry.name: one.on_front for one in group.placed} == {"board": True, "board 0": True, "board 1": False}
    assert [one.rank.of for one in group.placed if one.rank] == [3, 2, 2]
    assert Doubt.SIMULATED_AND_REAL in codes(group)
    assert group.of(Origin.MEASURED) == []


def test_bounds_have_no_rank_by_energy_and_one_by_time() -> None:
    bound = of_row(published("bound", None, 1e-4, power_max_w=10.0, basis=Basis.DERIVED))
    by_energy = only(compare([entry()], [bound, *rows_of(1e-3)]))
    assert ranks(by_energy)["bound"] is None
    assert next(one.on_front for one in by_energy.placed if one.entry is bound) is None
    assert Doubt.UPPER_BOUNDS in codes(by_energy)
    assert ranks(only(compare([entry()], [bound, *rows_of(1e-3)], sort=LATENCY)))["bound"] == (1, 1)


# -- groups ------------------------------------------------------------------------------------------------------------


def test_each_model_is_a_table_of_its_own_and_results_join_theirs() -> None:
    rows = [of_row(row) for row in choose(["mlperf-tiny"]).rows]
    ic, kws = entry(name="mine"), entry(name="other", source="b", workload={"model": "kws"})
    table = compare([ic, kws], rows)
    assert len(table.groups) == 5
    there = {group.key: [one.entry.name for one in group.of(Origin.MEASURED)] for group in table.groups}
    assert there["mlperf-tiny:ic"] == ["mine"]
    assert there["mlperf-tiny:kws"] == ["other"]
    assert there["mlperf-tiny:ad"] == []
    assert [group.key for group in table.groups[:2]] == ["mlperf-tiny:ic", "mlperf-tiny:kws"]
    # A run of a streaming benchmark is no inference.
    assert {group.per for group in table.groups if group.key == "mlperf-tiny:sww"} == {"run"}


def test_a_result_of_another_model_is_a_guest_that_moves_nobody() -> None:
    guest = entry(0.1e-3, workload={"model": "something else"})
    group = only(compare([guest], rows_of(1e-3, 2e-3)))
    assert ranks(group) == {"board": (1, 1), "board 0": (1, 1), "board 1": (2, 2)}
    assert [one.guest for one in group.placed] == [True, False, False]
    assert Doubt.OTHER_MODEL in codes(group)


def test_a_result_of_an_unknown_model_joins_every_table_with_a_doubt() -> None:
    rows = [*rows_of(1e-3), of_row(published("c", model="kws"))]
    table = compare([entry(workload=None)], rows)
    assert len(table.groups) == 2
    for group in table.groups:
        assert Doubt.UNKNOWN_MODEL in codes(group)
        assert group.of(Origin.MEASURED)[0].guest
    told = compare([entry(workload=None, model="ic")], rows)
    assert [len(group.of(Origin.MEASURED)) for group in told.groups] == [1, 0]
    assert Doubt.UNKNOWN_MODEL not in codes(told.groups[0])


def test_a_result_of_an_unknown_model_visits_few_tables_and_not_many() -> None:
    rows = [of_row(published(name, model=name)) for name in ("ic", "kws", "vww", "ad", "bert")]
    table = compare([entry(workload=None)], rows)
    assert len(table.groups) == 6
    own, *others = table.groups
    assert [one.guest for one in own.placed] == [False]
    assert not any(group.of(Origin.MEASURED) for group in others)


def test_results_alone_and_together_are_one_table_that_says_what_differs() -> None:
    a, b = entry(name="a", source="a"), entry(name="b", source="b", workload={"model": "kws", "precision": "fp32"})
    alone = only(compare([a, b]))
    assert {Doubt.OTHER_MODEL, Doubt.OTHER_PRECISION} <= set(codes(alone))
    rows = [*rows_of(1e-3), of_row(published("c", model="kws")), of_row(published("d", per="token"))]
    together = compare([a, b], rows, together=True)
    assert [group.per for group in together.groups] == ["inference", "token"]
    assert len(together.groups[0].placed) == 4


def test_the_same_name_twice_is_told_apart() -> None:
    twins = [entry(source="a"), entry(2.1e-3, source="b", created="2026-11-21T09:30:00+00:00")]
    assert {one.entry.name for one in only(compare(twins)).placed} == {
        "board (2026-11-20 10:00)",
        "board (2026-11-21 09:30)",
    }
    thrice = [entry(source=name) for name in "abc"]
    assert len({one.entry.name for one in only(compare(thrice)).placed}) == 3
    with pytest.raises(UsageError):
        compare([])


@pytest.mark.parametrize(
    ("others", "code"),
    [
        ([entry(source="b", simulated=True)], Doubt.SIMULATED_AND_REAL),
        ([entry(source="b")], Doubt.SAME_RESULT),
        ([entry(2.2e-3, source="b", workload={"model": "kws"})], Doubt.OTHER_MODEL),
        ([entry(2.2e-3, source="b", workload=None)], Doubt.UNKNOWN_MODEL),
        ([entry(2.2e-3, source="b", workload={"model": "ic", "precision": "fp32"})], Doubt.OTHER_PRECISION),
        ([entry(2.2e-3, source="b", workload={"model": "ic"})], Doubt.UNKNOWN_PRECISION),
        ([entry(2.2e-3, source="b", workload={"model": "ic", "batch": 8})], Doubt.OTHER_BATCH),
        ([entry(2.2e-3, source="b", scope="board_dc")], Doubt.OTHER_SCOPE),
        ([entry(2.2e-3, source="b")], Doubt.UNKNOWN_SCOPE),
        ([entry(2.2e-3, source="b", instrument={**METER, "voltage_v": 1.8})], Doubt.OTHER_VOLTAGE),
        ([entry(2.2e-3, source="b", gain=None)], Doubt.SCATTER_ONLY),
        (
            [entry(source="b", gain=None, energy_per_inference_j=Summary(median=2e-3, basis=Basis.MEASURED))],
            Doubt.NO_SCATTER,
        ),
        (rows_of(1e-3), Doubt.PUBLISHED_FIGURES),
        ([entry(2.2e-3, source="b", caveats=(doubt(Code.DRIFT, "It drifts."),))], Doubt.RESULT_IN_DOUBT),
        ([of_row(published("x", model="RN07", benchmark="ic"))], Doubt.OTHER_MODEL),
    ],
)
def test_what_is_not_alike_has_a_name(others: list[Entry], code: Doubt) -> None:
    mine = entry(scope="mcu_supply")
    found = only(compare([mine, *others], together=True))
    told = next((one.text for one in found.doubts if one.code is code), None)
    assert told is not None
    assert code not in codes(only(compare([mine])))


# -- faces -------------------------------------------------------------------------------------------------------------


def small() -> Table:
    rows = [*rows_of(1e-3, 1.9e-3, 5e-3), of_row(published("bound", None, 1e-4, power_max_w=10.0, basis=Basis.DERIVED))]
    return compare([entry(2e-3), entry(2.5e-3, source="b", name="sim", simulated=True)], rows)


def test_every_face_keeps_the_four_kinds_apart_and_says_simulated() -> None:
    table = small()
    text, marked = comparetext.render(table, ["One row."], 20), comparetext.as_markdown(table, ["One row."])
    for told, titles in (
        (text, ("Measured\n", "SIMULATED, no real hardware", "Published by others", "Upper bounds by others")),
        (marked, ("**Measured**", "**SIMULATED, no real hardware**", "**Published by others**", "**Upper bounds by")),
    ):
        places = [told.index(title) for title in titles]
        assert places == sorted(places)
        assert told.index("SIMULATED: no number here") < places[0]
        assert "≤1.0" in told
    lines = list(csv.DictReader(io.StringIO(comparetext.as_csv(table))))
    assert [line["origin"] for line in lines] == [
        "measured", "simulated", "published", "published", "published", "upper bound",
    ]  # fmt: skip
    assert [line["simulated"] for line in lines] == ["no", "yes", "no", "no", "no", "no"]
    content = json.loads(comparetext.as_json(table, []))
    assert content["simulated"] is True
    assert {one["origin"] for one in content["groups"][0]["entries"]} == set(map(str, Origin))
    shown = Page(page(table))
    assert shown.attributes("table", "data-origin") == ["measured", "simulated", "published", "upper bound"]
    assert shown.text.count("SIMULATED") >= 5


def test_csv_is_si_units_in_full_precision_and_unknown_is_empty() -> None:
    first, second = entry(2e-3 / 3), of_row(published("row", 1e-3 / 7, None))
    lines = {line["name"]: line for line in csv.DictReader(io.StringIO(comparetext.as_csv(compare([first], [second]))))}
    energy = first.amount(ENERGY)
    assert float(lines["board"]["energy_per_inference_j"]) == energy.value
    assert float(lines["board"]["energy_per_inference_low_j"]) == energy.low
    assert lines["board"]["energy_per_inference_interval"] == "total"
    assert lines["board"]["inferences_per_second_per_watt_above_idle"] == ""
    assert float(lines["row"]["energy_per_inference_j"]) == 1e-3 / 7
    for column in ("energy_per_inference_low_j", "energy_per_inference_interval", "latency_s", "life_s", "edp_js"):
        assert lines["row"][column] == ""
    assert {"power_inferring_w", "mean_power_w", "inferences_per_second_per_watt_total"} <= set(lines["row"])


def test_text_fits_eighty_columns_whatever_the_names_are() -> None:
    long = entry(name="x" * 200), entry(3e-3, source="b", name="電力" * 60)
    rows = [of_row(row) for row in choose(["mlperf-tiny:ic", "zhaw"]).rows]
    told = comparetext.render(compare(list(long), rows), [], 20)
    assert max(inert.columns_of(line) for line in told.splitlines()) <= 79
    # A long list keeps the best and those next to our own.
    assert "more; --rows, --csv, --markdown and --html have all" in told


def test_where_there_is_no_room_for_all_results_their_neighbours_and_the_best_stay() -> None:
    group = only(compare([entry(5.05e-3)], rows_of(*(k * 1e-3 for k in range(1, 21)))))
    published_rows = group.of(Origin.PUBLISHED)
    assert [published_rows[at].entry.name for at in sorted(group.telling(published_rows, 8))] == [
        *(f"board {at}" for at in (0, 1, 2, 3, 4, 5, 6)), "board 7",
    ]  # fmt: skip
    far = only(compare([entry(18.05e-3)], rows_of(*(k * 1e-3 for k in range(1, 21)))))
    # 18 and 19 mJ, 17 and 20 mJ are next to it.
    assert {far.placed[at].entry.name for at in far.telling(far.placed, 8)} == {
        "board", "board 16", "board 17", "board 18", *(f"board {at}" for at in (0, 1, 2, 3)),
    }  # fmt: skip
    assert far.telling(far.placed, 100) == set(range(21))


def test_tables_without_a_result_are_named_and_left_to_the_files() -> None:
    rows = [of_row(row) for row in choose(["mlperf-tiny"]).rows]
    told = comparetext.render(compare([entry()], rows), [], 5)
    assert told.count("Ranked by") == 1
    assert "Tables without a result: MLPerf Tiny ad (anomaly detection), MLPerf Tiny kws" in " ".join(told.split())
    assert comparetext.render(compare([], rows), [], 5).count("Ranked by") == 5
    assert comparetext.as_markdown(compare([entry()], rows), []).count("Ranked by") == 5


def test_names_that_are_cut_keep_what_tells_them_apart() -> None:
    assert inert.fitted("v1.1__STMicroelectronics__NUCLEO_U575ZI_Q_ic", 20, tail=True).endswith("U575ZI_Q_ic")
    assert inert.fitted("v1.0 gap9_650_240, greenwaves", 12) == "v1.0 gap9_6…"
    assert inert.fitted("ab", 4) == "ab  "
    assert inert.fitted("電力電力", 5) == "電力…"


@pytest.mark.parametrize(
    ("value", "told"),
    [(144.4, "144"), (1036.4, "1.04k"), (999.7, "1.00k"), (36.08e3, "36.1k"), (0.0123, "0.0123"), (0.0, "0")],
)
def test_plain_numbers_are_short(value: float, told: str) -> None:
    assert words.number(value) == told


def test_where_it_stands_is_said_in_a_sentence() -> None:
    told = list(words.standing(only(compare([entry(2e-3)], rows_of(1e-3, 3e-3))), PER_JOULE))
    assert told == [
        "board ranks 2 of 3 by inferences per joule (499.8), next better board 0 (1.00k), next worse board 1 (333); "
        "the best, board 0, has 2.00 times that."
    ]
    simulated = list(words.standing(only(compare([entry(2e-3, simulated=True)], rows_of(1e-3))), PER_JOULE))
    assert simulated[0].startswith("SIMULATED: board would rank 2 of 2")


# -- hostile text ------------------------------------------------------------------------------------------------------

HOSTILE = (
    "</script><script>document.body.dataset.hacked=1</script><!--<img src=x onerror='document.body.dataset.hacked=1'>"
    '"><b>bold</b> <a href="javascript:alert(1)">here</a> https://example.org @everyone | `x` $\\alpha$ {{ 7*7 }} '
    "\x1b[31m\x1b]0;title\x07\r\n::error::x\u202e\x00\udcff"
)


def poisoned(value: Any, text: str) -> Any:
    """The same with every string in it replaced, but what has to be one of a few words."""
    if isinstance(value, str):
        return value if type(value) is not str else text
    if is_dataclass(value) and not isinstance(value, type):
        kept = {"schema", "created", "type", "distribution", "unit", "term"}
        return replace(
            value,
            **{one.name: poisoned(getattr(value, one.name), text) for one in fields(value) if one.name not in kept},
        )
    if isinstance(value, dict):
        return {key: poisoned(inner, text) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(poisoned(inner, text) for inner in value)
    return value


def hostile(text: str = HOSTILE) -> Table:
    bad = poisoned(result(caveats=(doubt(Code.DRIFT, "x"),)), text)
    ours = of_result(Measured(result=bad), text, scope=None, life=Amount(reason=text))
    other = of_result(Measured(result=poisoned(result(3e-3), text)), f"{text} b")
    names: dict[str, Any] = dict.fromkeys(
        ("name", "device", "model", "source", "runtime", "precision", "boundary", "task", "notes", "instrument"), text
    )
    rows = [of_row(replace(published(energy_j=energy), **names)) for energy in (1e-3, 2e-2)]
    bound = published("bound", None, 1e-4, power_max_w=10.0, basis=Basis.DERIVED)
    return compare([ours, other], [*rows, of_row(replace(bound, **names))])


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self._within: list[str] = []
        self.feed(text)
        self.text = " ".join("".join(self.shown).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._within):
            self.shown.append(data)

    def attributes(self, tag: str, name: str) -> list[str | None]:
        return [attrs[name] for found, attrs in self.tags if found == tag and name in attrs]


def test_hostile_text_is_inert_in_the_terminal() -> None:
    told = comparetext.render(hostile(), [HOSTILE], 20, "CR2032")
    assert all(letter.isprintable() or letter == "\n" for letter in told)
    assert max(inert.columns_of(line) for line in told.splitlines()) <= 79


def test_hostile_text_is_inert_in_markdown() -> None:
    told = comparetext.as_markdown(hostile(), [])
    assert not re.search(r"<(script|img|a|b)\b", told)
    assert "https://" not in told
    assert "@everyone" not in told
    tables = [line for line in told.splitlines() if line.startswith("|")]
    # A pipe in a name opens no column.
    widths = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
    heads = [at for at, line in enumerate(tables) if line.startswith("|---")]
    for start, stop in zip(heads, [*[at - 1 for at in heads[1:]], len(tables)], strict=True):
        assert len(set(widths[start - 1 : stop])) == 1


@pytest.mark.parametrize("text", [HOSTILE, '=HYPERLINK("http://x")', "+1+1", "@SUM(A1)", "-2", '"; a,b\n"'])
def test_hostile_text_is_one_cell_and_no_formula(text: str) -> None:
    lines = list(csv.reader(io.StringIO(comparetext.as_csv(hostile(text)))))
    assert len({len(line) for line in lines}) == 1
    assert not any(re.match(r"[=+@\t\r]|-(?![\d.])", cell) for line in lines for cell in line)


def test_hostile_text_is_inert_in_json() -> None:
    told = comparetext.as_json(hostile(), [HOSTILE])
    assert json.loads(told)["left_out"] == [HOSTILE]
    assert told.isascii()


def test_hostile_text_is_inert_in_html() -> None:
    table = hostile()
    told = page(table, [HOSTILE])
    seen, harmless = Page(told), Page(page(hostile("x"), ["x"]))
    count = {tag: sum(one == tag for one, _ in seen.tags) for tag in ("script", "img", "iframe", "b", "a", "form")}
    assert count == {"script": 4, "img": 0, "iframe": 0, "b": 0, "a": 0, "form": 0}
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in harmless.tags]
    assert not any(name.startswith("on") for _, attrs in seen.tags for name in attrs)
    assert "\x1b" not in told and "\u202e" not in told
    told.encode("utf-8")
    figures = json.loads(re.search(r'id="figures">(.*?)</script>', told, re.DOTALL)[1])  # type: ignore[index]
    texts = [text for text in strings(figures) if "script" in text]
    # plotly.js reads tags in every text.
    assert texts
    assert not any(re.search(r"<(?!/?b>|br>)", text) for text in texts)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


@pytest.mark.parametrize("suffix", compareplot.FORMATS)
def test_pictures_are_drawn_of_anything(suffix: str, tmp_path: Path) -> None:
    for name, table in (("plain", small()), ("hostile", hostile()), ("empty", compare([], rows_of(1e-3)))):
        file = tmp_path / f"{name}{suffix}"
        assert compareplot.draw(table, file) == 0
        content = file.read_bytes()
        assert content.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
        if suffix == ".svg":
            tags = {element.tag.rpartition("}")[2] for element in ElementTree.fromstring(content).iter()}  # noqa: S314
            assert not tags & {"script", "a", "image", "foreignObject"}


def test_a_picture_has_room_for_some_tables_and_says_how_many_it_has_not(tmp_path: Path) -> None:
    rows = [of_row(published(f"board {at}", model=f"model {at}")) for at in range(compareplot.MOST_GROUPS + 2)]
    assert compareplot.draw(compare([], rows), tmp_path / "a.svg") == 2


def test_lines_of_equal_power_cross_the_points() -> None:
    # 1 mJ in 0.1 s are 10 mW, 30 mJ in 0.1 s are 300 mW.
    assert compareplot.isopowers([1e-3, 30e-3], [0.1, 0.1]) == pytest.approx([0.01, 0.1, 1.0])


@pytest.mark.parametrize("kind", ["plain", "hostile"])
def test_chromium_draws_it_without_a_complaint(kind: str, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on PATH: the page is not drawn")
    rows = [of_row(row) for row in choose(["mlperf-tiny:ic"]).rows]
    tables = {"plain": lambda: compare([entry(2e-3)], rows), "hostile": hostile}
    file = tmp_path / "compare.html"
    told = page(tables[kind]())
    if kind == "plain":
        # The policy of the page refuses scripts that were put in later.
        told, policies = re.subn(r'<meta http-equiv="Content-Security-Policy".*?>', "", told)
        assert policies == 1
        told = told.replace("</body>", f"<script>{CLICK_TWICE}</script></body>")
    file.write_text(told, encoding="utf-8")
    seen = subprocess.run(
        [  # noqa: S607
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
        check=True,
    )
    drawn = Page(seen.stdout)
    body = next(attrs for tag, attrs in drawn.tags if tag == "body")
    assert (body.get("data-drawn"), body.get("data-errors"), body.get("data-hacked")) == ("2", "0", None)
    assert sum(tag == "svg" and attrs.get("class") == "main-svg" for tag, attrs in drawn.tags) >= 2
    assert not any(tag in ("img", "iframe") for tag, _ in drawn.tags)
    if kind == "plain":
        table = drawn.tags[next(at for at, one in enumerate(drawn.tags) if one[1].get("data-origin") == "published") :]
        cells = [attrs["data-value"] for tag, attrs in table if tag == "td" and "data-value" in attrs]
        energies = [float(value or "nan") for value in cells[2 :: len(cells) // len(rows)]]
        assert len(energies) == len(rows)
        assert energies == sorted((row.amount(ENERGY).value or 0.0 for row in rows), reverse=True)


CLICK_TWICE = """
addEventListener("load", () => {
  const energy = document.querySelectorAll("table[data-origin=published] th")[2];
  energy.click();
  energy.click();
});
"""


# -- the command -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def joulemeter(*arguments: str | Path) -> Done:
    """The command in this process, as the program would run it."""
    out, err, before = io.StringIO(), io.StringIO(), signal.getsignal(signal.SIGTERM)
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            common.run(command.app, "compare", [str(one) for one in arguments])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    subprocess.run([*JOULEMETER, "demo", "-o", folder], capture_output=True, timeout=100, check=True)
    return next(folder.iterdir())


def test_where_would_my_board_stand_is_one_command(demo: Path, tmp_path: Path) -> None:
    files: dict[str, Path] = {name: tmp_path / f"out.{name}" for name in ("csv", "md", "png", "html")}
    done = joulemeter(
        *(demo, "--published", "mlperf-tiny:ic", "--csv", files["csv"], "--markdown", files["md"]),
        *("--plot", files["png"], "--html", files["html"], "--quiet"),
    )
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("SIMULATED")
    assert re.search(r"SIMULATED: demo would rank\s+\d+(-\d+)? of 38 by inferences per joule", done.out)
    assert "doubt (other-model)" in done.out
    assert max(map(len, done.out.splitlines())) <= 79
    recorded = json.loads((demo / "result.json").read_text(encoding="utf-8"))
    lines = list(csv.DictReader(io.StringIO(files["csv"].read_text(encoding="utf-8"))))
    assert len(lines) == 38
    ours = lines[0]
    assert (ours["origin"], ours["simulated"]) == ("simulated", "yes")
    assert float(ours["energy_per_inference_j"]) == recorded["energy_per_inference_j"]["median"]
    assert float(ours["energy_per_inference_low_j"]) == recorded["energy_per_inference_j"]["ci95_total"][0]
    assert float(ours["mean_power_w"]) == recorded["power_w"]["mean"]
    assert float(ours["net_energy_per_inference_j"]) == recorded["net_energy_per_inference_j"]["median"]
    assert float(ours["edp_js"]) == pytest.approx(recorded["efficiency"]["edp_js"])
    # Its place, counted anew from the figures of the table and the interval of the result.
    low, high = recorded["energy_per_inference_j"]["ci95_total"]
    tiny = [
        float(line["energy_uj"]) * 1e-6
        for line in tiny_lines()
        if line["benchmark"] == "ic" and "byte" not in line["notes"]
    ]
    assert int(ours["rank"]) == 1 + sum(value < low for value in tiny)
    assert int(ours["rank_last"]) == 1 + sum(value <= high for value in tiny)
    assert files["png"].read_bytes().startswith(b"\x89PNG")
    assert "SIMULATED" in files["md"].read_text(encoding="utf-8")
    assert len(files["html"].read_bytes()) < 10e6


def test_json_prints_json_and_nothing_else(demo: Path) -> None:
    done = joulemeter(demo, "--json", "--quiet", "--cell", "CR2032", "--every", "60s")
    assert done.code == 0, done.err
    content = json.loads(done.out)
    assert (content["schema"], content["simulated"]) == ("joulemeter.compare/1", True)
    one = content["groups"][0]["entries"][0]
    recorded = json.loads((demo / "result.json").read_text(encoding="utf-8"))
    # The demo asks about the same cell; the command asks again, from the waveform.
    life = one["amounts"]["life_s"]
    assert recorded["battery"]["every_s"] == 60
    assert (life["low"], life["value"], life["high"]) == pytest.approx(
        tuple(recorded["battery"]["life_s"][name] for name in ("p5", "p50", "p95"))
    )


def test_a_lone_result_keeps_its_numbers_and_knows_no_other_life(demo: Path, tmp_path: Path) -> None:
    lone = tmp_path / "kept.json"
    shutil.copy(demo / "result.json", lone)
    asked = ("--cell", "CR2032", "--json", "--quiet")
    kept = json.loads(joulemeter(lone, "--every", "60s", *asked).out)["groups"][0]["entries"][0]
    assert kept["amounts"]["life_s"]["value"] is not None
    other = json.loads(joulemeter(lone, "--every", "10s", *asked).out)["groups"][0]["entries"][0]
    assert other["amounts"]["life_s"]["value"] is None
    assert "run directory" in other["amounts"]["life_s"]["reason"]


def test_a_zip_and_its_directory_are_the_same_result(demo: Path, tmp_path: Path) -> None:
    zipped = shutil.make_archive(str(tmp_path / "run"), "zip", demo)
    content = json.loads(joulemeter(demo, zipped, "--json", "--quiet").out)
    group = content["groups"][0]
    assert "same-result" in [one["code"] for one in group["doubts"]]
    pair = next(one["energy_over_reference"] for one in group["entries"] if one["energy_over_reference"])
    assert (pair["ratio"], pair["resolved"], pair["same_meter"]) == (1.0, False, True)
    assert {(one["rank"], one["rank_last"]) for one in group["entries"]} == {(1, 2)}


def test_another_trigger_is_analysed_and_nothing_is_written(demo: Path) -> None:
    before = (demo / "result.json").read_bytes()
    content = json.loads(joulemeter(demo, "--trigger", "d0:low", "--json", "--quiet").out)
    recorded = json.loads(before)
    energy = content["groups"][0]["entries"][0]["amounts"]["energy_per_inference_j"]["value"]
    assert energy < recorded["energy_per_inference_j"]["median"] / 10  # between the inferences
    assert (demo / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, "nothing to compare"),
        (["no-such-run"], 2, "There is no no-such-run"),
        (["--published", "nonsense-board"], 2, "mlperf-tiny (163 rows)"),
        (["--published", "mlperf-tiny:ic", "--sort", "enrgy"], 2, "energy"),
        (["--published", "mlperf-tiny:ic", "--plot", "x.docx"], 2, ".png, .svg, .pdf"),
        (["--published", "mlperf-tiny:ic", "--scope", "everything"], 2, "mcu_supply"),
        (["--published", "mlperf-tiny:ic", "--cell", "CR20333"], 2, "cr2032"),
        (["--published", "mlperf-tiny:ic", "--every", "10s"], 2, "--cell"),
        (["--published", "mlperf-tiny:ic", "--csv", "/no/such/folder/x.csv"], 4, "cannot be written"),
        ([str(ROOT / "pyproject.toml")], 2, "not a recording"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_exit_code(arguments: list[str], code: int, told: str) -> None:
    done = joulemeter(*arguments)
    assert (done.code, done.out) == (code, "")
    assert told in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_damaged_result_is_told(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text('{"schema": "joulemeter.result/1", "name": 3}', encoding="utf-8")
    done = joulemeter(file)
    assert (done.code, done.out) == (2, "")
    assert "is not a result of this version" in " ".join(done.err.split())


def test_the_documented_commands_work(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    joulemeter compare (.+)$", text, re.MULTILINE)
    assert len(lines) == 4
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(demo, tmp_path / "other")
    places = {"RUN": demo, "OTHER": other}
    for line in lines:
        done = joulemeter(*(places.get(part, part) for part in shlex.split(line)), "--quiet")
        assert done.code == 0, done.err
        assert "Ranked by" in done.out
    assert {path.name for path in tmp_path.glob("compare.*")} == {
        "compare.csv", "compare.md", "compare.png", "compare.html",
    }  # fmt: skip


def test_the_documented_python_works(demo: Path) -> None:
    text = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    block = text[text.index("## In Python") :].partition("\n\n")[2]
    *program, last = (line[4:] for line in block.splitlines() if line)
    given: dict[str, Any] = {"path": demo / "result.json"}
    exec("\n".join(program), given)  # noqa: S102
    assert len(eval(last, given)) == 38  # noqa: S307


def test_every_table_and_scope_of_the_documents_is_there() -> None:
    text = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    for pattern in ("mlperf-tiny", "inference", "zhaw", "detection", "all", "mlperf-tiny:ic:v1.3", "coral", "*jetson*"):
        assert f"`{pattern}`" in text
        assert choose([pattern]).rows
    for scope in get_args(Scope):
        assert scope in text


def test_asking_for_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['joulemeter', 'compare', '--help']\n"
        "import joulemeter.cli\n"
        "try:\n    joulemeter.cli.main()\nexcept SystemExit:\n    sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--published" in done.stdout
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & {"scipy", "pandas", "matplotlib", "plotly"}


# -- real recordings ---------------------------------------------------------------------------------------------------


@cache
def recordings() -> list[Path]:
    return sorted(path for path in RECORDINGS.glob("v*_ic") if path.is_dir()) if RECORDINGS.is_dir() else []


def manifest() -> dict[str, Any]:
    rows: Sequence[dict[str, Any]] = json.loads((RECORDINGS / "manifest.json").read_text(encoding="utf-8"))["runs"]
    return {row["folder"]: row for row in rows}


@pytest.mark.outside
@pytest.mark.skipif(not recordings(), reason="the recordings are not beside this checkout (../shared/data/mlperf_tiny)")
def test_each_recording_stands_where_its_publishers_put_it() -> None:
    done = joulemeter(
        *recordings(),
        *("--model", "*_ic=ic", "--scope", "v*=mcu_supply", "--convention", "eembc"),
        *("--published", "mlperf-tiny:ic", "--json", "--quiet"),
    )
    assert done.code == 0, done.err
    group = json.loads(done.out)["groups"][0]
    by_row = {one["published_row"]: one for one in group["entries"] if one["published_row"]}
    ours = [one for one in group["entries"] if one["origin"] == "measured"]
    assert len(ours) == len(recordings())
    source = {
        f"github.com/{row['source_repo']}: {Path(row['source_path'])}": row["folder"] for row in manifest().values()
    }
    twins = {source[one["source"]]: one for one in by_row.values() if one["source"] in source}
    seen = 0
    for one in ours:
        twin = twins.get(one["name"])
        if twin is None:
            continue
        seen += 1
        mine, theirs = (side["amounts"]["energy_per_inference_j"]["value"] for side in (one, twin))
        assert mine == pytest.approx(theirs, abs=0.5e-9)  # three digits of a microjoule are printed
        # The figure and its recording are no different.
        assert one["rank"] <= twin["rank_last"] and twin["rank"] <= one["rank_last"]
        assert one["rank"] < one["rank_last"]
    assert seen >= 8
    assert {"scatter-only", "unknown-meter", "published-figures"} <= {one["code"] for one in group["doubts"]}
    ratios = [one["energy_over_reference"] for one in ours if one["energy_over_reference"]]
    # No serial number: another laboratory's gain does not cancel.
    assert not any(pair["same_meter"] for pair in ratios)
    assert {pair["ground"] for pair in ratios} == {"scatter"}
