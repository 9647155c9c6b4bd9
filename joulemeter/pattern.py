"""A pattern of busy and idle that a power trace gives away, for meters that have no trigger input.

Whoever runs it stamps the borders with the host's clock, as events of the source "sync": "busy" and "idle" where the
state changes, "end" where nothing more is promised. The borders as they were stamped count, not those that were
planned, because no host hits them exactly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

SOURCE = "sync"
BUSY, IDLE, END = "busy", "idle", "end"

CODES = {
    # R. H. Barker, Group Synchronizing of Binary Digital Systems (1953): no sidelobe above 1/13.
    "barker-13": "1111100110101",
    # Maximum-length sequence of x^5 + x^2 + 1 (S. W. Golomb, Shift Register Sequences, 1967).
    "m-31": "1111100011011101010000100101100",
}
# Below this rate the short code is used: 31 chips would take half a minute of a USB meter.
SHORT_CODE_BELOW_HZ = 100.0
# A chip spans at least four samples, and a golden ratio more: that spreads the borders evenly over the phases of the
# sampling, so that they average below one sample also where samples are instants.
SAMPLES_PER_CHIP = 4
GOLDEN = (1 + 5**0.5) / 2
# Shorter chips drown in the scheduling of an operating system and in decoupling capacitors.
MIN_CHIP_S = 0.01
# Idle before and after, so that the first and the last border show and a capacitor has settled.
GUARD_CHIPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """`chips` of equal length `chip_s`; True is busy."""

    chips: tuple[bool, ...]
    chip_s: float

    @property
    def guard_s(self) -> float:
        return GUARD_CHIPS * self.chip_s

    @property
    def duration_s(self) -> float:
        """From the beginning of the first guard to the end of the last."""
        return len(self.chips) * self.chip_s + 2 * self.guard_s

    def runs(self) -> list[tuple[bool, float]]:
        """States and durations in seconds, guards included; neighbours differ."""
        guard = (False,) * GUARD_CHIPS
        return [(busy, sum(1 for _ in run) * self.chip_s) for busy, run in groupby((*guard, *self.chips, *guard))]


def default_pattern(sample_rate_hz: float, call_s: float = 0.0) -> Pattern:
    """A pattern that a meter of this rate can see; `call_s` is the duration of one call of the busy work.

    It is played once at the beginning and once at the end of a session, so that drift can be told from offset.
    """
    code = CODES["barker-13" if sample_rate_hz < SHORT_CODE_BELOW_HZ else "m-31"]
    samples = max(SAMPLES_PER_CHIP, math.ceil(max(MIN_CHIP_S, call_s) * sample_rate_hz))
    chip_s = (samples + GOLDEN) / sample_rate_hz
    return Pattern(chips=tuple(chip == "1" for chip in code), chip_s=chip_s)
