"""Marks set by the program that infers."""

from __future__ import annotations

import time
import tracemalloc
from itertools import pairwise

import pytest

from joulemeter import markers
from joulemeter.errors import UsageError
from joulemeter.markers import Marks
from joulemeter.workload import Stamps


class Kept:
    def __init__(self) -> None:
        self.stamps: list[Stamps] = []

    def __call__(self, stamps: Stamps) -> None:
        self.stamps.append(stamps)


def test_a_mark_lies_around_its_block() -> None:
    kept = Kept()
    marks = Marks(kept)
    before = time.monotonic_ns()
    for _ in range(3):
        with marks.inference():
            time.sleep(0.002)
    after = time.monotonic_ns()
    marks.flush()
    (stamps,) = kept.stamps
    assert len(stamps) == 3 and stamps.inferences_per_window == 1
    borders = [before, *(at for pair in zip(stamps.begin_ns, stamps.end_ns, strict=True) for at in pair), after]
    assert all(early < late for early, late in pairwise(borders))
    assert all(end - begin >= 2_000_000 for begin, end in zip(stamps.begin_ns, stamps.end_ns, strict=True))


def test_windows_of_several_inferences_and_nested_parts() -> None:
    kept = Kept()
    marks = Marks(kept)
    with marks.inference(32), marks.phase("pre"), marks.phase("resize"):
        pass
    marks.flush()
    window = next(stamps for stamps in kept.stamps if len(stamps))
    parts = {name: pair for stamps in kept.stamps for name, pair in stamps.phases.items()}
    assert window.inferences_per_window == 32
    assert set(parts) == {"pre", "resize"}
    (pre_begin, pre_end), (resize_begin, resize_end) = parts["pre"], parts["resize"]
    assert window.begin_ns[0] <= pre_begin[0] <= resize_begin[0] <= resize_end[0] <= pre_end[0] <= window.end_ns[0]


def test_decorates_a_function() -> None:
    kept = Kept()
    marks = Marks(kept)

    @marks.inference()
    def predict(x: int, *, y: int = 1) -> int:
        return x + y

    assert predict(2, y=3) == 5 and predict(4) == 5
    assert predict.__name__ == "predict"
    marks.flush()
    assert len(kept.stamps[0]) == 2


def test_a_block_that_raises_is_not_counted() -> None:
    kept = Kept()
    marks = Marks(kept)
    with pytest.raises(ZeroDivisionError), marks.inference():
        _ = 1 / 0
    with marks.inference():
        pass
    marks.flush()
    assert len(kept.stamps[0]) == 1


def test_refuses_itself_within_itself() -> None:
    marks = Marks(Kept())
    with pytest.raises(UsageError, match=r"inference\(\) was entered again"), marks.inference(), marks.inference():
        pass
    with marks.inference():  # and goes on afterwards
        pass


@pytest.mark.parametrize("name", ["", "a b", "high", "pairs", "x:y"])
def test_refuses_names_that_no_trigger_can_have(name: str) -> None:
    with pytest.raises(UsageError, match="no name for a phase"):
        Marks(Kept()).phase(name)


def test_refuses_windows_of_nothing() -> None:
    with pytest.raises(UsageError, match="measures nothing"):
        Marks(Kept()).inference(0)


def test_hands_over_when_full_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markers, "CAPACITY", 4)
    kept = Kept()
    marks = Marks(kept)
    for _ in range(10):
        with marks.inference():
            pass
    assert [len(stamps) for stamps in kept.stamps] == [4, 4]
    marks.flush()
    begins = [begin for stamps in kept.stamps for begin in stamps.begin_ns.tolist()]
    assert len(begins) == 10 and begins == sorted(begins)


def test_a_marker_that_outlives_its_measurement_marks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markers, "CAPACITY", 4)
    kept = Kept()
    marks = Marks(kept)
    infer = marks.inference()(lambda: None)
    infer()
    marks.close()
    for _ in range(10):
        infer()
    marks.flush()
    assert [len(stamps) for stamps in kept.stamps] == [1]


class Pin:
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def begin(self) -> None:
        self.seen.append(("up", time.monotonic_ns()))

    def end(self) -> None:
        self.seen.append(("down", time.monotonic_ns()))


def test_an_edge_lies_next_to_the_marks_and_outside_of_them() -> None:
    kept, pin = Kept(), Pin()
    marks = Marks(kept, pin)
    with marks.inference():
        pass
    with pytest.raises(ZeroDivisionError), marks.inference():
        _ = 1 / 0
    marks.flush()
    (stamps,) = kept.stamps
    assert [name for name, _ in pin.seen] == ["up", "down", "up", "down"]  # down again also after an error
    assert pin.seen[0][1] <= stamps.begin_ns[0] <= stamps.end_ns[0] <= pin.seen[1][1]


def test_memory_does_not_grow_with_the_number_of_marks() -> None:
    marks = Marks(lambda stamps: None)
    window, part = marks.inference(), marks.phase("part")

    def mark(count: int) -> None:
        for _ in range(count):
            with window, part:
                pass

    mark(1000)
    tracemalloc.start()
    try:
        mark(1000)
        first, _ = tracemalloc.get_traced_memory()
        mark(50_000)
        second, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert second - first < 1000
