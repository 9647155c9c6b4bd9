"""FNIRSI's USB meters: bytes that others published, streams that are not whole, and sessions with the simulator."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from joulemeter.capture import ArrayStream, Block, Header, Kind, Timebase
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Device, Options
from joulemeter.instruments import fnirsi
from joulemeter.instruments.fnirsi import decode, driver, wire
from joulemeter.instruments.fnirsi import simulator as device_end
from joulemeter.physics.integrate import integrate
from joulemeter.synthetic import parse_load
from joulemeter.testing.contract import Subject
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.transport.loopback import LoopbackLink
from joulemeter.transport.serve import serve_tcp
from joulemeter.window import Window

SUBJECT = Subject(module=fnirsi)
MODELS = tuple(wire.MODELS)
FNIRSI_LOGGER = Path(os.environ.get("JOULEMETER_FNIRSI_LOGGER", "/nonexistent"))

# Randomblock1/fnirsi-usb-tool has this report in its tests by its values (5 V, 1 A, D+ 2.9 V, D- 0.1 V, 25 °C); its
# last byte is what the package crc 8.0.0 makes of it.
SAMPLE = "20a10700 a0860100 540b 6400 01 fa00"
REPORT = bytes.fromhex(f"aa04 {4 * SAMPLE} 00 9d")
OTHER_KIND = wire.command(0x03)


def report(*amperes: float) -> bytes:
    """A measurement of these four currents at 5 V."""
    body = b"\x04" + b"".join(struct.pack("<IIHHBH", 500_000, round(a * 1e5), 0, 0, 1, 250) for a in amperes) + b"\0"
    return b"\xaa" + body + bytes([wire.checksum(body)])


def header() -> Header:
    return Header(
        instrument="fnirsi",
        model="FNB58",
        wire=wire.FORMAT,
        rate_hz=wire.RATE_HZ,
        word_bytes=wire.WORD_BYTES,
        channels=fnirsi.INFO.channels,
        clock=fnirsi.channels.CLOCK,
    )


def decoded(raw: bytes) -> list[Block]:
    one = fnirsi.decoder(header())
    blocks: list[Block] = one.feed(raw) + one.finish()
    return blocks


def shape(blocks: Sequence[Block]) -> list[tuple[int, int, int, int]]:
    return [(block.first_index, block.lost_before, len(block), block.consumed) for block in blocks]


def joined(blocks: Sequence[Block], name: str) -> list[float]:
    values: list[float] = np.concatenate([block.data[name] for block in blocks]).tolist()
    return values


# -- bytes from elsewhere ---------------------------------------------------------------------------------------------


def test_checksums_that_others_published() -> None:
    # reveng's check value of this CRC and the last bytes of the three commands, as fnirsi_logger.py has them.
    assert wire.checksum(b"123456789") == 0x4B
    for kind, last in ((0x81, 0x8E), (0x82, 0x96), (0x83, 0x9E)):
        assert wire.command(kind) == bytes([0xAA, kind, *bytes(61), last])


def test_a_report_of_known_values() -> None:
    assert wire.whole(REPORT)
    values = wire.samples(REPORT)
    assert values is not None
    assert values.tolist() == [[1.0] * 4, [5.0] * 4, [25.0] * 4]
    names = [channel.name for channel in fnirsi.INFO.channels]
    assert names == ["current", "voltage", "temperature"]


def test_digits_of_a_published_log() -> None:
    """The first report in the README of fnirsi-usb-power-data-logger, packed again as its program unpacks it."""
    lines = (
        "0.00000 0.00011 1.184 1.031 30.500",
        "0.00000 0.00000 1.184 1.033 30.500",
        "0.00000 0.00011 1.184 1.030 30.500",
        "0.00000 0.00000 1.184 1.031 30.500",
    )
    digits = [[int(field.replace(".", "")) for field in line.split()] for line in lines]
    body = b"\x04" + b"".join(struct.pack("<IIHHBH", v, a, dp, dn, 1, t // 100) for v, a, dp, dn, t in digits)
    values = wire.samples(b"\xaa" + body + b"\0\0")
    assert values is not None
    assert [f"{v:.5f} {a:.5f} {t:.3f}" for a, v, t in values.T.tolist()] == [
        " ".join(line.split()[at] for at in (0, 1, 4)) for line in lines
    ]


def test_what_an_fnb48_sent_first_after_a_restart_is_no_measurement() -> None:
    # Published: 188.74370 V, 170.39408 A, D+ 51.840 V, the rest zero (pull request 4 of fnirsi-usb-power-data-logger).
    first = struct.pack("<IIHHBH", 18874370, 17039408, 51840, 0, 0, 0)
    body = b"\x04" + first.ljust(61, b"\0")
    garbage = b"\xaa" + body + bytes([wire.checksum(body)])
    assert wire.whole(garbage) and wire.samples(garbage) is None
    assert shape(decoded(garbage + 2 * REPORT)) == [(0, 0, 8, 192)]
    assert shape(decoded(REPORT + garbage + REPORT)) == [(0, 0, 4, 64), (8, 4, 4, 192)]


# -- streams that are not whole ---------------------------------------------------------------------------------------

SPOILT = bytes([*REPORT[:20], REPORT[20] ^ 1, *REPORT[21:]])


@pytest.mark.parametrize(
    ("raw", "blocks"),
    [
        (REPORT * 3, [(0, 0, 12, 192)]),
        (REPORT + SPOILT + REPORT, [(0, 0, 4, 64), (8, 4, 4, 192)]),
        (REPORT + SPOILT * 3 + REPORT * 2, [(0, 0, 4, 64), (16, 12, 8, 384)]),
        # A report of another kind is no loss.
        (REPORT + OTHER_KIND + REPORT, [(0, 0, 4, 64), (4, 0, 4, 192)]),
        # On other links than USB bytes may be missing, or come in between: the report that they were of is lost.
        (REPORT + REPORT[:30] + REPORT * 2, [(0, 0, 4, 64), (8, 4, 8, 222)]),
        (REPORT + REPORT[40:] + REPORT * 2, [(0, 0, 4, 64), (8, 4, 8, 216)]),
        # Before the first measurement nothing was counted.
        (SPOILT + REPORT * 2, [(0, 0, 8, 192)]),
        (REPORT + SPOILT, [(0, 0, 4, 64)]),
    ],
)
def test_losses_are_counted(raw: bytes, blocks: list[tuple[int, int, int, int]]) -> None:
    assert shape(decoded(raw)) == blocks
    one, pieces = fnirsi.decoder(header()), []
    for byte in raw:
        pieces += one.feed(bytes([byte]))
        again = fnirsi.decoder(header())
        again.restore(json.loads(json.dumps(one.state())))
        one = again
    pieces += one.finish()
    assert sum(block.lost_before for block in pieces) == sum(lost for _, lost, _, _ in blocks)
    assert pieces[-1].first_index + len(pieces[-1]) == blocks[-1][0] + blocks[-1][2]
    assert joined(pieces, "current") == joined(decoded(raw), "current")


def test_a_mark_within_a_spoilt_report_does_not_shift_those_after_it() -> None:
    spoilt = report(*[0.43946] * 4)  # AAAA in its bytes
    assert spoilt.count(b"\xaa") > 4
    spoilt = spoilt[:-1] + bytes([spoilt[-1] ^ 0xFF])
    assert shape(decoded(REPORT + spoilt + REPORT * 2)) == [(0, 0, 4, 64), (8, 4, 8, 256)]


def test_a_stream_that_makes_no_sense_is_refused_whatever_the_chunks() -> None:
    noise = np.random.default_rng(1).integers(0, 256, 20_000, dtype=np.uint8).tobytes()
    raw = REPORT * 3 + noise + REPORT * 3
    for size in (len(raw), 1000, 64, 7):
        one, blocks = fnirsi.decoder(header()), []
        with pytest.raises(DataError, match="are no measurements"):
            for at in range(0, len(raw), size):
                blocks += one.feed(raw[at : at + size])
            blocks += one.finish()
        assert sum(map(len, blocks)) == 12


def test_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match="ppk2"):
        decode.FnirsiDecoder(Header(**{**_fields(header()), "wire": "ppk2-words/1"}))


def _fields(one: Header) -> dict[str, Any]:
    return {name: getattr(one, name) for name in Header.__dataclass_fields__}


# -- sessions ---------------------------------------------------------------------------------------------------------


class Heard:
    """The simulator, with the commands that it was given."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.commands = b""

    def receive(self, data: bytes) -> None:
        self.commands += data
        self._device.receive(data)

    def transmit(self, now_s: float) -> bytes:
        return self._device.transmit(now_s)

    def kinds(self) -> list[int]:
        return [self.commands[at + 1] for at in range(0, len(self.commands), 64)]


def simulator(model: str = "C1", load: str = "500mA/1s") -> Heard:
    return Heard(fnirsi.simulate(parse_load(load), Options(settings={"model": model})))


def settings(model: str = "C1", keepalive: str = "auto") -> dict[str, str]:
    return {"model": model, "keepalive": keepalive}


def opened(device: Device, model: str = "C1", keepalive: str = "auto") -> driver.Driver:
    return driver.Driver(LoopbackLink(device, paced=True), Options(), settings(model, keepalive))


def gathered(meter: driver.Driver, seconds: float) -> bytes:
    raw, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline:
        raw += meter.read(0.05)
    return raw


@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_started_as_others_start_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(device_end.GOES_ON_S, model, 0.2)
    heard = simulator(model)
    with opened(heard, model) as meter:
        told = meter.start()
        blocks = decoded(gathered(meter, 0.3))
    # fnirsi_logger.py: 81, 82 and again 82 for FNB58 and FNB48S, 83 for the others.
    assert heard.kinds()[:3] == [0x81, 0x82, {"FNB58": 0x82, "FNB48S": 0x82}.get(model, 0x83)]
    assert set(heard.kinds()[3:]) <= {0x83}
    assert (told.model, told.simulated, told.epoch, told.voltage) == (model, True, None, None)
    assert [block.lost_before for block in blocks] == [0]
    assert joined(blocks, "current") == [0.5] * len(blocks[0])
    assert set(joined(blocks, "voltage")) == {5.0}


def test_the_clock_is_not_taken_for_better_than_it_is() -> None:
    with opened(simulator()) as meter:
        assert meter.start().clock.value == 0.01
    assert {channel.kind for channel in fnirsi.INFO.channels} == {Kind.INSTANT}
    assert {channel.refresh_s for channel in fnirsi.INFO.channels} == {0.04}


def test_it_is_told_to_go_on_with_each_report_or_as_often_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(device_end.GOES_ON_S, "FNB58", 0.2)
    for model, keepalive in (("C1", "auto"), ("FNB58", "3ms")):
        heard = simulator(model)
        with opened(heard, model, keepalive) as meter:
            meter.start()
            reports = len(gathered(meter, 0.4)) / 64
        # At the most once for each report or wait, as the programs do that have been tried on real meters.
        assert reports <= heard.kinds().count(0x83) <= 4 * reports


@pytest.mark.parametrize(("model", "times"), [("FNB48", range(20, 200)), ("FNB58", range(1, 2))])
def test_a_slow_reader_loses_nothing(model: str, times: range) -> None:
    """The simulated FNB48 falls silent 0.2 s after it was last told to go on, the FNB58 after 1.3 s."""
    heard = simulator(model)
    with opened(heard, model) as meter:
        meter.start()
        time.sleep(1.5)
        blocks = decoded(meter.read(0.1))
        assert heard.kinds().count(0x83) in times
    assert [block.lost_before for block in blocks] == [0]
    assert 100 <= len(blocks[0]) <= 200


def test_it_is_left_silent() -> None:
    heard = simulator()
    link = LoopbackLink(heard, paced=True)
    with driver.Driver(link, Options(), settings()) as meter:
        meter.start()
    assert [link.read(0.1) for _ in range(3)] == [b""] * 3


def test_it_can_be_started_again_and_read_only_while_it_streams() -> None:
    with opened(simulator("C1"), "C1") as meter:
        for _ in range(2):
            assert meter.start().simulated
            assert gathered(meter, 0.2)
            meter.stop()
            with pytest.raises(UsageError, match="does not stream"):
                meter.read(0)


def test_one_that_a_killed_program_left_streaming_is_taken_over() -> None:
    heard = simulator()
    link = LoopbackLink(heard, paced=True)
    for kind in (0x81, 0x82, 0x83):
        link.write(wire.command(kind))
    time.sleep(0.15)
    assert link.read(0.1)
    with driver.Driver(link, Options(), settings()) as meter:
        assert meter.start().simulated
        assert [block.lost_before for block in decoded(gathered(meter, 0.2))] == [0]
    # It was silent before it was told anything again: 81 to a streaming meter may restart it.
    assert heard.kinds()[3:6] == [0x81, 0x82, 0x83]


class Restarts:
    """A meter that starts anew at `at_s`: it forgets that it was to stream."""

    def __init__(self, at_s: float) -> None:
        self._at_s = at_s
        self._before, self._after = simulator(), simulator()
        self._now = self._before

    def receive(self, data: bytes) -> None:
        self._now.receive(data)

    def transmit(self, now_s: float) -> bytes:
        if now_s >= self._at_s:
            self._now = self._after
        return self._now.transmit(now_s)


def test_one_that_restarts_or_freezes_is_told_with_what_helps() -> None:
    with opened(Restarts(0.6)) as meter:
        meter.start()
        raw = b""
        with pytest.raises(IncompleteError, match=r"C1 has sent nothing for 1\.5 s") as told:
            while True:
                raw += meter.read(0.2)
        assert sum(map(len, decoded(raw))) >= 4
        assert "unplug it on all sides" in told.value.remedy and "keepalive=3ms" in told.value.remedy
        with pytest.raises(IncompleteError):
            meter.read(0)


def test_one_that_is_unplugged_gives_up_what_it_sent_first() -> None:
    with SUBJECT.wire("unplug@0.8s") as address, fnirsi.open(address, Options()) as meter:
        meter.start()
        time.sleep(1.0)
        raw = meter.read(0.1)
        assert sum(map(len, decoded(raw))) >= 4
        with pytest.raises(IncompleteError, match="connection"):
            meter.read(0.1)


def test_garbled_bytes_are_lost_samples_and_never_values() -> None:
    with opened(FaultyDevice(simulator(), parse_faults("garble@0.6s:64"))) as meter:
        meter.start()
        blocks = decoded(gathered(meter, 0.6))
    # The fault may begin within a report's bytes of this link, so one or two reports are hit.
    assert sum(block.lost_before for block in blocks) in (4, 8)
    assert set(joined(blocks, "current")) == {0.5}
    assert set(joined(blocks, "voltage")) == {5.0}


class Babbler:
    """Another device: it sends what it likes."""

    def receive(self, data: bytes) -> None:
        """Not understood."""

    def transmit(self, now_s: float) -> bytes:
        return b"hello\r\n" * 20


class Mute(Babbler):
    """A meter that has frozen, or one that takes no commands."""

    def transmit(self, now_s: float) -> bytes:
        return b""


@pytest.mark.parametrize("device", [Babbler(), Mute()])
def test_what_sends_no_measurements_is_told(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "DRAIN_S", 0.3)
    with pytest.raises(NotFoundError, match="does not send measurements as a C1 does") as told:
        opened(device)
    assert "micro-USB port marked PC" in told.value.remedy


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (Options(supply_v=3.3), "cannot supply"),
        (Options(declared_v=5.0), "measures the voltage"),
        (Options(settings={"model": "FNB38"}), "cannot be 'FNB38'"),
        (Options(settings={"keepalive": "2s"}), "Choose one of: auto, 1s, 3ms"),
        (Options(settings={"rate": "1000"}), "has no setting 'rate'"),
    ],
)
def test_what_it_cannot_do_is_refused_before_anything_is_opened(options: Options, says: str) -> None:
    with pytest.raises(UsageError) as told:
        fnirsi.open("127.0.0.1:9", options)
    assert says in str(told.value)


# -- known energy -----------------------------------------------------------------------------------------------------


def recorded(load: str, model: str, seconds: float) -> ArrayStream:
    """What a recording holds, made without waiting. Its first sample begins 40 ms after the load."""
    device = fnirsi.simulate(parse_load(load), Options(settings={"model": model}))
    for kind in wire.MODELS[model].start:
        device.receive(wire.command(kind))
    raw = b""
    for tick in range(1, round(seconds / 0.01) + 1):
        raw += device.transmit(tick * 0.01)
        if tick % 10 == 0:
            device.receive(wire.KEEPALIVE)
    blocks = decoded(raw)
    assert [block.lost_before for block in blocks] == [0]
    data = {channel.name: blocks[0].data[channel.name] for channel in fnirsi.INFO.channels}
    return ArrayStream(name="fnirsi", header=header(), timebase=Timebase(rate_hz=wire.RATE_HZ), data=data)


@pytest.mark.parametrize("model", MODELS)
def test_the_energy_of_windows_is_that_of_the_load(model: str) -> None:
    stream = recorded("900mA/2s,300mA/2s", model, 20.0)
    begins_s = 0.04  # by the arrivals: its first report that holds a measurement comes at 80 ms
    windows = [
        Window(start_ns=round((4 * k - begins_s) * 1e9), stop_ns=round((4 * k + 2 - begins_s) * 1e9), index=k)
        for k in range(1, 4)
    ]
    for energy in integrate(stream, windows):
        assert energy.energy_j is not None and energy.missing_s == 0
        # 0.9 A at 5 V for 2 s. The meter's readings are half a refresh old, and each edge of 3 W is left open by half a
        # refresh: that is stated, and what is lost lies within.
        assert energy.resolution_j == pytest.approx(2 * 3.0 * 0.02)
        assert energy.energy_j == pytest.approx(9.0, abs=energy.resolution_j)
        assert energy.energy_j == pytest.approx(9.0 - 3.0 * 0.02, rel=1e-3)


def test_the_mean_of_a_long_time_is_exact() -> None:
    stream = recorded("900mA/70ms,300mA/130ms", "FNB58", 20.0)
    begins_s = 0.04
    (energy,) = integrate(
        stream, [Window(start_ns=round((2 - begins_s) * 1e9), stop_ns=round((18 - begins_s) * 1e9), index=0)]
    )
    assert energy.mean_power_w == pytest.approx(5.0 * (0.9 * 0.07 + 0.3 * 0.13) / 0.2, rel=1e-3)


# -- another program --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def served(device: Device) -> Iterator[str]:
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


@pytest.mark.outside
@pytest.mark.skipif(not FNIRSI_LOGGER.is_file(), reason="JOULEMETER_FNIRSI_LOGGER names no copy of fnirsi_logger.py")
@pytest.mark.parametrize("model", MODELS)
def test_fnirsi_logger_reads_the_simulator(model: str) -> None:
    """baryluk's program, with a `usb` that reaches the simulator instead of libusb; it checks the CRC with `crc`."""
    witness = Path(__file__).with_name("fnirsi_witness.py")
    device = simulator(model, "900mA/400ms,300mA/400ms")
    usb = wire.MODELS[model].usb
    with served(device) as address:
        done = subprocess.run(
            [sys.executable, str(witness), str(FNIRSI_LOGGER), address, str(usb.vendor), str(usb.product), "2.0"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line[:1].isdigit()]
    values = np.array([[float(field) for field in row] for row in rows])
    # The first report is what an FNB48 sent first, too.
    assert values[0, 2:4].tolist() == [188.7437, 170.39408]
    values = values[4:]
    assert len(values) >= 100
    assert set(values[:, 2]) == {5.0} and set(values[:, 6]) == {25.1}
    assert {values[:, 3].min(), values[:, 3].max()} == {0.3, 0.9}
    whole = values[: len(values) // 80 * 80, 3]
    assert whole.mean() == pytest.approx(0.6, rel=1e-3)


def test_every_error_has_a_remedy() -> None:
    for address in ("", "/dev/hidraw99", "no-such-serial"):
        with pytest.raises(JouleMeterError) as told:
            fnirsi.open(address, Options())
        assert told.value.remedy
