"""A load that is written while it is drawn: what a simulated board does, for a simulated meter to see.

Current and digital lines are constant between changes, so the charge up to any time is exact arithmetic, as it is with
a `synthetic.Load`. Times are seconds of the simulation's clock.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


class Timeline:
    """`power` is called with (on, now_s) when the meter switches the board's supply; None: it has its own."""

    name = "board"

    def __init__(self, current_a: float = 0.0, lines: int = 0) -> None:
        self._times = [0.0]
        self._currents = [current_a]
        self._lines = [lines]
        self._drawn_s = 0.0
        self.power: Callable[[bool, float], None] | None = None

    def hold(self, at_s: float, current_a: float, lines: int = 0) -> None:
        """From `at_s` on. What was planned for later is dropped; what has been drawn already stays as it was."""
        at_s = max(at_s, self._drawn_s)
        keep = bisect_left(self._times, at_s)
        del self._times[keep:], self._currents[keep:], self._lines[keep:]
        self._times.append(at_s)
        self._currents.append(current_a)
        self._lines.append(lines)

    def charge_c(self, start_s: float, stop_s: float) -> float:
        """Exact charge in [start, stop)."""
        borders = [start_s, *(time for time in self._times if start_s < time < stop_s), stop_s]
        return sum((after - before) * self._currents[self._index(before)] for before, after in pairwise(borders))

    def changes(self) -> list[tuple[float, float, int]]:
        """(time, current, lines) of each change."""
        return list(zip(self._times, self._currents, self._lines, strict=True))

    def _index(self, at_s: float) -> int:
        return max(0, bisect_right(self._times, at_s) - 1)

    # -- what a simulated meter draws from ----------------------------------------------------------------------------

    def powered(self, on: bool, now_s: float) -> None:
        if self.power is not None:
            self.power(on, now_s)

    def from_time(self, start_s: float) -> _Shifted:
        return _Shifted(self, start_s)

    def mean_current_a(self, start_s: float, count: int, rate_hz: float) -> NDArray[np.float64]:
        borders = start_s + np.arange(count + 1, dtype=np.float64) / rate_hz
        stop_s = float(borders[-1])
        first, last = self._index(start_s), self._index(stop_s)
        times = np.array([*self._times[first : last + 1], max(stop_s, self._times[last])]) - start_s
        charges = np.concatenate([[0.0], np.cumsum(np.diff(times) * np.array(self._currents[first : last + 1]))])
        self._drawn_s = max(self._drawn_s, stop_s)
        mean: NDArray[np.float64] = np.diff(np.interp(borders - start_s, times, charges)) * rate_hz
        return mean

    def lines(self, start_s: float, count: int, rate_hz: float) -> NDArray[np.uint8]:
        """As sampled in the middle of each interval."""
        middles = start_s + (np.arange(count, dtype=np.float64) + 0.5) / rate_hz
        first, last = self._index(start_s), self._index(float(middles[-1]))
        which = np.searchsorted(np.array(self._times[first : last + 1]), middles, side="right") - 1
        states: NDArray[np.uint8] = np.array(self._lines[first : last + 1], dtype=np.uint8)[np.maximum(which, 0)]
        return states


class _Shifted:
    """A timeline as a stream sees it that began at `start_s`."""

    def __init__(self, timeline: Timeline, start_s: float) -> None:
        self._timeline = timeline
        self._start_s = start_s
        self.name = timeline.name

    def powered(self, on: bool, now_s: float) -> None:
        self._timeline.powered(on, now_s)

    def from_time(self, start_s: float) -> _Shifted:
        return _Shifted(self._timeline, start_s)

    def mean_current_a(self, first: int, count: int, rate_hz: float) -> NDArray[np.float64]:
        return self._timeline.mean_current_a(self._start_s + first / rate_hz, count, rate_hz)

    def lines(self, first: int, count: int, rate_hz: float) -> NDArray[np.uint8]:
        return self._timeline.lines(self._start_s + first / rate_hz, count, rate_hz)
