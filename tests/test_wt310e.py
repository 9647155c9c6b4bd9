"""The WT310E: numbers of Yokogawa's manuals, other people's readers of the simulator, and the driver against it."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scpi_bench import Bench

from joulemeter.capture import ArrayStream, Block, Gap, Header, Kind, Quantity, Timebase
from joulemeter.caveat import Code
from joulemeter.errors import IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import wt310e
from joulemeter.instruments.wt310e import channels, driver, simulator, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.witness import cross_check
from joulemeter.synthetic import Draw, parse_load
from joulemeter.transport.faults import parse_faults
from joulemeter.transport.scpidevice import BentDevice, MessageDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.transport.serve import serve_pty
from joulemeter.window import Window

LOAD = parse_load("900mA/600ms/d0,300mA/400ms")
STEADY = parse_load("600mA/1s")
VOLTS = 5.0
YOKOTOOL = Path(os.environ.get("JOULEMETER_YOKOTOOL", "/nonexistent"))
pty_only = pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")


def made(load: Draw = STEADY, **choices: Any) -> simulator.Wt310eSimulator:
    return simulator.Wt310eSimulator(load, VOLTS, **choices)


@contextlib.contextmanager
def opened(device: MessageDevice, wires: str = "socket", **settings: str) -> Iterator[Any]:
    with serving(device, wires) as where, wt310e.open(where[wires], Options(settings=settings)) as meter:
        yield meter


def read_for(meter: Any, seconds: float) -> bytes:
    raw, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        raw += meter.read(0.1)
    return raw


def recorded(device: MessageDevice, seconds: float, **choices: str) -> tuple[Header, list[Block]]:
    with opened(device, **choices) as meter:
        header = meter.start()
        raw = read_for(meter, seconds)
    return header, wt310e.decoder(header).feed(raw)


def column(blocks: Sequence[Block], name: str) -> Any:
    return np.concatenate([block.data[name] for block in blocks])


def times_s(blocks: Sequence[Block]) -> Any:
    return np.concatenate([block.times_ns for block in blocks if block.times_ns is not None]) * 1e-9


def stream_of(header: Header, blocks: Sequence[Block]) -> ArrayStream:
    return ArrayStream(
        name="test",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={one.name: column(blocks, one.name) for one in header.channels},
        gaps=tuple(Gap(index=block.first_index, lost=block.lost_before) for block in blocks if block.lost_before),
        times_ns=np.rint(times_s(blocks) * 1e9).astype(np.int64),
    )


# Numbers that did not come from here.


def test_the_codes_that_are_no_values() -> None:
    """IM WT3001E-17EN, p. 6-97: an hour is 0x45610000; 9.9E+37 and 9.91E+37 are errors. IM WT310-17EN, p. 9-7."""
    hour, good = "45610000", "3f8000003f0000003f00000045610000"
    reading = wire.parse_float(bytes.fromhex(good))
    assert reading is not None
    assert (reading.voltage_v, reading.current_a, reading.power_w) == (1.0, 0.5, 0.5)
    assert reading.energy_j == 3600.0 * 3600.0
    assert struct.pack(">2f", 9.9e37, 9.91e37).hex() == "7e94f56a7e951bee"
    for code in ("7e94f56a", "7e951bee", "7fc00000", "7f800000", "ff800000", "fe94f56a"):
        for at in range(4):
            spoilt = good[: 8 * at] + code + good[8 * at + 8 :]
            assert wire.parse_float(bytes.fromhex(spoilt)) is None, (code, at)
    assert wire.is_over(bytes.fromhex("7e94f56a" + 3 * hour))
    assert not wire.is_over(bytes.fromhex("7e951bee" + 3 * hour))
    assert wire.parse_float(bytes.fromhex(good)[:-1]) is None


def test_a_line_of_text_as_the_manual_prints_it() -> None:
    """IM 760101-11E, p. 5-70, shows 104.75E+00,105.02E+00,-0.38E+00, ... ,49.868E+00."""
    reading = wire.parse_ascii(b"104.75E+00,105.02E+00,-0.38E+00,49.868E+00\n")
    assert reading is not None
    assert (reading.voltage_v, reading.current_a, reading.power_w) == (104.75, 105.02, -0.38)
    assert reading.energy_j == pytest.approx(49.868 * 3600)
    for text in (b"INF,1,1,1", b"1,NAN,1,1", b"1,1,1", b"1,1,1,1,1", b"1,1,9.91E+37,1", b"1,1,--,1", b""):
        assert wire.parse_ascii(text) is None, text
    assert wire.is_over(b"5.0000E+00,INF,INF,0.0000E+00")


@pytest.mark.parametrize("wires", ["socket", "vxi11"])
def test_pyvisa_reads_the_simulator(wires: str) -> None:
    pyvisa = pytest.importorskip("pyvisa")
    with serving(made(), wires) as where:
        manager = pyvisa.ResourceManager("@py")
        meter = manager.open_resource(where[wires], read_termination="\n", write_termination="\n", timeout=3000)
        try:
            time.sleep(0.3)
            for command in (":NUM:NORM:NUM 3", ":NUM:NORM:ITEM1 U,1", ":NUM:NORM:ITEM2 I,1", ":NUM:NORM:ITEM3 P,1"):
                meter.write(command)
            assert meter.query_ascii_values(":NUM:NORM:VAL?") == pytest.approx([5.0, 0.6, 3.0])
            meter.write(":NUM:FORM FLO")
            raw = meter.query_binary_values(":NUM:NORM:VAL?", datatype="f", is_big_endian=True)
            assert raw == pytest.approx([5.0, 0.6, 3.0])
        finally:
            meter.close()
            manager.close()


@pytest.mark.outside
@pty_only
@pytest.mark.skipif(not YOKOTOOL.exists(), reason="JOULEMETER_YOKOTOOL names no copy of intel/yoko-tool")
def test_yokotool_reads_the_simulator(tmp_path: Path) -> None:
    """A program of its own, on a serial line: values, the integrator, and what it says of the settings."""
    (tmp_path / ".yokotool.conf").write_text("[default]\ndevnode=/dev/null\npmtype=wt310\n")
    ports: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(address: str) -> None:
        ports.append(address)
        ready.set()

    server = threading.Thread(target=serve_pty, args=(made(), announce, stop.is_set), daemon=True)
    server.start()
    assert ready.wait(5)

    def say(*words: str) -> str:
        command = [sys.executable, str(YOKOTOOL / "yokotool"), ports[0], "--pmtype", "wt310", *words]
        environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(YOKOTOOL)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    try:
        assert "Current range (amperes): 1\n" in say("info")
        say("set", "interval", "0.1")
        say("integration", "start")
        time.sleep(0.5)
        say("integration", "stop")
        volts, amperes, watts, watt_hours = say("read", "--count", "1", "V,I,P,Wh").splitlines()[-1].split(", ")
    finally:
        stop.set()
        server.join(5)
    assert (float(volts), float(amperes), float(watts)) == (5.0, 0.6, 3.0)
    # At least the half second, at most what starting the programs took.
    assert 0.4 * 3.0 / 3600 <= float(watt_hours) <= 20 * 3.0 / 3600


# The driver.


def test_energy_of_windows_is_what_the_integrator_counted() -> None:
    header, blocks = recorded(made(LOAD), 2.6, wires="vxi11")
    assert (header.simulated, header.model, header.serial) == (True, "WT310E", "SIM00000001")
    energy, power, current, voltage = header.channels
    assert (energy.quantity, energy.kind, energy.refresh_s) == (Quantity.ENERGY, Kind.CUMULATIVE, 0.1)
    assert [one.quantity for one in (power, current, voltage)] == [Quantity.POWER, Quantity.CURRENT, Quantity.VOLTAGE]
    assert energy.accuracy[0].verified
    assert column(blocks, "voltage") == pytest.approx(5.0)
    stream = stream_of(header, blocks)
    # Whole cycles of the load, wherever they begin: 5 V, 0.9 A for 0.6 s and 0.3 A for 0.4 s.
    window = Window(start_ns=300_000_000, stop_ns=2_300_000_000, index=0)
    (found,) = integrate(stream, [window])
    assert found.energy_j is not None
    assert found.resolution_j is not None
    truth_j = 2 * 5.0 * (0.9 * 0.6 + 0.3 * 0.4)
    accuracy = energy.accuracy[0]
    limit_j = accuracy.gain.value * truth_j + accuracy.offset.value * 2.0
    assert abs(found.energy_j - truth_j) <= found.resolution_j + limit_j
    # Ranges 15 V and 1 A: 0.2 % of 15 W, 500 uA at 15 V and 0.02 % of 15 W for a kelvin.
    assert accuracy.offset.value == pytest.approx(0.030 + 0.0075 + 0.003)
    assert accuracy.gain.value == pytest.approx(0.0012)


def test_windows_of_single_inferences_are_too_short_for_it() -> None:
    header, blocks = recorded(made(), 1.1, format="ascii")
    short, long = (Window(start_ns=200_000_000, stop_ns=200_000_000 + ns, index=0) for ns in (150_000_000, 700_000_000))
    found_short, found_long = integrate(stream_of(header, blocks), [short, long])
    assert Code.TOO_SHORT in found_short.caveats
    assert Code.TOO_SHORT not in found_long.caveats
    assert found_long.energy_j == pytest.approx(3.0 * 0.7, rel=0.02)


def test_power_with_the_integrator_as_a_witness() -> None:
    header, blocks = recorded(made(), 1.4, source="power")
    assert [one.name for one in header.channels] == ["power", "current", "voltage", "counted energy"]
    assert header.channels[-1].witness
    stream = stream_of(header, blocks)
    check = cross_check(stream)
    assert check is not None
    assert check.agrees
    assert check.counted == pytest.approx(3.0 * check.duration_s, rel=0.15)
    assert column(blocks, "power") == pytest.approx(3.0)


def test_the_meter_is_left_as_it_was_found() -> None:
    device = made()
    before = {name: device.answer(f"{name}?") for name in (*driver.KEPT, *driver.RANGING)}
    with opened(device, volts="30V", amps="2A") as meter:
        header = meter.start()
        assert (header.parameters["range_v"], header.parameters["range_a"]) == (30.0, 2.0)
        assert (device.answer(":INP:MODE?"), device.answer(":INP:SYNC?")) == (b"DC", b"OFF")
        assert float(device.answer(":RATE?") or 0) == 0.1
        assert device.answer(":INTEG:STAT?") == b"START"
        meter.stop()
        after = {name: device.answer(f"{name}?") for name in before}
        assert device.answer(":INTEG:STAT?") == b"RESET"
        deadline = time.monotonic() + 2
        while device.answer(":COMM:REM?") != b"0" and time.monotonic() < deadline:
            time.sleep(0.01)
        assert device.answer(":COMM:REM?") == b"0"
    for name, value in before.items():
        assert _same(value, after[name]), name


def _same(first: bytes | None, second: bytes | None) -> bool:
    try:
        return float(first or b"") == float(second or b"")
    except ValueError:
        return first == second


def test_a_meter_that_ranges_by_itself_has_to_be_told_a_range() -> None:
    device = made(auto=True)
    with opened(device) as meter, pytest.raises(UsageError, match="--set volts=15V"):
        meter.start()
    with opened(device, volts="15V") as meter, pytest.raises(UsageError, match="--set amps=1A"):
        meter.start()
    with opened(device, volts="15V", amps="1A") as meter:
        meter.start()
        assert device.answer(":INP:CURR:AUTO?") == b"0"
    assert device.answer(":INP:CURR:AUTO?") == b"1"


@pytest.mark.parametrize("form", ["float", "ascii"])
def test_what_is_over_its_range_is_lost_and_never_a_value(form: str) -> None:
    header, blocks = recorded(made(parse_load("500mA/300ms,3A/300ms")), 1.2, format=form)
    assert column(blocks, "current").max() < 1.5
    assert np.isfinite(column(blocks, "power")).all()
    assert sum(block.lost_before for block in blocks) >= 2
    assert times_s(blocks)[-1] > 0.5
    del header


def test_an_input_over_its_range_from_the_beginning_is_told() -> None:
    with opened(made(parse_load("3A/1s"))) as meter, pytest.raises(UsageError, match="over its range"):
        meter.start()


def test_an_integrator_that_was_stopped_is_told() -> None:
    device = made()
    with opened(device) as meter:
        header = meter.start()
        raw = read_for(meter, 0.4)
        device.press_stop()
        with pytest.raises(IncompleteError, match="integrator stopped"):
            read_for(meter, 5.0)
    assert wt310e.decoder(header).feed(raw)


def test_a_range_that_the_meter_left_is_told() -> None:
    device = made(parse_load("50mA/1s"))
    with opened(device, volts="15V", amps="100mA") as meter:
        meter.start()
        device.protect()
        with pytest.raises(IncompleteError, match="protect its input"):
            read_for(meter, 5.0)


def test_an_earlier_programs_integration_is_ended_first() -> None:
    device = made()
    device.answer(":INTEG:STAR")
    header, blocks = recorded(device, 0.5)
    assert column(blocks, "energy")[0] < 3.0
    assert header.channels[0].name == "energy"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Options(supply_v=5.0), "cannot supply"),
        (Options(declared_v=5.0), "measures the voltage"),
        (Options(settings={"volts": "12V"}), "no range of 12.00 V"),
        (Options(settings={"amps": "40A"}), "no range of 40.00 A"),
        (Options(settings={"amps": "many"}), "quantity"),
        (Options(settings={"rate": "50ms"}), "rate cannot be"),
        (Options(settings={"input": "vmean"}), "input cannot be"),
    ],
)
def test_what_it_cannot_do_is_refused(options: Options, text: str) -> None:
    with serving(made(), "socket") as where, pytest.raises(UsageError, match=text):
        wt310e.open(where["socket"], options)


@pytest.mark.parametrize(
    ("model", "amps", "offset_w"),
    [("WT310EH", "40A", 0.002 * 600 + 0.015 + 0.0002 * 600), ("WT310", "200mA", 0.002 * 3 + 75e-6 + 0.0002 * 3)],
)
def test_models_have_ranges_and_accuracies_of_their_own(model: str, amps: str, offset_w: float) -> None:
    found = wire.model_of("YOKOGAWA", f"{model}-C2-EX1")
    assert found is not None
    assert found.name == model
    range_a = float(amps.removesuffix("A").replace("200m", "0.2"))
    energy, *_ = channels.channels(found, "dc", "energy", 15.0, range_a, 0.1)
    assert energy.accuracy[0].offset.value == pytest.approx(offset_w)
    assert energy.accuracy[0].verified == (model == "WT310EH")
    assert energy.accuracy[0].gain.value == pytest.approx(0.0032 if model == "WT310EH" else 0.0012)
    assert wire.model_of("YOKOGAWA", "WT3104") is None
    assert wire.model_of("OTHERS", model) is None


# Wires.


def test_another_instrument_is_told() -> None:
    with serving(Bench(), "socket") as where, pytest.raises(NotFoundError, match="RIGOL"):
        wt310e.open(where["socket"], Options())


def test_an_unplugged_meter_keeps_what_came() -> None:
    device = BentDevice(made(), timed=parse_faults("unplug@1.2s"))
    with opened(device) as meter:
        header, raw = meter.start(), b""
        with pytest.raises(IncompleteError):
            while True:
                raw += meter.read(0.1)
    assert len(column(wt310e.decoder(header).feed(raw), "energy")) >= 2


@pytest.mark.parametrize("fault", ["stall@0.6s", "noise@0.6s"])
def test_a_meter_that_makes_no_sense_keeps_nobody_waiting(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ANSWER_S", 0.2)
    with opened(BentDevice(made(), timed=parse_faults(fault))) as meter:
        header = meter.start()
        raw = b""
        for _ in range(6):
            with contextlib.suppress(IncompleteError):
                raw += meter.read(0.1)
        began = time.monotonic()
        with contextlib.suppress(IncompleteError):
            assert meter.read(0.1) == b""
        assert time.monotonic() - began < 3
    blocks = wt310e.decoder(header).feed(raw)
    assert column(blocks, "power") == pytest.approx(3.0)


def test_an_answer_that_is_cut_short_is_a_lost_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ANSWER_S", 0.15)
    with opened(BentDevice(made(), timed=parse_faults("drop@0.7s:5"))) as meter:
        header = meter.start()
        raw = read_for(meter, 1.0)
    blocks = wt310e.decoder(header).feed(raw)
    assert 1 <= sum(block.lost_before for block in blocks) <= 6
    assert column(blocks, "voltage") == pytest.approx(5.0)
