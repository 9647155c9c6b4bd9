"""R&S RTB2000, RTM3000, RTA4000: the manuals' own example, the driver on its simulator, other people's clients."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter import registry, scpi
from joulemeter.capture import UNSEEN, ArrayStream, Block, Gap, Header, Status, Timebase
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments.rohde_schwarz import driver, wire
from joulemeter.instruments.rohde_schwarz.simulator import RohdeSchwarzSimulator, short
from joulemeter.physics.integrate import integrate
from joulemeter.scpi import parse_identity
from joulemeter.synthetic import parse_load
from joulemeter.transport.scpidevice import BentDevice, ByteFault, ScpiDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.window import Window

ROHDE = registry.instrument("rohde_schwarz")
LOAD = "12mA/1.129ms/d0,2mA/1.871ms"
SHORT = {"record": "2ms", "records": "4", "peak": "20mA", "zero": "2mA"}
# 2 ms are 2.4 ms on the screen; 10,000 points in that, the fewest it makes.
RATE_HZ = 10_000 / 2.4e-3
BEFORE, POINTS = 833, 8334
# A python that has RsInstrument.
RS_INSTRUMENT = os.environ.get("JOULEMETER_RSINSTRUMENT")


# -- the waveform -----------------------------------------------------------------------------------------------------


def part(data: bytes, **changes: str) -> bytes:
    told = {
        **{"FORM": "UINT,8", "BORD": "MSBF", "HEAD": "-2.0E-06,2.0E-06,5,1", "YINC": "0.04", "YOR": "-3.61"},
        **{"XINC": "1.0E-06"},
    } | changes
    raw: bytes = wire.join({name: value for name, value in told.items() if value}, data)
    return raw


@pytest.mark.parametrize("order", ["MSBF", "LSBF"])
@pytest.mark.parametrize("form", ["UINT,8", "UINT,16", "REAL,32"])
def test_golden(order: str, form: str) -> None:
    """An offset that is not zero, codes on both sides of the middle, a probe of 10, both orders, all formats.

    0.1 V/div behind a probe of 10 are 1 V/div, 25 codes to a division: 40 mV to a code of eight bits. The middle of the
    screen, code 127.5, is at 1.49 V, so YOR is 1.49 - 5.1 = -3.61 V: code 27 is -2.53 V and code 200 is 4.39 V.
    """
    mark = ">" if order == "MSBF" else "<"
    codes, volts = [27, 90, 127, 128, 200], [-2.53, -0.01, 1.47, 1.51, 4.39]
    data = {
        "UINT,8": bytes(codes),
        "UINT,16": struct.pack(f"{mark}5H", *(code * 256 for code in codes)),
        "REAL,32": struct.pack(f"{mark}5f", *volts),
    }[form]
    step = {"UINT,16": "1.5625E-04"}.get(form, "4.0E-02")
    seen = wire.trace(part(data, FORM=form, BORD=order, YINC=step))
    np.testing.assert_allclose(seen.volts, volts, rtol=1e-5, atol=1e-9)
    assert seen.interval_s == 1e-6
    if form == "REAL,32":
        assert seen.clipped is None
    else:
        assert seen.clipped is not None and not seen.clipped.any()


# RTB2000 user manual 1333.1611.02, 15.2.1.4, and RTM3000 user manual 1335.9090.02, 17.2.1.4: the same waveform in two
# formats, and the volts of code 128 (0.0001 V) and of the middle of the screen (0 V) as they are computed there.
MANUAL = {
    "HEAD": "-4.998000058E-07,5.000000000E-07,5000,1",
    "YOR": "-2.549999943E-2",
    "XINC": "2.000000023E-10",
    "XOR": "-4.998000058E-7",
}


def test_the_example_of_the_manuals() -> None:
    eight = np.full(5000, 128, np.uint8)
    eight[:3] = 128, 125, 120
    sixteen = np.full(5000, 32768, ">u2")
    sixteen[:3] = 32768, 32000, 30720
    first = wire.trace(part(eight.tobytes(), FORM="UINT,8", YINC="1.999999949E-4", **MANUAL))
    second = wire.trace(part(sixteen.tobytes(), FORM="UINT,16", YINC="7.812499803E-7", **MANUAL))
    np.testing.assert_allclose(first.volts[:3], [1e-4, -5e-4, -1.5e-3], atol=1e-8)
    np.testing.assert_allclose(second.volts, first.volts, atol=1e-8)
    assert first.interval_s == pytest.approx(2e-10, rel=1e-7)
    told = wire.head(MANUAL["HEAD"])
    assert told.points == 5000
    # The last sample is 4999 intervals after the first.
    assert told.start_s + 4999 * 2e-10 == pytest.approx(told.stop_s, abs=1e-12)


@pytest.mark.parametrize(
    ("form", "codes", "clipped"),
    [
        ("UINT,8", [0, 1, 127, 254, 255], [True, False, False, False, True]),
        # Ten bits in sixteen end at 1023 * 64.
        ("UINT,16", [0, 256, 32768, 65216, 65472], [True, False, False, False, True]),
    ],
)
def test_codes_at_the_ends_are_clipped(form: str, codes: list[int], clipped: list[bool]) -> None:
    data = struct.pack(f">5{'B' if form == 'UINT,8' else 'H'}", *codes)
    seen = wire.trace(part(data, FORM=form)).clipped
    assert seen is not None
    assert seen.tolist() == clipped


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"not a waveform", "hold no R&S waveform"),
        (part(b"12345", YOR=""), "without YOR"),
        (part(b"12345", FORM="ASC,0"), "comes as ASC,0"),
        (part(b"1234"), "5 samples came with 4 bytes"),
        (part(b"12345")[:-2], "5 samples came with 3 bytes"),
        (part(b"1234567890", HEAD="0,1,5,2"), "peak detector"),
        (part(b"", HEAD="0,0,0,1"), "no samples"),
        (part(b"12345", HEAD="0"), "does not describe"),
        (part(b"12345", XINC="9.91E+37"), "XINC is not known"),
    ],
)
def test_waveforms_that_cannot_be_used(raw: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wire.trace(raw)


def test_only_what_was_wanted_is_kept() -> None:
    assert len(wire.trace(part(b"123", KEPT="3")).volts) == 3


# -- who it is --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "fits"),
    [("RTB2004", True), ("RTM3002", True), ("RTA4004", True), ("RTC1002", False), ("RTO2044", False), ("MXO44", False)],
)
def test_models(model: str, fits: bool) -> None:
    told = parse_identity(f"Rohde&Schwarz,{model},1333.1005k04/107554,02.400")
    assert told is not None
    assert driver.fits(told) == fits


class Other(ScpiDevice):
    identity = "Rohde&Schwarz,RTC1002,100001,06.201"


def test_other_instruments_are_told() -> None:
    with bench(Other()) as address, pytest.raises(NotFoundError, match="not an R&S that is known here"):
        ROHDE.open(address, Options())


# -- the driver on its simulator --------------------------------------------------------------------------------------


def simulator(load: str = LOAD, **settings: str) -> RohdeSchwarzSimulator:
    options = Options(settings=settings)
    return RohdeSchwarzSimulator(parse_load(load), ROHDE.INFO.chosen(options), options)


@contextlib.contextmanager
def bench(device: ScpiDevice | None = None, face: str = "socket", faults: tuple[ByteFault, ...] = ()) -> Iterator[str]:
    with serving(BentDevice(device or simulator(**SHORT), faults), face) as where:
        yield where[face]


def taken(address: str, count: int, **settings: str) -> tuple[Header, list[Block]]:
    with ROHDE.open(address, Options(settings=SHORT | settings, declared_v=3.0)) as scope:
        header = scope.start()
        decoder = ROHDE.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 30
        while len(blocks) < count and time.monotonic() < deadline:
            blocks += decoder.feed(scope.read(0.1))
    return header, blocks


def pulses(blocks: list[Block]) -> None:
    pulse, quiet = slice(BEFORE + 200, BEFORE + round(1e-3 * RATE_HZ)), slice(0, BEFORE - 90)
    for block in blocks:
        high = block.data["c1"] > 1.65
        assert abs(int(np.argmax(high)) - BEFORE) <= 3
        assert abs(int(high.sum()) - 1.129e-3 * RATE_HZ) <= 3
        assert float(block.data["current"][pulse].mean()) == pytest.approx(12e-3, rel=0.01)
        assert float(block.data["current"][quiet].mean()) == pytest.approx(2e-3, rel=0.01)
        assert float(block.data["voltage"][pulse].mean()) == pytest.approx(3.0 - 12e-3, rel=1e-4)


@pytest.mark.parametrize("face", ["socket", "vxi11", "hislip"])
def test_pulses_over_every_wire(face: str) -> None:
    with bench(face=face) as address:
        header, blocks = taken(address, 4)
    assert header.simulated and (header.model, header.serial) == ("RTB2004", "SIM00000001")
    assert header.rate_hz == pytest.approx(RATE_HZ, rel=1e-6)
    assert (header.parameters["points"], header.parameters["before"]) == (POINTS, BEFORE)
    assert {len(block) for block in blocks} == {POINTS}
    # The cycle of the load is 3 ms, by the times of the segments.
    np.testing.assert_allclose(np.diff([block.first_index for block in blocks[:4]]), 3e-3 * RATE_HZ, atol=2)
    pulses(blocks)


def test_the_energy_of_windows() -> None:
    """1.129 ms at 12 mA and 3 V less 12 mV on the shunt: 40.47 uJ."""
    with bench() as address:
        header, blocks = taken(address, 8)
    stream = ArrayStream(
        name="rohde_schwarz",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={name: np.concatenate([block.data[name] for block in blocks]) for name in blocks[0].data},
        gaps=tuple(
            Gap(index=block.first_index, lost=block.lost_before, cause=UNSEEN) for block in blocks if block.lost_before
        ),
    )
    windows = []
    for k, block in enumerate(blocks):
        high = np.flatnonzero(block.data["c1"] > 1.65)
        start, stop = (round((block.first_index + int(at)) / header.rate_hz * 1e9) for at in (high[0], high[-1] + 1))
        windows.append(Window(start_ns=start, stop_ns=stop, index=k))
    for one in integrate(stream, windows):
        assert one.energy_j == pytest.approx(12e-3 * (3.0 - 12e-3) * 1.129e-3, rel=0.01)


def test_without_the_option_there_is_one_record_after_the_other() -> None:
    made = simulator(**SHORT)
    made.licensed = False
    with bench(made) as address:
        header, blocks = taken(address, 3)
    pulses(blocks)
    assert "fewer-records" in {caveat.code for caveat in header.caveats}
    assert not [command for command in made.said if "HIST" in command or "SEGM" in command]


def test_a_falling_edge_starts_a_record() -> None:
    with bench(simulator(**SHORT, trigger="c1@1.65V:falling")) as address:
        _, blocks = taken(address, 1, trigger="c1@1.65V:falling")
    line = blocks[0].data["c1"] > 1.65
    assert line[0] and not line[-1]
    assert abs(int(np.argmin(line)) - BEFORE) <= 3


def test_a_current_above_the_screen_is_marked() -> None:
    with bench(simulator("90mA/1ms/d0,2mA/2ms", **SHORT)) as address:
        _, blocks = taken(address, 1)
    status = blocks[0].status
    assert status is not None
    assert (status[BEFORE + 100 : BEFORE + 4000] & Status.CLIPPED).all()
    assert not status[: BEFORE - 50].any()


def test_the_probe_is_set_first_and_what_was_found_does_not_stay() -> None:
    """3.3 V in eight divisions are 0.5 V/div at the tip of a probe of 10, zero four divisions below the middle."""
    made = simulator(**SHORT)
    with bench(made) as address:
        header, _ = taken(address, 1)
    assert header.parameters["volts_per_div"] == {"c1": 0.5, "c2": 5e-3}
    assert (made.channels[1].volts_per_div, made.channels[1].centre_v) == pytest.approx((0.5, 2.0))
    assert (made.channels[2].volts_per_div, made.channels[2].centre_v) == pytest.approx((5e-3, 0.02))
    held = {
        name: made._set[name] for name in ("CHAN2:TYPE", "CHAN2:ARIT", "CHAN2:COUP", "CHAN2:BAND", "PROB1:SET:ATT:MAN")
    }
    assert held == {
        **{"CHAN2:TYPE": "SAMP", "CHAN2:ARIT": "0", "CHAN2:COUP": "DCL", "CHAN2:BAND": "B20"},
        **{"PROB1:SET:ATT:MAN": "10"},
    }


def test_a_scaling_that_does_not_know_the_position_is_told() -> None:
    made = simulator(**SHORT)
    plain = made.answer

    def answer(command: str) -> Any:
        told = plain(command)
        # Code 127.5 at 0 V, wherever the trace is: 5 mV/div, 25 codes to a division.
        return b"-2.55E-2" if command.endswith("CHAN2:DATA:YOR?") else told

    made.answer = answer
    with bench(made) as address, pytest.raises(DataError, match=r"the middle of the screen is at .* V on c2, by"):
        taken(address, 1)


def test_segments_that_are_ended_early_are_fetched() -> None:
    with bench() as address, ROHDE.open(address, Options(settings=SHORT | {"records": "1000"})) as scope:
        header = scope.start()
        assert scope.read(0.3) == b""
        rest = b"".join(scope.remaining())  # type: ignore[attr-defined]
        blocks = ROHDE.decoder(header).feed(rest)
    assert 20 < len(blocks) < 1000


@pytest.mark.parametrize(("records", "licensed"), [("1", True), ("1", False), ("2", True)])
def test_a_stopped_acquisition_without_a_trigger_gives_nothing_again(records: str, licensed: bool) -> None:
    """What the instrument holds then are the waveforms of the acquisition before."""
    made = simulator("2mA/0.5s,12mA/1ms/d0,2mA/2ms,12mA/1ms/d0,2mA/1.6s", **SHORT)
    made.licensed = licensed
    with (
        bench(made) as address,
        ROHDE.open(address, Options(settings=SHORT | {"records": records})) as scope,
    ):
        header = scope.start()
        decoder = ROHDE.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 15
        while len(blocks) < int(records) and time.monotonic() < deadline:
            blocks += decoder.feed(scope.read(0.1))
        assert len(blocks) == int(records)
        # The second pulse may be had by records of one; then it is quiet.
        while scope.read(0.2):
            pass
        assert list(scope.remaining()) == []  # type: ignore[attr-defined]


def test_a_history_that_goes_on_is_not_given_twice() -> None:
    """Of an instrument that keeps the segments of the acquisition before."""
    made = simulator("2mA/0.6s,12mA/1ms/d0,2mA/2ms,12mA/1ms/d0,2mA/1.5s", **SHORT)
    plain = made.arm

    def arm(records: int) -> None:
        kept = made.held
        plain(records)
        made.sweep.shots.extend(kept if records > 1 else [])
        made.sweep.wanted += len(made.sweep.shots)

    made.arm = arm
    with bench(made) as address, ROHDE.open(address, Options(settings=SHORT | {"records": "2"})) as scope:
        header = scope.start()
        decoder = ROHDE.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 15
        while len(blocks) < 2 and time.monotonic() < deadline:
            blocks += decoder.feed(scope.read(0.1))
        while scope.read(0.2):
            pass
        rest = b"".join(scope.remaining())  # type: ignore[attr-defined]
    assert len(blocks) == 2
    assert rest == b""


def test_it_is_armed_late_and_waited_for() -> None:
    made = simulator(**SHORT)
    made.late_s = 0.2
    with bench(made) as address, ROHDE.open(address, Options(settings=SHORT)) as scope:
        began = time.monotonic()
        scope.start()
        # The record without a trigger is begun at once here, the acquisition is late.
        assert time.monotonic() - began > 0.2


def test_no_trigger_is_told() -> None:
    with (
        bench(simulator("5mA/1s", **SHORT)) as address,
        ROHDE.open(address, Options(settings=SHORT | {"wait": "200ms"})) as scope,
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
        bench(faults=(ByteFault(kind=kind, at=250_000),)) as address,
        ROHDE.open(address, Options(settings=SHORT)) as scope,
    ):
        header = scope.start()
        decoder = ROHDE.decoder(header)
        blocks: list[Block] = []
        with pytest.raises(IncompleteError):
            for _ in range(200):
                blocks += decoder.feed(scope.read(0.1))
    assert len(blocks) >= 4


def test_a_waveform_that_is_short_is_asked_for_again_and_then_told() -> None:
    made = simulator(**SHORT)
    made.short = 3
    with bench(made) as address:
        _, blocks = taken(address, 4)
        pulses(blocks)
        plain = made.answer

        def cut(command: str) -> Any:
            made.short = 3000
            return plain(command)

        made.answer = cut
        with pytest.raises(DataError, match=f"{POINTS} samples came with 14000 bytes"):
            taken(address, 1)


def test_a_history_that_stays_where_it_is_is_told() -> None:
    made = simulator(**SHORT)
    made.sticky = True
    with bench(made) as address, pytest.raises(DataError, match="of its history twice"):
        taken(address, 4)


@pytest.mark.parametrize("left", [b"#45000" + b"\xfe" * 5000 + b"\n", b"-31,12,5,7\n"])
@pytest.mark.parametrize("face", ["socket", "vxi11"])
def test_what_another_client_did_not_read_is_no_answer(left: bytes, face: str) -> None:
    """An instrument that keeps it until somebody asks for something else."""
    made = simulator(**SHORT)
    plain, unread = made.receive, [left]

    def receive(data: bytes) -> None:
        if data and unread:
            made.say(unread.pop())
        plain(data)

    made.receive = receive
    with bench(made, face) as address:
        header, _ = taken(address, 1)
    assert header.model == "RTB2004"
    assert not unread


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"coupling": "dc50"}, "-224 Illegal parameter value"),
        ({"current": "c5"}, "has 4 inputs"),
        ({"coupling": "ac"}, "takes away the mean"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, str], said: str) -> None:
    with bench() as address, pytest.raises(UsageError, match=said):
        taken(address, 1, **settings)


def test_it_is_left_running() -> None:
    made = simulator(**SHORT)
    with bench(made) as address:
        taken(address, 1)
        deadline = time.monotonic() + 5
        while not made.running and time.monotonic() < deadline:
            time.sleep(0.01)
    assert made.running
    assert (made._set["ACQ:SEGM:STAT"], made._set["ACQ:NSIN:COUN"], made._set["TRIG:A:MODE"]) == ("0", "1", "AUTO")


def test_nothing_that_blocks_is_asked_while_it_waits() -> None:
    """*OPC? after SINGle is answered when all records are there."""
    made = simulator(**SHORT)
    asked: list[str] = []
    plain = made.receive

    def heard(data: bytes) -> None:
        asked.extend(data.decode("latin-1").split())
        plain(data)

    made.receive = heard
    with bench(made) as address:
        taken(address, 1)
    begun = [k for k, message in enumerate(asked) if message.startswith(":SING")]
    assert len(begun) >= 2
    assert all("*OPC?" not in asked[k] and "*OPC?" not in asked[k + 1] for k in begun)


def test_a_lost_network_keeps_what_was_fetched(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joulemeter", "measure", "--meter", "rohde_schwarz", "--simulate", "--faults",
         "unplug@1.5s", "--trigger", "c1@1.65V", "--assume-voltage", "3V", "--windows", "100000", "-o", str(tmp_path),
         "--quiet", "--inferences-per-window", "1", "--set", "records=20"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "energy per inference" in done.stdout


# -- the simulator, to other people's clients -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("CHANnel:DATA:YORigin", "CHAN1:DATA:YOR"),
        (":CHANNEL2:HISTory:TSRelative", "CHAN2:HIST:TSR"),
        ("ACQuire:POINts:VALue", "ACQ:POIN"),
        ("PROBe1:SETup:ATTenuation:MANual", "PROB1:SET:ATT:MAN"),
        ("TIMebase:POSition", "TIM:POS"),
    ],
)
def test_long_and_short_spellings(said: str, name: str) -> None:
    assert short(said) == short(name) == name


CLIENT = """
import json, sys
from RsInstrument import BinFloatFormat, BinIntFormat, RsInstrument
scope = RsInstrument(f"TCPIP::127.0.0.1::{sys.argv[1]}::SOCKET", True, False, "SelectVisa=SocketIo")
scope.instrument_status_checking = True
scope.visa_timeout = 5000
scope.write_str_with_opc(":STOP")
found = {"name": scope.full_instrument_model_name, "options": scope.instrument_options}
scope.write_str("CHANnel2:DATA:POINts MAX")
for order, floats in (("LSBFirst", BinFloatFormat.Single_4bytes), ("MSBFirst", BinFloatFormat.Single_4bytes_swapped)):
    scope.write_str("FORMat:DATA REAL,32")
    scope.write_str("FORMat:BORDer " + order[:4])
    scope.bin_float_numbers_format = floats
    found[order] = scope.query_bin_or_ascii_float_list("FORM REAL,32;:CHANnel2:DATA?")
scope.write_str("FORMat:DATA ASCii")
found["ASCII"] = scope.query_bin_or_ascii_float_list("CHANnel2:DATA?")
scope.write_str("FORMat:DATA UINT,16")
found["raw"] = list(scope.query_bin_block("CHANnel2:DATA?")[:2000])
found["scale"] = [scope.query_float("CHANnel2:DATA:" + name + "?") for name in ("YINCrement", "YORigin")]
found["head"] = scope.query_str("CHANnel2:DATA:HEADer?")
found["errors"] = scope.query_all_errors()
scope.close()
print("JSON" + json.dumps(found))
"""


@pytest.mark.outside
@pytest.mark.skipif(RS_INSTRUMENT is None, reason="JOULEMETER_RSINSTRUMENT names no python with RsInstrument")
def test_rsinstrument_sees_what_we_see() -> None:
    """Rohde & Schwarz' own package reads the same record in four formats."""
    made = simulator(**SHORT)
    with bench(made) as address:
        taken(address, 1, records="1")
        command = [str(RS_INSTRUMENT), "-c", CLIENT, address.split("::")[2]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.partition("JSON")[2].partition("\n")[0])
    assert found["name"] == "RTB2004"
    assert "K15" in "".join(found["options"])
    assert not found["errors"]
    little, big, text = (np.array(found[name]) for name in ("LSBFirst", "MSBFirst", "ASCII"))
    np.testing.assert_array_equal(little, big)
    np.testing.assert_allclose(text, little, rtol=1e-5, atol=1e-9)
    assert len(little) == 10_000 == int(found["head"].split(",")[2])
    step, zero = found["scale"]
    codes = np.frombuffer(bytes(found["raw"]), ">u2")
    np.testing.assert_allclose(zero + step * codes, little[:1000], atol=1e-7)
    # 12 mA and 2 mA on one ohm; the simulated input is off by 0.03 div of 5 mV.
    assert float(little[BEFORE + 200 : BEFORE + 4000].mean()) == pytest.approx(12e-3, abs=0.2e-3)
    assert float(little[: BEFORE - 90].mean()) == pytest.approx(2e-3, abs=0.2e-3)


@pytest.mark.outside
@pytest.mark.parametrize("order", ["LSBF", "MSBF"])
def test_pyvisa_reads_the_history(order: str) -> None:
    """A client that knows nothing of us steps through the segments, oldest first."""
    pyvisa = pytest.importorskip("pyvisa")
    pytest.importorskip("pyvisa_py")
    made = simulator(**SHORT)
    with bench(made) as address:
        taken(address, 4)
        resource: Any = pyvisa.ResourceManager("@py").open_resource(
            address, read_termination="\n", write_termination="\n", timeout=5000
        )
        with contextlib.closing(resource):
            resource.write(f"STOP;:FORM REAL,32;:FORM:BORD {order};:CHAN2:DATA:POIN MAX")
            times = [float(one) for one in resource.query("CHANnel2:HISTory:TSRelative:ALL?").split(",")]
            assert int(resource.query("ACQuire:AVAilable?")) == len(times) == 4
            for k, at_s in enumerate(times):
                resource.write(f"CHAN2:HIST:CURR {k - 3}")
                assert float(resource.query("CHAN2:HIST:TSR?")) == at_s
                volts = resource.query_binary_values(
                    "CHAN2:DATA?", datatype="f", is_big_endian=order == "MSBF", container=np.array
                )
                assert float(volts[BEFORE + 200 : BEFORE + 4000].mean()) == pytest.approx(12e-3, abs=0.3e-3)
    np.testing.assert_allclose(np.diff(times), 3e-3, atol=1e-6)
    assert times[-1] == 0.0
