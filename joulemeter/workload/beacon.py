"""The sync code, played: busy work and sleep in turn, with the borders stamped by the host's clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from joulemeter.capture import Event
from joulemeter.pattern import BUSY, END, IDLE, SOURCE, Pattern


def play(
    pattern: Pattern,
    busy: Callable[[], object],
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], object] = time.sleep,
) -> tuple[Event, ...]:
    """Run `pattern` and give the stamps of its borders, to be stored beside the recording.

    `busy` is called back to back until a busy span is over; a call that is running then is not cut, so the span
    becomes longer, and the stamp says so. Every span is counted from its own beginning: a late one does not shorten
    the next. `clock` gives CLOCK_MONOTONIC nanoseconds, `sleep` takes seconds.
    """
    stamps: list[Event] = []
    now = clock()
    for working, duration_s in pattern.runs():
        stamps.append(Event(label=BUSY if working else IDLE, source=SOURCE, monotonic_ns=now))
        until = now + round(duration_s * 1e9)
        while (now := clock()) < until:
            if working:
                busy()
            else:
                sleep((until - now) * 1e-9)
    return (*stamps, Event(label=END, source=SOURCE, monotonic_ns=now))
