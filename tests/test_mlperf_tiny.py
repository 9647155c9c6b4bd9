"""Published MLPerf Tiny energy runs, measured by others, recomputed to the printed digit."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter.caveat import Code
from joulemeter.errors import DataError
from joulemeter.loading import opened
from joulemeter.physics.analyze import Analysis, Request, analyze
from joulemeter.readers import eembc
from joulemeter.registry import reader_for

DATA = Path(__file__).parent.parent.parent / "shared" / "data" / "mlperf_tiny"
RUNS = sorted(path.name for path in DATA.iterdir() if path.is_dir()) if DATA.is_dir() else []
real = pytest.mark.skipif(not RUNS, reason="the recordings are not beside this checkout (../shared/data/mlperf_tiny)")


@cache
def manifest() -> dict[str, Any]:
    rows = json.loads((DATA / "manifest.json").read_text(encoding="utf-8"))["runs"]
    return {row["folder"]: row for row in rows}


def run(folder: Path, convention: str) -> tuple[Analysis, dict[str, Any]]:
    with opened(folder) as recording:
        return analyze(recording, Request(convention=convention)), recording.meta["published"]


def printed(value: float, like: str) -> str:
    return f"{value:.{len(like.partition('.')[2])}f}"


@real
@pytest.mark.outside
@pytest.mark.parametrize("name", RUNS)
def test_every_published_digit(name: str) -> None:
    analysis, published = run(DATA / name, "eembc")
    windows = published["windows"]
    assert len(analysis.windows) == len(windows)
    for ours, theirs in zip(analysis.windows, windows, strict=True):
        digits = theirs["printed"]
        energy_uj = (ours.energy_j or 0.0) * 1e6
        assert printed(energy_uj, digits["energy_uj"]) == digits["energy_uj"]
        assert printed(energy_uj / ours.window.inferences, digits["uj_per_inf"]) == digits["uj_per_inf"]
        power = "power_uw" if "power_uw" in digits else "power_mw"
        scale = {"power_uw": 1e6, "power_mw": 1e3}[power]
        assert printed((ours.mean_power_w or 0.0) * scale, digits[power]) == digits[power]
    median = analysis.result.energy_per_inference_j.median
    like = published["printed"]["median_uj_per_inf"]
    assert median is not None
    assert printed(median * 1e6, like) == like
    # The manifest was compiled by others than this project's reader.
    assert median * 1e6 == pytest.approx(manifest()[name]["median_uJ_per_inf"], abs=6e-4)
    if published["median_throughput"] is not None:
        like = published["printed"]["median_throughput"]
        assert printed(1 / (analysis.result.latency_s.median or 1.0), like) == like


@real
@pytest.mark.outside
@pytest.mark.parametrize("name", RUNS)
def test_sharing_samples_moves_a_window_by_less_than_two_samples_an_edge(name: str) -> None:
    native, _ = run(DATA / name, "native")
    theirs, _ = run(DATA / name, "eembc")
    for ours, published in zip(native.windows, theirs.windows, strict=True):
        most_j = 4 * (ours.peak_power_w or 0.0) / 1000.0
        assert abs((ours.energy_j or 0.0) - (published.energy_j or 0.0)) <= most_j


@real
@pytest.mark.outside
def test_the_run_with_a_missing_stop_is_told() -> None:
    names = [name for name in RUNS if len(manifest()[name]["windows"]) == 4]
    for name in names:
        analysis, _ = run(DATA / name, "eembc")
        assert Code.ODD_STAMP_COUNT in {caveat.code for caveat in analysis.result.caveats}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Five windows of 12 s at 10 mW, 20 mW, ... with idle at 1 mW, as EnergyRunner would have kept them."""
    stamps = [0.01]
    power = np.full(100_000, 1e-3)
    for k in range(5):
        start, stop = 5.0 + 18.0 * k, 17.0 + 18.0 * k
        stamps += [start, stop]
        power[round(start * 1000) : round(stop * 1000)] = (k + 1) * 10e-3
    eembc.write(tmp_path, power, stamps)
    return tmp_path


def test_a_small_recording_of_our_own(small: Path) -> None:
    assert reader_for(small).INFO.key == "eembc"
    with opened(small) as recording:
        result = analyze(recording, Request(inferences_per_window=100)).result
    # float32 samples of 10, 20, 30, 40, 50 uJ carry 24 bits.
    assert result.energy_per_inference_j.median == pytest.approx(30e-3 * 12 / 100, rel=1e-6)
    assert result.energy_per_inference_j.expanded_k2 is None
    assert result.windows.used == 5
    assert Code.SHORT_WINDOW not in {caveat.code for caveat in result.caveats}


def test_windows_under_ten_seconds_are_named(tmp_path: Path) -> None:
    eembc.write(tmp_path, np.full(40_000, 0.01), [0.01, 5.0, 12.0, 15.0, 26.0])
    with opened(tmp_path) as recording:
        result = analyze(recording, Request(inferences_per_window=1)).result
    short = [caveat for caveat in result.caveats if caveat.code is Code.SHORT_WINDOW]
    assert short[0].data["windows"] == [0]
    assert result.windows.used == 2


def test_stamps_after_the_last_sample_are_named(tmp_path: Path) -> None:
    eembc.write(tmp_path, np.full(40_000, 0.01), [0.01, 5.0, 16.0, 20.0, 60.0])
    for convention in ("native", "eembc"):
        with opened(tmp_path) as recording:
            result = analyze(recording, Request(inferences_per_window=1, convention=convention)).result
        assert result.windows.rejected == {"cut-at-end": 1}
        assert Code.CUT_WINDOW in {caveat.code for caveat in result.caveats}


def test_too_few_stamps_are_an_error(tmp_path: Path) -> None:
    eembc.write(tmp_path, np.full(40_000, 0.01), [0.01, 5.0])
    with opened(tmp_path) as recording, pytest.raises(DataError, match="2 time stamps; one window needs three"):
        analyze(recording, Request(inferences_per_window=1))
