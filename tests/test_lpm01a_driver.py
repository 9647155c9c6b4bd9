"""The LPM01A's driver against the device end of its wire, in process and on a real pseudo-terminal."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from joulemeter import store
from joulemeter.capture import Basis, Block, Header, Kind, Quantity
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.instruments import lpm01a
from joulemeter.instruments.lpm01a import discovery, driver, wire
from joulemeter.physics.lines import from_line
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport import Link
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.transport.serve import serve_pty
from joulemeter.trigger import parse_trigger

LOAD = parse_load("8mA/20ms/d0,250uA/80ms")
pty_only = pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")


class Heard:
    """A device that writes down what it is told."""

    def __init__(self, device: Device) -> None:
        self.device, self.said = device, b""

    def receive(self, data: bytes) -> None:
        self.said += data
        self.device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        return self.device.transmit(now_s)

    def commands(self) -> list[str]:
        """What was said since the last call."""
        said, self.said = self.said, b""
        return said.decode().split("\r\n")[:-1]


class Scripted:
    """A device that answers commands as it is told, and is silent to others."""

    def __init__(self, answers: Callable[[str], bytes]) -> None:
        self.answers, self.outbox = answers, b""

    def receive(self, data: bytes) -> None:
        for text in data.decode().split("\r\n"):
            self.outbox += self.answers(text) if text else b""

    def transmit(self, now_s: float) -> bytes:
        sent, self.outbox = self.outbox, b""
        return sent


def connected(load: Load, options: Options, faults: str = "") -> tuple[driver.Driver, Heard]:
    heard = Heard(FaultyDevice(lpm01a.simulate(load, options), parse_faults(faults)))
    return opened(LoopbackLink(heard), options), heard


def opened(link: Link, options: Options) -> driver.Driver:
    return driver.Driver(link, options, lpm01a.INFO.chosen(options))


def recorded(load: Load, seconds: float, options: Options, faults: str = "") -> tuple[Header, bytes, list[Block]]:
    meter, _ = connected(load, options, faults)
    with meter:
        header = meter.start()
        raw = b"".join(meter.read(1.0) for _ in range(round(seconds / 0.02)))
    decoder = lpm01a.decoder(header)
    return header, raw, decoder.feed(raw) + decoder.finish()


def column(blocks: list[Block], name: str) -> Any:
    return np.concatenate([block.data[name] for block in blocks])


def supplied(**settings: str) -> Options:
    return Options(supply_v=3.0, settings=settings)


@contextlib.contextmanager
def on_pty(device: Device) -> Iterator[str]:
    ports: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(path: str) -> None:
        ports.append(path)
        ready.set()

    server = threading.Thread(target=serve_pty, args=(device, announce, stop.is_set), daemon=True)
    server.start()
    assert ready.wait(5)
    try:
        yield ports[0]
    finally:
        stop.set()
        server.join(5)


# What the user asked for, and what the meter is told.


def test_the_meter_is_set_up_as_mlcommons_runner_does_and_left_as_it_was_found() -> None:
    meter, heard = connected(LOAD, Options(supply_v=1.8, settings={"output": "energy"}))
    assert heard.commands() == ["", "stop", "powershield", "version", "htc"]
    header = meter.start()
    assert heard.commands() == [
        *("pwr get", "volt get", "acqmode dyn", "acqtime inf", "trigsrc sw", "trigdelay 0", "output energy"),
        *("format ascii_dec", "freq 1k", "eventsrc d7 fal", "volt 1800m", "pwr on nostatus", "start"),
    ]
    assert header.parameters["supply_v"] == 1.8
    meter.stop()
    assert heard.commands() == ["stop", "pwr off"]
    meter.stop()
    meter.close()
    meter.close()
    assert heard.commands() == ["hrc"]


def test_a_board_that_had_power_keeps_it_and_gets_its_voltage_back() -> None:
    device = lpm01a.simulate(LOAD, Options())
    device.receive(b"volt 3300m\r\npwr on\r\n")
    device.transmit(0.0)
    heard = Heard(device)
    with opened(LoopbackLink(heard), Options(supply_v=1.8)) as meter:
        meter.start()
        heard.commands()
    assert heard.commands() == ["stop", "volt 3300m", "hrc"]
    with opened(LoopbackLink(heard), Options()) as meter:
        header = meter.start()
    assert header.voltage is not None
    assert (header.voltage.volts, header.voltage.basis) == (3.3, Basis.SET)
    assert header.voltage.limit.value == pytest.approx(0.033)  # UM2269, 4.4: about 1 %
    assert not {"pwr off", "volt 3300m"} & set(heard.commands())


def test_without_a_voltage_nothing_gets_power_and_the_header_says_so() -> None:
    """Left alone, `pwr auto` powers the board when the acquisition starts."""
    meter, heard = connected(LOAD, Options())
    header = meter.start()
    raw = b"".join(meter.read(1.0) for _ in range(10))
    meter.close()
    assert "pwr off" in heard.commands()
    assert header.voltage is None
    assert [caveat.code for caveat in header.caveats] == [Code.VOLTAGE_UNKNOWN]
    decoder = lpm01a.decoder(header)
    assert not column(decoder.feed(raw) + decoder.finish(), "current").any()


@pytest.mark.parametrize("options", [
    Options(declared_v=3.0),
    Options(supply_v=1.79),
    Options(supply_v=3.31),
    Options(supply_v=float("nan")),
    supplied(rate="10k"),
    supplied(rate="3k"),
    supplied(format="binary", rate="500"),
    supplied(format="hex"),
    supplied(output="energy", format="binary", rate="20k"),
    supplied(output="energy", funcmode="high"),
    supplied(filter="raw"),
])  # fmt: skip
def test_options_that_cannot_be_are_refused_before_any_port_is_opened(options: Options) -> None:
    with pytest.raises(UsageError):
        lpm01a.open("/dev/no-such-port", options)


@pytest.mark.parametrize("settings", [{"trouble": "overrun@1s"}, {"trouble": "flood@1s"}, {"firmware": "new"}])
def test_settings_of_the_simulator_that_cannot_be_are_refused(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        lpm01a.simulate(LOAD, Options(settings=settings))


def test_header_is_complete_and_says_that_it_is_simulated() -> None:
    header, _, _ = recorded(LOAD, 0.1, supplied())
    assert header.simulated
    assert (header.wire, header.rate_hz, header.word_bytes) == ("lpm01a-ascii/1", 1000.0, 9)
    assert (header.firmware, header.loss_modulo) == (": 1.0.6".strip(": "), None)
    assert [(channel.name, channel.kind) for channel in header.channels] == [
        ("current", Kind.MEAN),
        ("digital", Kind.STATE),
    ]
    binary, _, _ = recorded(LOAD, 0.1, supplied(format="binary", rate="100k", output="current"))
    assert (binary.wire, binary.rate_hz, binary.word_bytes) == ("lpm01a-binary/1", 1e5, 2)
    assert [channel.quantity for channel in binary.channels] == [Quantity.CURRENT]
    energy, _, _ = recorded(LOAD, 0.1, supplied(output="energy"))
    assert energy.channels[0].quantity is Quantity.POWER
    assert energy.voltage is None
    # 2 %, and 1 % of the voltage it multiplies by, rectangular.
    assert energy.channels[0].accuracy[0].gain.standard == pytest.approx(np.hypot(0.02, 0.01) / 3**0.5)


# Energy through real bytes.


@pytest.mark.parametrize("settings", [
    {},
    {"rate": "5k"},
    {"output": "energy"},
    {"output": "energy", "rate": "5k"},
    {"format": "binary"},
    {"format": "binary", "rate": "100k"},
    {"format": "binary", "rate": "10k", "output": "energy"},
])  # fmt: skip
def test_energy_of_whole_cycles_is_the_loads(settings: dict[str, str]) -> None:
    load = parse_load("20mA/13ms/d0,3uA/24ms,250uA/63ms")
    header, _, blocks = recorded(load, 2.0, supplied(**settings))
    power_w = column(blocks, header.channels[0].name) * (1.0 if settings.get("output") == "energy" else 3.0)
    joules = power_w.sum() / header.rate_hz
    # Four digits are good to 0.05 % of a sample, twelve bits to 0.2 % (UM2269, 4.4.2).
    limit = 2e-3 if settings.get("format") == "binary" else 5e-4
    assert joules == pytest.approx(20 * 3.0 * load.cycle_charge_c, rel=limit)


@pytest.mark.parametrize("rate", ["1", "2", "5", "10", "20", "50", "100", "200", "500", "1k", "2k", "5k"])
def test_every_rate_of_the_ascii_format(rate: str) -> None:
    hz = wire.RATES_HZ[rate]
    header, _, blocks = recorded(LOAD, max(0.4, 3 / hz), supplied(rate=rate))
    assert header.rate_hz == hz
    mean_a = LOAD.mean_current_a(0, 1_000_000, hz)
    current = column(blocks, "current")
    assert len(current) >= min(3, 0.4 * hz)
    assert current == pytest.approx(mean_a[: len(current)], rel=5e-4)


def test_edges_lie_where_d7_falls() -> None:
    _, _, blocks = recorded(LOAD, 1.0, supplied())
    falls = [block.first_index + k for block in blocks for k in np.flatnonzero(block.data["digital"] == 0)]
    assert falls == [20 + 100 * k for k in range(10)]
    _, _, blocks = recorded(parse_load("8mA/20ms/d3,1mA/80ms"), 1.0, supplied(wired="d3", rate="5k"))
    falls = [block.first_index + k for block in blocks for k in np.flatnonzero(block.data["digital"] == 0)]
    assert falls == [100 + 500 * k for k in range(10)]


def test_a_pulse_much_shorter_than_a_sample_is_seen() -> None:
    """The stamp of MLPerf Tiny need be low for a microsecond only; here 20 µs at 100 samples a second."""
    _, _, blocks = recorded(parse_load("8mA/99.98ms/d0,8mA/20us"), 1.0, supplied(rate="100"))
    falls = [block.first_index + k for block in blocks for k in np.flatnonzero(block.data["digital"] == 0)]
    assert falls == [9 + 10 * k for k in range(10)]


# A recording on disk.


def stored(folder: Path, options: Options, seconds: float) -> store.RunStream:
    """As the recorder writes it, with anchors every 50 ms of the meter's own time, 1 ms late."""
    meter, _ = connected(LOAD, options)
    with meter:
        header = meter.start()
        writer = store.StreamWriter(folder / "lpm01a", header)
        for k in range(round(seconds / 0.05)):
            writer.append(meter.read(0.05) + meter.read(0.01) + meter.read(0.02))
            now_ns = round((k + 1) * 0.05 * 1e9) + 1_000_000
            writer.mark("anchor", bytes=writer.bytes, monotonic_ns=now_ns, utc_ns=now_ns)
        writer.mark("end", reason="stop", bytes=writer.bytes)
        writer.close()
    return store.RunStream(folder / "lpm01a")


def test_text_between_samples_does_not_look_like_a_wrong_clock(tmp_path: Path) -> None:
    """Stamps and events are 2 % of the bytes here: counted as samples, they would be a drift of 20 000 ppm."""
    stream = stored(tmp_path, supplied(), 10.0)
    assert stream.gaps == ()
    assert stream.length == pytest.approx(10_000, abs=20)
    assert abs(stream.timebase.drift_ppm or 0.0) < 100
    assert stream.timebase.from_monotonic(5_000_000_000) == pytest.approx(5e9, abs=2e6)


def test_only_forms_that_falling_edges_can_serve_are_offered(tmp_path: Path) -> None:
    stream = stored(tmp_path, supplied(), 2.5)
    found, u_samples = from_line(stream, parse_trigger("d7:falling"), None)
    assert [span.start_ns for span in found.spans[:3]] == [20_000_000, 120_000_000, 220_000_000]
    assert u_samples == pytest.approx(1 / 3**0.5)
    assert len(from_line(stream, parse_trigger("d7:falling-pairs"), None)[0].spans) == 12
    for form in ("d7", "d7:low", "d7:rising"):
        with pytest.raises(UsageError, match="only when d7 falls"):
            from_line(stream, parse_trigger(form), None)


# Cables, other programs, other devices, old firmware.


def test_a_meter_left_streaming_by_a_crashed_program_is_stopped_first() -> None:
    for format_ in ("ascii_dec", "bin_hexa"):
        device = lpm01a.simulate(LOAD, Options())
        device.receive(f"format {format_}\r\nfreq 1k\r\nstart\r\nfre".encode())
        device.transmit(0.1)
        with opened(LoopbackLink(device), supplied()) as meter:
            meter.start()
            assert meter.read(1.0)


def test_stale_output_before_the_first_answer_is_no_answer() -> None:
    device = lpm01a.simulate(LOAD, Options())
    device.receive(b'nonsense\r\nversion\r\nlcd 1 "x"\r\n')
    with opened(LoopbackLink(device), supplied()) as meter:
        assert meter.firmware == "1.0.6"


def test_stopping_what_has_ended_by_itself_does_not_hang() -> None:
    meter, _ = connected(LOAD, supplied(trouble="end@0.2s"))
    meter.start()
    with pytest.raises(IncompleteError, match="ended the acquisition by itself: Acquisition stopped"):
        for _ in range(100):
            meter.read(1.0)
    started = time.monotonic()
    meter.stop()
    meter.stop()
    meter.close()
    assert time.monotonic() - started < 5
    binary, _ = connected(LOAD, supplied(trouble="end@0.2s", format="binary", rate="100k"))
    binary.start()
    with pytest.raises(IncompleteError, match="Data buffer full"):
        for _ in range(100):
            binary.read(1.0)
    binary.close()


@pytest.mark.parametrize("firmware", ["1.0.5", "1.0.2", "0.9.9"])
def test_firmware_that_is_too_old_is_told_with_its_remedy(firmware: str) -> None:
    with pytest.raises(NotFoundError, match=f"firmware {firmware}; 1.0.6 or later") as caught:
        connected(LOAD, Options(settings={"firmware": firmware}))
    assert "STM32-LPM01-XN" in caught.value.remedy
    connected(LOAD, Options(settings={"firmware": "1.1.0"}))[0].close()


def answers(text: str) -> bytes:
    """As printed in UM2269 (board, version), by zephyr (voltage) and in EEMBC's energyrunner issue 8 (the refusal)."""
    known = {
        "powershield": "ack powershield 540619864-1110659081-4784204",
        "version": "ack version: 1.0.6",
        "volt get": "ack volt get 3292-03",
        "pwr get": "ack pwr get off",
        "pwr on nostatus": "error pwr on nostatus",
        "pwr off": "error pwr off",
        "freq 2k": "err freq 2k\r\nError detail: not now",
    }
    return f"\r\nPowerShield > {known.get(text, f'ack {text}')}\r\n\r\n".encode() if text != "stop" else b""


def test_answers_as_published_are_understood() -> None:
    with opened(LoopbackLink(Scripted(answers)), supplied()) as meter:
        assert meter.board == "540619864-1110659081-4784204"
        with pytest.raises(NotFoundError, match="firmware is too old") as caught:
            meter.start()
        assert "1.0.6" in caught.value.remedy or "STM32-LPM01-XN" in caught.value.remedy
    with (
        opened(LoopbackLink(Scripted(answers)), supplied(rate="2k")) as meter,
        pytest.raises(DataError, match="not now"),
    ):
        meter.start()
    assert wire.number("3292-03") == 3.292
    assert (wire.number("3300m"), wire.number("2-3"), wire.number("on")) == (3.3, 0.002, None)


def test_a_command_that_was_not_understood_is_said_once_more() -> None:
    """At the bench of another client: `error: Command unknown` for a first htc, and a line behind the voltage."""
    told: list[str] = []

    def moody(text: str) -> bytes:
        told.append(text)
        if text == "htc" and told.count("htc") == 1:
            return b"\r\nerror: Command unknown\r\n"
        more = b"calibration request handled\r\n" if text == "volt get" else b""
        return answers(text).replace(b"error pwr on", b"ack pwr on") + more

    with opened(LoopbackLink(Scripted(moody)), supplied()) as meter:
        assert meter.start().parameters["found_v"] == 3.292
    assert told.count("htc") == 2
    unable = Scripted(lambda text: b"error: Command unknown\r\n" if text == "htc" else answers(text))
    with pytest.raises(DataError, match="Command unknown"):
        opened(LoopbackLink(unable), supplied())


def test_a_real_units_header_is_not_simulated() -> None:
    def willing(text: str) -> bytes:
        return answers(text).replace(b"error pwr on", b"ack pwr on")

    with opened(LoopbackLink(Scripted(willing)), supplied()) as meter:
        header = meter.start()
    assert not header.simulated
    assert header.parameters["found_v"] == 3.292


def test_something_that_never_falls_silent_is_no_lpm01a(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chatter(Scripted):
        def transmit(self, now_s: float) -> bytes:
            return b"I (1234) main: hello\r\n"

    monkeypatch.setattr(driver, "DRAIN_S", 0.05)
    with pytest.raises(NotFoundError, match="keeps sending"):
        opened(LoopbackLink(Chatter(answers)), Options())


@pytest.mark.parametrize(
    "answer", [b"", b"e-[Unknown command: powershield]\r\n", b"\r\nPowerShield > error powershield\r\n"]
)
def test_something_that_does_not_answer_is_no_lpm01a(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    monkeypatch.setattr(driver, "IDENTIFY_S", 0.05)
    with pytest.raises(NotFoundError, match="share its USB id"):
        opened(LoopbackLink(Scripted(lambda text: answer)), Options())


def test_a_meter_that_falls_silent_while_it_is_set_up_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ANSWER_S", 0.05)
    meter = opened(LoopbackLink(Scripted(lambda text: b"" if text.startswith("freq") else answers(text))), supplied())
    with pytest.raises(IncompleteError, match="does not answer to 'freq 1k'"):
        meter.start()
    meter.close()


@pytest.mark.parametrize(("faults", "settings"), [
    ("drop@0.4s:9", {}),
    ("drop@0.4s:7", {}),
    ("insert@0.4s:30", {}),
    ("garble@0.4s:50", {}),
    ("drop@0.45s:9", {"format": "binary", "rate": "10k"}),
    ("drop@0.45s:8", {"format": "binary", "rate": "10k"}),
    ("insert@0.45s:31", {"format": "binary", "rate": "10k"}),
])  # fmt: skip
def test_spoilt_bytes_do_not_spoil_the_mean(faults: str, settings: dict[str, str]) -> None:
    load = parse_load("2mA/10ms")
    header, _, blocks = recorded(load, 3.5, supplied(**settings), faults)
    current = column(blocks, "current")
    assert np.nanmax(np.abs(current - 2e-3)) < 2e-3 * 2e-3
    assert blocks[-1].first_index + len(blocks[-1]) == round(3.5 * header.rate_hz)
    assert 0 < sum(block.lost_before for block in blocks) <= 1000 or "insert" in faults


def test_an_overrun_of_the_meters_buffer_is_a_counted_hole() -> None:
    _, raw, blocks = recorded(LOAD, 3.5, supplied(trouble="overrun@1.2s:300"))
    assert b"buff 100%" in raw
    assert sum(block.lost_before for block in blocks) == 1000
    assert blocks[-1].first_index + len(blocks[-1]) == 3500


def test_unplugging_in_the_stream_is_incomplete_and_close_is_quiet() -> None:
    meter, _ = connected(LOAD, supplied(), "unplug@1.5s")
    meter.start()
    received = 0
    with pytest.raises(IncompleteError):
        for _ in range(1000):
            received += len(meter.read(1.0))
    assert received > 1000
    meter.stop()
    meter.close()
    meter.close()


def test_starting_twice_is_refused_and_starting_again_after_stop_works() -> None:
    meter, _ = connected(LOAD, supplied())
    with meter:
        meter.start()
        with pytest.raises(UsageError, match="streaming already"):
            meter.start()
        meter.stop()
        decoder = lpm01a.decoder(meter.start())
        blocks = decoder.feed(meter.read(1.0) + meter.read(1.0)) + decoder.finish()
        # The load begins anew: 20 ms at 8 mA.
        assert column(blocks, "current")[:20] == pytest.approx(8e-3)


@pty_only
def test_a_session_on_a_pty_leaves_the_meter_clean_and_a_busy_port_is_told() -> None:
    with on_pty(lpm01a.simulate(LOAD, Options())) as port:
        for _ in range(2):
            with lpm01a.open(port, supplied()) as meter:
                with pytest.raises(AccessError, match="in use"):
                    lpm01a.open(port, supplied())
                header = meter.start()
                deadline, raw = time.monotonic() + 5, b""
                while len(raw) < 9 * 300 and time.monotonic() < deadline:
                    raw += meter.read(0.05)
            assert header.address == port
            decoder = lpm01a.decoder(header)
            current = column(decoder.feed(raw) + decoder.finish(), "current")
            assert current[:200].mean() == pytest.approx(LOAD.mean_a, rel=1e-3)


# Discovery.


def port(device: str, product: str | None = None, pid: int = 0x5740, serial: str | None = "A1") -> Any:
    return SimpleNamespace(device=device, vid=0x0483, pid=pid, product=product, serial_number=serial)


def test_discovery_says_that_the_id_is_shared(tmp_path: Path) -> None:
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    found = discovery.discover("lpm01a", [port(one), port(two, "PowerShield"), port("/x", pid=0x374B)])
    assert [(unit.address, unit.description) for unit in found] == [
        (two, "PowerShield"),
        (one, "STM32 virtual serial port, perhaps an LPM01A"),
    ]
    with pytest.raises(UsageError, match="More than one LPM01A"):
        discovery.port_of("", found)
    assert discovery.port_of("", found[:1]) == found[0]
    assert discovery.port_of(one, found) == found[1]
    assert discovery.port_of("/dev/else", found) is None
    with pytest.raises(NotFoundError, match="No LPM01A is connected"):
        discovery.port_of("", [])
    (blocked,) = discovery.discover("lpm01a", [port(str(tmp_path / "absent"))])
    assert blocked.problem is not None
    with pytest.raises(NotFoundError, match="can be opened"):
        discovery.port_of("", [blocked])
