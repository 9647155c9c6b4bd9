"""The Otii: lines as its maker documents them, a driver in simulated time, and what an app and a cable can do to it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from joulemeter import frames
from joulemeter.capture import ArrayStream, Block, Channel, Gap, Header, Quantity, Status, Timebase
from joulemeter.errors import AccessError, DataError, IncompleteError, MissingExtraError, NotFoundError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.instruments import otii
from joulemeter.instruments.otii import channels, connection, decode, discovery, driver, wire
from joulemeter.instruments.otii.simulator import LICENCE, OtiiSimulator
from joulemeter.physics.integrate import integrate
from joulemeter.synthetic import parse_load
from joulemeter.transport import UnpluggedError
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.window import Window

pytest.importorskip("otii_tcp_client", reason="needs joulemeter[otii]")

PULSES = parse_load("12mA/20ms/d0,2mA/30ms")
ARC_ID = "Arc512031204843494E3130393033313036"


# -- a bench on which no time passes ----------------------------------------------------------------------------------


class Bench:
    """A link to a device, and the clock of both: it goes on only while somebody waits."""

    address = "bench:1905"

    def __init__(self, device: Device) -> None:
        self.device = device
        self.now_s = 0.0
        self.said = b""
        self.closed = 0

    def read(self, timeout_s: float) -> bytes:
        try:
            data = self.device.transmit(self.now_s)
        except UnpluggedError as error:
            raise IncompleteError("Unplugged.", "Plug it in.") from error
        if not data:
            self.sleep(timeout_s)
        return data

    def write(self, data: bytes) -> None:
        self.said += data
        try:
            self.device.receive(data)
        except UnpluggedError as error:
            raise IncompleteError("Unplugged.", "Plug it in.") from error

    def close(self) -> None:
        self.closed += 1

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def commands(self) -> list[str]:
        return [json.loads(line)["cmd"] for line in self.said.split(b"\r\n") if line]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(OtiiSimulator(PULSES, Options()))
    clock = SimpleNamespace(
        monotonic=lambda: made.now_s, monotonic_ns=lambda: round(made.now_s * 1e9), sleep=made.sleep
    )
    for module in (driver, connection):
        monkeypatch.setattr(module, "time", clock)
    return made


def opened(bench: Bench, options: Options | None = None, **settings: str) -> driver.Driver:
    given = replace(options or Options(), settings=settings)
    chosen = driver.read_settings(otii.INFO.chosen(given))
    return driver.Driver(bench, given, chosen)


def read_for(meter: driver.Driver, bench: Bench, seconds: float) -> bytes:
    raw, until_s = b"", bench.now_s + seconds
    while bench.now_s < until_s:
        raw += meter.read(0.05)
    return raw


def recorded(
    bench: Bench, seconds: float, options: Options | None = None, **settings: str
) -> tuple[Header, list[Block]]:
    with opened(bench, options, **settings) as meter:
        header = meter.start()
        raw = read_for(meter, bench, seconds)
    return header, decoded(header, raw)


def decoded(header: Header, raw: bytes) -> list[Block]:
    decoder = otii.decoder(header)
    return [*decoder.feed(raw), *decoder.finish()]


def column(blocks: list[Block], name: str) -> NDArray[Any]:
    return np.concatenate([block.data[name] for block in blocks])


def stream_of(header: Header, blocks: list[Block]) -> ArrayStream:
    return ArrayStream(
        name="otii",
        header=header,
        timebase=Timebase(rate_hz=header.rate_hz),
        data={channel.name: column(blocks, channel.name) for channel in header.channels},
        gaps=tuple(Gap(index=block.first_index, lost=block.lost_before) for block in blocks if block.lost_before),
    )


def half_width(channel: Channel | None, range_: int | None, value: float) -> float:
    assert channel is not None
    (row,) = [row for row in channel.accuracy if row.range == range_]
    return row.gain.value * value + row.offset.value


# -- lines and frames -------------------------------------------------------------------------------------------------


def test_a_request_is_the_one_of_the_makers_documentation() -> None:
    """The example under "Request syntax" of Qoitech's page "The TCP Server"; the client ends each with CRLF."""
    documented = """{"type": "request", "cmd": "arc_calibrate", "trans_id": "someId",
                     "data": {"device_id": "Arc512031204843494E3130393033313036"}}"""
    line = wire.line(json.loads(documented))
    assert line.endswith(b"\r\n")
    assert line.count(b"\r\n") == 1
    assert json.loads(line) == json.loads(documented)


def test_the_greeting_is_the_one_of_the_makers_client() -> None:
    """From the documentation of OtiiConnection.connect_to_server, otii_tcp_client 1.0.13."""
    told = {"otii_version": "3.5.5", "protocol_version": "0.1", "server": "otii-server"}
    message = {"type": "information", "info": "connected", "data": told}
    greeting = wire.greeting(message)
    assert greeting is not None
    assert (greeting.version, greeting.simulated) == ("3.5.5", False)
    assert wire.greeting({**message, "info": "disconnected"}) is None
    assert wire.greeting({"type": "response", "cmd": "otii_devices", "data": {"devices": []}}) is None


def test_values_are_read_from_the_answers_of_the_makers_client() -> None:
    """From the documentation of Recording.get_channel_data, otii_tcp_client 1.0.13."""
    analog = {"data_type": "analog", "timestamp": 3.250, "interval": 0.00025, "values": [0.002453, 0.002675, 0.001945]}
    series = wire.series(analog)
    assert series is not None
    assert (series.start_s, series.interval_s) == (3.25, 0.00025)
    assert series.values.tolist() == [0.002453, 0.002675, 0.001945]
    digital = {"data_type": "digital", "values": [{"timestamp": 0.001, "value": True}]}
    assert wire.entries(digital, int) == digital["values"]
    log = {"data_type": "log", "values": [{"timestamp": 0.001, "value": "Device booting"}]}
    assert wire.entries(log, str) == log["values"]


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"timestamp": 0, "interval": 0.00025, "values": "0.1"},
        {"timestamp": 0, "interval": 0.0, "values": [0.1]},
        {"timestamp": 0, "interval": 0.00025, "values": [0.1, "x"]},
        {"timestamp": 0, "interval": 0.00025, "values": [0.1, [0.2]]},
        {"timestamp": "0", "interval": 0.00025, "values": [0.1]},
    ],
)
def test_spoilt_answers_are_no_values(data: Any) -> None:
    assert wire.series(data) is None


@pytest.mark.parametrize("value", [1.5, "on", None])
def test_spoilt_entries_are_none(value: Any) -> None:
    assert wire.entries({"values": [{"timestamp": 0.1, "value": value}]}, int) is None


def test_a_pull_comes_back_from_its_frames_piece_by_piece() -> None:
    current = wire.Series(start_s=1.25, interval_s=0.00025, values=np.arange(200) / 7)
    voltage = wire.Series(start_s=1.2505, interval_s=0.001, values=np.arange(50) / 3)
    said = {"i1": [{"timestamp": 1.26, "value": True}], "i2": [], "rx": [{"timestamp": 1.3, "value": "µ done"}]}
    raw = wire.pack(5000, wire.Piece(current=current, voltage=voltage, entries=said, last=True), 16, 80, 1, 2)
    assert len(raw) == 200 * 16
    split = list(frames.Splitter().feed(raw))
    assert [(frame.number, frame.kind) for frame in split] == [(5000, 0), (5066, 0), (5133, 1)]
    pieces = [wire.unpack(frame) for frame in split]
    assert all(piece is not None for piece in pieces)
    whole = [piece for piece in pieces if piece is not None]
    assert np.concatenate([piece.current.values for piece in whole]).tolist() == current.values.tolist()
    assert np.concatenate([piece.voltage.values for piece in whole]).tolist() == voltage.values.tolist()
    assert [piece.current.start_s for piece in whole] == pytest.approx([1.25, 1.25 + 66 / 4000, 1.25 + 133 / 4000])
    assert [piece.voltage.start_s for piece in whole] == pytest.approx([1.2505, 1.2665, 1.2835])
    assert [piece.entries for piece in whole] == [{}, {}, said]
    assert wire.unpack(replace(split[0], payload=b"short")) is None
    assert wire.unpack(replace(split[0], payload=split[0].payload[:100])) is None


# -- from pulls to samples --------------------------------------------------------------------------------------------


def header_of(rate_hz: float = 4000.0, **parameters: Any) -> Header:
    return Header(
        instrument="otii",
        model="Otii Arc",
        wire=wire.FORMAT,
        rate_hz=rate_hz,
        word_bytes=15,
        channels=channels.channels(channels.ARC, lines=3),
        parameters={
            "inputs": ["i1", "i2", "rx"],
            "levels": [False, False, False],
            "words": ["begin", "end"],
            "low_range": "trusted",
            **parameters,
        },
    )


def pull(
    first_s: float,
    current: list[float],
    volts: list[float] = [3.0],  # noqa: B006 - never changed
    volts_s: float | None = None,
    interval_s: float = 0.00025,
    **said: list[tuple[float, Any]],
) -> bytes:
    entries = {name: [{"timestamp": at, "value": value} for at, value in given] for name, given in said.items()}
    piece = wire.Piece(
        current=wire.Series(start_s=first_s, interval_s=interval_s, values=np.array(current)),
        voltage=wire.Series(
            start_s=first_s if volts_s is None else volts_s, interval_s=0.001, values=np.array(volts, dtype=float)
        ),
        entries=entries,
        last=True,
    )
    packed: bytes = wire.pack(0, piece, 15, 80, 0, 0)
    return packed


def test_a_voltage_is_held_over_its_own_interval() -> None:
    blocks = decoded(header_of(), pull(2.0, [1e-3] * 12, [3.0, 3.3, 3.6]))
    assert column(blocks, "voltage").tolist() == [3.0] * 4 + [3.3] * 4 + [3.6] * 4
    # One whose first value begins half a millisecond later: what precedes it takes the nearest there is.
    blocks = decoded(header_of(), pull(2.0, [1e-3] * 12, [3.0, 3.3], volts_s=2.0005))
    assert column(blocks, "voltage").tolist() == [3.0] * 6 + [3.3] * 6
    assert blocks[0].status is None


def test_a_voltage_carried_over_a_hole_is_marked() -> None:
    raw = pull(0.0, [1e-3] * 8, [3.0, 3.0]) + pull(0.002, [1e-3] * 16, [3.0], volts_s=0.005)
    blocks = decoded(header_of(), raw)
    status = np.concatenate([np.zeros(len(b), np.uint8) if b.status is None else b.status for b in blocks])
    # Known up to 2 ms, again from 5 ms on; a millisecond and a half may pass with the last one.
    assert np.flatnonzero(status == Status.ALTERED).tolist() == list(range(14, 20))


def test_values_that_are_none_are_invalid() -> None:
    (block,) = decoded(header_of(), pull(0.0, [1e-3, float("nan"), 1e-3]))
    assert block.status is not None
    assert block.status.tolist() == [0, int(Status.INVALID), 0]


def test_holes_are_seen_in_the_time_stamps() -> None:
    raw = pull(0.5, [1e-3] * 40, [3.0] * 10) + pull(0.5 + 70 / 4000, [2e-3] * 40, [3.0] * 10)
    blocks = decoded(header_of(), raw)
    assert [(block.first_index, len(block), block.lost_before) for block in blocks] == [(0, 40, 0), (70, 40, 30)]


def test_stamps_rounded_to_a_millisecond_make_no_holes() -> None:
    raw = b"".join(pull(round(k * 37 / 4000, 3), [k * 1e-3] * 37, [3.0] * 10) for k in range(20))
    blocks = decoded(header_of(), raw)
    assert sum(len(block) for block in blocks) == 20 * 37
    assert not any(block.lost_before for block in blocks)


def test_what_comes_twice_is_taken_once() -> None:
    raw = pull(0.0, [1e-3] * 40, [3.0] * 10) + pull(0.005, [2e-3] * 40, [3.0] * 10)
    assert column(decoded(header_of(), raw), "current").tolist() == [1e-3] * 40 + [2e-3] * 20


def test_another_sample_rate_is_an_error() -> None:
    with pytest.raises(DataError, match="sample rate"):
        decoded(header_of(), pull(0.0, [1e-3] * 40, interval_s=0.0005))


def test_another_format_is_refused() -> None:
    with pytest.raises(UsageError):
        otii.decoder(replace(header_of(), wire="otii-pull/0"))


def test_lines_change_at_the_sample_whose_middle_lies_behind_the_edge() -> None:
    # Sample k has its middle at (k + 0.5) x 250 µs.
    raw = pull(0.0, [1e-3] * 12, [3.0] * 3, i1=[(0.0011, True), (0.0021, False)], i2=[(0.0013, False)])
    blocks = decoded(header_of(levels=[False, True, False]), raw)
    lines = column(blocks, "digital")
    assert (lines & 1).tolist() == [0] * 4 + [1] * 4 + [0] * 4
    assert (lines >> 1 & 1).tolist() == [1] * 5 + [0] * 7


def test_an_edge_that_comes_with_the_next_pull_finds_its_sample() -> None:
    first, second = pull(0.0, [1e-3] * 40, [3.0] * 10), pull(0.01, [1e-3] * 40, [3.0] * 10, i1=[(0.009, True)])
    decoder = decode.OtiiDecoder(header_of())
    assert decoder.feed(first) == []
    blocks = [*decoder.feed(second), *decoder.finish()]
    assert np.flatnonzero(column(blocks, "digital")).tolist() == list(range(36, 80))


def test_words_of_the_log_make_a_line() -> None:
    said = [(0.001, "I (312) begin\r"), (0.002, "nothing"), (0.004, "end of it"), (0.005, "begin and end")]
    lines = column(decoded(header_of(), pull(0.0, [1e-3] * 40, [3.0] * 10, rx=said)), "digital")
    assert np.flatnonzero(lines & 4).tolist() == list(range(4, 16))


def test_the_range_is_low_only_where_that_is_trusted() -> None:
    raw = pull(0.0, [19e-3, 21e-3, -1e-3, 20e-3])
    assert column(decoded(header_of(), raw), "range").tolist() == [0, 1, 0, 0]
    assert column(decoded(header_of(low_range="doubted"), raw), "range").tolist() == [1, 1, 1, 1]


# -- a known energy through the meter ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "settings", "rate_hz"), [("Arc", {}, 4000.0), ("Ace", {}, 50_000.0), ("Ace", {"rate": "10000"}, 10_000.0)]
)
def test_energy_of_windows_is_within_the_stated_uncertainty(
    model: str, settings: Mapping[str, str], rate_hz: float, bench: Bench
) -> None:
    ohm, volts = 2.0, 3.3
    bench.device = OtiiSimulator(PULSES, Options(), model=model, source_ohm=ohm)
    header, blocks = recorded(bench, 1.0, Options(supply_v=volts), **settings)
    assert header.rate_hz == rate_hz
    assert not any(block.lost_before for block in blocks)
    windows = [Window(start_ns=k * 50_000_000, stop_ns=k * 50_000_000 + 20_000_000, index=k) for k in range(1, 15)]
    # 12 mA for 20 ms, at 3.3 V less what falls in the source.
    flow_a, seen_v = 12e-3, volts - ohm * 12e-3
    truth_j = seen_v * flow_a * 20e-3
    current = header.channel(Quantity.CURRENT)
    high = half_width(current, channels.HIGH, flow_a)
    bound_j = truth_j * (high / flow_a + half_width(header.channel(Quantity.VOLTAGE), None, seen_v) / seen_v)
    for one in integrate(stream_of(header, blocks), windows):
        assert one.energy_j is not None
        assert abs(one.energy_j - truth_j) <= bound_j
        # The simulated meter has no error but its steps: far better than a real one may be.
        assert one.energy_j == pytest.approx(truth_j, rel=1e-5)
        assert one.charge_c == pytest.approx(flow_a * 20e-3, rel=1e-5)
    digital = column(blocks, "digital")
    rises = np.flatnonzero(np.diff((digital & 1).astype(int)) > 0) + 1
    assert rises[:5].tolist() == [round(k * 0.05 * rate_hz) for k in range(1, 6)]


def test_header_says_what_it_was(bench: Bench) -> None:
    header, _ = recorded(bench, 0.3, Options(supply_v=3.0))
    assert (header.model, header.serial, header.firmware) == ("Otii Arc", ARC_ID, "1.4.0")
    assert header.simulated
    assert header.parameters["app"] == "3.5.5"
    assert header.voltage is None
    assert [channel.name for channel in header.channels] == ["current", "voltage", "range", "digital"]
    assert header.channels[-1].lines == ("d0", "d1")


def test_the_apps_own_simulated_device_is_told_as_such(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SIMULATED_SERVER", "something else")
    device = OtiiSimulator(PULSES, Options())
    bench.device = device
    assert not recorded(bench, 0.2)[0].simulated
    device.device["type"] = "Simulator"
    bench.device, bench.now_s = device, 0.0
    device.receive(b"")
    device.transmit(0.0)
    assert recorded(bench, 0.2)[0].simulated


def test_the_log_is_a_trigger(bench: Bench) -> None:
    header, blocks = recorded(bench, 1.0, uart="9600:begin,end")
    lines = column(blocks, "digital")
    assert header.channels[-1].lines == ("d0", "d1", "d2")
    begins = np.flatnonzero(np.diff((lines >> 2 & 1).astype(int)) > 0) + 1
    rises = np.flatnonzero(np.diff((lines & 1).astype(int)) > 0) + 1
    # Five letters take 5.2 ms at 9600 baud.
    assert set((begins[1:6] - rises[:5]).tolist()) == {21}
    assert bench.commands().count("arc_enable_uart") == 2


# -- settings, supply, and how it is left -----------------------------------------------------------------------------


def app(bench: Bench) -> OtiiSimulator:
    assert isinstance(bench.device, OtiiSimulator)
    return bench.device


def test_the_supply_is_set_and_left_as_it_was_found(bench: Bench) -> None:
    found = app(bench).state | {"main": False, "main_voltage": 4.2, "exp_voltage": 5.0}
    app(bench).state.update(found)
    with opened(
        bench, Options(supply_v=1.8), **{"max-current": "50mA", "logic": "1.8V", "range": "high", "calibrate": "on"}
    ) as meter:
        meter.start()
        during = dict(app(bench).state)
        meter.stop()
        assert {name: app(bench).state[name] for name in found if name != "exp_port"} == {
            name: found[name] for name in found if name != "exp_port"
        }
        meter.stop()
    assert during | {"exp_port": False} == found | {
        "main": True,
        "main_voltage": 1.8,
        "max_current": 0.05,
        "exp_voltage": 1.8,
        "range": "high",
    }
    commands = bench.commands()
    assert app(bench).calibrations == 1
    assert commands.index("arc_calibrate") < commands.index("arc_set_main_voltage") < commands.index("arc_set_main")
    # Off before anything else, the voltage only then, and all of it is still recorded.
    ending = commands[commands.index("project_start_recording") + 1 :]
    ending = [name for name in ending if "_set_" in name or "stop" in name or "return" in name]
    assert ending == [
        "arc_set_main",
        "arc_set_main_voltage",
        "arc_set_range",
        "arc_set_max_current",
        "arc_set_exp_voltage",
        "project_stop_recording",
        "otii_return_license",
    ]


def test_an_output_that_was_on_stays_on_and_untouched(bench: Bench) -> None:
    recorded(bench, 0.3)
    assert app(bench).state["main"]
    assert not {name for name in bench.commands() if name.startswith("arc_set_")}


def test_an_output_that_is_off_is_told(bench: Bench) -> None:
    app(bench).state["main"] = False
    with opened(bench) as meter, pytest.raises(UsageError, match="output is off"):
        meter.start()


def test_an_emulated_battery_is_not_overruled(bench: Bench) -> None:
    app(bench).state["supply_mode"] = "battery-emulator"
    with opened(bench, Options(supply_v=3.0)) as meter, pytest.raises(UsageError, match="battery"):
        meter.start()


def test_an_output_that_is_on_cannot_be_calibrated(bench: Bench) -> None:
    with opened(bench, calibrate="on") as meter, pytest.raises(UsageError, match="calibrate"):
        meter.start()


def test_an_ace_in_line_measures_a_board_with_its_own_supply(bench: Bench) -> None:
    bench.device = OtiiSimulator(PULSES, Options(declared_v=3.7), model="Ace")
    header, blocks = recorded(bench, 0.3, Options(declared_v=3.7), connection="inline", rate="4000")
    assert header.voltage is not None
    assert header.voltage.volts == 3.7
    assert "voltage" not in blocks[0].data
    assert app(bench).state["power_regulation"] == "inline"
    bench = replace_device(bench, OtiiSimulator(PULSES, Options(declared_v=3.7), model="Ace"))
    header, blocks = recorded(bench, 0.3, connection="inline-4wire", rate="4000")
    assert header.voltage is None
    assert set(column(blocks, "voltage").tolist()) == {float(np.float32(3.7))}


def replace_device(bench: Bench, device: Device) -> Bench:
    bench.device, bench.now_s, bench.said = device, 0.0, b""
    return bench


@pytest.mark.parametrize(
    ("options", "settings", "said"),
    [
        (Options(supply_v=0.2), {}, "0.5 V to 25 V"),
        (Options(supply_v=26.0), {}, "0.5 V to 25 V"),
        (Options(supply_v=12.0), {}, "Arc cannot supply 12 V"),
        (Options(declared_v=3.0), {}, "measures the voltage"),
        (Options(declared_v=3.0), {"connection": "inline-4wire"}, "measures the voltage"),
        (Options(declared_v=-3.0), {"connection": "inline"}, "no supply voltage"),
        (Options(supply_v=3.0), {"connection": "inline"}, "does not supply"),
        (Options(), {"connection": "inline"}, "an Ace can"),
        (Options(), {"rate": "10000"}, "4000 Hz only"),
        (Options(), {"rate": "fast"}, "no sample rate"),
        (Options(), {"rate": "0"}, "no sample rate"),
        (Options(), {"max-current": "6A"}, "1.000 mA to 5.000 A"),
        (Options(), {"max-current": "much"}, "much"),
        (Options(), {"logic": "1V"}, "1.200 V to 5.000 V"),
        (Options(), {"uart": "115200"}, "BAUD:BEGIN,END"),
        (Options(), {"uart": "fast:a,b"}, "BAUD:BEGIN,END"),
        (Options(), {"range": "low"}, "auto, high"),
    ],
)
def test_what_it_cannot_do_is_refused(options: Options, settings: dict[str, str], said: str, bench: Bench) -> None:
    with pytest.raises(UsageError) as refused:
        opened(bench, options, **settings)
    assert said in str(refused.value)
    assert "arc_set_main" not in bench.commands()


def test_a_second_start_is_refused(bench: Bench) -> None:
    with opened(bench) as meter:
        meter.start()
        with pytest.raises(UsageError, match="recording already"):
            meter.start()


# -- accounts and licences --------------------------------------------------------------------------------------------


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("OTII_USERNAME", "OTII_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_licence_is_taken_and_given_back(bench: Bench) -> None:
    with opened(bench):
        assert app(bench).licences[0]["reserved_to"]
    assert not app(bench).licences[0]["reserved_to"]
    assert bench.closed


def test_a_licence_that_is_held_already_stays(bench: Bench) -> None:
    app(bench).licences[0].update(reserved_to="joe", hostname="simulated")
    with opened(bench):
        pass
    assert app(bench).licences[0]["reserved_to"] == "joe"
    # An app of before otii_has_license.
    bench.device = OtiiSimulator(PULSES, Options(), licences=app(bench).licences)
    del app(bench)._commands["otii_has_license"]
    with opened(bench):
        pass
    assert app(bench).licences[0]["reserved_to"] == "joe"


@pytest.mark.parametrize("how", ["environment", "file"])
def test_credentials_log_in_and_out(
    how: str, bench: Bench, no_credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.device = OtiiSimulator(PULSES, Options(), logged_in=False)
    if how == "file":
        (no_credentials / "credentials.json").write_text('{"username": "joe", "password": "right"}', encoding="utf-8")
    else:
        monkeypatch.setenv("OTII_USERNAME", "joe")
        monkeypatch.setenv("OTII_PASSWORD", "right")
    with opened(bench):
        assert app(bench).logged_in
    assert not app(bench).logged_in


def test_nobody_logged_in_is_told(bench: Bench, no_credentials: Path) -> None:
    bench.device = OtiiSimulator(PULSES, Options(), logged_in=False)
    with pytest.raises(AccessError, match="OTII_USERNAME") as refused:
        opened(bench)
    assert "Nobody is logged in" in refused.value.what
    (no_credentials / "credentials.json").write_text("{}", encoding="utf-8")
    bench.device = OtiiSimulator(PULSES, Options(), logged_in=False)
    with pytest.raises(AccessError, match=r"credentials\.json could not be read"):
        opened(bench)


def test_wrong_credentials_are_told(bench: Bench, no_credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTII_USERNAME", "joe")
    monkeypatch.setenv("OTII_PASSWORD", "wrong")
    bench.device = OtiiSimulator(PULSES, Options(), logged_in=False)
    with pytest.raises(AccessError, match="Could not login") as refused:
        opened(bench)
    assert "wrong" not in str(refused.value)
    assert bench.closed


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        ((), "has no Automation licence"),
        (({**LICENCE, "type": "Battery"},), "has no Automation licence"),
        (({**LICENCE, "available": False, "reserved_to": "joe", "hostname": "lab"},), "in use (joe on lab)"),
        (({**LICENCE, "reserved_to": "joe", "hostname": "lab"},), "in use (joe on lab)"),
    ],
)
def test_a_licence_that_cannot_be_had_is_told(licences: tuple[dict[str, Any], ...], said: str, bench: Bench) -> None:
    bench.device = OtiiSimulator(PULSES, Options(), licences=licences)
    with pytest.raises(AccessError) as refused:
        opened(bench)
    assert said in refused.value.what
    assert refused.value.remedy


def test_a_missing_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "otii_tcp_client", None)
    with pytest.raises(MissingExtraError, match=r"joulemeter\[otii\]"):
        otii.open("127.0.0.1:9", Options())


# -- apps and devices that are not as hoped ---------------------------------------------------------------------------


class Says:
    """A port with a life of its own."""

    def __init__(self, *said: bytes) -> None:
        self.said = list(said)

    def receive(self, data: bytes) -> None:
        """Whatever it is."""

    def transmit(self, now_s: float) -> bytes:
        return self.said.pop(0) if self.said else b""


@pytest.mark.parametrize(
    "said",
    [
        (),
        (b"220 mail ready\r\n",),
        (b'{"type":"response","cmd":"x","data":{}}\r\n',),
        (b"\xff" * 100_000,),
        (b'{"type":"information","info":"connected"}\r\n',),
        (b"[]\r\n",),
    ],
    ids=["mute", "mail", "response", "noise", "half", "list"],
)
def test_another_server_on_the_port_is_told(said: tuple[bytes, ...], bench: Bench) -> None:
    bench.device = Says(*said)
    with pytest.raises(NotFoundError, match="1905"):
        opened(bench)
    assert bench.now_s < 5
    assert bench.closed


def test_an_app_that_denies_the_connection_is_told(bench: Bench) -> None:
    bench.device = Says(b'{"type":"error","errorcode":"Connection denied","payload":{"message":"one at a time"}}\r\n')
    with pytest.raises(AccessError, match="one at a time"):
        opened(bench)


def test_an_app_that_is_not_there_is_told() -> None:
    with pytest.raises(NotFoundError, match="TCP server"):
        otii.open("127.0.0.1:9", Options())


def test_an_app_without_a_meter_is_told(bench: Bench) -> None:
    app(bench).connected = False
    with pytest.raises(NotFoundError, match="no Arc or Ace"):
        opened(bench)


def test_devices_are_chosen_by_id_or_name() -> None:
    two = [SimpleNamespace(id=f"Arc{k}", name=name, type="Arc") for k, name in enumerate(("left", "right"))]
    assert discovery.choose(two, "right", "here") is two[1]
    assert discovery.choose(two, "Arc0", "here") is two[0]
    assert discovery.choose(two[:1], "", "here") is two[0]
    with pytest.raises(UsageError, match="otii@here/ID"):
        discovery.choose(two, "", "here")
    with pytest.raises(NotFoundError, match="left"):
        discovery.choose(two, "middle", "here")


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("", ("127.0.0.1:1905", "")),
        ("Arc II", ("127.0.0.1:1905", "Arc II")),
        ("lab:1905", ("lab:1905", "")),
        ("tcp://lab:1905/Arc II", ("lab:1905", "Arc II")),
    ],
)
def test_addresses_name_an_app_and_a_device(address: str, parts: tuple[str, str]) -> None:
    assert discovery.split(address) == parts


def test_a_project_is_made_where_none_is_open(bench: Bench) -> None:
    app(bench).project = False
    _, blocks = recorded(bench, 0.5)
    assert blocks
    assert "otii_create_project" in bench.commands()


def test_an_app_that_records_already_is_told(bench: Bench) -> None:
    with opened(bench) as meter:
        app(bench)._start({})
        with pytest.raises(AccessError, match="a recording is running"):
            meter.start()


def test_a_meter_of_another_project_is_told(bench: Bench) -> None:
    app(bench).elsewhere = True
    with opened(bench) as meter:
        with pytest.raises(AccessError, match="used by another project"):
            meter.start()
        assert not app(bench).recordings[-1].running


def test_an_older_app_does_without_newer_requests(bench: Bench) -> None:
    for name in ("arc_get_supply_mode", "arc_set_power_regulation", "arc_get_channel_samplerate", "arc_get_version"):
        del app(bench)._commands[name]
    header, blocks = recorded(bench, 0.5, Options(supply_v=3.0))
    assert (header.rate_hz, header.firmware) == (4000.0, None)
    assert blocks


# -- what happens while it records ------------------------------------------------------------------------------------


def gone(bench: Bench, meter: driver.Driver, within_s: float = 5.0) -> IncompleteError:
    """The error that reading comes to."""
    began_s = bench.now_s
    with pytest.raises(IncompleteError) as told:
        while bench.now_s < began_s + within_s:
            meter.read(0.05)
    assert told.value.remedy
    return told.value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"connected": False}, "no longer connected"),
        ({"project": False}, "Project does not exist"),
    ],
)
def test_a_meter_or_project_that_goes_is_told(change: Mapping[str, Any], said: str, bench: Bench) -> None:
    with opened(bench) as meter:
        header = meter.start()
        raw = read_for(meter, bench, 0.5)
        for name, value in change.items():
            setattr(app(bench), name, value)
        assert said in gone(bench, meter).what
    assert sum(map(len, decoded(header, raw))) >= 0.35 * header.rate_hz


def test_a_recording_ended_in_the_app_is_told(bench: Bench) -> None:
    with opened(bench) as meter:
        meter.start()
        read_for(meter, bench, 0.3)
        app(bench)._stop({})
        assert "ended in the Otii app" in gone(bench, meter).what


def test_an_older_app_that_cannot_say_whether_it_records_is_waited_for(bench: Bench) -> None:
    """Otii 3.2.4 answers recording_is_running with Invalid command (otii-tcp-client-python, issue 9)."""
    del app(bench)._commands["recording_is_running"]
    with opened(bench) as meter:
        meter.start()
        app(bench)._stop({})
        assert len(read_for(meter, bench, 5.0)) < 4000 * 15


def test_a_cut_off_output_is_told(bench: Bench) -> None:
    with opened(bench, Options(supply_v=3.0), **{"max-current": "10mA"}) as meter:
        meter.start()
        assert "output has gone off" in gone(bench, meter).what
    assert app(bench).state["max_current"] == 2.5


@pytest.mark.parametrize("fault", ["unplug", "stall"])
def test_an_app_that_goes_away_keeps_what_was_pulled(fault: str, bench: Bench) -> None:
    bench.device = FaultyDevice(app(bench), parse_faults(f"{fault}@1s"))
    meter = opened(bench)
    header = meter.start()
    raw = b""
    began_s = bench.now_s
    if fault == "unplug":
        with pytest.raises(IncompleteError, match="has gone"):
            while True:
                raw += meter.read(0.05)
    else:
        while bench.now_s < began_s + 6:
            asked_s = bench.now_s
            raw += meter.read(0.05)
            assert bench.now_s - asked_s < 1.5
    ending_s = bench.now_s
    for end in (meter.stop, meter.close, meter.stop, meter.close):
        end()
    assert bench.now_s - ending_s < 5
    blocks = decoded(header, raw)
    assert 3200 <= sum(map(len, blocks)) <= 4000
    assert not any(block.lost_before for block in blocks)


@pytest.mark.parametrize("faults", ["garble@0.5s:300", "drop@0.5s:700,drop@2.5s:60", "insert@0.4s:64,insert@0.7s:9"])
def test_a_spoilt_answer_is_asked_for_again(faults: str, bench: Bench) -> None:
    bench.device = FaultyDevice(app(bench), parse_faults(faults))
    _, blocks = recorded(bench, 4.0)
    current = column(blocks, "current")
    assert len(current) >= 3.7 * 4000
    assert not any(block.lost_before for block in blocks)
    truth = PULSES.mean_current_a(0, len(current), 4000)
    assert current == pytest.approx(truth, abs=5e-9)


def test_noise_makes_no_samples(bench: Bench) -> None:
    bench.device = FaultyDevice(app(bench), parse_faults("noise@0.5s"))
    header, blocks = recorded(bench, 4.0)
    assert sum(map(len, blocks)) <= 0.5 * header.rate_hz


def test_a_late_answer_is_not_taken_for_another(bench: Bench) -> None:
    """The client's own loop ends with "Transaction id mismatch" there."""

    class Late(FaultyDevice):
        """Holds everything back for 1.2 s from 0.5 s on, and then delivers it."""

        held = b""

        def transmit(self, now_s: float) -> bytes:
            self.held += super().transmit(now_s)
            if 0.5 <= now_s < 1.7:
                return b""
            given, self.held = self.held, b""
            return given

    bench.device = Late(app(bench), ())
    _, blocks = recorded(bench, 4.0)
    current = column(blocks, "current")
    assert len(current) >= 3.7 * 4000
    assert current == pytest.approx(PULSES.mean_current_a(0, len(current), 4000), abs=5e-9)


def test_announcements_and_progress_are_no_answers(bench: Bench) -> None:
    class Chatty(FaultyDevice):
        def transmit(self, now_s: float) -> bytes:
            answer = super().transmit(now_s)
            chatter = (
                b'{"type":"information","info":"device","data":{}}\r\n{"type":"progress","progress_value":0.5}\r\n'
            )
            return chatter + answer if answer and b"connected" not in answer else answer

    bench.device = Chatty(app(bench), ())
    _, blocks = recorded(bench, 0.5)
    assert sum(map(len, blocks)) >= 1200


def test_a_hole_in_the_apps_recording_is_counted(bench: Bench) -> None:
    with opened(bench) as meter:
        header = meter.start()
        app(bench).recordings[-1].hole = (2000, 0.1)
        blocks = decoded(header, read_for(meter, bench, 1.0))
    assert sum(block.lost_before for block in blocks) == 400
    assert sum(map(len, blocks)) >= 3500


def test_a_slow_host_catches_up(bench: Bench) -> None:
    bench.device = OtiiSimulator(PULSES, Options(), model="Ace")
    with opened(bench, rate="20000") as meter:
        header = meter.start()
        bench.sleep(3.0)
        blocks = decoded(header, read_for(meter, bench, 1.0))
    current = column(blocks, "current")
    assert len(current) >= 3.8 * 20_000
    assert np.count_nonzero(np.diff((column(blocks, "digital") & 1).astype(int)) > 0) >= 75


# -- discovery --------------------------------------------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[tuple[str, OtiiSimulator]]:
    import threading

    from joulemeter.transport.serve import serve_tcp

    device = OtiiSimulator(PULSES, Options())
    stop, ready, where = threading.Event(), threading.Event(), [""]

    def announce(address: str) -> None:
        where[0] = address
        ready.set()

    server = threading.Thread(target=serve_tcp, args=(device, ("127.0.0.1", 0), announce, stop.is_set), daemon=True)
    server.start()
    assert ready.wait(5)
    yield where[0], device
    stop.set()
    server.join(5)


def test_discovery_without_an_app_is_empty_and_quick() -> None:
    began = time.monotonic()
    assert discovery.discover("otii", "127.0.0.1:9") == []
    assert time.monotonic() - began < 5


def test_discovery_shows_the_app_and_with_a_licence_its_devices(served: tuple[str, OtiiSimulator]) -> None:
    address, device = served
    (found,) = discovery.discover("otii", address)
    assert (found.address, found.problem) == (address, None)
    device.licences[0].update(reserved_to="joe", hostname="simulated")
    (found,) = discovery.discover("otii", address)
    assert (found.address, found.serial) == (f"{address}/{ARC_ID}", ARC_ID)
    with otii.open(found.address, Options()) as meter:
        assert meter.start().serial == ARC_ID


@pytest.mark.skipif(os.name != "posix", reason="one of the two ways of closing is POSIX's")
def test_the_app_is_reached_again_after_a_client_has_gone(served: tuple[str, OtiiSimulator]) -> None:
    address, _ = served
    for _ in range(3):
        with otii.open(address, Options()) as meter:
            header = meter.start()
            raw = b"".join(meter.read(0.1) for _ in range(8))
            assert decoded(header, raw)
