"""Results held to a baseline and to limits: the statistics, the rules, and what CI reads of them."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from joulemeter.cli import check as command
from joulemeter.cli import checktext
from joulemeter.errors import DataError, UsageError
from joulemeter.physics import ranks, rules
from joulemeter.physics.regression import Verdict, change
from joulemeter.physics.rules import Doubt, Measured, Rules
from joulemeter.physics.stats import summarise
from joulemeter.physics.summary import of
from joulemeter.result import Result, Summary, Windows

ROOT = Path(__file__).parent.parent


def the_study() -> ModuleType:
    """results/measured/check.py, whose tables are in the documentation."""
    spec = importlib.util.spec_from_file_location("check_study", ROOT / "results" / "measured" / "check.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


STUDY = the_study()
RNG = np.random.default_rng(8)
START = RNG.bit_generator.state


@pytest.fixture(autouse=True)
def _same_windows() -> None:
    """Each test draws its own, whichever run before it."""
    RNG.bit_generator.state = START


def windows(level: float = 1.0, n: int = 10, noise: float = 0.005) -> list[float]:
    return [float(value) for value in 2.4e-3 * level * (1 + RNG.normal(0, noise, n))]


def result(values_j: Sequence[float], **changed: Any) -> Result:
    made: Result = STUDY.result(values_j)
    return replace(made, **changed)


def measured(values_j: Sequence[float], **changed: Any) -> Measured:
    return Measured(result=result(values_j, **changed), windows_j=tuple(values_j))


def held(new: Measured, old: Measured | None = None, **asked: Any) -> rules.Check:
    given = ({"max_regression": 0.03} if old is not None else {}) | asked
    return rules.check(new, old, Rules(**given))


# -- the statistics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("m", "n", "critical"),
    # Critical values of U, two-sided 5 %, as in any table of the Mann-Whitney test; None: there is none.
    [(4, 4, 0), (3, 5, 0), (3, 4, None), (2, 8, 0), (5, 5, 2), (6, 6, 5), (8, 8, 13), (5, 10, 8), (10, 10, 23),
     (10, 20, 55), (20, 20, 127)],
)  # fmt: skip
def test_the_critical_ranks_are_those_of_the_tables(m: int, n: int, critical: int | None) -> None:
    # U is at most the critical value when fewer than that many plus one pairs are out of order.
    assert ranks._rank(m, n) == (0 if critical is None else critical + 1)
    assert ranks._rank(n, m) == ranks._rank(m, n)


def test_the_normal_limit_continues_the_exact_ranks() -> None:
    for m, n in ((38, 42), (40, 40)):
        normal = m * n / 2 - 1.959964 * math.sqrt(m * n * (m + n + 1) / 12)
        assert abs(ranks._rank(m, n) - normal) < 2
    assert abs(ranks._rank(41, 41) - ranks._rank(40, 40)) < 50


def test_the_interval_is_that_of_the_ordered_ratios() -> None:
    # Without trend or correlation (fewer than 4 values show neither, so: values whose order is balanced).
    new, old = np.array([10.0, 13.0, 12.0, 11.0]), np.array([5.0, 8.0, 7.0, 6.0])
    assert ranks.trend(new) == ranks.trend(old) == 0
    found = ranks.ratio(new, old)
    every = sorted(a / b for a in new for b in old)
    assert found is not None
    # U of 0 is critical for four against four: the smallest and the largest ratio.
    assert (found.low, found.high) == pytest.approx((every[0], every[-1]))
    assert found.middle == pytest.approx((every[7] + every[8]) / 2)


def test_ratios_too_many_to_sort_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    new, old = np.array(windows(1.02, 61)), np.array(windows(1.0, 43))
    sorted_ = ranks.ratio(new, old)
    monkeypatch.setattr(ranks, "SORTED_PAIRS", 0)
    counted = ranks.ratio(new, old)
    assert sorted_ is not None and counted is not None
    assert counted.low == pytest.approx(sorted_.low, rel=1e-12)
    assert counted.high == pytest.approx(sorted_.high, rel=1e-12)
    assert counted.middle == pytest.approx(sorted_.middle, rel=1e-12)


def test_too_few_or_impossible_values_have_no_ranks() -> None:
    assert ranks.ratio(np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0])) is None
    assert ranks.ratio(np.array([1.0, 2.0, 3.0, 0.0]), np.array([1.0, 2.0, 3.0, 4.0])) is None
    assert ranks.ratio(np.array([]), np.array([1.0])) is None


def test_a_trend_has_the_size_of_its_line() -> None:
    line = np.linspace(1.0, 1.1, 12)
    # Ends differ by 0.1 around a median of 1.05.
    assert ranks.trend(line) == pytest.approx(0.1 / 1.05)
    assert ranks.trend(np.full(12, 2.0)) == 0


def test_a_drift_is_no_regression() -> None:
    # From one beginning: one run rises by 2 %, the other stays, and the medians differ by 1 %.
    scatter = np.array([1 + 0.003 * (-1) ** k for k in range(30)], dtype=np.float64)
    rising, still = scatter * np.linspace(1, 1.02, 30), scatter
    found = ranks.ratio(rising, still)
    assert found is not None and found.middle == pytest.approx(1.01, abs=0.001)
    assert found.low < 1 < found.high
    # The same difference without a drift is one.
    apart = ranks.ratio(scatter * 1.01, still)
    assert apart is not None and apart.low > 1


@pytest.mark.parametrize("kind", STUDY.KINDS[:8], ids=lambda kind: kind.name)
def test_the_same_kernel_alarms_in_at_most_one_pair_of_twenty(kind: Any) -> None:
    rng = np.random.default_rng(1)
    shares = STUDY.study(rng, kind, 10, 0.0, 200)
    assert shares.failed <= 0.05
    # Of 200 pairs at 5 %, 17 or more happen once in thirty.
    assert shares.risen <= 16 / 200


@pytest.mark.parametrize("given", [True, False], ids=["windows", "result"])
def test_three_per_cent_at_half_a_per_cent_of_noise_is_found(given: bool) -> None:
    shares = STUDY.study(np.random.default_rng(2), STUDY.KINDS[0], 10, 0.03, 200, windows=given)
    assert shares.failed >= 0.95


def test_outliers_do_not_hide_a_rise() -> None:
    shares = STUDY.study(np.random.default_rng(3), STUDY.KINDS[5], 10, 0.04, 200)
    assert shares.failed >= 0.95


# -- one result against another ----------------------------------------------------------------------------------------


def test_the_gain_cancels_on_one_meter_and_not_on_two() -> None:
    new, old = windows(1.03), windows()
    one = change(result(new), result(old), new, old)
    assert one.same_meter and "gain" in one.cancelled
    assert one.u95 < 0.03
    other = result(old, instrument=STUDY.METER | {"serial": "2"})
    two = change(result(new), other, new, old)
    assert not two.same_meter and not two.cancelled
    # Twice a normal gain of 10 %, and the scatter beside it is nothing.
    assert two.u95 == pytest.approx(1.96 * math.sqrt(2) * 0.1 * 1.03, rel=0.02)
    assert two.against(0.03) is Verdict.LOOSE


def test_the_gain_does_not_cancel_over_ranges() -> None:
    def ranged(values: Sequence[float], key: int) -> Result:
        made = result(values)
        offset = replace(made.uncertainty[1], term=f"offset, range {key}", contribution_j=0.0)
        return replace(made, uncertainty=(*made.uncertainty, offset))

    new, old = windows(1.03), windows()
    assert change(ranged(new, 3), ranged(old, 3), new, old).u95 < 0.03
    found = held(Measured(result=ranged(new, 4), windows_j=new), Measured(result=ranged(old, 3), windows_j=old))
    assert found.change is not None and found.change.u95 > 0.25
    assert [doubt.code for doubt in found.doubts] == [Doubt.OTHER_RANGE]


def test_the_gain_does_not_cancel_over_calibrations() -> None:
    new, old = measured(windows(1.03)), windows()
    made = result(old)
    terms = tuple(replace(term, source="calibration of yesterday") for term in made.uncertainty)
    found = held(new, Measured(result=replace(made, uncertainty=terms), windows_j=old))
    assert found.change is not None and found.change.u95 > 0.25
    assert [doubt.code for doubt in found.doubts] == [Doubt.OTHER_CALIBRATION]


def test_unknown_accuracy_of_two_meters_is_no_interval() -> None:
    new, old = windows(), windows()
    other = replace(result(old, instrument=STUDY.METER | {"serial": "2"}), uncertainty=())
    with pytest.raises(DataError, match="accuracy of one is not known"):
        change(result(new), other, new, old)


def test_what_runs_differ_by_widens() -> None:
    new, old = windows(1.03), windows()
    plain, wide = (change(result(new), result(old), new, old, between_runs=share) for share in (0.0, 0.02))
    # Two runs, each with a deviation of 2 %.
    extra = 1.96 * math.sqrt(2) * 0.02
    assert wide.u95 == pytest.approx(wide.ratio * math.hypot(plain.u95 / plain.ratio, extra), rel=0.01)


def test_the_verdict_follows_the_interval() -> None:
    # Alternating windows of a scatter of 0.1 %, far from chance.
    def steady(level: float) -> list[float]:
        return [2.4e-3 * level * (1 + 0.001 * (-1) ** k) for k in range(12)]

    def verdict(level: float) -> Verdict:
        new, old = steady(level), steady(1.0)
        return change(result(new), result(old), new, old).against(0.03)

    assert [verdict(level) for level in (0.9, 1.0, 1.02, 1.04)] == [Verdict.HELD] * 3 + [Verdict.WORSE]
    noisy = windows(noise=0.1)
    assert change(result(noisy), result(noisy[::-1]), noisy, noisy[::-1]).against(0.03) is Verdict.LOOSE


# -- rules -------------------------------------------------------------------------------------------------------------


def test_a_rise_fails_and_no_rise_passes() -> None:
    assert held(measured(windows()), measured(windows())).passed
    worse = held(measured(windows(1.05)), measured(windows()))
    assert not worse.passed and worse.findings[0].resolved
    better = held(measured(windows(0.9)), measured(windows()))
    assert better.passed and "It fell." in better.findings[0].text
    small = held(measured(windows(1.015, n=200)), measured(windows(n=200)))
    assert small.passed and "It rose, but" in small.findings[0].text


def test_what_is_not_resolved_says_so_and_strict_fails_it() -> None:
    new, old = measured(windows(noise=0.1)), measured(windows(noise=0.1))
    loose = held(new, old)
    assert loose.passed and not loose.findings[0].resolved and "not excluded" in loose.findings[0].text
    assert not held(new, old, strict=True).passed
    alike = held(measured(windows()), measured(windows()))
    assert "No difference is resolved" in alike.findings[0].text


@pytest.mark.parametrize("which", ["result", "baseline"])
def test_missing_energy_is_a_failure_with_its_reason(which: str) -> None:
    good = measured(windows())
    values = windows()
    bad = Measured(result=result(values, energy_per_inference_j=Summary(reason="voltage unknown")))
    found = held(bad, good) if which == "result" else held(good, bad)
    assert not found.passed and found.change is None
    assert f"The {which} has no energy" in found.findings[0].text and "voltage unknown" in found.findings[0].text


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ("max-energy", "energy_per_inference_j"),
        ("max-net-energy", "net_energy_per_inference_j"),
        ("max-latency", "latency_s"),
        ("max-power", "power_w"),
    ],
)
def test_limits_hold_what_is_known_and_fail_what_is_not(rule: str, field: str) -> None:
    made = result(windows())
    known: Any = replace(made.power_w, mean=0.01) if field == "power_w" else Summary(median=0.01, ci95=(0.009, 0.011))
    new = Measured(result=replace(made, **{field: known}))
    assert held(new, limits={rule: 0.02}).passed
    over = held(new, limits={rule: 0.005})
    assert not over.passed and over.findings[0].value == 0.01
    unknown: Any = replace(made.power_w, mean=None) if field == "power_w" else Summary(reason="no meter")
    lost = held(Measured(result=replace(made, **{field: unknown})), limits={rule: 0.02})
    assert not lost.passed and lost.findings[0].value is None and "unknown" in lost.findings[0].text
    if field != "power_w":
        near = held(new, limits={rule: 0.0105})
        assert near.passed and not near.findings[0].resolved
        assert not held(new, limits={rule: 0.0105}, strict=True).passed


def test_no_idle_is_no_net_energy() -> None:
    new = Measured(result=result(windows(), net_energy_per_inference_j=None, net_reason="no idle time was recorded"))
    found = held(new, limits={"max-net-energy": 1.0})
    assert not found.passed and "no idle time was recorded" in found.findings[0].text


def test_one_window_cannot_be_judged() -> None:
    spread = summarise([2.4e-3])
    energy = of(spread, result(windows()).energy_per_inference_j.basis, None)
    alone = result(windows(), energy_per_inference_j=energy, uncertainty=(), windows=Windows(found=1, used=1))
    found = held(Measured(result=alone, windows_j=(2.4e-3,)), measured(windows()))
    assert not found.passed and "one window and shows no scatter" in found.findings[0].text


def test_simulated_beside_measured_is_doubted_and_fails() -> None:
    found = held(measured(windows()), measured(windows(), simulated=False))
    assert not found.passed
    assert found.doubts[0].code is Doubt.SIMULATED_AND_MEASURED


def test_what_is_not_alike_is_named() -> None:
    base = result(windows())
    other = {
        Doubt.OTHER_METER: {"instrument": STUDY.METER | {"serial": "2"}},
        Doubt.OTHER_VOLTAGE: {"instrument": STUDY.METER | {"voltage_v": 3.3}},
        Doubt.OTHER_RATE: {"instrument": STUDY.METER | {"rate_hz": 1000.0}},
        Doubt.OTHER_TRIGGER: {"sync": replace(base.sync, trigger="d1")},
        Doubt.OTHER_DEVICE: {"device": {"name": "another"}},
        Doubt.OTHER_WORKLOAD: {"workload": {"model": "kws", "model_sha256": "00"}},
        Doubt.OTHER_COUNT: {"windows": replace(base.windows, inferences_per_window=10)},
    }
    for code, changed in other.items():
        found = held(measured(windows(), **changed), measured(windows()))
        assert [doubt.code for doubt in found.doubts] == [code]
    alike = held(measured(windows()), measured(windows()))
    assert not alike.doubts
    lone = held(Measured(result=result(windows())), measured(windows()))
    assert [doubt.code for doubt in lone.doubts] == [Doubt.NO_WINDOWS]
    values = windows()
    assert Doubt.SAME_RESULT in [doubt.code for doubt in held(measured(values), measured(values)).doubts]
    nameless = {"instrument": STUDY.METER | {"serial": None}, "simulated": False}
    found = held(measured(windows(), **nameless), measured(windows(), **nameless))
    assert [doubt.code for doubt in found.doubts] == [Doubt.UNKNOWN_METER]


def test_rules_that_ask_for_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="no baseline"):
        rules.check(measured(windows()), None, Rules(max_regression=0.03))
    with pytest.raises(UsageError, match="what the result is held to"):
        rules.check(measured(windows()), None, Rules())


# -- what CI reads -----------------------------------------------------------------------------------------------------

HOSTILE = (
    'x"><script>alert(1)</script>\n::error::owned\r\n##[set-env]y | **b** `c` [l](http://evil) ![i](x) @everyone '
    "\x00\x1b[31m\x07 ]]> &amp; 100%0A \ufffe"
)


def hostile() -> rules.Check:
    new = measured(windows(1.05), name=HOSTILE, device={"name": HOSTILE}, workload={"model": HOSTILE})
    unknown = replace(new.result, net_energy_per_inference_j=None, net_reason=HOSTILE)
    old = measured(windows(), name=HOSTILE)
    return held(replace(new, result=unknown), old, limits={"max-net-energy": 1e-3, "max-energy": 1.0})


def test_text_fits_eighty_columns_and_moves_no_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for check in (hostile(), held(measured(windows(), name="n" * 300), measured(windows()))):
        text = checktext.render(check)
        assert max(map(len, text.splitlines())) <= 80
        assert all(letter.isprintable() for letter in text.replace("\n", ""))


def parsed(xml: bytes) -> ElementTree.Element:
    return ElementTree.fromstring(xml)  # noqa: S314 - what this project wrote


def test_junit_is_xml_with_a_case_for_each_rule() -> None:
    root = parsed(checktext.junit(hostile()))
    (suite,) = root
    cases = suite.findall("testcase")
    assert root.tag == "testsuites" and suite.tag == "testsuite"
    assert [case.get("name") for case in cases] == ["max-regression", "max-net-energy", "max-energy"]
    assert suite.get("tests") == "3" and suite.get("failures") == "2" == str(len(suite.findall(".//failure")))
    assert suite.find(".//script") is None
    failure = cases[1].find("failure")
    assert failure is not None and "<script>alert(1)</script>" in (failure.text or "")
    passed = parsed(checktext.junit(held(measured(windows()), measured(windows()))))
    assert passed.get("failures") == "0" and passed.find(".//failure") is None


def test_markdown_holds_no_markup_of_a_file() -> None:
    text = checktext.markdown(hostile())
    assert "<script" not in text and "@everyone" not in text and "http://" not in text
    assert not re.search(r"(?<!\\)\*\*b", text) and not re.search(r"(?<!\\)\[l", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # A row has four cells: five bars that are not escaped.
    assert len(rows) == 5
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """Workflow commands as the runner reads them (actions/runner, src/Runner.Common/ActionCommand.cs)."""
    found = []
    for line in text.splitlines():
        assert "##[" not in line or line.startswith("::")
        if not line.lstrip().startswith("::"):
            continue
        head, _, data = line.lstrip()[2:].partition("::")
        name, _, pairs = head.partition(" ")
        properties = dict(pair.split("=", 1) for pair in pairs.split(",") if pair)
        for code, letter in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            properties = {key: value.replace(code, letter) for key, value in properties.items()}
            data = data.replace(code, letter) if code not in ("%3A", "%2C") else data
        found.append((name, properties, data))
    return found


def test_annotations_are_commands_and_nothing_else_is() -> None:
    check = hostile()
    found = commands(f"{checktext.inert(checktext.render(check))}\n{checktext.github(check)}")
    assert [name for name, _, _ in found] == ["error", "error", *["warning"] * len(check.doubts)]
    assert found[0][1] == {"title": "JouleMeter check: max-regression"}
    # The percent signs arrive, and what looked like an escape does not become one.
    assert "with 95 %)" in found[0][2] and "100%0A" in found[1][2]
    quiet = commands(checktext.github(held(measured(windows()), measured(windows()))))
    assert [name for name, _, _ in quiet] == ["notice"]


# -- the command -------------------------------------------------------------------------------------------------------


def joulemeter(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "joulemeter", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80"},
        check=False,
    )


def recorded(folder: Path, current: str) -> Path:
    done = joulemeter(
        "measure", "--meter", "ppk2", "--simulate", "--supply", "3.0V", "--trigger", "d0", "--windows", "10",
        "--inferences-per-window", "1", "--load", f"250uA/20ms,{current}/20ms/d0", "--name", "kernel",
        "-o", folder, "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (run,) = folder.iterdir()
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same kernel twice, and one that takes 5 % more."""
    root = tmp_path_factory.mktemp("runs")
    currents = {"old": "8mA", "new": "8mA", "worse": "8.4mA"}
    return {name: recorded(root / name, current) for name, current in currents.items()}


def test_the_command_passes_what_is_the_same(runs: dict[str, Path]) -> None:
    done = joulemeter("check", runs["new"], "--baseline", runs["old"] / "result.json")
    assert done.returncode == 0 and not done.stderr
    assert "passed: 1 rule" in done.stdout and "SIMULATED" in done.stdout and "gain error cancels" in done.stdout
    assert "ranks of the windows" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_command_fails_what_is_worse_and_writes_it_down(runs: dict[str, Path], tmp_path: Path) -> None:
    files = ("--junit", tmp_path / "c.xml", "--markdown", tmp_path / "c.md")
    done = joulemeter("check", runs["worse"], "--baseline", runs["old"], *files, "--github")
    assert done.returncode == 1 and not done.stderr
    assert "FAILED: 1 of 1 rule" in done.stdout and "::error title=" in done.stdout
    assert parsed((tmp_path / "c.xml").read_bytes()).get("failures") == "1"
    assert "FAILED" in (tmp_path / "c.md").read_text(encoding="utf-8")
    told = json.loads(joulemeter("check", runs["worse"], "--baseline", runs["old"], "--json").stdout)
    assert told["schema"] == "joulemeter.check/1" and told["passed"] is False
    # 8.4 mA against 8 mA.
    assert told["change"]["low"] < 1.05 < told["change"]["high"]
    assert told["rules"][0]["value"] == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "what the result is held to"),
        (["--baseline", "nowhere"], "nowhere cannot be read"),
        (["--baseline", "."], "holds no result.json"),
        (["--baseline", "junk.json"], "not a result"),
        (["--max-regression", "3%"], "no baseline"),
        (["--baseline", "RUN", "--max-regression", "3"], "Write 3%"),
        (["--max-energy", "3"], "not a quantity in joules"),
        (["--max-energy", "1J", "--json", "--github"], "leave out --github"),
    ],
)
def test_bad_input_is_exit_code_2(runs: dict[str, Path], tmp_path: Path, options: list[str], words: str) -> None:
    (tmp_path / "junk.json").write_text('{"schema": "something else"}')
    given = [str(runs["old"]) if option == "RUN" else option for option in options]
    done = joulemeter("check", runs["new"], *given, cwd=tmp_path)
    assert done.returncode == 2 and not done.stdout
    assert words in " ".join(re.sub("[│╭╰─╮╯]", " ", done.stderr).split())


def test_windows_of_something_else_are_not_used(runs: dict[str, Path], tmp_path: Path) -> None:
    good = command.read(runs["new"])
    assert good.windows_j is not None and len(good.windows_j) == good.result.windows.used
    for name in ("result.json", "windows.csv"):
        (tmp_path / name).write_bytes((runs["new"] / name).read_bytes())
    with (tmp_path / "windows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for change_ in ({"energy_j": "1"}, {"energy_j": "junk"}, {"inferences": "0"}, {"missing_s": "1"}):
        with (tmp_path / "windows.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(row | change_ for row in rows)
        assert command.read(tmp_path).windows_j is None
    (tmp_path / "windows.csv").write_bytes(b"\xff\xfe\x00")
    assert command.read(tmp_path).windows_j is None
    (tmp_path / "windows.csv").unlink()
    assert command.read(tmp_path / "result.json").windows_j is None
    done = joulemeter("check", tmp_path, "--baseline", runs["old"])
    assert done.returncode == 0 and "no-windows" in done.stdout


def test_rejected_windows_are_left_out(runs: dict[str, Path], tmp_path: Path) -> None:
    lines = (runs["new"] / "windows.csv").read_text(encoding="utf-8").splitlines()
    header, last = lines[0].split(","), lines[-1].split(",")
    at = {name: index for index, name in enumerate(header)}

    def row(**changed: str) -> str:
        return ",".join(changed.get(name, last[index]) for name, index in at.items())

    lines.insert(1, row(start_s="-0.01", energy_j="1"))
    lines.insert(2, row(missing_s="0.001", energy_j="1"))
    lines.append(row(energy_j="1"))  # goes on beyond the recording
    (tmp_path / "windows.csv").write_text("\n".join(lines), encoding="utf-8")
    whole = command.read(runs["new"])
    assert command.used_windows(tmp_path / "windows.csv", whole.result) == whole.windows_j


def test_the_commands_of_the_documentation_run(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "energy" / "baseline").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "1-kernel").symlink_to(runs["new"])
    for name in ("result.json", "windows.csv"):
        (tmp_path / "energy" / "baseline" / name).write_bytes((runs["old"] / name).read_bytes())
    text = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ *(?:run: )?joulemeter check (.+)$", text, re.MULTILINE)
    assert len(lines) == 2
    for line in lines:
        arguments = ["runs/1-kernel" if part in ("RUN", "runs/*-kernel") else part for part in shlex.split(line)]
        done = joulemeter("check", *arguments, cwd=tmp_path)
        assert done.returncode == 0, done
        assert (tmp_path / "check.xml").exists() and (tmp_path / "check.md").exists()


def test_the_workflow_is_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the workflow of docs/ci.md")
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "ci.md").read_text(encoding="utf-8"), re.DOTALL)
    steps = yaml.safe_load(block)["jobs"]["energy"]["steps"]
    assert all("run" in step or "uses" in step for step in steps)
