"""Atorch's meters: real reports, a driver in a simulated time, late and lost reports, other people's programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

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
)

from joulemeter import store
from joulemeter.capture import Block, Header, Kind, Quantity
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import atorch
from joulemeter.instruments.atorch import decode, driver, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.witness import cross_check
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.window import Window

LOAD = parse_load("900mA/60s/d0,300mA/60s")
STEADY = parse_load("1.23A/60s")
MODELS = ("UD18", "J7-C", "AT24")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(atorch.simulate(LOAD, Options()))
    return made.take_over(monkeypatch, "joulemeter.instruments.atorch.driver")


def opened(bench: Bench) -> driver.Driver:
    return driver.Driver(bench, Options())


def recorded(bench: Bench, seconds: float) -> tuple[Header, list[Block]]:
    with opened(bench) as meter:
        header = meter.start()
        raw = read_for(bench, meter, seconds)
    return header, decoded(atorch.decoder(header), raw)


def reports(seconds: int, load: Load = STEADY, model: str = "UD18") -> list[bytes]:
    """What a simulated meter sends in so many seconds, the report at its beginning included."""
    device = atorch.simulate(load, Options(settings={"model": model}))
    return [device.transmit(float(k)) for k in range(seconds + 1)]


def header_of(report: bytes) -> Header:
    with driver.Driver(Bench(Says(report, asked=False)), Options()) as meter:
        header: Header = meter.start()
    return header


# Reports of real meters: the kind, at which byte the sum of the checksum begins, volts, amperes, watt-hours, and how
# long the meter had run. The first five are from CursedHardware/atorch-console's tests, the last one is what
# atorch-ble's author took from a J7-C.
REAL = [
    ("0001F3000000000638000003110007000A000000122E333C000000000000004E", 3, 2, 4.99, 0.0, 7.85, (18, 46, 51)),
    ("0001CD00007F003CC80000554E0009000A00000047300D3C000000000000008F", 3, 2, 4.61, 1.27, 218.38, (71, 48, 13)),
    ("0001FB000001006C3F00006C4400070006001A00471C1A3C0000000000000078", 3, 2, 5.07, 0.01, 277.16, (71, 28, 26)),
    ("00011A00003C0004D40000002000006400000000002600590D363C00000000F0", 2, 2, 28.2, 0.06, None, (89, 13, 54)),
    ("00011A0000000004D40000002000006400000000002A00590E343C000000003F", 2, 2, 28.2, 0.0, None, (89, 14, 52)),
    ("0003860000d2000d6d00000952011901180028000409163c0c800000032000d8", 3, 3, 9.02, 2.1, 23.86, (4, 9, 22)),
]  # fmt: skip


@pytest.mark.parametrize(("report", "kind", "sum_from", "volts", "amperes", "watt_hours", "run"), REAL)
def test_reports_of_real_meters(
    report: str,
    kind: int,
    sum_from: int,
    volts: float,
    amperes: float,
    watt_hours: float | None,
    run: tuple[int, int, int],
) -> None:
    raw = bytes.fromhex(f"ff5501{kind:02x}{report}")
    assert wire.sum_of(raw) == sum_from
    found = wire.parse(raw)
    assert found is not None
    assert (found.kind, found.simulated) == (kind, False)
    assert (found.voltage_v, found.current_a) == pytest.approx((volts, amperes))
    assert found.energy_j == (None if watt_hours is None else pytest.approx(watt_hours * 3600))
    assert found.run_s == 3600 * run[0] + 60 * run[1] + run[2]
    header = header_of(raw)
    assert (header.simulated, header.parameters) == (False, {"kind": kind, "sum_from": sum_from})
    assert [one.quantity for one in header.channels] == [
        *(Quantity.CURRENT, Quantity.VOLTAGE),
        *([Quantity.ENERGY] if kind == 3 else []),
    ]
    (block,) = decoded(atorch.decoder(header), raw)
    assert block.data["current"] == pytest.approx([amperes])
    for at in range(len(raw)):
        spoilt = bytearray(raw)
        spoilt[at] ^= 0x10
        assert wire.sum_of(bytes(spoilt)) is None, at


# Reports of the simulator: sigrok 0.6.0 (883c2ac1) shows 5.00 V, 1.23 A and 23.96 Wh; 5.0 V and 1.234 A.
SEEN_BY_SIGROK = {
    "UD18": ("ff5501030001f400007b000d810000095c00070006001a004730243c0000004a4d73699c", 5.0, 1.23, 23.96),
    "AT24": ("ff5501020000320004d20001590000000000000000000000001a004730243c4a4d73698d", 5.0, 1.234, None),
}  # fmt: skip


@pytest.mark.parametrize("model", SEEN_BY_SIGROK)
def test_reports_that_sigrok_reads(model: str) -> None:
    report, volts, amperes, watt_hours = SEEN_BY_SIGROK[model]
    raw = bytes.fromhex(report)
    assert reports(60, parse_load("1.2345A/8s"), model)[-1] == raw
    found = wire.parse(raw)
    assert found is not None
    assert (found.voltage_v, found.current_a) == pytest.approx((volts, amperes))
    assert found.energy_j == (None if watt_hours is None else pytest.approx(watt_hours * 3600))
    assert found.simulated


# The driver.


@pytest.mark.parametrize("model", MODELS)
def test_header_says_which_kind_it_is_and_that_it_is_simulated(model: str, bench: Bench) -> None:
    bench.device = atorch.simulate(LOAD, Options(settings={"model": model}))
    with opened(bench) as meter:
        header = meter.start()
    assert header.model == ("Atorch DC meter" if model == "AT24" else "Atorch USB meter")
    assert (header.simulated, header.rate_hz, header.word_bytes) == (True, 1.0, 36)
    assert (header.epoch, header.loss_modulo) == (None, 65536 * 3600)
    assert {(one.kind, one.refresh_s) for one in header.channels if not one.witness} == {(Kind.MEAN, 1.0)}
    assert [one.name for one in header.channels if one.witness] == ([] if model == "AT24" else ["counted energy"])
    assert bench.said == b"", "a command was sent: they clear counters"
    assert bench.closed == 1


@pytest.mark.parametrize("model", MODELS)
def test_energy_of_windows_is_within_what_a_slow_meter_leaves_open(model: str, bench: Bench) -> None:
    bench.device = atorch.simulate(LOAD, Options(settings={"model": model}))
    header, blocks = recorded(bench, 300.0)
    # A sample stands for the second before its report came; the first came when the load began.
    windows = [Window(start_ns=(1 + t) * 10**9, stop_ns=(61 + t) * 10**9, index=0) for t in (120, 180)]
    high, low = integrate(stream_of(header, blocks), windows)
    for one, start_s in ((high, 120.0), (low, 180.0)):
        truth_j = 5.0 * charge_c(LOAD, start_s, start_s + 60)
        assert one.energy_j == pytest.approx(truth_j, rel=1e-9)
        # Half a second at each edge, at the step of 3 W.
        assert one.resolution_j == pytest.approx(2 * 3.0 / 2, rel=0.3)
    assert high.energy_j == pytest.approx(270.0)
    odd = Window(start_ns=round(121.4e9), stop_ns=round(181.4e9), index=0)
    (shifted,) = integrate(stream_of(header, blocks), [odd])
    assert shifted.energy_j is not None
    assert abs(shifted.energy_j - 5.0 * charge_c(LOAD, 120.4, 180.4)) <= shifted.resolution_j


def test_windows_shorter_than_a_few_reports_are_too_short(bench: Bench) -> None:
    header, blocks = recorded(bench, 20.0)
    windows = [Window(start_ns=5 * 10**9, stop_ns=5 * 10**9 + ns, index=0) for ns in (2_900_000_000, 3_100_000_000)]
    short, long = integrate(stream_of(header, blocks), windows)
    assert Code.TOO_SHORT in short.caveats
    assert Code.TOO_SHORT not in long.caveats


def test_its_own_counter_agrees_with_its_readings(bench: Bench) -> None:
    header, blocks = recorded(bench, 240.0)
    check = cross_check(stream_of(header, blocks))
    assert check is not None
    assert check.agrees
    assert check.counted == pytest.approx(3.0 * check.duration_s, rel=0.1)


@pytest.mark.parametrize("options", [Options(supply_v=5.0), Options(declared_v=5.0)])
def test_an_inline_meter_takes_no_voltage(options: Options) -> None:
    with pytest.raises(UsageError):
        atorch.open("/dev/no-such-port", options)


def test_without_an_address_it_says_how_to_pair() -> None:
    assert atorch.discover() == []
    with pytest.raises(NotFoundError, match="rfcomm bind"):
        atorch.open("", Options())


# From the same tests of atorch-console: a mains meter, and the answer to a command.
MAINS = bytes.fromhex("FF55010100090400000E0000040000000000006401F40085002F00000A093C0000000039")
REPLY = bytes.fromhex("FF55020101000040")


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (Says(b""), "sends no reports"),
        (Says(REPLY, asked=False), "sends no reports"),
        (Says(bytes(range(256)) * 8, asked=False), "sends no reports"),
        (Says(b"\xff\x55\x01\x03" * 9, asked=False), "sends no reports"),
        (Says(MAINS, asked=False), "a mains meter"),
    ],
    ids=["mute", "replies", "flood", "wrong checksum", "mains"],
)
def test_what_is_no_such_meter_is_told_quickly(device: Says, said: str, bench: Bench) -> None:
    bench.device = device
    with pytest.raises(NotFoundError, match=said):
        opened(bench)
    assert bench.now_s < 5
    assert bench.closed == 1


# Lost, late and spoilt reports.


def test_a_report_that_never_comes_is_a_lost_sample_and_moves_no_other() -> None:
    sent = reports(40, LOAD)
    for gone in ((5,), (5, 6, 7), (5, 9), (1,)):
        blocks = decoded(atorch.decoder(header_of(sent[0])), b"".join(r for k, r in enumerate(sent) if k not in gone))
        assert indices(blocks) == [k for k in range(41) if k not in gone]
        assert sum(block.lost_before for block in blocks) == len(gone)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:20],
        lambda raw: raw[1:],
        lambda raw: raw[:8] + b"\x01" + raw[9:],
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
    ],
    ids=["cut off", "first byte gone", "current", "checksum"],
)
def test_a_spoilt_report_is_a_lost_sample_and_moves_no_other(change: Callable[[bytes], bytes], bench: Bench) -> None:
    bench.device = Spoiled(atorch.simulate(STEADY, Options()), change, (10, 20))
    _, blocks = recorded(bench, 30.0)
    # The first report serves to recognise the meter, and is the first sample.
    assert [k for k in range(30) if k not in indices(blocks)] == [9, 19]
    assert column(blocks, "current") == pytest.approx(1.23)


def test_bytes_between_reports_do_no_harm() -> None:
    sent = reports(20)
    raw = b"".join(report + (REPLY if k % 3 else b"\xff\x55\xff") for k, report in enumerate(sent))
    blocks = decoded(atorch.decoder(header_of(sent[0])), b"\x55\x01" + raw)
    assert indices(blocks) == list(range(21))
    assert not any(block.lost_before for block in blocks)
    assert blocks[-1].consumed == 2 + len(raw) - len(REPLY)


def standing(report: bytes, run_s: int) -> bytes:
    """The report with another time run."""
    minutes, seconds = divmod(run_s, 60)
    made = bytearray(report)
    made[23:27] = [*(minutes // 60).to_bytes(2, "big"), minutes % 60, seconds]
    made[-1] = sum(made[2:-1]) & 0xFF ^ 0x44
    return bytes(made)


def test_where_the_meters_own_seconds_stand_reports_are_counted() -> None:
    """Some meters count time only while current flows; and the user may clear it."""
    sent = [standing(report, 100) for report in reports(9)] + [
        standing(report, 101 + k) for k, report in enumerate(reports(9))
    ]
    assert indices(decoded(atorch.decoder(header_of(sent[0])), b"".join(sent))) == list(range(20))
    cleared = [standing(report, 5000 + k) for k, report in enumerate(reports(4))]
    cleared += [standing(report, k) for k, report in enumerate(reports(4))]
    assert indices(decoded(atorch.decoder(header_of(sent[0])), b"".join(cleared))) == list(range(10))
    # Of one that is spoilt meanwhile its bytes are left.
    sent[4] = sent[4][:-1] + b"\0"
    blocks = decoded(atorch.decoder(header_of(sent[0])), b"".join(sent))
    assert [k for k in range(20) if k not in indices(blocks)] == [4]


def test_the_time_run_may_start_over() -> None:
    last_s = 65536 * 3600 - 1
    sent = [standing(report, (last_s - 2 + k) % (last_s + 1)) for k, report in enumerate(reports(7)) if k != 4]
    blocks = decoded(atorch.decoder(header_of(sent[0])), b"".join(sent))
    assert indices(blocks) == [0, 1, 2, 3, 5, 6, 7]


def test_late_reports_are_placed_by_the_meters_clock_not_by_their_arrival(tmp_path: Path) -> None:
    """Bluetooth holds reports back and lets them come at once; one of them never comes."""
    sent, random = reports(180, LOAD), np.random.default_rng(4)
    late_s = random.exponential(0.08, len(sent)) + np.where(random.random(len(sent)) < 0.1, 2.5, 0.0)
    arrives_s = np.maximum.accumulate(100.0 + np.arange(len(sent)) + late_s)
    writer = store.StreamWriter(tmp_path / "atorch", header_of(sent[0]))
    for k, report in enumerate(sent):
        if k != 90:
            writer.append(report)
            now_ns = round(arrives_s[k] * 1e9)
            writer.mark("anchor", bytes=writer.bytes, monotonic_ns=now_ns, utc_ns=now_ns)
    writer.mark("end", reason="stop", bytes=writer.bytes)
    writer.close()
    stream = store.RunStream(tmp_path / "atorch")
    assert stream.length == 181
    assert [(gap.lost, gap.doubt) for gap in stream.gaps] == [(1, 0)]
    # The load began when the first report was sent, at 100 s, which stands for the second before.
    for at_s in (110.0, 160.0, 270.0):
        assert stream.timebase.from_monotonic(round(at_s * 1e9)) == pytest.approx((at_s - 99.0) * 1e9, abs=0.1e9)
    start_ns, stop_ns = (stream.timebase.from_monotonic(round(t * 1e9)) for t in (220.0, 280.0))
    (found,) = integrate(stream, [Window(start_ns=start_ns, stop_ns=stop_ns, index=0)])
    assert found.energy_j is not None
    assert abs(found.energy_j - 5.0 * charge_c(LOAD, 120.0, 180.0)) <= found.resolution_j


def test_something_else_on_the_wire_ends_the_stream() -> None:
    sent = reports(20)
    reader = atorch.decoder(header_of(sent[0]))
    assert indices(reader.feed(b"".join(sent))) == list(range(21))
    noise = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8).tobytes()
    with pytest.raises(DataError, match=f"from byte {36 * 21} on"):
        for k in range(0, 4000, 50):
            reader.feed(noise[k : k + 50])


def test_a_stream_of_another_format_is_refused() -> None:
    with pytest.raises(UsageError, match="atorch/9"):
        decode.AtorchDecoder(replace(header_of(reports(0)[0]), wire="atorch/9"))


# Cables.


def damaged(bench: Bench, faults: str) -> None:
    bench.device = FaultyDevice(atorch.simulate(LOAD, Options()), parse_faults(faults))


def test_a_meter_that_falls_silent_keeps_nobody_waiting(bench: Bench) -> None:
    damaged(bench, "stall@5.5s")
    with opened(bench) as meter:
        header = meter.start()
        raw = read_for(bench, meter, 12.0)
        asked_s = bench.now_s
        assert meter.read(0.2) == b""
        assert bench.now_s - asked_s < 0.3
    assert indices(decoded(atorch.decoder(header), raw)) == list(range(6))


def test_unplugged_and_plugged_in_again(bench: Bench) -> None:
    damaged(bench, "unplug@5.5s")
    meter = opened(bench)
    header = meter.start()
    raw = b""
    with pytest.raises(IncompleteError):
        while True:
            raw += meter.read(0.5)
    for end in (meter.stop, meter.close, meter.close):
        end()
    assert indices(decoded(atorch.decoder(header), raw)) == list(range(6))
    damaged(bench, "")
    bench.now_s = 0.0
    assert indices(recorded(bench, 4.0)[1]) == list(range(5))


def test_opened_in_the_middle_of_a_report(bench: Bench) -> None:
    sent = reports(6)

    class Midway:
        def __init__(self) -> None:
            self.sent = 0

        def receive(self, data: bytes) -> None:
            raise AssertionError("nothing is to be sent")

        def transmit(self, now_s: float) -> bytes:
            due = [report[17:] if not k else report for k, report in enumerate(sent) if self.sent <= k <= now_s]
            self.sent += len(due)
            return b"".join(due)

    bench.device = Midway()
    _, blocks = recorded(bench, 6.5)
    assert indices(blocks) == list(range(6))


@pty_only
def test_a_port_in_use_is_told() -> None:
    with (
        served(atorch.simulate(LOAD, Options()), pty=True) as port,
        atorch.open(port, Options()),
        pytest.raises(AccessError, match="in use"),
    ):
        atorch.open(port, Options())


# Other people's programs.


@pytest.mark.outside
def test_atorch_ble_reads_the_simulator_and_a_real_report_alike() -> None:
    """It knows the J7-C only, and its checksum."""
    atorch_ble = pytest.importorskip("atorch_ble", reason="atorch-ble is not installed")
    raw = b"".join(reports(60, model="J7-C"))
    parser = atorch_ble.AtorchBleParser()
    theirs = [one for k in range(0, len(raw), 20) for one in parser.feed(raw[k : k + 20])]
    assert parser.error_count == 0
    assert len(theirs) == 61
    blocks = decoded(atorch.decoder(header_of(raw[:36])), raw)
    assert column(blocks, "current") == pytest.approx([one.current_a for one in theirs])
    assert column(blocks, "voltage") == pytest.approx([one.voltage_v for one in theirs])
    assert column(blocks, "counted energy") == pytest.approx([one.energy_wh * 3600 for one in theirs])
    assert np.diff([one.duration_s for one in theirs]).tolist() == [1] * 60
    assert theirs[-1].current_a == pytest.approx(1.23)
    (real,) = atorch_ble.AtorchBleParser().feed(bytes.fromhex(f"ff550103{REAL[-1][0]}"))
    assert (real.voltage_v, real.current_a, real.energy_wh) == pytest.approx(REAL[-1][3:6])


@pytest.mark.outside
@needs_sigrok
@pytest.mark.parametrize(("model", "shown"), [
    ("UD18", ("5.00 V DC", "0.90 A DC")),
    ("J7-C", ("5.00 V DC", "0.90 A DC")),
    ("AT24", ("5.0 V DC", "900 mA DC")),
])  # fmt: skip
def test_sigrok_reads_the_simulator(model: str, shown: tuple[str, str]) -> None:
    found = sigrok_reads("atorch", atorch.simulate(parse_load("900mA/8s"), Options(settings={"model": model})))
    assert (found["V"], found["I"]) == shown
    assert ("E" in found and found["E"].startswith("23.86 Wh")) == (model != "AT24")
