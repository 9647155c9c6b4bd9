"""Pulses of lines while a stream comes in: how many, and how long the last ones were. Memory is constant."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block
from joulemeter.physics.edges import AnalogScanner
from joulemeter.physics.kinds import Bool, Float, as_float
from joulemeter.physics.livestrip import Strip

# Pulses that are remembered.
LAST_PULSES = 10
# More edges at once than these tell nothing about the last pulses.
LATEST_EDGES = 2 * LAST_PULSES + 2
# A trigger signal that swings less, or lies between its levels more often, is quiet.
LEAST_SWING_V = 0.5
UNDECIDED_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulses:
    """A digital line, or the trigger channel of a triggered instrument.

    `count` are whole pulses, `widths_s` and `periods_s` those of the last LAST_PULSES, latest last. `falls_only`: the
    instrument does not show the level, and falling edges are counted. `high` is None while the level is not known.
    `strip` is of a level of 0 and 1, None where the line has never changed.
    """

    name: str
    high: bool | None
    count: int
    widths_s: tuple[float, ...]
    periods_s: tuple[float, ...]
    falls_only: bool = False
    strip: Strip | None = None


class LinePulses:
    """Pulses of one digital line, block by block."""

    def __init__(self, name: str, falls_only: bool, step_s: float) -> None:
        self.name = name
        self._falls_only = falls_only
        self._step_s = step_s
        self._strip: Strip | None = None
        self._high: bool | None = None
        self._begun = False
        self._count = 0
        self._rose_s: float | None = None
        self._last_s: float | None = None
        self._widths: deque[float] = deque(maxlen=LAST_PULSES)
        self._periods: deque[float] = deque(maxlen=LAST_PULSES)

    def interrupt(self, unseen: bool) -> None:
        """A hole: the pulse across it has no known width. `unseen`: nobody was to look, so it is no edge either."""
        self._rose_s = self._last_s = None
        if unseen:
            self._high, self._begun = None, False

    def feed(self, high: Bool, seconds: Callable[[NDArray[np.intp]], Float], origin_s: float) -> None:
        """`seconds` gives the time of a sample by its place in the block; the strip begins at `origin_s`."""
        edges = np.flatnonzero(high[1:] != high[:-1]) + 1
        if self._high is not None and bool(high[0]) != self._high:
            edges = np.concatenate([[0], edges])
        self._high = bool(high[-1])
        if len(edges):
            self._take(high[edges], seconds(edges))
            self._strip = self._strip or Strip(self._step_s)
        if self._strip is not None and not self._falls_only:
            at = np.concatenate([[0], edges[edges > 0], [len(high) - 1]]).astype(np.intp)
            times = seconds(at) - origin_s
            value = as_float(high[at[:-1]])
            self._strip.add(times[:-1], times[1:], value, value)

    def restart(self, step_s: float) -> None:
        """A strip of a new record."""
        self._step_s, self._strip = step_s, None if self._strip is None else Strip(step_s)

    def _take(self, rising: Bool, at_s: Float) -> None:
        falls = int((~rising).sum())
        # A fall without a rise before it ends a pulse that had begun too early.
        if not self._falls_only and not self._begun and not rising[0]:
            falls -= 1
        self._begun = self._begun or bool(rising.any())
        self._count += falls
        if len(rising) > LATEST_EDGES:
            self._rose_s = self._last_s = None
        for rises, edge_s in zip(rising[-LATEST_EDGES:].tolist(), at_s[-LATEST_EDGES:].tolist(), strict=True):
            if not rises and not self._falls_only and self._rose_s is not None:
                self._widths.append(edge_s - self._rose_s)
            if rises is not self._falls_only:
                if self._last_s is not None:
                    self._periods.append(edge_s - self._last_s)
                self._rose_s = self._last_s = edge_s

    def look(self) -> Pulses:
        return Pulses(
            name=self.name,
            high=None if self._falls_only else self._high,
            count=self._count,
            falls_only=self._falls_only,
            widths_s=tuple(self._widths),
            periods_s=tuple(self._periods),
            strip=None if self._falls_only else self._strip,
        )


class SignalPulses:
    """Pulses of a triggered instrument's trigger channel, record by record, at the middle of its swing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._count = 0
        self._high: bool | None = None
        self._widths: deque[float] = deque(maxlen=LAST_PULSES)

    def feed(self, block: Block, rate_hz: float) -> tuple[float, float] | None:
        """Where the last whole pulse of this record begins and ends, in fractional samples of the block."""
        values = as_float(block.data[self.name])
        known = values[np.isfinite(values)]
        if not len(known):
            return None
        low, high = float(known.min()), float(known.max())
        middle = (low + high) / 2
        self._high = bool(known[-1] > middle)
        # Noise alone crosses its own middle all the time.
        if high - low < LEAST_SWING_V or np.mean(np.abs(known - middle) < (high - low) / 4) > UNDECIDED_SHARE:
            return None
        scanner = AnalogScanner(self.name, middle)
        scanner.feed(block)
        edges = scanner.edges - block.first_index
        pulses = edges[int(bool(scanner.first_level)) :]
        pulses = pulses[: len(pulses) // 2 * 2].reshape(-1, 2)
        if not len(pulses):
            return None
        self._count += len(pulses)
        self._widths.extend(((pulses[:, 1] - pulses[:, 0]) / rate_hz)[-LAST_PULSES:].tolist())
        return float(pulses[-1, 0]), float(pulses[-1, 1])

    def look(self) -> Pulses:
        return Pulses(
            name=self.name, high=self._high, count=self._count, widths_s=tuple(self._widths), periods_s=(), strip=None
        )
