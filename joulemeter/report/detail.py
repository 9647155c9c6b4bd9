"""A waveform in steps: finer ones than a page can draw at once, packed for report.js to draw where somebody zooms in.

Half floats (IEEE 754, binary16) of a common scale hold nine decades to 0.05 %, which no screen shows; with their high
and low bytes apart they deflate well. The file grows by at most 8 bytes a step.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.capture import Block, Gap, Header, Stream, Timebase
from joulemeter.physics.envelope import Envelope

Floats = NDArray[np.float64]

# Steps that are drawn at once, of a whole recording that the page holds, and of its first windows.
DRAWN, WHOLE, CLOSE = 4000, 1 << 18, 1 << 14
# The largest value is packed as this, well within the 65504 that a half float ends at.
FULL_SCALE = 32768.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Equal steps from `start_s` on, `step_s` each: the lowest, highest and mean value, (n,) float64, NaN in holes."""

    start_s: float
    step_s: float
    low: Floats
    high: Floats
    mean: Floats

    @classmethod
    def of(cls, drawn: Envelope, start_s: float = 0.0) -> Steps:
        return cls(start_s=start_s, step_s=drawn.step_s, low=drawn.low, high=drawn.high, mean=drawn.mean)

    @property
    def middles_s(self) -> Floats:
        middles: Floats = self.start_s + self.step_s * (np.arange(len(self.mean), dtype=np.float64) + 0.5)
        return middles

    def joined(self, most: int) -> Steps:
        """No more than `most` steps, whole numbers of these each; the mean is that of what was seen."""
        count = -(-len(self.mean) // most)
        if count <= 1:
            return self
        low, high, mean = (_cut(values, count) for values in (self.low, self.high, self.mean))
        seen = np.isfinite(mean).sum(axis=1)
        total = np.nansum(mean, axis=1)
        return replace(
            self,
            step_s=self.step_s * count,
            low=np.fmin.reduce(low, axis=1),
            high=np.fmax.reduce(high, axis=1),
            mean=np.where(seen > 0, total / np.maximum(seen, 1), np.nan),
        )

    def packed(self, factor: float) -> dict[str, Any]:
        """For report.js, in units of `factor`; see unpack there."""
        values = np.concatenate([self.low, self.high, self.mean]) / factor
        seen = np.abs(values[np.isfinite(values)])
        scale = float(seen.max()) / FULL_SCALE if seen.size and seen.max() > 0 else 1.0
        halves = (values / scale).astype("<f2").view(np.uint8).reshape(-1, 2)
        deflated = zlib.compress(np.ascontiguousarray(halves.T).tobytes(), 9)
        return {
            "start": self.start_s,
            "step": self.step_s,
            "count": len(self.mean),
            "scale": scale,
            "packed": base64.b64encode(deflated).decode(),
        }


def _cut(values: Floats, count: int) -> Floats:
    """(n,) -> (n / count, count), the last row filled up with NaN."""
    padded = np.concatenate([values, np.full(-len(values) % count, np.nan)])
    return padded.reshape(-1, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The samples [first, last) of an evenly spaced stream, as a stream."""

    stream: Stream
    first: int
    last: int

    @property
    def name(self) -> str:
        return self.stream.name

    @property
    def header(self) -> Header:
        return self.stream.header

    @property
    def timebase(self) -> Timebase:
        return self.stream.timebase

    @property
    def length(self) -> int:
        return self.last - self.first

    @property
    def gaps(self) -> tuple[Gap, ...]:
        return ()

    def blocks(self, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        del start, stop
        for block in self.stream.blocks(self.first, self.last):
            begin = max(self.first - block.first_index, 0)
            end = min(self.last - block.first_index, len(block))
            if begin < end:
                yield replace(
                    block,
                    first_index=block.first_index + begin - self.first,
                    data={name: values[begin:end] for name, values in block.data.items()},
                    status=None if block.status is None else block.status[begin:end],
                )
            if block.first_index + len(block) >= self.last:
                return
