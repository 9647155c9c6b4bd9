"""Siglent: both dialects by the maker's worked examples and other people's figures; the drivers on their simulators."""

from __future__ import annotations

import contextlib
import importlib.util
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
from joulemeter.capture import UNSEEN, ArrayStream, Block, Gap, Header, Status, Timebase
from joulemeter.caveat import Code
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments.siglent import FAMILIES, models, new, wire
from joulemeter.instruments.siglent.simulator import NewSimulator, OldSimulator
from joulemeter.instruments.siglent.simulator import simulator as make
from joulemeter.physics.integrate import integrate
from joulemeter.scpi import parse_identity
from joulemeter.synthetic import parse_load
from joulemeter.transport.scpidevice import BentDevice, ByteFault, Refused, ScpiDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.window import Window

SIGLENT = registry.instrument("siglent")
LOAD = "12mA/1.129ms/d0,2mA/1.871ms"
SHORT = {"record": "2ms", "records": "4", "peak": "20mA", "zero": "2mA"}
HD, PLUS, OLD = "SDS824X HD", "SDS2104X Plus", "SDS1104X-E"
MODELS = (HD, PLUS, OLD)


# -- the waveforms ----------------------------------------------------------------------------------------------------


def block(codes: list[int], **fields: Any) -> bytes:
    """A waveform of the new dialect, written field by field from the offsets of the EN11 guide."""
    word = fields.get("word", False)
    big = fields.get("big", False)
    head = bytearray(346)
    struct.pack_into("<8s8x7s9xhh", head, 0, b"WAVEDESC", b"WAVEACE", int(word), int(big))
    struct.pack_into("<i", head, 0x24, 346)
    struct.pack_into("<i", head, 0x74, fields.get("points", len(codes)))
    struct.pack_into("<i", head, 0x88, fields.get("stride", 1))
    struct.pack_into("<ii", head, 0x90, 1, 1)
    struct.pack_into("<fff", head, 0x9C, fields["vdiv"], fields["offset"], fields["per_div"])
    struct.pack_into("<h", head, 0xAC, fields.get("bits", 8))
    struct.pack_into("<fd", head, 0xB0, fields.get("interval", 2e-10), 1.72e-8)
    struct.pack_into("<h", head, 0x144, 6)
    struct.pack_into("<f", head, 0x148, fields.get("probe", 1.0))
    return bytes(head) + struct.pack(f"{'>' if big else '<'}{len(codes)}{'h' if word else 'b'}", *codes)


def test_the_example_of_the_guide() -> None:
    """SDS Series Programming Guide EN11F, pp. 694-695: code -11 at 10 V/div, 14.5 V, 30 codes/div is -18.167 V."""
    seen = wire.trace(block([-11, 0, 30], vdiv=10.0, offset=14.5, per_div=30.0))
    np.testing.assert_allclose(seen.volts, [-18.1666667, -14.5, -4.5], rtol=1e-7)
    assert seen.interval_s == 2e-10


@pytest.mark.parametrize(
    ("fields", "codes", "volts"),
    [
        # Of the tests of a public SDS6204L driver: bytes; bytes that are the upper halves of 12-bit words.
        ({"vdiv": 0.5, "offset": 0.1, "per_div": 25.0}, [0, 25, -25], [-0.1, 0.4, -0.6]),
        ({"vdiv": 1.0, "offset": 0.0, "per_div": 2560.0, "bits": 12}, [1, -1], [0.1, -0.1]),
    ],
)
def test_figures_of_others(fields: dict[str, Any], codes: list[int], volts: list[float]) -> None:
    np.testing.assert_allclose(wire.trace(block(codes, **fields)).volts, volts, rtol=1e-6)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("word", [False, True])
def test_golden(word: bool, big: bool) -> None:
    """A probe of 10, 0.2 V/div before it, an offset of -0.3 V before it: 2 V/div and +3 V at the tip.

    Codes per division are stated as bytes by a converter of 8 bits and as words by one of 12.
    """
    scale = 256 if word else 1
    bits, per_div = (12, 30.0 * 256) if word else (8, 30.0)
    codes = [-120 * scale, -1 * scale, 0, 30 * scale, 90 * scale]
    raw = block(codes, word=word, big=big, vdiv=0.2, offset=-0.3, per_div=per_div, bits=bits, probe=10.0)
    # (code / 30 x 0.2 V + 0.3 V) x 10
    seen = wire.trace(raw)
    np.testing.assert_allclose(seen.volts, [-5.0, 2.9333333, 3.0, 5.0, 9.0], rtol=1e-6)
    assert seen.clipped is not None and not seen.clipped.any()


def test_words_of_an_8_bit_converter_are_256_times_its_bytes() -> None:
    raw = block([-11 * 256, 0], word=True, vdiv=10.0, offset=14.5, per_div=30.0, bits=8)
    np.testing.assert_allclose(wire.trace(raw).volts, [-18.1666667, -14.5], rtol=1e-7)


@pytest.mark.parametrize(
    ("fields", "codes", "clipped"),
    [
        ({"per_div": 30.0}, [-128, -127, 126, 127], [True, False, False, True]),
        # 12 bits on the left of 16; a converter of 10 or 12 is called 16 by some.
        ({"per_div": 7680.0, "word": True, "bits": 12}, [-32768, -32752, 32640, 32752], [True, False, False, True]),
        ({"per_div": 7680.0, "word": True, "bits": 16}, [-32768, -32752, 32640, 32767], [True, False, False, True]),
    ],
)
def test_codes_at_the_ends_are_clipped(fields: dict[str, Any], codes: list[int], clipped: list[bool]) -> None:
    seen = wire.trace(block(codes, vdiv=1.0, offset=0.0, **fields)).clipped
    assert seen is not None
    assert seen.tolist() == clipped


def test_the_old_dialect_golden() -> None:
    """SDS1104X-E guide, p. 142: code x VDIV / 25 - OFST, with the probe in both; codes above 127 are negative."""
    part = wire.old_part("2.00E+00V", "-3.00E+00V", "1.00GSa/s", bytes([0, 25, 0xE7, 0xFF, 0x7F, 0x80]))
    seen = wire.trace(part)
    # 80 mV to a code, 3 V in the middle; two's complement, not 255 less.
    np.testing.assert_allclose(seen.volts, [3.0, 5.0, 1.0, 2.92, 13.16, -7.24], rtol=1e-12)
    assert seen.interval_s == pytest.approx(1e-9)
    assert seen.clipped is not None
    assert seen.clipped.tolist() == [False, False, False, False, True, True]


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        # SDS1104X-E guide, p. 143, and replies that other programs expect.
        ("TRDL -5.000000ns", -5e-9),
        ("TDIV 5.00E-09S", 5e-9),
        ("SARA 1.00GSa/s", 1e9),
        ("SARA 1.00E+09Sa/s", 1e9),
        ("SANU 14Mpts", 14e6),
        ("3.50Mpts", 3.5e6),
        ("7.00E+03pts", 7000.0),
        ("C1:VDIV 2.00E-02V", 0.02),
        ("500mV", 0.5),
        ("MSIZ 70K", 70e3),
        ("1.4M", 1.4e6),
        ("8193", 8193.0),
    ],
)
def test_numbers_with_units(reply: str, value: float) -> None:
    assert wire.quantity(reply) == pytest.approx(value)


@pytest.mark.parametrize("reply", ["", "SARA ****", "OFF", "1.0QV"])
def test_what_is_no_number(reply: str) -> None:
    with pytest.raises(DataError, match="where a number is due"):
        wire.quantity(reply)


GOOD: dict[str, Any] = {"vdiv": 1.0, "offset": 0.0, "per_div": 30.0}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (b"no waveform" * 40, "hold no Siglent waveform"),
        (bytes(346), "describes no waveform"),
        (b"DAT2;1.0V;2.0V", "hold no Siglent waveform"),
        (block([1, 2, 3], points=1000, **GOOD), "1000 samples came with 3 bytes"),
        (block([1, 2], word=True, bits=12, **GOOD)[:-1], "2 samples came with 3 bytes"),
        (block([1, 2], stride=7, **GOOD), "2 samples came"),
        (block([1], vdiv=1.0, offset=0.0, per_div=0.0), "no scale"),
        # A count that is meant for other codes than were sent.
        (block([-2816, 0], word=True, bits=12, **GOOD), "93.9 divisions, which no screen has"),
    ],
    ids=["text", "zeros", "head", "page", "half", "stride", "scale", "count"],
)
def test_waveforms_that_cannot_be_used(part: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wire.trace(part)


# -- who fits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "family", "is_new", "inputs"),
    [
        # The first six as others quote them.
        ("Siglent Technologies,SDS1104X-E,SDS1EBAC0L0098,7.6.1.15", "old", False, 4),
        ("Siglent Technologies,SDS1202X-E,SDS1EBAC0L0001,7.6.1.20", "old", False, 2),
        ("SIGLENT,SDS1104X-E,SDSMMEBQ3R1234,8.1.6.1.37R2", "old", False, 4),
        ("Siglent Technologies,SDS2104X,SDS2X0001,1.2.3", "old", False, 4),
        ("Siglent Technologies,SDS824X HD,SDS08A0C802019,3.8.12.1.1.3.8", "hd", True, 4),
        ("Siglent Technologies,SDS6204L,TEST,1.0", "hd", True, 4),
        ("Siglent Technologies,SDS2352X-E,1,1", "old", False, 2),
        ("Siglent Technologies,SDS1202X HD,1,1", "hd", True, 2),
        ("Siglent Technologies,SDS2104X Plus,1,5.4.1.3.9R6", "plus", True, 4),
        ("Siglent Technologies,SDS2104X HD,1,1", "hd", True, 4),
        ("Siglent Technologies,SDS5034X,1,1", "plus", True, 4),
        ("Siglent Technologies,SDS6204A,1,1", "hd", True, 4),
        ("LECROY,T3DSO1204,T1,1.0", "old", False, 4),
        ("Teledyne Test Tools,T3DSO2304,T1,1.0", "old", False, 4),
        ("Teledyne LeCroy,T3DSO2104A,T1,1.0", "plus", True, 4),
    ],
)
def test_models(answer: str, family: str, is_new: bool, inputs: int) -> None:
    identity = parse_identity(answer)
    assert identity is not None
    found = models.model(identity)
    assert found is not None
    assert (found.family, found.new, found.inputs) == (family, is_new, inputs)
    assert found.family in FAMILIES


@pytest.mark.parametrize(
    "answer",
    [
        "LECROY,WAVESURFER3034Z,LCRY3701N12345,8.5.1",
        "Siglent Technologies,SDM3065X,1,1",
        "Siglent Technologies,SDG2042X,1,1",
        "RIGOL TECHNOLOGIES,DS1104Z,DS1,0",
        "KEYSIGHT TECHNOLOGIES,DSOX3024T,1,1",
        "TEKTRONIX,SDS1104X-E,1,1",
    ],
)
def test_who_does_not_fit(answer: str) -> None:
    other = ScpiDevice()
    other.identity = answer
    with serving(other, "socket") as where, pytest.raises(NotFoundError, match="not a Siglent oscilloscope"):
        SIGLENT.open(where["socket"], Options())


# -- the drivers on their simulators ----------------------------------------------------------------------------------


def simulator(model: str = HD, load: str = LOAD, **settings: str) -> Any:
    options = Options(settings=SHORT | settings | {"model": model})
    return make(parse_load(load), SIGLENT.INFO.chosen(options), options)


@contextlib.contextmanager
def bench(device: ScpiDevice | None = None, face: str = "socket", faults: tuple[ByteFault, ...] = ()) -> Iterator[str]:
    with serving(BentDevice(device or simulator(), faults), face) as where:
        yield where[face]


def taken(address: str, count: int, **settings: str) -> tuple[Header, list[Block]]:
    with SIGLENT.open(address, Options(settings=SHORT | settings, declared_v=3.0)) as scope:
        header = scope.start()
        decoder = SIGLENT.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 30
        while len(blocks) < count and time.monotonic() < deadline:
            blocks += decoder.feed(scope.read(0.1))
    return header, blocks


def check(header: Header, blocks: list[Block]) -> None:
    """1.129 ms at 12 mA, the rest at 2 mA, the rising line at 10 % of a record."""
    rate_hz, before = header.rate_hz, int(header.parameters["before"])
    for one in blocks:
        high = one.data["c1"] > 1.65
        assert abs(int(np.argmax(high)) - before) <= 1
        assert abs(int(high.sum()) - 1.129e-3 * rate_hz) <= 2
        inside, ahead = slice(int(1.2 * before), before + int(1e-3 * rate_hz)), slice(0, int(0.9 * before))
        assert float(one.data["current"][inside].mean()) == pytest.approx(12e-3, rel=0.01)
        assert float(one.data["current"][ahead].mean()) == pytest.approx(2e-3, rel=0.01)
        assert float(one.data["voltage"][inside].mean()) == pytest.approx(3.0 - 12e-3, rel=1e-4)


@pytest.mark.parametrize("face", ["socket", "vxi11", "hislip"])
@pytest.mark.parametrize("model", [HD, OLD])
def test_pulses_over_every_wire(model: str, face: str) -> None:
    with bench(simulator(model), face=face) as address:
        header, blocks = taken(address, 4)
    assert header.simulated and header.model == model
    assert len(blocks) >= 4
    check(header, blocks)


@pytest.mark.parametrize(("model", "rate_hz", "points"), [(HD, 5e6, 10_000), (PLUS, 1e7, 20_000), (OLD, 2.5e6, 7000)])
def test_the_least_memory_that_is_fast_enough(model: str, rate_hz: float, points: int) -> None:
    """2 ms: 10k or 20k on 2 ms of screen; 7k on 2.8 ms (14 divisions of 200 us), as two share a converter."""
    with bench(simulator(model)) as address:
        header, blocks = taken(address, 1)
    assert (header.rate_hz, len(blocks[0])) == (rate_hz, points)
    check(header, blocks[:1])


@pytest.mark.parametrize("model", MODELS)
def test_the_energy_of_windows(model: str) -> None:
    """1.129 ms at 12 mA and 3 V less 12 mV on the shunt: 40.47 uJ."""
    with bench(simulator(model)) as address:
        header, blocks = taken(address, 6)
    stream = ArrayStream(
        name="siglent",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={name: np.concatenate([one.data[name] for one in blocks]) for name in blocks[0].data},
        gaps=tuple(Gap(index=one.first_index, lost=one.lost_before, cause=UNSEEN) for one in blocks if one.lost_before),
    )
    windows = []
    for k, one in enumerate(blocks):
        high = np.flatnonzero(one.data["c1"] > 1.65)
        start, stop = (round((one.first_index + at) / header.rate_hz * 1e9) for at in (high[0], high[-1] + 1))
        windows.append(Window(start_ns=start, stop_ns=stop, index=k))
    for window in integrate(stream, windows):
        assert window.energy_j == pytest.approx(12e-3 * (3.0 - 12e-3) * 1.129e-3, rel=0.01)


@pytest.mark.parametrize("parks", [False, True])
@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("per_frame", [False, True])
def test_sequences_however_they_are_counted(
    parks: bool, cumulative: bool, per_frame: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the counter counts, and how a finished sequence looks, is told in different ways; all of them work."""
    monkeypatch.setattr(new, "QUIET_S", 0.1)
    made = simulator()
    made.parks, made.cumulative, made.per_frame = parks, cumulative, per_frame
    with bench(made) as address:
        header, blocks = taken(address, 8)
    assert len(blocks) >= 8
    check(header, blocks)
    # The cycle of the load is 3 ms, by the history's clock, within a sequence of four.
    for k in range(0, 8, 4):
        starts = np.diff([one.first_index for one in blocks[k : k + 4]]) / header.rate_hz
        np.testing.assert_allclose(starts, 3e-3, atol=2e-6)


@pytest.mark.parametrize("model", MODELS)
def test_single_records(model: str) -> None:
    with bench(simulator(model)) as address:
        header, blocks = taken(address, 4, records="1")
    assert len(blocks) >= 4
    assert all(later.first_index > one.first_index for one, later in pairwise(blocks))
    assert Code.FEWER_RECORDS not in [caveat.code for caveat in header.caveats]


def test_as_many_records_as_memory_has_for_the_rate() -> None:
    """It has 1,600,000 points: 400 records of 10,000 are too many, and 200, and 100 are not."""
    made = simulator()
    with bench(made) as address, SIGLENT.open(address, Options(settings=SHORT | {"records": "400"})) as scope:
        header = scope.start()
        assert made.segments == 100
    assert (header.rate_hz, header.parameters["points"]) == (5e6, 10_000)
    assert Code.FEWER_RECORDS in [caveat.code for caveat in header.caveats]


def test_the_old_dialect_has_no_sequences() -> None:
    with bench(simulator(OLD)) as address:
        header, _ = taken(address, 1)
    assert Code.FEWER_RECORDS in [caveat.code for caveat in header.caveats]


def test_a_record_whose_time_is_not_told_is_no_record_of_a_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scpi, "TIMEOUT_S", 0.3)
    made = simulator()
    made.timed = False
    with bench(made) as address, pytest.raises((DataError, IncompleteError)):
        taken(address, 1)
    with bench(made) as address:
        assert len(taken(address, 1, records="1")[1]) >= 1


@pytest.mark.parametrize("model", MODELS)
def test_a_falling_edge_starts_a_record(model: str) -> None:
    with bench(simulator(model, trigger="c1@1.65V:falling")) as address:
        header, blocks = taken(address, 1, trigger="c1@1.65V:falling")
    line = blocks[0].data["c1"] > 1.65
    assert line[0]
    assert abs(int(np.argmin(line)) - int(header.parameters["before"])) <= 1


@pytest.mark.parametrize("model", MODELS)
def test_a_probe_of_10(model: str) -> None:
    made = simulator(model, attenuation="10")
    with bench(made) as address:
        header, blocks = taken(address, 1, attenuation="10")
    assert header.parameters["volts_per_div"] == pytest.approx({"c1": 1.0, "c2": 10e-3})
    assert (made.channels[2].attenuation, made.channels[2].centre_v) == (10.0, pytest.approx(30e-3))
    check(header, blocks[:1])


@pytest.mark.parametrize("model", MODELS)
def test_a_current_above_the_screen_is_marked(model: str) -> None:
    with bench(simulator(model, "90mA/1ms/d0,2mA/2ms")) as address:
        header, blocks = taken(address, 1)
    status, before = blocks[0].status, int(header.parameters["before"])
    assert status is not None
    assert (status[int(1.2 * before) : before + int(0.9e-3 * header.rate_hz)] & Status.CLIPPED).all()
    assert not status[: int(0.9 * before)].any()


def test_pages_and_shorter_ones_than_promised() -> None:
    made = simulator()
    made.page, made.page_given = 3000, 1001
    with bench(made) as address:
        header, blocks = taken(address, 2)
    assert len(blocks[0]) == 10_000
    check(header, blocks)
    assert made.start == 0


@pytest.mark.parametrize("page_given", [1_000_000, 2500])
def test_a_header_that_counts_samples(page_given: int) -> None:
    """SDS2000X Plus before firmware 1.3.9R10, in WORD."""
    made = simulator()
    made.counts_samples = True
    made.page = made.page_given = page_given
    with bench(made) as address:
        header, blocks = taken(address, 4)
    check(header, blocks)


def test_words_of_the_other_order() -> None:
    made = simulator()
    made.big_endian = True
    with bench(made) as address:
        header, blocks = taken(address, 1)
    assert made.word
    check(header, blocks[:1])


def test_replies_with_headers_and_units() -> None:
    """An oscilloscope of the old dialect that keeps its headers on."""

    class Chatty(OldSimulator):  # type: ignore[misc]
        def answer(self, command: str) -> bytes | None:
            given: bytes | None = None if command.startswith("CHDR") else super().answer(command)
            return given

    options = Options(settings=SHORT | {"model": OLD})
    made = Chatty(parse_load(LOAD), SIGLENT.INFO.chosen(options), options)
    with bench(made) as address:
        header, blocks = taken(address, 2)
    check(header, blocks)


def test_a_sequence_that_is_ended_early_is_fetched() -> None:
    with bench() as address, SIGLENT.open(address, Options(settings=SHORT | {"records": "70"})) as scope:
        header = scope.start()
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline:
            assert scope.read(0.02) == b""
        blocks = SIGLENT.decoder(header).feed(b"".join(scope.remaining()))  # type: ignore[attr-defined]
    assert 8 < len(blocks) < 70


def test_a_sequence_that_takes_no_more_is_fetched_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two inferences, and then a long pause: they are not waited with for the other two."""
    monkeypatch.setattr(new, "QUIET_S", 0.3)
    pulse = "12mA/1.129ms/d0,2mA/1.871ms"
    with bench(simulator(load=f"2mA/700ms,{pulse},{pulse},2mA/30s")) as address:
        header, blocks = taken(address, 2)
    assert len(blocks) == 2
    check(header, blocks)


@pytest.mark.parametrize("model", MODELS)
def test_a_stopped_acquisition_without_a_trigger_gives_nothing_again(model: str) -> None:
    """What the instrument holds then is the record before."""
    with (
        bench(simulator(model, "2mA/300ms,12mA/1ms/d0,2mA/30s")) as address,
        SIGLENT.open(address, Options(settings=SHORT | {"records": "1"})) as scope,
    ):
        header, raw = scope.start(), b""
        deadline = time.monotonic() + 15
        while not raw and time.monotonic() < deadline:
            raw = scope.read(0.1)
        assert len(SIGLENT.decoder(header).feed(raw)) == 1
        scope.read(0.1)
        assert list(scope.remaining()) == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("model", [HD, OLD])
def test_it_is_armed_late_and_waited_for(model: str) -> None:
    made = simulator(model)
    made.late_s = 0.3
    with bench(made) as address, SIGLENT.open(address, Options(settings=SHORT)) as scope:
        scope.start()
        armed_s = made.sweep.armed_s
        assert armed_s is None or made.now_s >= armed_s


@pytest.mark.parametrize("model", MODELS)
def test_no_trigger_is_told(model: str) -> None:
    with (
        bench(simulator(model, "5mA/1s")) as address,
        SIGLENT.open(address, Options(settings=SHORT | {"wait": "200ms"})) as scope,
    ):
        scope.start()
        with pytest.raises(IncompleteError, match="No trigger came within"):
            for _ in range(50):
                scope.read(0.1)


@pytest.mark.parametrize("kind", ["stall", "unplug"])
@pytest.mark.parametrize(("model", "at"), [(HD, 190_000), (OLD, 65_000)])
def test_a_wire_that_breaks_in_a_waveform(kind: str, model: str, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records before it are kept: 40 kB each of the one, 14 kB each of the other."""
    monkeypatch.setattr(scpi, "TIMEOUT_S", 0.5)
    with (
        bench(simulator(model), faults=(ByteFault(kind=kind, at=at),)) as address,
        SIGLENT.open(address, Options(settings=SHORT)) as scope,
    ):
        header = scope.start()
        decoder = SIGLENT.decoder(header)
        blocks: list[Block] = []
        with pytest.raises(IncompleteError):
            for _ in range(200):
                blocks += decoder.feed(scope.read(0.1))
    assert len(blocks) >= 4


@pytest.mark.parametrize("model", [HD, OLD])
def test_a_trigger_in_the_wrong_place_is_told(model: str) -> None:
    """Had the delay another sign on some firmware, records would be mirrored: that shall not pass."""

    made = simulator(model)
    delays = ("TIM:DEL", "TRDL")
    obey, query = made._obey, made._query

    def mirrored(name: str, value: str) -> None:
        obey(name, f"{-float(value.rstrip('S')):.6E}" if name in delays else value)

    def told(name: str, *rest: str) -> bytes:
        return f"{-made.delay_s:.6E}".encode() if name in delays else bytes(query(name, *rest))

    made._obey, made._query = mirrored, told
    with bench(made) as address, pytest.raises(DataError, match=r"does not cross 1\.65 V at sample"):
        taken(address, 1)


def test_a_refused_setting_is_told_in_the_instruments_words() -> None:
    class Strict(NewSimulator):  # type: ignore[misc]
        def answer(self, command: str) -> bytes | None:
            if command.startswith(":CHAN2:COUP"):
                raise Refused(-222, "Data out of range")
            given: bytes | None = super().answer(command)
            return given

    options = Options(settings=SHORT)
    made = Strict(parse_load(LOAD), SIGLENT.INFO.chosen(options), options)
    with bench(made) as address, pytest.raises(UsageError, match="-222 Data out of range"):
        taken(address, 1)


def test_what_a_model_has_not_and_needs_not_is_passed_over() -> None:
    class Plain(NewSimulator):  # type: ignore[misc]
        def answer(self, command: str) -> bytes | None:
            if ":IMP" in command or ":MMAN" in command:
                raise Refused(-113, "Undefined header")
            given: bytes | None = super().answer(command)
            return given

    options = Options(settings=SHORT)
    made = Plain(parse_load(LOAD), SIGLENT.INFO.chosen(options), options)
    with bench(made) as address:
        header, blocks = taken(address, 1)
    check(header, blocks[:1])
    with bench(made) as address, pytest.raises(UsageError, match="refuses part of its set-up"):
        taken(address, 1, coupling="dc50")


def test_a_setting_that_becomes_another_is_told() -> None:
    class Coarse(OldSimulator):  # type: ignore[misc]
        def _channel(self, number: int, name: str, asked: bool, value: str) -> bytes | None:
            value = "1" if (name, asked) == ("ATTN", False) else value
            given: bytes | None = super()._channel(number, name, asked, value)
            return given

    options = Options(settings=SHORT | {"model": OLD})
    made = Coarse(parse_load(LOAD), SIGLENT.INFO.chosen(options), options)
    with bench(made) as address, pytest.raises(UsageError, match="sets the attenuation of c1 to 1, not 10"):
        taken(address, 1)


@pytest.mark.parametrize("model", [HD, OLD])
def test_a_channel_that_it_has_not_is_told(model: str) -> None:
    made = simulator(model)
    made.identity = made.identity.replace("24X", "22X").replace("104X", "102X")
    with bench(made) as address, pytest.raises(UsageError, match="has 2 channels, not c3"):
        taken(address, 1, voltage="c3")


@pytest.mark.parametrize("model", MODELS)
def test_it_is_left_running(model: str) -> None:
    made = simulator(model)
    with bench(made) as address:
        taken(address, 1)
        deadline = time.monotonic() + 5
        while made.mode != "AUTO" and time.monotonic() < deadline:
            time.sleep(0.01)
    assert made.mode == "AUTO"
    assert not getattr(made, "sequence", False)


# -- other programs ---------------------------------------------------------------------------------------------------

NEW_CLIENT = """
import sys
import numpy as np
from pymeasure.instruments.siglenttechnologies.siglent_sds1000xhd import SDS1000XHD
scope = SDS1000XHD(sys.argv[1], visa_library='@py', timeout=500)
scope.timebase.scale, scope.timebase.delay = 2e-4, 8e-4
for channel, probe, scale, offset in ((scope.channel_1, 10, 1, -1.5), (scope.channel_2, 10, 0.01, -0.03)):
    channel.display_enabled, channel.probe, channel.scale, channel.offset = True, probe, scale, offset
scope.write(':TRIGger:MODE SINGle')
for _ in range(200):
    if scope.ask(':TRIGger:STATus?').strip() == 'Stop':
        break
out = []
for number in (1, 2):
    source = getattr(scope, f'wf_C{number}')
    source.source, source.width = f'C{number}', 'WORD'
    out.append(source.get_data())
np.savez(sys.argv[2], time=out[0][0], first=out[0][1], second=out[1][1])
"""
OLD_CLIENT = """
import sys
import numpy as np
from pymeasure.instruments.lecroy.lecroyT3DSO1204 import LeCroyT3DSO1204
scope = LeCroyT3DSO1204(sys.argv[1], visa_library='@py', timeout=5000)
scope.timebase_scale, scope.timebase_offset = 2e-4, 8e-4
scope.memory_size = 7e3
for channel, probe, scale, offset in ((scope.ch_1, 10, 1, -1.5), (scope.ch_2, 10, 0.01, -0.03)):
    channel.display, channel.probe_attenuation, channel.scale, channel.offset = True, probe, scale, offset
scope.write('TRMD SINGLE')
while int(scope.ask('INR?')) & 1 == 0:
    pass
out = []
for number in (1, 2):
    data, times, _ = scope.download_waveform(source=f'C{number}', requested_points=0, sparsing=1)
    out.append((times, data))
np.savez(sys.argv[2], time=out[0][0], first=out[0][1], second=out[1][1])
"""


@pytest.mark.outside
@pytest.mark.parametrize(("model", "client"), [(HD, NEW_CLIENT), (OLD, OLD_CLIENT)], ids=["SDS1000XHD", "T3DSO1204"])
def test_pymeasure_sees_what_was_drawn(model: str, client: str, tmp_path: Path) -> None:
    """Volts at the probes' tips: 3.3 V on the line, 12 and 2 mA on one ohm, each within 0.1 div."""
    python = os.environ.get("JOULEMETER_PYMEASURE") or sys.executable
    if python == sys.executable and importlib.util.find_spec("pymeasure") is None:
        pytest.skip("needs pymeasure, or JOULEMETER_PYMEASURE as an interpreter that has it")
    path = tmp_path / "volts.npz"
    with serving(simulator(model), "vxi11") as where:
        done = subprocess.run(
            [python, "-c", client, where["vxi11"], str(path)], timeout=60, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    got = np.load(path)
    at, line, shunt = got["time"].ravel(), got["first"], got["second"]
    high = np.flatnonzero(line > 1.65)
    rise, fall = int(high[0]), int(high[-1])
    # It takes no account of the delay in the old dialect.
    assert at[fall] - at[rise] == pytest.approx(1.129e-3, abs=1e-6)
    assert model == OLD or at[rise] == pytest.approx(0.0, abs=1e-6)
    inside, before = slice(rise + 10, fall - 10), slice(0, rise - 10)
    assert line[inside].mean() == pytest.approx(3.3, abs=0.1)
    assert shunt[inside].mean() == pytest.approx(12e-3, abs=1e-3)
    assert shunt[before].mean() == pytest.approx(2e-3, abs=1e-3)
    assert shunt[inside].mean() - shunt[before].mean() == pytest.approx(10e-3, rel=0.01)


# -- the command line -------------------------------------------------------------------------------------------------


def test_a_lost_network_keeps_what_was_fetched(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joulemeter", "measure", "--meter", "siglent", "--simulate", "--faults", "unplug@4s",
         "--trigger", "c1@1.65V", "--assume-voltage", "3V", "--windows", "100000", "-o", str(tmp_path), "--quiet",
         "--inferences-per-window", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "energy per inference" in done.stdout
    assert "kept" in done.stderr
