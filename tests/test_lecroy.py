"""LeCroy: the waveform block by its template, by other people's readers and recordings; the driver on its simulator."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter import registry, scpi
from joulemeter.capture import Block, Header, Status
from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments.lecroy import FAMILIES, driver, wire
from joulemeter.instruments.lecroy.simulator import LecroySimulator
from joulemeter.scope.frontend import FrontEnd
from joulemeter.scpi import Scpi, parse_identity
from joulemeter.synthetic import parse_load
from joulemeter.transport.scpidevice import BentDevice, ByteFault, Refused, ScpiDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.transport.visa import open_session

LECROY = registry.instrument("lecroy")
LOAD = "12mA/1.129ms/d0,2mA/1.871ms"
SHORT = {"record": "2ms", "records": "4", "peak": "20mA", "zero": "2mA"}


# -- the block --------------------------------------------------------------------------------------------------------


def block(order: str, *, word: bool, codes: list[int], gain: float, offset: float, **more: Any) -> bytes:
    """A waveform written field by field from the template's offsets, in either byte order."""
    segments, times = more.get("segments", 1), more.get("times", b"")
    data = struct.pack(f"{order}{len(codes)}{'h' if word else 'b'}", *codes)
    head = bytearray(346)

    def put(at: int, kind: str, *values: Any) -> None:
        struct.pack_into(order + kind, head, at, *values)

    head[0:8], head[16:26] = b"WAVEDESC", b"LECROY_2_3"
    put(32, "h", int(word))
    put(34, "h", int(order == "<"))
    put(36, "i", 346)
    put(40, "i", len(more.get("text", b"")))
    put(48, "i", len(times))
    put(60, "i", len(data))
    head[76:85] = b"LECROYWS3"
    put(116, "i", len(codes))
    put(128, "i", more.get("last", len(codes) - 1))
    put(124, "i", more.get("first", 0))
    put(144, "i", segments)
    put(148, "i", more.get("sweeps", 1))
    put(156, "f", gain)
    put(160, "f", offset)
    put(164, "f", more.get("top", 32512.0 if word else 127.0))
    put(168, "f", -32768.0 if word else -128.0)
    put(174, "h", segments)
    put(176, "f", 1e-9)
    put(180, "d", -2.5e-7)
    put(196, "1s", b"V")
    put(316, "h", more.get("record_type", 0))
    put(322, "h", 1)
    put(324, "h", 25)
    put(328, "f", 10.0)
    prefix: bytes = more.get("prefix", b"")
    return prefix + bytes(head) + bytes(more.get("text", b"")) + bytes(times) + data


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("word", [False, True])
def test_golden(order: str, word: bool) -> None:
    """An offset that is not zero, negative codes, a probe of 10 that does not multiply, both orders, both widths."""
    # 0.5 mV to a code at 8 bits; VERTICAL_OFFSET -30 mV: volts = gain x code + 30 mV.
    scale = 256 if word else 1
    codes = [-120 * scale, -1 * scale, 0, 1 * scale, 100 * scale]
    raw = block(order, word=word, codes=codes, gain=0.5e-3 / scale, offset=-0.03, prefix=b"ALL,#9000000356")
    wave = wire.parse(raw)
    seen = wire.trace(wave.descriptor.raw + wave.data[0])
    np.testing.assert_allclose(seen.volts, [-0.03, 0.0295, 0.03, 0.0305, 0.08], rtol=1e-6)
    assert seen.interval_s == 1e-9
    assert wave.offset_s[0] == -2.5e-7
    assert seen.clipped is not None and not seen.clipped.any()


def test_codes_at_the_ends_are_clipped() -> None:
    raw = block("<", word=False, codes=[-128, -127, 126, 127], gain=1.0, offset=0.0)
    clipped = wire.trace(raw).clipped
    assert clipped is not None
    assert clipped.tolist() == [True, False, False, True]


def test_points_that_are_not_valid_are_holes() -> None:
    hole = wire.trace(block("<", word=False, codes=[1, 2, 3, 4], gain=1.0, offset=0.0, first=1, last=2)).hole
    assert hole is not None
    assert hole.tolist() == [True, False, False, True]


@pytest.mark.parametrize("order", ["<", ">"])
def test_a_sequence_has_its_own_times(order: str) -> None:
    times = struct.pack(order + "6d", 0.0, -1e-6, 2.5e-3, -1.1e-6, 5.0e-3, -0.9e-6)
    raw = block(
        order, word=False, codes=[1, 2, 3, 4, 5, 6], gain=1.0, offset=0.0, segments=3, times=times, text=b"note"
    )
    wave = wire.parse(raw)
    assert [np.frombuffer(data, np.int8).tolist() for data in wave.data] == [[1, 2], [3, 4], [5, 6]]
    np.testing.assert_allclose(wave.after_s, [0.0, 2.5e-3, 5e-3])
    np.testing.assert_allclose(wave.offset_s, [-1e-6, -1.1e-6, -0.9e-6])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"not a waveform", "hold no LeCroy waveform"),
        (block("<", word=False, codes=[1], gain=1.0, offset=0.0).replace(b"LECROY_2_3", b"LECROY_1_0"), "LECROY_1_0"),
        (block("<", word=False, codes=[1, 2], gain=1.0, offset=0.0)[:-1], "came with 1 bytes"),
        (block("<", word=False, codes=[1, 2], gain=1.0, offset=0.0, sweeps=8), "average"),
        (block("<", word=False, codes=[1, 2], gain=1.0, offset=0.0, record_type=2), "no plain record"),
    ],
    ids=["text", "old", "short", "average", "histogram"],
)
def test_blocks_that_cannot_be_used(raw: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wire.parse(raw)


# -- other people's readers and recordings ----------------------------------------------------------------------------


def simulator(load: str = LOAD, **settings: str) -> Any:
    options = Options(settings=settings)
    return LecroySimulator(parse_load(load), LECROY.INFO.chosen(options), options)


@pytest.mark.outside
@pytest.mark.parametrize("order", ["LO", "HI"])
@pytest.mark.parametrize("width", ["BYTE", "WORD"])
def test_other_readers_see_the_same_volts(tmp_path: Path, order: str, width: str) -> None:
    """A waveform of the simulator, saved as the .trc file that an oscilloscope would, read by two other projects."""
    lecroyparser = pytest.importorskip("lecroyparser")
    rigolwfm = pytest.importorskip("RigolWFM.wfm")
    with serving(simulator(), "vicp") as where, Scpi(open_session(where["vicp"])) as scope:
        scope.write("CHDR OFF", f"CFMT DEF9,{width},BIN", f"CORD {order}", "C1:TRA ON", "C2:TRA ON")
        scope.write("C2:VDIV 5E-3", "C2:OFST -1.5E-2", "C1:VDIV 1", "TDIV 200E-6", "MSIZ 2000", "TRMD SINGLE", "ARM")
        scope.wait("INR?", lambda reply: bool(int(reply) & 1), 5.0, "acquisition")
        waves = {number: scope.ask_block(f"C{number}:WF? ALL").tobytes() for number in (1, 2)}
    for number, raw in waves.items():
        wave = wire.parse(raw)
        ours = wire.trace(wave.descriptor.raw + wave.data[0]).volts
        path = tmp_path / f"C{number}.trc"
        path.write_bytes(b"#9%09d" % len(raw) + raw)
        np.testing.assert_allclose(lecroyparser.ScopeData(str(path)).y, ours, atol=1e-7)
        np.testing.assert_allclose(rigolwfm.Wfm.from_file(str(path)).channels[0].volts, ours, atol=1e-6)
        assert np.ptp(ours) > 5e-3


# Recordings of a WaveRunner 64Xi-A, among them a sequence of 20, and of a 12-bit WavePro 254HD: RigolWFM's test files.
RECORDED = {"lecroy_2.trc": (1, 100_002, 1e-7), "lecroy_3.trc": (20, 502, 1e-9), "lecroy_4.trc": (1, 502, 1e-9)}


@pytest.mark.outside
@pytest.mark.parametrize("name", RECORDED)
def test_recordings_of_real_oscilloscopes(name: str) -> None:
    folder = os.environ.get("JOULEMETER_TRC_FILES")
    if folder is None:
        pytest.skip("JOULEMETER_TRC_FILES names no folder with RigolWFM's tests/files/trc")
    lecroyparser = pytest.importorskip("lecroyparser")
    path = Path(folder) / name
    segments, points, interval_s = RECORDED[name]
    wave = wire.parse(path.read_bytes())
    assert len(wave.data) == segments
    traces = [wire.trace(wave.descriptor.raw + data) for data in wave.data]
    assert {len(one.volts) for one in traces} == {points}
    assert traces[0].interval_s == interval_s
    assert (np.diff(wave.after_s) > 0).all()
    theirs = lecroyparser.ScopeData(str(path)).y
    np.testing.assert_allclose(np.concatenate([one.volts for one in traces]), theirs, atol=1e-6)


# -- the driver on its simulator --------------------------------------------------------------------------------------


@contextlib.contextmanager
def bench(device: ScpiDevice | None = None, face: str = "vicp", faults: tuple[ByteFault, ...] = ()) -> Iterator[str]:
    with serving(BentDevice(device or simulator(**SHORT), faults), face) as where:
        yield where[face]


def taken(address: str, count: int, **settings: str) -> tuple[Header, list[Block]]:
    with LECROY.open(address, Options(settings=SHORT | settings, declared_v=3.0)) as scope:
        header = scope.start()
        decoder = LECROY.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 30
        while len(blocks) < count and time.monotonic() < deadline:
            blocks += decoder.feed(scope.read(0.1))
    return header, blocks


@pytest.mark.parametrize("face", ["vicp", "vxi11", "socket", "hislip"])
def test_pulses_over_every_wire(face: str) -> None:
    with bench(face=face) as address:
        header, blocks = taken(address, 4)
    assert header.simulated and header.rate_hz == 1e6
    # The cycle of the load is 3 ms; the line rises at 10 % of each record.
    starts = np.diff([block.first_index for block in blocks])
    np.testing.assert_allclose(starts, 3000, atol=1)
    for block in blocks:
        high = block.data["c1"] > 1.65
        assert abs(int(np.argmax(high)) - 200) <= 1
        assert abs(int(high.sum()) - 1129) <= 1
        assert float(block.data["current"][300:1300].mean()) == pytest.approx(12e-3, rel=0.01)
        assert float(block.data["current"][:180].mean()) == pytest.approx(2e-3, rel=0.01)
        assert float(block.data["voltage"][300:1300].mean()) == pytest.approx(3.0 - 12e-3, rel=1e-4)


@pytest.mark.parametrize("records", ["1", "7"])
def test_single_records_and_sequences(records: str) -> None:
    with bench() as address:
        _, blocks = taken(address, 14, records=records)
    assert len(blocks) >= 14
    assert all(later.first_index > block.first_index for block, later in pairwise(blocks))


def test_a_falling_edge_starts_a_record() -> None:
    with bench(simulator(**SHORT, trigger="c1@1.65V:falling")) as address:
        _, blocks = taken(address, 1, trigger="c1@1.65V:falling")
    line = blocks[0].data["c1"] > 1.65
    assert line[0] and not line[-1]
    assert abs(int(np.argmin(line)) - 200) <= 1


def test_twelve_bits_come_as_words() -> None:
    made = simulator(**SHORT)
    made.identity = "LECROY,HDO4034,SIM00000002,8.5.0"
    with bench(made) as address:
        header, blocks = taken(address, 1)
    assert made.word
    assert header.channels[0].accuracy[0].gain.value < 0.01
    assert float(blocks[0].data["current"][300:1300].mean()) == pytest.approx(12e-3, rel=0.01)


def test_a_current_above_the_screen_is_marked() -> None:
    with bench(simulator("90mA/1ms/d0,2mA/2ms", **SHORT)) as address:
        _, blocks = taken(address, 1)
    status = blocks[0].status
    assert status is not None
    assert (status[300:1100] & Status.CLIPPED).all()
    assert not status[:150].any()


def test_a_sequence_that_is_ended_early_is_fetched() -> None:
    with bench() as address, LECROY.open(address, Options(settings=SHORT | {"records": "1000"})) as scope:
        header = scope.start()
        assert scope.read(0.3) == b""
        rest = b"".join(scope.remaining())  # type: ignore[attr-defined]
        blocks = LECROY.decoder(header).feed(rest)
    assert 20 < len(blocks) < 1000


def test_a_stopped_acquisition_without_a_trigger_gives_nothing_again() -> None:
    """What the instrument holds then is the waveform of the acquisition before."""
    with (
        bench(simulator("12mA/1ms/d0,2mA/2ms,2mA/10s", **SHORT)) as address,
        LECROY.open(address, Options(settings=SHORT | {"records": "1"})) as scope,
    ):
        header = scope.start()
        raw = b""
        deadline = time.monotonic() + 15
        while not raw and time.monotonic() < deadline:
            raw = scope.read(0.1)
        assert len(LECROY.decoder(header).feed(raw)) == 1
        scope.read(0.1)
        assert list(scope.remaining()) == []  # type: ignore[attr-defined]


def test_no_trigger_is_told() -> None:
    with (
        bench(simulator("5mA/1s", **SHORT)) as address,
        LECROY.open(address, Options(settings=SHORT | {"wait": "200ms"})) as scope,
    ):
        scope.start()
        with pytest.raises(IncompleteError, match="No trigger came within"):
            for _ in range(50):
                scope.read(0.1)


@pytest.mark.parametrize("kind", ["stall", "unplug"])
def test_a_wire_that_breaks_in_a_waveform(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records before it are kept."""
    monkeypatch.setattr(scpi, "TIMEOUT_S", 0.5)
    with (
        bench(faults=(ByteFault(kind=kind, at=30_000),)) as address,
        LECROY.open(address, Options(settings=SHORT)) as scope,
    ):
        header = scope.start()
        decoder, blocks = LECROY.decoder(header), []
        with pytest.raises(IncompleteError):
            for _ in range(200):
                blocks += decoder.feed(scope.read(0.1))
    assert len(blocks) >= 4


class Wrong(ScpiDevice):
    identity = "LECROY,WAVERUNNER8104,LCRY1,9.0"

    def answer(self, command: str) -> bytes | None:
        return b"CURRENT REMOTE CONTROL INTERFACE IS TCPIP"


def test_the_wrong_interface_is_told() -> None:
    with (
        bench(Wrong(), face="vxi11") as address,
        LECROY.open(address, Options()) as scope,
        pytest.raises(AccessError, match="TCPIP"),
    ):
        scope.start()


@pytest.mark.parametrize(
    "identity", ["RIGOL TECHNOLOGIES,DS1104Z,DS1,0", "LECROY,T3DSO1204,T1,1.0", "KEYSIGHT TECHNOLOGIES,DSOX3024T,1,1"]
)
def test_other_instruments_are_told(identity: str) -> None:
    other = Wrong()
    other.identity = identity
    with bench(other, face="socket") as address, pytest.raises(NotFoundError, match="not a LeCroy"):
        LECROY.open(address, Options())


def test_a_refused_setting_is_told() -> None:
    made = simulator(**SHORT)
    plain = made.answer

    def strict(command: str) -> Any:
        if command.startswith("SEQ ON"):
            raise Refused(-221, "Settings conflict")
        return plain(command)

    made.answer = strict
    with (
        bench(made) as address,
        LECROY.open(address, Options(settings=SHORT)) as scope,
        pytest.raises(UsageError, match="refuses part of its set-up"),
    ):
        scope.start()


def test_a_front_end_is_checked_before_anything_is_set() -> None:
    with bench() as address, pytest.raises(UsageError, match="takes away the mean"):
        LECROY.open(address, Options(settings={"coupling": "ac"}))


def test_it_is_left_running() -> None:
    made = simulator(**SHORT)
    with bench(made) as address:
        taken(address, 1)
        deadline = time.monotonic() + 5
        while made.mode != "AUTO" and time.monotonic() < deadline:
            time.sleep(0.01)
    assert made.mode == "AUTO" and made.segments == 0


@pytest.mark.parametrize(
    ("model", "bits"), [("WAVESURFER3034Z", 8), ("HDO6104A", 12), ("WAVEPRO254HD", 12), ("WAVERUNNER9404", 8)]
)
def test_families(model: str, bits: int) -> None:
    assert driver.family_of(model, FAMILIES).bits == bits


def test_who_fits() -> None:
    told = parse_identity("*IDN LECROY,WAVESURFER3034Z,LCRY3701N12345,8.5.1")
    assert told is not None and driver.fits(told)


# -- the command line -------------------------------------------------------------------------------------------------


def test_a_lost_network_keeps_what_was_fetched(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joulemeter", "measure", "--meter", "lecroy", "--simulate", "--faults", "unplug@2s",
         "--trigger", "c1@1.65V", "--assume-voltage", "3V", "--windows", "100000", "-o", str(tmp_path), "--quiet",
         "--inferences-per-window", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "energy per inference" in done.stdout
    assert "The recording is kept" in done.stderr or "kept" in done.stderr


def test_the_front_end_of_the_simulator_is_the_users() -> None:
    assert isinstance(simulator(shunt="2ohm").bench._front, FrontEnd)
    assert simulator(shunt="2ohm").bench._front.ohm == 2.0
