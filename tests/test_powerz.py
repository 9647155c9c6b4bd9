"""The POWER-Z driver against recorded traffic of a real KM003C, the parser km003c, and the device end of its wire."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter import frames
from joulemeter.capture import ArrayStream, Block, Gap, Header, Kind, Timebase
from joulemeter.errors import AccessError, DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.instruments import powerz
from joulemeter.instruments.powerz import aes, channels, decode, discovery, driver, simulator, wire
from joulemeter.physics.integrate import integrate
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.transport.serve import serve_tcp
from joulemeter.window import Window

LOAD = parse_load("1.2A/60ms/d0,400mA/140ms")
RECORDED = Path(__file__).parent / "data" / "powerz_km003c.txt"


def traffic(session: str) -> list[tuple[float, str, bytes]]:
    """Seconds, direction and bytes of a recorded session."""
    text = RECORDED.read_text(encoding="ascii").partition(f"[{session}]\n")[2].partition("[")[0]
    rows = (line.split() for line in text.splitlines())
    return [(float(seconds), direction, bytes.fromhex(raw)) for seconds, direction, raw in rows]


FAST = traffic("orig_adc_1000hz.6")
MIXED = traffic("pd_adcqueue_new.11")


def queued(rows: list[tuple[float, str, bytes]]) -> list[bytes]:
    """Answers that hold nothing but samples, as they were recorded."""
    return [raw for _, direction, raw in rows if direction == "<" and raw[0] == 0x41 and raw[4:6] == b"\2\0"]


def chosen(**settings: str) -> dict[str, str]:
    values: dict[str, str] = powerz.INFO.chosen(Options(settings=settings))
    return values


def header(rate: str = "1000", sign: float = 1.0) -> Header:
    """What describes a stream at that rate."""
    return Header(
        instrument="powerz",
        model="KM003C",
        wire=wire.QUEUE_FORMAT,
        rate_hz=wire.RATES[rate].hz,
        word_bytes=20,
        channels=channels.streamed(wire.RATES[rate].hz),
        loss_modulo=wire.RATES[rate].modulo,
        parameters={"sign": sign},
    )


def decoded(head: Header, raw: bytes, piece: int = 1 << 20) -> list[Block]:
    decoder = powerz.decoder(head)
    blocks: list[Block] = [block for at in range(0, len(raw), piece) for block in decoder.feed(raw[at : at + piece])]
    return [*blocks, *decoder.finish()]


def joined(blocks: list[Block], name: str) -> Any:
    return np.concatenate([block.data[name] for block in blocks])


def stream_of(head: Header, blocks: list[Block]) -> ArrayStream:
    polled = blocks[0].times_ns is not None
    return ArrayStream(
        name="powerz",
        header=head,
        timebase=Timebase(rate_hz=head.rate_hz),
        data={name: joined(blocks, name) for name in blocks[0].data},
        gaps=tuple(Gap(index=block.first_index, lost=block.lost_before) for block in blocks if block.lost_before),
        times_ns=np.concatenate([block.times_ns for block in blocks if block.times_ns is not None]) if polled else None,
    )


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """In process a meter's time runs by answers: nothing is gained by waiting for more samples."""
    monkeypatch.setattr(driver, "FETCH_S", dict.fromkeys(driver.FETCH_S, 0.0))


class Heard:
    """A device that writes down what it is told."""

    def __init__(self, device: Device) -> None:
        self.device, self.requests = device, list[bytes]()

    def receive(self, data: bytes) -> None:
        self.requests.append(data)
        self.device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        return self.device.transmit(now_s)


def connected(faults: str = "", load: Load = LOAD, **settings: str) -> tuple[driver.Driver, Heard]:
    device = powerz.simulate(load, Options(settings=settings))
    heard = Heard(FaultyDevice(device, parse_faults(faults)))
    return driver.Driver(LoopbackLink(heard), Options(), chosen(**settings)), heard


def recorded(seconds: float, faults: str = "", load: Load = LOAD, **settings: str) -> tuple[Header, bytes]:
    """So many seconds of samples, however long they take."""
    meter, _ = connected(faults, load, **settings)
    with meter:
        head = meter.start()
        wanted, raw, idle = round(seconds * head.rate_hz) * head.word_bytes, b"", 0
        while len(raw) < wanted and idle < 100:
            more = meter.read(0.6)
            idle = 0 if more else idle + 1
            raw += more
    return head, raw[:wanted]


@contextlib.contextmanager
def on_tcp(device: Device) -> Iterator[str]:
    where: list[str] = []
    ready, stop = threading.Event(), threading.Event()

    def announce(address: str) -> None:
        where.append(address)
        ready.set()

    server = threading.Thread(target=serve_tcp, args=(device, ("127.0.0.1", 0), announce, stop.is_set), daemon=True)
    server.start()
    assert ready.wait(5)
    try:
        yield where[0]
    finally:
        stop.set()
        server.join(5)


# -- bytes from outside -----------------------------------------------------------------------------------------------


def test_aes_is_that_of_the_standard() -> None:
    """FIPS 197, appendix C.1 and the last round key of A.1."""
    plain, key = bytes.fromhex("00112233445566778899aabbccddeeff"), bytes(range(16))
    assert aes.encrypt(plain, key).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"
    assert aes.decrypt(aes.encrypt(plain * 2, key), key) == plain * 2
    with pytest.raises(ValueError, match="multiple of the block"):
        aes.encrypt(plain[:15], key)
    with pytest.raises(ValueError, match="17 bytes"):
        aes.decrypt(plain, key + b"\0")


def test_requests_are_those_of_the_makers_program() -> None:
    sent = {raw for _, direction, raw in FAST if direction == ">"}
    assert wire.control(wire.Kind.CONNECT, 1) in sent
    assert wire.control(wire.Kind.STOP_GRAPH, 9) in sent
    assert wire.control(wire.Kind.START_GRAPH, 0x1C, wire.RATES["1000"].index) in sent
    assert wire.control(wire.Kind.GET_DATA, 0x1D, wire.QUEUE) in sent
    assert wire.control(wire.Kind.GET_DATA, 7, wire.SETTINGS) in sent
    assert wire.control(wire.Kind.GET_DATA, 0x0A, wire.ADC) in sent
    for number, (address, size) in enumerate(
        [(0x420, 64), (wire.FIRMWARE_BLOCK, 64), (wire.CALIBRATION_BLOCK, 64), (wire.HARDWARE_ID, 12)], 2
    ):
        assert wire.memory_read(address, size, number) in sent
    theirs = next(raw for raw in sent if raw[0] == 0x4C)
    ours = wire.credential(b"071KBP\x0d\xff\x11\x0a\xff\xff", 6)
    assert ours[:4] == theirs[:4]
    plain = [aes.decrypt(raw[4:], wire.CREDENTIAL_KEY) for raw in (ours, theirs)]
    assert plain[0][8:20] == plain[1][8:20]


def test_every_recorded_answer_is_one_packet_whatever_the_pieces() -> None:
    answers = [raw for _, direction, raw in FAST + MIXED if direction == "<"]
    # Enciphered blocks have no head, and an empty catalogue of its own recordings is never asked for.
    framed = [raw for raw in answers if len(raw) not in (64, 16) and raw[:2] != b"\x41\x08"]
    assert len(framed) > 50
    for raw in framed:
        packet = wire.packet(raw)
        assert packet is not None
        assert packet.size == len(raw)
        cut = [size for size in range(len(raw)) if wire.packet(raw[:size]) is not None]
        assert cut == []


def test_a_snapshot_as_the_maker_prints_it() -> None:
    """ "KM002C&3C API Description": 40 bytes of a KM002C, 15877 µV and 26 µA."""
    printed = bytes.fromhex(
        "41090202 0100000A 053E0000 1A000000 FA3D0000 14000000 FA3D0000 14000000 00007B7C 70808102 83024D84 690CD20C"
    )
    assert len(printed) == 48
    assert wire.flows(printed.ljust(wire.SNAPSHOT_BYTES, b"\0")) == pytest.approx((26e-6, 15877e-6), rel=1e-12)


class Recorded:
    """A real KM003C as far as its traffic was recorded: each request gets the answer that it got then."""

    def __init__(self, *, level: int = 1) -> None:
        self.outbox, self.level, self.queue = b"", level, queued(FAST)
        rows = [(direction, raw) for _, direction, raw in FAST]
        self.memory = {
            raw[4:]: rows[k + 1][1] + rows[k + 2][1]
            for k, (_, raw) in enumerate(rows)
            if raw[0] == 0x44 and raw[2] == 1
        }
        self.settings = next(raw for _, raw in rows if raw[:2] == b"\x41\x07")
        self.granted = next(raw for direction, raw in rows if direction == "<" and raw[0] == 0x4C)

    def receive(self, data: bytes) -> None:
        self.outbox += self._answer(data[0], data[1], data[2:4], data[4:])

    def _answer(self, kind: int, number: int, word: bytes, body: bytes) -> bytes:
        if kind == 0x44:
            return b"\xc4" + bytes([number]) + self.memory[body][2:]
        if kind == 0x4C:
            return self.granted[:2] + bytes([1 | self.level << 1]) + self.granted[3:]
        if kind == 0x0C and word == b"\x04\0":
            # The first two bits of the rest are set in recordings of an empty queue.
            return b"\x41" + bytes([number]) + (self.queue.pop(0)[2:] if self.queue else b"\x02\0")
        if kind == 0x0C and word == b"\x10\0":
            return b"\x41" + bytes([number]) + self.settings[2:]
        return bytes([0x05, number, 0, 0])

    def transmit(self, now_s: float) -> bytes:
        sent, self.outbox = self.outbox, b""
        return sent


def test_a_session_with_a_recorded_meter() -> None:
    with driver.Driver(LoopbackLink(Recorded()), Options(), chosen(), "KM003C") as meter:
        head = meter.start()
        raw = b"".join(meter.read(0.1) for _ in range(len(queued(FAST)) + 2))
    assert (head.model, head.firmware, head.serial) == ("KM003C", "1.9.5", "007965")
    assert head.parameters["hardware"] == "2.1"
    assert not head.simulated
    assert raw == b"".join(answer[8:] for answer in queued(FAST))
    blocks = decoded(head, raw)
    # Nothing was on its output: a few hundred microamperes of noise at 5.08 V.
    assert joined(blocks, "voltage").mean() == pytest.approx(5.083, abs=0.002)
    assert abs(joined(blocks, "current").mean()) < 1e-3
    assert sum(map(len, blocks)) == len(raw) // 20


def test_a_meter_that_refuses_to_stream_is_polled_if_asked() -> None:
    with (
        driver.Driver(LoopbackLink(Recorded(level=0)), Options(), chosen()) as meter,
        pytest.raises(AccessError, match=r"firmware 1\.9\.5.*mode=poll"),
    ):
        meter.start()


def test_lost_samples_of_a_real_meter_are_those_that_km003c_counts() -> None:
    """It was asked too seldom between 50.1 s and 50.4 s, and its queue overflowed."""
    answers = [raw for raw in queued([row for row in MIXED if row[0] > 49]) if len(raw) > 8]
    raw = b"".join(answer[8:] for answer in answers)
    ticks = np.concatenate([np.frombuffer(answer[8:], "<u2").reshape(-1, 10)[:, 0] for answer in answers])
    blocks = decoded(header(), raw, piece=33)
    assert sum(map(len, blocks)) == len(ticks)
    # One millisecond each, on the meter's own clock.
    lost = int((ticks[-1].astype(int) - ticks[0]) % 65536) + 1 - len(ticks)
    assert lost > 20
    assert sum(block.lost_before for block in blocks) == lost
    assert blocks[-1].first_index + len(blocks[-1]) == len(ticks) + lost


def test_a_step_of_current_at_50_hz_is_averaged_over_its_sample() -> None:
    """What notes.md rests on: the sample at the step lies between both levels, and those beside it on them."""
    raw = b"".join(answer[8:] for answer in queued([row for row in MIXED if row[0] < 49]))
    current = joined(decoded(header("50"), raw), "current")
    at = int(np.argmax(np.abs(np.diff(current))))
    around = -current[at - 2 : at + 4]
    assert around[0] == pytest.approx(1.293, abs=0.001)
    assert 1.12 < around[2:4].max() < 1.29
    assert around[-1] == pytest.approx(1.116, abs=0.001)


def test_voltage_and_current_of_a_real_meter_are_new_in_turn() -> None:
    """What channels.FAST_REFRESH_S rests on."""
    for rows in (FAST, [row for row in MIXED if row[0] > 49]):
        kept = [np.frombuffer(answer[8:], wire.SAMPLE) for answer in queued(rows)]
        voltage = np.concatenate([np.diff(samples["voltage"]) != 0 for samples in kept])
        current = np.concatenate([np.diff(samples["current"]) != 0 for samples in kept])
        assert not (voltage & current).any()
        assert voltage.mean() == pytest.approx(0.45, abs=0.05)
        assert current.mean() == pytest.approx(0.45, abs=0.05)


# -- the parser and builder km003c ------------------------------------------------------------------------------------


@pytest.mark.outside
def test_km003c_builds_and_reads_the_requests_as_we_do() -> None:
    km003c = pytest.importorskip("km003c", reason="km003c is not installed")
    for kind, attribute in [
        (km003c.CMD_CONNECT, 0),
        (km003c.CMD_STOP_GRAPH, 0),
        (km003c.CMD_GET_DATA, km003c.ATT_ADC),
        (km003c.CMD_GET_DATA, km003c.ATT_ADC_QUEUE),
        (km003c.CMD_GET_DATA, km003c.ATT_SETTINGS),
        *((km003c.CMD_START_GRAPH, getattr(km003c, f"RATE_{rate}_SPS")) for rate in wire.RATES),
    ]:
        assert wire.control(wire.Kind(kind), 77, attribute) == km003c.create_packet(kind, 77, attribute)
    for rate, one in wire.RATES.items():
        request = wire.control(wire.Kind.START_GRAPH, 1, one.index)
        assert km003c.parse_packet(request) == {"StartGraph": {"rate_index": getattr(km003c, f"RATE_{rate}_SPS")}}
    assert (wire.VENDOR, wire.KM003C) == (km003c.VID, km003c.PID)
    assert (wire.INTERFACE, wire.ENDPOINT_OUT, wire.ENDPOINT_IN) == (
        km003c.INTERFACE_VENDOR,
        km003c.ENDPOINT_OUT_VENDOR,
        km003c.ENDPOINT_IN_VENDOR,
    )
    assert wire.memory_read(wire.HARDWARE_ID, 12, 3) == bytes(
        km003c.build_memory_read_packet(km003c.ADDR_HARDWARE_ID, km003c.HARDWARE_ID_SIZE, 3)
    )
    read = km003c.parse_packet(wire.credential(b"071KBP\x0d\xff\x11\x0a\xff\xff", 9))
    assert read == {"StreamingAuth": {"credential": "3037314b42500dff110affff"}}


@pytest.mark.outside
@pytest.mark.parametrize("rate", list(wire.RATES))
def test_km003c_reads_the_simulator_as_we_do(rate: str) -> None:
    km003c = pytest.importorskip("km003c", reason="km003c is not installed")
    device = powerz.simulate(LOAD, Options())
    device.receive(wire.credential(simulator.HARDWARE_ID, 1))
    allowed = km003c.parse_packet(device.transmit(1.0))["StreamingAuthResponse"]
    assert (allowed["success"], allowed["auth_level"]) == (True, 1)
    device.receive(wire.memory_read(wire.DEVICE_BLOCK, 64, 2))
    answer = device.transmit(1.0)
    assert answer[:4] == b"\xc4\2\1\1"
    assert bytes(km003c.decrypt_memory_payload(answer[20:]))[0x10:0x16] == b"KM003C"
    device.receive(wire.control(wire.Kind.START_GRAPH, 3, wire.RATES[rate].index))
    assert km003c.parse_packet(device.transmit(1.0)) == {"Accept": {"id": 3}}
    device.receive(wire.control(wire.Kind.GET_DATA, 4, wire.QUEUE))
    answer = device.transmit(1.0 + 20 / wire.RATES[rate].hz)
    (payload,) = km003c.parse_packet_with_graph_rate(answer, wire.RATES[rate].index)["DataResponse"]["payloads"]
    theirs = (payload if not isinstance(payload, dict) else payload["AdcQueue"]).samples
    blocks = decoded(header(rate), answer[8:])
    assert len(theirs) == sum(map(len, blocks)) == 20
    assert [one.vbus_v for one in theirs] == pytest.approx(joined(blocks, "voltage").tolist(), rel=1e-15)
    assert [one.ibus_a for one in theirs] == pytest.approx(joined(blocks, "current").tolist(), rel=1e-15)
    assert not payload.has_dropped_samples()
    device.receive(wire.control(wire.Kind.GET_DATA, 5, wire.ADC))
    answer = device.transmit(2.0)
    (adc,) = km003c.parse_packet(answer)["DataResponse"]["payloads"]
    assert (adc.ibus_a, adc.vbus_v) == pytest.approx(wire.flows(answer), rel=1e-15)
    device.receive(wire.control(wire.Kind.GET_DATA, 6, wire.SETTINGS))
    (settings,) = km003c.parse_packet(device.transmit(2.0))["DataResponse"]["payloads"]
    assert settings is not None


@pytest.mark.outside
def test_km003c_reads_recorded_samples_as_we_do() -> None:
    km003c = pytest.importorskip("km003c", reason="km003c is not installed")
    for answer in queued(FAST):
        (payload,) = km003c.parse_packet_with_graph_rate(answer, 3)["DataResponse"]["payloads"]
        blocks = decoded(header(), answer[8:])
        assert sum(map(len, blocks)) == len(payload.samples)
        assert [one.ibus_a for one in payload.samples] == pytest.approx(joined(blocks, "current").tolist(), rel=1e-15)
        assert payload.has_dropped_samples() == any(block.lost_before for block in blocks)


# -- ticks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "modulo"), [("1000", 65536), ("50", 16384), ("10", 16384), ("2", 16384)])
def test_losses_are_counted_modulo_what_the_ticks_can_tell(rate: str, modulo: int) -> None:
    one = wire.RATES[rate]
    assert one.modulo == modulo
    for lost in (0, 1, 7, 3000, modulo - 2):
        after = (65000 + (lost + 1) * one.step) % 65536
        assert one.apart(65000, after) == lost + 1


def packed(ticks: Any, current: int = -1_000_000, voltage: int = 5_000_000) -> bytes:
    samples = np.zeros(len(ticks), wire.SAMPLE)
    samples["ticks"], samples["current"], samples["voltage"] = np.asarray(ticks) % 65536, current, voltage
    return samples.tobytes()


@pytest.mark.parametrize("piece", [1, 20, 33, 1000])
def test_holes_and_spoilt_samples(piece: int) -> None:
    ticks = [*range(65530, 65560), *range(65600, 65650)]  # 40 lost, past the wrap
    raw = bytearray(packed(ticks))
    raw[20 * 60 : 20 * 62] = bytes(byte ^ 0xFF for byte in raw[20 * 60 : 20 * 62])
    blocks = decoded(header(), bytes(raw), piece)
    # The two spoilt ones and the one before them.
    assert [(block.first_index, block.lost_before) for block in blocks if block.lost_before] == [(70, 40), (102, 3)]
    assert sum(map(len, blocks)) == 80 - 3
    assert blocks[-1].consumed == len(raw)
    assert set(joined(blocks, "current")) == {-1.0}


def test_a_voltage_that_cannot_be_is_no_sample() -> None:
    raw = packed(range(10)) + packed([10], voltage=-5_000_000) + packed(range(11, 30))
    blocks = decoded(header(), raw)
    assert sum(map(len, blocks)) == 28
    assert sum(block.lost_before for block in blocks) == 2


def test_a_single_sample_is_a_stream_too() -> None:
    (block,) = decoded(header("2"), packed([500]))
    assert block.data["current"].tolist() == [-1.0]


def test_nonsense_ends_the_stream_with_a_word() -> None:
    decoder = powerz.decoder(header())
    noise = np.random.default_rng(1).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
    assert sum(map(len, decoder.feed(packed(range(100)) + noise[:20_000]))) in (99, 100)
    with pytest.raises(DataError, match="make no sense"):
        decoder.feed(noise[20_000:])


def test_a_decoder_goes_on_from_its_state_at_any_byte() -> None:
    # One sample by itself is not believed, and neither is the one before it: 44 are left of 110 milliseconds.
    raw = packed([*range(20), *range(25, 40), 90, *range(100, 110)])
    whole = decoded(header(), raw)
    for cut in range(0, len(raw), 7):
        first, second = powerz.decoder(header()), powerz.decoder(header())
        blocks = first.feed(raw[:cut])
        second.restore(json.loads(json.dumps(first.state())))
        blocks += second.feed(raw[cut:]) + second.finish()
        assert joined(blocks, "current").tobytes() == joined(whole, "current").tobytes()
        assert sum(block.lost_before for block in blocks) == sum(block.lost_before for block in whole) == 66


def test_streams_of_another_format_or_rate_are_refused() -> None:
    with pytest.raises(UsageError, match="other/1"):
        powerz.decoder(replace(header(), wire="other/1"))
    with pytest.raises(DataError, match="333"):
        powerz.decoder(replace(header(), rate_hz=333.0))


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    Options(supply_v=5.0),
    Options(declared_v=5.0),
    Options(settings={"rate": "100"}),
    Options(settings={"mode": "burst"}),
    Options(settings={"direction": "up"}),
    Options(settings={"speed": "1"}),
])  # fmt: skip
def test_options_that_cannot_be_are_refused_before_anything_is_opened(options: Options) -> None:
    with pytest.raises(UsageError):
        powerz.open("127.0.0.1:9", options)


@pytest.mark.parametrize("queue", ["0", "many"])
def test_a_simulator_without_a_queue_is_refused(queue: str) -> None:
    with pytest.raises(UsageError, match="queue"):
        powerz.simulate(LOAD, Options(settings={"queue": queue}))


@pytest.mark.parametrize("interval", ["often", "0s", "2s"])
def test_an_interval_that_cannot_be_is_refused(interval: str) -> None:
    with pytest.raises(UsageError):
        connected(mode="poll", interval=interval)


@pytest.mark.parametrize(("rate", "kind", "refresh_s"), [
    ("1000", Kind.MEAN, 2e-3), ("50", Kind.MEAN, None), ("10", Kind.MEAN, None), ("2", Kind.MEAN, None)
])  # fmt: skip
def test_each_rate_is_asked_for_and_kept(rate: str, kind: Kind, refresh_s: float | None) -> None:
    meter, heard = connected(rate=rate)
    with meter:
        head = meter.start()
        assert heard.requests[-1][0] == 0x0E
        assert heard.requests[-1][2] >> 1 == {"1000": 3, "50": 2, "10": 1, "2": 0}[rate]
        assert meter.read(0.0) == b""
    assert heard.requests[-1][0] == 0x0F
    assert (head.rate_hz, head.simulated, head.firmware) == (float(rate), True, "0.0")
    assert (head.channels[0].kind, head.channels[0].refresh_s) == (kind, refresh_s)


@pytest.mark.usefixtures("hurried")
def test_current_counts_positive_in_the_direction_that_was_named() -> None:
    """The meter itself counts it positive from socket to plug."""
    link = LoopbackLink(powerz.simulate(LOAD, Options()))
    for direction, sign in (("plug-to-socket", 1), ("socket-to-plug", -1)):
        with driver.Driver(link, Options(), chosen(direction=direction, rate="50")) as meter:
            head = meter.start()
            blocks = decoded(head, b"".join(meter.read(0.2) for _ in range(30)))
        assert np.sign(joined(blocks, "current")).tolist() == [sign] * sum(map(len, blocks))
        assert head.parameters["direction"] == direction


# -- energy through real bytes ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(("rate", "text", "seconds"), [
    ("1000", "1.2A/60ms/d0,400mA/140ms", 1.0),
    ("1000", "2.345A/33.3ms/d0,0.12A/66.7ms", 1.0),
    ("50", "900mA/500ms/d0,300mA/500ms", 3.0),
])  # fmt: skip
def test_energy_of_each_pulse_is_the_loads(rate: str, text: str, seconds: float) -> None:
    load = parse_load(text)
    head, raw = recorded(seconds, load=load, rate=rate)
    stream = stream_of(head, decoded(head, raw))
    truth_c = load.pulse_charge_c(0)
    assert truth_c is not None
    pulse_ns, period_ns = round(load.pulse_duration_s(0) * 1e9), round(load.period_s * 1e9)
    windows = [
        Window(start_ns=k * period_ns, stop_ns=k * period_ns + pulse_ns, index=k)
        for k in range(1, round(seconds / load.period_s) - 1)
    ]
    found = integrate(stream, windows)
    assert len(found) >= 1
    rows = [head.channels[0].accuracy[0], head.channels[1].accuracy[0]]
    for one in found:
        stated_j = one.resolution_j + truth_c * 5.0 * sum(row.gain.value for row in rows)
        assert one.energy_j == pytest.approx(truth_c * 5.0, abs=stated_j)
        # Without the meter's own errors what is left is where the edges fall among samples.
        step_w = 5.0 * (load.steps[0].current_a - load.steps[1].current_a)
        assert one.energy_j == pytest.approx(truth_c * 5.0, abs=one.resolution_j + 2 * step_w / head.rate_hz)
        assert one.missing_s == 0.0
    whole = joined(decoded(head, raw), "current").mean()
    assert whole == pytest.approx(load.mean_a, rel=0.01)


def test_energy_of_a_polled_meter_is_within_what_it_states() -> None:
    """Asked on a grid of 0.25 s of the meter's own time."""
    load = parse_load("900mA/8.1s/d0,300mA/7.3s")
    device = powerz.simulate(load, Options())
    with driver.Driver(LoopbackLink(device), Options(), chosen(mode="poll", interval="250ms")) as meter:
        head = meter.start()
    assert head.epoch is not None
    assert (head.wire, head.channels[0].refresh_s, head.simulated) == (wire.SNAPSHOT_FORMAT, 0.5, True)
    head = replace(head, epoch=replace(head.epoch, monotonic_ns=0))
    device, raw = powerz.simulate(load, Options()), b""
    for slot in range(4 * 60):
        device.receive(wire.control(wire.Kind.GET_DATA, slot % 256, wire.ADC))
        at_ns = slot * 250_000_000
        answer = device.transmit(at_ns * 1e-9)
        raw += frames.pack(frames.Frame(number=slot, before_ns=at_ns, after_ns=at_ns, payload=answer))
    stream = stream_of(head, decoded(head, raw))
    starts = [k * 15_400_000_000 for k in range(1, 3)]
    windows = [Window(start_ns=start, stop_ns=start + 8_100_000_000, index=k) for k, start in enumerate(starts)]
    for one in integrate(stream, windows):
        assert one.energy_j == pytest.approx(0.9 * 8.1 * 5.0, abs=one.resolution_j)
        assert one.resolution_j < 0.1 * 0.9 * 8.1 * 5.0


def test_polling_in_real_time_gives_the_charge_of_a_constant_load() -> None:
    load = parse_load("750mA/1s/d0")
    with on_tcp(powerz.simulate(load, Options())) as address:
        options = Options(settings={"mode": "poll", "interval": "50ms"})
        with powerz.open(address, options) as meter:
            head = meter.start()
            deadline, raw = time.monotonic() + 1.5, b""
            while time.monotonic() < deadline:
                raw += meter.read(0.1)
    stream = stream_of(head, decoded(head, raw))
    assert stream.times_ns is not None
    first, last = int(stream.times_ns[0]), int(stream.times_ns[-1])
    (one,) = integrate(stream, [Window(start_ns=first, stop_ns=last, index=0)])
    assert one.energy_j == pytest.approx(0.75 * 5.0 * (last - first) * 1e-9, rel=1e-6)


# -- cables, other programs, other devices ----------------------------------------------------------------------------


@pytest.mark.usefixtures("hurried")
def test_a_meter_left_streaming_by_a_crashed_program_is_stopped_first() -> None:
    device = powerz.simulate(LOAD, Options())
    first = driver.Driver(LoopbackLink(device), Options(), chosen())
    first.start()
    assert first.read(0.1)
    heard = Heard(device)
    with driver.Driver(LoopbackLink(heard), Options(), chosen()) as meter:
        assert heard.requests[0][0] == 0x0F
        head = meter.start()
        raw = b"".join(meter.read(0.1) for _ in range(40))
    assert decoded(head, raw)[0].lost_before == 0


def test_starting_twice_is_refused_and_starting_again_after_stop_works() -> None:
    meter, _ = connected()
    with meter:
        meter.start()
        with pytest.raises(UsageError, match="streaming already"):
            meter.start()
        meter.stop()
        assert meter.read(0.1) == b""
        head = meter.start()
        blocks = decoded(head, b"".join(meter.read(0.1) for _ in range(10)))
        assert (blocks[0].first_index, sum(block.lost_before for block in blocks)) == (0, 0)
        # The load begins anew with the stream.
        assert joined(blocks, "current")[:59].tolist() == [1.2] * 59


def test_a_queue_that_overflows_is_a_counted_hole() -> None:
    """64 samples are kept: of 300 ms without a request 236 are lost."""
    device = powerz.simulate(LOAD, Options(settings={"queue": "64"}))
    link = LoopbackLink(device)
    with driver.Driver(link, Options(), chosen()) as meter:
        head = meter.start()
        raw = b"".join(meter.read(0.1) for _ in range(10))
        link._now_s += 0.3
        raw += b"".join(meter.read(0.1) for _ in range(10))
    blocks = decoded(head, raw)
    assert [block.lost_before > 200 for block in blocks if block.lost_before] == [True]
    assert head.loss_modulo == 65536


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("faults", ["drop@1s:128", "insert@1s:130", "insert@1s:3", "garble@1s:300", "garble@1s:9"])
def test_spoilt_bytes_are_lost_samples_and_never_values(faults: str) -> None:
    head, raw = recorded(1.5, faults, load=parse_load("2A/10ms/d0"), queue="1000")
    blocks = decoded(head, raw)
    assert set(np.round(joined(blocks, "current"), 9)) == {2.0}
    assert set(np.round(joined(blocks, "voltage"), 9)) == {5.0}


def test_a_lost_answer_is_a_counted_hole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "ANSWER_S", 0.1)
    head, raw = recorded(1.5, "drop@1s:400", queue="1000")
    blocks = decoded(head, raw)
    lost = sum(block.lost_before for block in blocks)
    assert lost >= 20
    assert blocks[-1].first_index + len(blocks[-1]) == lost + sum(map(len, blocks))


def test_a_stalled_meter_does_not_hang_and_a_late_answer_is_taken() -> None:
    class Late(Heard):
        """Holds everything back for a while."""

        held = b""
        until = 0.0

        def transmit(self, now_s: float) -> bytes:
            self.held += self.device.transmit(now_s)
            if time.monotonic() < self.until:
                return b""
            sent, self.held = self.held, b""
            return sent

    late = Late(powerz.simulate(LOAD, Options()))
    with driver.Driver(LoopbackLink(late, paced=True), Options(), chosen()) as meter:
        head = meter.start()
        raw = b"".join(meter.read(0.1) for _ in range(5))
        late.until = time.monotonic() + 0.3
        began = time.monotonic()
        quiet = [meter.read(0.05) for _ in range(4)]
        assert quiet == [b""] * 4
        assert time.monotonic() - began < 2
        raw += b"".join(meter.read(0.2) for _ in range(10))
    blocks = decoded(head, raw)
    assert sum(block.lost_before for block in blocks) == 0
    assert sum(map(len, blocks)) > 100


def test_unplugging_is_told_and_close_is_quiet() -> None:
    meter, _ = connected("unplug@1s")
    meter.start()
    with pytest.raises(IncompleteError):
        for _ in range(1000):
            meter.read(0.1)
    meter.stop()
    meter.close()
    meter.close()


@pytest.mark.parametrize("answer", [b"", b"hello\r\n" * 9, bytes(64), b"\x06\x01\0\0"])
def test_something_else_is_no_powerz(monkeypatch: pytest.MonkeyPatch, answer: bytes) -> None:
    class Other:
        said = b""

        def receive(self, data: bytes) -> None:
            self.said = answer

        def transmit(self, now_s: float) -> bytes:
            sent, self.said = self.said, b""
            return sent

    monkeypatch.setattr(driver, "ANSWER_S", 0.05)
    with pytest.raises(NotFoundError, match="does not answer as a POWER-Z"):
        driver.Driver(LoopbackLink(Other()), Options(), chosen())


def test_a_meter_that_refuses_the_rate_is_told() -> None:
    class Refusing(Recorded):
        def _answer(self, kind: int, number: int, word: bytes, body: bytes) -> bytes:
            return bytes([0x06, number, 0, 0]) if kind == 0x0E else super()._answer(kind, number, word, body)

    with (
        driver.Driver(LoopbackLink(Refusing()), Options(), chosen()) as meter,
        pytest.raises(AccessError, match="refuses to stream 1000"),
    ):
        meter.start()


def test_a_km002c_is_polled_unless_it_is_told_to_stream() -> None:
    device = powerz.simulate(LOAD, Options(settings={"model": "KM002C"}))
    heard = Heard(device)
    with driver.Driver(LoopbackLink(heard), Options(), chosen(), "KM002C") as meter:
        head = meter.start()
        raw = b"".join(meter.read(0.3) for _ in range(2))
    # No address of its memory is known to be safe.
    assert not [request for request in heard.requests if request[0] in (0x44, 0x4C)]
    assert (head.model, head.wire, head.simulated) == ("KM002C", wire.SNAPSHOT_FORMAT, True)
    assert sum(map(len, decoded(head, raw))) == 2
    with (
        driver.Driver(LoopbackLink(device), Options(), chosen(mode="stream"), "KM002C") as meter,
        pytest.raises(AccessError, match="mode=poll"),
    ):
        meter.start()


def test_two_sessions_over_tcp() -> None:
    with on_tcp(powerz.simulate(LOAD, Options())) as address:
        for _ in range(2):
            with powerz.open(address, Options()) as meter:
                head = meter.start()
                deadline, raw = time.monotonic() + 5, b""
                while len(raw) < 20 * 400 and time.monotonic() < deadline:
                    raw += meter.read(0.05)
            assert head.address == address
            blocks = decoded(head, raw)
            assert sum(block.lost_before for block in blocks) == 0
            assert joined(blocks, "current")[:400].mean() == pytest.approx(LOAD.mean_a, rel=0.01)


def test_a_cable_that_is_pulled_over_tcp_is_told() -> None:
    device = FaultyDevice(powerz.simulate(LOAD, Options()), parse_faults("unplug@0.5s"))
    with on_tcp(device) as address, contextlib.suppress(IncompleteError):
        meter = powerz.open(address, Options())
        meter.start()
        deadline = time.monotonic() + 10
        with pytest.raises(JouleMeterError) as caught:
            while time.monotonic() < deadline:
                meter.read(0.05)
        assert isinstance(caught.value, IncompleteError)
        meter.close()


def test_discovery_without_a_meter_is_empty_and_says_what_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "discover", list)
    with pytest.raises(NotFoundError, match="No POWER-Z is connected"):
        discovery.reach("")


def test_what_a_decoder_is_made_for_is_said_by_the_header() -> None:
    assert isinstance(powerz.decoder(header()), decode.QueueDecoder)
