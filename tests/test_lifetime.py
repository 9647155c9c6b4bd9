"""From a run or a table of currents to a battery life: the load that is made of it, what is refused, what is told."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import header, loaded, metered

from joulemeter import battery, cells, lifetime, loadprofile
from joulemeter.capture import ArrayStream, Basis, Event, Gap, Kind, Quantity, Recording
from joulemeter.caveat import Code
from joulemeter.cli import text
from joulemeter.errors import UsageError
from joulemeter.lifetime import Question
from joulemeter.physics.analyze import Request, analyze
from joulemeter.report import html
from joulemeter.synthetic import parse_load

RATE_HZ = 20_000.0
# 160 uC a pulse: 8 mA for 18 ms and 16 mA for 1 ms.
LOAD = parse_load("1uA/500ms,8mA/9ms/d0,16mA/1ms/d0,8mA/9ms/d0,1uA/481ms")
PULSE_C = 160e-6


def recorded(stream: ArrayStream, per_window: int = 1) -> Recording:
    return Recording(name="test", streams=(stream,), trigger="d0", meta={"inferences_per_window": per_window})


def projected(recording: Recording, **asked: object) -> lifetime.Projection:
    question = Question(cell="CR2032", every_s=10.0, cutoff_v=2.0)
    return lifetime.of_run(analyze(recording), recording, replace(question, **asked))  # type: ignore[arg-type]


def test_the_pulse_keeps_its_charge_and_its_peak() -> None:
    found = projected(recorded(loaded(LOAD, 5.0, RATE_HZ)))
    profile = found.load.profile
    assert float((profile.values * profile.durations_s).sum()) == pytest.approx(PULSE_C, rel=1e-9)
    assert float(profile.values.max()) == pytest.approx(16e-3, rel=1e-6)
    assert profile.duration_s == pytest.approx(19e-3, rel=1e-6)
    assert found.load.rest_a == pytest.approx(1e-6, rel=1e-3)
    mean_a = (PULSE_C + 1e-6 * (10 - 19e-3)) / 10
    assert found.life.mean_current_a == pytest.approx(mean_a, rel=2e-3)
    assert found.life.naive_life_s == pytest.approx(235e-3 * 3600 / mean_a, rel=2e-3)
    assert found.life.life_s is not None and found.life.life_s < found.life.naive_life_s
    assert found.spread.p5_s is not None and found.spread.p95_s is not None
    assert found.spread.p5_s < found.life.life_s < found.spread.p95_s


def test_of_a_window_of_many_inferences_one_is_taken() -> None:
    many = parse_load("1uA/500ms," + ",".join(["8mA/9ms/d0,16mA/1ms/d0"] * 10) + ",1uA/400ms")
    found = projected(recorded(loaded(many, 5.0, RATE_HZ), per_window=10))
    profile = found.load.profile
    assert profile.duration_s == pytest.approx(10e-3, rel=1e-3)
    assert float((profile.values * profile.durations_s).sum()) == pytest.approx(88e-6, rel=1e-6)
    assert float(profile.values.max()) == pytest.approx(16e-3, rel=0.02)


def test_what_was_asked_replaces_what_was_measured() -> None:
    found = projected(recorded(loaded(LOAD, 5.0, RATE_HZ)), rest_a=5e-6, every_s=60.0)
    assert (found.load.rest_a, found.load.every_s) == (5e-6, 60.0)
    assert not any("at rest is what was measured" in caveat.text for caveat in found.caveats)


def test_what_is_assumed_is_said() -> None:
    recording = recorded(loaded(LOAD, 5.0, RATE_HZ))
    found = lifetime.of_run(analyze(recording), recording, Question(cell="CR2032"))
    assumed = " ".join(caveat.text for caveat in found.caveats if caveat.code is Code.BATTERY_ASSUMED)
    for words in ("as in the recording, one each 1.00 s", "measured between the inferences", "Give --cutoff"):
        assert words in assumed
    assert found.load.every_s == pytest.approx(1.0, rel=1e-3)


def test_a_waveform_with_a_gap_says_so() -> None:
    whole = loaded(LOAD, 1.0, RATE_HZ)
    at = round(0.505 * RATE_HZ)
    data = {name: np.delete(values, slice(at, at + 40)) for name, values in whole.data.items()}
    holed = replace(whole, data=data, gaps=(Gap(index=at + 40, lost=40),))
    stamps = [
        Event(label=label, source="host", monotonic_ns=round(at_s * 1e9), u_s=1e-6)
        for label, at_s in (("begin", 0.5), ("end", 0.519))
    ]
    timed = replace(holed, timebase=replace(holed.timebase, monotonic_ns=0, utc_ns=0, u_host_s=0.0, u_drift_ppm=0.0))
    recording = Recording(name="holed", streams=(timed,), trigger="host", events=tuple(stamps))
    # The window itself was left out of the energies, so the pulse is asked for directly.
    whole_recording = recorded(whole)
    analysis = analyze(whole_recording)
    profile, told = lifetime._pulse(recording.streams[0], analysis.windows[0])
    assert [caveat.code for caveat in told] == [Code.BATTERY_GAPS]
    assert profile.duration_s == pytest.approx(19e-3, rel=1e-6)


def polled(power: float) -> Recording:
    """Ten readings a second of a board that works for six seconds of every nine."""
    time_s = np.arange(900) / 10
    watts = np.where(time_s % 9 < 6, power, power / 3)
    times = np.rint(time_s * 1e9).astype(np.int64)
    stream = metered({Quantity.POWER: watts}, Kind.INSTANT, 10.0, times_ns=times, refresh_s=0.1)
    return Recording(name="slow", streams=(stream,), trigger="shape:above", meta={"inferences_per_window": 20})


def test_a_meter_of_power_gives_a_load_of_power_unless_a_voltage_is_given() -> None:
    found = projected(polled(30e-3), rest_a=10e-6)
    assert found.load.profile.kind is battery.Kind.POWER
    joules = float((found.load.profile.values * found.load.profile.durations_s).sum())
    assert joules == pytest.approx(30e-3 * 6 / 20, rel=0.03)
    at_3v = projected(polled(30e-3), voltage_v=3.0)
    assert at_3v.load.profile.kind is battery.Kind.CURRENT
    assert at_3v.load.rest_a == pytest.approx(10e-3 / 3, rel=0.05)


@pytest.mark.parametrize(
    ("recording", "asked", "words"),
    [
        (polled(30e-3), {}, "at which voltage"),
        (recorded(loaded(LOAD, 5.0, RATE_HZ)), {"cell": "CR2O32"}, "cr2032"),
        (recorded(loaded(LOAD, 5.0, RATE_HZ)), {"every_s": 1e-3}, "impossible"),
        (recorded(loaded(LOAD, 5.0, RATE_HZ)), {"rest_a": -1e-6}, "at rest"),
    ],
)
def test_what_cannot_be_told_is_refused(recording: Recording, asked: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        projected(recording, **asked)


def test_what_is_not_known_of_meter_or_cell_is_said_and_not_taken_for_nothing() -> None:
    bare = replace(loaded(LOAD, 5.0, RATE_HZ), header=header(RATE_HZ, accuracy=False))
    told = " ".join(caveat.text for caveat in projected(recorded(bare)).caveats)
    assert "the spread between cells and not that of the measurement" in told
    assert "not that of the measurement" not in " ".join(
        caveat.text for caveat in projected(recorded(loaded(LOAD, 5.0, RATE_HZ))).caveats
    )
    cell = replace(cells.cell("CR2032"), loss_per_year=None)
    life = battery.project(cell, battery.constant(1e-5), battery.Supply(cutoff_v=2.0))
    assert any("loses by itself is not known" in caveat.text for caveat in life.caveats)


def test_a_simulated_run_gives_a_simulated_life() -> None:
    recording = replace(recorded(loaded(LOAD, 5.0, RATE_HZ)), meta={"inferences_per_window": 1, "simulated": True})
    assert projected(recording).basis is Basis.SIMULATED


def test_a_sum_of_meters_is_no_battery() -> None:
    def at(name: str) -> ArrayStream:
        stream = loaded(LOAD, 5.0, RATE_HZ)
        timebase = replace(stream.timebase, monotonic_ns=0, utc_ns=0, u_host_s=1e-6, u_drift_ppm=0.0)
        return replace(stream, name=name, timebase=timebase)

    recording = Recording(name="sum", streams=(at("a"), at("b")), trigger="d0")
    analysis = analyze(recording, Request(add=True))
    with pytest.raises(UsageError, match="sum of several"):
        lifetime.of_run(analysis, recording, Question(cell="CR2032"))


def test_a_run_that_asks_for_a_battery_gets_one_and_a_doubt_where_it_cannot() -> None:
    asked = {"inferences_per_window": 1, "battery": {"cell": "CR2032", "every_s": 10.0}}
    recording = replace(recorded(loaded(LOAD, 5.0, RATE_HZ)), meta=asked)
    told = lifetime.analyzed(recording, Request()).result.battery
    assert told is not None and told.life_s["p50"] is not None and told.every_s == 10.0
    impossible = replace(recording, meta={**asked, "battery": {"cell": "CR2032", "every_s": 1e-3}})
    result = lifetime.analyzed(impossible, Request()).result
    assert result.battery is None
    assert Code.BATTERY_UNKNOWN in {caveat.code for caveat in result.caveats}


def test_a_battery_may_be_asked_about_afterwards() -> None:
    recording = recorded(loaded(LOAD, 5.0, RATE_HZ))
    assert lifetime.analyzed(recording, Request()).result.battery is None
    result = lifetime.analyzed(recording, Request(), lifetime.asked("CR2450", 60.0)).result
    assert result.battery is not None and result.battery.every_s == 60.0
    assert "battery life" in text.render(result) and "charge over mean current" in text.render(result)
    assert 'id="battery"' in html.render(result.to_dict(), [], None)


def test_what_is_asked_is_checked_before_anything_is_recorded() -> None:
    assert lifetime.asked(None, None) is None
    with pytest.raises(UsageError, match="Give --cell"):
        lifetime.asked(None, 10.0)
    with pytest.raises(UsageError, match="cr2032"):
        lifetime.asked("CR2O32", 10.0)


# -- a table of currents ----------------------------------------------------------------------------------------------

TABLE = """
name = "keyword spotter"
supply = "3.0V"
[[event]]
label = "upload"
per_day = 24
[[event.step]]
current = "15mA"
duration = "200ms"
[[event]]
label = "inference"
every = "10s"
[[event.step]]
current = "8mA"
duration = "20ms"
[sleep]
current = "1.2uA"
"""


def written(folder: Path, table: str) -> Path:
    path = folder / "load.toml"
    path.write_text(table, encoding="utf-8")
    return path


def test_a_table_makes_a_cycle_and_rarer_events(tmp_path: Path) -> None:
    load = loadprofile.load_of(loadprofile.read(written(tmp_path, TABLE)))
    assert load.every_s == 10.0
    assert load.rest_a == pytest.approx(1.2e-6)
    assert load.profile.labels == ("inference",)
    (event,) = load.events
    assert (event.label, event.every_s) == ("upload", 3600.0)
    assert event.profile.values.tolist() == pytest.approx([15e-3])
    found = lifetime.ask(Question(cell="CR2032", cutoff_v=2.0), load, Basis.DECLARED)
    mean_a = (8e-3 * 0.02 + 1.2e-6 * 9.98) / 10 + (15e-3 - 1.2e-6) * 0.2 / 3600
    assert found.life.mean_current_a == pytest.approx(mean_a, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("current = \"8mA\"", "curent = \"8mA\""), "Did you mean 'current'"),
        (("every = \"10s\"", "every = \"10s\"\nper_hour = 5"), "one of every, per_hour and per_day"),
        (("current = \"8mA\"", "current = \"8mA\"\npower = \"24mW\""), "either current or power"),
        (("duration = \"20ms\"", "duration = \"20\""), "duration"),
        (("[sleep]\ncurrent = \"1.2uA\"", ""), "sleep"),
        (("name =", "name "), "not TOML"),
    ],
)  # fmt: skip
def test_a_table_that_is_wrong_says_where(tmp_path: Path, change: tuple[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        loadprofile.read(written(tmp_path, TABLE.replace(*change)))


# -- the command ------------------------------------------------------------------------------------------------------


def joulemeter(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "joulemeter", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_the_command_on_a_table_with_pictures(tmp_path: Path) -> None:
    picture = tmp_path / "life.png"
    done = joulemeter(
        *("battery", "--profile", written(tmp_path, TABLE), "--cell", "CR2032", "--cutoff", "2.0V", "--for", "2y"),
        *("--plot", picture, "--event", "beacon=5mA/1ms@1min", "--harvest", "5uW", "--quiet"),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    for words in (
        "ends by",
        "others would say",
        "charge left behind",
        "one inference each",
        "for 2.0 years",
        "harvest",
    ):
        assert words in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_the_command_as_json(tmp_path: Path) -> None:
    done = joulemeter(
        "battery", "--profile", written(tmp_path, TABLE), "--cell", "2xCR2032", "--cutoff", "2V", "--json"
    )
    told = json.loads(done.stdout)
    assert told["life_s"]["p5"] < told["life_s"]["p50"] < told["life_s"]["p95"]
    assert told["nominal_life_s"] < told["naive_life_s"]
    assert told["every_s"] == 10.0 and told["inferences"] == pytest.approx(told["nominal_life_s"] / 10.0)
    assert len(told["curve"]["age_s"]) == len(told["curve"]["rail_min_v"]) > 10
    assert told["basis"] == "declared" and told["worst_grade"] == "D"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cell", "CR2032"], "needs a load"),
        (["--profile", "FILE"], "which battery"),
        (["--profile", "FILE", "--cell", "CR2032", "--every", "10s", "--per-day", "3"], "say the same"),
        (["--profile", "FILE", "--cell", "CR2032", "--leakage", "1Mohm"], "belong to a capacitor"),
        (["--profile", "FILE", "--cell", "CR2032", "--regulator", "boost"], "no regulator"),
        (["--profile", "FILE", "--cell", "CR2032", "--event", "radio"], "no event"),
        (["--profile", "FILE", "--cell", "CR2032", "--cutoff", "2"], "volts"),
        (["--profile", "FILE", "--cell", "CR2032", "--plot", "x.bmp"], "no picture"),
        (["--profile", "absent.toml", "--cell", "CR2032"], "absent.toml"),
    ],
)
def test_the_command_refuses_politely(tmp_path: Path, arguments: list[str], words: str) -> None:
    file = str(written(tmp_path, TABLE))
    done = joulemeter("battery", *[file if word == "FILE" else word for word in arguments])
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split()) and "Traceback" not in done.stderr
