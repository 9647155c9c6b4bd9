"""Samples of 20 bytes to values, judged by their ticks of the meter's own milliseconds.

Samples *follow* each other where the ticks step as the rate says. At a place where they do not, samples are missing
(as many as the ticks tell) or bytes are spoilt. CONFIRM samples that follow each other are believed; fewer are not,
and then the sample before them is not believed either, for its last bytes carry no mark of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from joulemeter.capture import Block, Header
from joulemeter.errors import DataError, UsageError
from joulemeter.instrument import Decoder
from joulemeter.polled import PolledDecoder

from . import wire

CONFIRM = 3
CONFIRM_AT_END = 2
# So many samples in a row that cannot be believed are not a disturbance but something else.
GARBAGE_SAMPLES = 2000

_Run = tuple[int, int, bool | None]  # first sample, the one after the last, believed; None: not known yet


class QueueDecoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError, DataError."""
        if header.wire != wire.QUEUE_FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.QUEUE_FORMAT}.", "Use the JouleMeter that recorded it."
            )
        rate = next((rate for rate in wire.RATES.values() if rate.hz == header.rate_hz), None)
        if rate is None:
            raise DataError(f"No POWER-Z streams {header.rate_hz:g} samples a second.", "Record anew.")
        self._rate = rate
        self._sign = float(header.parameters["sign"])
        self._pending = b""  # from stream byte _consumed on
        self._consumed = 0
        self._ticks: int | None = None  # of the last sample given out
        self._index = -1  # of that sample
        self._spoilt = 0  # samples not believed since

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more; what came before it has been given out."""
        return self._advance(raw, at_end=False)

    def finish(self) -> list[Block]:
        """The samples held back until now; the stream has ended."""
        return self._advance(b"", at_end=True)

    def state(self) -> dict[str, Any]:
        return {
            "pending": self._pending.hex(),
            "consumed": self._consumed,
            "ticks": self._ticks,
            "index": self._index,
            "spoilt": self._spoilt,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._pending = bytes.fromhex(state["pending"])
        self._consumed = state["consumed"]
        self._ticks, self._index, self._spoilt = state["ticks"], state["index"], state["spoilt"]

    def _advance(self, raw: bytes, *, at_end: bool) -> list[Block]:
        data = self._pending + raw
        samples = np.frombuffer(data, wire.SAMPLE, len(data) // wire.SAMPLE.itemsize)
        runs = self._runs(samples, at_end=at_end)
        blocks: list[Block] = []
        settled = 0
        for k, (start, stop, believed) in enumerate(runs):
            if believed is None:
                break
            settled = stop
            if not believed:
                self._spoilt += stop - start
                continue
            # What comes next says whether the last sample of a run is whole.
            vouched = runs[k + 1][2] if k + 1 < len(runs) else at_end or None
            kept = stop if vouched else stop - 1
            if kept > start:
                blocks.append(self._block(samples[start:kept], self._consumed + kept * wire.SAMPLE.itemsize))
            if vouched is None:
                settled = kept
                break
        self._pending = data[settled * wire.SAMPLE.itemsize :]
        self._consumed += settled * wire.SAMPLE.itemsize
        if self._spoilt > GARBAGE_SAMPLES and not blocks:
            raise DataError(
                f"{self._spoilt} samples of the POWER-Z's stream, up to byte {self._consumed}, make no sense.",
                "What came before is kept. Unplug the meter and plug it in again; then record anew.",
            )
        return blocks

    def _runs(self, samples: Any, *, at_end: bool) -> list[_Run]:
        """Samples that follow each other, and whether they are to be believed."""
        if not len(samples):
            return []
        ticks = samples["ticks"].astype(np.int64)
        good = wire.plausible(samples)
        follows = ((np.diff(ticks) - self._rate.step) % wire.TICKS_MODULO == 0) & good[1:] & good[:-1]
        borders = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(samples)]
        goes_on = self._ticks is not None and (int(ticks[0]) - self._ticks - self._rate.step) % wire.TICKS_MODULO == 0
        runs: list[_Run] = []
        for start, stop in pairwise(borders):
            believed: bool | None = stop - start >= CONFIRM or (start == 0 and goes_on and bool(good[0]))
            if not believed and stop == len(samples):
                alone = self._ticks is None and start == 0 and bool(good[0])
                believed = stop - start >= CONFIRM_AT_END or alone if at_end else None
            runs.append((start, stop, believed))
        return runs

    def _block(self, samples: Any, consumed: int) -> Block:
        first = int(samples["ticks"][0])
        lost = 0 if self._ticks is None else (self._rate.apart(self._ticks, first) - 1) % self._rate.modulo
        index = self._index + 1 + lost
        self._ticks, self._index, self._spoilt = int(samples["ticks"][-1]), index + len(samples) - 1, 0
        return Block(
            first_index=index,
            data={
                "current": samples["current"] * (self._sign * 1e-6),
                "voltage": samples["voltage"] * 1e-6,
            },
            lost_before=lost,
            consumed=consumed,
        )


def decoder(header: Header) -> Decoder:
    """For either way of reading the meter. Raises UsageError, DataError."""
    if header.wire != wire.SNAPSHOT_FORMAT:
        return QueueDecoder(header)
    sign = float(header.parameters["sign"])

    def values(answer: bytes) -> tuple[float, float] | None:
        flows = wire.flows(answer)
        return None if flows is None else (sign * flows[0], flows[1])

    return PolledDecoder(header, wire.SNAPSHOT_FORMAT, values)
