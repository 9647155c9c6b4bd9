"""The UM24C, UM25C and UM34C: bytes that others composed, a driver in a simulated time, and other people's programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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
    times_s,
)

from joulemeter.capture import Block, Header, Kind, Quantity
from joulemeter.caveat import Code
from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.instruments import um25c
from joulemeter.instruments.um25c import driver, wire
from joulemeter.physics.integrate import integrate
from joulemeter.physics.witness import cross_check
from joulemeter.synthetic import Load, parse_load
from joulemeter.transport.faults import FaultyDevice, parse_faults
from joulemeter.window import Window

LOAD = parse_load("900mA/8s/d0,300mA/8s")
STEADY = parse_load("1.2345A/8s")
MODELS = ("UM24C", "UM25C", "UM34C")
DRIVER = "joulemeter.instruments.um25c.driver"
RDSERIALTOOL = Path(os.environ.get("JOULEMETER_RDSERIALTOOL", "/nonexistent"))


def answer(counters: str = "", *, head: str = "09c9138830390000181d0019004d0000", tail: str = "fff1") -> bytes:
    """130 bytes: of a UM25C at 5.000 V, 1.2345 A and 6.173 W, unless told otherwise."""
    rest = counters.ljust(2 * 112, "0")
    return bytes.fromhex(head + rest + tail)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(um25c.simulate(LOAD, Options()))
    return made.take_over(monkeypatch, "joulemeter.polled")


def opened(bench: Bench, **settings: str) -> driver.Driver:
    options = Options(settings=settings)
    return driver.Driver(bench, options, um25c.INFO.chosen(options))


def recorded(bench: Bench, seconds: float, **settings: str) -> tuple[Header, list[Block]]:
    with opened(bench, **settings) as meter:
        header = meter.start()
        raw = read_for(bench, meter, seconds)
    return header, decoded(um25c.decoder(header), raw)


# Bytes that did not come from here.

# rfinnie/rdserialtool 6a8b8c2, Response.dump() of the values below; it has no idea of this project.
COMPOSED = {
    "UM25C": (
        "09c913b3303900001852001f00580003000000000000006400000000000000000000000000000000000001c800000929",
        "010f000000000000000000000000000a00000000000000000004000000280001fff1",
        (5.043, 1.2345, 6.226),
    ),
    "UM24C": (
        "096301f804d20000184b001f00580003000000000000006400000000000000000000000000000000000001c800000929",
        "010f000000000000000000000000000a00000000000000000004000000280001fff1",
        (5.04, 1.234, 6.219),
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", COMPOSED)
def test_an_answer_that_rdserialtool_composed(model: str) -> None:
    begin, end, (volts, amperes, watts) = COMPOSED[model]
    raw = bytes.fromhex(begin + "00" * (130 - len(begin + end) // 2) + end)
    reading = wire.parse(raw)
    assert reading is not None
    assert (reading.model.name, reading.simulated) == (model, False)
    assert (reading.voltage_v, reading.current_a, reading.power_w) == pytest.approx((volts, amperes, watts))
    # 0.1 Wh in the first group and 2.345 Wh in the fourth.
    assert reading.energy_j == pytest.approx(2.445 * 3600)


# An answer of the simulator, which sigrok 0.6.0 (883c2ac1) accepts, checksum included, and shows as 5.00 V and 1.235 A.
SEEN_BY_SIGROK = (
    "0d4c01f404d30000181d0019004d00000000010b000005380000007100000237"
    + "00" * 80
    + "0000003c000000000000000000294a4dffec"
)


def test_the_checksum_of_a_um34c_is_the_one_that_sigrok_checks() -> None:
    raw = bytes.fromhex(SEEN_BY_SIGROK)
    device = um25c.simulate(STEADY, Options(settings={"model": "UM34C"}))
    device.transmit(60.0)
    device.receive(b"\xf0")
    assert device.transmit(60.1) == raw
    reading = wire.parse(raw)
    assert reading is not None
    assert (reading.model.name, reading.voltage_v, reading.current_a) == ("UM34C", 5.0, pytest.approx(1.235))
    for at in (3, 7, 128, 129):
        spoilt = bytearray(raw)
        spoilt[at] ^= 0x40
        assert wire.parse(bytes(spoilt)) is None or at == 128, at


@pytest.mark.parametrize(
    "raw",
    [
        answer()[:-1],
        answer() + b"\0",
        answer(tail="fff0"),
        answer(head="09c8138830390000181d0019004d0000"),  # no such model
        answer(head="09c9138830390000181d0019004d000a"),  # there are groups 0 to 9
        answer(head="09c9938830390000181d0019004d0000"),  # power is not voltage times current
        b"",
    ],
)
def test_spoilt_answers_are_none(raw: bytes) -> None:
    assert wire.parse(answer()) is not None
    assert wire.parse(raw) is None
    assert wire.values(raw) is None


def test_what_is_counted_does_not_jump_when_another_group_is_selected() -> None:
    first = wire.parse(answer("000000000000000a"))
    second = wire.parse(answer("000000000000000a0000000000000005", head="09c9138830390000181d0019004d0001"))
    assert first is not None
    assert second is not None
    assert (first.energy_j, second.energy_j) == (36.0, 54.0)


# The driver.


@pytest.mark.parametrize("model", MODELS)
def test_header_names_the_model_and_says_that_it_is_simulated(
    model: str, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.device = um25c.simulate(LOAD, Options(settings={"model": model}))
    with opened(bench) as meter:
        header = meter.start()
    assert (header.model, header.simulated, header.wire) == (model, True, "rdtech-um/1")
    assert header.epoch is not None
    current, voltage, counted = header.channels
    assert (current.quantity, voltage.quantity) == (Quantity.CURRENT, Quantity.VOLTAGE)
    assert (current.kind, current.refresh_s) == (Kind.INSTANT, 0.5)
    assert counted.witness
    assert bench.closed == 1
    assert set(bench.said) == {0xF0}, "a command that changes the meter was sent"


@pytest.mark.parametrize("model", MODELS)
def test_energy_of_windows_is_within_what_a_slow_meter_leaves_open(model: str, bench: Bench) -> None:
    bench.device = um25c.simulate(LOAD, Options(settings={"model": model}))
    header, blocks = recorded(bench, 66.0)
    assert header.epoch is not None
    begun_s = header.epoch.monotonic_ns * 1e-9
    windows = [
        Window(start_ns=round((16 * k - begun_s) * 1e9), stop_ns=round((16 * k + 8 - begun_s) * 1e9), index=k)
        for k in range(1, 4)
    ]
    found = integrate(stream_of(header, blocks), windows)
    truth_j = 5.0 * charge_c(LOAD, 16.0, 24.0)
    assert truth_j == pytest.approx(36.0)
    for one in found:
        assert one.energy_j is not None
        # Half a refresh at each edge, at the step of 3 W.
        assert one.resolution_j == pytest.approx(2 * 3.0 * 0.5 / 2, rel=0.3)
        assert abs(one.energy_j - truth_j) <= one.resolution_j
    # What one edge loses the other wins: whole cycles are right to the last digit of the display.
    (whole,) = integrate(
        stream_of(header, blocks), [Window(start_ns=windows[0].start_ns, stop_ns=windows[2].start_ns, index=0)]
    )
    assert whole.energy_j == pytest.approx(5.0 * charge_c(LOAD, 16.0, 48.0), rel=2e-3)


def test_windows_shorter_than_a_few_refreshes_are_too_short(bench: Bench) -> None:
    header, blocks = recorded(bench, 10.0)
    short, long = integrate(
        stream_of(header, blocks),
        [Window(start_ns=2 * 10**9, stop_ns=2 * 10**9 + ns, index=0) for ns in (1_400_000_000, 1_600_000_000)],
    )
    assert Code.TOO_SHORT in short.caveats
    assert Code.TOO_SHORT not in long.caveats


def test_its_own_counter_agrees_with_its_readings(bench: Bench) -> None:
    header, blocks = recorded(bench, 120.0)
    check = cross_check(stream_of(header, blocks))
    assert check is not None
    assert check.agrees
    # 3 W on average.
    assert check.counted == pytest.approx(3.0 * check.duration_s, rel=0.05)
    cleared = column(blocks, "counted energy")
    cleared[len(cleared) // 2 :] -= cleared[len(cleared) // 2]
    stream = stream_of(header, blocks)
    assert cross_check(replace(stream, data={**stream.data, "counted energy": cleared})) is None


def test_readings_lie_on_a_grid_and_are_stamped_between_question_and_answer(bench: Bench) -> None:
    header, blocks = recorded(bench, 4.9, interval="200ms")
    assert header.rate_hz == pytest.approx(5.0)
    assert indices(blocks) == list(range(26))
    # What is shown is half a refresh old on average.
    assert times_s(blocks) == pytest.approx(np.arange(26) * 0.2 - 0.25, abs=2e-3)


@pytest.mark.parametrize("interval", ["1.1s", "0", "-1s", "fast", "10V"])
def test_intervals_that_cannot_be_are_refused(interval: str, bench: Bench) -> None:
    with pytest.raises(UsageError):
        opened(bench, interval=interval)
    assert bench.closed == 1


@pytest.mark.parametrize("options", [Options(supply_v=5.0), Options(declared_v=5.0)])
def test_an_inline_meter_takes_no_voltage(options: Options) -> None:
    with pytest.raises(UsageError):
        um25c.open("/dev/no-such-port", options)


def test_without_an_address_it_says_how_to_pair() -> None:
    assert um25c.discover() == []
    with pytest.raises(NotFoundError, match="rfcomm bind"):
        um25c.open("", Options())


@pytest.mark.parametrize(
    "device",
    [
        Says(b""),
        Says(b"ack start\r\n"),
        Says(answer(head="ffff138830390000181d0019004d0000")),
        Says(bytes(range(256)) * 8, asked=False),  # something that streams: the meter is looked for, not waited out
    ],
    ids=["mute", "lpm01a", "another meter", "flood"],
)
def test_what_is_no_such_meter_is_told_quickly(device: Says, bench: Bench) -> None:
    bench.device = device
    with pytest.raises(NotFoundError, match="UM24C, UM25C or UM34C"):
        opened(bench)
    assert bench.now_s < 5
    assert bench.closed == 1


# Cables.


def damaged(bench: Bench, faults: str, load: Load = LOAD) -> None:
    bench.device = FaultyDevice(um25c.simulate(load, Options()), parse_faults(faults))


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda raw: raw[:90], 1),
        (lambda raw: raw[1:], 1),
        (lambda raw: raw[:2] + b"\xff" + raw[3:], 1),
        (lambda raw: b"\0" + raw, 1),
        (lambda raw: b"", 1),
        (lambda raw: raw + raw, 0),
        (lambda raw: raw + b"+OK", 0),
    ],
    ids=["cut off", "first byte gone", "a bit", "pushed", "gone", "twice", "more"],
)
def test_a_spoilt_answer_is_a_lost_reading_and_moves_no_other(
    change: Callable[[bytes], bytes], lost: int, bench: Bench
) -> None:
    # Four answers go before the recording: these are the tenth and the twentieth in it.
    bench.device = Spoiled(um25c.simulate(STEADY, Options()), change, (14, 24))
    header, blocks = recorded(bench, 10.0, interval="500ms")
    # An answer that does not come takes two slots: it is waited for.
    assert sum(block.lost_before for block in blocks) in (2 * lost, 4 * lost)
    assert len(blocks[0]) == (9 if lost else 21)
    assert column(blocks, "current") == pytest.approx(1.2345)
    assert column(blocks, "voltage") == pytest.approx(5.0)
    assert times_s(blocks) == pytest.approx(np.array(indices(blocks)) / header.rate_hz - 0.25, abs=6e-3)


def test_noise_is_no_readings_and_no_hang(bench: Bench) -> None:
    damaged(bench, "noise@5s")
    _, blocks = recorded(bench, 20.0)
    assert 15 <= len(indices(blocks)) <= 21


def test_a_meter_that_falls_silent_keeps_nobody_waiting(bench: Bench) -> None:
    damaged(bench, "stall@3s")
    with opened(bench) as meter:
        header = meter.start()
        raw = read_for(bench, meter, 8.0)
        asked_s = bench.now_s
        assert meter.read(0.2) == b""
        assert bench.now_s - asked_s < 2
    assert len(indices(decoded(um25c.decoder(header), raw))) == pytest.approx(12, abs=1)


def test_a_meter_that_stops_answering_before_the_recording_is_told(bench: Bench) -> None:
    meter = opened(bench)
    bench.device = Says(b"")
    with pytest.raises(IncompleteError, match="sends none"):
        meter.start()
    bench.device = Says(answer(tail="0000"))
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
    assert len(indices(decoded(um25c.decoder(header), raw))) == pytest.approx(12, abs=1)
    damaged(bench, "")
    assert len(indices(recorded(bench, 1.9)[1])) == 9


def test_a_program_that_died_between_question_and_answer_leaves_no_trace(bench: Bench) -> None:
    bench.write(b"\xf0\xf0\xf0")
    _, blocks = recorded(bench, 1.9)
    assert indices(blocks) == list(range(9))


def test_a_cut_off_recording_ends_with_its_last_whole_reading(bench: Bench) -> None:
    with opened(bench) as meter:
        header = meter.start()
        raw = read_for(bench, meter, 1.9)
    for cut in (1, 60, header.word_bytes - 1):
        assert indices(decoded(um25c.decoder(header), raw[:-cut])) == list(range(8))


@pty_only
def test_a_port_in_use_is_told() -> None:
    with (
        served(um25c.simulate(LOAD, Options()), pty=True) as port,
        um25c.open(port, Options()),
        pytest.raises(AccessError, match="in use"),
    ):
        um25c.open(port, Options())


# Other people's programs.


@pytest.mark.outside
@pty_only
@pytest.mark.parametrize("model", MODELS)
def test_pyummeter_reads_the_simulator(model: str) -> None:
    pyummeter = pytest.importorskip("pyummeter", reason="pyummeter is not installed")
    device = um25c.simulate(parse_load("900mA/8s"), Options(settings={"model": model}))
    with served(device, pty=True) as port, pyummeter.UMmeter(pyummeter.UMmeterInterfaceTTY(port)) as meter:
        meter.set_timeout(5)
        found = meter.get_data()
    assert found["model"] == model
    assert (found["voltage"], found["intensity"], found["power"]) == pytest.approx((5.0, 0.9, 4.5))
    assert [group["energy"] for group in found["data_group"][:3]] == pytest.approx([1.234, 0.567, 0.0], abs=2e-3)
    assert found["data_group_selected"] == 0


@pytest.mark.outside
@needs_sigrok
@pytest.mark.parametrize(("model", "shown"), [
    ("UM24C", ("5.00 V", "900 mA")),
    ("UM25C", ("5.000 V", "900.0 mA")),
    ("UM34C", ("5.00 V", "900 mA")),
])  # fmt: skip
def test_sigrok_reads_the_simulator(model: str, shown: tuple[str, str]) -> None:
    found = sigrok_reads("rdtech-um", um25c.simulate(parse_load("900mA/8s"), Options(settings={"model": model})))
    assert (found["V"], found["I"]) == shown


@pytest.mark.outside
@pty_only
@pytest.mark.skipif(
    not (RDSERIALTOOL / "rdserialtool").is_file(),
    reason="JOULEMETER_RDSERIALTOOL names no copy of rfinnie/rdserialtool",
)
@pytest.mark.parametrize("model", MODELS)
def test_rdserialtool_reads_the_simulator(model: str) -> None:
    device = um25c.simulate(parse_load("900mA/8s"), Options(settings={"model": model}))
    with served(device, pty=True) as port:
        command = [sys.executable, "rdserialtool", "--device", model.lower(), "--serial-device", port, "--json"]
        done = subprocess.run(command, cwd=RDSERIALTOOL, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index("{") :])
    assert (found["volts"], found["amps"], found["watts"]) == pytest.approx((5.0, 0.9, 4.5))
    assert found["data_groups"][1]["watt_hours"] == pytest.approx(0.567)
