"""SCPI instruments by profiles: answers that others published, files of the user's, and other people's programs."""

from __future__ import annotations

import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from inline_meters import Bench, Says, charge_c, column, decoded, indices, read_for, stream_of, times_s

from joulemeter.capture import Basis, Block, Header, Kind, Quantity, Status
from joulemeter.errors import DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import scpi_meter
from joulemeter.instruments.scpi_meter import channels, driver, profile, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.witness import cross_check
from joulemeter.scpi import Identity, Scpi, parse_identity
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.scpidevice import BentDevice, ByteFault, Refused, ScpiDevice
from joulemeter.transport.scpiserve import serving
from joulemeter.transport.visa_wires import LinkSession
from joulemeter.window import Window

LOAD = parse_load("900mA/8s/d0,300mA/8s")
STEADY = parse_load("1.2345A/8s")
CLOCKED = (
    "joulemeter.polled",
    "joulemeter.scpi",
    "joulemeter.transport.visa_wires",
    "joulemeter.instruments.scpi_meter.driver",
)
SHIPPED = list(profile.shipped())
SUPPLIES = [name for name, loaded in profile.shipped().items() if loaded.profile.supply is not None]
SELECTING = [name for name, loaded in profile.shipped().items() if "{channel}" in "".join(loaded.profile.setup)]


class Transcript(ScpiDevice):
    """Answers word for word as somebody saw an instrument answer; takes any command."""

    def __init__(self, identity: str, answers: Mapping[str, str]) -> None:
        super().__init__()
        self.identity = identity
        self.answers = dict(answers)
        self.told: list[str] = []

    def answer(self, command: str) -> bytes | None:
        if command.lstrip(":") in self.answers:
            return self.answers[command.lstrip(":")].encode()
        if "?" in command:
            raise Refused(-113, "Undefined header")
        self.told.append(command)
        return None


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(scpi_meter.simulate(LOAD, Options())).take_over(monkeypatch, *CLOCKED)


def instrument(load: Load = STEADY, **settings: str) -> ScpiDevice:
    """A simulated one."""
    made = scpi_meter.simulate(load, Options(settings=settings))
    assert isinstance(made, ScpiDevice)
    return made


def opened(
    bench: Bench, supply_v: float | None = None, declared_v: float | None = None, **settings: str
) -> driver.Driver:
    options = Options(supply_v=supply_v, declared_v=declared_v, settings=settings)
    chosen = scpi_meter.INFO.chosen(options)
    given = None if chosen["profile"] == "auto" else profile.find(chosen["profile"])
    return driver.Driver(Scpi(LinkSession(bench), timeout_s=driver.IDENTIFY_S), given, options, chosen)


def recorded(bench: Bench, seconds: float = 2.0, **asked: object) -> tuple[Header, list[Block]]:
    with opened(bench, **asked) as meter:  # type: ignore[arg-type]
        header = meter.start()
        raw = read_for(bench, meter, seconds)
    return header, decoded(scpi_meter.decoder(header), raw)


def own(folder: Path, text: str, name: str = "own.toml") -> str:
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return str(path)


OWN = """
    name = "Acme PM-1"
    makers = ["Acme*"]
    models = ["PM-1"]
    source = "made up for a test"
    verified = "no"

    [[reading]]
    quantity = "current"
    query = "I?"
    unit = "mA"
    refresh = "100ms"
"""


# What others published.

# A DP832A as a program's tests have it, channels of an E36312A as another's, an E36312A and others as they say who
# they are (TUM's TcpInstruments.jl and further programs).
DP832A = {"MEAS:ALL? CH1": "5.0114,0.0000,0.000", "OUTP? CH1": "ON", "SOUR1:VOLT?": "5.000"}
E36312A = {"MEAS:VOLT? (@1)": "+1.00123000E+00", "MEAS:CURR? (@1)": "+5.12300000E-02", "OUTP? (@1)": "1"}


def test_the_published_answers_of_a_dp832a(bench: Bench) -> None:
    bench.device = device = Transcript("RIGOL TECHNOLOGIES,DP832A,SN,FW", DP832A)
    header, blocks = recorded(bench)
    assert (header.model, header.parameters["profile"], header.simulated) == (
        "RIGOL TECHNOLOGIES DP832A", "rigol-dp832", False,
    )  # fmt: skip
    assert set(column(blocks, "voltage")) == {5.0114}
    assert set(column(blocks, "current")) == {0.0}
    current = header.channel(Quantity.CURRENT)
    assert current is not None
    # Rigol DP800 Performance Verification Manual: 0.15 % + 5 mA.
    assert (current.accuracy[0].gain.value, current.accuracy[0].offset.value) == pytest.approx((0.0015, 0.005))
    assert device.told == [], "a supply that nobody asked to supply is told nothing"


def test_the_published_answers_of_an_e36312a(bench: Bench) -> None:
    bench.device = Transcript("Keysight Technologies,E36312A,MY59002391,2.1.0-1.0.4-1.12", E36312A)
    header, blocks = recorded(bench)
    assert (header.serial, header.firmware) == ("MY59002391", "2.1.0-1.0.4-1.12")
    assert set(column(blocks, "voltage")) == {1.00123}
    assert set(column(blocks, "current")) == {0.05123}


@pytest.mark.parametrize(("said", "name"), [
    ("Keysight Technologies,34465A,MY59008389,A.03.01-03.15-03.01-00.52-03-02", "keysight-34461a"),
    ("Keysight Technologies,E36312A,MY59002391,2.1.0-1.0.4-1.12", "keysight-e36312a"),
    ("RIGOL TECHNOLOGIES,DP832A,DP8B26AM00234,00.01.19", "rigol-dp832"),
    ("Siglent Technologies,SPD3303X,SPD3XIDQ4R3481,1.01.01.02.05,V3.0", "siglent-spd3303x"),
    ("Rohde&Schwarz,NGM202,3638.4472k03/101403,03.068 00A8F863604", "rs-ngl-ngm"),
    ("Rohde&Schwarz,NGE103B,5601.3800k03/100123,02.203", "rs-nge100"),
    ("KEITHLEY INSTRUMENTS INC.,MODEL 2400,1163289,C30   Mar 17 2006 09:29:29/A02  /K/J", "keithley-2400"),
    ("Rohde&Schwarz,RTB2004,1333.1005k04/113192,02.400", None),
])  # fmt: skip
def test_what_instruments_say_they_are_finds_their_profile(said: str, name: str | None) -> None:
    identity = parse_identity(said)
    assert identity is not None
    found = profile.matching(identity)
    assert (found and found.path) == name


@pytest.mark.parametrize(("text", "value"), [
    ("+1.23456789E-03", 1.23456789e-3),  # NR3, as Keysight's
    ("5.0114", 5.0114),
    (" -.5 ", -0.5),
    ("0", 0.0),
    ("1e3", 1000.0),
])  # fmt: skip
def test_numbers_as_ieee_488_has_them(text: str, value: float) -> None:
    assert wire.number(text) == value


@pytest.mark.parametrize("text", ["9.90000000E+37", "-9.9E+37", "9.91E37", "+9.91000000E+37", "NAN", "INF", "ovld"])
def test_what_says_that_there_is_no_reading(text: str) -> None:
    """SCPI-99, volume 1, 7.2.1, and the HMC8012's manual; a word of the profile's own."""
    value = wire.number(text, {"OVLD"})
    assert value is not None
    assert math.isnan(value)


@pytest.mark.parametrize("text", ["", "1.2.3", "5.0V", "0x10", "1_000", "١", "--1", "1e", "OVLD", "nan(1)", "1 2"])
def test_what_is_no_number_is_spoilt(text: str) -> None:
    assert wire.number(text) is None


@pytest.mark.parametrize(("text", "said"), [
    ('+0,"No error"', None),
    ('0,"No error"', None),
    ("0  No Error", None),  # Siglent
    ("No error", None),  # Rigol DP900
    ('-113,"Undefined header"', '-113,"Undefined header"'),
    ("+221 Settings conflict\n", "+221 Settings conflict"),
])  # fmt: skip
def test_error_queues_of_several_makers(text: str, said: str | None) -> None:
    assert wire.complaint(text) == said


@pytest.mark.parametrize(("text", "mask", "on"), [
    ("1", None, True), ("ON", None, True), ("0", None, False), ("OFF", None, False), ("maybe", None, None),
    ("0x0224", 0x20, True), ("0x0224", 0x10, False), ("?", 0x10, None),
])  # fmt: skip
def test_whether_an_output_is_on(text: str, mask: int | None, on: bool | None) -> None:
    """0x0224 is the example of the SPD/PSD 3303 manual: the second output is on."""
    assert wire.is_on(text, mask) is on


# The profiles that come with the package.


def test_info_says_what_the_profiles_are() -> None:
    shipped = profile.shipped()
    assert sorted(scpi_meter.INFO.models) == sorted(loaded.profile.name for loaded in shipped.values())
    assert scpi_meter.INFO.channels == channels.channels(shipped[scpi_meter.SIMULATED].profile)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_profile_tells_where_it_comes_from(name: str) -> None:
    found = profile.shipped()[name].profile
    assert found.source
    assert found.verified.startswith("simulator only")
    for reading in found.readings:
        assert all(row.source for row in reading.accuracy)


@pytest.mark.parametrize("name", SHIPPED)
def test_each_profile_reads_its_simulated_instrument(name: str, bench: Bench) -> None:
    bench.device = instrument(profile=name)
    header, blocks = recorded(bench, declared_v=None if profile.find(name).profile.sees_voltage else 3.0)
    assert header.simulated
    assert header.parameters["profile"] == name
    assert column(blocks, "current") == pytest.approx(1.2345, abs=1e-7)
    if profile.find(name).profile.sees_voltage:
        assert column(blocks, "voltage") == pytest.approx(3.0)
    assert indices(blocks) == list(range(len(indices(blocks)))), "nothing is lost"
    assert bench.closed == 1


@pytest.mark.parametrize("name", SELECTING)
def test_the_selected_channel_is_put_back(name: str, bench: Bench) -> None:
    """The board hangs on the first; the second is off and shows nothing."""
    bench.device = instrument(profile=name)
    with pytest.raises(UsageError, match="is off"):
        recorded(bench, channel="2")
    told = [line for line in bench.said.decode().splitlines() if line.lstrip(":").startswith("INST")]
    assert "2" in told[1]
    assert "1" in told[-1]


@pytest.mark.parametrize("name", SUPPLIES)
def test_each_supply_powers_the_board_and_is_left_as_it_was_found(name: str, bench: Bench) -> None:
    """The board hangs on the last channel, which is off until somebody asks."""
    found = profile.find(name).profile
    last = found.channels[-1].name
    bench.device = instrument(profile=name, channel=last)
    assert found.supply is not None
    # Somebody switched it off by hand.
    for command in (*(setup for setup in found.setup if "{channel}" in setup), *found.supply.off):
        bench.device.receive(profile.fill(command, found.channels[-1]).encode() + b"\n")
    with opened(bench, supply_v=4.0, channel=last) as meter:
        header = meter.start()
        blocks = decoded(scpi_meter.decoder(header), read_for(bench, meter, 1.0))
    assert column(blocks, "voltage") == pytest.approx(4.0)
    assert column(blocks, "current") == pytest.approx(1.2345)
    with pytest.raises(UsageError, match="is off, so there is nothing to measure"):
        recorded(bench, channel=last)
    with opened(bench, supply_v=4.0, channel=last) as meter:
        meter.start()
    assert "3.0000" in bench.said.decode(), "the voltage that was set before is set again"


def test_the_order_in_which_a_supply_is_switched(bench: Bench) -> None:
    answers = {**E36312A, "OUTP? (@1)": "0", "VOLT? (@1)": "+5.00000000E+00", "MEAS:VOLT? (@1)": "+3.30012000E+00"}

    class Switched(Transcript):
        def answer(self, command: str) -> bytes | None:
            self.answers["OUTP? (@1)"] = {":OUTP ON,(@1)": "1", ":OUTP OFF,(@1)": "0"}.get(
                command, self.answers["OUTP? (@1)"]
            )
            return super().answer(command)

    bench.device = device = Switched("Keysight Technologies,E36312A,MY59002391,2.1.0-1.0.4-1.12", answers)
    with opened(bench, supply_v=3.3) as meter:
        meter.start()
        assert device.told == [":VOLT 3.3000,(@1)", ":OUTP ON,(@1)"]
        meter.stop()
        meter.stop()
    assert device.told[2:] == [":OUTP OFF,(@1)", ":VOLT 5.0000,(@1)"]


# Supplying what it should not.


def test_a_board_that_runs_is_not_given_another_voltage(bench: Bench) -> None:
    bench.device = instrument()
    with pytest.raises(UsageError, match="on already, at 3 V"):
        recorded(bench, supply_v=5.0)
    assert b"OUTP O" not in bench.said
    assert b":VOLT 5" not in bench.said
    header, _ = recorded(bench, supply_v=3.0)
    assert header.voltage is None, "it is measured"
    assert b":VOLT 3" not in bench.said, "what is so already stays so"


def test_an_output_that_does_not_come_up_is_told_and_switched_off(bench: Bench) -> None:
    answers = {**E36312A, "OUTP? (@1)": "0", "VOLT? (@1)": "+5.0E+00", "MEAS:VOLT? (@1)": "+1.20000000E-01"}
    bench.device = device = Transcript("Keysight Technologies,E36312A,MY1,1", answers)
    with opened(bench, supply_v=3.3) as meter, pytest.raises(UsageError, match=r"120\.0 mV instead of 3\.3 V"):
        meter.start()
    assert device.told[-2:] == [":OUTP OFF,(@1)", ":VOLT 5.0000,(@1)"]


@pytest.mark.parametrize(("asked", "said"), [
    ({"supply_v": 6.5}, "cannot supply 6.5 V"),
    ({"supply_v": 0.0}, "cannot supply 0 V"),
    ({"supply_v": float("nan")}, "cannot supply nan V"),
    ({"declared_v": 3.0}, "measures the voltage"),
    ({"channel": "4"}, "no channel '4'"),
    ({"interval": "2s"}, "too seldom"),
    ({"interval": "often"}, "quantity in seconds"),
    ({"profile": "keysight-e36312"}, "Did you mean keysight-e36312a"),
    ({"profile": "nowhere/own.toml"}, "cannot be read"),
])  # fmt: skip
def test_what_cannot_be_is_refused(asked: Mapping[str, str], said: str, bench: Bench) -> None:
    bench.device = instrument()
    with pytest.raises(UsageError, match=said):
        opened(bench, **asked)  # type: ignore[arg-type]


def test_a_multimeter_supplies_nothing_and_needs_a_voltage(bench: Bench) -> None:
    bench.device = instrument(profile="keysight-34461a")
    with pytest.raises(UsageError, match="--assume-voltage"):
        opened(bench, supply_v=3.3)
    header, _ = recorded(bench, declared_v=3.3)
    assert header.voltage is not None
    assert (header.voltage.volts, header.voltage.basis) == (3.3, Basis.DECLARED)
    assert recorded(bench)[0].voltage is None


def test_a_multimeter_measures_again_what_it_did_before(bench: Bench) -> None:
    bench.device = device = Transcript(
        "Keysight Technologies,34465A,MY59008389,A.03", {"SENS:FUNC?": '"VOLT"', "READ?": "-4.29530000E-07"}
    )
    _, blocks = recorded(bench)
    assert device.told == [":CONF:CURR:DC AUTO", ":SENS:CURR:DC:NPLC 1", ':SENS:FUNC "VOLT"']
    assert set(column(blocks, "current")) == {-4.2953e-7}


def test_nothing_gets_into_a_command_by_way_of_an_answer(bench: Bench) -> None:
    bench.device = device = Transcript("Keysight Technologies,34465A,MY1,1", {"SENS:FUNC?": "VOLT;*RST", "READ?": "1"})
    with opened(bench) as meter, pytest.raises(DataError, match=re.escape("VOLT;*RST")):
        meter.start()
    assert device.told == []


def test_what_the_instrument_refuses_is_told_in_its_words(bench: Bench) -> None:
    class Stubborn(Transcript):
        def answer(self, command: str) -> bytes | None:
            if command.startswith(":SENS:CURR"):
                raise Refused(-222, "Data out of range")
            return super().answer(command)

    bench.device = device = Stubborn("Keysight Technologies,34465A,MY1,1", {"SENS:FUNC?": '"RES"', "READ?": "1"})
    with (
        opened(bench) as meter,
        pytest.raises(UsageError, match=r'NPLC 1 is refused by the .*: -222,"Data out'),
    ):
        meter.start()
    assert device.told[-1] == ':SENS:FUNC "RES"'


# Files of the user's.


def test_a_file_of_the_users_own_from_end_to_end(tmp_path: Path, bench: Bench) -> None:
    """Milliamperes, a counter in milliwatt-hours that starts over, two numbers by one message, a word for overload."""
    path = own(tmp_path, OWN + """
    [[reading]]
    quantity = "voltage"
    query = "V?;P?"
    field = 1
    refresh = "100ms"

    [[reading]]
    quantity = "power"
    query = "V?;P?"
    field = 2
    unit = "kW"
    refresh = "100ms"

    [[reading]]
    quantity = "energy"
    query = "WH?"
    unit = "mWh"
    wrap = "5mWh"
    witness = true
    refresh = "1s"

    [[reading.accuracy]]
    gain = "1%"
    offset = "2mW"
    source = "made up for a test"
    verified = true
    """)  # fmt: skip
    bench.device = instrument(STEADY, profile=path)
    header, blocks = recorded(bench, 20.0, profile=path)
    assert column(blocks, "current") == pytest.approx(1.2345)
    assert column(blocks, "voltage") == pytest.approx(3.0)
    assert column(blocks, "power") == pytest.approx(3.7035)
    counted = header.channels[3]
    assert (counted.kind, counted.unit, counted.witness) == (Kind.CUMULATIVE, "J", True)
    assert counted.wrap == pytest.approx(18.0)
    assert counted.refresh_s == 1.0
    assert counted.accuracy[0].offset.value == pytest.approx(2e-3)
    steps = np.diff(column(blocks, "counted energy"))
    assert sum(steps < 0) == 4, "74 J are four times 18 J and a little"
    check = cross_check(stream_of(header, blocks))
    assert check is not None
    assert check.agrees
    assert header.parameters["profile_sha256"] == profile.find(path).sha256


@pytest.mark.parametrize(("change", "said"), [
    (("query = ", "querry = "), r"reading\[0\]\.querry is not a known key. Did you mean 'query'"),
    (("refresh = ", "connektion.baud = 1\n    refresh = "), "connektion is not a known key"),
    (('"100ms"', '"100mA"'), r"reading\[0\]\.refresh: '100mA' is not a quantity in seconds"),
    (('"100ms"', "0.1"), r"reading\[0\].*must be text with a unit"),
    (('"100ms"', '"0s"'), "greater than zero"),
    (('"mA"', '"mV"'), "'1mV' is not a quantity in amperes"),
    (('"current"', '"curent"'), "curent"),
    (('"I?"', '"I"'), "no question"),
    (('"I?"', '"I? {volts}"'), r"\{volts\} in 'I\? \{volts\}' stands for nothing here"),
    (('"I?"', '"I? {channel.__class__}"'), "stands for nothing"),
    (('"I?"', '"I? {channel"'), "lone brace"),
    (('"I?"', '"I? {channel}"'), r"no \[\[channel\]\]"),
    (('"I?"', '"I?\\n*RST"'), "one line of plain letters"),
    (('"I?"', '"I? µ"'), "one line of plain letters"),
    (('verified = "no"', 'verified = "no"\n    setup = ["FUNC?"]'), "whose answer nobody would read"),
    (('verified = "no"', 'verified = "no"\n    setup = ["VOLT {volts}"]'), "stands for nothing"),
    (('models = ["PM-1"]', "models = []"), "need a pattern"),
    (("source = ", "sauce = "), "sauce is not a known key. Did you mean 'source'"),
    (("name = ", "name = = "), "is not TOML"),
    (('"100ms"', '"100ms"\n    wrap = "1mWh"'), "leave wrap out"),
    (('"100ms"', '"100ms"\n    witness = true'), "no reading is to be reported"),
    (('"100ms"', '"100ms"\n    accuracy = [{gain = "1%", offset = "1mV", source = "x"}]'), "amperes"),
    (('"100ms"', '"100ms"\n    accuracy = [{gain = "1%", offset = "-1mA", source = "x"}]'), "less than nothing"),
    (('"100ms"', '"100ms"\n    [[channel]]\n    name = "1;*RST"'), "capitals and digits"),
    (('"100ms"', '"100ms"\n    [[channel]]\n    name = "1"\n    min = "3V"\n    max = "2V"'), "min is not below max"),
    (('"100ms"', '"100ms"\n    [supply]\n    set = ["V 1"]\n    on = ["1"]\n    off = ["0"]\n    state = "S?"\n'
      '    voltage = "V?"'), r"no command of set has \{volts\}"),
    (('"100ms"', '"100ms"\n    [supply]\n    set = ["V {volts}"]\n    on = ["1"]\n    off = ["0"]\n    state = "S?"\n'
      '    voltage = "V?"'), "each of them a max"),
])  # fmt: skip
def test_mistakes_in_a_file_are_told_with_file_and_key(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    good = own(tmp_path, OWN, "good.toml")
    assert profile.load(Path(good)).name == "Acme PM-1"
    assert change[0] in OWN
    bad = own(tmp_path, OWN.replace(*change))
    with pytest.raises(UsageError, match=said) as caught:
        profile.load(Path(bad))
    assert "own.toml" in caught.value.what


def test_the_example_in_the_notes_is_a_profile_and_measures(tmp_path: Path, bench: Bench) -> None:
    notes = (Path(scpi_meter.__file__).parent / "notes.md").read_text(encoding="utf-8")
    path = own(tmp_path, notes.partition("```toml\n")[2].partition("```")[0])
    bench.device = instrument(profile=path)
    header, blocks = recorded(bench, profile=path)
    assert column(blocks, "current") == pytest.approx(1.2345)
    assert [channel.name for channel in header.channels] == ["current", "voltage", "counted energy"]
    tables = (profile.Profile, profile.Connection, profile.Channel, profile.Reading, profile.Row, profile.Supply)
    keys = {key for table in tables for key in table.__struct_encode_fields__}
    shown = set(re.findall(r"^(?:\[\[?(?:\w+\.)?(\w+)\]\]?|(\w+) = )", notes, re.MULTILINE))
    assert keys == {bracketed or plain for bracketed, plain in shown}, "each key is shown, and no other"


def test_a_profile_for_another_instrument_is_not_used(tmp_path: Path, bench: Bench) -> None:
    bench.device = instrument()
    with pytest.raises(NotFoundError, match="is a Keysight E36312A; the profile rigol-dp832 is for other instruments"):
        opened(bench, profile="rigol-dp832")
    bench.device = Transcript("Acme,PM-2,1,1", {"I?": "12"})
    with pytest.raises(NotFoundError, match="no profile fits"):
        opened(bench)
    with pytest.raises(NotFoundError, match="other instruments"):
        opened(bench, profile=own(tmp_path, OWN))
    _, blocks = recorded(bench, profile=own(tmp_path, OWN.replace('"PM-1"', '"PM-?"')))
    assert set(column(blocks, "current")) == {0.012}


# What a recording holds.


@pytest.mark.parametrize("name", ["keysight-e36312a", "rigol-dp832", "rs-ngl-ngm"])
def test_energy_of_windows_is_within_what_a_slow_meter_leaves_open(name: str, bench: Bench) -> None:
    bench.device = instrument(LOAD, profile=name)
    header, blocks = recorded(bench, 66.0)
    assert header.epoch is not None
    begun_s = header.epoch.monotonic_ns * 1e-9
    windows = [
        Window(start_ns=round((16 * k - begun_s) * 1e9), stop_ns=round((16 * k + 8 - begun_s) * 1e9), index=k)
        for k in range(1, 4)
    ]
    truth_j = 3.0 * charge_c(LOAD, 16.0, 24.0)
    assert truth_j == pytest.approx(21.6)
    for one in integrate(stream_of(header, blocks), windows):
        assert one.energy_j is not None
        assert one.resolution_j is not None
        assert abs(one.energy_j - truth_j) <= one.resolution_j
    (whole,) = integrate(
        stream_of(header, blocks), [Window(start_ns=windows[0].start_ns, stop_ns=windows[2].start_ns, index=0)]
    )
    assert whole.energy_j == pytest.approx(3.0 * charge_c(LOAD, 16.0, 48.0), rel=2e-3)


def test_readings_lie_on_a_grid_and_are_as_old_as_half_a_refresh(bench: Bench) -> None:
    bench.device = instrument()
    header, blocks = recorded(bench, 4.9, interval="200ms")
    assert header.rate_hz == pytest.approx(5.0)
    assert times_s(blocks) == pytest.approx(np.arange(len(indices(blocks))) * 0.2 - 0.1, abs=0.02)
    assert recorded(bench)[0].rate_hz == pytest.approx(10.0)


def test_an_overload_is_no_measurement_and_is_counted(bench: Bench) -> None:
    class Overloaded(Transcript):
        def answer(self, command: str) -> bytes | None:
            self.answers["READ?"] = "+9.90000000E+37" if 2.0 < self.now_s < 2.5 else "+1.00000000E-01"
            return super().answer(command)

    bench.device = Overloaded("Keysight Technologies,34461A,MY1,1", {"SENS:FUNC?": '"CURR"', "READ?": "1"})
    _, blocks = recorded(bench, 6.0, declared_v=3.0)
    current = column(blocks, "current")
    missing = np.isnan(current)
    assert 8 <= missing.sum() <= 30
    assert set(current[~missing]) == {0.1}
    marks = np.concatenate([np.zeros(len(one), np.uint8) if one.status is None else one.status for one in blocks])
    assert (marks[missing] == Status.INVALID).all()
    assert not marks[~missing].any()


@pytest.mark.parametrize("answer", ["+1.2\xff4E-01", "5.0114", "5.0114,", ",0.1,0.5", "5,1,1\x00;", "x" * 300])
def test_spoilt_answers_are_lost_samples(answer: str, bench: Bench) -> None:
    class Spoiling(Transcript):
        def answer(self, command: str) -> bytes | None:
            given = super().answer(command)
            return answer.encode("latin-1") if "ALL" in command and 2.0 < self.now_s < 2.55 else given

    bench.device = Spoiling("RIGOL TECHNOLOGIES,DP832A,SN,FW", DP832A)
    _, blocks = recorded(bench, 4.0, interval="100ms")
    assert sum(block.lost_before for block in blocks) in (5, 6)
    assert set(column(blocks, "voltage")) == {5.0114}


# Faults, on the wires that instruments have.


def test_a_host_alone_leads_to_the_port_of_the_profile(tmp_path: Path) -> None:
    with serving(instrument(channel="2"), "socket") as where:
        port = where["socket"].split("::")[2]
        shipped = (Path(scpi_meter.__file__).parent / "profiles" / "keysight-e36312a.toml").read_text(encoding="utf-8")
        path = own(tmp_path, shipped.replace("port = 5025", f"port = {port}"))
        options = Options(supply_v=3.0, settings={"profile": path, "channel": "2"})
        with scpi_meter.open("127.0.0.1", options) as meter:
            header = meter.start()
    assert header.parameters["queries"] == [":MEAS:CURR? (@2)", ":MEAS:VOLT? (@2)"]


def test_unplugged_while_recording_keeps_what_came() -> None:
    device = BentDevice(instrument(), [ByteFault(kind="unplug", at=400)])
    with serving(device, "socket") as where:
        meter = scpi_meter.open(where["socket"], Options(settings={"interval": "20ms"}))
        header = meter.start()
        raw = b""
        with pytest.raises(IncompleteError):
            while True:
                raw += meter.read(0.2)
        for end in (meter.stop, meter.close, meter.close, meter.stop):
            end()
    blocks = decoded(scpi_meter.decoder(header), raw)
    assert len(indices(blocks)) >= 3
    assert column(blocks, "current") == pytest.approx(1.2345)


@pytest.mark.parametrize("wire_kind", ["socket", "vxi11"])
def test_a_stall_is_quiet_and_what_follows_is_right(wire_kind: str, tmp_path: Path) -> None:
    text = OWN.replace("Acme", "Keysight").replace("PM-1", "E36312A").replace("I?", ":MEAS:CURR? (@1)")
    path = own(tmp_path, text.replace('"mA"', '"A"') + '\n    [connection]\n    answer = "300ms"\n')
    device = BentDevice(instrument(), [ByteFault(kind="late", at=300, amount=700)])
    with serving(device, wire_kind) as where:
        with scpi_meter.open(where[wire_kind], Options(settings={"profile": path, "interval": "50ms"})) as meter:
            header = meter.start()
            raw, quiet, until_s = b"", 0, time.monotonic() + 1.8
            while time.monotonic() < until_s:
                got = meter.read(0.2)
                quiet += not got
                raw += got
        blocks = decoded(scpi_meter.decoder(header), raw)
    assert quiet, "it fell silent"
    assert sum(block.lost_before for block in blocks) > 3
    assert column(blocks, "current") == pytest.approx(1.2345), "a late answer is not taken for the next"


@pytest.mark.parametrize("device", [
    Says(b""),
    Says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    Says(b"\x00\x01\xff,\n"),
], ids=["mute", "ssh", "binary"])  # fmt: skip
def test_what_is_no_instrument_is_told(device: Says, bench: Bench) -> None:
    bench.device = device
    begun_s = bench.now_s
    with pytest.raises((NotFoundError, IncompleteError)):
        opened(bench)
    assert bench.now_s - begun_s < 30
    assert bench.closed == 1


def test_without_an_address_it_says_what_to_give() -> None:
    with pytest.raises(NotFoundError, match="scpi_meter@ADDRESS"):
        scpi_meter.open("", Options())


def test_a_program_that_died_in_the_middle_leaves_no_trace() -> None:
    """Somebody asked and did not read; then a new recording begins."""
    with serving(instrument(), "socket") as where:
        first = scpi_meter.open(where["socket"], Options())
        assert isinstance(first, driver.Driver)
        first.start()
        first._scpi.session.write(b":MEAS:VOLT? (@1)\n:MEAS:VOLT? (@1)\n")
        first._scpi.session.close()
        with scpi_meter.open(where["socket"], Options(settings={"interval": "20ms"})) as meter:
            header = meter.start()
            raw = b"".join(meter.read(0.1) for _ in range(20))
    assert column(decoded(scpi_meter.decoder(header), raw), "current") == pytest.approx(1.2345)


def test_the_simulated_instrument_is_on_and_off_with_its_load() -> None:
    said: list[tuple[bool, float]] = []

    class Board:
        name = "board"
        from_time, mean_current_a, lines = STEADY.from_time, STEADY.mean_current_a, STEADY.lines

        def powered(self, on: bool, now_s: float) -> None:
            said.append((on, now_s))

    device = scpi_meter.simulate(Board(), Options())
    device.transmit(2.0)
    device.receive(b"OUTPut:STATe OFF, (@1)\nmeasure:voltage:dc? (@1)\n")
    assert float(device.transmit(2.1)) == 0.0 or float(device.transmit(2.2)) == 0.0
    assert said == [(True, 0.0), (False, 2.0)]


def test_who_is_simulated() -> None:
    assert driver.is_simulated(Identity(maker="Keysight", model="E36312A", serial="SIM00000001"))
    assert not driver.is_simulated(Identity(maker="Keysight", model="E36312A", serial="MY59002391"))
    assert not driver.is_simulated(Identity(maker="Keysight", model="E36312A"))


# Other people's programs.

PYMEASURE = os.environ.get("JOULEMETER_PYMEASURE", sys.executable)
SIGROK = shutil.which(os.environ.get("JOULEMETER_SIGROK_CLI", "sigrok-cli"))
needs_pymeasure = pytest.mark.skipif(
    sys.executable == PYMEASURE and importlib.util.find_spec("pymeasure") is None,
    reason="pymeasure is not installed, and JOULEMETER_PYMEASURE names no Python that has it",
)

CLIENTS = {
    "keysight-e36312a": """
        from pymeasure.instruments.keysight import KeysightE36312A
        supply = KeysightE36312A(adapter)
        first, second = supply.ch_1, supply.ch_2
        print(first.voltage, first.current, int(first.output_enabled), first.voltage_setpoint)
        second.voltage_setpoint = 12.5
        second.output_enabled = True
        print(second.voltage, second.current, int(second.output_enabled), second.voltage_setpoint)
    """,
    "siglent-spd3303x": """
        from pymeasure.instruments.siglenttechnologies.siglent_spd1305x import SPD1305X
        supply = SPD1305X(adapter)
        first = supply.ch_1
        print(first.voltage, first.current, int(bool(supply.system_status_code & 16)), first.voltage_setpoint)
        first.enable_output(False)
        print(first.voltage, first.current, int(bool(supply.system_status_code & 16)), first.voltage_setpoint)
    """,
    "bk-9130b": """
        from pymeasure.instruments.bkprecision import BKPrecision9130B
        supply = BKPrecision9130B(adapter)
        supply.channel = 1
        print(supply.voltage, supply.current, int(supply.source_enabled))
        supply.channel = 2
        print(supply.voltage, supply.current, int(supply.source_enabled))
    """,
    "keysight-34461a": """
        from pymeasure.instruments.hp import HP34401A
        meter = HP34401A(adapter)
        meter.function_ = "DCI"
        meter.nplc = 1
        print(meter.reading)
    """,
}  # fmt: skip
SHOWN: dict[str, list[tuple[float, ...]]] = {
    "keysight-e36312a": [(3.0, 1.2345, 1, 3.0), (12.5, 0.0, 1, 12.5)],
    "siglent-spd3303x": [(3.0, 1.2345, 1, 3.0), (0.0, 0.0, 0, 3.0)],
    "bk-9130b": [(3.0, 1.2345, 1), (0.0, 0.0, 0)],
    "keysight-34461a": [(1.2345,)],
}


@pytest.mark.outside
@needs_pymeasure
@pytest.mark.parametrize("name", CLIENTS)
def test_pymeasure_reads_the_simulator(name: str) -> None:
    """Classes for these very instruments, or their like, in a program of their own."""
    program = (
        "import sys\nfrom pymeasure.adapters import VISAAdapter\n"
        "adapter = VISAAdapter(sys.argv[1], visa_library='@py', read_termination='\\n', write_termination='\\n')\n"
        + textwrap.dedent(CLIENTS[name])
    )
    with serving(instrument(profile=name), "socket") as where:
        command = [PYMEASURE, "-W", "ignore", "-c", program, where["socket"]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    lines = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    assert len(lines) == len(SHOWN[name])
    for line, row in zip(lines, SHOWN[name], strict=True):
        assert line == pytest.approx(row)


@pytest.mark.outside
@pytest.mark.skipif(SIGROK is None, reason="sigrok-cli is not installed, and JOULEMETER_SIGROK_CLI names none")
def test_sigrok_reads_the_simulated_hmc8043() -> None:
    device = instrument(profile="rs-hmc804x")
    with serving(device, "socket") as where:
        port = where["socket"].split("::")[2]
        command = [str(SIGROK), "-d", f"scpi-pps:conn=tcp-raw/127.0.0.1/{port}", "--samples", "1"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    shown = dict(re.findall(r"^(\S+): (.+)$", done.stdout, re.MULTILINE))
    assert shown == {
        "V1": "3.0000 V DC", "I1": "1.2345 A DC", "V2": "0.0 mV DC", "I2": "0.0 mA DC", "V3": "0.0 mV DC",
        "I3": "0.0 mA DC",
    }, done.stderr  # fmt: skip
