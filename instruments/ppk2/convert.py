"""Words to samples with numpy, and the filter at range switches in the form of two linear filters.

The meter is wrong for some samples after a range switch, and the maker's software replaces the switch sample and the
next two. Two exponential averages run over all samples, fast (α = 0.18) and slow (α = 0.06); a replaced sample takes
the slow one in range 4, else the fast one. The first two samples after a switch into range 4 enter neither.
This is exact, no approximation: leave out the samples that do not enter, filter the rest, look up the replaced ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Array, Status

from . import wire
from .align import Words

FAST, SLOW = 0.18, 0.06
TOP_RANGE = wire.RANGES - 1
REPLACED = 3
NOT_ENTERED = 2


@dataclass(slots=True, kw_only=True)
class FilterState:
    """`averages` are fast and slow, NaN before the first sample. `since` counts samples from the last range switch."""

    averages: NDArray[np.float64] = field(default_factory=lambda: np.full(2, np.nan))
    range: int = -1
    since: int = REPLACED

    def to_json(self) -> dict[str, Any]:
        averages = None if np.isnan(self.averages[0]) else self.averages.tolist()
        return {"averages": averages, "range": self.range, "since": self.since}

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> FilterState:
        averages = [np.nan, np.nan] if state["averages"] is None else state["averages"]
        return cls(averages=np.array(averages, dtype=np.float64), range=state["range"], since=state["since"])


class NumpyConverter:
    def __init__(self, table_a: NDArray[np.float64], *, filtered: bool) -> None:
        from scipy.signal import lfilter

        self._lfilter = lfilter
        self._table_a = table_a
        self._filtered = filtered
        self.state = FilterState()

    def convert(self, words: Words) -> tuple[dict[str, Array], NDArray[np.uint8] | None]:
        """Channels of at least one word, and the status where any is not good."""
        indices = words & np.uint32(wire.CODE_AND_RANGE_MASK)
        ranges = (indices >> np.uint32(wire.RANGE_SHIFT)).astype(np.uint8)
        current_a = self._table_a.take(indices)
        full_scale = (indices & np.uint32(wire.CODE_MASK)) == wire.CODE_MASK
        status = full_scale.astype(np.uint8) * np.uint8(Status.CLIPPED) if full_scale.any() else None
        if self._filtered and (replaced := self._filter(current_a, ranges)) is not None:
            status = np.zeros(len(words), np.uint8) if status is None else status
            status[replaced] |= np.uint8(Status.ALTERED)
        lines = (words >> np.uint32(wire.LINES_SHIFT)).astype(np.uint8)
        return {"current": current_a, "range": ranges, "digital": lines}, status

    def _filter(self, current_a: NDArray[np.float64], ranges: NDArray[np.uint8]) -> NDArray[np.intp] | None:
        """Replace in place what has to be; indices of the replaced samples."""
        state, count = self.state, len(ranges)
        switches = np.flatnonzero(ranges[1:] != ranges[:-1]) + 1
        if state.range not in (-1, ranges[0]):
            switches = np.concatenate([[0], switches])
        # A switch of which the last block saw only the beginning lies before this one.
        before = [-state.since] if state.since < REPLACED else []
        state.range = int(ranges[-1])
        if not len(switches) and not before:
            self._average(current_a)
            return None
        all_switches = np.concatenate([before, switches]).astype(np.intp)
        state.since = min(count - int(all_switches[-1]), REPLACED)
        replaced = _reached(all_switches, REPLACED, count)
        entering = np.ones(count, bool)
        left_out = _reached(all_switches, NOT_ENTERED, count)
        entering[left_out[ranges[left_out] == TOP_RANGE]] = False
        averages = self._average(current_a[entering])
        latest = np.cumsum(entering)[replaced]
        current_a[replaced] = np.where(ranges[replaced] == TOP_RANGE, averages[1][latest], averages[0][latest])
        return replaced

    def _average(self, current_a: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """Both averages before the first of these samples and after each; shapes (n + 1,). They go on from there."""
        averages = []
        for which, alpha in enumerate((FAST, SLOW)):
            start = self.state.averages[which]
            fresh = current_a
            if np.isnan(start) and len(fresh):  # the first sample of all is its own average
                start, fresh = fresh[0], fresh[1:]
            after = np.empty(len(current_a) + 1)
            after[: len(after) - len(fresh)] = start
            if len(fresh):
                # Rounds as alpha*x + (1 - alpha)*average does, term by term.
                after[len(after) - len(fresh) :], _ = self._lfilter(
                    [alpha], [1.0, alpha - 1.0], fresh, zi=[(1.0 - alpha) * start]
                )
            self.state.averages[which] = after[-1]
            averages.append(after)
        return averages


def _reached(switches: NDArray[np.intp], length: int, count: int) -> NDArray[np.intp]:
    """Indices in [0, count) that are among the `length` samples from any switch on, ascending."""
    reached = (switches[:, None] + np.arange(length)).reshape(-1)
    reached = reached[(reached >= 0) & (reached < count)]
    return np.unique(reached)
