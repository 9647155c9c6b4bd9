"""InfiniiVision: the waveform by the maker's formula and a preamble from outside; the driver on its simulator."""

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

import numpy as np
import pytest

from joulemeter import registry, scpi
from joulemeter.capture import UNSEEN, ArrayStream, Block, Gap, Header, Status, Timebase
from joulemeter.caveat import Code
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments.infiniivision import FAMILIES, driver, wire
from joulemeter.instruments.infiniivision.simulator import InfiniiVisionSimulator
from joulemeter.physics.integrate import integrate
from joulemeter.scpi import Identity, Scpi
from joulemeter.synthetic import parse_load
from joulemeter.transport.scpidevice import BentDevice, ByteFault, Refused, ScpiDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.transport.visa import open_session
from joulemeter.window import Window

KEYSIGHT = registry.instrument("infiniivision")
LOAD = "12mA/1.129ms/d0,2mA/1.871ms"
SHORT = {"record": "2ms", "records": "4", "peak": "20mA", "zero": "2mA"}
# Printed as a sample by a public Python client of an Agilent oscilloscope: 1 V/div, 12.5 mV in mid-screen.
PUBLISHED = "+0,+0,+1000,+1,+2.00000000E-010,-1.00000000E-007,+0,+3.12500000E-002,+1.25000000E-002,+128"


# -- the waveform -----------------------------------------------------------------------------------------------------


def test_a_preamble_of_a_real_oscilloscope() -> None:
    told = wire.Preamble.parse(PUBLISHED)
    assert (told.points, told.before, told.x_increment) == (1000, 500, 2e-10)
    codes = bytes([2, 127, 128, 129, 254]) + bytes([128]) * 995
    seen = wire.trace(wire.part("MSBF", PUBLISHED, codes))
    # (code - 128) x 31.25 mV + 12.5 mV
    np.testing.assert_allclose(seen.volts[:5], [-3.925, -0.01875, 0.0125, 0.04375, 3.95], rtol=1e-12)
    assert seen.interval_s == 2e-10


@pytest.mark.parametrize("order", ["LSBF", "MSBF"])
@pytest.mark.parametrize("word", [False, True])
def test_golden(order: str, word: bool) -> None:
    """A probe of 10, 2 V/div at its tip, -3 V in the middle of the screen: codes below and above it, in both orders.

    Volts are (code - yreference) x yincrement + yorigin (Programmer's Guides): 0.0625 V to a step of 256.
    """
    scale = 256 if word else 1
    codes = [60 * scale, 127 * scale, 128 * scale, 129 * scale, 200 * scale]
    mark = "<" if order == "LSBF" else ">"
    data = struct.pack(f"{mark}5{'H' if word else 'B'}", *codes)
    preamble = f"{int(word):+d},+0,+5,+1,+1.0E-09,-2.0E-09,+0,{0.0625 / scale:+.9E},-3.0E+00,{128 * scale:+d}"
    seen = wire.trace(wire.part(order, preamble, data))
    np.testing.assert_allclose(seen.volts, [-7.25, -3.0625, -3.0, -2.9375, 1.5], rtol=1e-9)
    assert seen.clipped is not None and not seen.clipped.any()
    assert seen.hole is not None and not seen.hole.any()
    assert wire.Preamble.parse(preamble).before == 2


@pytest.mark.parametrize(
    ("form", "kind", "codes"), [(0, "5B", [0, 1, 2, 254, 255]), (1, "<5H", [0, 1, 2, 65534, 65535])]
)
def test_three_codes_are_no_voltage(form: int, kind: str, codes: list[int]) -> None:
    preamble = f"+{form},+0,+5,+1,+1.0E-09,+0.0E+00,+0,+1.0E-03,+0.0E+00,+128"
    seen = wire.trace(wire.part("LSBF", preamble, struct.pack(kind, *codes)))
    assert seen.hole is not None and seen.clipped is not None
    assert seen.hole.tolist() == [True, False, False, False, False]
    assert seen.clipped.tolist() == [False, True, False, False, True]
    assert np.isnan(seen.volts).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (b"no waveform at all", "no InfiniiVision waveform"),
        (b"LSBF;+0\n" + bytes(9), r"describes its waveform as '\+0'"),
        (wire.part("LSBF", PUBLISHED, bytes(999)), "1000 samples came with 999 bytes"),
        (wire.part("LSBF", PUBLISHED.replace("+0,+0,", "+4,+0,"), bytes(1000)), "no block of codes"),
        (wire.part("LSBF", PUBLISHED.replace("+0,+0,", "+0,+2,"), bytes(1000)), "average"),
        (wire.part("LSBF", PUBLISHED.replace("+0,+0,", "+0,+1,"), bytes(1000)), "envelope"),
    ],
    ids=["text", "+0", "short", "ascii", "average", "peak"],
)
def test_waveforms_that_cannot_be_used(part: bytes, said: str) -> None:
    with pytest.raises(DataError, match=said):
        wire.trace(part)


# -- who fits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maker", "model", "series", "inputs"),
    [
        ("KEYSIGHT TECHNOLOGIES", "DSOX1204G", "X1", 4),
        ("KEYSIGHT TECHNOLOGIES", "EDUX1052A", "X1", 2),
        ("AGILENT TECHNOLOGIES", "DSO-X 2022A", "X2", 2),
        ("AGILENT TECHNOLOGIES", "MSO-X 3054A", "X3", 4),
        ("KEYSIGHT TECHNOLOGIES", "DSO-X 3034T", "X3", 4),
        ("KEYSIGHT TECHNOLOGIES", "MSO-X 4154A", "X4", 4),
        ("KEYSIGHT TECHNOLOGIES", "DSOX6004A", "X6", 4),
        ("AGILENT TECHNOLOGIES", "DSO5012A", "5", 2),
        ("AGILENT TECHNOLOGIES", "MSO6104A", "6", 4),
        ("AGILENT TECHNOLOGIES", "DSO7054B", "7", 4),
    ],
)
def test_models(maker: str, model: str, series: str, inputs: int) -> None:
    found = driver.model(Identity(maker=maker, model=model))
    assert found is not None and (found.series, found.inputs) == (series, inputs)
    assert found.series in FAMILIES


@pytest.mark.parametrize(
    ("maker", "model"),
    [
        # Infiniium: codes with a sign, another hole.
        *(("KEYSIGHT TECHNOLOGIES", model) for model in ("DSO9254A", "MSO9404A", "DSOX91304A", "DSO90404A")),
        *(("KEYSIGHT TECHNOLOGIES", model) for model in ("DSOS054A", "MSOS104A", "UXR0134A", "DSO80204B", "DSOV084A")),
        ("AGILENT TECHNOLOGIES", "DSO8104A"),
        # Made by somebody else, and spoken to otherwise.
        *(("AGILENT TECHNOLOGIES", model) for model in ("DSO1024A", "DSO3062A")),
        # No oscilloscopes.
        *(("Keysight Technologies", model) for model in ("34465A", "N6705C", "B2901A", "DAQ970A")),
        ("RIGOL TECHNOLOGIES", "DSOX3024T"),
    ],
)
def test_who_does_not_fit(maker: str, model: str) -> None:
    assert not driver.fits(Identity(maker=maker, model=model))


class Other(ScpiDevice):
    identity = "KEYSIGHT TECHNOLOGIES,MSO9104A,MY12345678,06.30.00609"


def test_another_instrument_is_told() -> None:
    with serving(Other(), "socket") as where, pytest.raises(NotFoundError, match="MSO9104A, not an InfiniiVision"):
        KEYSIGHT.open(where["socket"], Options())


@pytest.mark.parametrize("address", ["192.0.2.1:5024", "TCPIP::192.0.2.1::5024::SOCKET"])
def test_the_terminal_port_is_told(address: str) -> None:
    with pytest.raises(UsageError, match="terminal port") as caught:
        KEYSIGHT.open(address, Options())
    assert "5025" in caught.value.remedy


# -- the driver on its simulator --------------------------------------------------------------------------------------


def simulator(load: str = LOAD, **settings: str) -> InfiniiVisionSimulator:
    options = Options(settings=settings)
    return InfiniiVisionSimulator(parse_load(load), KEYSIGHT.INFO.chosen(options), options)


@contextlib.contextmanager
def bench(device: ScpiDevice | None = None, face: str = "socket", faults: tuple[ByteFault, ...] = ()) -> Iterator[str]:
    with serving(BentDevice(device or simulator(**SHORT), faults), face) as where:
        yield where[face]


def taken(address: str, count: int, **settings: str) -> tuple[Header, list[Block]]:
    with KEYSIGHT.open(address, Options(settings=SHORT | settings, declared_v=3.0)) as scope:
        header = scope.start()
        decoder = KEYSIGHT.decoder(header)
        blocks: list[Block] = []
        deadline = time.monotonic() + 30
        while len(blocks) < count and time.monotonic() < deadline:
            blocks += decoder.feed(scope.read(0.1))
    return header, blocks


@pytest.mark.parametrize("face", ["socket", "vxi11", "hislip"])
def test_pulses_over_every_wire(face: str) -> None:
    with bench(face=face) as address:
        header, blocks = taken(address, 4)
    assert header.simulated and header.rate_hz == 1e6
    assert (header.parameters["points"], header.parameters["before"]) == (2000, 200)
    # The cycle of the load is 3 ms, by the time tags; the line rises at 10 % of each record.
    np.testing.assert_allclose(np.diff([block.first_index for block in blocks[:4]]), 3000, atol=1)
    for block in blocks:
        high = block.data["c1"] > 1.65
        assert abs(int(np.argmax(high)) - 200) <= 1
        assert abs(int(high.sum()) - 1129) <= 1
        assert float(block.data["current"][300:1300].mean()) == pytest.approx(12e-3, rel=0.01)
        assert float(block.data["current"][:180].mean()) == pytest.approx(2e-3, rel=0.01)
        assert float(block.data["voltage"][300:1300].mean()) == pytest.approx(3.0 - 12e-3, rel=1e-4)


def test_the_energy_of_windows() -> None:
    """1.129 ms at 12 mA and 3 V less 12 mV on the shunt: 40.47 uJ."""
    with bench() as address:
        header, blocks = taken(address, 8)
    stream = ArrayStream(
        name="infiniivision",
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
        start, stop = (int((block.first_index + at) * 1000) for at in (high[0], high[-1] + 1))
        windows.append(Window(start_ns=start, stop_ns=stop, index=k))
    for one in integrate(stream, windows):
        assert one.energy_j == pytest.approx(12e-3 * (3.0 - 12e-3) * 1.129e-3, rel=0.01)


@pytest.mark.parametrize("records", ["1", "7"])
def test_single_records_and_segments(records: str) -> None:
    with bench() as address:
        _, blocks = taken(address, 14, records=records)
    assert len(blocks) >= 14
    assert all(later.first_index > block.first_index for block, later in pairwise(blocks))


@pytest.mark.parametrize("forces", [True, False])
def test_as_many_segments_as_memory_has_for_the_rate(forces: bool) -> None:
    """It has 200,000 points: a hundred records of 2000."""
    made = simulator(**SHORT)
    made.forces = forces
    with bench(made) as address, KEYSIGHT.open(address, Options(settings=SHORT | {"records": "1000"})) as scope:
        header = scope.start()
        assert made.segments == 100
    assert (header.rate_hz, header.parameters["points"]) == (1e6, 2000)
    assert Code.FEWER_RECORDS in [caveat.code for caveat in header.caveats]


def test_a_falling_edge_starts_a_record() -> None:
    with bench(simulator(**SHORT, trigger="c1@1.65V:falling")) as address:
        _, blocks = taken(address, 1, trigger="c1@1.65V:falling")
    line = blocks[0].data["c1"] > 1.65
    assert line[0] and not line[-1]
    assert abs(int(np.argmin(line)) - 200) <= 1


def test_more_points_than_asked_for_are_thinned_out() -> None:
    """Of the steps that the instrument has, the next one up is taken: 3 ms at 1 MHz are 5 ms on the screen."""
    with bench() as address:
        header, blocks = taken(address, 1, record="3ms", rate="500kHz")
    assert (header.rate_hz, header.parameters["points"]) == (1e6, 5000)
    assert len(blocks[0]) == 5000


def test_scales_are_read_back_and_the_probe_is_set_first() -> None:
    """20 mA on 1 ohm behind a probe of 10: 5 mV/div at the tip would be 0.5 mV at the input, so 10 mV/div are used."""
    made = simulator(**SHORT, attenuation="10")
    with bench(made) as address:
        header, blocks = taken(address, 1, attenuation="10")
    assert header.parameters["volts_per_div"] == pytest.approx({"c1": 1.0, "c2": 10e-3})
    assert (made.channels[2].attenuation, made.channels[2].centre_v) == (10.0, pytest.approx(30e-3))
    assert float(blocks[0].data["current"][300:1300].mean()) == pytest.approx(12e-3, rel=0.02)


def test_a_current_above_the_screen_is_marked() -> None:
    with bench(simulator("90mA/1ms/d0,2mA/2ms", **SHORT)) as address:
        _, blocks = taken(address, 1)
    status = blocks[0].status
    assert status is not None
    assert (status[300:1100] & Status.CLIPPED).all()
    assert not status[:150].any()


def test_samples_that_were_not_acquired_are_marked() -> None:
    made = simulator(**SHORT)
    made.holes = 100
    with bench(made) as address:
        _, blocks = taken(address, 1)
    status = blocks[0].status
    assert status is not None
    assert (status[-100:] & Status.INVALID).all() and not status[:-100].any()
    assert np.isnan(blocks[0].data["current"][-100:]).all()


def test_segments_that_are_ended_early_are_fetched() -> None:
    with bench() as address, KEYSIGHT.open(address, Options(settings=SHORT | {"records": "90"})) as scope:
        header = scope.start()
        assert header.parameters["points"] == 2000
        deadline = time.monotonic() + 0.15
        while time.monotonic() < deadline:
            assert scope.read(0.02) == b""
        blocks = KEYSIGHT.decoder(header).feed(b"".join(scope.remaining()))  # type: ignore[attr-defined]
    assert 10 < len(blocks) < 90


def test_a_stopped_acquisition_without_a_trigger_gives_nothing_again() -> None:
    """What the instrument shows then is the record before."""
    with (
        bench(simulator("12mA/1ms/d0,2mA/300ms,12mA/1ms/d0,2mA/20s", **SHORT)) as address,
        KEYSIGHT.open(address, Options(settings=SHORT | {"records": "1"})) as scope,
    ):
        header, raw = scope.start(), b""
        deadline = time.monotonic() + 15
        while not raw and time.monotonic() < deadline:
            raw = scope.read(0.1)
        assert len(KEYSIGHT.decoder(header).feed(raw)) == 1
        rest = b""
        while time.monotonic() < deadline and not rest:
            rest = scope.read(0.5)
            if not rest:
                break
        assert list(scope.remaining()) == []  # type: ignore[attr-defined]


def test_it_is_armed_late_and_waited_for() -> None:
    """Nothing is said to have started before the oscilloscope says that it is armed."""
    made = simulator(**SHORT)
    made.late_s = 0.2
    with bench(made) as address, KEYSIGHT.open(address, Options(settings=SHORT)) as scope:
        began = time.monotonic()
        scope.start()
        # The forced record and the first acquisition, one after the other.
        assert time.monotonic() - began > 0.35


def test_no_trigger_is_told() -> None:
    with (
        bench(simulator("5mA/1s", **SHORT)) as address,
        KEYSIGHT.open(address, Options(settings=SHORT | {"wait": "200ms"})) as scope,
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
        KEYSIGHT.open(address, Options(settings=SHORT)) as scope,
    ):
        header = scope.start()
        decoder = KEYSIGHT.decoder(header)
        blocks: list[Block] = []
        with pytest.raises(IncompleteError):
            for _ in range(200):
                blocks += decoder.feed(scope.read(0.1))
    assert len(blocks) >= 4


def test_a_preamble_that_is_only_zero_is_asked_for_again() -> None:
    made = simulator(**SHORT)
    made.zero_preambles = 1
    with bench(made) as address:
        _, blocks = taken(address, 4)
    assert len(blocks) >= 4


class Strict(InfiniiVisionSimulator):  # type: ignore[misc]
    """Sends half of a waveform without a word, or refuses what begins like `refused`."""

    half = False
    refused = "?"

    def answer(self, command: str) -> bytes | None:
        if command.startswith(self.refused):
            raise Refused(-221, "Settings conflict")
        given: bytes | None = super().answer(command)
        if self.half and given is not None and command == ":WAV:DATA?":
            payload = given[10 : 10 + (len(given) - 10) // 2]
            return b"#8%08d" % len(payload) + payload
        return given


def strict() -> Strict:
    options = Options(settings=SHORT)
    return Strict(parse_load(LOAD), KEYSIGHT.INFO.chosen(options), options)


def test_a_short_page_is_told() -> None:
    made = strict()
    made.half = True
    with bench(made) as address, pytest.raises(DataError, match="2000 samples came with 1000 bytes"):
        taken(address, 1)


def test_a_refused_setting_is_told_in_the_instruments_words() -> None:
    made = strict()
    made.refused = ":CHAN2:PROB"
    with bench(made) as address, pytest.raises(UsageError, match="-221 Settings conflict"):
        taken(address, 1)


def test_without_the_licence_there_are_single_records() -> None:
    made = simulator(**SHORT)
    made.licensed = False
    with bench(made) as address:
        header, blocks = taken(address, 3)
    assert Code.FEWER_RECORDS in [caveat.code for caveat in header.caveats]
    assert len(blocks) >= 3


def test_what_cannot_be_forced_is_taken_at_its_word() -> None:
    """Without :TRIGger:FORCe, the record is what its settings say."""
    made = simulator(**SHORT)
    made.forces = False
    with bench(made) as address:
        header, blocks = taken(address, 4)
    assert (header.rate_hz, header.parameters["points"], header.parameters["before"]) == (1e6, 2000, 200)
    assert abs(int(np.argmax(blocks[0].data["c1"] > 1.65)) - 200) <= 1


def test_a_channel_that_it_has_not_is_told() -> None:
    made = simulator(**SHORT)
    made.identity = "AGILENT TECHNOLOGIES,DSO-X 2022A,SIM00000001,02.60"
    with bench(made) as address, pytest.raises(UsageError, match="has 2 channels, not c3"):
        taken(address, 1, voltage="c3")


def test_two_channels_are_enough() -> None:
    made = simulator(**SHORT)
    made.identity = "AGILENT TECHNOLOGIES,DSO-X 2022A,SIM00000001,02.60"
    made.channels = {number: made.channels[number] for number in (1, 2)}
    with bench(made) as address:
        header, blocks = taken(address, 1)
    assert header.model == "DSO-X 2022A" and len(blocks[0]) == 2000


def test_a_voltage_on_a_channel() -> None:
    with bench(simulator(**SHORT, voltage="c3")) as address:
        _, blocks = taken(address, 1, voltage="c3")
    # 3.3 V before the shunt; 12 mV behind it. An input's offset is up to 0.1 div of 1 V and 2 mV x 10.
    assert float(blocks[0].data["voltage"][300:1300].mean()) == pytest.approx(3.3 - 12e-3, abs=0.12)


def test_it_is_left_running() -> None:
    made = simulator(**SHORT)
    with bench(made) as address:
        taken(address, 1)
        deadline = time.monotonic() + 5
        while not made.running and time.monotonic() < deadline:
            time.sleep(0.01)
    assert made.running and made.segments == 0


# -- other programs ---------------------------------------------------------------------------------------------------

CLIENT = """
import sys
import numpy as np
from keyoscacquire.oscilloscope import Oscilloscope
scope = Oscilloscope(sys.argv[1], timeout=5000, verbose=False)
scope.write(':TIMebase:SCALe 2.0E-4'); scope.write(':TIMebase:POSition 8.0E-4')
scope.write(':CHANnel1:SCALe 1'); scope.write(':CHANnel1:OFFSet 1.5')
scope.write(':CHANnel2:PROBe 10'); scope.write(':CHANnel2:SCALe 0.01'); scope.write(':CHANnel2:OFFSet 0.01')
scope.run()
time, volts, _ = scope.set_options_get_trace(wav_format=sys.argv[2], channels=[1, 2], acq_type='NORMal')
scope.stop()
np.savez(sys.argv[3], time=time, volts=volts)
"""


@pytest.mark.outside
@pytest.mark.parametrize("width", ["BYTE", "WORD"])
def test_keyoscacquire_sees_what_was_drawn_and_what_we_see(width: str, tmp_path: Path) -> None:
    """It takes codes with a sign, we take them without: both are the volts at the probes' tips."""
    python = os.environ.get("JOULEMETER_KEYOSCACQUIRE") or sys.executable
    if python == sys.executable and importlib.util.find_spec("keyoscacquire") is None:
        pytest.skip("needs keyoscacquire, or JOULEMETER_KEYOSCACQUIRE as an interpreter that has it")
    path = tmp_path / "volts.npz"
    with serving(simulator(**SHORT), "socket") as where:
        subprocess.run(
            [python, "-c", CLIENT, where["socket"], width, str(path)],
            env=os.environ | {"PYVISA_LIBRARY": "@py"}, check=True, timeout=60, capture_output=True,
        )  # fmt: skip
        with Scpi(open_session(where["socket"])) as scope:
            scope.write(":WAV:UNS 1", ":WAV:BYT MSBF")
            ours = {}
            for number in (1, 2):
                preamble = scope.ask(f":WAV:SOUR CHAN{number}", ":WAV:PRE?")
                codes = scope.ask_block(":WAV:DATA?").tobytes()
                ours[number] = wire.trace(wire.part("MSBF", preamble, codes)).volts
    theirs = np.load(path)
    np.testing.assert_allclose(theirs["volts"][:, 0], ours[1], atol=1e-9)
    np.testing.assert_allclose(theirs["volts"][:, 1], ours[2], atol=1e-9)
    at = theirs["time"].ravel()
    inside, before = (at > 1e-5) & (at < 1.1e-3), at < -1e-5
    # 3.3 V on the line; 12 and 2 mA on one ohm, each within 0.1 div.
    assert theirs["volts"][inside, 0].mean() == pytest.approx(3.3, abs=0.1)
    assert theirs["volts"][inside, 1].mean() == pytest.approx(12e-3, abs=1e-3)
    assert theirs["volts"][before, 1].mean() == pytest.approx(2e-3, abs=1e-3)
    step = theirs["volts"][inside, 1].mean() - theirs["volts"][before, 1].mean()
    assert step == pytest.approx(10e-3, rel=0.01)


# -- the command line -------------------------------------------------------------------------------------------------


def test_a_lost_network_keeps_what_was_fetched(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "joulemeter", "measure", "--meter", "infiniivision", "--simulate", "--faults",
         "unplug@4s", "--trigger", "c1@1.65V", "--assume-voltage", "3V", "--windows", "100000", "-o", str(tmp_path),
         "--quiet", "--inferences-per-window", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 6, done.stderr
    assert "energy per inference" in done.stdout
    assert "kept" in done.stderr
