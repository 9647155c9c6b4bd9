"""A load that is written while it is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from joulemeter.synthetic import Load, Step
from joulemeter.timeline import Timeline


def test_charge_is_exact_over_changes_within_a_sample() -> None:
    board = Timeline(1e-3)
    board.hold(0.25, 5e-3, lines=1)
    board.hold(0.75, 2e-3)
    # Samples of half a second: each border lies in the middle of one.
    drawn = board.mean_current_a(0.0, 2, 2.0)
    assert drawn == pytest.approx([(0.25 * 1e-3 + 0.25 * 5e-3) / 0.5, (0.25 * 5e-3 + 0.25 * 2e-3) / 0.5], rel=1e-12)
    assert board.charge_c(0.0, 1.0) == pytest.approx(0.25e-3 + 2.5e-3 + 0.5e-3, rel=1e-12)
    assert board.lines(0.0, 4, 4.0).tolist() == [0, 1, 1, 0]


def test_what_was_drawn_stays_and_what_was_planned_is_dropped() -> None:
    board = Timeline(1e-3)
    board.hold(2.0, 9e-3)
    board.mean_current_a(0.0, 10, 10.0)
    board.hold(0.5, 4e-3)  # the past: it begins where drawing ended
    assert board.changes() == [(0.0, 1e-3, 0), (1.0, 4e-3, 0)]


def test_a_stream_that_starts_later_sees_the_same_time() -> None:
    board = Timeline()
    board.hold(1.5, 3e-3, lines=2)
    shifted = board.from_time(1.0)
    assert shifted.mean_current_a(0, 4, 4.0) == pytest.approx([0, 0, 3e-3, 3e-3])
    assert shifted.lines(0, 4, 4.0).tolist() == [0, 0, 2, 2]


def test_power_reaches_the_board() -> None:
    board, seen = Timeline(), []
    board.powered(True, 0.0)  # nobody listens
    board.power = lambda on, now_s: seen.append((on, now_s))
    board.from_time(3.0).powered(False, 4.0)
    assert seen == [(False, 4.0)]


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.floats(1e-3, 0.3), st.floats(0, 0.1)), min_size=1, max_size=12),
    cut=st.integers(1, 40),
)
def test_agrees_with_the_closed_form_of_a_load_in_any_chunks(steps: list[tuple[float, float]], cut: int) -> None:
    load = Load(steps=tuple(Step(duration_s=duration, current_a=current) for duration, current in steps))
    board, at_s = Timeline(), 0.0
    for duration, current in steps:
        board.hold(at_s, current)
        at_s += duration
    count = int(at_s * 1000)
    drawn = [board.mean_current_a(first / 1000, min(cut, count - first), 1000.0) for first in range(0, count, cut)]
    expected = load.mean_current_a(0, count, 1000.0)
    assert np.concatenate([np.empty(0), *drawn]) == pytest.approx(expected, rel=1e-9, abs=1e-12)
