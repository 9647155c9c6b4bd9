from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
from bench import BenchLink, device_s
from test_boards import INFERENCE_C, LOAD, falls

from joulemeter.errors import IncompleteError, NotFoundError, UsageError
from joulemeter.transport.serve import serve_pty
from joulemeter.workload import SimulatedBoard, uart
from joulemeter.workload.uart import Uart

INFERENCE_S = 25e-3  # of LOAD
BYTE_S = 10 / 115200
# Of the simulated board, whose k-th prediction is (7 k + 3) mod 10.
PREDICTIONS = [3, 0, 7, 4, 1, 8, 5, 2, 9, 6]


def quiet(text: str) -> None:
    del text


def on_bench(options: Mapping[str, str] | None = None, **settings: Any) -> tuple[SimulatedBoard, BenchLink, Uart]:
    board = uart.simulate(LOAD, options or {})
    link = BenchLink(board.device)
    return board, link, Uart("bench", 115200, open_link=link.open, now_ns=link.now_ns, **settings)


@pytest.mark.parametrize("per_window", [1, 4])
def test_each_window_holds_its_pulses(per_window: int) -> None:
    board, _, workload = on_bench()
    workload.prepare()
    workload.ready(quiet)
    workload.warm_up(2)
    stamps = workload.run(5, per_window)
    assert stamps.inferences_per_window == per_window
    # Apart by more than a stamp may be off, so that each pulse is nearest to its own window.
    assert ((stamps.begin_ns[1:] - stamps.end_ns[:-1]) * 1e-9 > 4 * (stamps.u_s or 1.0)).all()
    changes = board.timeline.changes()
    for begin, end in zip(stamps.begin_ns.tolist(), stamps.end_ns.tolist(), strict=True):
        start_s, stop_s = device_s(begin), device_s(end)
        rises = [
            time
            for (_, _, before), (time, _, lines) in pairwise(changes)
            if lines & 1 and not before & 1 and start_s <= time <= stop_s
        ]
        ends = [time for time in falls(board.timeline) if start_s <= time <= stop_s]
        assert (len(rises), len(ends)) == (per_window, per_window)
        for rise, fall in zip(rises, ends, strict=True):
            assert board.timeline.charge_c(rise, fall) == pytest.approx(INFERENCE_C)
        # Trigger on the wire, the inference, and the answer is stamped when it began: within a step of the bench's.
        assert rises[0] == pytest.approx(start_s + BYTE_S, abs=1.2e-3)
        assert stop_s == pytest.approx(ends[-1], abs=1.2e-3)


def test_predictions_are_events_and_a_histogram() -> None:
    _, _, workload = on_bench()
    workload.ready(quiet)
    workload.warm_up(1)
    stamps = workload.run(3, 2)
    events = workload.heard()
    # Two inferences came before: the first look, and the warm-up.
    assert [event.data["prediction"] for event in events] == PREDICTIONS[2:8]
    assert events[-1].monotonic_ns == stamps.end_ns[-1]
    assert {event.source for event in events} == {"answer"}
    assert events[0].data["latency_s"] == pytest.approx(INFERENCE_S + BYTE_S, abs=2.2e-3)
    assert workload.heard() == []
    about = workload.describe()
    assert about["inferences"] == 6
    assert about["predictions"] == {str(number): 1 for number in sorted(PREDICTIONS[2:8])}


def test_a_longer_answer_is_kept_as_digits() -> None:
    _, _, workload = on_bench({"reply": "2"}, reply=2)
    workload.ready(quiet)
    workload.run(2)
    assert [event.data["prediction"] for event in workload.heard()] == ["0000", "0007"]


def test_the_trigger_byte_is_the_one_asked_for() -> None:
    _, link, workload = on_bench({"byte": "0x55"}, trigger=0x55)
    workload.ready(quiet)
    workload.run(1)
    assert bytes(link.sent) == b"\x55\x55"


def test_a_silent_board_is_told_in_time() -> None:
    _, link, workload = on_bench({"fault": "silent"}, timeout_s=2.0)
    with pytest.raises(IncompleteError, match=r"did not answer its trigger: nothing in 2\.00 s") as caught:
        workload.ready(quiet)
    assert caught.value.exit_code == 6
    assert "baud rate" in caught.value.remedy
    assert link.now_s < 4


def test_half_an_answer_is_told() -> None:
    _, _, workload = on_bench(reply=2, timeout_s=0.5)
    with pytest.raises(IncompleteError, match="1 of 2 bytes"):
        workload.ready(quiet)


def test_a_board_that_waits_for_another_byte_is_silent() -> None:
    _, _, workload = on_bench({"byte": "2"})
    with pytest.raises(IncompleteError, match="did not answer"):
        workload.ready(quiet)


def test_a_board_that_says_more_than_its_answer_is_not_believed() -> None:
    _, _, workload = on_bench({"fault": "babble"})
    with pytest.raises(IncompleteError, match="with 3 bytes, not with 1"):
        workload.ready(quiet)


def test_stale_bytes_are_no_answer() -> None:
    board, link, workload = on_bench(boot_s=0.05)
    workload.prepare()
    workload.ready(quiet)
    link.write(b"\x01")
    board.device.transmit(link.now_s)
    link.now_s += 0.1
    workload.run(1)
    assert [event.data["prediction"] for event in workload.heard()] == [PREDICTIONS[2]]
    assert workload.describe()["unasked_bytes"] == 1


def test_a_lost_connection_keeps_what_was_heard() -> None:
    _, link, workload = on_bench()
    workload.ready(quiet)
    workload.run(2)
    link.unplug_s = link.now_s + 0.01
    with pytest.raises(IncompleteError, match="connection was lost"):
        workload.run(1)
    assert len(workload.heard()) == 2
    workload.close()
    workload.close()
    assert link.closed == 1


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("", {}),
        ("/dev/ttyX,0", {}),
        ("/dev/ttyX", {"byte": "256"}),
        ("/dev/ttyX", {"byte": "one"}),
        ("/dev/ttyX", {"reply": "0"}),
        ("/dev/ttyX", {"timeout": "later"}),
        ("/dev/ttyX", {"bite": "1"}),
    ],
)
def test_bad_options_are_usage_errors(target: str, options: Mapping[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        uart.create(target, options)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("count", "per_window"), [(0, 1), (1, -1)])
def test_no_windows_are_a_usage_error(count: int, per_window: int) -> None:
    _, _, workload = on_bench()
    workload.prepare()
    with pytest.raises(UsageError, match="measure nothing"):
        workload.run(count, per_window)


def test_a_port_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError) as caught:
        uart.create("/dev/ttyNOWHERE,9600", {}).prepare()
    assert caught.value.exit_code == 3


def test_over_a_pseudo_terminal_in_real_time() -> None:
    board = uart.simulate(LOAD, {})
    ended, known = threading.Event(), threading.Event()
    path: list[str] = []

    def announce(address: str) -> None:
        path.append(address)
        known.set()

    server = threading.Thread(target=serve_pty, args=(board.device, announce, ended.is_set))
    server.start()
    try:
        assert known.wait(5)
        workload = uart.create(path[0], {"boot": "0.1s"})
        workload.prepare()
        workload.ready(quiet)
        stamps = workload.run(4)
        workload.close()
    finally:
        ended.set()
        server.join()
    assert [event.data["prediction"] for event in workload.heard()] == PREDICTIONS[1:5]
    assert ((stamps.end_ns - stamps.begin_ns) * 1e-9 >= INFERENCE_S).all()
