"""Edges of trigger lines: where they are, which of them are real, and which are missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Channel, Quantity, Stream
from joulemeter.errors import UsageError

Int = NDArray[np.int64]

# Pulses and pauses shorter than this share of the usual ones are a line ringing or bouncing, not inferences.
BOUNCE_SHARE = 0.005
# Pulses come at regular intervals when these scatter by less than this share; then a missing one can be seen.
REGULAR_SHARE = 0.05


class LineScanner:
    """Finds the edges of one digital line, block by block, in constant memory but for the edges themselves."""

    def __init__(self, channel: str, bit: int) -> None:
        self._channel = channel
        self._mask = np.uint8(1 << bit)
        self._level: bool | None = None
        self._edges: list[Int] = []
        self.first_level: bool | None = None
        self.length = 0

    def feed(self, block: Block) -> int:
        """Take one block; the number of edges in it. An edge across a hole counts at the first sample after it."""
        high = (block.data[self._channel] & self._mask) != 0
        if not len(high):
            return 0
        if self._level is None:
            self.first_level = self._level = bool(high[0])
        where = np.flatnonzero(high[1:] != high[:-1]) + 1
        if bool(high[0]) != self._level:
            where = np.concatenate([[0], where])
        self._level = bool(high[-1])
        self.length = block.first_index + len(high)
        if len(where):
            self._edges.append(where + block.first_index)
        return len(where)

    @property
    def edges(self) -> Int:
        """Sample indices at which the line has changed; they alternate, beginning with the opposite of first_level."""
        return np.concatenate(self._edges) if self._edges else np.empty(0, dtype=np.int64)


def digital_line(stream: Stream, name: str) -> tuple[Channel, int]:
    """The channel and bit of a digital line. Raises UsageError naming the lines there are."""
    channels = [channel for channel in stream.header.channels if channel.quantity is Quantity.DIGITAL]
    for channel in channels:
        if name in channel.lines:
            return channel, channel.lines.index(name)
    there = ", ".join(line for channel in channels for line in channel.lines) or "none"
    raise UsageError(f"{stream.header.model} has no digital line {name!r}.", f"Its lines: {there}.")


def debounce(edges: Int, rate_hz: float, debounce_s: float | None) -> tuple[Int, int]:
    """Edges without bounces, and how many were taken out.

    Edges closer together than the limit form a burst. A burst with an odd number is one edge, at its beginning; one
    with an even number is a glitch and no edge.
    """
    if len(edges) < 3:
        return edges, 0
    pauses = np.diff(edges)
    if debounce_s is None:
        # The upper quartiles of pulses and of pauses: where every edge bounces, half of each are bounces.
        usual = min(float(np.quantile(pauses[0::2], 0.75)), float(np.quantile(pauses[1::2], 0.75)))
        limit = usual * BOUNCE_SHARE
    else:
        limit = debounce_s * rate_hz
    close = pauses < limit
    if not close.any():
        return edges, 0
    burst = np.concatenate([[0], np.cumsum(~close)])
    first = np.flatnonzero(np.concatenate([[True], ~close]))
    odd = np.bincount(burst) % 2 == 1
    kept = edges[first[odd]]
    return kept, len(edges) - len(kept)


def missing(starts: Int) -> int:
    """Windows left out of an otherwise regular series; 0 where the series is not regular enough to tell."""
    if len(starts) < 5:
        return 0
    pauses = np.diff(starts)
    middle = float(np.median(pauses))
    scatter = float(np.median(np.abs(pauses - middle)))
    if scatter > REGULAR_SHARE * middle:
        return 0
    multiples = np.round(pauses / middle)
    whole = np.abs(pauses - multiples * middle) <= 2 * REGULAR_SHARE * middle
    return int(np.sum((multiples - 1)[whole & (multiples > 1)]))


def line_spans(stream: Stream, channel: Channel, limit: int = 2000) -> dict[str, list[tuple[float, float]]]:
    """When each line of a digital channel was high, in seconds; lines that never changed and more than `limit`
    spans of one line are left out, being no use in a drawing."""
    scanners = {name: LineScanner(channel.name, bit) for bit, name in enumerate(channel.lines)}
    for block in stream.blocks():
        for scanner in scanners.values():
            scanner.feed(block)
    spans = {}
    for name, scanner in scanners.items():
        borders = scanner.edges.tolist()
        if not borders or len(borders) > 2 * limit:
            continue
        borders = ([0] if scanner.first_level else []) + borders
        borders += [scanner.length] if len(borders) % 2 else []
        at = [border / stream.timebase.rate_hz for border in borders]
        spans[name] = list(zip(at[0::2], at[1::2], strict=True))
    return spans
