"""What `vcgencmd pmic_read_adc` prints, and what it is worth.

Lines are `NAME_A current(N)=0.00000000A` and `NAME_V volt(N)=0.00000000V`, with blanks before them or not; N is the
channel of the converter, and says nothing of which belong together: the names do. Listings: jfikar/RPi5-power; gist
cleverca22/95d2cb2f; geerlingguy.com on overclocking a Pi 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from joulemeter.boardfiles.wire import FORMAT, Round
from joulemeter.capture import Header

__all__ = ["ARGV", "ESTIMATE", "FORMAT", "INPUT", "RAILS", "Listing", "Rails", "estimate_w", "parse"]

ARGV = ("vcgencmd", "pmic_read_adc")
LINE = re.compile(r"(\w+)_(?:(A) +current|(V) +volt)\((\d+)\)=(-?\d+\.\d+)([AV])")
# The plug's voltage, after the protection behind it. It has no current beside it.
INPUT = "EXT5V"

RAILS, ESTIMATE = "rails", "estimate"
# Input power from the sum of the rails (pi-top's documentation; the data behind it are not published).
SLOPE, CONSTANT_W = 1.1451, 0.5879


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Amperes and volts by the names of rails."""

    currents: Mapping[str, float]
    volts: Mapping[str, float]

    @property
    def pairs(self) -> tuple[str, ...]:
        """Rails with both, in the order of the listing."""
        return tuple(name for name in self.currents if name in self.volts)

    def power_w(self, rail: str) -> float:
        return self.currents[rail] * self.volts[rail]


def parse(text: str) -> Listing | None:
    """None where no rail has both."""
    currents: dict[str, float] = {}
    volts: dict[str, float] = {}
    for line in text.splitlines():
        match = LINE.fullmatch(line.strip())
        if match is not None and (match[2] or match[3]) == match[6]:
            (currents if match[2] else volts)[match[1]] = float(match[5])
    found = Listing(currents=currents, volts=volts)
    return found if found.pairs else None


def estimate_w(rails_w: float) -> float:
    return SLOPE * rails_w + CONSTANT_W


class Rails:
    """A round is worth the power, the sum behind it where that is an estimate, each rail, and the input's voltage.

    A listing that lacks one of the rails that were there at the start is worth nothing.
    """

    def __init__(self, header: Header) -> None:
        self._rails: list[str] = header.parameters["rails"]
        self._estimate: bool = header.parameters["power"] == ESTIMATE
        self._input: bool = header.parameters["input"]

    def __call__(self, found: Round) -> Sequence[float] | None:
        listing = parse(found.reads[0].text or "")
        if listing is None or not {*self._rails} <= {*listing.pairs}:
            return None
        if self._input and INPUT not in listing.volts:
            return None
        each = [listing.power_w(rail) for rail in self._rails]
        total = sum(each)
        first = [estimate_w(total), total] if self._estimate else [total]
        return [*first, *each, *([listing.volts[INPUT]] if self._input else [])]
