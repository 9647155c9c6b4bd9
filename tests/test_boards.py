from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np
import pytest

from joulemeter.errors import UsageError
from joulemeter.synthetic import Load, parse_load
from joulemeter.timeline import Timeline
from joulemeter.workload import SimulatedBoard, mlperf_tiny, uart
from joulemeter.workload.boards import Wire

# An inference of two steps, the second with d1 as well, 25 ms long, 180 uC; idle is 300 uA on average.
LOAD = parse_load("8mA/20ms/d0,4mA/5ms/d0/d1,200uA/50ms,400uA/50ms")
INFERENCE_C = 8e-3 * 20e-3 + 4e-3 * 5e-3
IDLE_A = 300e-6

Simulate = Callable[[Load, Mapping[str, str]], SimulatedBoard]

# Printed by the firmware of mlcommons/tiny 1afd2c9 (benchmark/api/internally_implemented.cpp, kws01, performance mode)
# compiled for a PC, its serial line on stdin and stdout; the results are those of a stand-in for the network.
ASKED = (
    b"name%profile%timestamp%db%db load%db load 0%db load 99999%db load 3%db 1%db 0G%db 01aBff77%db print%"
    b"db print 1 1%infer 0%infer 2 -1%infer 2 1%infer 1%foo bar%name\r\n%\r\nname%" + b"0" * 90 + b"%name%"
)
PRINTED = (
    b"m-timestamp-mode-performance\r\nm-lap-us-3266451308\r\nm-init-done\r\nm-ready\r\n"
    b"m-name-dut-[unspecified]\r\nm-ready\r\n"
    b"m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\nm-model-[kws01]\r\nm-ready\r\n"
    b"m-lap-us-3266451335\r\nm-ready\r\n"
    b"e-[Command 'db' requires a subcommand]\r\nm-ready\r\n"
    b"e-[Command 'db load' requires the # of bytes]\r\nm-ready\r\n"
    b"e-[Command 'db load' must be >0 bytes]\r\nm-ready\r\n"
    b"Supplied buffer size 99999 exceeds maximum of 27648\nm-ready\r\n"
    b"m-[Expecting 3 bytes]\r\nm-ready\r\n"
    b"e-[Insufficent number of hex digits]\r\nm-ready\r\n"
    b"e-[Invalid hex digit '0G']\r\nm-ready\r\n"
    b"m-load-done\r\nm-ready\r\n"
    b"m-buffer-01-ab-ff\r\n\r\nm-ready\r\n"
    b"m-buffer-01-ab-ff\r\n\r\nm-ready\r\n"
    b"e-[Inference iterations must be >0]\r\nm-ready\r\n"
    b"e-[Inference warmup must be >=0]\r\nm-ready\r\n"
    b"Input db has 3 elemented, expected 490\nm-warmup-start-1\r\nm-warmup-done\r\nm-infer-start-2\r\n"
    b"m-lap-us-3266456458\r\nm-lap-us-3266466597\r\nm-infer-done\r\n"
    b"m-results-[0.009,0.009,0.009,0.009,0.009,0.009,0.009,0.900,0.009,0.009,0.009,0.009]\r\nm-ready\r\n"
    b"Input db has 3 elemented, expected 490\nm-warmup-start-10\r\nm-warmup-done\r\nm-infer-start-1\r\n"
    b"m-lap-us-3266517471\r\nm-lap-us-3266522547\r\nm-infer-done\r\n"
    b"m-results-[0.009,0.009,0.009,0.009,0.009,0.009,0.009,0.900,0.009,0.009,0.009,0.009]\r\nm-ready\r\n"
    b"e-[Unknown command: foo]\r\nm-ready\r\n"
    b"e-[Unknown command: name\r\n]\r\nm-ready\r\n"
    b"e-[Unknown command: \r\nname]\r\nm-ready\r\n"
    b"e-[Unknown command: " + b"0" * 80 + b"]\r\nm-ready\r\n"
    b"m-name-dut-[unspecified]\r\nm-ready\r\n"
)


def mlperf(**options: str) -> SimulatedBoard:
    return mlperf_tiny.simulate(LOAD, options)


def told(board: SimulatedBoard, text: bytes, at_s: float) -> bytes:
    """Send it at that time; what the board has said until then."""
    said = board.device.transmit(at_s)
    board.device.receive(text)
    return said + board.device.transmit(at_s)


def spoken(board: SimulatedBoard, text: bytes, until_s: float = 60.0) -> bytes:
    """What a board says at boot and then answers."""
    return told(board, text, 1.0) + board.device.transmit(until_s)


def falls(timeline: Timeline, line: int = 0) -> list[float]:
    """Times at which the line falls."""
    mask = 1 << line
    return [after[0] for before, after in pairwise(timeline.changes()) if before[2] & mask and not after[2] & mask]


def alike(said: bytes) -> bytes:
    """Without what two boards may differ in: name, time, results."""
    said = re.sub(rb"m-name-dut-\[.*?\]", b"NAME", said)
    said = re.sub(rb"m-results-\[(0\.\d{3},){11}0\.\d{3}\]", b"RESULTS", said)
    return re.sub(rb"m-lap-us-\d+", b"LAP", said)


def test_the_board_says_what_the_published_firmware_says() -> None:
    assert alike(spoken(mlperf(mode="performance"), ASKED)) == alike(PRINTED)


def test_a_bare_terminator_hangs_the_board_as_it_crashes_the_published_firmware() -> None:
    said = spoken(mlperf(), b"name%%name%")
    assert said.count(b"m-name-dut") == 1


def test_bytes_take_their_time_on_the_wire() -> None:
    wire = Wire(9600)
    assert wire.put(b"x" * 96, 2.0) == pytest.approx(2.1)
    assert len(wire.take(2.0 + 10.5 / 960)) == 10
    # The next message waits for the end of this one.
    assert wire.put(b"y" * 48, 2.05) == pytest.approx(2.15)


def test_a_line_is_sent_before_the_window_begins() -> None:
    board = mlperf()
    told(board, b"infer 10 1%", 1.0)
    text = b""
    now_s = 1.0
    while not text.endswith(b"m-infer-start-10\r\n"):
        now_s += 1e-4
        text += board.device.transmit(now_s)
    sent_s = now_s
    while b"m-infer-done" not in text:
        now_s += 1e-4
        text += board.device.transmit(now_s)
    boot, start, stop = falls(board.timeline)
    assert boot < 1.0
    assert start == pytest.approx(sent_s, abs=2e-4)
    # The low time of the first stamp, then ten inferences.
    assert stop - start == pytest.approx(1e-3 + 10 * 25e-3, abs=1e-9)
    assert board.timeline.charge_c(start, stop) == pytest.approx(1e-3 * IDLE_A + 10 * INFERENCE_C, rel=1e-9)
    # m-infer-done began after the low time of the second; its twelve characters took 12.5 ms.
    assert now_s == pytest.approx(stop + 1e-3 + 12 / 960, abs=2e-4)


def test_other_lines_are_high_as_the_load_says() -> None:
    board = mlperf()
    spoken(board, b"infer 10 2%")
    assert len(falls(board.timeline, line=1)) == 12


def test_in_performance_mode_the_board_tells_its_time_and_pulses_nothing() -> None:
    board = mlperf(mode="performance")
    first, second = re.findall(rb"m-lap-us-\d+\r\n", spoken(board, b"infer 10 1%").split(b"m-infer-start")[1])
    lap_s = (int(second[9:]) - int(first[9:])) * 1e-6
    # The first lap is printed within the time.
    assert lap_s == pytest.approx(10 * 25e-3 + len(first) * 10 / 115200, abs=2e-6)
    assert falls(board.timeline) == []


def test_power_from_a_meter_boots_the_board_and_off_leaves_nothing() -> None:
    board = mlperf(boot="50ms")
    timeline = board.timeline
    timeline.powered(True, 0.0)
    timeline.powered(False, 0.5)
    assert board.device.transmit(1.0) == b""
    board.device.receive(b"name%")
    timeline.powered(True, 2.0)
    assert b"m-ready" not in board.device.transmit(2.05)
    assert board.device.transmit(4.0).endswith(b"m-init-done\r\nm-ready\r\n")
    # The boot has one falling edge each time.
    assert len(falls(timeline)) >= 2
    assert timeline.charge_c(0.6, 1.9) == 0.0
    assert timeline.charge_c(3.0, 4.0) == pytest.approx(IDLE_A)


def test_an_io_manager_says_ready_for_itself_and_passes_lines_on() -> None:
    board = mlperf(io="on")
    boot = told(board, b"tm 0%enable-timer%dut profile%", 1.0)
    assert boot == b"[dut]: m-timestamp-mode-energy\r\n[dut]: m-init-done\r\n[dut]: m-ready\r\n"
    # The dialogue of a passthrough as mlcommons/tiny documents it (benchmark/interface).
    assert board.device.transmit(3.0) == (
        b"m-timestmp-mode-FALLING\r\nm-[Timer disabled after mode change]\r\nm-ready\r\n"
        b"m-ready\r\n"
        b"m-dut-passthrough(profile)\r\nm-ready\r\n"
        b"[dut]: m-profile-[ULPMark for tinyML Firmware V0.0.1]\r\n[dut]: m-model-[kws01]\r\n[dut]: m-ready\r\n"
    )


def test_a_meter_draws_what_the_board_did() -> None:
    board = mlperf()
    drawn = []
    for tick in range(500):
        now_s = tick * 4e-3
        if tick == 250:
            board.device.receive(b"infer 20 0%")
        board.device.transmit(now_s)
        drawn.append(board.timeline.mean_current_a(max(0.0, now_s - 4e-3), 40, 10_000))
    total_c = float(np.sum(drawn[1:])) / 10_000
    assert total_c == pytest.approx(board.timeline.charge_c(0.0, 499 * 4e-3), rel=1e-9)


def test_the_uart_board_holds_its_pin_during_the_inference() -> None:
    board = uart.simulate(LOAD, {"byte": "0x01"})
    assert told(board, b"\x02\x01\x01", 0.5) == b""
    assert board.device.transmit(0.52) == b""
    assert board.device.transmit(1.0) == bytes([3, 0])  # (7 k + 3) mod 10
    changes = board.timeline.changes()
    rise = next(time for time, _, lines in changes if lines & 1)
    # Two bytes at 115200 baud before it.
    assert rise == pytest.approx(0.5 + 20 / 115200)
    fall = falls(board.timeline)[0]
    assert fall - rise == pytest.approx(25e-3)
    assert board.timeline.charge_c(rise, fall) == pytest.approx(INFERENCE_C)


@pytest.mark.parametrize("load", ["8mA/20ms/d0", "1mA/1s"])
def test_a_load_without_inference_or_idle_is_refused(load: str) -> None:
    with pytest.raises(UsageError, match="does not say what a board draws"):
        uart.simulate(parse_load(load), {})


@pytest.mark.parametrize(
    ("simulate", "options"),
    [
        (mlperf_tiny.simulate, {"model": "resnet"}),
        (mlperf_tiny.simulate, {"mode": "accuracy"}),
        (mlperf_tiny.simulate, {"fault": "fire"}),
        (mlperf_tiny.simulate, {"baud": "fast"}),
        (mlperf_tiny.simulate, {"colour": "red"}),
        (uart.simulate, {"fault": "fire"}),
        (uart.simulate, {"byte": "one"}),
        (uart.simulate, {"answer": "1"}),
    ],
)
def test_bad_options_of_a_board_are_usage_errors(simulate: Simulate, options: Mapping[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        simulate(LOAD, options)
    assert caught.value.exit_code == 2
