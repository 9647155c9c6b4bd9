"""A result among published rows in its report: only what may be compared, and with every doubt."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from report_pages import Page, envelope, result, rows, standing, summary

from joulemeter import profile
from joulemeter.comparison import choose, compare, of_result, of_row
from joulemeter.comparison.amounts import PER_JOULE
from joulemeter.errors import UsageError
from joulemeter.physics.rules import Measured
from joulemeter.readers import eembc
from joulemeter.report import comparefigures
from joulemeter.report.html import MOST_BARS, render
from joulemeter.report.standing import Asked, among, asked
from joulemeter.result import Result, Summary

MEASURED = Result(name="mine", created="", simulated=False, energy_per_inference_j=summary([1e-3, 1.02e-3, 1.01e-3]))


def hashed(stem: str) -> str:
    """The hash of a model file of that card."""
    return next(variant.sha256 for variant in profile.load("model", stem).variants if variant.sha256)


def test_nothing_is_compared_unless_asked() -> None:
    assert among(MEASURED, asked(None)) is None
    named = dataclasses.replace(MEASURED, workload={"model": "ic"})
    assert among(named, asked(None)) is None


def test_a_model_known_byte_by_byte_is_compared_by_itself() -> None:
    certain = dataclasses.replace(MEASURED, workload={"model": "whatever.tflite", "model_sha256": hashed("kws")})
    found = among(certain, asked(None))
    assert found is not None
    (group,) = found.table.groups
    assert group.key == "mlperf-tiny:kws"
    assert among(certain, asked(["none"])) is None
    assert among(dataclasses.replace(certain, simulated=True), asked(None)) is None
    other = dataclasses.replace(MEASURED, workload={"model": "x", "model_sha256": "00" * 32})
    assert among(other, asked(None)) is None


def test_only_the_group_that_holds_it_is_shown_and_the_others_are_counted() -> None:
    found = among(MEASURED, asked(["mlperf-tiny"], model="ic"))
    assert found is not None
    assert [group.key for group in found.table.groups] == ["mlperf-tiny:ic"]
    everything = choose(["mlperf-tiny"])
    ic = sum(row.benchmark == "ic" for row in everything.rows)
    said = f"{len(everything.rows) - ic} published rows: left out because another model or unit is meant."
    assert said in found.left_out


def test_an_unknown_model_is_a_guest_with_a_doubt() -> None:
    found = among(MEASURED, asked(["mlperf-tiny:ic"]))
    assert found is not None
    assert "unknown-model" in {doubt.code for doubt in found.table.groups[0].doubts}
    page = Page(render(result(), rows(), envelope(), table=found.table, left_out=found.left_out))
    assert "Among published results: MLPerf Tiny ic (image classification)" in page.text
    assert "nobody says which model ran" in page.text


def test_a_result_without_energy_is_ranked_by_its_latency() -> None:
    found = among(dataclasses.replace(MEASURED, energy_per_inference_j=Summary()), asked(["mlperf-tiny:ic"]))
    assert found is not None
    assert found.table.sort == "latency_s"


def test_the_page_tells_where_it_stands_and_draws_the_nearest() -> None:
    found = standing("mine")
    page = Page(render(result(), rows(), envelope(), table=found.table))
    assert "mine ranks" in page.text
    assert "nothing here is an MLPerf result" in page.text
    bars = page.figures["bars0"]["data"]
    drawn = sum(len(trace["x"]) for trace in bars)
    assert drawn == MOST_BARS < len(found.table.groups[0].placed)
    assert f"{len(found.table.groups[0].placed) - MOST_BARS} of" in page.text
    # All of them are in the table.
    assert page.count("td", **{"class": "words name"}) == len(found.table.groups[0].placed)
    assert page.count("table", **{"data-origin": "published"}) == 1


def test_a_bar_without_an_interval_has_no_whisker() -> None:
    table = compare(
        [of_result(Measured(result=MEASURED), "x", model="ic")],
        [of_row(row) for row in choose(["mlperf-tiny:ic"]).rows],
    )
    figure = comparefigures.bars(table.groups[0], PER_JOULE)
    assert figure is not None
    whiskers = {trace["name"]: "error_x" in trace for trace in figure["data"]}
    assert whiskers == {"measured": True, "published by others": False}
    assert None not in figure["data"][0]["error_x"]["array"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((["mlperf-tiny:ic"], None, "my desk"), "'my desk' is nothing that a meter covers"),
        ((None, "ic", None), "--model and --scope are about published rows"),
        ((["none", "mlperf-tiny"], None, None), "--published none leaves out"),
    ],
)
def test_what_makes_no_sense_is_refused(given: tuple[list[str] | None, str | None, str | None], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        asked(*given)


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch"):
        among(MEASURED, Asked(patterns=("mlperf-tiny:nosuch",)))


def test_the_command_shows_it_and_tells_how_the_page_was_made(tmp_path: Path) -> None:
    folder = tmp_path / "my <board>"
    power = np.where(np.arange(6000) % 1000 < 20, 0.12, 1e-3)
    stamps = [0.1, *[edge for at in range(4) for edge in (1.0 + at, 1.02 + at)]]
    folder.mkdir()
    eembc.write(folder, power, stamps)
    out = tmp_path / "r.html"
    options = "--inferences-per-window 1 --published mlperf-tiny:ic --model ic"
    command = [sys.executable, "-m", "joulemeter", "report", str(folder), *options.split(), "-o", str(out), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    page = Page(out.read_text("utf-8"))
    assert "Among published results: MLPerf Tiny ic" in page.text
    assert f"this page by python -m joulemeter report '{folder}' {options}" in page.text
