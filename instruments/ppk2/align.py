"""Where the words are, judged by the 6-bit counter: the only integrity information in the stream.

A word *follows* if its counter is one more than the last and its range exists. At a word that does not, the words
may continue after a loss of whole samples, or lie at another byte offset because bytes were lost or came in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import wire

Words = NDArray[np.uint32]

# At a new place this many words in a row must follow before one is believed. The chance of nonsense to do so is
# 64^-15; a smooth ramp can imitate a counter at a wrong offset, but not for that long through a converter's noise.
CONFIRM = 16
# With the stream at its end there may be no more than this.
CONFIRM_AT_END = 4
# That many bytes without any sign of a counter are not a disturbance but something else (0.16 s).
GARBAGE_BYTES = 1 << 16
# As long as fewer bytes than this lie behind a place, it may yet turn out to be good.
UNDECIDED_BYTES = wire.WORD_BYTES * (CONFIRM + 1)

_COUNTERS = np.uint32((wire.COUNTER_MODULO - 1) << wire.COUNTER_SHIFT)
_CODE_AND_RANGE = np.uint32(wire.CODE_AND_RANGE_MASK)
PIECE_WORDS = 1 << 16
_RISING = (np.arange(PIECE_WORDS + wire.COUNTER_MODULO, dtype=np.uint32) << np.uint32(wire.COUNTER_SHIFT)) & _COUNTERS


def words_at(data: bytes, offset: int, count: int) -> Words:
    return np.frombuffer(data, dtype="<u4", count=count, offset=offset)


def counter(word: int) -> int:
    return word >> wire.COUNTER_SHIFT & wire.COUNTER_MODULO - 1


def following(words: Words, expected: int) -> int:
    """How many of these words, at most PIECE_WORDS, follow from the first on if the first counter is `expected`."""
    wrong = (words & _COUNTERS) != _RISING[expected : expected + len(words)]
    indices = words & _CODE_AND_RANGE
    if len(words) and indices.max() >= wire.CODES_AND_RANGES:
        wrong |= indices >= wire.CODES_AND_RANGES
    return int(wrong.argmax()) if wrong.any() else len(words)


def find(data: bytes, start: int, *, at_end: bool) -> int | None:
    """Bytes to skip from `start` to the nearest place where words follow each other, None if it is not known yet.

    Places further than GARBAGE_BYTES away are not looked at, so that the answer never depends on how much came at once.
    """
    for reach in (64, GARBAGE_BYTES):
        places = [_find_at(data, start + shift, reach, at_end=at_end) for shift in range(wire.WORD_BYTES)]
        skips = [shift + place for shift, place in enumerate(places) if place is not None]
        if skips:
            return min(skips)
    return None


def _find_at(data: bytes, start: int, reach: int, *, at_end: bool) -> int | None:
    count = max(0, min((len(data) - start) // wire.WORD_BYTES, reach // wire.WORD_BYTES + CONFIRM))
    words = words_at(data, min(start, len(data)), count)
    real = (words & _CODE_AND_RANGE) < wire.CODES_AND_RANGES
    counters = words >> np.uint32(wire.COUNTER_SHIFT)
    steps = (((counters[1:] - counters[:-1]) & np.uint32(wire.COUNTER_MODULO - 1)) == 1) & real[1:] & real[:-1]
    breaks = np.concatenate([[-1], np.flatnonzero(~steps), [len(steps)]])
    lengths = np.diff(breaks)  # of each run of words that follow each other
    long = lengths >= CONFIRM
    if at_end and start + wire.WORD_BYTES * count + wire.WORD_BYTES > len(data):
        long[-1] |= lengths[-1] >= CONFIRM_AT_END
    return wire.WORD_BYTES * int(breaks[long.argmax()] + 1) if long.any() else None
