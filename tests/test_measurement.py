"""Measuring from Python: real recorder processes, a simulated meter on a pseudo-terminal, marks of this process."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import joulemeter as jm
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are of POSIX")

# Constant, so that the energy of any window is known whatever the clocks say: 3 mA at 3 V.
STEADY = "3mA/10ms,3mA/10ms"


def test_marks_of_this_program_are_windows_of_the_meter(tmp_path: Path) -> None:
    with jm.measure("ppk2", supply="3.0V", simulate=True, load=STEADY, output=tmp_path, name="steady") as m:
        for _ in range(5):
            with m.inference():
                # Long enough that a busy host places it well enough for its energy.
                with m.phase("pre"):
                    time.sleep(0.2)
                time.sleep(0.1)
    result = m.result
    assert result.simulated and result.windows.used == 5
    assert result.sync.grade == "host-marker"
    latency = result.latency_s.median
    assert latency is not None and 0.3 <= latency < 0.6
    assert result.energy_per_inference_j.median == pytest.approx(9e-3 * latency, rel=0.02)
    part = result.phases["pre"]
    assert part.windows == 5 and part.per_inference == 1
    assert part.duration_s.median is not None and part.energy_j.median == pytest.approx(
        9e-3 * part.duration_s.median, rel=0.02
    )
    assert m.folder is not None
    assert json.loads((m.folder / "result.json").read_text())["name"] == "steady"
    # The recording alone gives the same numbers again.
    again = jm.load(m.folder).result()
    assert again.energy_per_inference_j.median == result.energy_per_inference_j.median


def test_without_a_meter_only_time_is_measured(tmp_path: Path) -> None:
    with jm.measure(output=tmp_path) as m:
        infer = m.inference(4)(lambda: time.sleep(0.004))
        for _ in range(8):
            infer()
    assert m.result.energy_per_inference_j.median is None
    assert m.result.energy_per_inference_j.reason == "no meter was used"
    assert m.result.latency_s.median is not None and m.result.latency_s.median >= 0.001
    assert m.result.windows.inferences_per_window == 4


def test_a_block_that_raises_keeps_the_recording_and_passes_the_error_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), jm.measure("ppk2", supply="3.0V", simulate=True, output=tmp_path) as m:
        with m.inference():
            time.sleep(0.2)
        _ = 1 / 0
    assert m.folder is not None and (m.folder / "ppk2" / "words.raw").stat().st_size > 0
    assert [event.label for event in jm.load(m.folder).recording.events] == ["begin", "end"]
    with pytest.raises(UsageError, match="no result yet"):
        _ = m.result


def test_nothing_marked_is_an_error_that_names_the_recording(tmp_path: Path) -> None:
    idle = jm.measure("ppk2", supply="3.0V", simulate=True, output=tmp_path)
    with pytest.raises(DataError, match="The recording is kept in"), idle:
        time.sleep(0.1)


def test_marks_belong_into_the_block(tmp_path: Path) -> None:
    m = jm.measure(output=tmp_path)
    with pytest.raises(UsageError, match="with"):
        m.inference()


def test_an_unknown_meter_and_a_bad_quantity_are_refused_before_anything(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="ppk2"):
        jm.measure("ppk3", output=tmp_path)
    with pytest.raises(UsageError):
        jm.measure("ppk2", supply="3 apples", output=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_meter_that_is_lost_in_the_middle_is_an_error_and_the_rest_is_kept(tmp_path: Path) -> None:
    asked = jm.measure("ppk2", supply="3.0V", simulate=True, load=STEADY, output=tmp_path)
    asked.plan = replace(asked.plan, faults="unplug@4s", max_alignment=0.5)
    with pytest.raises(IncompleteError, match="The recording is kept in"), asked as m:
        for _ in range(25):
            with m.inference():
                time.sleep(0.2)
    # What had been measured until then is a result all the same.
    assert asked.folder is not None and (asked.folder / "result.json").exists()
    assert asked.result.windows.used >= 1


# -- in tests of others ------------------------------------------------------------------------------------------------

TEST = """
import time

def test_sleep(energy_meter):
    with energy_meter.measure() as m:
        for _ in range(8):
            with m.inference():
                time.sleep(0.2)
    energy_meter.check({check})

def test_forgot(energy_meter):
    energy_meter.check(max_energy="1J")
"""


def pytest_run(folder: Path, check: str, *options: str, load: str = STEADY) -> str:
    import subprocess

    (folder / "test_energy.py").write_text(TEST.format(check=check))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-k", "sleep", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout + done.stderr


SIMULATED = ("--energy-meter", "ppk2", "--energy-supply", "3.0V", "--energy-simulate", "--energy-load")


def test_the_fixture_skips_without_a_meter(tmp_path: Path) -> None:
    said = pytest_run(tmp_path, "")
    assert "1 skipped" in said and "--energy-meter KEY" in said


def test_the_fixture_holds_to_a_limit(tmp_path: Path) -> None:
    # 9 mW for 200 ms are 1.8 mJ.
    assert "1 passed" in pytest_run(tmp_path, 'max_energy="2mJ"', *SIMULATED, STEADY)
    said = pytest_run(tmp_path, 'max_energy="1.7mJ"', *SIMULATED, STEADY)
    assert "1 failed" in said and "more than 1.7mJ" in said


def test_the_fixture_holds_to_a_baseline(tmp_path: Path) -> None:
    check = 'max_regression="5%"'
    missing = pytest_run(tmp_path, check, *SIMULATED, STEADY)
    assert "1 failed" in missing and "--energy-update" in missing
    assert "1 passed" in pytest_run(tmp_path, check, *SIMULATED, STEADY, "--energy-update")
    assert (tmp_path / "energy_baselines" / "test_sleep.json").exists()
    assert "1 passed" in pytest_run(tmp_path, check, *SIMULATED, STEADY)
    hungrier = pytest_run(tmp_path, check, *SIMULATED, "3.6mA/10ms,3.6mA/10ms")
    assert "1 failed" in hungrier and "against the baseline" in hungrier
    frugal = pytest_run(tmp_path, check, *SIMULATED, "2mA/10ms,2mA/10ms")
    assert "1 passed" in frugal


def test_the_fixture_does_not_pass_what_was_not_measured(tmp_path: Path) -> None:
    said = pytest_run(tmp_path, "", *SIMULATED, STEADY, "-k", "forgot")
    assert "1 failed" in said and "Nothing was measured" in said
