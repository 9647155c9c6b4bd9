"""Joulescopes: the driver on its stand-in for the maker's library, and that stand-in held to the real library."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from joulemeter import frames
from joulemeter.capture import Block, Channel, Header, Quantity, Timebase
from joulemeter.caveat import Code
from joulemeter.errors import (
    AccessError,
    DataError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)
from joulemeter.instrument import Device, Options
from joulemeter.instruments import joulescope
from joulemeter.instruments.joulescope import channels, decode, discovery, driver, fake, library, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.witness import cross_check
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.connect import connect
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.serve import serve_pty, serve_tcp
from joulemeter.window import Role, Window

# 26.4 mW for 20 ms and 825 uW for 30 ms at 3.3 V.
LOAD = parse_load("8mA/20ms/d0/d7,250uA/30ms")
VOLTS = 3.3
PATH = "u/js220/000415"


# -- the real library -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    pytest.importorskip("pyjoulescope_driver", reason="the maker's library is not installed")
    with library.opened() as started:
        yield started


@pytest.fixture
def no_meter() -> Iterator[fake.Driver]:
    """The stand-in with a link at whose other end nobody answers."""
    silent = SimpleNamespace(address="nowhere", read=lambda timeout_s: b"", write=lambda data: None, close=lambda: None)
    made = fake.Driver(silent, timeout=0.01)
    yield made
    made.finalize()


def test_the_stand_in_has_the_names_and_signatures_of_the_real_one(real: Any) -> None:
    used = [name for name, value in vars(library.Library).items() if inspect.isfunction(value) and name[0] != "_"]
    assert len(used) == 8
    for name in used:
        theirs, ours = (inspect.signature(getattr(one, name)) for one in (type(real), fake.Driver))
        wanted = [(parameter.name, parameter.default) for parameter in theirs.parameters.values()]
        assert [(parameter.name, parameter.default) for parameter in ours.parameters.values()] == wanted, name


def same_error(real: Any, ours: Any, call: Callable[[Any], Any]) -> None:
    told = []
    for one in (real, ours):
        with pytest.raises((TimeoutError, RuntimeError, ValueError, KeyError)) as caught:
            call(one)
        told.append((caught.type, str(caught.value)))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda one: one.open(PATH, "restore", 0.05),
        lambda one: one.open(PATH, "nonsense", 0.05),
        lambda one: one.close(PATH, 0.05),
        lambda one: one.publish(f"{PATH}/h/fs", 1_000_000, 0.05),
        lambda one: one.publish(f"{PATH}/h/fs", None, 0.05),
        lambda one: one.query(f"{PATH}/s/i/range/mode"),
        lambda one: one.subscribe("@/!remove", "nonsense", print),
    ],
    ids=["open", "open mode", "close", "publish", "publish nothing", "query", "subscribe"],
)
def test_without_a_meter_both_raise_the_same(real: Any, no_meter: fake.Driver, call: Callable[[Any], Any]) -> None:
    same_error(real, no_meter, call)


def test_without_a_meter_both_list_none_and_take_subscriptions(real: Any, no_meter: fake.Driver) -> None:
    for one in (real, no_meter):
        assert one.device_paths() == []
        assert one.query("@/list") == ""
        one.subscribe("@/!remove", "pub", print)
        one.unsubscribe("@/!remove", print)
        one.log_level = "warning"


def test_the_real_one_is_opened_and_says_that_no_meter_is_there(real: Any) -> None:
    # It can be started once in a process; who comes second shares it, and the first keeps it.
    with pytest.raises(RuntimeError):
        type(real)()
    with library.opened() as started:
        assert started is real
    assert library.measuring(real.device_paths()) == []
    assert discovery.library_paths() == []
    for address in ("", "000415", PATH):
        with pytest.raises(NotFoundError, match="No Joulescope"):
            joulescope.open(address, Options())


def metadata(real: Any) -> tuple[bytes, list[dict[str, Any]]]:
    """The library's binary, and the descriptions of topics in it."""
    del real
    binding = importlib.import_module("pyjoulescope_driver.binding")
    binary = Path(str(binding.__file__)).read_bytes()
    return binary, [json.loads(text) for text in re.findall(rb'\{"dtype": [^\x00]*\}(?=\x00)', binary)]


def test_every_topic_is_in_the_real_library_or_comes_from_the_meter(real: Any) -> None:
    binary, _ = metadata(real)
    # These a JS220 or JS320 describes itself when it is opened; the maker's application uses them.
    meters_own = {"c/gpio/vref"}
    for topics in fake.TOPICS.values():
        for topic in set(topics) - meters_own:
            assert topic.encode() + b"\0" in binary or topic.encode() + b"$\0" in binary, topic
    for topic in (driver.REMOVED, "@/list"):
        assert topic.encode() + b"\0" in binary


@pytest.mark.parametrize(
    ("brief", "model", "topic"),
    [
        ("The current range selection.", "js110", "s/i/range/select"),
        ("The external IO voltage.", "js110", "s/extio/voltage"),
        ("The current signal least-significant bit mapping.", "js110", "s/i/lsb_src"),
        ("The voltage signal least-significant bit mapping.", "js110", "s/v/lsb_src"),
        ("The sampling frequency.", "js110", "h/fs"),
        ("The sampling frequency.", "js220", "h/fs"),
        ("The signal downsampling filter.", "js220", "h/filter"),
    ],
)
def test_topics_take_the_values_that_the_real_library_states(real: Any, brief: str, model: str, topic: str) -> None:
    _, described = metadata(real)
    stated = next(one["options"] for one in described if one["brief"] == brief)
    ours = [list(row) for row in fake.TOPICS[model][topic]]
    assert [row[0] for row in ours] == [row[0] for row in stated]
    if topic != "h/fs":
        assert ours == stated


def test_rates_of_publishing_are_among_those_stated(real: Any) -> None:
    _, described = metadata(real)
    for stated in [one["options"] for one in described if "publish frequency" in one["brief"]]:
        assert {driver.PUBLISH_HZ, driver.PUBLISH_SLOW_HZ} <= {row[0] for row in stated}


def test_signals_are_those_that_the_makers_own_recorder_knows(real: Any) -> None:
    del real
    record, time64 = (importlib.import_module(f"pyjoulescope_driver.{name}") for name in ("record", "time64"))
    theirs = {
        (signal["ctrl_topic"], signal["data_topic"], signal["signal_type"])
        for name, signal in record._SIGNALS.items()
        if name != "power"
    }
    types = {"<f4": "f32", "u1": "u4"}
    ours = {
        (f"{one.topic}/ctrl", f"{one.topic}/!data", "u1" if one.bits else types[one.dtype])
        for one in wire.SIGNALS.values()
    }
    assert ours == theirs
    assert time64.SECOND == wire.SECOND


# -- frames made by hand ----------------------------------------------------------------------------------------------

IDS_HZ, STEP = 2_000_000, 2


def header(
    signals: tuple[str, ...] = ("current", "voltage", "d0"),
    *,
    model: str = "js220",
    late: Mapping[str, int] | None = None,
) -> Header:
    return Header(
        instrument="joulescope",
        model=wire.MODELS[model].name,
        wire=wire.FORMAT,
        rate_hz=IDS_HZ / STEP,
        word_bytes=wire.sample_bytes(signals),
        channels=channels.channels(model, signals),
        parameters={"signals": list(signals), "ids_hz": IDS_HZ, "late": dict(late or {})},
    )


def message(name: str, sample_id: int, data: Any, *, between: int | None = None, utc: int | None = None) -> bytes:
    """As the library delivers it: float32, or eight bits in a byte."""
    signal = wire.SIGNALS[name]
    made = {
        "sample_id": sample_id,
        "utc": utc if utc is not None else sample_id * wire.SECOND // IDS_HZ,
        "sample_rate": IDS_HZ,
        "decimate_factor": between or (STEP if signal.measured else 1),
        "data": np.asarray(data, "f4") if signal.measured else np.asarray(data, "u1"),
    }
    return packed(signal.kind, sample_id, wire.pack(signal, made))


def packed(kind: int, number: int, payload: bytes) -> bytes:
    return frames.pack(frames.Frame(kind=kind, number=number, before_ns=0, after_ns=0, payload=payload))


def bits(high: set[int], count: int) -> list[int]:
    """`count` elements, those of `high` set, eight in a byte, the first the lowest bit."""
    return [sum(1 << place for place in range(8) if 8 * byte + place in high) for byte in range(count // 8)]


def decoded(raw: bytes, of: Header | None = None) -> list[Block]:
    decoder = decode.JoulescopeDecoder(of or header())
    blocks: list[Block] = decoder.feed(raw) + decoder.finish()
    return blocks


def whole(blocks: list[Block], name: str) -> Any:
    return np.concatenate([block.data[name] for block in blocks])


def shape(blocks: list[Block]) -> list[tuple[int, int, int]]:
    """First index, lost before, length of each."""
    return [(block.first_index, block.lost_before, len(block)) for block in blocks]


def test_lines_are_aligned_by_sample_id_whatever_their_origin_and_rate() -> None:
    # The line runs at twice the rate and began 6 ids earlier; it rises at id 1011, the middle of sample (1010, 1012).
    raw = message("d0", 994, bits(set(range(17, 96)), 96))
    raw += message("voltage", 996, [3.0] * 40) + message("current", 1000, np.arange(20) / 1000)
    (block,) = decoded(raw)
    assert block.first_index == 0
    assert block.data["current"] == pytest.approx(np.arange(20) / 1000, rel=1e-6)
    assert block.data["digital"].tolist() == [0] * 5 + [1] * 15
    # Half as fast as the current: element j stands for ids 1000 + 4 j to 1004 + 4 j.
    raw = message("d0", 1000, bits({3, 4}, 16), between=4)
    raw += message("voltage", 1000, [3.0] * 20) + message("current", 1000, [0.0] * 20)
    (block,) = decoded(raw)
    assert block.data["digital"].tolist() == [0] * 6 + [1] * 4 + [0] * 10


def test_a_late_filter_is_taken_off_the_measured_signals_only() -> None:
    raw = message("d0", 1000, bits(set(range(20, 200)), 200))
    raw += message("voltage", 1010, [3.0] * 60) + message("current", 1010, [0.0] * 10 + [1.0] * 50)
    (block,) = decoded(raw, header(late={"current": 10, "voltage": 10}))
    rise = int(np.argmax(block.data["current"] > 0.5))
    assert rise == int(np.argmax(block.data["digital"] > 0)) == 10


@pytest.mark.parametrize(("rate_hz", "late"), [(200_000, 92), (100_000, 223), (50_000, 485), (10_000, 2325)])
def test_the_filter_is_as_late_as_the_makers_own_code_shows(rate_hz: int, late: int) -> None:
    # A step through src/downsample.c of joulescope_driver 2.3.4 (compiled, 1 MS/s to the rate): with so many sample ids
    # taken off, the area before the step is right to 1e-4 of a sample.
    made = driver.Driver.__new__(driver.Driver)
    made._key, made._model, made._versions = "js220", wire.MODELS["js220"], {"c/fw/version": None}
    assert made._late(IDS_HZ, IDS_HZ // rate_hz) == {"current": late, "voltage": late}
    made._versions = {"c/fw/version": 0x01030000, "s/fpga/version": 0x01030001}
    assert made._late(IDS_HZ, IDS_HZ // rate_hz) == {}


def clean(*, spans: tuple[tuple[int, int], ...] = ((1000, 1160), (1160, 1320))) -> bytes:
    """Messages of all signals for these spans of sample ids; the current is its sample id."""
    raw = b""
    for start, stop in spans:
        raw += message("current", start, np.arange(start, stop, STEP))
        raw += message("voltage", start, [3.0] * ((stop - start) // STEP))
        raw += message("d0", start, bits(set(), stop - start))
    return raw


def test_a_jump_of_sample_ids_is_lost_samples() -> None:
    blocks = decoded(clean(spans=((1000, 1160), (1176, 1320))))
    assert shape(blocks) == [(0, 0, 80), (88, 8, 72)]
    assert whole(blocks, "current").tolist() == [*range(1000, 1160, 2), *range(1176, 1320, 2)]


def test_what_is_missing_in_one_signal_is_missing_for_all() -> None:
    raw = message("current", 1000, np.arange(100)) + message("voltage", 1000, [3.0] * 100)
    raw += message("d0", 1000, bits(set(), 80)) + message("d0", 1096, bits(set(), 104))
    assert shape(decoded(raw)) == [(0, 0, 40), (48, 8, 52)]


def test_nan_is_lost_and_at_the_beginning_nothing_at_all() -> None:
    current = np.arange(100.0)
    current[:7] = np.nan
    voltage = np.full(100, 3.0)
    current[40:43], voltage[42:46] = np.nan, np.nan
    blocks = decoded(message("current", 0, current) + message("voltage", 0, voltage) + message("d0", 0, [0] * 25))
    assert shape(blocks) == [(0, 0, 33), (39, 6, 54)]
    assert blocks[0].data["current"][0] == 7.0


def test_what_comes_twice_counts_once() -> None:
    again = message("current", 1080, np.arange(1080, 1160, 2)) + message("d0", 1000, bits({0, 1, 2}, 80))
    blocks = decoded(clean(spans=((1000, 1160),)) + again + clean(spans=((1160, 1320),)))
    assert whole(blocks, "current").tolist() == list(range(1000, 1320, 2))
    assert not whole(blocks, "digital").any()
    assert sum(block.lost_before for block in blocks) == 0


@pytest.mark.parametrize("rolled", [1 << 32, -(1 << 32)], ids=["back to 0", "upper part too high"])
def test_ids_that_roll_over_change_nothing(rolled: int) -> None:
    first = (1 << 32) - 160
    raw = message("current", first, [1.0] * 80) + message("voltage", first, [3.0] * 80) + message("d0", first, [0] * 20)
    then = first + 160 - rolled
    raw += message("current", then, [2.0] * 80) + message("voltage", then, [3.0] * 80) + message("d0", then, [0] * 20)
    blocks = decoded(raw)
    assert sum(map(len, blocks)) == 160
    assert sum(block.lost_before for block in blocks) == 0


def test_a_utc_that_jumps_back_is_noted_and_moves_nothing() -> None:
    hour = 3600 * wire.SECOND
    raw = clean(spans=((2000, 2160),)) + message("current", 2160, np.arange(2160, 2320, 2), utc=-hour)
    raw += message("voltage", 2160, [3.0] * 80) + message("d0", 2160, [0] * 20)
    decoder = decode.JoulescopeDecoder(header())
    blocks = decoder.feed(raw)
    assert shape(blocks) == [(0, 0, 80), (80, 0, 80)]
    ((at, stepped_s),) = decoder.utc_steps
    assert at == 2160
    assert stepped_s == pytest.approx(-3600, abs=0.01)


def test_a_line_that_falls_silent_does_not_hold_the_rest_for_ever() -> None:
    seconds = 4
    raw = message("d0", 0, [0] * (IDS_HZ // 8))
    for second in range(seconds):
        raw += message("voltage", second * IDS_HZ, np.full(IDS_HZ // STEP, 3.0))
        raw += message("current", second * IDS_HZ, np.ones(IDS_HZ // STEP))
    raw += message("d0", 3 * IDS_HZ, [0] * (IDS_HZ // 8))
    blocks = decoded(raw)
    assert sum(map(len, blocks)) == 2_000_000
    assert shape(blocks)[-1] == (3_000_000, 2_000_000, 1_000_000)


def test_packets_that_the_library_leaves_out_are_lost_samples_behind_what_has_come() -> None:
    # Three packets of 126 samples; the library's ids go on as if they had never been.
    raw = clean(spans=((1000, 1160),)) + packed(wire.LOST, 0, wire.pack_lost(378)) + clean(spans=((1160, 1320),))
    assert shape(decoded(raw)) == [(0, 0, 80), (80 + 189, 189, 80)]
    # Told between the messages of one span: that span stays whole, the hole is behind it.
    raw = message("current", 1000, np.arange(80)) + packed(wire.LOST, 0, wire.pack_lost(378))
    raw += message("voltage", 1000, [3.0] * 80) + message("d0", 1000, [0] * 20) + clean(spans=((1160, 1320),))
    assert sum(map(len, decoded(raw))) == 160


def test_the_meters_own_total_stands_at_the_sample_it_is_of() -> None:
    def total(end: int, joules: float) -> bytes:
        said = {"time": {"samples": {"value": [0, end]}}, "accumulators": {"energy": {"value": joules}}}
        return packed(wire.STATISTICS, *wire.pack_statistics(said))

    raw = total(1040, 2.5) + clean(spans=((1000, 1160),)) + total(1161, 4.0) + clean(spans=((1160, 1320),))
    totals = whole(decoded(raw), "counted energy")
    assert np.isnan(totals[:20]).all()
    assert totals[20:81].tolist() == [2.5] * 61
    assert totals[81:].tolist() == [4.0] * 79


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\0" * 16,
        wire.pack(wire.SIGNALS["current"], {"utc": 0, "sample_rate": 7, "decimate_factor": 2, "data": []}),
    ],
    ids=["empty", "no rate", "another rate"],
)
def test_a_frame_that_makes_no_sense_is_told(payload: bytes) -> None:
    with pytest.raises(DataError):
        decoded(clean() + packed(1, 1320, payload))


def test_another_rate_in_the_middle_is_told_and_another_format_refused() -> None:
    with pytest.raises(DataError, match="another rate"):
        decoded(clean() + message("current", 1320, [0.0] * 8, between=20))
    with pytest.raises(UsageError, match="joulescope/1"):
        joulescope.decoder(Header(instrument="joulescope", model="", wire="x/1", rate_hz=1, word_bytes=8, channels=()))


def test_decoding_goes_on_from_a_saved_state_at_every_byte() -> None:
    skip = packed(wire.LOST, 0, wire.pack_lost(126))
    raw = clean() + skip + clean(spans=((1340, 1400),)) + message("current", 1400, [np.nan, 1.0, 2.0])
    plain = decoded(raw)
    for cut in range(0, len(raw), 7):
        first, second = joulescope.decoder(header()), joulescope.decoder(header())
        blocks = first.feed(raw[:cut])
        second.restore(json.loads(json.dumps(first.state())))
        blocks += second.feed(raw[cut:])
        assert whole(blocks, "current").tobytes() == whole(plain, "current").tobytes()
        assert (shape(blocks)[-1], blocks[-1].consumed) == (shape(plain)[-1], plain[-1].consumed)


# -- a simulated meter ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(device: Device) -> Iterator[str]:
    stop, ready, where = threading.Event(), threading.Event(), [""]

    def announce(address: str) -> None:
        where[0] = address
        ready.set()

    def serve() -> None:
        # Some of these devices talk on when their client has gone.
        with contextlib.suppress(ConnectionError):
            serve_tcp(device, ("127.0.0.1", 0), announce, stop.is_set)

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    assert ready.wait(5)
    try:
        yield where[0]
    finally:
        stop.set()
        server.join(5)


@contextlib.contextmanager
def meter(model: str = "JS220", faults: str = "", load: Load = LOAD, **settings: str) -> Iterator[driver.Driver]:
    simulated = joulescope.simulate(load, Options(settings={"model": model}))
    with served(FaultyDevice(simulated, parse_faults(faults))) as address:
        made = joulescope.open(address, Options(settings=settings))
        with made:
            assert isinstance(made, driver.Driver)
            yield made


def read_for(made: driver.Driver, seconds: float) -> bytes:
    raw, until = b"", time.monotonic() + seconds
    while time.monotonic() < until:
        raw += made.read(0.05)
    return raw


class Stream:
    """What was recorded, as the physics take it."""

    def __init__(self, of: Header, raw: bytes) -> None:
        self.name, self.header, self._blocks = "joulescope", of, decoded(raw, of)
        self.timebase = Timebase(rate_hz=of.rate_hz)
        self.gaps = ()
        self.length = self._blocks[-1].first_index + len(self._blocks[-1])

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        yield from self._blocks


@pytest.mark.parametrize(
    ("model", "rate", "full_hz"), [("JS110", "full", 2e6), ("JS220", "full", 1e6), ("JS320", "full", 1e6)]
)
def test_a_known_load_is_measured_within_the_stated_uncertainty(model: str, rate: str, full_hz: float) -> None:
    with meter(model, rate=rate) as made:
        header_ = made.start()
        raw = read_for(made, 0.4)
    assert (header_.model, header_.rate_hz, header_.simulated) == (model, full_hz, True)
    stream = Stream(header_, raw)
    assert not any(block.lost_before for block in stream.blocks())
    line = whole(list(stream.blocks()), "digital") & 1
    rises, falls = (np.flatnonzero(np.diff(line.astype(int)) == sign) + 1 for sign in (1, -1))
    falls = falls[falls > rises[0]]
    assert len(falls) >= 3
    windows = [
        Window(start_ns=round(start * 1e9 / full_hz), stop_ns=round(stop * 1e9 / full_hz), index=k, role=Role.INFERENCE)
        for k, (start, stop) in enumerate(zip(rises, falls, strict=False))
    ]
    true_c = LOAD.pulse_charge_c(0)
    assert true_c is not None
    current = header_.channel(Quantity.CURRENT)
    assert current is not None
    row = next(row for row in current.accuracy if row.range == list(wire.MODELS[model.lower()].ranges).index("18mA"))
    u = row.gain.standard + row.offset.standard / 8e-3
    for found in integrate(stream, windows):
        assert found.charge_c == pytest.approx(true_c, rel=1e-5)
        assert found.energy_j == pytest.approx(true_c * VOLTS, rel=1e-5)
        assert found.energy_j is not None
        assert abs(found.energy_j - true_c * VOLTS) < u * true_c * VOLTS


def test_the_range_follows_the_current_and_decides_its_accuracy() -> None:
    with meter() as made:
        header_ = made.start()
        blocks = decoded(read_for(made, 0.2), header_)
    current, ranges = whole(blocks, "current"), whole(blocks, "range")
    steady = np.isin(current.round(9), [8e-3, 250e-6])
    # 8 mA lies in the 18 mA range, the third from the top; 250 uA in the 1.8 mA one.
    assert set(ranges[steady & (current > 1e-3)]) == {2}
    assert set(ranges[steady & (current < 1e-3)]) == {3}
    row = {row.range: row for row in header_.channels[0].accuracy}[2]
    assert row.offset.value == pytest.approx(13.5e-6)
    assert not row.verified


def test_the_one_row_that_the_maker_states() -> None:
    rows = {row.range: row for row in channels.channels("js110", ("current", "voltage"))[0].accuracy}
    assert (rows[1].gain.value, rows[1].offset.value) == pytest.approx((0.003, 1.5e-3))
    assert [code for code, row in rows.items() if row.verified] == [1]


def test_the_meters_own_counter_agrees_with_its_samples() -> None:
    with meter("JS110") as made:
        header_ = made.start()
        raw = read_for(made, 1.1)
    found = cross_check(Stream(header_, raw))
    assert found is not None
    assert found.agrees
    assert found.counted == pytest.approx(LOAD.mean_a * VOLTS * found.duration_s, rel=0.1)


@pytest.mark.parametrize(("model", "rate"), [("JS110", "100kHz"), ("JS220", "10kHz"), ("JS320", "200kHz")])
def test_a_lower_rate_is_what_the_header_and_the_samples_say(model: str, rate: str) -> None:
    with meter(model, rate=rate) as made:
        header_ = made.start()
        blocks = decoded(read_for(made, 0.5), header_)
    hz = 1e3 * float(rate.removesuffix("kHz"))
    assert header_.rate_hz == hz
    current, line = whole(blocks, "current"), whole(blocks, "digital") & 1
    rises, currents = np.flatnonzero(np.diff(line.astype(int)) == 1), np.flatnonzero(np.diff(current > 4e-3))
    assert np.diff(rises) == pytest.approx(hz * LOAD.period_s, abs=1)
    assert all(np.abs(currents - rise).min() <= 1 for rise in rises)


def spied(made: driver.Driver, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    said: list[tuple[str, Any]] = []
    inner = made._library.publish

    def publish(topic: str, value: Any, timeout: float | None = None) -> None:
        said.append((topic.split("/", 3)[3], value))
        inner(topic, value, timeout)

    monkeypatch.setattr(made._library, "publish", publish)
    return said


def test_what_a_js110_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with meter("JS110", range="18mA", io="1.8V", rate="1MHz") as made:
        said = spied(made, monkeypatch)
        made.start()
        # GPI of a JS110 travel as the lowest bits of current and voltage, where it is told so.
        assert [one for one in said if "lsb_src" in one[0]] == [("s/i/lsb_src", "gpi0"), ("s/v/lsb_src", "gpi1")]
        assert said[:2] == [("s/i/range/select", 8), ("s/extio/voltage", 1800)]
        assert ("h/fs", 1_000_000) in said
        assert ("s/stats/scnt", 200_000) in said
        del said[:]
        made.stop()
        # As they were found: ranges by itself, 3.3 V.
        assert said[-2:] == [("s/extio/voltage", 3300), ("s/i/range/select", 128)]
        assert {("s/i/ctrl", 0), ("s/v/ctrl", 0), ("s/gpi/0/ctrl", 0), ("s/stats/ctrl", 0)} <= set(said)


def test_what_a_js220_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with meter(range="180uA", io="3.3V", rate="100kHz", lines="d0,d1,d2,d7") as made:
        said = spied(made, monkeypatch)
        header_ = made.start()
        assert said[:3] == [("s/i/range/select", 0x90), ("s/i/range/mode", "manual"), ("c/gpio/vref", 1)]
        # It averages by itself from 1.3.0 on, so nothing is late.
        assert {("h/filter", 1), ("h/fs", 100_000), ("s/stats/scnt", 100_000)} <= set(said)
        assert header_.parameters["late"] == {}
        assert header_.firmware == "fw 1.3.2, fpga 1.3.2"
        # More than three lines leave no room on its USB for the range.
        assert ("s/i/range/ctrl", 1) not in said
        assert [channel.quantity for channel in header_.channels].count(Quantity.RANGE) == 0
        assert [caveat.code for caveat in header_.caveats] == [Code.ACCURACY_UNVERIFIED]
        digital = header_.channel(Quantity.DIGITAL)
        assert isinstance(digital, Channel)
        assert digital.lines == ("d0", "d1", "d2", "d7")
        blocks = decoded(read_for(made, 0.2), header_)
        # d0 and trigger-in are high together: bits 0 and 3.
        assert set(whole(blocks, "digital")) == {0, 0b1001}
        del said[:]
        made.stop()
        assert said[-2:] == [("c/gpio/vref", 0), ("s/i/range/mode", 4)]


def test_no_lines_at_all() -> None:
    with meter(lines="none") as made:
        header_ = made.start()
        blocks = decoded(read_for(made, 0.1), header_)
    assert header_.channel(Quantity.DIGITAL) is None
    assert set(blocks[0].data) == {"current", "voltage", "range", "counted energy"}


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        ("JS220", {"range": "2A"}, "no range of 2A"),
        ("JS220", {"io": "1.8V"}, "cannot be set to 1.8V"),
        ("JS220", {"lines": "d4"}, "'d4'"),
        ("JS220", {"lines": "d0,d0"}, "'d0'"),
        ("JS110", {"io": "vref"}, "cannot be set to vref"),
        ("JS110", {"lines": "d0,d7"}, "'d7'"),
        ("JS220", {"rate": "3MHz"}, "3MHz"),
    ],
)
def test_settings_that_a_model_has_not_are_refused(model: str, settings: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)), meter(model, "", LOAD, **settings):
        pass


@pytest.mark.parametrize("options", [Options(supply_v=3.0), Options(declared_v=3.0)])
def test_it_neither_supplies_nor_needs_a_declared_voltage(options: Options) -> None:
    with pytest.raises(UsageError, match="Joulescope"):
        joulescope.open("", options)


def test_a_js110_says_in_its_log_that_packets_are_missing() -> None:
    with meter("JS110") as made:
        header_ = made.start()
        raw = read_for(made, 0.15)
        # The library's own words (src/devices/js110/js110_usb.c); its counter is 16 bit wide.
        logging.getLogger("jsdrv").warning("pkt_index skip: expected %d, received %d", 65534, 2)
        raw += read_for(made, 0.2)
    assert sum(block.lost_before for block in decoded(raw, header_)) == 4 * 126
    assert logging.getLogger("jsdrv").handlers == []


def test_a_lost_message_is_counted_by_sample_ids() -> None:
    # A simulated wire sends some 15 messages of a few hundred bytes in 20 ms.
    with meter(faults="drop@0.5s:2000") as made:
        header_ = made.start()
        blocks = decoded(read_for(made, 0.9), header_)
    lost = sum(block.lost_before for block in blocks)
    assert lost > 0
    assert lost % 10_000 <= 512 or lost % 10_000 >= 10_000 - 512  # whole messages of 10 ms
    current, line = whole(blocks, "current"), whole(blocks, "digital") & 1
    assert np.mean((current > 4e-3) == (line > 0)) > 0.999


def test_unplugging_is_told_and_what_came_is_kept() -> None:
    with meter(faults="unplug@0.4s") as made:
        header_ = made.start()
        raw = b""
        with pytest.raises(IncompleteError, match="unplugged"):
            while True:
                raw += made.read(0.05)
        assert sum(map(len, decoded(raw, header_))) > 100_000
        made.stop()
        made.close()


def test_a_stalled_meter_gives_nothing_and_is_left_without_hanging() -> None:
    with meter(faults="stall@0.5s") as made:
        made.start()
        read_for(made, 0.8)
        assert made.read(0.05) == b""


def test_a_meter_that_never_sends_a_signal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "FIRST_S", 0.3)
    with meter() as made:
        inner = made._library.publish

        def publish(topic: str, value: Any, timeout: float | None = None) -> None:
            if not topic.endswith("s/gpi/1/ctrl"):
                inner(topic, value, timeout)

        monkeypatch.setattr(made._library, "publish", publish)
        with pytest.raises(IncompleteError, match="sends no d1"):
            made.start()


def test_garbage_on_the_way_is_survived() -> None:
    with meter(faults="garble@0.3s:300,insert@0.4s:500") as made:
        header_ = made.start()
        blocks = decoded(read_for(made, 0.8), header_)
    values = whole(blocks, "current")
    assert values.min() >= 250e-6 * 0.999
    assert values.max() <= 8e-3 * 1.001
    assert blocks[-1].first_index > 500_000


def test_it_can_be_started_again() -> None:
    with meter() as made:
        for _ in range(2):
            header_ = made.start()
            assert decoded(read_for(made, 0.1), header_)
            made.stop()
        made.start()
        with pytest.raises(UsageError, match="streaming already"):
            made.start()


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_it_can_be_opened_while_it_streams_for_a_program_that_died() -> None:
    paths: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(path: str) -> None:
        paths.append(path)
        ready.set()

    simulated = joulescope.simulate(LOAD, Options())
    server = threading.Thread(target=serve_pty, args=(simulated, announce, stop.is_set), daemon=True)
    server.start()
    assert ready.wait(5)
    first = joulescope.open(paths[0], Options())
    first.start()
    first.read(0.5)
    # Without a word to the meter.
    first._library._open = False
    first._library.finalize()
    with joulescope.open(paths[0], Options()) as second:
        header_ = second.start()
        blocks = decoded(read_for(second, 0.2), header_)
    assert blocks[-1].first_index > 50_000
    assert sum(block.lost_before for block in blocks) == 0
    first.close()
    stop.set()
    server.join(5)


def test_another_device_on_the_port_is_told() -> None:
    class Chatter:
        def receive(self, data: bytes) -> None:
            """Whatever it is."""

        def transmit(self, now_s: float) -> bytes:
            return b"JSsm hello JSsmJ" * 20

    with served(Chatter()) as address, pytest.raises(NotFoundError, match="no simulated Joulescope"):
        joulescope.open(address, Options())


def test_the_stand_in_refuses_what_the_meter_does_not_know() -> None:
    with served(joulescope.simulate(LOAD, Options())) as address:
        made = fake.Driver(connect(address))
        (path,) = made.device_paths()
        assert library.measuring([path, "u/mb/1", "u/&js220/2"]) == [path]
        made.open(path, "restore")
        with pytest.raises(RuntimeError, match=r"failed 21 IN_USE"):
            made.open(path)
        with pytest.raises(RuntimeError, match="failed 20 UNAVAILABLE"):
            made.publish(f"{path}/s/i/lsb_src", 2)
        with pytest.raises(RuntimeError, match="failed 5 PARAMETER_INVALID"):
            made.publish(f"{path}/h/fs", 123)
        made.publish(f"{path}/s/i/range/mode", "manual")
        assert made.query(f"{path}/s/i/range/mode") == 5
        made.finalize()


# -- access -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind", "words"),
    [
        (RuntimeError("jsdrv_open failed -3 UNKNOWN | x | u/js220/1"), AccessError, "72-joulescope.rules"),
        (RuntimeError("jsdrv_open failed 18 PERMISSIONS | x | u/js220/1"), AccessError, "72-joulescope.rules"),
        (RuntimeError("jsdrv_open failed -6 UNKNOWN | x | u/js220/1"), AccessError, "Close the Joulescope application"),
        (RuntimeError("jsdrv_open failed 19 BUSY | x | u/js220/1"), AccessError, "Close the Joulescope application"),
        (RuntimeError("jsdrv_open failed -4 UNKNOWN | x | u/js220/1"), NotFoundError, "virtual machine or WSL"),
        (RuntimeError("jsdrv_publish failed 5 PARAMETER_INVALID | x | t"), UsageError, "firmware"),
        (RuntimeError("jsdrv_publish failed 4 IO | x | t"), IncompleteError, "Unplug it"),
        (TimeoutError("jsdrv_open timed out | u/js220/1"), AccessError, "virtual machine or WSL"),
    ],
)
def test_the_librarys_errors_are_told_with_what_to_do(
    raised: Exception, kind: type[JouleMeterError], words: str
) -> None:
    with pytest.raises(kind) as caught, library.told("the meter"):
        raise raised
    assert words in caught.value.remedy
    assert "meter" in caught.value.what


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(library, "_shared", library._Shared())
    monkeypatch.setattr(library.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError) as caught:
        joulescope.open("", Options())
    assert caught.value.exit_code == 7
    assert "pip install 'joulemeter[joulescope]'" in caught.value.remedy


def usb_tree(root: Path) -> tuple[Path, Path]:
    """What Linux shows of a JS220 and a JS110 beside a hub."""
    rows = {
        "1-1": ("16d0", "10ba", "000415", "1", "7"),
        "1-2": ("16d0", "0e88", "001234", "1", "12"),
        "usb1": ("1d6b", "0002", "0000:00:14.0", "1", "1"),
        "1-1:1.0": None,
    }
    for name, row in rows.items():
        device = root / "devices" / name
        device.mkdir(parents=True)
        for file, text in zip(("idVendor", "idProduct", "serial", "busnum", "devnum"), row or (), strict=False):
            (device / file).write_text(text + "\n")
    (root / "nodes" / "001").mkdir(parents=True)
    for node in ("007", "012"):
        (root / "nodes" / "001" / node).touch()
    return root / "devices", root / "nodes"


def test_meters_on_usb_are_found_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "installed", lambda: False)
    found = discovery.discover("joulescope", *usb_tree(tmp_path))
    assert [(one.address, one.serial) for one in found] == [("u/js220/000415", "000415"), ("u/js110/001234", "001234")]
    assert all("joulemeter[joulescope]" in (one.remedy or "") for one in found)
    assert discovery.discover("joulescope", tmp_path / "none", tmp_path) == []


def test_what_may_not_be_opened_is_told_with_the_udev_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usb, nodes = usb_tree(tmp_path)
    monkeypatch.setattr(discovery, "installed", lambda: True)
    monkeypatch.setattr(discovery, "library_paths", lambda: ["u/js110/001234", "u/js220/unknown"])
    monkeypatch.setattr(discovery.os, "access", lambda path, mode: not str(path).endswith("007"))
    found = {one.address: one for one in discovery.discover("joulescope", usb, nodes)}
    assert set(found) == {"u/js110/001234", "u/js220/000415"}
    assert found["u/js110/001234"].problem is None
    assert "001/007" in (found["u/js220/000415"].problem or "")
    assert "72-joulescope.rules" in (found["u/js220/000415"].remedy or "")
    # Where the kernel's list cannot be read, a serial number that cannot be read either says as much.
    (alone,) = [one for one in discovery.discover("joulescope", tmp_path / "none", nodes) if one.problem]
    assert (alone.serial, alone.remedy) == (None, library.UDEV)


def test_one_of_several_has_to_be_named() -> None:
    paths = ["u/js110/001234", "u/js220/000415"]
    assert driver.choose("000415", paths) == driver.choose("u/js220/000415", paths) == "u/js220/000415"
    assert driver.choose("", paths[:1]) == paths[0]
    with pytest.raises(UsageError, match="2 Joulescopes"):
        driver.choose("", paths)
    with pytest.raises(NotFoundError, match="No Joulescope 999"):
        driver.choose("999", paths)


def test_one_that_may_not_be_opened_is_no_absent_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usb, nodes = usb_tree(tmp_path)
    monkeypatch.setattr(discovery, "installed", lambda: True)
    monkeypatch.setattr(discovery, "library_paths", lambda: [])
    monkeypatch.setattr(discovery.os, "access", lambda path, mode: False)
    seen = discovery.discover("joulescope", usb, nodes)
    monkeypatch.setattr(discovery, "discover", lambda key: seen)
    for address in ("", "000415"):
        with pytest.raises(AccessError, match="cannot be opened") as caught:
            driver.choose(address, [])
        assert "72-joulescope.rules" in caught.value.remedy
