"""The N6705's log and arrays: PyVISA's and QCoDeS's view of the simulator, and the driver against it."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scpi_bench import Bench

from joulemeter import frames
from joulemeter.capture import ArrayStream, Basis, Block, Header, Kind, Status, Timebase
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import n6705
from joulemeter.instruments.n6705 import channels, fetching, reader, simulator, wire
from joulemeter.physics.integrate import integrate
from joulemeter.synthetic import Draw, parse_load
from joulemeter.transport.faults import parse_faults
from joulemeter.transport.scpidevice import BentDevice, ByteFault, MessageDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.window import Window

LOAD = parse_load("8mA/20ms/d0,250uA/30ms")
STEADY = parse_load("5mA/1s/d0")
DLOG_VIEWER = Path(os.environ.get("JOULEMETER_DLOG_VIEWER", "/nonexistent"))
QCODES = Path(os.environ.get("JOULEMETER_QCODES_PYTHON", "/nonexistent"))


class Heard(simulator.N6705Simulator):  # type: ignore[misc]
    """Remembers what it was told."""

    def __init__(self, load: Draw = STEADY, *, on: bool = True) -> None:
        super().__init__(load, on=on)
        self.heard: list[str] = []

    def answer(self, command: str) -> bytes | None:
        self.heard.append(command)
        given: bytes | None = super().answer(command)
        return given


@contextlib.contextmanager
def opened(
    device: MessageDevice, wires: str = "socket", *, supply_v: float | None = None, **settings: str
) -> Iterator[Any]:
    with (
        serving(device, wires) as where,
        n6705.open(where[wires], Options(supply_v=supply_v, settings=settings)) as driver,
    ):
        yield driver


def read_for(driver: Any, seconds: float) -> bytes:
    raw, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        raw += driver.read(0.1)
    return raw


def recorded(device: MessageDevice, seconds: float, **choices: Any) -> tuple[Header, list[Block]]:
    with opened(device, **choices) as driver:
        header = driver.start()
        raw = read_for(driver, seconds)
    return header, n6705.decoder(header).feed(raw)


def column(blocks: Sequence[Block], name: str = "current") -> Any:
    return np.concatenate([block.data[name] for block in blocks])


def stream_of(header: Header, blocks: Sequence[Block]) -> ArrayStream:
    names = [channel.name for channel in header.channels]
    data = {name: column(blocks, name) for name in names}
    return ArrayStream(name="test", header=header, timebase=Timebase(rate_hz=header.rate_hz), data=data)


# Bytes and programs that did not come from here.


def test_records_are_singles_most_significant_byte_first() -> None:
    # IEEE 754, binary32: 1, 3, 0.5, -2.
    payload = bytes.fromhex("3f800000 40400000 3f000000 c0000000")
    current, voltage = wire.columns(payload, wire.LOG, 2)
    assert (current.tolist(), voltage.tolist()) == ([1.0, 0.5], [3.0, -2.0])
    current, voltage = wire.columns(payload, wire.ARRAY, 2)
    assert (current.tolist(), voltage.tolist()) == ([1.0, 3.0], [0.5, -2.0])
    assert wire.columns(payload + b"\x3f", wire.LOG, 1)[0].tolist() == [1.0, 3.0, 0.5, -2.0]


@pytest.mark.parametrize("wires", ["socket", "vxi11"])
def test_pyvisa_reads_the_simulated_log_as_public_programs_do(wires: str) -> None:
    """The commands of a public N6705C program, and PyVISA's own reading of blocks: current first, big-endian."""
    pyvisa = pytest.importorskip("pyvisa")
    util = pytest.importorskip("pyvisa.util")
    with serving(simulator.N6705Simulator(STEADY), wires) as where:
        manager = pyvisa.ResourceManager("@py")
        meter = manager.open_resource(where[wires], read_termination="\n", write_termination="\n", timeout=3000)
        try:
            meter.write(":SENS:ELOG:FUNC:CURR OFF,(@2);:SENS:ELOG:FUNC:VOLT OFF,(@2)")
            for command in ("FORM REAL", "SENS:ELOG:FUNC:CURR ON,(@1)", "SENS:ELOG:FUNC:VOLT ON,(@1)"):
                meter.write(command)
            meter.write("SENS:ELOG:PER 0.001,(@1)")
            assert float(meter.query("SENS:ELOG:PER? (@1)")) == pytest.approx(49 * 20.48e-6)
            meter.write("INIT:ELOG (@1)")
            meter.write("TRIG:ELOG (@1)")
            time.sleep(0.1)
            meter.read_termination = None
            meter.write("FETC:ELOG? 16,(@1)")
            # Sixteen records of two values: a header of five bytes, 128 bytes and the line's end.
            raw = meter.read_bytes(5 + 128 + 1)
            values = util.from_ieee_block(raw, datatype="f", is_big_endian=True)
        finally:
            meter.close()
            manager.close()
    assert values[0::2] == pytest.approx([5e-3] * 16)
    assert values[1::2] == pytest.approx([3.0] * 16)
    # The same bytes through this driver's own reading.
    current, voltage = wire.columns(bytes(raw[5:133]), wire.LOG, 2)
    assert current.tolist() == pytest.approx(values[0::2])
    assert voltage.tolist() == pytest.approx(values[1::2])


@pytest.mark.outside
@pytest.mark.skipif(not QCODES.exists(), reason="JOULEMETER_QCODES_PYTHON names no Python with QCoDeS")
@pytest.mark.parametrize("wires", ["socket", "vxi11"])
def test_qcodes_sets_and_reads_the_simulator(wires: str) -> None:
    program = """
import json, sys
from qcodes.instrument_drivers.Keysight import KeysightN6705B
meter = KeysightN6705B("meter", sys.argv[1], visalib="@py")
output = meter.channels[0]
found = [output.voltage(), output.current(), output.enable()]
output.source_voltage(2.5)
found += [output.voltage(), output.source_voltage()]
output.enable("off")
found += [output.voltage(), output.current(), meter.get_idn()["model"]]
print(json.dumps(found))
"""
    with serving(simulator.N6705Simulator(STEADY), wires) as where:
        done = subprocess.run(
            [str(QCODES), "-c", program, where[wires]], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [3.0, 0.005, "on", 2.5, 2.5, 0.0, 0.0, "N6705C"]


# The log.


def test_energy_of_windows_is_the_closed_form() -> None:
    header, blocks = recorded(simulator.N6705Simulator(LOAD), 0.8, supply_v=3.3)
    assert (header.simulated, header.model, header.triggered) == (True, "N6705C with N6781A", False)
    assert header.rate_hz == pytest.approx(1 / 204.8e-6)
    assert [(one.name, one.kind) for one in header.channels] == [("current", Kind.MEAN), ("voltage", Kind.MEAN)]
    assert column(blocks, "voltage") == pytest.approx(3.3)
    # The load begins with the log: pulses of 20 ms every 50 ms, and whole cycles.
    windows = [Window(start_ns=k * 50_000_000, stop_ns=k * 50_000_000 + 20_000_000, index=k) for k in range(1, 9)]
    whole = Window(start_ns=0, stop_ns=500_000_000, index=0)
    *pulses, cycles = integrate(stream_of(header, blocks), [*windows, whole])
    truth_j = 3.3 * 8e-3 * 20e-3
    gain = sum(channel.accuracy[0].gain.value for channel in header.channels)
    for one in pulses:
        # An edge within a sample is known to that sample.
        assert one.energy_j == pytest.approx(truth_j, rel=gain, abs=3.3 * 8e-3 * 204.8e-6)
    assert cycles.energy_j == pytest.approx(3.3 * LOAD.mean_a * 0.5, rel=gain + 2e-4)
    assert sum(block.lost_before for block in blocks) == 0


def test_bytes_count_samples_exactly() -> None:
    for period, parameters in (("auto", "both"), ("1ms", "both"), ("10ms", "both"), ("auto", "current")):
        with opened(simulator.N6705Simulator(STEADY), period=period, parameters=parameters) as driver:
            header = driver.start()
            raw = read_for(driver, 0.2)
        samples = sum(len(block) for block in n6705.decoder(header).feed(raw))
        assert samples > 0
        assert len(raw) == samples * header.word_bytes


def test_other_logs_are_switched_off_and_back_on() -> None:
    """What the simulator is found with on output 2 would stretch the interval to 409.6 us."""
    device = Heard()
    with opened(device) as driver:
        assert driver.start().rate_hz == pytest.approx(1 / 204.8e-6)
        assert device.answer("SENS:ELOG:FUNC:CURR? (@1:4)") == b"1,0,0,0"
    assert device.answer("SENS:ELOG:FUNC:CURR? (@1:4)") == b"0,1,0,0"
    assert device.answer("SENS:ELOG:FUNC:VOLT? (@1:4)") == b"0,1,0,0"
    assert device.answer("SENS:ELOG:FUNC:VOLT:MINM? (@1:4)") == b"0,0,0,0"


class Stubborn(simulator.N6705Simulator):  # type: ignore[misc]
    """Somebody else keeps the log of output 2 on."""

    def _set_sense(self, name: str, value: str, number: int) -> None:
        if not (number == 2 and value == "OFF" and "ELOG" in name):
            super()._set_sense(name, value, number)


class Slow(simulator.N6705Simulator):  # type: ignore[misc]
    """Grants three times the interval."""

    def _interval_ticks(self, output: Any) -> int:
        return 3 * int(super()._interval_ticks(output))


class Halved(simulator.N6705Simulator):  # type: ignore[misc]
    """Takes arrays half as often as it is told to, as with more parameters."""

    def _tint_s(self, output: Any) -> float:
        return 2 * float(super()._tint_s(output))


class Liar(simulator.N6705Simulator):  # type: ignore[misc]
    """Says one interval and keeps another."""

    def _begin(self, output: Any) -> None:
        super()._begin(output)
        output.ticks *= 2


def test_a_log_that_stays_on_is_refused() -> None:
    with opened(Stubborn(STEADY)) as driver, pytest.raises(UsageError, match="output 2 does not stay"):
        driver.start()


@pytest.mark.parametrize("period", ["auto", "1ms"])
def test_an_interval_that_is_not_granted_is_refused(period: str) -> None:
    with opened(Slow(STEADY), period=period) as driver, pytest.raises(UsageError, match="grants"):
        driver.start()


def test_an_arrays_interval_that_is_not_granted_is_refused_or_taken() -> None:
    with opened(Halved(STEADY), mode="array", period="10.24us") as driver, pytest.raises(UsageError, match="grants"):
        driver.start()
    with opened(Halved(STEADY), mode="array") as driver:
        assert driver.start().rate_hz == pytest.approx(1 / 20.48e-6)


def test_the_interval_is_rounded_to_the_instruments_grid() -> None:
    header, blocks = recorded(simulator.N6705Simulator(STEADY), 0.2, period="1ms")
    # 1 ms is nearest to 49 times 20.48 us (N6700C guide, p. 145).
    assert header.rate_hz == pytest.approx(1 / (49 * 20.48e-6), rel=1e-9)
    assert column(blocks) == pytest.approx(5e-3)


def test_a_stretched_time_is_seen_by_the_hosts_clock() -> None:
    with opened(Liar(STEADY)) as driver:
        driver.start()
        with pytest.raises(IncompleteError, match="its interval is another"):
            read_for(driver, 5.0)


def test_a_log_that_was_not_fetched_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "OVERDUE_S", 0.2)
    with opened(simulator.N6705Simulator(STEADY)) as driver:
        driver.start()
        time.sleep(0.3)
        with pytest.raises(IncompleteError, match="overwrites what is older"):
            read_for(driver, 1.0)


def test_records_that_were_overwritten_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "BUFFER_S", 0.1)
    with opened(simulator.N6705Simulator(STEADY)) as driver:
        header = driver.start()
        raw = read_for(driver, 0.3)
        kept = sum(len(block) for block in n6705.decoder(header).feed(raw))
        time.sleep(0.9)
        with pytest.raises(IncompleteError, match="records were overwritten"):
            read_for(driver, 1.0)
    assert kept > 0.1 * header.rate_hz


def test_fill_is_no_data() -> None:
    header, _ = recorded(simulator.N6705Simulator(STEADY), 0.05)
    # 9.9E37 and 9.91E37 as Keysight's own instruments send them, NaN, and a pair that is good.
    payload = bytes.fromhex("7e94f56a 40400000 3f800000 7e951bee 7fc00000 40400000 3f800000 40400000")
    frame = frames.Frame(kind=wire.LOG, number=7, before_ns=0, after_ns=0, payload=payload)
    (block,) = n6705.decoder(header).feed(frames.pack(frame))
    assert (block.first_index, block.lost_before) == (7, 7)
    assert block.status is not None
    assert block.status.tolist() == [Status.INVALID] * 3 + [0]
    assert np.isnan(block.data["current"][:3]).all()
    assert np.isnan(block.data["voltage"][:3]).all()
    assert (block.data["current"][3], block.data["voltage"][3]) == (1.0, 3.0)


def test_current_alone_comes_twice_as_often() -> None:
    header, blocks = recorded(simulator.N6705Simulator(LOAD), 0.3, parameters="current", supply_v=2.8)
    assert header.rate_hz == pytest.approx(1 / 102.4e-6)
    assert [one.name for one in header.channels] == ["current"]
    assert header.voltage is not None
    assert header.voltage.volts == pytest.approx(2.8)
    assert header.voltage.basis is Basis.SET
    assert column(blocks)[:190] == pytest.approx(8e-3)


@pytest.mark.parametrize(("asked", "offset_a"), [("auto", 250e-6), ("100mA", 10e-6), ("20mA", 10e-6), ("1mA", 100e-9)])
def test_the_range_decides_the_accuracy(asked: str, offset_a: float) -> None:
    with opened(simulator.N6705Simulator(STEADY), range=asked) as driver:
        current, voltage = driver.start().channels
    assert current.accuracy[0].offset.value == pytest.approx(offset_a)
    # 1.2 mV, and 0.99 mV that averaging over 102 us adds (N6700 Specifications Guide, p. 52).
    assert voltage.accuracy[0].offset.value == pytest.approx(2.19e-3)
    assert not voltage.accuracy[0].verified
    assert channels.added_v(1e-3) == pytest.approx(0.30e-3)


# Its supply.


@pytest.mark.parametrize("on", [True, False])
def test_the_output_is_left_as_it_was_found(on: bool) -> None:
    device = Heard(on=on)
    with opened(device, supply_v=3.3, limit="200mA") as driver:
        driver.start()
        assert device.answer("OUTP? (@1)") == b"1"
        assert float(device.answer("VOLT? (@1)") or 0) == pytest.approx(3.3)
        assert float(device.answer("CURR:LIM? (@1)") or 0) == pytest.approx(0.2)
        driver.stop()
        assert device.answer("OUTP? (@1)") == b"%d" % on
        assert float(device.answer("VOLT? (@1)") or 0) == pytest.approx(simulator.FOUND_V)
        assert float(device.answer("CURR:LIM? (@1)") or 0) == pytest.approx(simulator.FOUND_LIMIT_A)


def test_nothing_is_powered_that_was_not_asked_for() -> None:
    device = Heard(on=False)
    recorded(device, 0.1)
    assert not [command for command in device.heard if command.startswith((":OUTP ", ":VOLT ", ":CURR"))]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Options(supply_v=21.0), "0.1 V to 20 V"),
        (Options(declared_v=3.0), "measures the voltage"),
        (Options(declared_v=3.0, supply_v=3.0, settings={"parameters": "current"}), "or sets it"),
        (Options(declared_v=-1.0, settings={"parameters": "current"}), "no supply voltage"),
        (Options(settings={"limit": "1A"}), "Give --supply"),
        (Options(settings={"output": "3"}), "by turns"),
        (Options(settings={"period": "100us"}), "Choose 204.8 us"),
        (Options(settings={"period": "1s"}), "to 100.0 ms"),
        (Options(settings={"range": "5A"}), "no range of 5.000 A"),
        (Options(settings={"points": "many"}), "whole number"),
        (Options(settings={"points": "100", "before": "100"}), "cannot be"),
        (Options(settings={"wait": "soon"}), "quantity"),
    ],
)
def test_what_it_cannot_do_is_refused(options: Options, text: str) -> None:
    with serving(simulator.N6705Simulator(STEADY), "socket") as where, pytest.raises(UsageError, match=text):
        n6705.open(where["socket"], options)


def test_an_output_that_is_not_there_is_refused() -> None:
    device = simulator.N6705Simulator(STEADY, modules=("N6781A",))
    with pytest.raises(UsageError, match="1 outputs"), opened(device, output="2"):
        pass


def test_a_module_that_measures_by_turns_logs_current_alone() -> None:
    header, _ = recorded(simulator.N6705Simulator(STEADY), 0.1, output="3", parameters="current")
    assert header.model == "N6705C with N6733B"
    # No table for it: ten times the N6781A's.
    assert header.channels[0].accuracy[0].offset.value == pytest.approx(2.5e-3)


# Wires.


def test_another_instrument_is_told() -> None:
    with serving(Bench(), "socket") as where, pytest.raises(NotFoundError, match="RIGOL"):
        n6705.open(where["socket"], Options())


def test_a_program_that_died_while_logging_leaves_no_trace() -> None:
    device = simulator.N6705Simulator(LOAD)
    for command in ("SENS:ELOG:FUNC:CURR ON,(@1)", "TRIG:ELOG:SOUR IMM,(@1)", "INIT:ELOG (@1)"):
        device.answer(command)
    _, blocks = recorded(device, 0.1, wires="vxi11")
    assert blocks[0].first_index == 0
    assert column(blocks)[:90] == pytest.approx(8e-3)


def test_an_unplugged_mainframe_keeps_what_came() -> None:
    device = BentDevice(simulator.N6705Simulator(STEADY), timed=parse_faults("unplug@0.6s"))
    with opened(device) as driver:
        header, raw = driver.start(), b""
        with pytest.raises(IncompleteError):
            while True:
                raw += driver.read(0.1)
        driver.stop()
    assert sum(len(block) for block in n6705.decoder(header).feed(raw)) > 100


def test_noise_is_told() -> None:
    device = BentDevice(simulator.N6705Simulator(STEADY), timed=parse_faults("noise@0.5s"))
    with opened(device) as driver:
        driver.start()
        with pytest.raises(IncompleteError, match="hole of unknown length"):
            read_for(driver, 10.0)


def test_an_answer_that_comes_too_late_ends_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records are gone for good, so that what comes after would stand at a wrong time."""
    monkeypatch.setattr(fetching, "FETCH_S", 0.2)
    device = simulator.N6705Simulator(STEADY)
    with opened(device) as driver:
        driver.start()
        assert read_for(driver, 0.1)
        device.latency_s = 0.4
        assert not any(driver.read(0.1) for _ in range(2))
        device.latency_s = 0.0
        with pytest.raises(IncompleteError, match="got lost"):
            read_for(driver, 2.0)


def test_a_block_that_breaks_off_ends_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FETCH_S", 0.2)
    device = BentDevice(simulator.N6705Simulator(STEADY), [ByteFault(kind="drop", at=8000, amount=100)])
    with opened(device) as driver:
        driver.start()
        with pytest.raises(IncompleteError, match="hole of unknown length"):
            read_for(driver, 5.0)


def test_a_decoder_refuses_other_streams() -> None:
    header, _ = recorded(simulator.N6705Simulator(STEADY), 0.05)
    with pytest.raises(UsageError, match="not keysight"):
        n6705.decoder(Header(**{name: getattr(header, name) for name in header.__slots__} | {"wire": "other/1"}))


# Arrays.


def test_each_trigger_gives_a_record() -> None:
    load = parse_load("8mA/2ms/d0,250uA/28ms")
    with opened(
        simulator.N6705Simulator(load), wires="hislip", mode="array", points="512", before="64", supply_v=3.0
    ) as driver:
        header = driver.start()
        raw = b""
        for _ in range(3):
            piece = b""
            while not piece:
                piece = driver.read(0.5)
            raw += piece
    assert header.triggered
    assert header.rate_hz == pytest.approx(1 / 10.24e-6)
    blocks = n6705.decoder(header).feed(raw)
    assert [len(block) for block in blocks] == [512] * 3
    truth_c = 8e-3 * 2e-3 + 250e-6 * (512 * 10.24e-6 - 2e-3)
    following = 0
    for block in blocks:
        assert block.lost_before == block.first_index - following
        following = block.first_index + len(block)
        assert float(block.data["current"].sum()) / header.rate_hz == pytest.approx(truth_c, rel=1e-5)
        assert block.data["current"][:63] == pytest.approx(250e-6)
        assert block.data["current"][66:250] == pytest.approx(8e-3)
        assert block.data["voltage"] == pytest.approx(3.0)


def test_a_trigger_that_never_comes_is_told() -> None:
    with opened(simulator.N6705Simulator(parse_load("5mA/1s")), mode="array", wait="300ms") as driver:
        driver.start()
        with pytest.raises(IncompleteError, match="low-true"):
            read_for(driver, 5.0)


def test_arrays_of_a_stalled_mainframe_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "FETCH_S", 0.2)
    device = BentDevice(simulator.N6705Simulator(parse_load("5mA/1s")), timed=parse_faults("stall@0.3s"))
    with opened(device, mode="array") as driver:
        driver.start()
        driver.read(0.5)
        began = time.monotonic()
        assert driver.read(0.1) == b""
        assert time.monotonic() - began < 5


# Its own files.


def dlog(rows: Sequence[Sequence[float]], *, second: bool = True, minmax: int = 0) -> bytes:
    """As the instrument lays it out: outputs 1 (both) and 3 (volts only), elements that begin with a digit."""
    of_output = (
        "<channel id='{}'><sense_volt>1</sense_volt><sense_curr>{}</sense_curr><ident><model>{}</model>"
        "<option><1ua>0</1ua><2ua>0</2ua></option></ident></channel>\n"
    )
    text = "<!-- N6700X dlog settings -->\n<dlog>\n" + of_output.format(1, 1, "N6781A")
    text += of_output.format(3, 0, "N6733B") if second else ""
    text += f"<frame><sense_minmax>{minmax}</sense_minmax><time>1</time><tint>0.0002048</tint></frame>\n</dlog>\n"
    return text.encode() + bytes(8) + b"".join(struct.pack(f">{len(row)}f", *row) for row in rows)


def test_a_data_log_of_two_outputs(tmp_path: Path) -> None:
    path = tmp_path / "run.dlog"
    path.write_bytes(dlog([(3.0, 8e-3, 5.0), (3.0, 9.9e37, 5.0), (3.0, 250e-6, 5.0)]) + b"\x3f")
    assert reader.recognises(path)
    first, second = reader.read(path).streams
    assert (first.name, first.header.rate_hz) == ("output1", pytest.approx(1 / 204.8e-6))
    (block,) = first.blocks()
    assert block.data["current"] == pytest.approx([8e-3, np.nan, 250e-6], nan_ok=True)
    assert block.data["voltage"] == pytest.approx([3.0] * 3)
    assert block.status is not None
    assert block.status.tolist() == [0, Status.INVALID, 0]
    assert [channel.name for channel in second.header.channels] == ["voltage"]


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"<dlog>\n" + bytes(1000), DataError),
        (dlog([]), DataError),
        (dlog([(1.0, 1.0, 1.0)], minmax=1), UsageError),
        (dlog([(1.0, 1.0, 1.0)]).replace(b"0.0002048", b"never"), DataError),
        (dlog([(1.0, 1.0, 1.0)]).replace(b"<dlog>", b"<!DOCTYPE dlog><dlog>", 1), DataError),
        (dlog([(1.0, 1.0, 1.0)]).replace(b"<sense_volt>1", b"<sense_volt>0").replace(b"r>1", b"r>0"), DataError),
    ],
)
def test_other_files_are_refused(raw: bytes, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        reader.parse_dlog(raw)


@pytest.mark.outside
@pytest.mark.skipif(not DLOG_VIEWER.exists(), reason="JOULEMETER_DLOG_VIEWER names no copy of derf/dlog-viewer")
def test_dlog_viewer_reads_the_same(tmp_path: Path) -> None:
    path, table = tmp_path / "run.dlog", tmp_path / "run.csv"
    path.write_bytes(dlog([(3.0 + k / 64, 0.25 + k / 1024) for k in range(500)], second=False))
    command = [sys.executable, str(DLOG_VIEWER), "--csv-export", str(table), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = np.loadtxt(table, delimiter=",", skiprows=1)
    volts, amperes = reader.parse_dlog(path.read_bytes()).columns
    assert (volts.name, amperes.name) == ("voltage", "current")
    assert shown[:, 1] == pytest.approx(volts.values)
    assert shown[:, 2] == pytest.approx(amperes.values)
