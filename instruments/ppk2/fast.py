"""The same as convert.py and align.following, sample by sample, compiled by numba: about eight times faster.

Compiling takes about a second at each start, so this is for long replays: set JOULEMETER_FAST=1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Array, Status
from joulemeter.errors import MissingExtraError

from . import wire
from .align import Words
from .convert import FAST, NOT_ENTERED, REPLACED, SLOW, TOP_RANGE, FilterState

try:
    from numba import njit
except ImportError as missing:
    raise MissingExtraError("The compiled decoder needs numba.", "joulemeter[fast]") from missing

ALTERED, CLIPPED = int(Status.ALTERED), int(Status.CLIPPED)
INDEX_MASK, INDEX_END = np.uint32(wire.CODE_AND_RANGE_MASK), np.uint32(wire.CODES_AND_RANGES)
CODE_MASK, RANGE_SHIFT, LINES_SHIFT = (
    np.uint32(wire.CODE_MASK),
    np.uint32(wire.RANGE_SHIFT),
    np.uint32(wire.LINES_SHIFT),
)
COUNTER_SHIFT, COUNTER_MASK = np.uint32(wire.COUNTER_SHIFT), np.uint32(wire.COUNTER_MODULO - 1)


@njit(nogil=True)
def _following(words: Words, expected: int) -> int:
    start = np.uint32(expected)
    wrong = np.uint32(0)
    # Without a way out in the middle the compiler can look at several words at once.
    for k in range(len(words)):
        wrong |= ((words[k] >> COUNTER_SHIFT) - start - np.uint32(k)) & COUNTER_MASK
        wrong |= np.uint32(words[k] & INDEX_MASK >= INDEX_END)
    if wrong == 0:
        return len(words)
    for k in range(len(words)):
        if (words[k] >> COUNTER_SHIFT) & COUNTER_MASK != (expected + k) & COUNTER_MASK:
            return k
        if words[k] & INDEX_MASK >= INDEX_END:
            return k
    return len(words)


# No fastmath and no parallel: a fused or reordered multiply-add would change the last bit.
@njit(nogil=True)
def _convert(
    words: Words, table_a: Any, filtered: bool, averages: Any, memory: Any,
    current_a: Any, ranges: Any, lines: Any, status: Any,
) -> int:  # fmt: skip
    fast, slow = averages
    last_range, since = memory
    seen = 0
    for k in range(len(words)):
        word = words[k]
        range_ = (word & INDEX_MASK) >> RANGE_SHIFT
        value = table_a[word & INDEX_MASK]
        marks = CLIPPED if word & CODE_MASK == CODE_MASK else 0
        if filtered:
            if last_range < 0:
                fast = slow = value
            else:
                since = 0 if range_ != last_range else min(since + 1, REPLACED)
                if since >= NOT_ENTERED or range_ != TOP_RANGE:
                    fast = FAST * value + (1.0 - FAST) * fast
                    slow = SLOW * value + (1.0 - SLOW) * slow
                if since < REPLACED:
                    value = slow if range_ == TOP_RANGE else fast
                    marks |= ALTERED
            last_range = range_
        current_a[k] = value
        ranges[k] = range_
        lines[k] = word >> LINES_SHIFT
        status[k] = marks
        seen |= marks
    averages[0], averages[1] = fast, slow
    memory[0], memory[1] = last_range, since
    return seen


def following(words: Words, expected: int) -> int:
    return int(_following(words, expected))


class NumbaConverter:
    def __init__(self, table_a: NDArray[np.float64], *, filtered: bool) -> None:
        self._table_a = table_a
        self._filtered = filtered
        self.state = FilterState()

    def convert(self, words: Words) -> tuple[dict[str, Array], NDArray[np.uint8] | None]:
        count, state = len(words), self.state
        current_a = np.empty(count)
        ranges, lines, status = (np.empty(count, np.uint8) for _ in range(3))
        # `since` counts up to the last sample here, up to the next one in FilterState.
        memory = np.array([state.range, state.since - 1], dtype=np.int64)
        seen = _convert(words, self._table_a, self._filtered, state.averages, memory, current_a, ranges, lines, status)
        state.range, state.since = int(memory[0]), min(int(memory[1]) + 1, REPLACED)
        return {"current": current_a, "range": ranges, "digital": lines}, status if seen else None
