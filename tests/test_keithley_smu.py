"""The 2450, 2460 and 2461: pymeasure drives the simulator, and the driver runs against it."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from joulemeter import frames
from joulemeter.capture import ArrayStream, Block, Header, Kind, Quantity, Status, Timebase
from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import keithley_smu
from joulemeter.instruments.keithley_smu import channels, decode, driver, simulator, wire
from joulemeter.physics.integrate import integrate
from joulemeter.scpi import parse_identity
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import parse_faults
from joulemeter.transport.scpidevice import BentDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.window import Window

PYMEASURE = os.environ.get("JOULEMETER_PYMEASURE") or (sys.executable if importlib.util.find_spec("pymeasure") else "")
LOAD = parse_load("90mA/50ms/d0,5mA/150ms")
STEADY = parse_load("42.5mA/8s")


@contextmanager
def opened(
    load: Load = LOAD, *, model: str = "2450", faults: str = "", volts: float = 3.3, **settings: str
) -> Iterator[tuple[driver.Driver, simulator.SmuSimulator]]:
    device = simulator.SmuSimulator(load, model)
    options = Options(supply_v=volts, settings=settings)
    with serving(BentDevice(device, timed=parse_faults(faults)), "socket") as where:
        unit = keithley_smu.open(where["socket"], options)
        assert isinstance(unit, driver.Driver)
        with unit:
            yield unit, device


def gathered(unit: driver.Driver, seconds: float) -> bytes:
    raw, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        raw += unit.read(0.05)
    return raw + b"".join(unit.remaining())


def decoded(header: Header, raw: bytes) -> list[Block]:
    reader = decode.SmuDecoder(header)
    blocks: list[Block] = reader.feed(raw) + reader.finish()
    return blocks


def column(blocks: list[Block], name: str) -> np.ndarray:
    return np.concatenate([block.data[name] for block in blocks])


def times_s(blocks: list[Block]) -> np.ndarray:
    return np.concatenate([block.times_ns for block in blocks if block.times_ns is not None]) * 1e-9


def statuses(blocks: list[Block]) -> np.ndarray:
    return np.concatenate([np.zeros(len(block)) if block.status is None else block.status for block in blocks])


def stream_of(header: Header, blocks: list[Block]) -> ArrayStream:
    assert all(block.times_ns is not None for block in blocks)
    return ArrayStream(
        name="keithley_smu",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={name: column(blocks, name) for name in ("current", "voltage")},
        times_ns=np.concatenate([block.times_ns for block in blocks if block.times_ns is not None]),
    )


# Words and bytes that did not come from here.


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ("KEITHLEY INSTRUMENTS,MODEL 2450,04130796,1.6.7c", True),
        ("KEITHLEY INSTRUMENTS,MODEL 2461,04369511,1.7.3b", True),
        ("KEITHLEY INSTRUMENTS,MODEL DAQ6510,04480963,1.0.04b", False),
        ("KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234567,C30", False),
    ],
)
def test_identities(answer: str, fits: bool) -> None:
    identity = parse_identity(answer)
    assert identity is not None
    assert driver.fits(identity) == fits


# 2461 manual p. 6-162: an answer with reading, source and time of five points, separators as printed.
PRINTED = (
    "-0.000000,0.350000,0.000000;-0.000000,0.350000,0.266978,-0.000000,0.350000,0.443087,"
    "-0.000000,0.350000,0.704459,-0.000000,0.350000,0.881419"
)


def test_the_answer_printed_in_the_manual() -> None:
    fields = [row.split(",") for row in PRINTED.replace(";", ",").split(",-")]
    assert len(fields) == 5
    # The same rows with the state of a source that is on and was read back, in our order.
    ours = ",".join(f"{row[0]},{row[2]},{row[1]},136" for row in fields)
    rows = wire.rows(ours, 5)
    assert rows is not None
    parsed = [wire.parse(row) for row in rows]
    assert [row.rel_s for row in parsed if row] == [0.0, 0.266978, 0.443087, 0.704459, 0.881419]
    assert {row.volts for row in parsed if row} == {0.35}
    assert {row.status for row in parsed if row} == {Status.GOOD}
    assert wire.rows(ours, 4) is None
    assert wire.rows("", 1) is None


@pytest.mark.parametrize(
    ("row", "amperes", "status"),
    [
        # Bits of the source's state as printed in the 2461 manual, p. 8-31: 128 output on, 32 limited, 16 hot,
        # 8 read back, 4 over-voltage protection.
        (b"1.0E-2,0.5,3.3,136", 0.01, Status.GOOD),
        (b"1.0E-2,0.5,3.3,1.680000E+02", 0.01, Status.CLIPPED),
        (b"1.0E-2,0.5,3.3,140", 0.01, Status.CLIPPED),
        (b"9.9E37,0.5,3.3,136", math.nan, Status.CLIPPED | Status.INVALID),
        (b"-9.900000E+37,0.5,3.3,136", math.nan, Status.CLIPPED | Status.INVALID),
        (b"9.91E37,0.5,3.3,136", math.nan, Status.INVALID),
        (b"0.0,0.5,0.0,8", math.nan, Status.INVALID),
        (b"1.0E-2,0.5,3.3,152", math.nan, Status.INVALID),
    ],
)
def test_rows(row: bytes, amperes: float, status: Status) -> None:
    parsed = wire.parse(row.ljust(wire.ROW_BYTES, b"\0"))
    assert parsed is not None
    assert parsed.amperes == pytest.approx(amperes, nan_ok=True)
    assert (parsed.rel_s, parsed.status) == (0.5, status)


@pytest.mark.parametrize("row", [b"", b"1,2,3", b"1,2,3,4,5", b"x,0,1,128", b"1,nan,1,128", b"1,-1,1,128", b"1,1,1,-1"])
def test_rows_that_are_none(row: bytes) -> None:
    assert wire.parse(row) is None


PROGRAM = """
import json, sys
from pymeasure.instruments.keithley import Keithley2450
smu = Keithley2450(sys.argv[1], visa_library="@py", read_termination="\\n")
smu.reset()
smu.apply_voltage(voltage_range=20, compliance_current=0.1)
smu.measure_current(nplc=0.01, current=0.1, auto_range=False)
smu.source_voltage = 3.3
smu.enable_source()
found = {
    "id": smu.id, "mode": smu.source_mode, "enabled": smu.ask("OUTPUT?").strip(), "volts": smu.source_voltage,
    "limit": smu.compliance_current, "range": smu.current_range, "amperes": smu.current,
}
smu.compliance_current = 0.01
found["limited"] = smu.current
smu.measure_voltage()
found["measured"] = smu.voltage
smu.shutdown()
found |= {"after": smu.ask("OUTPUT?").strip(), "errors": smu.check_errors()}
print(json.dumps(found))
"""


@pytest.mark.skipif(not PYMEASURE, reason="needs pymeasure, or JOULEMETER_PYMEASURE as an interpreter that has it")
@pytest.mark.parametrize("face", ["socket", "vxi11"])
def test_pymeasure_drives_the_simulator(face: str) -> None:
    with serving(simulator.SmuSimulator(STEADY, "2450"), face) as where:
        done = subprocess.run(
            [PYMEASURE, "-c", PROGRAM, where[face]], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("id").startswith("KEITHLEY INSTRUMENTS,MODEL 2450,SIM")
    assert found == {
        "mode": "voltage", "enabled": "1", "volts": 3.3, "limit": 0.1, "range": 0.1, "amperes": 0.0425,
        "limited": 0.01, "measured": 3.3, "after": "0", "errors": [],
    }  # fmt: skip


# What it measures.


@pytest.mark.parametrize("model", wire.MODELS)
def test_header(model: str) -> None:
    with opened(model=model, range="90mA", sense="4") as (unit, _):
        header = unit.start()
    assert (header.model, header.simulated, header.voltage) == (model, True, None)
    assert header.epoch is not None
    assert header.epoch.u_s < 1.0
    # 0.01 power line cycles of 50 Hz, and as much for reading the voltage back.
    assert header.rate_hz == pytest.approx(2500)
    current, voltage = header.channels
    assert (current.quantity, voltage.quantity) == (Quantity.CURRENT, Quantity.VOLTAGE)
    assert {current.kind, voltage.kind} == {Kind.INSTANT}
    assert header.parameters == {
        "supply_v": 3.3, "limit_a": 0.1, "range_a": 0.1, "nplc": 0.01, "sense_wires": 4,
    }  # fmt: skip
    # SPEC-2450 rev. A, 100 mA: 0.025 % + 6 uA; 20 V: 0.015 % + 1 mV.
    row, other = current.accuracy[0], voltage.accuracy[0]
    assert (row.gain.value, row.offset.value) == (0.00025, 6e-6)
    assert (other.gain.value, other.offset.value) == (0.00015, 1e-3)
    assert row.verified == (model == "2450")


@pytest.mark.parametrize("model", ["2450", "2461"])
def test_a_known_energy_is_found(model: str) -> None:
    """90 mA for 50 ms at 3.3 V: 14.85 mJ, but for one reading at each edge; whole cycles are exact but for that."""
    with opened(model=model) as (unit, _):
        header = unit.start()
        blocks = decoded(header, gathered(unit, 0.9))
    assert sum(block.lost_before for block in blocks) == 0
    assert column(blocks, "voltage") == pytest.approx(3.3)
    windows = [Window(start_ns=int(0.2 * k * 1e9), stop_ns=int((0.2 * k + 0.05) * 1e9), index=k) for k in range(1, 4)]
    for one in integrate(stream_of(header, blocks), windows):
        # The step of 0.28 W, 0.4 ms late at most at each edge.
        assert one.energy_j == pytest.approx(14.85e-3, abs=2 * 0.2805 * 0.4e-3)
    (whole,) = integrate(stream_of(header, blocks), [Window(start_ns=200_000_000, stop_ns=600_000_000, index=0)])
    assert whole.energy_j == pytest.approx(2 * 3.3 * (0.09 * 0.05 + 0.005 * 0.15), rel=0.01)


def test_readings_carry_the_unit_s_own_stamps_related_to_the_host() -> None:
    with opened() as (unit, device):
        header = unit.start()
        blocks = decoded(header, gathered(unit, 0.3))
        started_s = device._zero_s
    assert header.epoch is not None
    assert started_s is None, "the readings went on after the end"
    assert times_s(blocks) == pytest.approx(np.arange(len(times_s(blocks))) * 4e-4, abs=1e-9)


def test_the_host_s_clock_at_the_first_reading_is_as_good_as_it_says() -> None:
    begun_ns: list[int] = []

    class Watched(simulator.SmuSimulator):  # type: ignore[misc]
        def _command(self, name: str, arguments: list[str]) -> None:
            if name == "INIT":
                begun_ns.append(time.monotonic_ns())
            super()._command(name, arguments)

    with (
        serving(Watched(STEADY, "2450"), "socket") as where,
        keithley_smu.open(where["socket"], Options(supply_v=3.0)) as unit,
    ):
        epoch = unit.start().epoch
    assert epoch is not None
    # A rectangle: half-width u times the root of three.
    assert abs(epoch.monotonic_ns - begun_ns[0]) * 1e-9 <= epoch.u_s * 3**0.5 + 5e-3


def test_slower_readings_are_longer() -> None:
    with opened(STEADY, nplc="2") as (unit, _):
        header = unit.start()
        blocks = decoded(header, gathered(unit, 0.2))
    # Twelve come in the second that is waited for.
    assert header.rate_hz == pytest.approx(12.5)
    assert column(blocks, "current") == pytest.approx(0.0425)


def test_a_board_that_takes_more_than_the_limit_is_marked() -> None:
    """90 mA where 50 mA are the limit: the board is starved, and what was measured is not what it needs."""
    with opened(limit="50mA") as (unit, _):
        blocks = decoded(unit.start(), gathered(unit, 0.5))
    current, status = column(blocks, "current"), statuses(blocks)
    limited = status == Status.CLIPPED
    assert 0.2 < limited.mean() < 0.35
    assert current[limited] == pytest.approx(0.05)
    assert column(blocks, "voltage")[limited] == pytest.approx(3.3 * 50 / 90)
    assert current[~limited] == pytest.approx(0.005)


def test_over_range_has_no_value() -> None:
    with opened(range="10mA", limit="100mA") as (unit, _):
        blocks = decoded(unit.start(), gathered(unit, 0.3))
    over = statuses(blocks) == Status.CLIPPED | Status.INVALID
    assert over.any()
    assert np.isnan(column(blocks, "current")[over]).all()
    assert column(blocks, "current")[~over] == pytest.approx(0.005)


# The supply.


def test_the_output_is_on_only_while_it_records() -> None:
    with opened() as (unit, device):
        assert not device.on
        unit.start()
        assert device.on
        assert device._set["SOUR:VOLT"] == "3.3"
        assert device._set["SOUR:VOLT:ILIM"] == "0.1"
        unit.stop()
        deadline = time.monotonic() + 5
        while device.on and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not device.on
        unit.stop()


def test_the_output_is_switched_off_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "parse", lambda row: None)
    with opened() as (unit, device):
        with pytest.raises(DataError, match="are no readings"):
            unit.start()
        unit.close()
        deadline = time.monotonic() + 5
        while device.on and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not device.on


def test_a_unit_that_feeds_something_already_is_left_alone() -> None:
    device = simulator.SmuSimulator(STEADY, "2450")
    device.on = True
    with serving(device, "socket") as where:
        with pytest.raises(AccessError, match="feeds something already"):
            keithley_smu.open(where["socket"], Options(supply_v=3.3))
        assert device.on


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(), "was not told with what"),
        (Options(supply_v=30.0), "not made to feed"),
        (Options(supply_v=0.01), "not made to feed"),
        (Options(supply_v=3.3, declared_v=3.3), "measures the voltage"),
        (Options(supply_v=3.3, settings={"range": "2A"}), "2450 has no range for 2"),
        (Options(supply_v=3.3, settings={"limit": "1.2A"}), "cannot give 1.2"),
        (Options(supply_v=3.3, settings={"limit": "much"}), "much"),
        (Options(supply_v=3.3, settings={"nplc": "0.001"}), "power line cycles"),
        (Options(supply_v=3.3, settings={"nplc": "short"}), "power line cycles"),
        (Options(supply_v=3.3, settings={"sense": "3"}), "sense cannot be"),
    ],
)
def test_options_that_cannot_be(options: Options, says: str) -> None:
    device = simulator.SmuSimulator(STEADY, "2450")
    with serving(device, "socket") as where, pytest.raises(UsageError, match=says):
        keithley_smu.open(where["socket"], options)
    assert not device.on


def test_larger_models_have_larger_ranges() -> None:
    with opened(model="2461", range="6A") as (unit, _):
        header = unit.start()
    assert header.parameters["range_a"] == 7.0
    (row,) = header.channels[0].accuracy
    assert (row.verified, row.source) == (False, channels.TAKEN)


def test_another_instrument_or_language_is_told() -> None:
    with pytest.raises(NotFoundError, match="has to be named"):
        keithley_smu.open("", Options(supply_v=3.0))
    other = simulator.SmuSimulator(STEADY, "2450")
    other.identity = "KEITHLEY INSTRUMENTS INC.,MODEL 2400,1234567,C30"
    with serving(other, "socket") as where, pytest.raises(NotFoundError, match="MODEL 2400"):
        keithley_smu.open(where["socket"], Options(supply_v=3.0))
    lua = simulator.SmuSimulator(STEADY, "2450")
    lua.language = "TSP"
    with serving(lua, "socket") as where, pytest.raises(AccessError, match="command set TSP"):
        keithley_smu.open(where["socket"], Options(supply_v=3.0))


def test_what_the_unit_refuses_is_told_in_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MEASURE_BLOCKS", ("NONE",))
    with opened() as (unit, device):
        with pytest.raises(UsageError, match="-113 Undefined header"):
            unit.start()
        assert not device.on


# Trouble on the wire.


def test_answers_that_were_spoilt_are_asked_for_again() -> None:
    with opened(STEADY, faults="drop@0.4s:40,drop@0.8s:3") as (unit, _):
        header = unit.start()
        blocks = decoded(header, gathered(unit, 1.5))
    assert sum(block.lost_before for block in blocks) == 0
    assert column(blocks, "current") == pytest.approx(0.0425)
    assert len(column(blocks, "current")) > 2500


def test_a_misread_index_is_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    """`4;9999` for once: what is asked for then is not there, and the unit complains and is silent."""
    monkeypatch.setattr(driver, "ANSWER_S", 0.2)
    with opened(STEADY) as (unit, _):
        header = unit.start()
        told = unit._scpi.ask
        once = ["4;99999"]
        monkeypatch.setattr(unit._scpi, "ask", lambda *a, **k: once.pop() if once else told(*a, **k))
        blocks = decoded(header, gathered(unit, 1.0))
    assert not once
    assert np.diff(times_s(blocks)) == pytest.approx(4e-4, abs=1e-9)
    assert len(times_s(blocks)) > 1000


def test_silence_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ANSWER_S", 0.2)
    monkeypatch.setattr(driver, "GIVE_UP_S", 0.5)
    with opened(STEADY, faults="stall@0.4s") as (unit, _):
        unit.start()
        with pytest.raises(IncompleteError, match="did not answer"):
            gathered(unit, 10.0)


def test_a_unit_that_is_unplugged_is_told() -> None:
    with opened(STEADY, faults="unplug@0.4s") as (unit, _):
        unit.start()
        with pytest.raises(IncompleteError):
            gathered(unit, 10.0)
        unit.stop()


def test_readings_that_were_overwritten_end_the_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HELD", 2000)
    with opened(STEADY) as (unit, _):
        unit.start()
        time.sleep(0.3)
        with pytest.raises(IncompleteError, match="may have been overwritten"):
            gathered(unit, 1.0)


def test_a_buffer_that_goes_round_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HELD", 3000)
    monkeypatch.setattr(driver, "FASTEST_HZ", 2600.0)
    with opened(STEADY) as (unit, _):
        header = unit.start()
        blocks = decoded(header, gathered(unit, 1.5))
    stamps = times_s(blocks)
    assert len(stamps) > 3200
    assert np.diff(stamps) == pytest.approx(4e-4, abs=1e-9)


def test_a_program_that_died_leaves_the_output_on_and_the_next_is_told() -> None:
    device = simulator.SmuSimulator(STEADY, "2450")
    with serving(device, "socket") as where:
        first = keithley_smu.open(where["socket"], Options(supply_v=3.3))
        first.start()
        with pytest.raises(AccessError, match="OUTPUT key"):
            keithley_smu.open(where["socket"], Options(supply_v=3.3))
        assert first.read(0.5)
        first.close()


# Decoding.


def test_a_lost_or_spoilt_row_is_a_lost_sample() -> None:
    with opened() as (unit, _):
        header = unit.start()

    def framed(number: int, row: bytes) -> bytes:
        payload = row.ljust(wire.ROW_BYTES, b"\0")
        return frames.pack(frames.Frame(number=number, before_ns=0, after_ns=0, payload=payload))

    rows = [(0, b"0.01,0.0,3.3,128"), (1, b"0.01,0.1,3.3,128"), (2, b"garbage"), (4, b"0.02,0.4,3.3,128")]
    blocks = decoded(header, b"".join(framed(*row) for row in rows))
    assert [(block.first_index, block.lost_before, len(block)) for block in blocks] == [(0, 0, 2), (4, 2, 1)]
    assert column(blocks, "current").tolist() == [0.01, 0.01, 0.02]
    assert len(framed(0, b"")) == wire.WORD_BYTES
    with pytest.raises(UsageError, match=r"not keithley-smu/1"):
        keithley_smu.decoder(replace(header, wire="other/1"))
