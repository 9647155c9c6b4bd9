"""Frames to samples, aligned by sample id.

Each signal has its own first sample id and its own step, and arrives in messages of its own. Sample k stands for the
sample ids [origin + k·step, origin + (k + 1)·step), step being that of the current; lines and ranges are taken from the
middle of it. What is missing in one signal (no message for these ids, or NaN) is missing as a sample, for all: lost.

Only sample ids make time. `utc` is looked at to note its steps, and moves nothing. Ids are followed modulo 2**32, for
a JS220 counts no further on its wire and its library has been seen to join the upper part wrongly.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter import frames
from joulemeter.capture import Array, Block, Header, Kind
from joulemeter.errors import DataError, UsageError

from . import wire

# A signal that is further behind the others than this has lost what it did not send.
LAG_S = 2.0
# UTC that differs by more from what the sample ids say has stepped.
UTC_STEP_S = 0.01
UTC_STEPS_KEPT = 100
_IDS = 1 << 32


@dataclass(slots=True, kw_only=True)
class _Track:
    """What has come of one signal and is not yet given out: pieces as (index of its first sample, values)."""

    name: str
    signal: wire.Signal
    late: int
    pieces: list[tuple[int, Array]] = field(default_factory=list)
    reach: int = 0  # the index after the last of them

    def add(self, index: int, stop: int, values: Array) -> None:
        """Values from `index` to `stop`; what came before already stays as it was."""
        fresh = max(self.reach - index, 0)
        if fresh < len(values):
            self.pieces.append((index + fresh, values[fresh:]))
        self.reach = max(self.reach, stop)

    def take(self, start: int, stop: int) -> tuple[Array, NDArray[np.bool_] | None]:
        """The values of [start, stop) and which of them are there; None for all."""
        kept, used = [], []
        for index, values in self.pieces:
            if index < stop:
                used.append((index, values))
            if index + len(values) > stop:
                cut = max(stop - index, 0)
                kept.append((index + cut, values[cut:]))
        self.pieces = kept
        taken, there = _joined(used, start, stop, self.signal.dtype)
        if self.signal.measured:
            known = np.isfinite(taken)
            if not known.all():
                there = known if there is None else there & known
        return taken, there


def _joined(
    pieces: Sequence[tuple[int, Array]], start: int, stop: int, dtype: str
) -> tuple[Array, NDArray[np.bool_] | None]:
    if len(pieces) == 1 and pieces[0][0] <= start and pieces[0][0] + len(pieces[0][1]) >= stop:
        index, values = pieces[0]
        return values[start - index : stop - index], None
    taken, there = np.zeros(stop - start, dtype=dtype), np.zeros(stop - start, dtype=bool)
    for index, values in pieces:
        begin, end = max(index, start), min(index + len(values), stop)
        taken[begin - start : end - start] = values[begin - index : end - index]
        there[begin - start : end - start] = True
    return taken, None if there.all() else there


class JoulescopeDecoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError for a stream of another format."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the version of JouleMeter that recorded it."
            )
        parameters = header.parameters
        self._ids_hz: int = parameters["ids_hz"]
        self._step = round(self._ids_hz / header.rate_hz)
        self._lag = round(LAG_S * header.rate_hz)
        self._word_bytes = header.word_bytes
        self._tracks = {
            wire.SIGNALS[name].kind: _Track(
                name=name, signal=wire.SIGNALS[name], late=parameters.get("late", {}).get(name, 0)
            )
            for name in parameters["signals"]
        }
        self._counter = next((one.name for one in header.channels if one.kind is Kind.CUMULATIVE), None)
        self._splitter = frames.Splitter()
        self._waiting: list[frames.Frame] = []  # until every signal has begun
        self._origin: int | None = None
        self._id: int | None = None  # the last one, followed beyond 2**32
        self._ahead = 0  # sample ids that the library left out in all
        self._skips: list[tuple[int, int]] = []  # (from this sample id on, so many are missing before it)
        self._done = 0  # samples given out or lost, since the origin
        self._base: int | None = None  # the first sample of all, since the origin
        self._index = 0
        self._energy = np.nan
        self._totals: list[tuple[int, float]] = []  # (sample id after which it is known, total)
        self._utc: tuple[int, int] | None = None
        self.utc_steps: list[tuple[int, float]] = []
        """(sample id, seconds) of each step of the library's UTC, the last UTC_STEPS_KEPT of them."""

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more."""
        blocks: list[Block] = []
        for frame in self._splitter.feed(raw):
            blocks += self._take(frame)
        return blocks

    def finish(self) -> list[Block]:
        """Nothing is held back but samples of which a part is missing."""
        return []

    def _take(self, frame: frames.Frame) -> list[Block]:
        if frame.kind == wire.STATISTICS:
            self._totals.append((self._followed(frame.number), wire.energy_j(frame.payload)))
            return []
        if frame.kind == wire.LOST:
            self._skip(wire.unpack_lost(frame.payload))
            return []
        if frame.kind not in self._tracks:
            return []
        if self._origin is None:
            self._waiting.append(frame)
            if {one.kind for one in self._waiting} != set(self._tracks):
                return []
            self._begin()
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                self._place(one)
        else:
            self._place(frame)
        return self._give(frame.ends)

    def _followed(self, number: int) -> int:
        """The sample id in a count that never starts over, with what the library left out."""
        if self._id is None:
            self._id = number
        id_ = self._id + (number - self._id + _IDS // 2) % _IDS - _IDS // 2
        self._id = max(self._id, id_)
        missing = next((ahead for begin, ahead in reversed(self._skips) if id_ >= begin), 0)
        return id_ + missing

    def _skip(self, lost: int) -> None:
        # Messages of the same span came as if nothing had happened, so the hole is put behind the latest of them.
        self._ahead += lost
        reached = max((track.reach for track in self._tracks.values()), default=0)
        behind = (self._origin or 0) + reached * self._step - self._ahead + lost
        self._skips = [*self._skips[-9:], (behind, self._ahead)]

    def _begin(self) -> None:
        """The origin: where every signal is there, on the grid of the current."""
        first: dict[int, int] = {}
        for frame in self._waiting:
            first.setdefault(frame.kind, self._followed(frame.number) - self._tracks[frame.kind].late)
        grid = first[wire.SIGNALS["current"].kind]
        self._origin = grid - (grid - max(first.values())) // self._step * self._step

    def _place(self, frame: frames.Frame) -> None:
        track = self._tracks[frame.kind]
        message = wire.unpack(track.signal, frame.payload)
        followed = self._followed(frame.number)
        if message.sample_rate != self._ids_hz:
            raise DataError(
                f"Sample ids of {track.signal.topic} count at {message.sample_rate} Hz, not at {self._ids_hz} Hz.",
                "Update pyjoulescope_driver and the meter's firmware; then record anew.",
            )
        if track.name == "current":
            self._watch_utc(followed, message.utc)
        at = followed - track.late - (self._origin or 0)
        if track.signal.measured:
            if message.decimate_factor != self._step:
                raise DataError(
                    f"{track.signal.topic} comes at another rate than it began with.",
                    "Close other programs that use the meter; then record anew.",
                )
            index = (at + self._step // 2) // self._step
            track.add(index, index + len(message.values), message.values)
            return
        index, stop, values = _sampled(message, at, self._step)
        track.add(index, stop, values)

    def _watch_utc(self, id_: int, utc: int) -> None:
        if self._utc is not None:
            before, then = self._utc
            stepped_s = (utc - then) / wire.SECOND - (id_ - before) / self._ids_hz
            if abs(stepped_s) > UTC_STEP_S:
                self.utc_steps = [*self.utc_steps[1 - UTC_STEPS_KEPT :], (id_, stepped_s)]
        self._utc = (id_, utc)

    def _give(self, ends: int) -> list[Block]:
        """What is complete up to byte `ends` of the stream."""
        reaches = [track.reach for track in self._tracks.values()]
        start, stop = self._done, max(min(reaches), max(reaches) - self._lag)
        if stop <= start:
            return []
        self._done = stop
        there: NDArray[np.bool_] | None = None
        taken: dict[str, Array] = {}
        for track in self._tracks.values():
            taken[track.name], known = track.take(start, stop)
            if known is not None:
                there = known if there is None else there & known
        data = self._channels(taken, start, stop)
        runs = [(0, stop - start)] if there is None else _runs(there)
        blocks = []
        for begin, end in runs:
            if self._base is None:
                self._base = start + begin
            first = start + begin - self._base
            blocks.append(
                Block(
                    first_index=first,
                    data={name: values[begin:end] for name, values in data.items()},
                    lost_before=first - self._index,
                    consumed=ends - (stop - start - end) * self._word_bytes,
                )
            )
            self._index = first + end - begin
        return blocks

    def _channels(self, taken: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
        data: dict[str, Array] = {}
        lines: NDArray[np.uint8] | None = None
        bit = 0
        for name, values in taken.items():
            if not wire.SIGNALS[name].bits:
                data[name] = values.astype(np.float64) if wire.SIGNALS[name].measured else values.copy()
                continue
            line = values << np.uint8(bit)
            lines = line if lines is None else lines | line
            bit += 1
        if lines is not None:
            data["digital"] = lines
        if self._counter is not None:
            data[self._counter] = self._counted(start, stop)
        return data

    def _counted(self, start: int, stop: int) -> NDArray[np.float64]:
        """The meter's own total at the beginning of each sample, as far as it had said so; NaN before it did."""
        totals = np.full(stop - start, self._energy)
        later = []
        for id_, total in self._totals:
            index = -(((self._origin or 0) - id_) // self._step)
            if index >= stop:
                later.append((id_, total))
                continue
            totals[max(index - start, 0) :] = self._energy = total
        self._totals = later
        return totals

    def state(self) -> dict[str, Any]:
        return {
            "frames": self._splitter.state(),
            "waiting": [frames.pack(frame).hex() for frame in self._waiting],
            "tracks": {
                track.name: {
                    "reach": track.reach,
                    "pieces": [(index, base64.b64encode(values.tobytes()).decode()) for index, values in track.pieces],
                }
                for track in self._tracks.values()
            },
            "origin": self._origin,
            "id": self._id,
            "ahead": self._ahead,
            "skips": self._skips,
            "done": self._done,
            "base": self._base,
            "index": self._index,
            "energy": None if np.isnan(self._energy) else self._energy,
            "totals": self._totals,
            "utc": self._utc,
            "utc_steps": self.utc_steps,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._splitter.restore(state["frames"])
        self._waiting = [frame for text in state["waiting"] for frame in frames.Splitter().feed(bytes.fromhex(text))]
        for track in self._tracks.values():
            kept = state["tracks"][track.name]
            track.reach = kept["reach"]
            track.pieces = [
                (index, np.frombuffer(base64.b64decode(text), dtype=track.signal.dtype))
                for index, text in kept["pieces"]
            ]
        self._origin, self._id, self._ahead = state["origin"], state["id"], state["ahead"]
        self._skips = [(begin, ahead) for begin, ahead in state["skips"]]
        self._done, self._base, self._index = state["done"], state["base"], state["index"]
        self._energy = np.nan if state["energy"] is None else state["energy"]
        self._totals = [(id_, total) for id_, total in state["totals"]]
        self._utc = None if state["utc"] is None else (state["utc"][0], state["utc"][1])
        self.utc_steps = [(id_, seconds) for id_, seconds in state["utc_steps"]]


def _sampled(message: wire.Message, at: int, step: int) -> tuple[int, int, Array]:
    """The element in the middle of each sample whose middle lies in the message, which begins `at` the origin + `at`.

    First index, the index after the last, and the values.
    """
    between = message.decimate_factor
    half = step // 2
    index = -((half - at) // step)
    stop = -((half - at - len(message.values) * between) // step)
    first = index * step + half - at
    if step % between == 0:
        return index, stop, message.values[first // between :: step // between][: stop - index]
    return index, stop, message.values[(first + np.arange(stop - index) * step) // between]


def _runs(there: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Begin and end of each run of True."""
    borders = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]))).tolist()
    return [run for number, run in enumerate(pairwise(borders)) if number % 2 == 0]
