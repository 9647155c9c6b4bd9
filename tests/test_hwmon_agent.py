"""Sensors read by a real agent, on this host and over a real SSH server, while their files change."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped,unused-ignore]
import pytest
from hwmon_trees import build, put
from test_workload_remote import Server, needs_sshd
from test_workload_remote import server as server

import joulemeter as jm
from joulemeter import store
from joulemeter.capture import Stream
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Driver, Options
from joulemeter.instruments import hwmon
from joulemeter.transport import process
from joulemeter.transport.process import ProcessLink

posix_only = pytest.mark.skipif(os.name != "posix", reason="sysfs and pipes are not on this system")
pytestmark = posix_only

HIGH_MA, LOW_MA = 800, 200
VOLTS = 5.012


class Toggling(threading.Thread):
    """A load that steps between two currents; `steps` has the host's clock and the current from then on."""

    def __init__(self, file: Path, half_s: float) -> None:
        super().__init__(daemon=True)
        self._file, self._half_s = file, half_s
        self._over = threading.Event()
        self.steps: list[tuple[int, int]] = []

    def run(self) -> None:
        value = LOW_MA
        while not self._over.wait(self._half_s):
            value = HIGH_MA + LOW_MA - value
            put(self._file, value)
            self.steps.append((time.monotonic_ns(), value))

    def __enter__(self) -> Toggling:
        put(self._file, LOW_MA)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def tree(folder: Path, **files: int) -> Path:
    root = build(folder / "sys", "pi with ina226")
    for name, value in files.items():
        (root / "class/hwmon/hwmon1" / name).write_text(f"{value}\n")
    return root


def current_file(root: Path) -> Path:
    return root / "class/hwmon/hwmon1/curr1_input"


def readings(stream: Stream) -> tuple[np.ndarray, np.ndarray]:
    """Host monotonic nanoseconds and amperes of every reading."""
    times, values = [], []
    assert stream.timebase.monotonic_ns is not None
    for block in stream.blocks():
        assert block.times_ns is not None
        times.append(block.times_ns + stream.timebase.monotonic_ns)
        values.append(block.data["current"])
    return np.concatenate(times), np.concatenate(values)


def follows(stream: Stream, toggling: Toggling, late_s: float) -> None:
    """Every step of the file shows in the readings when it was made, to an interval and `late_s`."""
    at, amperes = readings(stream)
    seen = [(at_ns, value) for at_ns, value in toggling.steps if at[0] < at_ns < at[-1]]
    assert len(seen) >= 3
    tolerance_ns = 1e9 / stream.header.rate_hz + late_s * 1e9
    for step_ns, milliamperes in seen:
        changed = np.flatnonzero(amperes == milliamperes / 1e3)
        nearest = np.abs(at[changed[at[changed] > step_ns - 5e7]] - step_ns).min()
        assert nearest <= tolerance_ns, f"a step is seen {nearest * 1e-6:.1f} ms away"


def test_a_board_of_this_host_is_recorded(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with Toggling(current_file(root), 0.13) as toggling:
        run = jm.open("hwmon", settings={"root": str(root)}, output=tmp_path / "runs").record("1.5s")
    (stream,) = run.recording.streams
    assert (stream.header.instrument, stream.header.simulated) == ("hwmon", False)
    assert stream.length >= 100
    follows(stream, toggling, 20e-3)
    # What is in words.raw is what the agent said, one line of fixed width a round.
    words = next((tmp_path / "runs").rglob("words.raw")).read_bytes()
    lines = words.splitlines(keepends=True)
    assert {len(line) for line in lines} == {stream.header.word_bytes}
    assert all(line.startswith(b'{"poll":[') for line in lines)
    assert set(run.signal("voltage", 0.1, 0.5)[:5]) <= {VOLTS}


def test_energy_of_windows_of_this_host(tmp_path: Path) -> None:
    root = tree(tmp_path, curr1_input=800)
    with jm.measure(meter="hwmon", settings={"root": str(root)}, output=tmp_path / "runs") as m:
        for _ in range(5):
            with m.inference():
                time.sleep(0.2)
    result = m.result
    # A constant load: mean power is known whatever the windows are.
    assert result.power_w.inference == pytest.approx(0.8 * VOLTS, rel=1e-9)
    assert result.latency_s.median is not None
    assert result.energy_per_inference_j.median == pytest.approx(0.8 * VOLTS * result.latency_s.median, rel=1e-6)
    assert not result.simulated
    assert Code.FEW_SAMPLES not in {caveat.code for caveat in result.caveats}
    assert result.energy_per_inference_j.u_systematic is not None


def test_a_sum_of_rails_is_recorded(tmp_path: Path) -> None:
    """AGX Orin: 20 V * 160 mA + 20 V * 48 mA + 5 V * 800 mA + 5 V * 120 mA, and each of them beside it."""
    root = build(tmp_path / "sys", "agx orin")
    run = jm.open("hwmon", settings={"root": str(root)}, output=tmp_path / "runs").record("0.3s")
    watts = {"power": 8.76, "power VDD_GPU_SOC": 3.2, "power VIN_SYS_5V0": 4.0, "power VDDQ_VDD2_1V8AO": 0.6}
    for name, power_w in watts.items():
        signal_w = run.signal(name)
        assert np.isfinite(signal_w).any()
        assert signal_w[np.isfinite(signal_w)] == pytest.approx(power_w, rel=1e-12)


def test_the_simulated_energy_lies_within_what_is_stated(tmp_path: Path) -> None:
    """123.4 mA at 5 V are 617 mW; the sensor has steps of 1 mA and says by how much it may be wrong."""
    with jm.measure(meter="hwmon", simulate=True, load="123.4mA/1s", output=tmp_path / "runs") as m:
        for _ in range(4):
            with m.inference():
                time.sleep(0.25)
    energy, latency_s = m.result.energy_per_inference_j, m.result.latency_s.median
    assert m.result.simulated and latency_s is not None and energy.median is not None
    assert energy.expanded_k2 is not None
    assert energy.median != pytest.approx(0.617 * latency_s, rel=1e-4)
    assert abs(energy.median - 0.617 * latency_s) <= energy.expanded_k2 <= 0.1 * energy.median


def test_windows_of_a_few_refreshes_are_doubted(tmp_path: Path) -> None:
    """INA226 as Linux sets it up: 35 ms for a new value. 120 ms hold three of them, however often it is asked."""
    root = tree(tmp_path, curr1_input=800, update_interval=35)
    settings = {"root": str(root), "interval": "5ms"}
    with jm.measure(meter="hwmon", settings=settings, output=tmp_path / "runs") as m:
        for _ in range(5):
            with m.inference():
                time.sleep(0.12)
            time.sleep(0.02)
    assert Code.FEW_SAMPLES in {caveat.code for caveat in m.result.caveats}


@contextlib.contextmanager
def polled(root: Path, **settings: str) -> Iterator[tuple[Driver, psutil.Process]]:
    """A driver and the process of its agent."""
    before = {child.pid for child in psutil.Process().children()}
    with hwmon.open("", Options(settings={"root": str(root), **settings})) as meter:
        (agent,) = [child for child in psutil.Process().children() if child.pid not in before]
        yield meter, agent


def gather(meter: Driver, until_s: float) -> bytes:
    raw = b""
    until = time.monotonic() + until_s
    while time.monotonic() < until:
        raw += meter.read(0.05)
    return raw


def test_slots_that_were_slept_through_are_lost_and_time_goes_on(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with polled(root) as (meter, agent):
        header = meter.start()
        raw = gather(meter, 0.2)
        agent.suspend()
        time.sleep(0.35)
        agent.resume()
        raw += gather(meter, 0.3)
    blocks = hwmon.decoder(header).feed(raw)
    lost = max(block.lost_before for block in blocks)
    assert lost >= 20
    for block in blocks:
        assert block.times_ns is not None
        # The index is the grid: no reading is more than a slot from where its number says.
        expected = (block.first_index + np.arange(len(block))) * 10_000_000 - header.parameters["age_ns"]
        assert (np.abs(block.times_ns - expected) <= 10_000_000).all()


def test_a_reading_that_fails_is_lost_with_its_reason(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with polled(root) as (meter, _):
        header = meter.start()
        raw = gather(meter, 0.15)
        put(current_file(root), "?")
        raw += gather(meter, 0.15)
        put(current_file(root), 812)
        raw += gather(meter, 0.15)
    blocks = hwmon.decoder(header).feed(raw)
    assert sum(block.lost_before for block in blocks) >= 5
    assert {value for block in blocks for value in block.data["current"]} == {0.812}
    assert b',null,"EDOM"]' in raw


def test_an_agent_that_dies_is_told_and_the_recording_is_kept(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with polled(root) as (meter, agent):
        meter.start()
        agent.send_signal(signal.SIGKILL)
        with pytest.raises(IncompleteError, match="ended with -9"):
            gather(meter, 5.0)
        meter.stop()


def test_a_recording_of_an_agent_that_dies_is_kept(tmp_path: Path) -> None:
    root = tree(tmp_path)

    def kill() -> None:
        time.sleep(1.2)
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if any(word.endswith("agent.py") for word in child.cmdline()):
                    child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(IncompleteError):
        jm.open("hwmon", settings={"root": str(root)}, output=tmp_path / "runs").record("20s")
    killer.join()
    (folder,) = (tmp_path / "runs").iterdir()
    recording = store.open_run(folder)
    assert recording.streams[0].length > 5
    assert Code.UNFINISHED in {caveat.code for caveat in recording.caveats}


def test_a_sensor_that_never_reads_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with hwmon.open("", Options(settings={"root": str(root)})) as meter:
        put(current_file(root), "?")
        with pytest.raises(DataError, match=r"curr1_input says EDOM"):
            meter.start()


def test_nothing_stays_behind(tmp_path: Path) -> None:
    root = tree(tmp_path)
    with polled(root) as (meter, agent):
        meter.start()
        meter.read(0.1)
    assert not agent.is_running() or agent.status() == psutil.STATUS_ZOMBIE


def test_the_command_line_measures_with_it(tmp_path: Path) -> None:
    root = tree(tmp_path, curr1_input=800)
    (tmp_path / "bench.py").write_text("import time\ndef infer():\n    time.sleep(0.05)\n")
    command = [sys.executable, "-m", "joulemeter", "measure", "--meter", "hwmon", "--set", f"root={root}"]
    command += ["--workload", "python:bench.py:infer", "--inferences-per-window", "4", "--windows", "5"]
    command += ["-o", str(tmp_path / "runs"), "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert '"key": "hwmon"' in done.stdout and '"simulated": false' in done.stdout


# -- the link ---------------------------------------------------------------------------------------------------------


def test_a_child_process_as_a_link() -> None:
    link = ProcessLink([sys.executable, "-c", "print(input(), flush=True); raise SystemExit('tired')"], "child")
    assert link.read(0.0) == b""
    link.write(b"hello\n")
    heard = b""
    while not heard.endswith(b"\n"):
        heard += link.read(10.0)
    assert heard == b"hello\n"
    with pytest.raises(IncompleteError, match=r"ended with 1\. It said: tired"):
        link.read(10.0)
    link.close()
    link.close()
    for use in (lambda: link.read(0.1), lambda: link.write(b"x")):
        with pytest.raises(IncompleteError, match="was ended"):
            use()


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(NotFoundError, match="cannot be started"):
        ProcessLink(["/no/such/program"], "child")


def test_a_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "CLOSE_S", 0.2)
    ignore = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    before = {child.pid for child in psutil.Process().children()}
    link = ProcessLink([sys.executable, "-c", ignore], "child")
    (child,) = [each for each in psutil.Process().children() if each.pid not in before]
    link.close()
    assert not child.is_running()


# -- over SSH ---------------------------------------------------------------------------------------------------------


@needs_sshd
def test_a_board_over_ssh_is_recorded(server: Server, tmp_path: Path) -> None:
    root = tree(tmp_path)
    settings = {"root": str(root), "ssh": str(server.config), "python": sys.executable}
    with Toggling(current_file(root), 0.13) as toggling:
        run = jm.open("hwmon@ssh://board", settings=settings, output=tmp_path / "runs").record("1.5s")
    (stream,) = run.recording.streams
    assert stream.header.address == "ssh://board"
    clock = stream.header.parameters["clock"]
    # Both ends have one clock here: the offset is 0, and the exchanges say how far from that they could tell.
    assert abs(clock["offset_s"]) <= 3**0.5 * clock["u_offset_s"] + 1e-9
    assert clock["rtt_min_s"] > 0
    epoch = stream.header.epoch
    assert epoch is not None and epoch.u_s >= clock["u_offset_s"] and epoch.u_drift_ppm > 0
    assert abs(epoch.monotonic_ns - stream.header.parameters["first_ns"]) <= 3**0.5 * epoch.u_s * 1e9 + 1
    follows(stream, toggling, 25e-3)


@needs_sshd
def test_workload_and_sensor_of_one_board(server: Server, tmp_path: Path) -> None:
    """The board's currents are high while its workload runs, and its stamps fall together with them."""
    root = tree(tmp_path)
    (server.home / "blink.py").write_text(
        f"import os, time\nfile = os.open({str(current_file(root))!r}, os.O_WRONLY)\n"
        "def infer():\n"
        f"    os.pwrite(file, b'{HIGH_MA}', 0); time.sleep(0.15); os.pwrite(file, b'{LOW_MA}', 0); time.sleep(0.15)\n"
    )
    put(current_file(root), LOW_MA)
    command = [sys.executable, "-m", "joulemeter", "measure", "--meter", "hwmon@ssh://board", "--set", f"root={root}"]
    command += ["--set", f"ssh={server.config}", "--set", f"python={sys.executable}", "--windows", "4", "--json"]
    command += ["--workload", "python:ssh://board/~/blink.py:infer", "--workload-set", f"ssh={server.config}"]
    command += [
        "--workload-set",
        f"python={sys.executable}",
        "--inferences-per-window",
        "1",
        "-o",
        str(tmp_path / "runs"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    # Half of the time at either current.
    mean_w = (HIGH_MA + LOW_MA) / 2e3 * VOLTS
    assert result["power_w"]["inference"] == pytest.approx(mean_w, rel=0.1)
    assert result["power_w"]["peak"] == pytest.approx(HIGH_MA / 1e3 * VOLTS)
    assert result["windows"]["used"] >= 4


@needs_sshd
def test_trouble_over_ssh(server: Server, tmp_path: Path) -> None:
    settings = {"ssh": str(server.config), "python": sys.executable, "root": str(tmp_path)}
    with pytest.raises(NotFoundError, match="no power sensor"):
        hwmon.open("ssh://board", Options(settings=settings))
    with pytest.raises(UsageError, match="names a file"):
        hwmon.open("ssh://board/model.tflite", Options(settings=settings))
    with pytest.raises(UsageError, match="not an SSH address"):
        hwmon.open("ssh://-oProxyCommand=x", Options(settings=settings))
    with pytest.raises(AccessError):
        hwmon.open("ssh://refused", Options(settings=settings))


@needs_sshd
def test_a_lost_connection_is_told(server: Server, tmp_path: Path) -> None:
    root = tree(tmp_path)
    settings = {"root": str(root), "ssh": str(server.config), "python": sys.executable}
    before = {child.pid for child in psutil.Process().children()}
    with hwmon.open("ssh://board", Options(settings=settings)) as meter:
        (ssh,) = [child for child in psutil.Process().children() if child.pid not in before]
        header = meter.start()
        raw = gather(meter, 0.3)
        ssh.kill()
        with pytest.raises(IncompleteError):
            gather(meter, 5.0)
    assert sum(len(block) for block in hwmon.decoder(header).feed(raw)) > 5
