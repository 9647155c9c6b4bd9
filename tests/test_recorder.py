"""The recorder process: what it leaves behind when things end badly, and what it says meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

import joulemeter as jm
from joulemeter import conduct, recorder, store
from joulemeter.capture import Recording
from joulemeter.caveat import Code
from joulemeter.errors import BY_EXIT_CODE, JouleMeterError
from joulemeter.instrument import Device, Driver, Options
from joulemeter.physics.analyze import analyze
from joulemeter.record import Health, Recorder
from joulemeter.registry import instrument
from joulemeter.synthetic import parse_load
from joulemeter.testing.contract import Subject
from joulemeter.transport.serve import serve_pty

LOAD = "8mA/20ms/d0,250uA/30ms"
STOP, POWER_OFF, POWER_ON = b"\x07", b"\x0c\x00", b"\x0c\x01"


class Overheard:
    """A simulated PPK2 that keeps what it was told."""

    def __init__(self) -> None:
        self.device: Device = instrument("ppk2").simulate(parse_load(LOAD), Options())
        self.heard = b""

    def receive(self, data: bytes) -> None:
        self.heard += data
        self.device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        return self.device.transmit(now_s)


@pytest.fixture
def meter() -> Iterator[tuple[Overheard, str]]:
    device, stop, ready = Overheard(), threading.Event(), threading.Event()
    address: list[str] = []

    def announce(text: str) -> None:
        address.append(text)
        ready.set()

    server = threading.Thread(target=serve_pty, args=(device, announce, stop.is_set), daemon=True)
    server.start()
    ready.wait(5)
    yield device, address[0]
    stop.set()
    server.join(5)


def wait_for(what: str, condition: object, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_the_board_is_never_left_powered(number: signal.Signals, meter: tuple[Overheard, str], tmp_path: Path) -> None:
    """Even a session that is killed without warning: the recorder sees its parent go and puts things back."""
    device, address = meter
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "joulemeter", "measure", "--meter", f"ppk2@{address}", "--supply", "3V"),
            *("--trigger", "d0", "--duration", "60s", "-o", str(tmp_path), "--quiet"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for("the first bytes", lambda: any(p.stat().st_size > 200_000 for p in tmp_path.glob("*/ppk2/words.raw")))
    assert POWER_ON in device.heard
    assert POWER_OFF not in device.heard
    process.send_signal(number)
    process.wait(20)
    wait_for("the power to go off", lambda: POWER_OFF in device.heard)
    assert STOP in device.heard[device.heard.index(POWER_ON) :]
    (run,) = tmp_path.iterdir()
    wait_for("the end mark", lambda: b'"end"' in (run / "ppk2" / store.MARKS).read_bytes())
    recording = store.open_run(run)
    assert Code.UNFINISHED not in {caveat.code for caveat in recording.caveats}
    assert analyze(recording).result.windows.used >= 5


def test_health_counts_what_passes(meter: tuple[Overheard, str], tmp_path: Path) -> None:
    _, address = meter
    run = store.create_run(tmp_path, "health", {"trigger": "d0", "inferences_per_window": 1})
    with Recorder("ppk2", address, Options(supply_v=3.0), run / "ppk2", "d0") as live:
        wait_for("twenty windows", lambda: live.poll(0.1).falls >= 20)
    health = live.health
    assert live.error is None
    assert health.lost == 0
    assert health.waits == 0
    assert abs(health.rises - health.falls) <= 1
    stream = store.open_run(run).streams[0]
    assert 0 <= stream.length - health.samples <= 64


def test_a_slow_disk_is_counted_as_back_pressure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(recorder, "QUEUE_CHUNKS", 2)
    monkeypatch.setattr(recorder, "_say", lambda content: None)
    append = store.StreamWriter.append

    def slowly(writer: store.StreamWriter, raw: bytes) -> None:
        time.sleep(0.1)
        append(writer, raw)

    monkeypatch.setattr(store.StreamWriter, "append", slowly)
    run = store.create_run(tmp_path, "slow", {"trigger": "d0"})
    stop = threading.Event()
    threading.Timer(1.5, stop.set).start()
    with Subject(module=instrument("ppk2")).wire() as address:
        task = recorder.Task(
            key="ppk2", address=address, options=Options(supply_v=3.0), folder=run / "ppk2", trigger="d0"
        )
        assert recorder.record(task, stop) == "stop"
    codes = {caveat.code for caveat in store.open_run(run).caveats}
    assert Code.BACK_PRESSURE in codes


def test_the_library_records_and_loads(tmp_path: Path) -> None:
    with jm.open("ppk2", supply="3.0V", simulate=True, load=LOAD, output=tmp_path) as opened:
        run = opened.record("1s", trigger="d0")
    result = run.result()
    assert result.simulated
    assert result.energy_per_inference_j.median == pytest.approx(480e-6, rel=3e-3)
    table = run.windows()
    assert len(table) >= 15
    assert table["energy_j"].median() == pytest.approx(result.energy_per_inference_j.median)
    signal_a = run.signal("current", 0.2, 0.3)
    assert len(signal_a) == 10_000
    assert signal_a.mean() == pytest.approx(parse_load(LOAD).mean_a, rel=5e-3)
    with pytest.raises(jm.JouleMeterError, match=r"no channel 'volts'.*current"):
        run.signal("volts")
    assert isinstance(jm.load(run.path).recording, Recording)
    assert os.listdir(tmp_path) == [run.path.name]  # noqa: PTH208 - names only


@pytest.mark.parametrize("kind", BY_EXIT_CODE.values())
def test_an_error_of_the_recorder_keeps_its_exit_code(kind: type[JouleMeterError]) -> None:
    """Every class of error can be made again from what the recorder's process says of it."""
    again = BY_EXIT_CODE[kind.exit_code]("What happened.", "What to do.")
    assert (again.exit_code, str(again)) == (kind.exit_code, "What happened. What to do.")


def test_every_exit_code_crosses_the_process_border() -> None:
    kinds = JouleMeterError.__subclasses__()
    assert {kind.exit_code for kind in kinds} == set(BY_EXIT_CODE)


def test_the_progress_line_fits_and_keeps_what_matters() -> None:
    health = Health(samples=12_345_678_901, lost=1_234_567, power_w=5.4e-3, mean_w=5.439e-3, median_s=0.02)
    line = conduct._line(health, 3000.3, complete=123_456, goal=1_000_000, per_window=25, rate_hz=41.0, left_s=80_000)
    assert len(line) <= 79
    assert "1234567 LOST" in line and "5.400 mW" in line and "123456/1000000 windows" in line
    usual = Health(samples=200_000, power_w=5.4e-3, mean_w=5.439e-3)
    line = conduct._line(usual, 2.0, complete=20, goal=100, per_window=2, rate_hz=10.0, left_s=8)
    assert line == "2.00 s · 5.400 mW · mean 5.439 mW · 20/100 windows · 40 inferences · 8 s left"
    assert conduct._line(Health(), 2.0) == "2.00 s"


def test_the_time_that_is_left() -> None:
    assert conduct._left_s(None, 80, 10.0) == 8
    assert conduct._left_s(5.2, 80, 10.0) == 6
    assert conduct._left_s(5.2, 80, 0.0) == 6
    assert conduct._left_s(None, 80, 0.0) is None
    assert conduct._left_s(-0.1, None, 0.0) == 0


def test_a_fault_in_a_driver_does_not_look_like_a_good_end(capsys: pytest.CaptureFixture[str]) -> None:
    class Faulty:
        def read(self, timeout_s: float) -> bytes:
            raise ValueError("of no use")

    (header,) = [Subject(module=instrument("ppk2")).capture()[0]]
    reader = recorder._Reader(cast(Driver, Faulty()), threading.Event(), threading.Event(), header)
    reader.run()
    assert reader.error is not None
    assert reader.error.exit_code == 5
    assert "ValueError: of no use" in reader.error.what
    assert "Traceback" in capsys.readouterr().err
