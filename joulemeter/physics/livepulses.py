"""Pulses of a trigger channel counted while records come in: for people to watch, and for the session to stop by."""

from __future__ import annotations

import numpy as np

from joulemeter.capture import Block
from joulemeter.physics.edges import AnalogScanner
from joulemeter.physics.kinds import Source, as_float


class LivePulses:
    """Windows of one form, block by block. Each block is taken by itself, so a pulse across two blocks is not seen.

    That suits records of a triggered instrument; what counts in the end is found again from the whole recording.
    """

    def __init__(self, channel: str, level: float, form: str, source: Source) -> None:
        self._channel = channel
        self._level = level
        self._opens_high = form != "low"
        self._source = source
        self._widths: list[float] = []
        self._energies: list[float] = []

    def feed(self, block: Block, rate_hz: float) -> int:
        """Take one block; the number of complete pulses in it."""
        scanner = AnalogScanner(self._channel, self._level)
        scanner.feed(block)
        edges = scanner.edges - block.first_index
        first_opens = scanner.first_level is not self._opens_high
        edges = edges[0 if first_opens else 1 :]
        power = self._source.power_w(block)
        count = len(edges) // 2
        for start, stop in zip(edges[0 : 2 * count : 2].tolist(), edges[1 : 2 * count : 2].tolist(), strict=True):
            self._widths.append((stop - start) / rate_hz)
            if power is not None:
                inside = as_float(power[int(np.ceil(start)) : int(np.floor(stop)) + 1])
                self._energies.append(float(inside.mean()) * (stop - start) / rate_hz if len(inside) else np.nan)
        return count

    @property
    def median_s(self) -> float | None:
        """Median width so far; None before the first pulse."""
        return float(np.median(self._widths)) if self._widths else None

    @property
    def median_j(self) -> float | None:
        """Median energy so far; None before the first pulse, and where no power is known."""
        return float(np.median(self._energies)) if self._energies else None
