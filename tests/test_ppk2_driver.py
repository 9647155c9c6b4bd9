"""The PPK2's driver against the device end of its wire, in process and on a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from ppk2_streams import TRANSCRIPT, joined

from joulemeter.capture import Basis, Header
from joulemeter.caveat import Code, Severity
from joulemeter.errors import IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.instruments import ppk2
from joulemeter.instruments.ppk2 import driver
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.transport.serve import serve_pty

LOAD = parse_load("8mA/20ms/d0,250uA/80ms")
RAW = {"filter": "raw"}

pty_only = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")


class Heard:
    """A device that writes down what it is told."""

    def __init__(self, device: Device) -> None:
        self.device, self.commands = device, b""

    def receive(self, data: bytes) -> None:
        self.commands += data
        self.device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        return self.device.transmit(now_s)


class Scripted:
    """A device that answers 0x19 with the given text and is silent otherwise."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.outbox = answer, b""

    def receive(self, data: bytes) -> None:
        if b"\x19" in data:
            self.outbox += self.answer

    def transmit(self, now_s: float) -> bytes:
        sent, self.outbox = self.outbox, b""
        return sent


def connected(load: Load, options: Options, faults: str = "") -> tuple[driver.Driver, Heard]:
    heard = Heard(FaultyDevice(ppk2.simulate(load, options), parse_faults(faults)))
    return driver.Driver(LoopbackLink(heard), options, ppk2.INFO.chosen(options)["filter"]), heard


def recorded(
    load: Load, seconds: float, options: Options, faults: str = ""
) -> tuple[Header, dict[str, Any], list[Any]]:
    meter, _ = connected(load, options, faults)
    with meter:
        header = meter.start()
        raw = b"".join(meter.read(1.0) for _ in range(round(seconds / 0.02)))
    decoder = ppk2.decoder(header)
    blocks = decoder.feed(raw) + decoder.finish()
    return header, joined(blocks), blocks


@contextlib.contextmanager
def on_pty(device: Device, *, paced: bool = True) -> Iterator[str]:
    ports: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(path: str) -> None:
        ports.append(path)
        ready.set()

    server = threading.Thread(
        target=serve_pty, args=(device, announce, stop.is_set), kwargs={"paced": paced}, daemon=True
    )
    server.start()
    assert ready.wait(5)
    try:
        yield ports[0]
    finally:
        stop.set()
        server.join(5)


# What the user asked for, and what the meter is told.


def test_supply_sets_mode_regulator_and_power_before_the_stream_and_undoes_it_after() -> None:
    meter, heard = connected(LOAD, Options(supply_v=1.8))
    assert heard.commands == b"\x07\x19"
    header = meter.start()
    assert heard.commands == b"\x07\x19" + b"\x11\x02" + b"\x0d\x07\x08" + b"\x0c\x01" + b"\x06"
    assert header.voltage is not None
    assert (header.voltage.volts, header.voltage.basis) == (1.8, Basis.SET)
    assert header.voltage.limit.value == pytest.approx(0.02 * 1.8 + 0.01)
    assert header.parameters["volts"] == 1.8
    heard.commands = b""
    meter.stop()
    # Off, the regulator back to the 3000 mV and the mode back to the one found.
    assert heard.commands == b"\x07" + b"\x0c\x00" + b"\x0d\x0b\xb8" + b"\x11\x01"
    meter.stop()
    meter.close()
    meter.close()
    assert heard.commands == b"\x07" + b"\x0c\x00" + b"\x0d\x0b\xb8" + b"\x11\x01"


def test_declared_voltage_makes_it_an_ammeter_and_leaves_the_power_switch_alone() -> None:
    meter, heard = connected(LOAD, Options(declared_v=3.3))
    header = meter.start()
    meter.close()
    assert heard.commands == b"\x07\x19" + b"\x11\x01" + b"\x06" + b"\x07" + b"\x11\x01"
    assert header.voltage is not None
    assert (header.voltage.volts, header.voltage.basis) == (3.3, Basis.DECLARED)
    assert header.voltage.limit.value == pytest.approx(0.165)


def test_without_a_voltage_nothing_is_switched_and_the_header_says_so() -> None:
    meter, heard = connected(LOAD, Options())
    header = meter.start()
    meter.close()
    assert heard.commands == b"\x07\x19" + b"\x06" + b"\x07"
    assert header.voltage is None
    assert header.parameters["volts"] == 3.0
    assert [caveat.code for caveat in header.caveats] == [Code.VOLTAGE_UNKNOWN]


@pytest.mark.parametrize("options", [
    Options(supply_v=3.0, declared_v=3.0),
    Options(supply_v=0.79),
    Options(supply_v=5.01),
    Options(supply_v=float("nan")),
    Options(declared_v=0.0),
    Options(settings={"filter": "strong"}),
    Options(settings={"fliter": "raw"}),
])  # fmt: skip
def test_options_that_cannot_be_are_refused_before_any_port_is_opened(options: Options) -> None:
    with pytest.raises(UsageError):
        ppk2.open("/dev/no-such-port", options)


def test_header_is_complete_and_says_that_it_is_simulated() -> None:
    header, _, _ = recorded(LOAD, 0.1, Options(supply_v=3.0))
    assert header.simulated
    assert (header.wire, header.rate_hz, header.word_bytes, header.loss_modulo) == ("ppk2-words/1", 1e5, 4, 64)
    assert [channel.name for channel in header.channels] == ["current", "range", "digital"]
    assert header.channels[2].lines == ("d0", "d1", "d2", "d3", "d4", "d5", "d6", "d7")
    assert header.parameters["calibration"]["R"] == [1008.19, 102.38, 10.41, 0.978, 0.0574]


def caveats_of(answer: bytes) -> dict[Code, Severity]:
    with driver.Driver(LoopbackLink(Scripted(answer)), Options(declared_v=3.0)) as meter:
        return {caveat.code: caveat.severity for caveat in meter.start().caveats}


def test_doubts_about_the_calibration_are_said() -> None:
    assert caveats_of(TRANSCRIPT.replace(b"Calibrated: 0", b"Calibrated: 1")) == {}
    assert caveats_of(TRANSCRIPT) == {Code.CALIBRATION_DEFAULTED: Severity.NOTE}
    assert caveats_of(TRANSCRIPT.replace(b"R4: 0.0564\n", b"")) == {Code.CALIBRATION_DEFAULTED: Severity.DOUBT}
    odd = caveats_of(TRANSCRIPT.replace(b"UG1: 1.00", b"UG1: 1.20"))
    assert odd[Code.ACCURACY_UNVERIFIED] is Severity.DOUBT
    with driver.Driver(LoopbackLink(Scripted(TRANSCRIPT)), Options(declared_v=3.0)) as meter:
        assert not meter.start().simulated


def test_a_defaulted_constant_widens_its_own_range_only() -> None:
    answer = TRANSCRIPT.replace(b"GS3: 2.4217", b"GS3: -nan")
    with driver.Driver(LoopbackLink(Scripted(answer)), Options(declared_v=3.0)) as meter:
        rows = meter.start().channels[0].accuracy
    assert [row.verified for row in rows] == [True, True, True, False, True]


# Energy through real bytes.


@pytest.mark.parametrize("text", ["8mA/20ms/d0,250uA/80ms", "120mA/2.345ms/d0,3uA/7.655ms", "45mA/5ms/d0,55mA/5ms"])
def test_charge_of_each_pulse_is_the_loads(text: str) -> None:
    load = parse_load(text)
    _, samples, _ = recorded(load, 1.0, Options(supply_v=3.3, settings=RAW))
    high = (samples["digital"] & 1).astype(bool)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], high.astype(int)])) == 1)
    stops = np.flatnonzero(np.diff(np.concatenate([high.astype(int), [0]])) == -1) + 1
    charges_c = np.array([samples["current"][a:b].sum() * 1e-5 for a, b in zip(starts, stops, strict=True)])
    truth_c = load.pulse_charge_c(0)
    assert truth_c is not None
    assert len(charges_c) >= 10
    # Five sigma of 2.4 codes, 1.0 mA each in the top range and 46 µA in the next; an edge may be shared.
    peak_a = max(step.current_a for step in load.steps)
    noise_c = 5 * 2.4 * (1.1e-3 if peak_a > 50e-3 else 50e-6) * 1e-5 * np.sqrt(np.max(stops - starts))
    edge_c = 0.0 if load.pulse_duration_s(0) * 1e5 % 1 < 1e-6 else peak_a * 1e-5
    assert np.abs(charges_c - truth_c).max() < noise_c + edge_c
    assert charges_c.mean() == pytest.approx(truth_c, abs=noise_c / np.sqrt(len(charges_c)) + edge_c)


def test_without_noise_every_sample_is_within_half_a_code() -> None:
    load = parse_load("10uA/5ms,100uA/5ms,1mA/5ms,10mA/5ms,100mA/5ms,900mA/5ms")
    header, samples, _ = recorded(load, 0.06, Options(declared_v=2.5, settings={"filter": "raw", "noise": "off"}))
    truth_a = load.mean_current_a(0, len(samples["current"]), 1e5)
    code_a = np.array([45e-9, 0.46e-6, 4.8e-6, 55e-6, 0.95e-3])[samples["range"]]
    assert np.all(np.abs(samples["current"] - truth_a) <= 0.51 * code_a)
    assert sorted(set(samples["range"])) == [0, 1, 2, 3, 4]
    assert header.voltage is not None


def test_a_wrong_declared_voltage_shifts_the_top_range_by_its_constant() -> None:
    """S4 = 2.447 mA/V: the board runs on 3.0 V, the user says 4.0 V."""
    load = parse_load("100mA/10ms")
    device = ppk2.simulate(load, Options(declared_v=3.0, settings={"noise": "off"}))
    with driver.Driver(LoopbackLink(device), Options(declared_v=4.0), "raw") as meter:
        decoder = ppk2.decoder(meter.start())
        samples = joined(decoder.feed(b"".join(meter.read(1) for _ in range(5))))
    assert samples["current"].mean() - 0.1 == pytest.approx(2.447e-3, abs=0.5e-3)


# The device end.


def test_the_board_is_off_until_it_is_powered_in_source_mode() -> None:
    device = ppk2.simulate(parse_load("6mA/10ms/d3"), Options(settings={"noise": "off"}))
    device.receive(b"\x11")
    device.receive(b"\x02\x06")
    off = np.frombuffer(device.transmit(0.01), "<u4")
    device.receive(b"\x0c\x01")
    on = np.frombuffer(device.transmit(0.02), "<u4")
    assert (len(off), len(on)) == (1000, 1000)
    assert set(off >> 24) == {0}
    assert set(off >> 14 & 7) == {0}
    assert set(on >> 24) == {8}
    assert set(on >> 14 & 7) == {3}
    assert (np.diff(np.concatenate([off, on]) >> 18 & 63) % 64 == 1).all()


def test_ranges_hold_on_to_a_load_near_their_limit() -> None:
    """Up above 50 µA, down again only below 40 µA."""
    device = ppk2.simulate(parse_load("45uA/1ms,55uA/1ms,45uA/1ms,35uA/1ms"), Options(settings={"noise": "off"}))
    device.receive(b"\x06")
    ranges = np.frombuffer(device.transmit(0.004), "<u4") >> 14 & 7
    assert ranges[50::100].tolist() == [0, 1, 1, 0]


def test_time_steps_of_the_simulator_do_not_matter() -> None:
    one, other = (ppk2.simulate(LOAD, Options()) for _ in range(2))
    for device in (one, other):
        device.transmit(0.5)
        device.receive(b"\x06")
    whole = one.transmit(0.6)
    assert whole == b"".join(other.transmit(0.5 + step * 0.00137) for step in range(73)) + other.transmit(0.6)
    assert len(whole) == 40_000


# Cables, other programs, other devices.


def test_a_meter_left_streaming_by_a_crashed_program_is_stopped_first() -> None:
    device = ppk2.simulate(LOAD, Options())
    device.receive(b"\x06")
    device.transmit(0.1)
    with driver.Driver(LoopbackLink(device), Options()) as meter:
        assert meter.metadata.mode == 1


def test_something_that_never_falls_silent_is_no_ppk2(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chatter(Scripted):
        def transmit(self, now_s: float) -> bytes:
            return b"I (1234) main: hello\r\n"

    monkeypatch.setattr(driver, "DRAIN_S", 0.05)
    with pytest.raises(NotFoundError, match="keeps sending"):
        driver.Driver(LoopbackLink(Chatter(b"")), Options())


@pytest.mark.parametrize("answer", [b"", b"ppk2:~$ \r\n", TRANSCRIPT[:300]])
def test_something_that_does_not_answer_is_no_ppk2(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(driver, "ANSWER_S", 0.05)
    with pytest.raises(NotFoundError, match="second port of a PPK2"):
        driver.Driver(LoopbackLink(Scripted(answer)), Options())


def test_lost_bytes_on_the_cable_are_a_counted_hole() -> None:
    _, samples, blocks = recorded(LOAD, 0.6, Options(declared_v=3.0), "drop@0.4s:128")
    assert [block.lost_before for block in blocks if block.lost_before] == [32]
    assert samples["index"][-1] + 1 == 60_000


@pytest.mark.parametrize("faults", ["drop@0.4s:7", "insert@0.4s:3", "insert@0.4s:130", "garble@0.4s:600"])
def test_spoilt_bytes_do_not_spoil_the_mean(faults: str) -> None:
    load = parse_load("2mA/10ms/d0")
    _, samples, blocks = recorded(load, 0.6, Options(declared_v=3.0), faults)
    assert any(block.lost_before for block in blocks)
    assert samples["index"][-1] + 1 == 60_000
    assert np.abs(samples["current"] - 2e-3).max() < 8 * 2.4 * 4.8e-6
    assert set(samples["digital"]) == {1}


def test_unplugging_in_the_stream_is_incomplete_and_close_is_quiet() -> None:
    meter, _ = connected(LOAD, Options(supply_v=3.0), "unplug@0.5s")
    meter.start()
    received = 0
    with pytest.raises(IncompleteError):
        for _ in range(1000):
            received += len(meter.read(1.0))
    assert received > 10_000
    meter.stop()
    meter.close()
    meter.close()


def test_starting_twice_is_refused_and_starting_again_after_stop_works() -> None:
    meter, _ = connected(LOAD, Options(supply_v=3.0))
    with meter:
        meter.start()
        with pytest.raises(UsageError, match="streaming already"):
            meter.start()
        meter.stop()
        decoder = ppk2.decoder(meter.start())
        samples = joined(decoder.feed(meter.read(1.0) + meter.read(1.0)))
        # The load begins anew: 20 ms at 8 mA with D0 high.
        assert samples["digital"][:1990].all()


@pty_only
def test_a_session_on_a_pty_leaves_the_meter_clean_for_the_next_program() -> None:
    with on_pty(ppk2.simulate(LOAD, Options())) as port:
        for _ in range(2):
            with ppk2.open(port, Options(supply_v=3.0)) as meter:
                header = meter.start()
                deadline, raw = time.monotonic() + 5, b""
                while len(raw) < 4 * 20_000 and time.monotonic() < deadline:
                    raw += meter.read(0.05)
            assert header.address == port
            decoder = ppk2.decoder(header)
            samples = joined(decoder.feed(raw) + decoder.finish())
            assert len(samples["current"]) == len(raw) // 4
            assert samples["current"][:19_999].mean() == pytest.approx(LOAD.mean_a, rel=0.01)


@pty_only
def test_a_port_that_goes_away_is_incomplete_on_a_pty_too() -> None:
    device = FaultyDevice(ppk2.simulate(LOAD, Options()), parse_faults("unplug@0.5s"))
    with on_pty(device) as port:
        meter = ppk2.open(port, Options(supply_v=3.0))
        meter.start()
        deadline = time.monotonic() + 10
        with pytest.raises(JouleMeterError) as caught:
            while time.monotonic() < deadline:
                meter.read(0.05)
        assert isinstance(caught.value, IncompleteError)
        meter.close()


def test_no_such_port() -> None:
    with pytest.raises(NotFoundError):
        ppk2.open("/dev/no-such-port", Options())
