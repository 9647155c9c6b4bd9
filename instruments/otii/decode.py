"""What was pulled, to samples at the rate of the current.

A sample's index comes from its time stamp. A voltage is held over its own interval, which keeps its mean; the state of
a line is the one in the middle of a sample. The samples of a pull are given out with the pull after it, so that an edge
that the app learns of later still finds its sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter import frames
from joulemeter.capture import Block, Header, Status
from joulemeter.errors import DataError, UsageError

from . import channels, wire

# Time stamps may be rounded to a millisecond: a difference up to half of one is no hole.
ROUNDING_S = 0.5e-3
RATE_TOLERANCE = 1e-4
INDEX, VALUE, ENDS = range(3)
STARTS, VOLTS, INTERVAL = range(3)


class OtiiDecoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the JouleMeter that recorded it."
            )
        self._interval_s = 1 / header.rate_hz
        self._words: list[str] = header.parameters["words"]
        self._trusted: bool = header.parameters["low_range"] == "trusted"
        self._seen_voltage = any(channel.name == "voltage" for channel in header.channels)
        self._inputs: list[str] = header.parameters["inputs"]
        self._frames = frames.Splitter()
        self._zero_s: float | None = None  # time of sample 0 in the app's recording
        self._index = 0  # of the next sample to be given out
        self._following = 0  # after the last sample that came
        self._settled = 0  # up to here all edges are known
        # Columns of what waits: index, value and end of each sample; start, value and interval of each voltage.
        self._currents = np.empty((3, 0))
        self._voltages = np.empty((3, 0))
        self._levels = [bool(level) for level in header.parameters["levels"]]
        self._edges: list[list[tuple[float, bool]]] = [[] for _ in self._inputs]

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        blocks: list[Block] = []
        for frame in self._frames.feed(raw):
            piece = wire.unpack(frame)
            if piece is None:
                continue
            self._take(piece, frame.ends)
            if piece.last:
                blocks += self._emit(self._settled)
                self._settled = self._following
        return blocks

    def finish(self) -> list[Block]:
        return self._emit(self._following)

    def state(self) -> dict[str, Any]:
        return {
            "frames": self._frames.state(),
            "zero_s": self._zero_s,
            "index": self._index,
            "following": self._following,
            "settled": self._settled,
            "currents": self._currents.tolist(),
            "voltages": self._voltages.tolist(),
            "levels": self._levels,
            "edges": self._edges,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._frames.restore(state["frames"])
        self._zero_s, self._index = state["zero_s"], state["index"]
        self._following, self._settled = state["following"], state["settled"]
        self._currents = np.array(state["currents"], dtype=np.float64).reshape(3, -1)
        self._voltages = np.array(state["voltages"], dtype=np.float64).reshape(3, -1)
        self._levels = list(state["levels"])
        self._edges = [[(at, level) for at, level in edges] for edges in state["edges"]]

    def _take(self, piece: wire.Piece, ends: int) -> None:
        if len(piece.current):
            index, values = self._place(piece.current)
            fresh = np.vstack([index, values, np.full(len(values), float(ends))])
            self._currents = np.hstack([self._currents, fresh])
        if len(piece.voltage):
            starts = piece.voltage.start_s + np.arange(len(piece.voltage)) * piece.voltage.interval_s
            fresh = np.vstack([starts, piece.voltage.values, np.full(len(starts), piece.voltage.interval_s)])
            self._voltages = np.hstack([self._voltages, fresh])
        for edges, name in zip(self._edges, self._inputs, strict=True):
            edges += [(float(entry["timestamp"]), level) for entry, level in self._said(name, piece.entries)]
            edges.sort(key=lambda edge: edge[0])

    def _said(self, name: str, entries: wire.Entries) -> list[tuple[Mapping[str, Any], bool]]:
        """The entries of an input that set its line, each with what to."""
        given = entries.get(name, ())
        if name != wire.LOG:
            return [(entry, bool(entry["value"])) for entry in given]
        begin, end = self._words
        said = [(entry, begin in entry["value"], end in entry["value"]) for entry in given]
        return [(entry, begins) for entry, begins, stops in said if begins != stops]

    def _place(self, series: wire.Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Indices and values of the samples that are new."""
        if abs(series.interval_s / self._interval_s - 1) > RATE_TOLERANCE:
            raise DataError(
                f"The Otii sampled every {series.interval_s * 1e6:g} µs where its header says "
                f"{self._interval_s * 1e6:g} µs.",
                "Somebody changed its sample rate meanwhile: leave the app alone, and record anew.",
            )
        if self._zero_s is None:
            self._zero_s = series.start_s
        first, values = (series.start_s - self._zero_s) / self._interval_s, series.values
        if abs(first - self._following) * self._interval_s <= ROUNDING_S:
            first = self._following
        at = max(round(first), self._following)
        # What is there already never comes twice.
        values = values[at - round(first) :]
        if len(values):
            self._following = at + len(values)
        return at + np.arange(len(values), dtype=np.float64), values

    def _emit(self, until: int) -> list[Block]:
        """Blocks of the samples before that index."""
        count = int(np.searchsorted(self._currents[INDEX], until))
        if not count or self._zero_s is None:
            return []
        given, self._currents = self._currents[:, :count], self._currents[:, count:]
        index = given[INDEX].astype(np.int64)
        middle_s = self._zero_s + (index + 0.5) * self._interval_s
        current = given[VALUE].copy()
        status = np.where(np.isfinite(current), 0, Status.INVALID).astype(np.uint8)
        data: dict[str, NDArray[Any]] = {"current": current}
        if self._seen_voltage:
            data["voltage"], doubts = self._hold(middle_s)
            status |= doubts
        low = (np.abs(current) <= channels.LOW_TOP_A) & self._trusted
        data["range"] = np.where(low, channels.LOW, channels.HIGH).astype(np.uint8)
        data["digital"] = self._lines(middle_s)
        ends = given[ENDS].astype(np.int64)
        borders = [0, *(np.flatnonzero(np.diff(index) != 1) + 1).tolist(), count]
        return [self._block(index, data, status, ends, slice(*span)) for span in itertools.pairwise(borders)]

    def _block(
        self,
        index: NDArray[np.int64],
        data: Mapping[str, NDArray[Any]],
        status: NDArray[np.uint8],
        ends: NDArray[np.int64],
        span: slice,
    ) -> Block:
        first, lost = int(index[span][0]), int(index[span][0]) - self._index
        self._index = int(index[span][-1]) + 1
        return Block(
            first_index=first,
            data={name: values[span] for name, values in data.items()},
            lost_before=lost,
            status=status[span] if status[span].any() else None,
            consumed=int(ends[span][-1]),
        )

    def _hold(self, middle_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """The voltage at each time, and what is to be doubted: ALTERED where it was carried over a hole."""
        starts, volts, interval = self._voltages
        if not len(starts):
            return np.full(len(middle_s), np.nan), np.full(len(middle_s), Status.INVALID, np.uint8)
        at = np.maximum(np.searchsorted(starts, middle_s, side="right") - 1, 0)
        away_s = np.maximum(middle_s - starts[at] - interval[at], starts[at] - middle_s)
        doubts = np.where(away_s > ROUNDING_S + interval[at], Status.ALTERED, 0)
        doubts = np.where(np.isfinite(volts[at]), doubts, Status.INVALID).astype(np.uint8)
        self._voltages = self._voltages[:, at[-1] :]
        return volts[at], doubts

    def _lines(self, middle_s: NDArray[np.float64]) -> NDArray[np.uint8]:
        states = np.zeros(len(middle_s), np.uint8)
        for bit, edges in enumerate(self._edges):
            levels = np.array([self._levels[bit], *(level for _, level in edges)], dtype=np.uint8)
            at = np.searchsorted([time_s for time_s, _ in edges], middle_s, side="right")
            states |= levels[at] << bit
            passed = int(at[-1])
            self._levels[bit] = bool(levels[passed])
            del edges[:passed]
        return states
