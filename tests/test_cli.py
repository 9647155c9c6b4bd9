"""The program as a person runs it: exit codes, one-paragraph errors, nothing recorded is lost, stdout machine-clean."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from joulemeter import registry, store
from joulemeter.cli import COMMANDS
from joulemeter.physics.analyze import analyze
from joulemeter.simulation import SimulatedMeter

JOULEMETER = [sys.executable, "-P", "-m", "joulemeter"]
# Four windows of 20 ms in 0.2 s.
LOAD = "250uA/30ms,8mA/20ms/d0"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def joulemeter(*arguments: str | Path, cwd: Path | None = None, timeout: float = 60, **environment: str) -> Done:
    done = subprocess.run(
        [*JOULEMETER, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "80", **environment},
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def explained(done: Done, code: int, *words: str) -> None:
    """A paragraph of what, to what, and what to do; no traceback."""
    assert done.code == code, done
    assert "Traceback" not in done.err
    flat = " ".join(done.err.split())
    for word in words:
        assert word in flat, done.err
    assert len(flat) < 900


def only_run(folder: Path) -> Path:
    (run,) = [path for path in folder.iterdir() if store.is_run(path)]
    return run


@pytest.fixture(scope="module")
def meter() -> Iterator[str]:
    """A simulated PPK2 that the program does not know to be its own: an address like any other."""
    with SimulatedMeter("ppk2", load=LOAD) as simulated:
        yield f"ppk2@{simulated.address}"


@pytest.fixture(scope="module")
def measured(meter: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Done]:
    folder = tmp_path_factory.mktemp("results")
    done = joulemeter(
        *("measure", "--meter", meter, "--supply", "3.0V", "--trigger", "d0", "--windows", "10"),
        *("--inferences-per-window", "1", "--json", "-o", folder),
    )
    return folder, done


def test_measure_against_an_address(measured: tuple[Path, Done]) -> None:
    folder, done = measured
    assert done.code == 0, done.err
    result = json.loads(done.out)
    truth = 3.0 * 8e-3 * 20e-3
    energy = result["energy_per_inference_j"]
    assert abs(energy["median"] - truth) <= energy["expanded_k2"]
    assert energy["median"] == pytest.approx(truth, rel=3e-3)
    assert result["windows"]["used"] >= 10
    assert result["simulated"] is True
    assert result == json.loads((only_run(folder) / "result.json").read_text())


def test_analyze_gives_the_same_numbers_again(measured: tuple[Path, Done]) -> None:
    folder, done = measured
    again = joulemeter("analyze", only_run(folder), "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out) == json.loads(done.out)


def test_text_fits_eighty_columns(measured: tuple[Path, Done]) -> None:
    folder, _ = measured
    done = joulemeter("analyze", only_run(folder))
    assert done.code == 0
    lines = [line for line in done.out.splitlines() if "Recording and result" not in line]
    assert max(map(len, lines)) <= 80
    assert "SIMULATED" in done.out
    assert "± " in done.out


def test_mlperf_lines(measured: tuple[Path, Done]) -> None:
    folder, done = measured
    result = json.loads(done.out)
    mark, *lines = joulemeter("analyze", only_run(folder), "--format", "mlperf").out.splitlines()
    assert mark.startswith("SIMULATED")
    assert lines[0] == f"Median energy cost is {result['energy_per_inference_j']['median'] * 1e6:.3f} uJ/inf."
    assert lines[1] == f"Median throughput is {1 / result['latency_s']['median']:.3f} inf./sec."


def test_circumstances_widen_the_budget(measured: tuple[Path, Done]) -> None:
    folder, done = measured
    plain = json.loads(done.out)
    hot = json.loads(joulemeter("analyze", only_run(folder), "--ambient", "38C", "--json").out)
    # Ten kelvins outside 18 to 28 C: 0.15 of each figure per kelvin more.
    gain = [next(t["contribution_j"] for t in r["uncertainty"] if t["term"] == "gain") for r in (plain, hot)]
    assert gain[1] == pytest.approx(2.5 * gain[0])
    old = json.loads(joulemeter("analyze", only_run(folder), "--calibrated-ago", "3y", "--json").out)
    assert next(t["contribution_j"] for t in old["uncertainty"] if t["term"] == "gain") == pytest.approx(1.4 * gain[0])
    slow = json.loads(joulemeter("analyze", only_run(folder), "--decoupling", "100uF,1ohm", "--json").out)
    assert "decoupling" in {term["term"] for term in slow["uncertainty"]}
    explained(joulemeter("analyze", only_run(folder), "--decoupling", "100uF"), 2, "resistance")
    joulemeter("analyze", only_run(folder))


def test_other_triggers_of_the_same_recording(measured: tuple[Path, Done]) -> None:
    folder, _ = measured
    low = json.loads(joulemeter("analyze", only_run(folder), "--trigger", "d0:low", "--json").out)
    assert low["energy_per_inference_j"]["median"] == pytest.approx(3.0 * 250e-6 * 30e-3, rel=4e-2)
    rising = json.loads(joulemeter("analyze", only_run(folder), "--trigger", "d0:rising", "--json").out)
    assert rising["latency_s"]["median"] == pytest.approx(0.050, rel=1e-3)
    # Put the recorded trigger's numbers back for other tests.
    joulemeter("analyze", only_run(folder))


def test_report_and_export(measured: tuple[Path, Done], tmp_path: Path) -> None:
    folder, _ = measured
    run = only_run(folder)
    assert joulemeter("report", run, "-o", tmp_path / "r.html").code == 0
    assert "SIMULATED" in (tmp_path / "r.html").read_text()
    done = joulemeter("export", run, "-o", tmp_path / "r.csv")
    assert done.code == 0, done.err
    stream = store.open_run(run).streams[0]
    with (tmp_path / "r.csv").open() as file:
        assert file.readline().strip() == "time_s,current_a,range,d0,d1,d2,d3,d4,d5,d6,d7,power_w,lost_before"
        assert sum(1 for _ in file) == stream.length
    done = joulemeter("export", run, "-o", tmp_path / "thin.csv", "--step", "10ms")
    assert (tmp_path / "thin.csv").read_text().startswith("time_s,low_w,mean_w,high_w\n")
    done = joulemeter("export", run, "-o", tmp_path / "r.ppk2")
    assert done.code == 0, done.err
    back = joulemeter("analyze", tmp_path / "r.ppk2", "--trigger", "d0", "--json")
    assert back.code == 0, back.err
    # A .ppk2 file holds no voltage, so there is charge and no energy.
    result = json.loads(back.out)
    assert result["charge_per_inference_c"] == pytest.approx(8e-3 * 20e-3, rel=3e-3)
    assert result["energy_per_inference_j"]["median"] is None
    explained(joulemeter("export", run, "-o", tmp_path / "r.xyz"), 2, "no format that can be written", ".csv")


def test_demo_numbers_are_right(tmp_path: Path) -> None:
    done = joulemeter("demo", "--json", "-o", tmp_path)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    energy, truth = result["energy_per_inference_j"], result["truth"]["energy_per_inference_j"]
    # 40 mA for 104.6 ms at 3.0 V, from the device profile.
    assert truth == pytest.approx(12.552e-3)
    assert abs(energy["median"] - truth) <= energy["expanded_k2"]
    assert energy["median"] == pytest.approx(truth, rel=2e-3)
    assert energy["basis"] == "simulated"
    assert result["battery"]["naive_life_s"] > 0
    run = only_run(tmp_path)
    assert {path.name for path in run.iterdir()} == {"run.json", "ppk2", "result.json", "windows.csv", "report.html"}
    assert len((run / "windows.csv").read_text().splitlines()) == result["windows"]["used"] + 1
    # Battery and closed form belong to the run, so they are there again when it is analysed again.
    (run / "result.json").unlink()
    again = joulemeter("analyze", run, "--json")
    assert json.loads(again.out) == result


def test_record_then_analyze(meter: str, tmp_path: Path) -> None:
    done = joulemeter("record", "--meter", meter, "--supply", "3.0V", "--duration", "0.5s", "-o", tmp_path)
    assert done.code == 0, done.err
    run = Path(done.out.strip())
    explained(joulemeter("analyze", run), 2, "Nothing says when the model ran", "--trigger")
    assert joulemeter("analyze", run, "--trigger", "d0").code == 0


def test_a_target_with_a_workload_stops_and_short_inferences_share_a_window(tmp_path: Path) -> None:
    model = Path(__file__).parents[1] / "profiles" / "models" / "conv3dense1-float32.tflite"
    arguments = ("measure", "--meter", "none", "--workload", f"tflite:{model}", "-o", tmp_path, "--json", "--quiet")
    aimed = json.loads(joulemeter(*arguments, "--target", "5%").out)
    assert aimed["windows"]["inferences_per_window"] > 1
    low, high = aimed["latency_s"]["ci95"]
    assert high - low <= 2 * 0.05 * aimed["latency_s"]["median"]
    assert not [caveat for caveat in aimed["caveats"] if caveat["code"] == "target-not-reached"]
    counted = json.loads(joulemeter(*arguments, "--windows", "50").out)
    assert counted["windows"]["used"] == 50 and counted["windows"]["inferences_per_window"] == 1


def test_target_stops_when_the_interval_is_narrow(meter: str, tmp_path: Path) -> None:
    done = joulemeter(
        *("measure", "--meter", meter, "--supply", "3.0V", "--trigger", "d0", "--target", "1%", "--json"),
        *("--duration", "30s", "-o", tmp_path),
        timeout=60,
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    low, high = result["energy_per_inference_j"]["ci95"]
    assert (high - low) / 2 <= 0.01 * result["energy_per_inference_j"]["median"]
    assert "target-not-reached" not in {caveat["code"] for caveat in result["caveats"]}
    assert result["windows"]["used"] < 400


# -- bad input --------------------------------------------------------------------------------------------------------


def test_an_absent_port(tmp_path: Path) -> None:
    done = joulemeter("measure", "--meter", "ppk2@/dev/ttyNOTHING", "--supply", "3V", "--trigger", "d0", "-o", tmp_path)
    explained(done, 3, "/dev/ttyNOTHING", "joulemeter scan")
    assert not list(tmp_path.iterdir())


def test_no_meter_connected(tmp_path: Path) -> None:
    done = joulemeter("measure", "--meter", "ppk2@no-such-serial", "--trigger", "d0", "-o", tmp_path)
    explained(done, 3, "no-such-serial")


def test_an_unknown_meter() -> None:
    explained(joulemeter("measure", "--meter", "pkp2", "--trigger", "d0"), 3, "'pkp2'", "ppk2")


def test_a_busy_port(tmp_path: Path) -> None:
    import serial

    with SimulatedMeter("ppk2", load=LOAD) as simulated, serial.Serial(simulated.address, exclusive=True):
        done = joulemeter(
            "measure", "--meter", f"ppk2@{simulated.address}", "--supply", "3V", "--trigger", "d0", "-o", tmp_path
        )
    explained(done, 4, simulated.address, "in use")


def test_a_serial_device_that_is_no_ppk2(tmp_path: Path) -> None:
    import tty

    host, port = os.openpty()
    tty.setraw(host)
    tty.setraw(port)
    chatter = threading.Event()

    def talk() -> None:
        while not chatter.wait(0.2):
            os.write(host, b"login: ")

    threading.Thread(target=talk, daemon=True).start()
    try:
        done = joulemeter(
            "measure", "--meter", f"ppk2@{os.ttyname(port)}", "--supply", "3V", "--trigger", "d0", "-o", tmp_path
        )
    finally:
        chatter.set()
    explained(done, 3, os.ttyname(port), "does not answer as a PPK2")


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        ("noise@1.5s", 5, ("do not look like its words",)),
        ("unplug@1.5s", 6, ("lost while reading",)),
        ("stall@1.5s", 6, ("has sent nothing for",)),
    ],
)
def test_a_recording_that_breaks_off_is_kept(faults: str, code: int, words: tuple[str, ...], tmp_path: Path) -> None:
    done = joulemeter(
        *("measure", "--meter", "ppk2", "--simulate", "--load", LOAD, "--faults", faults, "--supply", "3V"),
        *("--trigger", "d0", "--windows", "1000", "-o", tmp_path, "--quiet"),
    )
    explained(done, code, *words)
    assert "energy per inference" in done.out
    recording = store.open_run(only_run(tmp_path))
    assert "unfinished" in {caveat.code for caveat in recording.caveats}
    result = analyze(recording).result
    assert result.windows.used >= 3
    assert result.energy_per_inference_j.median == pytest.approx(480e-6, rel=5e-3)


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    """A file size limit stands in for the disk: the same failing write, without needing a disk of our own."""
    limited = ["bash", "-c", 'ulimit -f 400; exec "$0" "$@"', *JOULEMETER]
    done = subprocess.run(
        [
            *limited,
            *("measure", "--meter", "ppk2", "--simulate", "--load", LOAD, "--supply", "3V", "--trigger", "d0"),
            *("--duration", "10s", "-o", str(tmp_path), "--quiet"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    explained(Done(done.returncode, done.stdout, done.stderr), 6, "failed after part of the recording")
    stream = store.open_run(only_run(tmp_path)).streams[0]
    # 400 blocks of 1 KiB, to the last whole sample or so.
    assert stream.length == pytest.approx(400 * 1024 / 4, abs=64)


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = joulemeter(
        "measure", "--meter", "ppk2", "--simulate", "--supply", "3V", "--trigger", "d0", "-o", tmp_path / "file"
    )
    explained(done, 4, "cannot be written", "--output")


def test_a_trigger_that_never_comes(tmp_path: Path) -> None:
    done = joulemeter(
        *("measure", "--meter", "ppk2", "--simulate", "--load", LOAD, "--supply", "3V", "--trigger", "d3"),
        *("--windows", "5", "--timeout", "1s", "-o", tmp_path),
    )
    explained(done, 5, "The trigger never came: d3 stayed low", "did change: d0", "kept in")
    assert store.open_run(only_run(tmp_path)).streams[0].length > 50_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--supply", "3"], ("'3'", "unit")),
        (["--supply", "9V"], ("5",)),
        (["--supply", "3V", "--assume-voltage", "3V"], ("both",)),
        (["--trigger", "d0:sideways"], ("sideways", "rising")),
        (["--trigger", "host"], ("workload",)),
        (["--windows", "0"], ("windows",)),
        (["--windows", "many"], ("--windows", "valid integer")),
        (["--no-such-option"], ("no-such-option",)),
        (["--set", "filter=purple"], ("purple", "nordic")),
        (["--format", "xml"], ("json",)),
        (["--faults", "melt@1s"], ("melt", "unplug")),
        (["--load", "8mA"], ("8mA",)),
        (["--workload", "tflite:missing.tflite"], ("missing.tflite",)),
        (["--workload", "tfl:x"], ("tflite",)),
    ],
    ids=" ".join,
)
def test_a_bad_option_value(arguments: list[str], words: tuple[str, ...], tmp_path: Path) -> None:
    given = ["--meter", "ppk2", "--simulate", "--trigger", "d0", "--duration", "0.3s", "-o", str(tmp_path)]
    done = joulemeter("measure", *given, *arguments)
    explained(done, 2, *words)
    assert not list(tmp_path.iterdir())


def test_an_unknown_command() -> None:
    explained(joulemeter("mesure"), 2, "no command 'mesure'", "measure")


def test_no_meter_and_no_workload(tmp_path: Path) -> None:
    explained(joulemeter("measure", "--meter", "none", "-o", tmp_path), 2, "nothing to measure")


def test_a_recording_that_is_none(tmp_path: Path) -> None:
    explained(joulemeter("analyze", tmp_path / "absent"), 2, "absent")
    (tmp_path / "noise.bin").write_bytes(bytes(range(256)) * 40)
    explained(joulemeter("analyze", tmp_path / "noise.bin"), 2, "not a recording")


# -- signals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_ends_a_recording_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [
            *JOULEMETER,
            *("measure", "--meter", "ppk2", "--simulate", "--load", LOAD, "--supply", "3V", "--trigger", "d0"),
            *("--duration", "60s", "-o", str(tmp_path), "--json", "--quiet"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    words = None
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        words = next(tmp_path.glob("*/ppk2/words.raw"), None)
        if words is not None and words.stat().st_size > 400_000:
            break
        time.sleep(0.05)
    # As a terminal does it: the whole group at once for Ctrl-C.
    (os.killpg if number is signal.SIGINT else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=30)
    explained(Done(process.returncode, out, err), 6, "Interrupted")
    result = json.loads(out)
    assert result["windows"]["used"] >= 10
    assert "unfinished" not in {caveat["code"] for caveat in result["caveats"]}


# -- the rest of the commands -----------------------------------------------------------------------------------------


def test_every_command_has_help() -> None:
    assert joulemeter("--help").out.count("\n") > 20
    assert max(map(len, joulemeter("--help").out.splitlines())) <= 80
    for command in COMMANDS:
        done = joulemeter(command, "--help")
        assert done.code == 0, done.err
        assert "Usage" in done.out
        assert max(map(len, done.out.splitlines())) <= 80


def test_scan_and_doctor_without_a_device() -> None:
    done = joulemeter("scan", "--json")
    assert done.code == 0, done.err
    assert [row["key"] for row in json.loads(done.out)["supported"]] == registry.keys(registry.INSTRUMENTS)
    assert "ppk2" in joulemeter("scan", "--all").out
    doctor = joulemeter("doctor")
    assert doctor.code == 0, doctor.err
    assert 'ATTRS{idVendor}=="1915"' in doctor.out or sys.platform != "linux"


def test_profiles() -> None:
    listed = json.loads(joulemeter("profiles", "list", "--json").out)
    assert "stm32f4discovery" in listed["devices"]
    assert "cr2032" in listed["batteries"]
    assert "CR2032" in joulemeter("profiles", "show", "batteries", "cr2032").out
    assert joulemeter("profiles", "validate").code == 0
    explained(joulemeter("profiles", "show", "batteries", "cr2033"), 2, "cr2032")


def test_simulate_on_tcp_serves_a_measurement(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [*JOULEMETER, "simulate", "ppk2", "--tcp", "0", "--load", LOAD], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    try:
        address = server.stdout.readline().strip()
        assert address.startswith("127.0.0.1:")
        done = joulemeter(
            *("measure", "--meter", f"ppk2@{address}", "--supply", "3V", "--trigger", "d0", "--windows", "5"),
            *("--json", "-o", tmp_path),
        )
        assert done.code == 0, done.err
        assert json.loads(done.out)["energy_per_inference_j"]["median"] == pytest.approx(480e-6, rel=3e-3)
    finally:
        server.terminate()
        server.communicate()


def test_two_meters_are_recorded_together(tmp_path: Path) -> None:
    done = joulemeter(
        *("measure", "--meter", "ppk2", "--meter", "ppk2", "--simulate", "--load", LOAD, "--supply", "3V"),
        *("--trigger", "d0", "--windows", "10", "--json", "-o", tmp_path),
    )
    assert done.code == 0, done.err
    run = only_run(tmp_path)
    streams = store.open_run(run).streams
    assert [stream.name for stream in streams] == ["ppk2-1", "ppk2-2"]
    assert min(stream.length for stream in streams) > 40_000
    assert json.loads(done.out)["provenance"]["streams"] == ["ppk2-1", "ppk2-2"]


def test_the_devices_text_is_a_trigger(meter: str, tmp_path: Path) -> None:
    """A board that prints around its inferences and has no wire to the meter: 300 ms each, 100 ms apart."""
    import tty

    host, port = os.openpty()
    tty.setraw(host)
    tty.setraw(port)
    over = threading.Event()

    def talk() -> None:
        while not over.wait(0.1):
            os.write(host, b"m-infer-start-10\r\n")
            over.wait(0.3)
            os.write(host, b"m-infer-done\r\nm-results-[0.5,0.5]\r\n")

    threading.Thread(target=talk, daemon=True).start()
    try:
        done = joulemeter(
            *("measure", "--meter", meter, "--supply", "3V", "--trigger", "serial", "--serial", os.ttyname(port)),
            *("--duration", "3s", "--max-alignment", "20%", "--json", "-o", tmp_path),
        )
    finally:
        over.set()
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["sync"]["grade"] == "host-marker"
    assert result["windows"]["used"] >= 5
    assert result["windows"]["inferences_per_window"] == 10
    assert result["latency_s"]["median"] == pytest.approx(0.030, rel=0.1)
    # Six pulses of 20 ms at 8 mA and pauses at 250 uA fill a window of 300 ms.
    assert result["power_w"]["inference"] == pytest.approx(3 * (8e-3 * 20 + 250e-6 * 30) / 50, rel=0.1)
    explained(joulemeter("measure", "--meter", meter, "--trigger", "serial", "-o", tmp_path), 2, "--serial")


MODEL = Path(__file__).parent.parent.parent / "shared" / "data" / "models" / "kws_ref_model.tflite"


@pytest.mark.outside
@pytest.mark.skipif(not MODEL.is_file(), reason="the reference models are not beside this checkout (../shared/data)")
def test_a_real_model_without_a_meter(tmp_path: Path) -> None:
    done = joulemeter(
        *("measure", "--meter", "none", "--workload", f"tflite:{MODEL}", "--windows", "300", "--warmup", "20"),
        *("--json", "-o", tmp_path),
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["windows"] == {"found": 300, "used": 300, "rejected": {}, "inferences_per_window": 1}
    assert result["latency_s"]["basis"] == "measured"
    assert 0 < result["latency_s"]["min"] <= result["latency_s"]["median"] <= result["latency_s"]["p99"]
    assert result["energy_per_inference_j"]["median"] is None
    assert result["energy_per_inference_j"]["basis"] == "unavailable"
    assert result["power_w"] == {"mean": None, "idle": None, "peak": None, "inference": None, "basis": "unavailable"}
    assert result["workload"]["model"] == MODEL.name
    assert len(result["workload"]["model_sha256"]) == 64
    assert not result["simulated"]


@pytest.mark.outside
@pytest.mark.skipif(not MODEL.is_file(), reason="the reference models are not beside this checkout (../shared/data)")
def test_host_stamps_are_placed_in_the_meters_time(tmp_path: Path) -> None:
    """The simulated board draws 6 mA all the time, so every window costs 18 mW times its own duration."""
    done = joulemeter(
        *("measure", "--meter", "ppk2", "--simulate", "--load", "6mA/1s", "--supply", "3V", "--baseline", "0.5s"),
        *("--workload", f"tflite:{MODEL}", "--windows", "20", "--inferences-per-window", "8000"),
        *("--json", "-o", tmp_path),
    )
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["sync"]["grade"] == "host-marker"
    assert result["windows"]["used"] == 20
    assert result["power_w"]["inference"] == pytest.approx(18e-3, rel=2e-3)
    assert result["power_w"]["idle"] == pytest.approx(18e-3, rel=2e-3)
    assert result["latency_s"]["basis"] == "measured"
    assert result["energy_per_inference_j"]["basis"] == "simulated"
    net = result["net_energy_per_inference_j"]
    assert abs(net["median"]) < 0.01 * result["energy_per_inference_j"]["median"]


def test_a_meter_that_goes_on_sending_nonsense_ends_the_recording(tmp_path: Path) -> None:
    """A slow meter's answers are too short for a limit in bytes; what came before is kept and said so."""
    done = joulemeter(
        *("record", "--meter", "um25c", "--simulate", "--faults", "noise@3s", "--duration", "30s", "-o", tmp_path)
    )
    explained(done, 5, "nothing of it has been a measurement", "what came before is kept")
    assert (only_run(tmp_path) / "um25c" / "words.raw").stat().st_size > 0


def test_a_slow_first_inference_does_not_shorten_the_windows_of_a_slow_meter(tmp_path: Path) -> None:
    """Windows of ten readings: the first call takes 0.5 s, the others 2 ms, and a reading 40 ms."""
    (tmp_path / "bench.py").write_text(
        "import time\ncalls = []\n\ndef infer():\n    time.sleep(0.002 if calls else 0.5)\n    calls.append(None)\n"
    )
    words = ("--meter", "fnirsi", "--simulate", "--workload", f"python:{tmp_path / 'bench.py'}:infer", "--windows", "3")
    done = joulemeter("measure", *words, "--json", "-o", tmp_path)
    assert done.code == 0, done.err
    result = json.loads(done.out)
    assert result["windows"]["inferences_per_window"] * result["latency_s"]["median"] > 5 * 0.04


def test_windows_that_cannot_be_counted_meanwhile_need_a_duration() -> None:
    done = joulemeter("measure", "--meter", "um25c", "--simulate", "--trigger", "shape", "--windows", "5")
    explained(done, 2, "Say how long to record")
