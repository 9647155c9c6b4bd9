"""Rigol: waveforms by the makers' formula and the words of others; the driver on its simulator, and what goes wrong."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from inline_meters import stream_of

from joulemeter import registry, scpi
from joulemeter.capture import Block, Header, Status
from joulemeter.caveat import Code
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Holding, Options
from joulemeter.instruments.rigol import driver, wire
from joulemeter.instruments.rigol.models import PLAYED, inputs_of, model_of
from joulemeter.instruments.rigol.simulator import LAG_S, RigolSimulator
from joulemeter.physics.integrate import integrate
from joulemeter.scope.bench import OFFSET_DIVISIONS
from joulemeter.scope.frontend import FrontEnd
from joulemeter.scope.setup import setup
from joulemeter.scpi import Scpi, parse_identity
from joulemeter.synthetic import parse_load
from joulemeter.transport.scpidevice import BentDevice, ByteFault, MessageDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.transport.visa import open_session
from joulemeter.window import Window

RIGOL = registry.instrument("rigol")
LOAD = "12mA/1.129ms/d0,2mA/1.871ms"
SHORT = {"record": "2ms", "records": "4", "peak": "20mA", "zero": "2mA"}
# Nothing happens for a second, so that a trigger is awaited in vain.
RARE = "12mA/1ms/d0,2mA/1s"


# -- waveforms --------------------------------------------------------------------------------------------------------


def test_a_preamble_as_ds1054z_shows_it() -> None:
    """The example in that project's documentation: -3 V of offset at 1 V to the division, 25 codes to one."""
    told = wire.preamble("0,0,1200,1,2.000000e-05,-1.456000e-02,0,4.000000e-02,-75,127")
    assert (told.format, told.type, told.points, told.count) == (wire.BYTE, wire.NORMAL, 1200, 1)
    assert (told.x_increment, told.x_origin, told.x_reference) == (2e-5, -0.01456, 0)
    assert (told.y_increment, told.y_origin, told.y_reference) == (0.04, -75, 127)


def test_golden_bytes() -> None:
    """A probe of 10 at 2 V to the division, -3.6 V of offset: 80 mV to a code, origin -45.

    Codes 0, 1, 81, 82, 83, 127, 254, 255 less 82, times 80 mV.
    """
    part = wire.pack(
        "0,2,8,1,1.000000e-06,-5.000000e-04,0,8.000000e-02,-45,127\n", bytes((0, 1, 81, 82, 83, 127, 254, 255))
    )
    seen = wire.trace(part)
    np.testing.assert_allclose(seen.volts, [-6.56, -6.48, -0.08, 0.0, 0.08, 3.6, 13.76, 13.84], atol=1e-12)
    assert seen.interval_s == 1e-6
    assert seen.clipped is not None
    assert seen.clipped.tolist() == [True, False, False, False, False, False, False, True]


def test_golden_words_of_an_eight_bit_oscilloscope() -> None:
    """The high byte is empty, the low one comes first."""
    part = wire.pack("1,2,4,1,1e-09,0,0,4.000000e-04,-75,127", bytes.fromhex("0000 3400 7f00 ff00"))
    seen = wire.trace(part)
    np.testing.assert_allclose(seen.volts, [-0.0208, 0.0, 0.03, 0.0812], atol=1e-12)
    assert seen.clipped is not None
    assert seen.clipped.tolist() == [True, False, False, True]


def test_golden_words_of_a_twelve_bit_oscilloscope() -> None:
    """The preamble of a public test bed for the DHO924: 1 V to the division, zero at 2074 + 32768 = 0x881A."""
    preamble = "1,0,1000,1,1.000000E-10,-5.000000E-8,0,1.3333E-4,2074,32768"
    codes = bytes.fromhex("1a88 0b88 2988 0000 f0ff 1000 e0ff")
    seen = wire.trace(wire.pack(preamble, codes))
    steps = np.array([0, -15, 15, -34842, 30678, -34826, 30662])
    np.testing.assert_allclose(seen.volts, steps * 1.3333e-4, rtol=1e-12, atol=1e-12)
    assert seen.interval_s == 1e-10
    assert seen.clipped is not None
    assert seen.clipped.tolist() == [False, False, False, True, True, False, False]


def test_an_interval_of_zero_is_none() -> None:
    """As DHO oscilloscopes tell it at times (ngscopeclient/scopehal)."""
    assert wire.trace(wire.pack("1,2,2,1,0,0,0,1e-4,0,32768", bytes(4))).interval_s is None


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (b"", "no preamble"),
        (b"0,2,3", "no preamble"),
        (b"0,2,3,1,1e-6,0,0,volts,0,127\nabc", "no preamble"),
        (b"0,2,3,1,1e-6,0,0,4e-2,0,127", "no scale"),
        # What a DS1000Z says between STOP and RUN, as a public driver notes it.
        (b"0,2,0,1,0.000000,0.000000,0,0.000000,0,0\n", "no scale"),
        (b"2,2,3,1,1e-6,0,0,4e-2,0,127\nabc", "no scale"),
        (b"0,2,3,16,1e-6,0,0,4e-2,0,127\nabc", "average"),
        (b"1,2,3,1,1e-6,0,0,4e-2,0,127\nabc", "within a sample"),
    ],
)
def test_waveforms_that_cannot_be_used(part: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wire.trace(part)


# -- on the simulator -------------------------------------------------------------------------------------------------


def simulator(load: str = LOAD, **settings: str) -> RigolSimulator:
    made = RIGOL.simulate(parse_load(load), Options(settings={**SHORT, **settings}, declared_v=3.3))
    assert isinstance(made, RigolSimulator)
    return made


class Watched(RigolSimulator):  # type: ignore[misc]
    """Notes what it is told."""

    heard: list[str]

    def answer(self, command: str) -> bytes | None:
        self.heard = [*getattr(self, "heard", []), command]
        given: bytes | None = super().answer(command)
        return given


def watched(**settings: str) -> Watched:
    options = Options(settings={**SHORT, **settings}, declared_v=3.3)
    return Watched(parse_load(LOAD), RIGOL.INFO.chosen(options), options)


@contextlib.contextmanager
def bench(
    device: MessageDevice | None = None, face: str = "socket", faults: tuple[ByteFault, ...] = ()
) -> Iterator[str]:
    with serving(BentDevice(device or simulator(), faults), face) as where:
        yield where[face]


def taken(address: str, count: int, **settings: str) -> tuple[Header, list[Block]]:
    options = Options(settings={**SHORT, **settings}, declared_v=3.3)
    with RIGOL.open(address, options) as opened:
        header = opened.start()
        decoder = RIGOL.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 20
        while len(blocks) < count and time.monotonic() < deadline:
            blocks += decoder.feed(opened.read(0.2))
    return header, blocks


def holds(block: Block, rate_hz: float) -> None:
    """The pulse of LOAD: its width to a sample, its currents to what the noise leaves."""
    high = block.data["c1"] > 1.65
    first, last = np.flatnonzero(high)[[0, -1]]
    assert abs(first / rate_hz - 0.2e-3) <= 1.5 / rate_hz
    assert abs((last + 1 - first) / rate_hz - 1.129e-3) <= 1.5 / rate_hz
    inside = np.zeros(len(block), bool)
    inside[first + 5 : last - 5] = True
    assert float(block.data["current"][inside].mean()) == pytest.approx(12e-3, rel=0.01)
    assert float(block.data["current"][: first - 5].mean()) == pytest.approx(2e-3, rel=0.01)


# What becomes of 2 ms at 1 MHz. A DS1000Z has 12 divisions of 200 us and 6000 points for two channels, the others 10
# and 10,000 points; a DHO800 has no 5 MHz.
RATES = {"DS1054Z": 2.5e6, "MSO5074": 5e6, "DHO804": 2.5e6}


@pytest.mark.parametrize("model", PLAYED)
@pytest.mark.parametrize("face", ["socket", "vxi11"])
def test_pulses_of_each_model(model: str, face: str) -> None:
    with bench(simulator(model=model), face) as address:
        header, blocks = taken(address, 6, model=model)
    assert (header.model, header.serial, header.simulated) == (model, "SIM00000001", True)
    assert header.rate_hz == RATES[model]
    assert header.parameters["points"] == round(2e-3 * header.rate_hz)
    assert len(blocks) >= 6
    for block in blocks:
        assert len(block) == header.parameters["points"]
        holds(block, header.rate_hz)
    assert all(later.first_index >= block.first_index + len(block) for block, later in pairwise(blocks))


def test_the_energy_of_windows() -> None:
    """1.129 ms at 12 mA and 3.3 V less the 12 mV of the shunt, within what the maker allows and near it."""
    with bench() as address:
        header, blocks = taken(address, 8)
    windows = []
    for k, block in enumerate(blocks):
        high = np.flatnonzero(block.data["c1"] > 1.65)
        start, stop = (int((block.first_index + at) * 1e9 / header.rate_hz) for at in (high[0], high[-1] + 1))
        windows.append(Window(start_ns=start, stop_ns=stop, index=k))
    truth_j = 12e-3 * (3.3 - 12e-3) * 1.129e-3
    found = [one.energy_j for one in integrate(stream_of(header, blocks), windows)]
    assert len(found) >= 8
    np.testing.assert_allclose(np.array(found, float), truth_j, rtol=0.01)
    (current,) = (channel for channel in header.channels if channel.name == "current")
    assert abs(float(np.mean(np.array(found, float))) - truth_j) / truth_j <= current.accuracy[0].offset.value / 12e-3


def test_an_offset_is_seen_and_is_what_the_maker_allows() -> None:
    """Without a zero the offset of the input stays in: 0.03 of 5 mV on 1 ohm."""
    with bench(simulator(zero="none")) as address:
        header, blocks = taken(address, 4, zero="none")
    off_a = float(np.mean([block.data["current"][:400].mean() for block in blocks])) - 2e-3
    assert header.parameters["volts_per_div"]["c2"] == 5e-3
    assert off_a == pytest.approx(OFFSET_DIVISIONS * 5e-3, rel=0.1)
    (current,) = (channel for channel in header.channels if channel.name == "current")
    # 0.1 divisions, 2 mV, and 1 % of the 15 mV that lie in the middle.
    assert current.accuracy[0].offset.value == pytest.approx(0.5e-3 + 2e-3 + 0.15e-3)
    assert not current.accuracy[0].verified


@pytest.mark.parametrize("model", ["DS1054Z", "DHO804"])
@pytest.mark.parametrize("records", ["1", "3"])
def test_single_records_and_frames(model: str, records: str) -> None:
    made = simulator(model=model)
    with bench(made) as address:
        header, blocks = taken(address, 7, model=model, records=records)
    told = {caveat.code for caveat in header.caveats}
    assert (Code.GAP_LENGTH_UNCERTAIN in told) == (records == "3")
    assert Code.FEWER_RECORDS not in told
    for block in blocks:
        holds(block, header.rate_hz)


def test_a_model_without_frames_takes_single_records_and_says_so() -> None:
    with bench(simulator(model="MSO5074")) as address:
        header, _ = taken(address, 1, model="MSO5074")
    told = {caveat.code for caveat in header.caveats}
    assert Code.FEWER_RECORDS in told
    assert Code.GAP_LENGTH_UNCERTAIN not in told


def test_a_falling_edge_starts_a_record() -> None:
    with bench(simulator(trigger="c1@1.65V:falling")) as address:
        header, blocks = taken(address, 1, trigger="c1@1.65V:falling")
    line = blocks[0].data["c1"] > 1.65
    assert line[0] and not line[-1]
    assert abs(int(np.argmin(line)) - 0.2e-3 * header.rate_hz) <= 2


def test_a_third_channel_quarters_the_memory() -> None:
    """3000 points are less than 2.4 ms at 2.5 MHz need: the next depth up is 30,000, at 12.5 MHz."""
    with bench(simulator(voltage="c3")) as address:
        header, blocks = taken(address, 2, voltage="c3", rate="2.5MHz")
    assert header.rate_hz == 12.5e6
    volts = blocks[0].data["voltage"]
    assert float(volts.mean()) == pytest.approx(3.3, rel=0.02)


def test_deep_memory_comes_page_by_page() -> None:
    """20 ms at 25 MHz: half a million points to an input, half of them to a page."""
    made = watched(record="20ms", rate="20MHz", records="1")
    with bench(made) as address:
        header, blocks = taken(address, 1, record="20ms", rate="20MHz", records="1")
    assert header.rate_hz == 25e6
    assert len(blocks[0]) == 500_000
    starts = [int(command.split()[1]) for command in made.heard if command.startswith(":WAV:STAR")]
    assert starts[:4] == [1, 250_001, 1, 250_001]
    assert len(np.flatnonzero(np.diff((blocks[0].data["c1"] > 1.65).astype(int)) == 1)) in (6, 7)


def test_the_depth_is_set_while_it_runs_and_probes_before_scales() -> None:
    made = watched(attenuation="10", peak="200mA")
    with bench(made) as address:
        header, _ = taken(address, 1, attenuation="10", peak="200mA")
    assert header.parameters["volts_per_div"] == {"c1": 1.0, "c2": 50e-3}
    assert (made.channels[2].attenuation, made.channels[2].centre_v) == (10.0, pytest.approx(0.15))

    def at(start: str) -> int:
        return next(k for k, command in enumerate(made.heard) if command.startswith(start))

    order = [
        ":RUN",
        ":CHAN2:PROB ",
        ":CHAN2:SCAL ",
        ":CHAN2:OFFS ",
        ":TIM:MAIN:SCAL ",
        ":ACQ:MDEP ",
        ":FUNC:WREC:OPER RUN",
    ]
    assert [at(one) for one in order] == sorted(at(one) for one in order)
    # STOP would begin to record anew, and a scale that is set later would change what the preamble means.
    assert ":STOP" not in made.heard
    assert not any(re.match(r":CHAN\d:SCAL ", command) for command in made.heard[at(":FUNC:WREC:OPER RUN") :])


def test_it_is_left_running() -> None:
    made = simulator()
    with bench(made) as address:
        taken(address, 1)
        deadline = time.monotonic() + 2
        while not made.running and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (made.running, made.recording, made.sweep_mode, made.wave_mode) == (True, False, "AUTO", "NORM")


def test_codes_beyond_the_screen_are_marked() -> None:
    with bench(simulator("60mA/1ms/d0,2mA/2ms")) as address:
        _, blocks = taken(address, 1)
    status = blocks[0].status
    assert status is not None
    high = blocks[0].data["c1"] > 1.65
    assert (status[high][10:-10] & Status.CLIPPED).all()
    assert not status[:450].any()


# -- armed by status --------------------------------------------------------------------------------------------------


def test_it_is_armed_only_when_it_no_longer_says_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins 200 ms after it was told to, and says STOP until then."""
    made = simulator(RARE, records="1")
    monkeypatch.setattr(made, "late_s", 0.2)
    with bench(made) as address, RIGOL.open(address, Options(settings={**SHORT, "records": "1"})) as opened:
        opened.start()
        assert made.sweep.armed_s is not None
        assert made.now_s >= made.sweep.armed_s
        assert made._status() in ("WAIT", "TD")


def test_a_trigger_that_nobody_saw_come_is_no_dead_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record so short that it is over before the first question; the next ones are not the same again."""
    monkeypatch.setattr(driver, "SETTLE_S", 0.05)
    settings = {**SHORT, "record": "10us", "rate": "10MHz", "records": "1"}
    made = simulator("12mA/20us/d0,2mA/20us", record="10us", rate="10MHz", records="1")
    monkeypatch.setattr(made, "late_s", 0.0)
    with bench(made) as address:
        _, blocks = taken(address, 3, **settings)
    assert len(blocks) >= 3
    currents = [block.data["current"].tobytes() for block in blocks]
    assert len(set(currents)) == len(currents)


def test_no_trigger_is_told() -> None:
    options = Options(settings={**SHORT, "wait": "300ms"})
    for model in PLAYED:
        made = simulator("5mA/10s", model=model)
        with bench(made) as address, RIGOL.open(address, options) as opened:
            opened.start()
            with pytest.raises(IncompleteError, match="No trigger came within 300"):
                for _ in range(40):
                    opened.read(0.1)


# Three pulses, once it is armed, then none for ten seconds.
FEW = "2mA/150ms,12mA/1ms/d0,2mA/60ms,12mA/1ms/d0,2mA/60ms,12mA/1ms/d0,2mA/10s"


@pytest.mark.parametrize(("model", "kept"), [("DS1054Z", 3), ("DHO804", 2)])
def test_frames_that_never_fill_are_fetched(model: str, kept: int) -> None:
    """What had been recorded when the patience ended is kept, and comes once.

    A DHO says at which frame it is, and not whether that one is whole.
    """
    made = simulator(FEW, model=model)
    options = Options(settings={**SHORT, "records": "20", "wait": "400ms"})
    with bench(made) as address, RIGOL.open(address, options) as opened:
        decoder = RIGOL.decoder(opened.start())
        blocks: list[Block] = []
        with pytest.raises(IncompleteError, match="No trigger"):
            for _ in range(60):
                blocks += decoder.feed(opened.read(0.1))
    assert len(blocks) == kept


def test_what_is_held_when_the_recording_ends_comes_once() -> None:
    made = simulator(FEW, records="1")
    options = Options(settings={**SHORT, "records": "1"})
    with bench(made) as address, RIGOL.open(address, options) as opened:
        decoder = RIGOL.decoder(opened.start())
        blocks: list[Block] = []
        for _ in range(10):
            blocks += decoder.feed(opened.read(0.1))
        assert len(blocks) == 3
        # It is armed again, and its memory still holds the third record.
        assert isinstance(opened, Holding)
        assert list(opened.remaining()) == []


# -- what goes wrong --------------------------------------------------------------------------------------------------


def bent(change: Callable[[RigolSimulator], None], **settings: str) -> RigolSimulator:
    made = simulator(**settings)
    change(made)
    return made


def test_short_pages_are_asked_for_again() -> None:
    made = bent(lambda one: setattr(one, "short_page", 700))
    with bench(made) as address:
        header, blocks = taken(address, 4)
    for block in blocks:
        assert len(block) == 5000
        holds(block, header.rate_hz)


@pytest.mark.parametrize("records", ["1", "4"])
def test_a_preamble_that_says_nothing_yet_is_asked_for_again(records: str) -> None:
    made = bent(lambda one: setattr(one, "blanks", 3), records=records)
    with bench(made) as address:
        header, blocks = taken(address, 2, records=records)
    holds(blocks[0], header.rate_hz)


def test_an_acquisition_that_brings_nothing_is_repeated() -> None:
    """As a DS2000 does it at times (libsigrok)."""
    made = bent(lambda one: setattr(one, "empties", 1), records="1")
    with bench(made) as address:
        header, blocks = taken(address, 2, records="1")
    holds(blocks[0], header.rate_hz)


def test_an_oscilloscope_that_never_has_a_waveform_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "BLANK_S", 0.05)
    made = bent(lambda one: setattr(one, "empties", 10), records="1")
    with bench(made) as address, pytest.raises(DataError, match="3 times without a new waveform"):
        taken(address, 1, records="1")


def test_an_old_record_is_not_taken_for_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """From some moment on it no longer hears that it is to take another one."""
    monkeypatch.setattr(driver, "SETTLE_S", 0.05)
    made = simulator(records="1")
    options = Options(settings={**SHORT, "records": "1"})
    with bench(made) as address, RIGOL.open(address, options) as opened:
        decoder = RIGOL.decoder(opened.start())
        blocks: list[Block] = []
        while not blocks:
            blocks += decoder.feed(opened.read(0.2))
        made.deaf = True
        count = len(blocks)
        with pytest.raises(DataError, match="without a new waveform"):
            for _ in range(40):
                count += len(decoder.feed(opened.read(0.2)))
    # One may have been on its way.
    assert count <= 2


@pytest.mark.parametrize(("model", "kind"), [("DS1054Z", "unplug"), ("MSO5074", "stall"), ("DHO804", "stall")])
def test_a_wire_that_breaks_in_a_block(model: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched before is kept: records of 2 x 5000 or 10,000 bytes or words, and 50 kB are sent."""
    monkeypatch.setattr(scpi, "TIMEOUT_S", 0.3)
    faults = (ByteFault(kind=kind, at=50_000),)
    started = time.monotonic()
    with bench(simulator(model=model), faults=faults) as address:
        options = Options(settings={**SHORT, "model": model})
        opened = RIGOL.open(address, options)
        decoder = RIGOL.decoder(opened.start())
        blocks: list[Block] = []
        with pytest.raises(IncompleteError) as told:
            for _ in range(100):
                blocks += decoder.feed(opened.read(0.2))
        opened.close()
    assert told.value.remedy
    assert len(blocks) >= 2
    assert time.monotonic() - started < 15


def test_more_than_was_asked_for_is_refused() -> None:
    made = watched(records="1")
    made._page = lambda: b"#9" + b"%09d" % 9000 + bytes(9000)
    with bench(made) as address, pytest.raises(IncompleteError, match="9000 bytes for 5000 samples"):
        taken(address, 1, records="1")


def test_what_an_aborted_transfer_left_behind_is_thrown_away() -> None:
    class Leftover(RigolSimulator):  # type: ignore[misc]
        """Its first answer is the rest of a waveform."""

        first = True

        def receive(self, data: bytes) -> None:
            if data and self.first:
                self.first = False
                self.say(b"#9000030000MKJJIIJKKMNNMNMMLLLKJJJKKLMNNNN\n")
            super().receive(data)

    options = Options(settings=SHORT)
    made = Leftover(parse_load(LOAD), RIGOL.INFO.chosen(options), options)
    with bench(made) as address, RIGOL.open(address, options) as opened:
        assert opened.start().model == "DS1054Z"


@pytest.mark.parametrize(
    "identity",
    [
        "RIGOL TECHNOLOGIES,DS1052E,DS1EB123456789,00.04.00",
        "RIGOL TECHNOLOGIES,DP832,DP8C123456789,00.01.16",
        "KEYSIGHT TECHNOLOGIES,DSO-X 3014T,MY58123456,07.20",
    ],
)
def test_other_instruments_are_told(identity: str) -> None:
    made = simulator()
    made.identity = identity
    with bench(made) as address, pytest.raises(NotFoundError, match=identity.split(",")[1]):
        RIGOL.open(address, Options())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"coupling": "ac"}, "AC coupling"),
        ({"coupling": "dc50"}, "50 ohm"),
        ({"attenuation": "7"}, "refuses part of its set-up: -224"),
        ({"records": "0"}, "make no sense"),
        ({"peak": "100A"}, "do not fit"),
        ({"record": "2s", "rate": "300MHz"}, "5.000 MHz at most"),
        ({"rate": "1GHz"}, "500.0 MHz at most"),
        ({"model": "DS9999"}, "model cannot be"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, str], said: str) -> None:
    options = Options(settings={**SHORT, **settings})
    with bench() as address, pytest.raises(UsageError, match=said), RIGOL.open(address, options) as opened:
        opened.start()


def test_a_probe_factor_that_was_not_taken_is_told() -> None:
    class Stubborn(RigolSimulator):  # type: ignore[misc]
        def _tell_channel(self, number: int, name: str, value: str) -> None:
            if name != "PROB":
                super()._tell_channel(number, name, value)

    options = Options(settings=SHORT)
    made = Stubborn(parse_load(LOAD), RIGOL.INFO.chosen(options), options)
    made.channels[1].attenuation = 1.0
    said = pytest.raises(UsageError, match="no probe factor 10, but 1")
    with bench(made) as address, RIGOL.open(address, options) as opened, said:
        opened.start()


def test_slow_records_are_single_ones() -> None:
    """Slower than 100 ms to the division it rolls, and records no frames."""
    options = Options(settings={**SHORT, "record": "1.5s", "rate": "1kHz"})
    with bench(simulator("5mA/10s")) as address, RIGOL.open(address, options) as opened:
        assert Code.FEWER_RECORDS in {caveat.code for caveat in opened.start().caveats}


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wide", "bits", "page", "inputs"),
    [
        ("DS1054Z", 12, 8, 250_000, 4),
        ("DS1104Z Plus", 12, 8, 250_000, 4),
        ("DS1202Z-E", 12, 8, 250_000, 2),
        ("MSO1104Z-S", 12, 8, 250_000, 4),
        ("MSO5072", 10, 8, 250_000_000, 2),
        ("MSO7034", 10, 8, 250_000_000, 4),
        ("MSO8204", 10, 8, 250_000_000, 4),
        ("DHO804", 10, 12, 250_000, 4),
        ("DHO914S", 10, 12, 250_000, 4),
        ("DHO1202", 10, 12, 250_000, 2),
        ("DHO4804", 10, 12, 250_000, 4),
    ],
)
def test_models(name: str, wide: int, bits: int, page: int, inputs: int) -> None:
    identity = parse_identity(f"RIGOL TECHNOLOGIES,{name},DS1ZA000000001,00.04.04")
    assert identity is not None and driver.fits(identity)
    model = model_of(name)
    assert model is not None
    assert (model.wide, model.family.bits, model.page) == (wide, bits, page)
    assert inputs_of(name) == inputs


def test_fifty_ohms_where_there_are_any() -> None:
    model = model_of("MSO8204")
    assert model is not None
    settings = RIGOL.INFO.chosen(Options(settings={**SHORT, "coupling": "dc50"}))
    wanted = setup(settings, FrontEnd.of(settings, Options()), model.family)
    said = driver.Rigol(SimpleNamespace(), model, 4)._commands(wanted, 2e-3)
    assert ":CHAN1:IMP OMEG" in said
    assert said.index(":CHAN2:IMP FIFT") < said.index(":CHAN2:SCAL 0.005")


def test_a_model_with_two_inputs() -> None:
    """It would refuse to be told about a third one."""
    made = watched(model="DHO804")
    made.identity = made.identity.replace("DHO804", "DHO802")
    with bench(made) as address:
        taken(address, 1)
        with pytest.raises(UsageError, match="no c3: it has 2 channels"):
            taken(address, 1, voltage="c3")
    assert not [command for command in made.heard if command.startswith((":CHAN3", ":CHAN4"))]


@pytest.mark.parametrize("name", ["DS1052E", "DS2072A", "DS4014", "DS70504", "DP832", "DM3068", "DSA815", "DG4162"])
def test_models_of_other_dialects(name: str) -> None:
    assert model_of(name) is None


@pytest.mark.parametrize(
    ("name", "points", "written"),
    [("DS1054Z", 6000, "6000"), ("MSO5074", 10_000, "10k"), ("DHO804", 25_000_000, "25M"), ("DHO804", 1000, "1k")],
)
def test_depths_as_they_are_written(name: str, points: int, written: str) -> None:
    model = model_of(name)
    assert model is not None
    assert model.depth(points) == written


# -- the simulator, for others ----------------------------------------------------------------------------------------


def test_long_and_short_forms_mean_the_same() -> None:
    with bench() as address, Scpi(open_session(address)) as one:
        for long, short in (
            (":CHANnel1:SCALe?", ":CHAN1:SCAL?"),
            (":TIMebase:MAIN:OFFSet?", ":TIM:OFFS?"),
            (":ACQuire:MDEPth?", ":ACQ:MDEP?"),
            (":WAVeform:YREFerence?", ":wav:yref?"),
            (":TRIGger:EDGe:SOURce?", ":TRIG:EDGE:SOUR?"),
        ):
            assert one.ask(long) == one.ask(short)
        one.write(":NO:SUCH")
        assert [complaint.code for complaint in one.errors()] == [-113]


def test_memory_is_read_when_stopped_only() -> None:
    made = simulator()
    with bench(made) as address, Scpi(open_session(address)) as one:
        one.write(":WAV:SOUR CHAN1", ":WAV:MODE RAW")
        assert one.ask_block(":WAV:DATA?").tobytes() == b""
        assert one.ask(":WAV:PRE?") == "0,2,0,1,0.000000,0.000000,0,0.000000,0,0"
        one.write(":SING")
        # It says for a moment that it is still stopped.
        time.sleep(20 * LAG_S)
        one.wait(":TRIG:STAT?", lambda reply: reply == "STOP", 5, "trigger")
        one.write(":ACQ:MDEP 60000")
        assert [complaint.code for complaint in one.errors()] == [-221]
        told = wire.preamble(one.ask(":WAV:PRE?"))
        assert told.points == 6000
        page = one.ask_block(":WAV:STAR 1", ":WAV:STOP 6000", ":WAV:DATA?")
        assert len(page) == 6000
        one.write(":WAV:FORM WORD")
        words = one.ask_block(":WAV:DATA?", dtype="<u2")
        np.testing.assert_array_equal(words, page)
        # Line feeds among the codes do no harm.
        assert 10 <= int(page.min()) <= 60
