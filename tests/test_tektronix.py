"""Tektronix: preambles and curves from real oscilloscopes, the driver on its simulator, other people's clients."""

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
from joulemeter.frames import Splitter
from joulemeter.instrument import Options
from joulemeter.instruments.tektronix import driver, wire
from joulemeter.instruments.tektronix.models import MODELS, inputs_of, model_of
from joulemeter.instruments.tektronix.simulator import KINDS, TektronixSimulator, spelling
from joulemeter.physics.integrate import integrate
from joulemeter.scope.driver import unpack_parts
from joulemeter.scope.setup import Input
from joulemeter.scpi import parse_identity
from joulemeter.synthetic import parse_load
from joulemeter.transport.scpidevice import BentDevice, ByteFault, ScpiDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.window import Window

TEKTRONIX = registry.instrument("tektronix")
LOAD = "12mA/1.129ms/d0,2mA/1.871ms"
SHORT = {"record": "2ms", "records": "4", "peak": "20mA", "zero": "2mA"}
# A python that has tm_devices, which needs another numpy than ours.
TM_DEVICES = os.environ.get("JOULEMETER_TM_DEVICES")


# -- the waveform -----------------------------------------------------------------------------------------------------


def part(data: bytes, **changes: str) -> bytes:
    """Fields in the long form, as with headers on."""
    fields = {
        **{"BYT_NR": "1", "BIT_NR": "8", "ENCDG": "BIN", "BN_FMT": "RI", "BYT_OR": "MSB", "NR_PT": "5"},
        **{"WFID": '"Ch2, DC coupling; 5.0mV/div, CURVE #1"', "PT_FMT": "Y", "XINCR": "4.0E-6", "XUNIT": '"s"'},
        **{"YMULT": "0.0004", "YOFF": "0", "YZERO": "0", "YUNIT": '"V"'},
    } | changes
    text = ";".join(f"{name} {value}" for name, value in fields.items() if value)
    return f":WFMOUTPRE:{text};:CURVE #9{len(data):09d}".encode() + data


@pytest.mark.parametrize("order", ["MSB", "LSB"])
@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("form", ["RI", "RP"])
def test_golden(order: str, width: int, form: str) -> None:
    """A position and an offset that are not zero, negative codes, a probe of 10, both orders, widths and signs.

    0.1 V/div behind a probe of 10 are 1 V/div, 25 codes to a division: 40 mV to a code. YOFF -31, YZERO 0.25 V:
    code -100 is (-100 + 31) * 0.04 + 0.25 = -2.51 V, and 0 is 1.49 V.
    """
    step = 256 ** (width - 1)
    middle = 128 * step if form == "RP" else 0
    codes = [code * step + middle for code in (-100, -1, 0, 1, 100)]
    letter = {1: "b", 2: "h"}[width]
    data = struct.pack(f"{'>' if order == 'MSB' else '<'}5{letter if form == 'RI' else letter.upper()}", *codes)
    seen = wire.trace(
        part(
            data,
            BYT_NR=str(width),
            BN_FMT=form,
            BYT_OR=order,
            YMULT=f"{0.04 / step:.6E}",
            YOFF=str(-31 * step + middle),
            YZERO="250.0E-3",
        )
    )
    np.testing.assert_allclose(seen.volts, [-2.51, 1.45, 1.49, 1.53, 5.49], rtol=1e-6)
    assert seen.interval_s == 4e-6
    assert seen.clipped is not None and not seen.clipped.any()


# What a TDS1000 and an MSO/DPO2000 sent, from logs that others have published.
TDS1000 = (
    ':WFMPRE:BYT_NR 1;BIT_NR 8;ENCDG BIN;BN_FMT RI;BYT_OR LSB;NR_PT 2500;WFID "Ch1, DC coupling, 5.0E-1 V/div, '
    '5.0E-2 s/div, 2500 points, Sample mode";PT_FMT Y;XINCR 2.0E-4;PT_OFF 0;XZERO -1.5E-1;XUNIT "s";YMULT 2.0E-2;'
    'YZERO 0.0E0;YOFF -1.66E2;YUNIT "Volts"'
)
DPO2000 = (
    ':WFMOUTPRE:BYT_NR 1;BIT_NR 8;ENCDG BINARY;BN_FMT RI;BYT_OR MSB;WFID "Ch1, DC coupling, 200.0mV/div, ...";'
    'NR_PT 20000;PT_FMT Y;XUNIT "s";XINCR 32.0000E-9;XZERO -320.0000E-6;PT_OFF 0;YUNIT "V";YMULT 8.0000E-3;'
    "YOFF 0.0E+0;YZERO 0.0E+0"
)


def test_preambles_of_real_oscilloscopes() -> None:
    """The log of the first shows the volts beside it: [ 4.88  4.88  4.86 ...,  4.88  4.88  4.9 ]."""
    codes = np.full(2500, 78, np.int8)
    codes[2], codes[-1] = 77, 79
    seen = wire.trace(TDS1000.encode() + b";:CURVE #42500" + codes.tobytes() + b"\n")
    np.testing.assert_allclose(seen.volts[[0, 1, 2, -3, -2, -1]], [4.88, 4.88, 4.86, 4.88, 4.88, 4.9])
    assert seen.interval_s == 2e-4
    # 25 codes to a division of 200 mV.
    wave = wire.parse(DPO2000.encode() + b";:CURVE #520000" + bytes(20000))
    assert (wave.scale_v * 25, wave.interval_s, len(wave.codes)) == (pytest.approx(0.2), 32e-9, 20000)


def test_short_spellings_are_the_same() -> None:
    raw = b":WFMP:BYT_N 2;ENC BIN;BN_F RI;BYT_O LSB;NR_P 2;PT_F Y;XIN 1E-6;YMU 1E-3;YOF 1;YZE 0;:CURV #14\x01\0\x02\0"
    np.testing.assert_allclose(wire.trace(raw).volts, [0.0, 1e-3])


@pytest.mark.parametrize(
    ("width", "codes", "clipped"),
    [
        (1, [-128, -127, 0, 126, 127], [True, False, False, False, True]),
        # Eight bits in two bytes end at 127 * 256, twelve at 2047 * 16.
        (2, [-32768, -32512, 0, 32511, 32512], [True, False, False, False, True]),
        (2, [-32752, -32256, 0, 32496, 32752], [True, False, False, False, True]),
    ],
)
def test_codes_at_the_ends_are_clipped(width: int, codes: list[int], clipped: list[bool]) -> None:
    data = struct.pack(f">5{'bh'[width - 1]}", *codes)
    seen = wire.trace(part(data, BYT_NR=str(width))).clipped
    assert seen is not None
    assert seen.tolist() == clipped


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"not a waveform", "hold no Tektronix waveform"),
        (part(b"12345", YZERO=""), "comes without YZERO"),
        (part(b"1234"), "5 samples came with 4 bytes"),
        (part(b"12345")[:-2], "5 samples came with 3 bytes"),
        (part(b"12345", ENCDG="ASCII"), "not of binary integers"),
        (part(b"12345" * 4, BYT_NR="4"), "not of binary integers"),
        (part(b"12345", PT_FMT="ENV"), "envelope"),
        (part(b"12345", YUNIT='"W"'), "not one of volts"),
        (part(b"12345", XUNIT='"Hz"'), "not one of volts"),
        (part(b"12345", YMULT="9.91E+37"), "YMULT is not known"),
    ],
)
def test_waveforms_that_cannot_be_used(raw: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wire.trace(raw)


# HORizontal:FASTframe:TIMEStamp in the TDS5000B programmer guide, and as the manual of the MSO 4, 5, 6 describes it.
STAMPS = (
    '9,"02 Mar 2000 20:10:54.536 036 928 432",10,"02 Mar 2000 20:10:54.542 037 272 620"',
    "9: 02.03.2000.20:10:54.536036928432, 10: 02.03.2000.20:10:54.542037272620",
)


@pytest.mark.parametrize("text", STAMPS)
def test_times_of_triggers(text: str) -> None:
    """The guide's own difference of the two is about 6 ms."""
    first, second = driver.stamps_ps(text)
    assert second - first == 542_037_272_620 - 536_036_928_432


def test_times_of_triggers_around_midnight() -> None:
    first, second = driver.stamps_ps(
        '1,"31 Dec 2026 23:59:59.999 999 999 000",2,"01 Jan 2027 00:00:00.000 000 001 000"'
    )
    assert second - first == 2000
    with pytest.raises(DataError, match="no trigger times"):
        driver.stamps_ps('1,"31 Foo 2026 23:59:59.999"')


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bits", "inputs", "frames"),
    [
        ("MSO58", 12, 8, True),
        ("MSO64B", 12, 4, True),
        ("MSO44", 12, 4, True),
        ("MSO58LP", 12, 8, True),
        ("LPD64", 12, 4, True),
        ("MSO22", 8, 2, False),
        ("MSO2024B", 8, 4, False),
        ("DPO2012", 8, 2, False),
        ("DPO3034", 8, 4, False),
        ("MDO4104C", 8, 4, False),
        ("DPO5204B", 8, 4, True),
        ("DPO7254C", 8, 4, True),
        ("MSO72004C", 8, 4, True),
    ],
)
def test_models(name: str, bits: int, inputs: int, frames: bool) -> None:
    model = model_of(name)
    assert model is not None
    assert (model.family.bits, inputs_of(name), model.stamps is not None) == (bits, inputs, frames)


@pytest.mark.parametrize("name", ["TDS2024B", "TBS1104", "AFG3102", "RSA306B", "MSO5074"])
def test_who_is_none_of_them(name: str) -> None:
    assert name == "MSO5074" or model_of(name) is None
    told = parse_identity(f"RIGOL TECHNOLOGIES,{name},C1,1.0")
    assert told is not None and not driver.fits(told)


def test_accuracy_is_what_the_maker_allows() -> None:
    """MSO/DPO4000: 1.5 % of what is shown; 0.15 div and 0.6 mV; counted from the middle of the screen."""
    model = model_of("DPO4034")
    assert model is not None
    asked = Input(number=2, volts_per_div=10e-3, centre_v=40e-3, attenuation=1.0)
    gain, offset, _, verified = model.family.accuracy(asked, zeroed=False)
    assert gain.value == pytest.approx(0.015)
    assert offset.value == pytest.approx(1.5e-3 + 0.6e-3 + (0.005 + 0.015) * 40e-3)
    assert not verified
    # A difference in one set-up: 0.05 div, and half a step of ten divisions in 256.
    assert model.family.accuracy(asked, zeroed=True)[1].value == pytest.approx(0.5e-3 + 0.1 / 256 / 2)


def test_every_row_says_that_nobody_has_checked_it() -> None:
    assert all(not model.family.verified and model.family.source for _, model in MODELS)


# -- the driver on its simulator --------------------------------------------------------------------------------------


def simulator(load: str = LOAD, model: str = "MSO58", **settings: str) -> TektronixSimulator:
    options = Options(settings=settings)
    return TektronixSimulator(parse_load(load), TEKTRONIX.INFO.chosen(options), options, model)


@contextlib.contextmanager
def bench(device: ScpiDevice | None = None, face: str = "socket", faults: tuple[ByteFault, ...] = ()) -> Iterator[str]:
    with serving(BentDevice(device or simulator(**SHORT), faults), face) as where:
        yield where[face]


def taken(address: str, count: int, **settings: str) -> tuple[Header, list[Block]]:
    with TEKTRONIX.open(address, Options(settings=SHORT | settings, declared_v=3.0)) as scope:
        header = scope.start()
        decoder = TEKTRONIX.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 30
        while len(blocks) < count and time.monotonic() < deadline:
            blocks += decoder.feed(scope.read(0.1))
    return header, blocks


@pytest.mark.parametrize("face", ["socket", "vxi11", "hislip"])
def test_pulses_over_every_wire(face: str) -> None:
    with bench(face=face) as address:
        header, blocks = taken(address, 4)
    assert header.simulated and (header.model, header.serial) == ("MSO58", "SIM00000001")
    # Of the rates that it has, the next one up.
    assert header.rate_hz == 1.25e6
    assert (header.parameters["points"], header.parameters["before"]) == (2500, 250)
    # The cycle of the load is 3 ms, by the time stamps of the frames.
    np.testing.assert_allclose(np.diff([block.first_index for block in blocks[:4]]), 3750, atol=1)
    pulses(blocks, 1.25e6)


def pulses(blocks: list[Block], rate_hz: float, before: int = 250) -> None:
    pulse, quiet = slice(before + 100, before + round(1e-3 * rate_hz)), slice(0, before - 25)
    for block in blocks:
        high = block.data["c1"] > 1.65
        assert abs(int(np.argmax(high)) - before) <= 2
        assert abs(int(high.sum()) - 1.129e-3 * rate_hz) <= 2
        assert float(block.data["current"][pulse].mean()) == pytest.approx(12e-3, rel=0.01)
        assert float(block.data["current"][quiet].mean()) == pytest.approx(2e-3, rel=0.01)
        assert float(block.data["voltage"][pulse].mean()) == pytest.approx(3.0 - 12e-3, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "rate_hz", "points"),
    [
        ("MSO24", 1.25e6, 2500),
        ("DPO5204B", 1.25e6, 2500),
        # Of the record lengths that it has, the next one up, in 2 ms.
        ("DPO4034", 5e6, 10_000),
        ("DPO2024", 50e6, 100_000),
    ],
)
def test_each_series(model: str, rate_hz: float, points: int) -> None:
    made = simulator(model=model, **SHORT)
    with bench(made) as address:
        header, blocks = taken(address, 4)
    assert (header.rate_hz, header.parameters["points"]) == (rate_hz, points)
    pulses(blocks, rate_hz, before=points // 10)
    few = "fewer-records" in {caveat.code for caveat in header.caveats}
    assert few == (model != "DPO5204B"), "FastFrame or one record after the other"


def test_what_is_beyond_the_record_on_the_screen_is_not_fetched() -> None:
    """Of the times per division that it has, 3 ms need 4 ms on the screen."""
    with bench(simulator(model="DPO4034", **SHORT)) as address:
        header, blocks = taken(address, 1, record="3ms")
    assert (header.rate_hz, header.parameters["points"], len(blocks[0])) == (2.5e6, 7500, 7500)
    pulses(blocks, 2.5e6, before=750)


def test_the_energy_of_windows() -> None:
    """1.129 ms at 12 mA and 3 V less 12 mV on the shunt: 40.47 uJ."""
    with bench() as address:
        header, blocks = taken(address, 8)
    stream = ArrayStream(
        name="tektronix",
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
        start, stop = (int((block.first_index + at) * 800) for at in (high[0], high[-1] + 1))
        windows.append(Window(start_ns=start, stop_ns=stop, index=k))
    truth_j = 12e-3 * (3.0 - 12e-3) * 1.129e-3
    for one in integrate(stream, windows):
        assert one.energy_j == pytest.approx(truth_j, rel=0.01)


def test_a_falling_edge_starts_a_record() -> None:
    with bench(simulator(**SHORT, trigger="c1@1.65V:falling")) as address:
        _, blocks = taken(address, 1, trigger="c1@1.65V:falling")
    line = blocks[0].data["c1"] > 1.65
    assert line[0] and not line[-1]
    assert abs(int(np.argmin(line)) - 250) <= 2


def test_a_current_above_the_screen_is_marked() -> None:
    with bench(simulator("90mA/1ms/d0,2mA/2ms", **SHORT)) as address:
        _, blocks = taken(address, 1)
    status = blocks[0].status
    assert status is not None
    assert (status[300:1400] & Status.CLIPPED).all()
    assert not status[:200].any()


def test_frames_that_are_ended_early_are_fetched() -> None:
    with bench() as address, TEKTRONIX.open(address, Options(settings=SHORT | {"records": "700"})) as scope:
        header = scope.start()
        assert scope.read(0.3) == b""
        rest = b"".join(scope.remaining())  # type: ignore[attr-defined]
        blocks = TEKTRONIX.decoder(header).feed(rest)
    assert 20 < len(blocks) < 700


def test_more_frames_than_fit_are_told() -> None:
    with bench() as address, TEKTRONIX.open(address, Options(settings=SHORT | {"records": "5000"})) as scope:
        header = scope.start()
    assert "fewer-records" in {caveat.code for caveat in header.caveats}


@pytest.mark.parametrize("model", ["MSO58", "DPO4034"])
def test_a_stopped_acquisition_without_a_trigger_gives_nothing_again(model: str) -> None:
    """What the instrument holds then is the waveform of the acquisition before."""
    with (
        bench(simulator("2mA/0.4s,12mA/1ms/d0,2mA/1.5s", model=model, **SHORT)) as address,
        TEKTRONIX.open(address, Options(settings=SHORT | {"records": "1"})) as scope,
    ):
        header = scope.start()
        raw = b""
        deadline = time.monotonic() + 15
        while not raw and time.monotonic() < deadline:
            raw = scope.read(0.1)
        assert len(TEKTRONIX.decoder(header).feed(raw)) == 1
        scope.read(0.1)
        assert list(scope.remaining()) == []  # type: ignore[attr-defined]


def test_it_is_armed_late_and_waited_for() -> None:
    """Until it is READY it takes what precedes the trigger, and hears none."""
    made = simulator(**SHORT)
    made.late_s = 0.2
    with bench(made) as address, TEKTRONIX.open(address, Options(settings=SHORT)) as scope:
        scope.start()
        assert made.sweep.armed_s is None or made.now_s >= made.sweep.armed_s
        assert made.now_s > 0.2


def test_no_trigger_is_told() -> None:
    with (
        bench(simulator("5mA/1s", **SHORT)) as address,
        TEKTRONIX.open(address, Options(settings=SHORT | {"wait": "200ms"})) as scope,
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
        bench(faults=(ByteFault(kind=kind, at=60_000),)) as address,
        TEKTRONIX.open(address, Options(settings=SHORT)) as scope,
    ):
        header = scope.start()
        decoder, blocks = TEKTRONIX.decoder(header), []
        with pytest.raises(IncompleteError):
            for _ in range(200):
                blocks += decoder.feed(scope.read(0.1))
    assert len(blocks) >= 4


@pytest.mark.parametrize("face", ["socket", "vxi11"])
def test_stray_bytes_after_a_curve_and_a_curve_that_is_short_are_mended(face: str) -> None:
    made = simulator(**SHORT)
    made.stray, made.short = b"\x80\x1b#1", 0
    with bench(made, face) as address:
        _, blocks = taken(address, 4)
        pulses(blocks, 1.25e6)
        made.short = 3
        _, blocks = taken(address, 4)
        pulses(blocks, 1.25e6)


def test_a_curve_that_stays_short_is_told() -> None:
    made = simulator(**SHORT)
    plain = made.answer

    def short(command: str) -> Any:
        made.short = 3
        return plain(command)

    made.answer = short
    with bench(made) as address, pytest.raises(DataError, match="2500 samples came with 4994 bytes"):
        taken(address, 1)


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
    assert header.model == "MSO58"
    assert not unread


def test_headers_that_stay_on_are_told() -> None:
    made = simulator(**SHORT)
    made.headed = True
    with (
        bench(made) as address,
        TEKTRONIX.open(address, Options(settings=SHORT)) as scope,
        pytest.raises(DataError, match="whether headers are on"),
    ):
        scope.start()


class Other(ScpiDevice):
    identity = "RIGOL TECHNOLOGIES,MSO5074,MS5A1,00.01.03"


@pytest.mark.parametrize("identity", ["RIGOL TECHNOLOGIES,MSO5074,MS5A1,1", "TEKTRONIX,TDS 2024B,0,CF:91.1CT FV:v22"])
def test_other_instruments_are_told(identity: str) -> None:
    other = Other()
    other.identity = identity
    with bench(other) as address, pytest.raises(NotFoundError, match="not one of the Tektronix"):
        TEKTRONIX.open(address, Options())


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("DPO2024", {"coupling": "dc50"}, "refuses part of its set-up: 224,.Illegal parameter value"),
        ("MSO24", {"current": "c5"}, "has 4 inputs"),
        # c1 has a probe that says that it divides by 10.
        ("MSO58", {"trigger_attenuation": "1"}, "divides by 10, the oscilloscope says, not by 1"),
        ("MSO58", {"coupling": "ac"}, "takes away the mean"),
    ],
)
def test_settings_that_are_refused(model: str, settings: dict[str, str], said: str) -> None:
    with bench(simulator(model=model)) as address, pytest.raises(UsageError, match=said):
        taken(address, 1, **settings)


def test_a_current_probe_counts_in_amperes() -> None:
    made = simulator(probe="1V/A±1%", **SHORT)
    made._set["CH<x>:PRObe:UNIts", 2] = '"A"'
    with bench(made) as address:
        with pytest.raises(UsageError, match="Say so with --set probe=1V/A"):
            taken(address, 1)
        header, blocks = taken(address, 1, probe="1V/A±1%")
    assert [channel.name for channel in header.channels] == ["current", "c1", "voltage"]
    assert float(blocks[0].data["current"][350:1400].mean()) == pytest.approx(12e-3, rel=0.01)


@pytest.mark.parametrize("model", list(KINDS))
def test_what_was_found_does_not_stay(model: str) -> None:
    """3.3 V in eight divisions are 0.5 V/div at the tip of a probe of 10, zero four divisions below the middle."""
    made = simulator(model=model, **SHORT)
    with bench(made) as address, TEKTRONIX.open(address, Options(settings=SHORT)) as scope:
        header = scope.start()
        held = {name: value for (name, x), value in made._set.items() if x in (0, 2)}
    assert header.parameters["volts_per_div"] == {"c1": 0.5, "c2": 5e-3}
    for n, volts_per_div, centre_v in ((1, 0.5, 2.0), (2, 5e-3, 0.02)):
        channel = made.channels[n]
        assert (channel.on, channel.volts_per_div, channel.centre_v) == (True, pytest.approx(volts_per_div), centre_v)
    wanted = {
        **{"CH<x>:COUPling": "DC", "CH<x>:POSition": "0", "CH<x>:DESKew": "0", "CH<x>:BANdwidth": "20E6"},
        **{"TRIGger:A:EDGE:SOUrce": "CH1", "TRIGger:A:MODe": "NORM", "HORizontal:DELay:MODe": "0"},
    }
    if model in ("MSO58", "DPO5204B"):
        # With a summary, the last frame would be no pulse.
        wanted |= {"HORizontal:FASTframe:STATE": "1", "HORizontal:FASTframe:SUMFrame": "NON"}
    if model == "DPO2024":
        wanted |= {"DATa:RESOlution": "FULL", "DATa:COMPosition": "SINGULAR_YT"}
    if model in ("MSO58", "MSO24"):
        wanted |= {"ACQuire:FASTAcq:STATE": "0", "DATa:RESample": "1"}
    assert {name: held[name] for name in wanted} == wanted


@pytest.mark.parametrize("model", ["MSO58", "DPO4034"])
def test_it_is_left_running(model: str) -> None:
    made = simulator(model=model, **SHORT)
    with bench(made) as address:
        taken(address, 1)
        deadline = time.monotonic() + 5
        while not made.running and time.monotonic() < deadline:
            time.sleep(0.01)
    assert made.running
    assert made._set["HORizontal:FASTframe:STATE", 0] == "0"
    assert made._set["TRIGger:A:MODe", 0] == "AUTO"
    assert made._set["ACQuire:STOPAfter", 0].startswith("RUNST")


def test_a_lost_network_keeps_what_was_fetched(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joulemeter", "measure", "--meter", "tektronix", "--simulate", "--faults", "unplug@1.5s",
         "--trigger", "c1@1.65V", "--assume-voltage", "3V", "--windows", "100000", "-o", str(tmp_path), "--quiet",
         "--inferences-per-window", "1", "--set", "records=20"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "energy per inference" in done.stdout


# -- the simulator, to other people's clients -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("HOR:FAST:MAXFR", "HORizontal:FASTframe:MAXFRames"),
        ("HORIZONTAL:FASTFRAME:MAXFRAMES", "HORizontal:FASTframe:MAXFRames"),
        ("horizontal:mode:sampler", "HORizontal:MODe:SAMPLERate"),
        ("WFMO:BYT_N", "WFMOutpre:BYT_Nr"),
        ("CH3:PRO:GAIN", "CH<x>:PRObe:GAIN"),
    ],
)
def test_any_spelling_of_the_manuals(said: str, name: str) -> None:
    assert spelling(name).fullmatch(said)
    assert not spelling(name).fullmatch(said[1:])
    assert not spelling(name).fullmatch(said + "S")


CLIENT = """
import json, sys
from tm_devices import DeviceManager
with DeviceManager(verbose=False) as manager:
    manager.setup_cleanup_enabled = manager.teardown_cleanup_enabled = False
    manager.visa_library = "@py"
    scope = manager.add_scope("127.0.0.1", connection_type="SOCKET", port=int(sys.argv[1]))
    told = scope.commands
    codes = scope.curve_query(2)
    scale = [float(one.query()) for one in (told.wfmoutpre.ymult, told.wfmoutpre.yoff, told.wfmoutpre.yzero)]
    print("JSON" + json.dumps([type(scope).__name__, scope.model, codes, scale]))
"""


@pytest.mark.outside
@pytest.mark.skipif(TM_DEVICES is None, reason="JOULEMETER_TM_DEVICES names no python with tm_devices")
def test_tm_devices_sees_what_we_see() -> None:
    """Tektronix' own package reads the same record as text, and its commands for the scaling."""
    made = simulator(**SHORT)
    with bench(made) as address:
        taken(address, 1, records="1")
        command = [str(TM_DEVICES), "-W", "ignore", "-c", CLIENT, address.split("::")[2]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    kind, model, codes, (scale, offset, zero) = json.loads(done.stdout.partition("JSON")[2].partition("\n")[0])
    assert (kind, model) == ("MSO5", "MSO58")
    volts = (np.array(codes) - offset) * scale + zero
    assert len(volts) == 2500
    # 12 mA and 2 mA on one ohm; the simulated input is off by 0.03 div of 5 mV.
    assert float(volts[350:1400].mean()) == pytest.approx(12e-3, abs=0.2e-3)
    assert float(volts[:225].mean()) == pytest.approx(2e-3, abs=0.2e-3)


@pytest.mark.outside
@pytest.mark.parametrize("model", ["MSO58", "DPO4034"])
def test_what_is_kept_of_a_waveform_is_an_isf_file(model: str, tmp_path: Path) -> None:
    """RigolWFM reads it as one."""
    rigolwfm = pytest.importorskip("RigolWFM.wfm")
    with (
        bench(simulator(model=model, **SHORT)) as address,
        TEKTRONIX.open(address, Options(settings=SHORT | {"records": "1"})) as scope,
    ):
        scope.start()
        raw = b""
        while not raw:
            raw = scope.read(0.1)
    (frame,) = Splitter().feed(raw)
    for kept in unpack_parts(frame.payload):
        path = tmp_path / "kept.isf"
        path.write_bytes(kept)
        theirs = rigolwfm.Wfm.from_file(str(path)).channels[0]
        ours = wire.trace(kept)
        np.testing.assert_allclose(theirs.volts, ours.volts, rtol=1e-5, atol=1e-7)
        assert ours.interval_s == pytest.approx(float(theirs.times[1] - theirs.times[0]), rel=1e-4)


@pytest.mark.outside
@pytest.mark.parametrize(
    ("encoding", "datatype", "big"), [("RIB", "h", True), ("SRI", "h", False), ("SRP", "H", False)]
)
def test_pyvisa_reads_the_curve(encoding: str, datatype: str, big: bool) -> None:
    """A client that knows nothing of us: both byte orders, with and without a sign, headers on."""
    pyvisa = pytest.importorskip("pyvisa")
    pytest.importorskip("pyvisa_py")
    made = simulator(**SHORT)
    with bench(made) as address:
        taken(address, 1, records="1")
        resource: Any = pyvisa.ResourceManager("@py").open_resource(
            address, read_termination="\n", write_termination="\n", timeout=5000
        )
        with contextlib.closing(resource):
            resource.write(f"HEADER OFF;:DATA:SOURCE CH2;:DATA:ENCDG {encoding};:WFMOUTPRE:BYT_NR 2;:DATA:STOP 2500")
            codes = resource.query_binary_values("CURVE?", datatype=datatype, is_big_endian=big, container=np.array)
            scale, offset, zero = (float(resource.query(f"WFMOUTPRE:{name}?")) for name in ("YMULT", "YOFF", "YZERO"))
            assert resource.query("WFMOUTPRE:NR_PT?") == "2500"
            resource.write("HEADER ON")
            assert resource.query("WFMOUTPRE:NR_PT?") == ":WFMOUTPRE:NR_PT 2500"
    if datatype == "H":
        # What is meant by the fields is the signed code.
        codes = codes - 32768.0
    volts = (codes - offset) * scale + zero
    assert float(volts[350:1400].mean()) == pytest.approx(12e-3, abs=0.3e-3)
    assert float(volts[:200].mean()) == pytest.approx(2e-3, abs=0.3e-3)


def test_all_kinds_say_that_they_are_simulated() -> None:
    for kind in KINDS.values():
        told = parse_identity(kind.identity)
        assert told is not None and driver.fits(told)
        assert told.serial is not None and told.serial.startswith("SIM")
