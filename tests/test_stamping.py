"""Calls between two readings of the clock."""

from __future__ import annotations

import gc
import time

import pytest

from joulemeter.errors import IncompleteError, UsageError
from joulemeter.workload.stamping import Around, salvaged, stamp


class Failing:
    """Works `good` times."""

    def __init__(self, good: int) -> None:
        self.left = good

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise ValueError("the device is gone")


class Pin:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def begin(self) -> None:
        self.seen.append("up")

    def end(self) -> None:
        self.seen.append("down")


def test_windows_follow_each_other_and_hold_their_calls() -> None:
    calls: list[int] = []
    stamps = stamp(lambda: calls.append(time.monotonic_ns()), 5, 3)
    assert len(calls) == 15 and stamps.inferences_per_window == 3
    for window in range(5):
        inside = calls[3 * window : 3 * window + 3]
        assert stamps.begin_ns[window] <= inside[0] <= inside[-1] <= stamps.end_ns[window]
    assert all(stamps.end_ns[:-1] <= stamps.begin_ns[1:])


@pytest.mark.parametrize(("count", "per_window"), [(0, 1), (1, 0), (-1, 1)])
def test_refuses_to_measure_nothing(count: int, per_window: int) -> None:
    with pytest.raises(UsageError, match="measure nothing"):
        stamp(lambda: None, count, per_window)


def test_what_lies_beside_is_stamped_as_phases_and_the_edge_is_next_to_the_window() -> None:
    pin, order = Pin(), []
    around = Around(
        before={"set": lambda window: order.append(f"set {window}")},
        after={"get": lambda window: order.append(f"get {window}")},
        edge=pin,
    )
    stamps = stamp(lambda: order.append("invoke"), 2, around=around)
    assert order == ["set 0", "invoke", "get 0", "set 1", "invoke", "get 1"]
    assert pin.seen == ["up", "down"] * 2
    for window in range(2):
        in_order = [
            stamps.phases["set"][0][window],
            stamps.phases["set"][1][window],
            stamps.begin_ns[window],
            stamps.end_ns[window],
            stamps.phases["get"][0][window],
            stamps.phases["get"][1][window],
        ]
        assert in_order == sorted(in_order)


@pytest.mark.parametrize(
    "around", [None, Around(before={"set": lambda window: None}, edge=Pin())], ids=["bare", "around"]
)
@pytest.mark.parametrize("per_window", [1, 2])
def test_windows_before_a_failure_are_salvaged_through_any_explanation(around: Around | None, per_window: int) -> None:
    with pytest.raises(IncompleteError) as caught:
        try:
            stamp(Failing(3 * per_window + per_window - 1), 10, per_window, around)
        except ValueError as error:
            raise IncompleteError("It stopped.") from error
    stamps = salvaged(caught.value)
    assert stamps is not None and len(stamps) == 3
    assert (stamps.begin_ns > 0).all() and (stamps.end_ns >= stamps.begin_ns).all()
    assert all(len(begin) == len(end) == 3 for begin, end in stamps.phases.values())
    if around is not None and isinstance(around.edge, Pin):
        assert around.edge.seen[-1] == "down"


def test_nothing_to_salvage() -> None:
    assert salvaged(ValueError("no run")) is None


def test_the_collector_is_off_in_windows_and_back_afterwards() -> None:
    seen: list[bool] = []
    stamp(lambda: seen.append(gc.isenabled()), 2)
    assert seen == [False, False] and gc.isenabled()
