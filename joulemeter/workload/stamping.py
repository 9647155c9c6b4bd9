"""Calls between two readings of the clock."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import repeat
from time import monotonic_ns

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import UsageError
from joulemeter.workload import Edge, Stamps

# Called with the number of the window.
Beside = Callable[[int], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What is done around each window, outside its stamps.

    `before` and `after` are stamped as phases of these names. `edge` lies inside them, next to the stamps.
    """

    before: Mapping[str, Beside] = field(default_factory=dict)
    after: Mapping[str, Beside] = field(default_factory=dict)
    edge: Edge | None = None

    def __bool__(self) -> bool:
        return bool(self.before or self.after or self.edge)


def stamp(
    invoke: Callable[[], object], count: int, inferences_per_window: int = 1, around: Around | None = None
) -> Stamps:
    """Call `invoke` in `count` windows of `inferences_per_window` calls and stamp each window. Raises UsageError.

    The garbage collector is off meanwhile.
    """
    if count < 1 or inferences_per_window < 1:
        raise UsageError(
            f"{count} windows of {inferences_per_window} inferences measure nothing.", "Both must be at least 1."
        )
    begin_ns, end_ns = _written(count), _written(count)
    # A memoryview stores an integer in half the time that an array takes.
    begin, end = begin_ns.data, end_ns.data
    names = (*around.before, *around.after) if around else ()
    phases = {name: (_written(count), _written(count)) for name in names}
    stamps = Stamps(begin_ns=begin_ns, end_ns=end_ns, inferences_per_window=inferences_per_window, phases=phases)
    with no_collector(), salvaging(stamps):
        if around:
            _surrounded(invoke, inferences_per_window, around, begin, end, phases)
        elif inferences_per_window == 1:
            for window in range(count):
                started = monotonic_ns()
                invoke()
                ended = monotonic_ns()
                begin[window] = started
                end[window] = ended
        else:
            for window in range(count):
                calls = repeat(None, inferences_per_window)
                started = monotonic_ns()
                for _ in calls:
                    invoke()
                ended = monotonic_ns()
                begin[window] = started
                end[window] = ended
    return stamps


@contextmanager
def salvaging(stamps: Stamps) -> Iterator[None]:
    """What ends the block early carries the windows that were complete by then, for `salvaged`; others hold -1."""
    try:
        yield
    except BaseException as error:
        done = int(np.count_nonzero(stamps.end_ns >= 0))
        phases = {name: (begin[:done], end[:done]) for name, (begin, end) in stamps.phases.items()}
        kept = replace(stamps, begin_ns=stamps.begin_ns[:done], end_ns=stamps.end_ns[:done], phases=phases)
        error.__dict__["stamps"] = kept
        raise


def salvaged(error: BaseException) -> Stamps | None:
    """The windows that were complete when `error`, or what caused it, ended a run."""
    cause: BaseException | None = error
    while cause is not None:
        stamps = cause.__dict__.get("stamps")
        if isinstance(stamps, Stamps):
            return stamps
        cause = cause.__cause__ or cause.__context__
    return None


def _written(count: int) -> NDArray[np.int64]:
    """Written once now, so that no page is mapped for the first time while the model runs."""
    return np.full(count, -1, dtype=np.int64)


def _surrounded(
    invoke: Callable[[], object],
    inferences_per_window: int,
    around: Around,
    begin: memoryview,
    end: memoryview,
    phases: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]],
) -> None:
    def timed(beside: Mapping[str, Beside]) -> list[tuple[Beside, memoryview, memoryview]]:
        return [(call, phases[name][0].data, phases[name][1].data) for name, call in beside.items()]

    before, after = timed(around.before), timed(around.after)
    raise_edge = around.edge.begin if around.edge else _nothing
    lower_edge = around.edge.end if around.edge else _nothing
    for window in range(len(begin)):
        for call, phase_begin, phase_end in before:
            phase_begin[window] = monotonic_ns()
            call(window)
            phase_end[window] = monotonic_ns()
        calls = repeat(None, inferences_per_window)
        raise_edge()
        started = monotonic_ns()
        try:
            for _ in calls:
                invoke()
            ended = monotonic_ns()
        finally:
            # A line left high would be one endless window to the meter.
            lower_edge()
        for call, phase_begin, phase_end in after:
            phase_begin[window] = monotonic_ns()
            call(window)
            phase_end[window] = monotonic_ns()
        begin[window] = started
        end[window] = ended


def _nothing() -> None:
    return None


@contextmanager
def no_collector() -> Iterator[None]:
    """Garbage collection off, and back to what it was."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
