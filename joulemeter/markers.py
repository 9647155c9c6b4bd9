"""Marks of inferences and their parts, set by the program that runs them.

A pair of marks is two readings of the monotonic clock and two stores into memory that was written before; nothing is
allocated that stays, and nothing is written to disk before CAPACITY pairs are full.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from time import monotonic_ns
from types import TracebackType
from typing import ParamSpec, TypeVar

import numpy as np

from joulemeter.errors import UsageError
from joulemeter.trigger import FORMS
from joulemeter.workload import Edge, Stamps

P = ParamSpec("P")
T = TypeVar("T")

# Pairs held in memory: one MiB.
CAPACITY = 1 << 16


class Marker:
    """`with marker:` marks one window or one part; `@marker` marks each call. Not for two threads at once.

    A block that raises is not counted.
    """

    __slots__ = ("_at", "_began", "_begin", "_begins", "_end", "_ends", "_keep", "inferences", "name")

    def __init__(self, name: str, inferences: int, keep: Callable[[Marker, Stamps], object]) -> None:
        self.name = name
        self.inferences = inferences
        self._keep = keep
        # Written once now, so that no page is mapped for the first time while a model runs.
        self._begins = np.full(CAPACITY, -1, dtype=np.int64)
        self._ends = np.full(CAPACITY, -1, dtype=np.int64)
        # A memoryview stores an integer in half the time that an array takes.
        self._begin, self._end = self._begins.data, self._ends.data
        self._at = 0
        self._began = 0

    def __enter__(self) -> None:
        if self._began:
            self._nested()
        self._began = monotonic_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = monotonic_ns()
        if kind is None:
            at = self._at
            self._begin[at] = self._began
            self._end[at] = ended
            self._at = at = at + 1
            if at == CAPACITY:
                self.flush()
        self._began = 0

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def marked(*args: P.args, **kwargs: P.kwargs) -> T:
            with self:
                return function(*args, **kwargs)

        return marked

    def flush(self) -> None:
        """Hand over what is held."""
        if self._at:
            held = slice(0, self._at)
            self._keep(
                self,
                Stamps(
                    begin_ns=self._begins[held].copy(),
                    end_ns=self._ends[held].copy(),
                    inferences_per_window=self.inferences,
                ),
            )
            self._at = 0

    def _nested(self) -> None:
        self._began = 0
        what = f"phase({self.name!r})" if self.name else "inference()"
        raise UsageError(
            f"{what} was entered again before it had ended.",
            "Mark parts of an inference with phase(NAME), and each thread with a measurement of its own.",
        )


class EdgeMarker(Marker):
    """As a Marker, with an electrical edge around the window, next to the marks."""

    __slots__ = ("_lower", "_raise")

    def __init__(self, name: str, inferences: int, keep: Callable[[Marker, Stamps], object], edge: Edge) -> None:
        super().__init__(name, inferences, keep)
        self._raise, self._lower = edge.begin, edge.end

    def __enter__(self) -> None:
        if self._began:
            self._nested()
        self._raise()
        self._began = monotonic_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = monotonic_ns()
        self._lower()
        if kind is None:
            at = self._at
            self._begin[at] = self._began
            self._end[at] = ended
            self._at = at + 1
            if self._at == CAPACITY:
                self.flush()
        self._began = 0


class Marks:
    """The markers of one measurement. `keep` is given stamps whenever there are CAPACITY of them, and at `flush`."""

    def __init__(self, keep: Callable[[Stamps], object], edge: Edge | None = None) -> None:
        self._keep: Callable[[Stamps], object] = keep
        self._edge = edge
        self._inferences: dict[int, Marker] = {}
        self._phases: dict[str, Marker] = {}
        self._single = self._inferences[1] = self._window(1)

    def inference(self, count: int = 1) -> Marker:
        """Marks a window of `count` inferences. The same marker each time, so it may be kept. Raises UsageError."""
        if count == 1:
            return self._single
        if count not in self._inferences:
            if count < 1:
                raise UsageError(f"A window of {count} inferences measures nothing.", "It holds at least one.")
            self._inferences[count] = self._window(count)
        return self._inferences[count]

    def phase(self, name: str) -> Marker:
        """Marks a part of the inference, or work beside it. Phases may lie in each other. Raises UsageError."""
        if name not in self._phases:
            if not name.isidentifier() or name in FORMS:
                raise UsageError(
                    f"{name!r} is no name for a phase.", "Use letters, digits and _, and no word of a trigger."
                )
            self._phases[name] = Marker(name, 1, self._keep_phase)
        return self._phases[name]

    def flush(self) -> None:
        for marker in (*self._inferences.values(), *self._phases.values()):
            marker.flush()

    def close(self) -> None:
        """Flush; what is marked from now on is kept nowhere."""
        self.flush()
        self._keep = _drop

    def _window(self, count: int) -> Marker:
        if self._edge is not None:
            return EdgeMarker("", count, self._keep_window, self._edge)
        return Marker("", count, self._keep_window)

    def _keep_window(self, marker: Marker, stamps: Stamps) -> None:
        del marker
        self._keep(stamps)

    def _keep_phase(self, marker: Marker, stamps: Stamps) -> None:
        none = np.empty(0, dtype=np.int64)
        self._keep(Stamps(begin_ns=none, end_ns=none, phases={marker.name: (stamps.begin_ns, stamps.end_ns)}))


def _drop(stamps: Stamps) -> None:
    del stamps
