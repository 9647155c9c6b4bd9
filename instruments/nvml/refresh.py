"""How often NVML has something new, found by looking.

It differs by generation and driver (15 ms to 120 ms have been seen), and nothing states it. The meter is asked again
and again, with pauses, until what is reported has moved a few times; the mean time between moves is its refresh. What
stood still takes the counter's refresh, and where nothing moved the time that was spent is all that is known: a bound.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean, median_low

from joulemeter.errors import JouleMeterError

from . import wire

# Look so often in between; each look also takes as long as the answers do.
PAUSE_S = 2e-3
LONGEST_S = 1.5
ENOUGH_MOVES = 6

NAMES = ("energy", "instant", "average")


@dataclass(slots=True)
class _Seen:
    """`at_s` are the times at which a value was first seen to have changed."""

    last: wire.Answer | None = None
    at_s: list[float] = field(default_factory=list)

    def look(self, answer: wire.Answer, now_s: float) -> None:
        if answer.code != wire.SUCCESS:
            return
        if self.last is not None and answer.value != self.last.value:
            self.at_s.append(now_s)
        self.last = answer

    @property
    def refresh_s(self) -> float | None:
        """None where fewer than two moves were seen."""
        pauses = [later - earlier for earlier, later in pairwise(self.at_s)]
        # A power may be followed by the same again, which hides a move and doubles a pause.
        return mean(pause for pause in pauses if pause < 1.5 * median_low(pauses)) if pauses else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`refresh_s` by source, None where it did not move; the slowest of several GPUs. `watched_s` is how long."""

    refresh_s: Mapping[str, float | None]
    moves: Mapping[str, int]
    watched_s: float
    spacing_s: float

    def of(self, source: str) -> float:
        """What is found, or else the counter's, or else the bound."""
        return self.refresh_s[source] or self.refresh_s["energy"] or max(self.watched_s, self.spacing_s)

    def bound(self, source: str) -> bool:
        """Whether nothing moved that could tell."""
        return (self.refresh_s[source] or self.refresh_s["energy"]) is None


def watch(ask: Callable[[], bytes], source: str) -> Found:
    """Ask for whole readings until `source` has moved often enough. An answer that fails to come ends it."""
    seen: list[dict[str, _Seen]] = []
    began_s = now_s = time.monotonic()
    looks = 0
    while now_s - began_s < LONGEST_S:
        try:
            readings = wire.parse(ask())
        except JouleMeterError:  # told by the first read that follows
            break
        if readings is None:
            break
        now_s = time.monotonic()
        looks += 1
        seen = seen or [{name: _Seen() for name in NAMES} for _ in readings]
        for gpu, reading in zip(seen, readings, strict=True):
            for name in NAMES:
                gpu[name].look(getattr(reading, name), now_s)
        if all(len(gpu[source].at_s) >= ENOUGH_MOVES for gpu in seen):
            break
        time.sleep(PAUSE_S)
    return Found(
        refresh_s={name: _slowest([gpu[name].refresh_s for gpu in seen]) for name in NAMES},
        moves={name: min((len(gpu[name].at_s) for gpu in seen), default=0) for name in NAMES},
        watched_s=now_s - began_s,
        spacing_s=(now_s - began_s) / max(looks, 1),
    )


def _slowest(each_s: Sequence[float | None]) -> float | None:
    known = [one for one in each_s if one is not None]
    return max(known) if known and len(known) == len(each_s) else None
