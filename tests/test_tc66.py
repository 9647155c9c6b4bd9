"""The TC66 and TC66C: an answer of a real meter, a driver in a simulated time, and other people's programs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from inline_meters import (
    Bench,
    Says,
    Spoiled,
    charge_c,
    column,
    decoded,
    indices,
    needs_sigrok,
    pty_only,
    read_for,
    served,
    sigrok_reads,
    stream_of,
    times_s,
)

from joulemeter.capture import Block, Header, Kind, Quantity
from joulemeter.errors import AccessError, DataError, IncompleteError, MissingExtraError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import tc66
from joulemeter.instruments.tc66 import discovery, driver, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.witness import cross_check
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.window import Window

LOAD = parse_load("900mA/8s/d0,300mA/8s")
STEADY = parse_load("1.2345A/8s")
DRIVER = "joulemeter.instruments.tc66.driver"
THEHWCAVE = Path(os.environ.get("JOULEMETER_TC66", "/nonexistent"))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tc66.simulate(LOAD, Options()))
    return made.take_over(monkeypatch, "joulemeter.polled")


def opened(bench: Bench, **settings: str) -> driver.Driver:
    options = Options(settings=settings)
    return driver.Driver(bench, options, tc66.INFO.chosen(options))


def recorded(bench: Bench, seconds: float, **settings: str) -> tuple[Header, list[Block]]:
    with opened(bench, **settings) as meter:
        header = meter.start()
        raw = read_for(bench, meter, seconds)
    return header, decoded(tc66.decoder(header), raw)


# Bytes that did not come from here.

# What a real TC66C with firmware 1.18 sent over Bluetooth, and what its display showed then: 5.1609 V, 0.0199 A,
# 0.1026 W, 5 mWh and 0 mWh (jedie/tc66c2mqtt, tests/fixtures.py).
REAL = bytes.fromhex(
    "006630928cdbb01e307647693bac80b012a60ec3c8645b9af0ead3c57ae5a0628f330593ff8f836a2a36d60f8709fc4f"
    "c5ec277ef1b0dbb4815a9497d8646eb206f404f8061c1177e994f37dfc6f4dab07385ea4d05c1e32616e88527b57d310"
    "6babf8c170d31db582db234384fa559313e92b412f6af4e16e09168c608fba0a4231f411e56f5c203c590b4a68fd5b09"
    "2aca6ec4a4554d5542e8674b097e259c2aca6ec4a4554d5542e8674b097e259ce09c4004c92da948c3165eebdb8b9ec2"
)
# An answer of the simulator, which sigrok 0.6.0 (883c2ac1) accepts, with all three checksums, and shows as 5.0000 V,
# 1.23450 A, 107 mWh and 1229 mWh.
SEEN_BY_SIGROK = bytes.fromhex(
    "8cb2fed37c39856f020d4b2e254d81b52aca6ec4a4554d5542e8674b097e259cbcbd14ed43d8d5ca0e3ed79eb4fcffd6"
    "9eb05e36181746a0e99f12030868d3bab3440bbd7cd7a6fdde0f8bd06bb745f33000a126f7f8086171841cc335f5671a"
    "6babf8c170d31db582db234384fa55931dcb19b407db814672cf3bb0ef53f328cd2f132de6093cbff7a381dbe063db86"
    "e0275ad1237a5e4c68db6227c25a20fb2aca6ec4a4554d5542e8674b097e259c70582777cf1d8b653f915a2a57ed522b"
)


def test_an_answer_of_a_real_meter() -> None:
    reading = wire.Cipher().parse(REAL)
    assert reading is not None
    assert (reading.model, reading.firmware, reading.serial) == ("TC66", "1.18", 48724)
    assert (reading.voltage_v, reading.current_a) == pytest.approx((5.1609, 0.0199))
    assert reading.energy_j == pytest.approx(5e-3 * 3600)
    assert not reading.simulated


def test_an_answer_that_sigrok_accepts() -> None:
    reading = wire.Cipher().parse(SEEN_BY_SIGROK)
    assert reading is not None
    assert (reading.voltage_v, reading.current_a) == pytest.approx((5.0, 1.2345))
    assert reading.energy_j == pytest.approx((0.107 + 1.229) * 3600)
    assert reading.simulated
    device = tc66.simulate(STEADY, Options())
    device.transmit(60.0)
    device.receive(b"getva")
    assert device.transmit(60.1) == SEEN_BY_SIGROK


def test_a_spoilt_bit_anywhere_is_seen() -> None:
    cipher = wire.Cipher()
    for at in range(0, 192, 7):
        spoilt = bytearray(REAL)
        spoilt[at] ^= 1
        assert cipher.parse(bytes(spoilt)) is None, at
    for cut in (REAL[:-1], REAL + b"\0", REAL[64:] + REAL[:64], b"", bytes(192)):
        assert cipher.parse(cut) is None
        assert cipher.values(cut) is None


def test_the_checksum_is_modbus() -> None:
    # The check value of CRC-16/MODBUS in the catalogue of parametrised CRC algorithms.
    assert wire.crc16(b"123456789") == 0x4B37


# Which port.


def port(device: str, vendor: int, product: int, maker: str | None, name: str | None) -> SimpleNamespace:
    return SimpleNamespace(
        device=device, vid=vendor, pid=product, manufacturer=maker, product=name, serial_number="1234", hwid=""
    )


def test_only_ports_of_the_maker_are_taken(tmp_path: Path) -> None:
    mine = tmp_path / "ttyACM1"
    mine.touch()
    ports = [
        port("/dev/ttyACM0", 0x0483, 0x5740, "STMicroelectronics", "PowerShield (Virtual ComPort in FS Mode)"),
        port(str(mine), 0x28E9, 0x018A, "RuiDeng", "USB Meter"),
        port("/dev/ttyACM2", 0x28E9, 0x018A, "GDMicroelectronics", "GD32 Virtual Com Port"),
        port("/dev/ttyACM3", 0x1915, 0xC00A, "Nordic Semiconductor", "PPK2"),
        port("/dev/ttyS0", None, None, None, None),  # type: ignore[arg-type]
    ]
    (found,) = discovery.discover("tc66", ports)
    assert (found.key, found.address, found.description, found.serial) == ("tc66", str(mine), "USB Meter", "1234")
    assert found.problem is None
    (closed,) = discovery.discover("tc66", [port("/dev/no-such-port", 0x28E9, 1, "RuiDeng", None)])
    assert closed.problem is not None
    assert closed.remedy is not None


def test_without_a_meter_it_says_where_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    assert tc66.discover() == []
    with pytest.raises(NotFoundError, match="micro-USB"):
        tc66.open("", Options())


# The driver.


def test_header_names_the_unit_and_says_that_it_is_simulated(bench: Bench) -> None:
    with opened(bench) as meter:
        header = meter.start()
    assert (header.model, header.serial, header.firmware) == ("TC66", "66", "1.18")
    assert (header.simulated, header.wire) == (True, "rdtech-tc/1")
    assert header.epoch is not None
    current, voltage, counted = header.channels
    assert (current.quantity, voltage.quantity) == (Quantity.CURRENT, Quantity.VOLTAGE)
    assert (current.kind, current.refresh_s) == (Kind.INSTANT, 0.5)
    assert counted.witness
    assert bench.closed == 1


def test_a_meter_is_asked_and_never_told_anything(bench: Bench) -> None:
    recorded(bench, 3.0)
    assert bench.said.startswith(b"querygetva")
    assert bench.said.replace(b"query", b"").replace(b"getva", b"") == b""


def test_a_meter_that_waits_for_firmware_is_told_and_left_alone(bench: Bench) -> None:
    bench.device = tc66.simulate(LOAD, Options(settings={"mode": "boot"}))
    with pytest.raises(NotFoundError, match="waits for firmware"):
        opened(bench)
    assert bench.said == b"query"
    assert bench.closed == 1


def test_energy_of_windows_is_within_what_a_slow_meter_leaves_open(bench: Bench) -> None:
    header, blocks = recorded(bench, 66.0)
    assert header.epoch is not None
    begun_s = header.epoch.monotonic_ns * 1e-9
    windows = [
        Window(start_ns=round((16 * k - begun_s) * 1e9), stop_ns=round((16 * k + 8 - begun_s) * 1e9), index=k)
        for k in range(1, 4)
    ]
    stream = stream_of(header, blocks)
    truth_j = 5.0 * charge_c(LOAD, 16.0, 24.0)
    assert truth_j == pytest.approx(36.0)
    for one in integrate(stream, windows):
        assert one.energy_j is not None
        # Half a refresh at each edge, at the step of 3 W.
        assert one.resolution_j == pytest.approx(2 * 3.0 * 0.5 / 2, rel=0.3)
        assert abs(one.energy_j - truth_j) <= one.resolution_j
    # What one edge loses the other wins.
    (whole,) = integrate(stream, [Window(start_ns=windows[0].start_ns, stop_ns=windows[2].start_ns, index=0)])
    assert whole.energy_j == pytest.approx(5.0 * charge_c(LOAD, 16.0, 48.0), rel=2e-3)


def test_its_own_counters_agree_with_its_readings(bench: Bench) -> None:
    header, blocks = recorded(bench, 120.0)
    check = cross_check(stream_of(header, blocks))
    assert check is not None
    assert check.agrees
    assert check.counted == pytest.approx(3.0 * check.duration_s, rel=0.05)


def test_it_is_asked_as_fast_as_it_answers(bench: Bench) -> None:
    header, blocks = recorded(bench, 6.0)
    assert header.rate_hz == pytest.approx(1 / 0.15)
    assert indices(blocks) == list(range(len(indices(blocks))))
    # An answer takes 90 ms, and what it shows is half a refresh old.
    assert times_s(blocks) == pytest.approx(np.array(indices(blocks)) * 0.15 + 0.045 - 0.25, abs=6e-3)


def test_an_interval_shorter_than_an_answer_is_refused_with_one_that_is_not(bench: Bench) -> None:
    with pytest.raises(UsageError, match="interval=") as error, opened(bench, interval="100ms") as meter:
        meter.start()
    enough = error.value.remedy.partition("interval=")[2].split()[0]
    header, blocks = recorded(bench, 2.0, interval=enough)
    assert 0.09 < 1 / header.rate_hz < 0.2
    assert len(indices(blocks)) > 10


@pytest.mark.parametrize("interval", ["1.1s", "0", "fast"])
def test_intervals_that_cannot_be_are_refused(interval: str, bench: Bench) -> None:
    with pytest.raises(UsageError):
        opened(bench, interval=interval)
    assert bench.closed == 1


@pytest.mark.parametrize("options", [Options(supply_v=5.0), Options(declared_v=5.0)])
def test_an_inline_meter_takes_no_voltage(options: Options) -> None:
    with pytest.raises(UsageError):
        tc66.open("/dev/no-such-port", options)


def test_without_its_package_the_extra_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(bench) as meter:
        header = meter.start()
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    missing = pytest.raises(MissingExtraError, match=r"joulemeter\[tc66\]")
    with missing:
        tc66.decoder(header)
    with missing:
        tc66.simulate(LOAD, Options())
    with missing:
        opened(bench)
    assert bench.closed == 2
    assert tc66.INFO.extra == "tc66"


@pytest.mark.parametrize(
    "device",
    [
        Says(b""),
        Says(b"error: unknown command\r\n"),
        Says(bytes(192)),
        Says(bytes(range(256)) * 8, asked=False),
    ],
    ids=["mute", "lpm01a", "zeros", "flood"],
)
def test_what_is_no_such_meter_is_told_quickly(device: Says, bench: Bench) -> None:
    bench.device = device
    with pytest.raises(NotFoundError, match="TC66 or TC66C"):
        opened(bench)
    assert bench.now_s < 5
    assert bench.closed == 1


# Cables.


def damaged(bench: Bench, faults: str, load: Load = LOAD) -> None:
    bench.device = FaultyDevice(tc66.simulate(load, Options()), parse_faults(faults))


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda raw: raw[:90], True),
        (lambda raw: raw[1:], True),
        (lambda raw: raw[:50] + b"\xff" + raw[51:], True),
        (lambda raw: b"\0" + raw, True),
        (lambda raw: b"", True),
        (lambda raw: raw + raw, False),
    ],
    ids=["cut off", "first byte gone", "a byte", "pushed", "gone", "twice"],
)
def test_a_spoilt_answer_is_a_lost_reading_and_moves_no_other(
    change: Callable[[bytes], bytes], lost: bool, bench: Bench
) -> None:
    # Five answers go before the recording: these are the tenth and the twentieth in it.
    bench.device = Spoiled(tc66.simulate(STEADY, Options()), change, (15, 25))
    header, blocks = recorded(bench, 14.9, interval="500ms")
    found = sum(block.lost_before for block in blocks)
    assert found in (2, 4) if lost else found == 0
    assert len(blocks[0]) == (9 if lost else 31)
    assert column(blocks, "current") == pytest.approx(1.2345)
    assert column(blocks, "voltage") == pytest.approx(5.0)
    assert times_s(blocks) == pytest.approx(np.array(indices(blocks)) / header.rate_hz + 0.045 - 0.25, abs=8e-3)


def test_noise_is_no_readings_and_no_hang(bench: Bench) -> None:
    damaged(bench, "noise@5s")
    _, blocks = recorded(bench, 20.0)
    assert 25 <= len(indices(blocks)) <= 34


def test_a_meter_that_falls_silent_keeps_nobody_waiting(bench: Bench) -> None:
    damaged(bench, "stall@3s")
    with opened(bench) as meter:
        header = meter.start()
        raw = read_for(bench, meter, 8.0)
        asked_s = bench.now_s
        assert meter.read(0.2) == b""
        assert bench.now_s - asked_s < 1
    assert len(indices(decoded(tc66.decoder(header), raw))) == pytest.approx(17, abs=2)


def test_a_meter_that_stops_answering_before_the_recording_is_told(bench: Bench) -> None:
    meter = opened(bench)
    bench.device = Says(b"")
    with pytest.raises(IncompleteError, match="sends none"):
        meter.start()
    bench.device = Says(REAL[:-1] + b"\0")
    with pytest.raises(DataError, match="no reading"):
        meter.start()


def test_unplugged_and_plugged_in_again(bench: Bench) -> None:
    damaged(bench, "unplug@3s")
    meter = opened(bench)
    header = meter.start()
    raw = b""
    with pytest.raises(IncompleteError):
        while True:
            raw += meter.read(0.5)
    for end in (meter.stop, meter.close, meter.close):
        end()
    assert len(indices(decoded(tc66.decoder(header), raw))) == pytest.approx(17, abs=2)
    damaged(bench, "")
    assert len(indices(recorded(bench, 1.9)[1])) == pytest.approx(13, abs=1)


def test_a_program_that_died_between_question_and_answer_leaves_no_trace(bench: Bench) -> None:
    bench.write(b"getvagetvaget")
    _, blocks = recorded(bench, 1.9)
    assert indices(blocks) == list(range(len(indices(blocks))))


@pty_only
def test_a_port_in_use_is_told() -> None:
    with (
        served(tc66.simulate(LOAD, Options()), pty=True) as address,
        tc66.open(address, Options()),
        pytest.raises(AccessError, match="in use"),
    ):
        tc66.open(address, Options())


# Other people's programs.


@pytest.mark.outside
@pty_only
def test_tc66_serial_reads_the_simulator() -> None:
    tc66_serial = pytest.importorskip("tc66_serial", reason="tc66-serial is not installed")
    with (
        served(tc66.simulate(parse_load("900mA/8s"), Options()), pty=True) as address,
        tc66_serial.Tc66Client(address) as client,
    ):
        assert client.query_mode() == "firm"
        found = client.get_reading()
    assert found.is_valid
    assert (found.product_name, found.version, found.serial_number) == ("TC66", "1.18", 66)
    assert (found.voltage, found.current, found.power) == pytest.approx((5.0, 0.9, 4.5))
    assert (found.group0_mwh, found.group1_mwh) == (5, 1229)
    assert found.signed_temperature == 25


@pytest.mark.outside
def test_tc66_serial_and_the_driver_read_a_real_answer_alike() -> None:
    tc66_serial = pytest.importorskip("tc66_serial", reason="tc66-serial is not installed")
    theirs = tc66_serial.parse(tc66_serial.decrypt(REAL))
    ours = wire.Cipher().parse(REAL)
    assert ours is not None
    assert theirs.is_valid
    assert (ours.model, ours.firmware, ours.serial) == (theirs.product_name, theirs.version, theirs.serial_number)
    assert (ours.voltage_v, ours.current_a) == pytest.approx((theirs.voltage, theirs.current))
    assert ours.energy_j == pytest.approx((theirs.group0_mwh + theirs.group1_mwh) * 3.6)


@pytest.mark.outside
@needs_sigrok
def test_sigrok_reads_the_simulator() -> None:
    found = sigrok_reads("rdtech-tc", tc66.simulate(parse_load("900mA/8s"), Options()))
    assert (found["V"], found["I"], found["E1"]) == ("5.0000 V", "900.00 mA", "1.229 Wh")


POLL = "import json, sys; from TC66C import TC66C; print(json.dumps(TC66C(sys.argv[1]).Poll()._asdict()))"


@pytest.mark.outside
@pty_only
@pytest.mark.skipif(not (THEHWCAVE / "TC66C.py").is_file(), reason="JOULEMETER_TC66 names no copy of TheHWcave/TC66")
@pytest.mark.skipif(importlib.util.find_spec("Crypto") is None, reason="pycryptodome is not installed")
def test_thehwcaves_program_reads_the_simulator() -> None:
    with served(tc66.simulate(parse_load("900mA/8s"), Options()), pty=True) as address:
        command = [sys.executable, "-c", POLL, address]
        done = subprocess.run(command, cwd=THEHWCAVE, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["Name"], found["Version"], found["SN"]) == ("TC66", "1.18", 66)
    assert (found["Volt"], found["Current"], found["Power"]) == pytest.approx((5.0, 0.9, 4.5))
    assert found["G1_mWh"] == 1229
