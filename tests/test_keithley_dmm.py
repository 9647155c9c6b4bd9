"""The DMM6500, DMM7510 and DAQ6510: its simulator against other people's programs, the driver against its simulator."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from joulemeter import frames
from joulemeter.capture import UNSEEN, ArrayStream, Block, Gap, Header, Kind, Status, Timebase
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import keithley_dmm
from joulemeter.instruments.keithley_dmm import channels, decode, driver, simulator, wire
from joulemeter.physics import lines
from joulemeter.physics.integrate import integrate
from joulemeter.scpi import Identity, parse_identity
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import parse_faults
from joulemeter.transport.scpidevice import BentDevice, ByteFault
from joulemeter.transport.scpiserve import serving
from joulemeter.window import Window

PYMEASURE = os.environ.get("JOULEMETER_PYMEASURE") or (sys.executable if importlib.util.find_spec("pymeasure") else "")
# Low while the meter is armed, then 20 ms of every 100.
RESTING = parse_load("2mA/50ms,80mA/20ms/d0,2mA/30ms")
STEADY = parse_load("42.5mA/8s")


@contextmanager
def opened(
    load: Load = RESTING, *, model: str = "DMM6500", faults: str = "", volts: float | None = 3.3, **settings: str
) -> Iterator[tuple[driver.Driver, simulator.DmmSimulator]]:
    device = simulator.DmmSimulator(load, model)
    options = Options(declared_v=volts, settings=settings)
    with serving(BentDevice(device, timed=parse_faults(faults)), "socket") as where:
        meter = keithley_dmm.open(where["socket"], options)
        assert isinstance(meter, driver.Driver)
        with meter:
            yield meter, device


def gathered(meter: driver.Driver, seconds: float) -> bytes:
    raw, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        raw += meter.read(0.05)
    return raw + b"".join(meter.remaining())


def decoded(header: Header, raw: bytes) -> list[Block]:
    reader = decode.DmmDecoder(header)
    blocks: list[Block] = reader.feed(raw) + reader.finish()
    return blocks


def stream_of(header: Header, blocks: list[Block]) -> ArrayStream:
    cause = UNSEEN if header.triggered else "lost"
    return ArrayStream(
        name="keithley_dmm",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={"current": np.concatenate([block.data["current"] for block in blocks])},
        gaps=tuple(
            Gap(index=block.first_index, lost=block.lost_before, cause=cause) for block in blocks if block.lost_before
        ),
    )


# Bytes and words that did not come from here.


@pytest.mark.parametrize(
    ("answer", "model"),
    [
        # Read from a DAQ6510 and named in programs of others.
        ("KEITHLEY INSTRUMENTS,MODEL DAQ6510,04480963,1.0.04b", "DAQ6510"),
        ("KEITHLEY INSTRUMENTS,MODEL DMM6500,04386498,1.7.12b", "DMM6500"),
        ("KEITHLEY INSTRUMENTS,MODEL 2450,04130796,1.6.7c", None),
        ("KEITHLEY INSTRUMENTS INC.,MODEL 2000,1234567,A06 /A02", None),
    ],
)
def test_identities(answer: str, model: str | None) -> None:
    identity = parse_identity(answer)
    assert identity is not None
    assert driver.fits(identity) == (model is not None)
    assert model is None or driver.model_of(identity) == model


def test_blocks_as_the_manual_describes_them() -> None:
    """`#0`, values with the lowest byte first, a line feed: DMM7510-901-01 p. 6-49; IEEE 754 by hand."""
    device = simulator.DmmSimulator(parse_load("1A/1s"), "DMM6500")
    say(device, ':DIG:FUNC "CURR";:DIG:CURR:RANG 1', ':TRIG:LOAD "EMPTY";:TRIG:BLOC:MDIG 1,"defbuffer1",3;:INIT')
    one, zero = bytes.fromhex("0000803f"), bytes(8)
    assert say(device, ':FORM SREAL;:TRAC:DATA? 1,2,"defbuffer1"', at_s=1.0) == b"#0" + 2 * one + b"\n"
    assert say(device, ':FORM:BORD NORM;:TRAC:DATA? 1,1,"defbuffer1"', at_s=1.0) == b"#0" + one[::-1] + b"\n"
    said = say(device, ':FORM REAL;:FORM:BORD SWAP;:TRAC:DATA? 1,1,"defbuffer1",READ,REL', at_s=1.0)
    assert said == b"#0" + bytes.fromhex("000000000000f03f") + zero + b"\n"
    # In binary the status cannot be asked for.
    assert say(device, ':TRAC:DATA? 1,1,"defbuffer1",READ,STAT', at_s=1.0) == b""
    assert say(device, ":SYST:ERR?", at_s=1.0).startswith(b'1133,"Parameter 4, Syntax error')


def say(device: simulator.DmmSimulator, *messages: str, at_s: float = 0.0) -> bytes:
    device.transmit(at_s)
    for message in messages:
        device.receive(message.encode() + b"\n")
    answer = b""
    while more := device.transmit(at_s):
        answer += more
    return answer


def test_values_that_are_none() -> None:
    """9.9E37 and 9.91E37 in single precision: 0x7E94F56A and 0x7E951BEE (Yokogawa IM WT3001E-17EN p. 6-97)."""
    raw = bytes.fromhex("6af5947e ee1b957e 6af594fe 0000c07f cdcccc3d")
    amperes, status = wire.values(np.frombuffer(raw, "<f4"))
    assert np.isnan(amperes[:4]).all()
    assert amperes[4] == pytest.approx(0.1)
    over, nothing = Status.CLIPPED | Status.INVALID, Status.INVALID
    assert status is not None
    assert status.tolist() == [over, nothing, over, nothing, 0]
    assert wire.values(np.array([0.1, -0.1], np.float32))[1] is None


PROGRAM = """
import json, sys, time
from pymeasure.instruments.keithley import KeithleyDMM6500
with KeithleyDMM6500(sys.argv[1], visa_library="@py") as dmm:
    found = {"set": dmm.command_set, "id": dmm.id}
    dmm.mode = "current"
    dmm.current_range = 0.1
    found |= {"mode": dmm.mode, "range": dmm.current_range, "amperes": dmm.current}
    for command in (
        ':DIG:FUNC "CURR"', ":DIG:CURR:RANG 0.1", ":DIG:CURR:SRAT 10000", ':TRIG:LOAD "EMPTY"',
        ':TRIG:BLOC:BUFF:CLE 1,"defbuffer1"', ':TRIG:BLOC:MDIG 2,"defbuffer1",50', ":INIT",
    ):
        dmm.write(command)
    while int(dmm.values(":TRAC:ACT?")[0]) < 50:
        time.sleep(0.01)
    found["text"] = dmm.values(':TRAC:DATA? 11,13,"defbuffer1",READ,REL')
    if sys.argv[1].endswith("INSTR"):
        dmm.write(":FORM REAL")
        found["binary"] = dmm.adapter.connection.query_binary_values(
            ':TRAC:DATA? 11,13,"defbuffer1",READ,REL', datatype="d", is_big_endian=False, data_points=6
        )
    found["errors"] = dmm.check_errors()
print(json.dumps(found))
"""


@pytest.mark.skipif(not PYMEASURE, reason="needs pymeasure, or JOULEMETER_PYMEASURE as an interpreter that has it")
@pytest.mark.parametrize("face", ["socket", "vxi11"])
def test_pymeasure_reads_the_simulator(face: str) -> None:
    with serving(simulator.DmmSimulator(STEADY, "DMM6500"), face) as where:
        done = subprocess.run(
            [PYMEASURE, "-c", PROGRAM, where[face]], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["set"], found["mode"], found["range"], found["errors"]) == ("SCPI", "current", 0.1, [])
    assert found["id"].startswith("KEITHLEY INSTRUMENTS,MODEL DMM6500,SIM")
    rows = [0.0425, 0.001, 0.0425, 0.0011, 0.0425, 0.0012]
    assert found["amperes"] == pytest.approx(0.0425)
    assert found["text"] == pytest.approx(rows)
    if face == "vxi11":
        assert found["binary"] == pytest.approx(rows)


# The stream.


def test_header() -> None:
    with opened(range="1A", rate="10kHz") as (meter, _):
        header = meter.start()
    assert (header.model, header.simulated, header.triggered) == ("DMM6500", True, False)
    (current,) = header.channels
    assert current.kind is Kind.MEAN
    assert header.voltage is not None
    assert (header.voltage.volts, header.voltage.limit.value) == (3.3, pytest.approx(0.165))
    # DMM6500 data sheet p. 13: less than 0.75 V on 1 A.
    assert (header.parameters["burden_v"], header.parameters["burden_ohm"]) == (0.75, 0.75)
    assert not header.channels[0].accuracy[0].verified
    assert header.channels[0].accuracy[0].offset.value == pytest.approx(0.0003)


@pytest.mark.parametrize("model", wire.MODELS)
def test_a_known_energy_is_found(model: str) -> None:
    """80 mA for 20 ms at 3.3 V are 5.28 mJ, on old firmware (DIG) and new (MDIG) alike."""
    with opened(model=model, rate="20kHz") as (meter, _):
        header = meter.start()
        blocks = decoded(header, gathered(meter, 0.5))
    assert sum(block.lost_before for block in blocks) == 0
    windows = [
        Window(start_ns=int((0.1 * k + 0.05) * 1e9), stop_ns=int((0.1 * k + 0.07) * 1e9), index=k) for k in range(4)
    ]
    for one in integrate(stream_of(header, blocks), windows):
        assert one.energy_j == pytest.approx(5.28e-3, rel=1e-4)


def test_a_megahertz_is_gapless_and_exact() -> None:
    with opened(STEADY, rate="1MHz") as (meter, _):
        header = meter.start()
        blocks = decoded(header, gathered(meter, 0.3))
    values = np.concatenate([block.data["current"] for block in blocks])
    assert len(values) > 100_000
    assert sum(block.lost_before for block in blocks) == 0
    assert values == pytest.approx(0.0425, rel=1e-6)


@pytest.mark.parametrize("face", ["vxi11", "hislip"])
def test_blocks_without_a_length_come_whole_over_wires_that_mark_the_end(face: str) -> None:
    pytest.importorskip("pyvisa_py")
    with (
        serving(simulator.DmmSimulator(STEADY, "DMM6500"), face) as where,
        keithley_dmm.open(where[face], Options(settings={"rate": "100kHz"})) as meter,
    ):
        header = meter.start()
        blocks = decoded(header, gathered(meter, 0.3))
    values = np.concatenate([block.data["current"] for block in blocks])
    assert len(values) > 20_000
    assert sum(block.lost_before for block in blocks) == 0
    assert values == pytest.approx(0.0425)


def test_what_was_overwritten_is_counted_and_what_follows_is_in_its_place() -> None:
    """A ramp of steps tells which readings came: each 10 ms has another current."""
    steps = parse_load(",".join(f"{k + 1}mA/10ms" for k in range(200)))
    with opened(steps, rate="10kHz", buffer="4000", range="1A") as (meter, _):
        header = meter.start()
        raw = b""
        while len(raw) < 2000:
            raw += meter.read(0.05)
        # The buffer goes round several times meanwhile.
        time.sleep(1.3)
        raw += gathered(meter, 0.2)
    blocks = decoded(header, raw)
    # At least what 1.3 s are longer than the buffer.
    assert sum(block.lost_before for block in blocks) >= 13_000 - 4000
    for block in blocks:
        index = block.first_index + np.arange(len(block))
        assert block.data["current"] == pytest.approx((index // 100 % 200 + 1) * 1e-3, rel=1e-6)


def test_over_range_is_clipped_and_has_no_value() -> None:
    """20 % of overrange on 10 mA (data sheet): 11 mA is a value, 13 mA is none."""
    with opened(parse_load("11mA/20ms,13mA/20ms"), range="10mA", rate="10kHz") as (meter, _):
        header = meter.start()
        blocks = decoded(header, gathered(meter, 0.2))
    values = np.concatenate([block.data["current"] for block in blocks])
    status = np.concatenate([block.status if block.status is not None else np.zeros(len(block)) for block in blocks])
    high = np.arange(len(values)) // 200 % 2 == 1
    assert np.isnan(values[high]).all()
    assert (status[high] == Status.CLIPPED | Status.INVALID).all()
    assert values[~high] == pytest.approx(0.011)


# Records.


@pytest.mark.parametrize("model", ["DMM6500", "DMM7510"])
def test_each_rising_edge_makes_a_record(model: str) -> None:
    with opened(model=model, mode="external", readings="200", rate="10kHz") as (meter, _):
        header = meter.start()
        blocks = decoded(header, gathered(meter, 0.55))
    assert header.triggered
    assert {caveat.code for caveat in header.caveats} == {Code.OTHER_SCOPE, Code.BURDEN}
    assert [len(block) for block in blocks] == [200] * len(blocks)
    assert len(blocks) >= 4
    assert [block.first_index for block in blocks[:4]] == [0, 1000, 2000, 3000]
    stream = stream_of(header, blocks)
    found = lines.from_records(stream)
    windows = [Window(start_ns=span.start_ns, stop_ns=span.stop_ns, index=k) for k, span in enumerate(found.spans)]
    for one in integrate(stream, windows):
        assert one.energy_j == pytest.approx(5.28e-3, rel=1e-4)


def test_falling_edges_start_records_of_the_pause() -> None:
    with opened(mode="external", readings="100", rate="10kHz", edge="falling") as (meter, _):
        blocks = decoded(meter.start(), gathered(meter, 0.35))
    assert len(blocks) >= 2
    assert np.concatenate([block.data["current"] for block in blocks]) == pytest.approx(0.002)


def test_an_edge_during_a_record_starts_none_late() -> None:
    """The pulse comes again after 30 ms, records take 50 ms: every other pulse begins one, at its edge."""
    load = parse_load("2mA/10ms,80mA/10ms/d0,2mA/10ms")
    with opened(load, mode="external", readings="500", rate="10kHz") as (meter, _):
        blocks = decoded(meter.start(), gathered(meter, 0.5))
    assert len(blocks) >= 3
    assert {block.first_index % 300 for block in blocks} == {0}
    for block in blocks:
        assert block.data["current"][:100] == pytest.approx(0.08)


def test_a_gate_lasts_from_edge_to_edge() -> None:
    """20 and 35 ms in turn; the last record is known only once the line has been quiet."""
    load = parse_load("2mA/15ms,80mA/20ms/d0,2mA/15ms,60mA/35ms/d0,2mA/15ms")
    with opened(load, mode="gate", rate="10kHz") as (meter, _):
        header = meter.start()
        blocks = decoded(header, gathered(meter, 0.5))
    assert Code.MISSING_EDGES in [caveat.code for caveat in header.caveats]
    assert len(blocks) >= 6
    assert {len(block) for block in blocks[::2]} == {200}
    assert {len(block) for block in blocks[1::2]} == {350}
    assert [block.first_index for block in blocks[:3]] == [0, 350, 1000]
    stream = stream_of(header, blocks)
    spans = lines.from_records(stream).spans
    windows = [Window(start_ns=span.start_ns, stop_ns=span.stop_ns, index=k) for k, span in enumerate(spans)]
    energies = [one.energy_j for one in integrate(stream, windows)]
    assert energies[:4] == pytest.approx([5.28e-3, 6.93e-3, 5.28e-3, 6.93e-3], rel=1e-4)


def test_the_last_gate_is_not_waited_for_in_vain() -> None:
    load = parse_load("2mA/50ms,80mA/20ms/d0,2mA/8s")
    with opened(load, mode="gate", rate="10kHz") as (meter, _):
        header, raw = meter.start(), b""
        deadline = time.monotonic() + 5
        while not raw and time.monotonic() < deadline:
            raw = meter.read(0.1)
    (block,) = decoded(header, raw)
    assert len(block) == 200


def test_missed_edges_end_the_recording_of_gates() -> None:
    with opened(mode="gate", rate="10kHz") as (meter, device):
        meter.start()
        device._overrun = True
        with pytest.raises(IncompleteError, match="one was missed"):
            gathered(meter, 1.0)


def test_no_trigger_is_told() -> None:
    with opened(STEADY, mode="external", wait="200ms") as (meter, _):
        meter.start()
        with pytest.raises(IncompleteError, match=r"No record came within 200\.0 ms"):
            gathered(meter, 5.0)


def test_records_that_cannot_be_fetched_in_time_are_told() -> None:
    with opened(mode="external", readings="400", rate="20kHz", buffer="1000") as (meter, _):
        meter.start()
        time.sleep(0.3)
        with pytest.raises(IncompleteError, match="may have been overwritten"):
            gathered(meter, 1.0)


# What is refused.


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"range": "20A"}, "no range for 20"),
        ({"range": "fast"}, "fast"),
        ({"rate": "2MHz"}, "cannot take"),
        ({"rate": "10Hz"}, "cannot take"),
        ({"mode": "gated"}, "gated"),
        ({"readings": "1"}, "readings=1"),
        ({"mode": "external", "readings": "600000"}, "readings=600000"),
        ({"buffer": "10"}, "buffer=10"),
        ({"buffer": "1e6"}, "buffer=1e6"),
        ({"edge": "both"}, "both"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, str], says: str) -> None:
    device = simulator.DmmSimulator(STEADY, "DMM6500")
    with serving(device, "socket") as where, pytest.raises(UsageError, match=says):
        keithley_dmm.open(where["socket"], Options(settings=settings))


def test_the_daq6510_has_no_range_of_10_a() -> None:
    with pytest.raises(UsageError, match="DAQ6510 has no range"), opened(model="DAQ6510", range="10A"):
        pass


def test_it_supplies_nothing() -> None:
    with pytest.raises(UsageError, match="cannot supply"):
        keithley_dmm.open("127.0.0.1:9", Options(supply_v=3.0))
    with pytest.raises(NotFoundError, match="has to be named"):
        keithley_dmm.open("", Options())


def test_another_instrument_or_language_is_told() -> None:
    other = simulator.DmmSimulator(STEADY, "DMM6500")
    other.identity = "KEITHLEY INSTRUMENTS,MODEL 2450,04130796,1.6.7c"
    with serving(other, "socket") as where, pytest.raises(NotFoundError, match="MODEL 2450"):
        keithley_dmm.open(where["socket"], Options())
    lua = simulator.DmmSimulator(STEADY, "DMM6500")
    lua.language = "TSP"
    with serving(lua, "socket") as where, pytest.raises(AccessError, match="command set TSP"):
        keithley_dmm.open(where["socket"], Options())


def test_what_the_meter_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "DIGITIZE_BLOCKS", ("NONE",))
    with opened() as (meter, _), pytest.raises(UsageError, match="-113 Undefined header"):
        meter.start()


# Trouble on the wire.


def test_a_block_that_broke_off_is_fetched_again() -> None:
    """The meter keeps its readings, so what the network lost is no lost sample."""
    device = simulator.DmmSimulator(STEADY, "DMM6500")
    with serving(BentDevice(device, [ByteFault(kind="drop", at=3000, amount=7)]), "socket") as where:
        meter = keithley_dmm.open(where["socket"], Options(settings={"rate": "10kHz"}))
        assert isinstance(meter, driver.Driver)
        with meter:
            header = meter.start()
            blocks = decoded(header, gathered(meter, 2.8))
    values = np.concatenate([block.data["current"] for block in blocks])
    assert sum(block.lost_before for block in blocks) == 0
    assert len(values) > 20_000
    assert values == pytest.approx(0.0425)


def test_a_misread_index_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that the meter cannot have reached yet would give old readings as new ones."""
    with opened(STEADY, rate="10kHz") as (meter, _):
        header = meter.start()
        told = meter._scpi.ask
        once = ["4;99999"]
        monkeypatch.setattr(meter._scpi, "ask", lambda *a, **k: once.pop() if once else told(*a, **k))
        blocks = decoded(header, gathered(meter, 0.3))
    assert not once
    assert sum(block.lost_before for block in blocks) == 0
    assert 2000 < sum(len(block) for block in blocks) < 20_000


def test_silence_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ANSWER_S", 0.2)
    monkeypatch.setattr(driver, "GIVE_UP_S", 0.5)
    with opened(STEADY, faults="stall@0.3s") as (meter, _):
        meter.start()
        with pytest.raises(IncompleteError, match="did not answer"):
            gathered(meter, 10.0)


def test_a_meter_that_is_unplugged_is_told() -> None:
    with opened(STEADY, faults="unplug@0.3s") as (meter, _):
        meter.start()
        with pytest.raises(IncompleteError):
            gathered(meter, 10.0)
        meter.stop()


def test_it_can_be_started_anew_while_it_runs() -> None:
    """As after a program that died: nothing of the earlier stream is in the new one."""
    device = simulator.DmmSimulator(STEADY, "DMM6500")
    with serving(device, "socket") as where:
        first = keithley_dmm.open(where["socket"], Options(settings={"rate": "10kHz"}))
        first.start()
        first.read(0.2)
        with keithley_dmm.open(where["socket"], Options(settings={"rate": "10kHz"})) as second:
            assert isinstance(second, driver.Driver)
            header = second.start()
            blocks = decoded(header, gathered(second, 0.2))
        first.close()
    assert blocks[0].first_index == 0
    assert sum(len(block) for block in blocks) < 10_000


# Decoding.


def framed(count: int, number: int = 0) -> bytes:
    made: bytes = wire.pack(number, np.full(count, 0.01, "<f4").tobytes(), 0, 0)
    return made


def test_a_lost_frame_is_lost_samples() -> None:
    with opened(rate="10kHz") as (meter, _):
        header = meter.start()
    blocks = decoded(header, framed(100) + framed(50, 250))
    assert [(block.first_index, block.lost_before, len(block)) for block in blocks] == [(0, 0, 100), (250, 150, 50)]
    assert blocks[-1].consumed == 150 * wire.WORD_BYTES
    # Frames that come again, or hold something else, are none.
    again = frames.pack(frames.Frame(number=400, before_ns=0, after_ns=0, payload=struct.pack("<I", 9)))
    assert [len(block) for block in decoded(header, framed(100) + framed(100) + again)] == [100]
    with pytest.raises(UsageError, match=r"not keithley-digitizer/1"):
        keithley_dmm.decoder(replace(header, wire="other/1"))
    with pytest.raises(DataError):
        decoded(header, bytes(range(256)) * 300)


def test_readings_that_lie_across_the_end_of_the_buffer() -> None:
    assert list(wire.spans(0, 10, 100)) == [(1, 10)]
    assert list(wire.spans(95, 10, 100)) == [(96, 100), (1, 5)]
    assert list(wire.spans(250, 50, 100)) == [(51, 100)]
    assert list(wire.spans(0, 250_000, 1_000_000)) == [(1, 100_000), (100_001, 200_000), (200_001, 250_000)]


def test_the_burden_of_each_range_is_told_or_unknown() -> None:
    assert set(channels.BURDEN_V) == set(wire.MODELS["DMM6500"].ranges_a)
    with opened(model="DMM7510", range="10uA") as (meter, _):
        assert meter.start().parameters["burden_v"] is None


def test_discovery_knows_its_own() -> None:
    assert driver.fits(Identity(maker="KEITHLEY INSTRUMENTS", model="MODEL DMM7510"))
    assert not driver.fits(Identity(maker="Keysight Technologies", model="34465A"))
