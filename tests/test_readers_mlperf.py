"""Readers of MLPerf Tiny energy runs, against files built byte by byte and against what the submitters published."""

from __future__ import annotations

import csv
import json
import math
import statistics
import struct
from functools import cache
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from joulemeter.capture import Kind, Quantity, Recording, Status
from joulemeter.caveat import Code, Severity
from joulemeter.errors import AccessError, DataError, JouleMeterError, UsageError
from joulemeter.reader import ReaderModule
from joulemeter.readers import eembc, mlcommons, results_txt

ROOT = Path(__file__).parents[1]
RUNS = ROOT.parent / "shared" / "data" / "mlperf_tiny"
real_runs = pytest.mark.skipif(not RUNS.is_dir(), reason="the MLPerf Tiny recordings are not beside the checkout")

BIN, STAMPS, JSON, TXT = "trace1-energy.bin", "trace1-timestamps.json", "results.json", "results.txt"


def codes(recording: Recording) -> list[Code]:
    return [caveat.code for caveat in recording.caveats]


def power_of(recording: Recording) -> NDArray[np.float64]:
    (stream,) = recording.streams
    data = np.concatenate([block.data["power"] for block in stream.blocks()])
    assert stream.length == len(data)
    return data


# -- EnergyRunner: one good folder, field by field --------------------------------------------------------------------

ENERGY_RUNNER_BYTES = (
    b"\xf1"  # version
    b"\x00\x00\x7a\x44"  # 1000.0 Hz as IEEE 754 single, little-endian
    b"\x00\x00\x80\x3f"  # 1.0 uJ
    b"\x00\x00\x20\x40"  # 2.5 uJ
    b"\x00\x00\x00\xbf"  # -0.5 uJ
    b"\x00\x00\xc8\x42"  # 100.0 uJ
)
POWER_W = [1e-3, 2.5e-3, -0.5e-3, 0.1]


def energy_runner(
    folder: Path, raw: bytes = ENERGY_RUNNER_BYTES, stamps: str | None = "[0.001, 0.002, 0.004]", txt: str = ""
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / BIN).write_bytes(raw)
    if stamps is not None:
        (folder / STAMPS).write_text(stamps)
    if txt:
        (folder / TXT).write_text(txt)
    return folder


def test_an_energy_runner_folder_byte_by_byte(tmp_path: Path) -> None:
    folder = energy_runner(tmp_path / "my_run")
    assert eembc.recognises(folder)
    assert eembc.recognises(folder / BIN)
    for path in (folder, folder / BIN):
        recording = eembc.read(path)
        np.testing.assert_allclose(power_of(recording), POWER_W, rtol=1e-15)
        assert recording.name == "my_run"
        assert recording.trigger == "events:falling-pairs"
        assert [event.time_ns for event in recording.events] == [1_000_000, 2_000_000, 4_000_000]
        assert {event.label for event in recording.events} == {"stamp"}
        assert [event.data["index"] for event in recording.events] == [0, 1, 2]
        # JCGM 100, 4.3.7: rounding to 1 ms is a rectangle of half-width 0.5 ms
        assert recording.events[0].u_s == pytest.approx(0.28868e-3, rel=1e-4)
        assert recording.caveats == ()
        assert recording.meta == {"inferences_per_window": None, "published": None}
        (stream,) = recording.streams
        assert stream.header.rate_hz == stream.timebase.rate_hz == 1000.0
        assert stream.header.voltage is None
        assert not stream.header.simulated
        (channel,) = stream.header.channels
        assert (channel.quantity, channel.unit, channel.kind) == (Quantity.POWER, "W", Kind.MEAN)
        assert channel.accuracy == ()


def test_write_gives_the_same_bytes(tmp_path: Path) -> None:
    trace = eembc.write(tmp_path / "new", POWER_W, [0.0010004, 0.002, 0.004])
    assert trace == tmp_path / "new" / BIN
    assert trace.read_bytes() == ENERGY_RUNNER_BYTES
    assert json.loads((tmp_path / "new" / STAMPS).read_text()) == [0.001, 0.002, 0.004]


def test_write_and_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    power_w = rng.lognormal(-5, 1, 5000)
    stamps_s = [0.014, *sorted(rng.choice(np.arange(20, 4999), 10, replace=False) / 500)]
    eembc.write(tmp_path, power_w, stamps_s, rate_hz=500.0)
    recording = eembc.read(tmp_path)
    np.testing.assert_allclose(power_of(recording), power_w, rtol=2.0**-23)
    assert [event.time_ns for event in recording.events] == [round(stamp_s * 1000) * 10**6 for stamp_s in stamps_s]
    assert recording.streams[0].timebase.rate_hz == 500.0


@pytest.mark.parametrize(
    ("stamps_s", "rate_hz"),
    [([0.002, 0.001], 1e3), ([0.0010, 0.0014], 1e3), ([-1.0], 1e3), ([math.nan], 1e3), ([], 0.0), ([], math.inf)],
)
def test_write_refuses_what_the_format_cannot_hold(tmp_path: Path, stamps_s: list[float], rate_hz: float) -> None:
    with pytest.raises(UsageError):
        eembc.write(tmp_path / "new", POWER_W, stamps_s, rate_hz)
    assert not (tmp_path / "new").exists()


def test_write_does_not_overwrite(tmp_path: Path) -> None:
    folder = energy_runner(tmp_path)
    with pytest.raises(UsageError, match="exists already"):
        eembc.write(folder, [1.0], [])
    assert (folder / BIN).read_bytes() == ENERGY_RUNNER_BYTES


# -- EnergyRunner: damaged --------------------------------------------------------------------------------------------

HEADER = ENERGY_RUNNER_BYTES[:5]


@pytest.mark.parametrize(
    ("raw", "error", "says"),
    [
        (b"", DataError, "0 bytes"),
        (b"\xf1\x00", DataError, "2 bytes"),
        (b"\x1f" + ENERGY_RUNNER_BYTES[1:], DataError, "0x1F"),
        (HEADER, DataError, "no samples"),
        (HEADER + b"\x00\x00\x80", DataError, "no samples"),
        (b"\xf1" + struct.pack("<f", math.nan) + bytes(4), DataError, "rate of nan"),
        (b"\xf1" + struct.pack("<f", math.inf) + bytes(4), DataError, "rate of inf"),
        (b"\xf1" + struct.pack("<f", 0.0) + bytes(4), DataError, "rate of 0.0"),
        (b"\xf1" + struct.pack("<f", -1000.0) + bytes(4), DataError, "rate of -1000.0"),
        (HEADER + struct.pack("<2f", math.nan, math.inf), DataError, "Not one of the 2"),
    ],
)
def test_a_trace_that_cannot_be_used(tmp_path: Path, raw: bytes, error: type[Exception], says: str) -> None:
    folder = energy_runner(tmp_path, raw)
    with pytest.raises(error, match=says) as caught:
        eembc.read(folder)
    assert str(folder / BIN) in str(caught.value)


@pytest.mark.parametrize(
    ("stamps", "error", "says"),
    [
        (None, UsageError, "missing"),
        ("", DataError, "list of stamps"),
        ("{}", DataError, "list of stamps"),
        ("[0.001, 0.002", DataError, "list of stamps"),
        ('[0.001, "0.002"]', DataError, r"\$\[1\]"),
        ("[0.001, true]", DataError, r"\$\[1\]"),
        ("[0.001, null]", DataError, r"\$\[1\]"),
        ("[0.001, NaN]", DataError, "list of stamps"),
        ("[0.001, 1e999]", DataError, "list of stamps"),
        ("[0.001, 1e300]", DataError, r"\$\[1\]"),
        ("[-0.001, 0.002]", DataError, r"\$\[0\]"),
        ("[0.001, 0.003, 0.002]", DataError, r"stamp 2 \(0.002 s\) does not come after stamp 1 \(0.003 s\)"),
        ("[0.001, 0.002, 0.002]", DataError, "stamp 2"),
        ("[" * 100_000, DataError, "list of stamps"),
        ("\xff\xfe", DataError, "list of stamps"),
    ],
)
def test_stamps_that_cannot_be_used(tmp_path: Path, stamps: str | None, error: type[Exception], says: str) -> None:
    folder = energy_runner(tmp_path, stamps=stamps)
    with pytest.raises(error, match=says) as caught:
        eembc.read(folder)
    assert str(folder / STAMPS) in str(caught.value)


@pytest.mark.parametrize("rest", [1, 2, 3])
def test_a_partial_sample_is_left_out_and_named(tmp_path: Path, rest: int) -> None:
    recording = eembc.read(energy_runner(tmp_path, ENERGY_RUNNER_BYTES + b"\x80\x3f\x00"[:rest]))
    np.testing.assert_allclose(power_of(recording), POWER_W, rtol=1e-15)
    (caveat,) = recording.caveats
    assert (caveat.code, caveat.severity, caveat.data) == (Code.TRUNCATED, Severity.DOUBT, {"bytes": rest})
    assert str(tmp_path / BIN) in caveat.text


def test_samples_that_are_no_numbers_are_marked(tmp_path: Path) -> None:
    raw = HEADER + struct.pack("<4f", 1.0, math.nan, -math.inf, 4.0)
    recording = eembc.read(energy_runner(tmp_path, raw))
    (stream,) = recording.streams
    (block,) = stream.blocks()
    np.testing.assert_array_equal(np.isnan(block.data["power"]), [False, True, True, False])
    assert block.status is not None
    assert block.status.tolist() == [Status.GOOD, Status.INVALID, Status.INVALID, Status.GOOD]
    (caveat,) = recording.caveats
    assert (caveat.code, caveat.data) == (Code.INVALID_SAMPLES, {"samples": 2})
    assert str(tmp_path / BIN) in caveat.text


def test_stamps_after_the_last_sample_are_kept_and_named(tmp_path: Path) -> None:
    recording = eembc.read(energy_runner(tmp_path, stamps="[0.001, 0.002, 0.004, 0.005, 0.010]"))
    assert len(recording.events) == 5
    (caveat,) = recording.caveats
    assert (caveat.code, caveat.data) == (Code.TRUNCATED, {"stamps": 2})
    assert str(tmp_path / STAMPS) in caveat.text


def test_an_even_number_of_stamps_is_not_the_readers_to_judge(tmp_path: Path) -> None:
    recording = eembc.read(energy_runner(tmp_path, stamps="[0.001, 0.002]"))
    assert (len(recording.events), recording.caveats) == (2, ())


# -- MLCommons runner: one good folder --------------------------------------------------------------------------------


def trial(samples: list[Any], stamps: list[Any], iterations: int = 40, **more: Any) -> dict[str, Any]:
    return {
        "file": "yes.bin",
        "class": "0",
        "infer": {"results": [0.5], "total_inferences": 1, "iterations": iterations, "warmups": 1},
        "power": {"samples": samples, "timestamps": stamps, "extracted_power": None, "voltage": 1.8},
        "mode": "e",
        **more,
    }


def runner(folder: Path, trials: Any, txt: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / JSON).write_text(json.dumps(trials))  # writes NaN as the runner does
    if txt:
        (folder / TXT).write_text(txt)
    return folder


def test_a_python_runner_folder(tmp_path: Path) -> None:
    # The board's start pulse comes first, as in NUCLEO_L4R5ZI-P of v1.3.
    first = trial([1e-6, 2e-6, 3e-6, 4e-6], [["00", 0], ["01", 1], ["02", 3]])
    second = trial([5e-6, 6e-6], [["03", 0], ["04", 2]], file="no.bin")
    folder = runner(tmp_path / "my_run", [first, second])
    assert mlcommons.recognises(folder)
    assert mlcommons.recognises(folder / JSON)
    for path in (folder, folder / JSON):
        recording = mlcommons.read(path)
        np.testing.assert_allclose(power_of(recording), [1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3], rtol=1e-15)
        assert (recording.name, recording.trigger) == ("my_run", "events")
        assert [(event.label, event.time_ns, event.data["trial"]) for event in recording.events] == [
            ("stamp", 0, 0),
            ("begin", 1_000_000, 0),
            ("end", 3_000_000, 0),
            ("begin", 4_000_000, 1),
            ("end", 6_000_000, 1),
        ]
        assert {event.data["inferences"] for event in recording.events} == {40}
        (caveat,) = recording.caveats
        assert (caveat.code, caveat.severity, caveat.data) == (Code.TRIALS_JOINED, Severity.NOTE, {"trials": 2})
        assert recording.meta == {
            "inferences_per_window": 40,
            "workload": {"inputs": ["yes.bin", "no.bin"], "warmups": 1, "mode": "e"},
            "published": None,
        }
        (stream,) = recording.streams
        assert stream.timebase.rate_hz == 1000.0
        assert stream.header.parameters == {"supply_set_v": 1.8}


def test_trials_that_differ_have_no_common_number_of_inferences(tmp_path: Path) -> None:
    stamps = [["00", 0], ["01", 1]]
    recording = mlcommons.read(runner(tmp_path, [trial([1e-6], stamps, 10), trial([1e-6], stamps, 20)]))
    assert recording.meta["inferences_per_window"] is None
    assert [event.data["inferences"] for event in recording.events] == [10, 10, 20, 20]


def test_one_trial_is_not_joined(tmp_path: Path) -> None:
    assert mlcommons.read(runner(tmp_path, [trial([1e-6], [["00", 0], ["01", 1]])])).caveats == ()


# -- MLCommons runner: damaged ----------------------------------------------------------------------------------------

GOOD = trial([1e-6, 1e-6, 1e-6], [["00", 0], ["01", 2]])


@pytest.mark.parametrize(
    ("stamps", "labels"),
    [
        ([], []),
        ([["02", 1]], ["stamp"]),
        ([["02", 1], ["03", 1]], ["stamp", "stamp"]),
        ([["02", 1], ["03", 4]], ["stamp"]),
    ],
)
def test_a_trial_without_a_window_is_named(tmp_path: Path, stamps: list[Any], labels: list[str]) -> None:
    recording = mlcommons.read(runner(tmp_path, [GOOD, trial([1e-6, 1e-6, 1e-6], stamps)]))
    assert [event.label for event in recording.events] == ["begin", "end", *labels]
    cut = next(caveat for caveat in recording.caveats if caveat.code is Code.CUT_WINDOW)
    assert (cut.severity, cut.data) == (Severity.DOUBT, {"trial": 1})
    assert str(tmp_path / JSON) in cut.text


def test_readings_that_failed_are_marked(tmp_path: Path) -> None:
    bad = trial([1e-6, math.nan, None, math.inf, 1e308], [["00", 0], ["01", 5]])
    recording = mlcommons.read(runner(tmp_path, [GOOD, bad]))
    (block,) = recording.streams[0].blocks()
    assert block.status is not None
    assert block.status.tolist() == [0, 0, 0, 0, *[Status.INVALID] * 4]
    assert np.isnan(block.data["power"]).tolist() == [False] * 4 + [True] * 4
    assert codes(recording) == [Code.TRIALS_JOINED, Code.INVALID_SAMPLES]


def without(key: str, inside: str | None = None) -> dict[str, Any]:
    changed: dict[str, Any] = json.loads(json.dumps(GOOD))
    del (changed[inside] if inside else changed)[key]
    return changed


@pytest.mark.parametrize(
    ("trials", "error", "says"),
    [
        ([], DataError, "no trials"),
        ([trial([], [])], DataError, "no samples"),
        ([trial([math.nan], [])], DataError, "Not one of the 1"),
        ([trial([1e-6, 1e-6], [["00", 2], ["01", 1]])], DataError, "out of order"),
        ({}, UsageError, "array"),
        ([1], UsageError, r"\$\[0\]"),
        ([GOOD, without("power")], UsageError, r"`power` - at `\$\[1\]`"),
        ([without("infer")], UsageError, "`infer`"),
        ([without("samples", "power")], UsageError, r"`samples` - at `\$\[0\].power`"),
        ([without("timestamps", "power")], UsageError, "`timestamps`"),
        ([trial(["1e-6"], [])], UsageError, r"\$\[0\].power.samples\[0\]"),
        ([trial([1e-6], [["00"]])], UsageError, r"\$\[0\].power.timestamps\[0\]"),
        ([trial([1e-6], [["00", -1]])], UsageError, r"\$\[0\].power.timestamps\[0\]\[1\]"),
        ([trial([1e-6], [], iterations=0)], UsageError, r"\$\[0\].infer.iterations"),
    ],
)
def test_trials_that_cannot_be_used(tmp_path: Path, trials: Any, error: type[Exception], says: str) -> None:
    folder = runner(tmp_path, trials)
    with pytest.raises(error, match=says) as caught:
        mlcommons.read(folder)
    assert str(folder / JSON) in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe[", b"[" * 100_000, json.dumps([GOOD]).encode()[:-3], b"[1" + b"0" * 5000 + b"]"]
)
def test_what_is_no_json(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / JSON).write_bytes(raw)
    with pytest.raises(UsageError) as caught:
        mlcommons.read(tmp_path)
    assert str(tmp_path / JSON) in str(caught.value)


# -- both -------------------------------------------------------------------------------------------------------------


READERS: list[tuple[ReaderModule, str]] = [(eembc, BIN), (mlcommons, JSON)]


@pytest.mark.parametrize(("reader", "name"), READERS)
def test_what_is_not_there(tmp_path: Path, reader: ReaderModule, name: str) -> None:
    for path in (tmp_path, tmp_path / name, tmp_path / "nowhere"):
        assert not reader.recognises(path)
        with pytest.raises(UsageError, match="does not exist"):
            reader.read(path)


@pytest.mark.parametrize(("reader", "name"), READERS)
def test_what_cannot_be_opened(tmp_path: Path, reader: ReaderModule, name: str) -> None:
    (tmp_path / name).mkdir()  # permissions would not bind an administrator
    assert not reader.recognises(tmp_path)
    with pytest.raises(AccessError, match="cannot be read") as caught:
        reader.read(tmp_path)
    assert str(tmp_path / name) in str(caught.value)


def test_each_recognises_only_its_own(tmp_path: Path) -> None:
    theirs, ours = energy_runner(tmp_path / "a"), runner(tmp_path / "b", [GOOD])
    assert (eembc.recognises(theirs), mlcommons.recognises(theirs)) == (True, False)
    assert (eembc.recognises(ours), mlcommons.recognises(ours)) == (False, True)
    other = tmp_path / "c"
    other.mkdir()
    (other / BIN).write_bytes(b"PK\x03\x04")
    (other / JSON).write_text('{"results": []}')
    assert not eembc.recognises(other)
    assert not mlcommons.recognises(other)
    # The record of an accuracy run is the runner's own, and what is wrong with it can be said.
    accuracy = runner(tmp_path / "d", [{"infer": {"results": [1.0]}}])
    assert mlcommons.recognises(accuracy)
    with pytest.raises(UsageError, match="energy mode"):
        mlcommons.read(accuracy)


@settings(max_examples=150, deadline=None)
@given(tail=st.binary(max_size=40), stamps=st.binary(max_size=30) | st.just(b"[0.001]"))
@example(tail=b"\x00\x00\x7a\x44\x01\x00\xa0\x7f\x00\x00\x80\x3f", stamps=b"[]")  # a signalling NaN
def test_any_bytes_give_a_recording_or_an_error_that_says_why(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, stamps: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any", numbered=True)
    (folder / BIN).write_bytes(b"\xf1" + tail)
    (folder / STAMPS).write_bytes(stamps)
    (folder / JSON).write_bytes(stamps)
    for reader, _ in READERS:
        try:
            recording = reader.read(folder)
        except JouleMeterError as error:
            assert str(folder) in str(error)
        else:
            assert len(power_of(recording)) > 0


# -- what the runners printed -----------------------------------------------------------------------------------------

PRINTED_BY_ENERGY_RUNNER = """\
00165.086 ulp-ml: Energy data for window 2 at time 9.13 for 1.37 sec.:
00165.086 ulp-ml:   Energy       :   793238.220 uJ
00165.086 ulp-ml:   Power        :    69753.625 uW
00165.086 ulp-ml:   Energy/Inf.  :      528.825 uJ/inf.
00165.106 ulp-ml: ---------------------------------------------------------
00165.106 ulp-ml: Median energy cost is 528.820 uJ/inf.
00165.106 ulp-ml: ---------------------------------------------------------
00165.106 ulp-ml: Performance results for window 2:
00165.106 ulp-ml:   # Inferences :         1500
00165.106 ulp-ml:   Runtime      :        1.372 sec.
00165.106 ulp-ml:   Throughput   :     1093.294 inf./sec.
00165.106 ulp-ml: e-[The run must take at least 10 seconds and 10 iterations to be valid]
00165.107 ulp-ml: Median throughput is 1093.294 inf./sec.
"""
PRINTED_BY_PYTHON_RUNNER = """\
Power Edition Output
Energy data for trial 0
  Elapsed time  : 1200.002
  Inferences    : 1
  Power         : 25.6220 mW.
  Total Energy  : 30746401.810 uJ
  Energy/Inf    : 30746401.810 uJ/inf
---------------------------------------------------------
Median energy cost is 30746401.8100 uJ/inf.
---------------------------------------------------------
Accuracy: 44 True positives, 6 False negatives, 4 False positives
"""


def test_the_print_of_energy_runner() -> None:
    published = results_txt.parse(PRINTED_BY_ENERGY_RUNNER)
    assert published is not None
    (window,) = published["windows"]
    printed = window.pop("printed")
    assert window == {
        "window": 2, "energy_uj": 793238.22, "power_uw": 69753.625, "uj_per_inf": 528.825, "inferences": 1500,
        "runtime_s": 1.372, "throughput": 1093.294,
        "error": "The run must take at least 10 seconds and 10 iterations to be valid",
    }  # fmt: skip
    assert printed == {
        "energy_uj": "793238.220", "power_uw": "69753.625", "uj_per_inf": "528.825", "inferences": "1500",
        "runtime_s": "1.372", "throughput": "1093.294",
    }  # fmt: skip
    assert (published["median_uj_per_inf"], published["median_throughput"]) == (528.82, 1093.294)
    assert published["printed"] == {"median_uj_per_inf": "528.820", "median_throughput": "1093.294"}


def test_the_print_of_the_python_runner() -> None:
    published = results_txt.parse(PRINTED_BY_PYTHON_RUNNER)
    assert published is not None
    (window,) = published["windows"]
    assert window.pop("printed")["energy_uj"] == "30746401.810"
    assert window == {
        "window": 0, "elapsed_s": 1200.002, "inferences": 1, "power_mw": 25.622, "energy_uj": 30746401.81,
        "uj_per_inf": 30746401.81,
    }  # fmt: skip
    assert published["median_uj_per_inf"] == 30746401.81
    assert published["median_throughput"] is None
    assert published["printed"] == {"median_uj_per_inf": "30746401.8100"}


def test_what_was_not_printed_is_none(tmp_path: Path) -> None:
    assert results_txt.parse("") is None
    assert results_txt.parse("Median energy cost is 1.000 uJ/inf.") is None
    assert results_txt.inferences_per_window(None) is None
    energy_only = results_txt.parse("".join(PRINTED_BY_ENERGY_RUNNER.splitlines(keepends=True)[:4]))
    assert energy_only is not None
    assert "inferences" not in energy_only["windows"][0]
    assert energy_only["median_uj_per_inf"] is None
    assert results_txt.inferences_per_window(energy_only) is None


def test_the_number_of_inferences_comes_from_the_print(tmp_path: Path) -> None:
    recording = eembc.read(energy_runner(tmp_path / "a", txt=PRINTED_BY_ENERGY_RUNNER))
    assert recording.meta["inferences_per_window"] == 1500
    assert recording.meta["published"] == results_txt.parse(PRINTED_BY_ENERGY_RUNNER)
    # Silicon Labs named the file so in v0.7 and v1.0.
    folder = energy_runner(tmp_path / "b")
    (folder / "energy_results.txt").write_text(PRINTED_BY_ENERGY_RUNNER)
    assert eembc.read(folder).meta["inferences_per_window"] == 1500
    differing = PRINTED_BY_ENERGY_RUNNER + PRINTED_BY_ENERGY_RUNNER.replace("window 2", "window 4").replace("1500", "9")
    recording = eembc.read(energy_runner(tmp_path / "c", txt=differing))
    assert recording.meta["inferences_per_window"] is None


# -- every published digit --------------------------------------------------------------------------------------------


@cache
def manifest() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads((RUNS / "manifest.json").read_text())["runs"]
    return runs


@cache
def accumulated_s(samples: int) -> NDArray[np.float64]:
    """EnergyRunner's times of samples: 0.001 added once per sample, in double precision, with its rounding error."""
    return np.fromiter(accumulate(repeat(0.001, samples - 1), initial=0.0), dtype=np.float64, count=samples)


def snapped(start_s: float, stop_s: float, times_s: NDArray[np.float64]) -> tuple[int, int]:
    """The half-open span of sample indices that EnergyRunner sums: the nearest borders, then one sample by rounding."""
    i, j = round(start_s * 1000), round(stop_s * 1000)
    return i + bool(times_s[i] < start_s), j + bool(times_s[j] <= stop_s)


@real_runs
@pytest.mark.outside
def test_energy_runner_figures_to_the_last_digit() -> None:
    folders = [RUNS / run["folder"] for run in manifest() if run["format"] == "bin"]
    windows = 0
    for folder in folders:
        recording = eembc.read(folder)
        power_w, published = power_of(recording), recording.meta["published"]
        stamps_s = [(event.time_ns or 0) / 1e9 for event in recording.events]
        times_s = accumulated_s(600_000)[: len(power_w)]
        assert recording.caveats == ()
        assert len(stamps_s) == 2 * len(published["windows"]) + 1
        per_inference, throughputs = [], []
        for window in published["windows"]:
            start_s, stop_s = stamps_s[window["window"] - 1], stamps_s[window["window"]]
            held = np.flatnonzero((times_s >= start_s) & (times_s <= stop_s))
            assert snapped(start_s, stop_s, times_s) == (held[0], held[-1] + 1)
            energy_uj = float(power_w[held].sum()) / 1000 * 1e6
            per_inference.append(energy_uj / window["inferences"])
            throughputs.append(window["inferences"] / (stop_s - start_s))
            assert {
                "energy_uj": f"{energy_uj:.3f}",
                "power_uw": f"{energy_uj * 1000 / len(held):.3f}",
                "uj_per_inf": f"{per_inference[-1]:.3f}",
                "runtime_s": f"{stop_s - start_s:.3f}",
                "throughput": f"{throughputs[-1]:.3f}",
                "inferences": str(recording.meta["inferences_per_window"]),
            }.items() <= window["printed"].items(), (folder.name, window["window"])
            windows += 1
        assert f"{statistics.median(per_inference):.3f}" == published["printed"]["median_uj_per_inf"], folder.name
        assert f"{statistics.median(throughputs):.3f}" == published["printed"]["median_throughput"], folder.name
    assert (len(folders), windows) == (49, 245)


@real_runs
@pytest.mark.outside
def test_python_runner_figures_to_the_last_digit() -> None:
    folders = [RUNS / run["folder"] for run in manifest() if run["format"] == "py-json"]
    windows = 0
    for folder in folders:
        recording = mlcommons.read(folder)
        power_w, published = power_of(recording), recording.meta["published"]
        begins = [event for event in recording.events if event.label == "begin"]
        ends = [event for event in recording.events if event.label == "end"]
        assert codes(recording) == [Code.TRIALS_JOINED]
        per_inference = []
        for begin, end, window in zip(begins, ends, published["windows"], strict=True):
            i, j = (begin.time_ns or 0) // 10**6, (end.time_ns or 0) // 10**6
            energy_uj = float(power_w[i:j].sum()) / 1000 * 1e6
            per_inference.append(energy_uj / begin.data["inferences"])
            assert begin.data["trial"] == end.data["trial"] == window["window"]
            assert window["elapsed_s"] == pytest.approx((j - i) / 1000, rel=1e-12)
            assert {
                "energy_uj": f"{energy_uj:.3f}",
                "power_mw": f"{energy_uj / (j - i):.4f}",
                "uj_per_inf": f"{per_inference[-1]:.3f}",
                "inferences": str(recording.meta["inferences_per_window"]),
            }.items() <= window["printed"].items(), (folder.name, window["window"])
            windows += 1
        assert f"{statistics.median(per_inference):.4f}" == published["printed"]["median_uj_per_inf"], folder.name
    assert (len(folders), windows) == (3, 15)


@real_runs
@pytest.mark.outside
@pytest.mark.parametrize("run", manifest() if RUNS.is_dir() else [], ids=lambda run: run["folder"])
def test_the_prints_agree_with_the_manifest(run: dict[str, Any]) -> None:
    published = results_txt.beside(RUNS / run["folder"])
    assert published is not None
    assert published["median_uj_per_inf"] == run["median_uJ_per_inf"]
    assert results_txt.inferences_per_window(published) == run["windows"][0]["inferences"]
    for ours, theirs in zip(published["windows"], run["windows"], strict=True):
        power_uw = ours["power_uw"] if "power_uw" in ours else ours["power_mw"] * 1e3
        assert power_uw == pytest.approx(theirs["power_uW"], rel=1e-12)
        assert (ours["window"], ours["energy_uj"], ours["uj_per_inf"], ours["inferences"]) == (
            theirs["window"],
            theirs["energy_uJ"],
            theirs["uJ_per_inf"],
            theirs["inferences"],
        )
        assert ours.get("runtime_s") == theirs.get("runtime_s")


# -- the published table ----------------------------------------------------------------------------------------------

TABLE = ROOT / "results" / "published" / "mlperf_tiny.csv"
RUNS_PER_ROUND = {"v0.5": 4, "v0.7": 34, "v1.0": 39, "v1.1": 41, "v1.2": 18, "v1.3": 27}
WORDS = {
    "round": set(RUNS_PER_ROUND),
    "division": {"closed", "open"},
    "benchmark": {"ad", "ic", "kws", "vww", "sww"},
    "monitor": {"lpm01a", "js110"},
    "monitor_basis": {"declared", "assumed"},
    "supply_basis": {"set", "measured", "unavailable"},
    "per": {"inference", "run"},
    "basis": {"published"},
}
NUMBERS = ("windows", "inferences_per_window", "window_s", "power_mw", "energy_uj")
OTHERS = ("submitter", "system", "model", "supply_v", "notes", "path")


def table() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_the_published_table_is_whole() -> None:
    rows = table()
    assert len(rows) == 163
    assert set(rows[0]) == {*WORDS, *NUMBERS, *OTHERS}
    assert {name: sum(row["round"] == name for row in rows) for name in RUNS_PER_ROUND} == RUNS_PER_ROUND
    for key in (("round", "path"), ("round", "submitter", "system", "model", "benchmark")):
        assert len({tuple(row[name] for name in key) for row in rows}) == 163
    for row in rows:
        assert all(row[name] in words for name, words in WORDS.items()), row
        assert all(float(row[name]) > 0 for name in NUMBERS), row
        assert row["submitter"], row
        assert row["system"], row
        assert (row["supply_v"] == "") == (row["supply_basis"] == "unavailable"), row
        assert row["supply_v"] == "" or 1.7 < float(row["supply_v"]) < 7, row
        assert row["path"].startswith(f"{row['division']}/{row['submitter']}/results/{row['system']}/"), row
        assert (row["per"] == "run") == (row["benchmark"] == "sww"), row
        assert ("window < 10 s" in row["notes"]) == (float(row["window_s"]) < 9.5 or row["windows"] == "4"), row


def test_the_columns_of_the_published_table_agree_with_each_other() -> None:
    """Energy per inference is mean power times duration over inferences, each published on its own."""
    for row in table():
        expected_uj = float(row["power_mw"]) * 1e3 * float(row["window_s"]) / float(row["inferences_per_window"])
        # The median of each need not come from the same window.
        assert float(row["energy_uj"]) == pytest.approx(expected_uj, rel=0.02), row["path"]


def test_runs_that_were_submitted_again_have_the_same_figures() -> None:
    rows = table()
    again = [row for row in rows if "byte-identical to v1.0" in row["notes"]]
    assert len(again) == 18
    for row in again:
        (first,) = (old for old in rows if old["round"] == "v1.0" and old["path"] == row["path"])
        assert [row[name] for name in NUMBERS] == [first[name] for name in NUMBERS]


@real_runs
@pytest.mark.outside
def test_the_published_table_agrees_with_the_recordings() -> None:
    rows = {(row["round"], row["path"]): row for row in table()}
    for run in manifest():
        row = rows[run["round"], run["source_path"]]
        assert float(row["energy_uj"]) == run["median_uJ_per_inf"]
        assert int(row["inferences_per_window"]) == run["windows"][0]["inferences"]
        assert int(row["windows"]) == len(run["windows"])
        assert float(row["supply_v"]) == run["supply_mV"] / 1000
        assert run["energy_monitor"].startswith(row["monitor"])
        assert (row["submitter"], row["benchmark"]) == (run["submitter"], run["benchmark"])
