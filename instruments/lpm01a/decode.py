"""Bytes to samples: counted between the meter's time stamps, one at each 1000th sample.

Nothing in a sample says which one it is. So a *span*, from one time stamp to the next, is judged as a whole: by the
meter's clock it holds a known number of samples. If as many came, all are good. If damaged lines are seen, and what
remains of them accounts for exactly those that are missing, they are holes in their places. In all other cases the
whole span is given up: somewhere in it bytes are missing without a trace, so that a line may be made of halves and time
is shifted.

In the binary format no damage can be seen, for any two bytes look like a sample: there only the number counts.

Samples therefore come out when the next stamp has come, a second late at 1 kHz. In ASCII below 1 kHz they come out at
once, until damage is seen: waiting 1000 s for a stamp at 1 Hz would be no use. A loss without any trace then leaves the
samples between it and the next stamp early by as many as were lost.

The clock is believed to STAMP_JITTER_MS, so that above 20 kHz a loss of exactly a span and its stamp is not seen.

D7: see channels.DIGITAL. A reported edge makes the sample that follows its line low. Pairs of edges must stay pairs:
edges closer than two samples are moved apart, an edge from a hole stands behind it, and one that the numbers of the
events show to be lost stands behind the damage before it, or where there is none two samples before the next.

What cannot be placed at the end of a stream is a hole with one invalid sample behind it, so that the loss is told.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from joulemeter.capture import Array, Block, Header, Status
from joulemeter.errors import DataError, UsageError

from . import wire

# From this rate on samples wait for the next time stamp, which is then at most a second away.
HELD_FROM_HZ = 1e3
# So many bytes without any order in one span are not a disturbance but something else.
GARBAGE_BYTES = 1 << 16
# What a time stamp may be off by where the number of samples is right; how well a unit keeps it is not known.
STAMP_JITTER_MS = 15
# A clock shown with three digits of seconds would start over here.
SHOWN_MS = 1_000_000
# Binary samples that are looked at together; a stamp comes after 1000.
SCANNED_WORDS = 4096
# An edge that was lost with no more samples than these is as good as any; else its sample is given up, so that what
# begins or ends there is doubted.
SMALL_HOLE = 2
# More events than these between two are a counter that began anew.
MAX_MISSED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Consecutive samples, in bytes without anything between them, up to `end`."""

    values: Array
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Damage:
    """`size` bytes that are nothing, likely to have been so many `samples`.

    `sure`: they were at least as many. `whole`: as many bytes as those samples have, so that none seems to be lost.
    `event`: an edge was among them.
    """

    samples: int
    sure: bool
    whole: bool
    event: bool
    size: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    number: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamp:
    milliseconds: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nothing:
    """Replies, texts and empty lines. `last`: the acquisition has ended, and a summary follows."""

    end: int
    last: bool = False


_Item = _Run | _Damage | _Event | _Stamp | _Nothing


@dataclass(slots=True, kw_only=True)
class _Count:
    """What is known at the bytes that are still pending."""

    base: int = 0  # index of the first sample behind the last time stamp
    seen: int = 0  # samples since then that were given out already
    following: int = 0  # index after the last sample given out
    milliseconds: int | None = None  # of the last time stamp
    event: int | None = None  # number of the last one
    fell: int = 0  # edges that wait for their sample
    last_fall: int = -2  # index of the last sample that was made low
    missed: int = 0  # edges before that one that were lost
    ended: bool = False


# Where each run of a span begins, None for one that is given up; and the index after the span.
_Places = tuple[list[int | None], int]


class Lpm01aDecoder:
    def __init__(self, header: Header) -> None:
        """Raises UsageError for a stream of another format."""
        if header.wire not in wire.SAMPLE_BYTES:
            raise UsageError(
                f"This stream is {header.wire}, not one of {', '.join(wire.SAMPLE_BYTES)}.",
                "Use the version of JouleMeter that recorded it.",
            )
        self._rate_hz = header.rate_hz
        self._ascii = header.wire == wire.ASCII
        self._held = not self._ascii or header.rate_hz >= HELD_FROM_HZ
        energy = header.parameters["output"] == "energy"
        self._channel, self._scale = ("power", header.rate_hz) if energy else ("current", 1.0)
        self._pending = b""  # bytes not yet settled, from stream byte _consumed on
        self._consumed = 0
        self._count = _Count()

    def feed(self, raw: bytes) -> list[Block]:
        """Raises DataError once the stream makes no sense any more; what came before it has been given out."""
        return self._advance(raw, at_end=False)

    def finish(self) -> list[Block]:
        """The samples held back until now; the stream has ended."""
        return self._advance(b"", at_end=True)

    def state(self) -> dict[str, Any]:
        return {"pending": self._pending.hex(), "consumed": self._consumed, "count": asdict(self._count)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._pending = bytes.fromhex(state["pending"])
        self._consumed = state["consumed"]
        self._count = _Count(**state["count"])

    def _advance(self, raw: bytes, *, at_end: bool) -> list[Block]:
        data = self._pending + raw
        blocks: list[Block] = []
        items: list[_Item] = []  # of the span that is open
        at = settled = 0
        while not self._count.ended and (item := self._scan(data, at)) is not None:
            at = item.end
            if isinstance(item, _Stamp):
                blocks += self._settle(items, self._expected(items, item))
                self._count.milliseconds = item.milliseconds
                items, settled = [], at
            elif isinstance(item, _Nothing) and item.last:
                blocks += self._settle(items, None)
                self._count.ended = True
            else:
                items.append(item)
        if self._count.ended:
            settled = len(data)
        else:
            damaged = next((k for k, item in enumerate(items) if isinstance(item, _Damage)), len(items))
            garbage = sum(item.size for item in items[damaged:] if isinstance(item, _Damage)) + len(data) - at
            if at_end:
                blocks += self._settle(items, None)
                blocks += self._given_up([item for item in items if item.end > (blocks[-1].consumed if blocks else 0)])
                settled = at
            elif damaged and (not self._held or garbage > GARBAGE_BYTES):
                blocks += self._settle(items[:damaged], None)
                settled = items[damaged - 1].end
            if garbage > GARBAGE_BYTES and not blocks:
                raise DataError(
                    f"{garbage} bytes of the LPM01A's stream, from byte {self._consumed + settled} on, do not look "
                    "like its samples.",
                    "What came before is kept. Unplug the meter and plug it in again, without a hub; then record anew.",
                )
        whole = [replace(block, consumed=self._consumed + block.consumed) for block in blocks]
        self._pending, self._consumed = data[settled:], self._consumed + settled
        return whole

    def _scan(self, data: bytes, at: int) -> _Item | None:
        if self._ascii:
            return _scan_ascii(data, at)
        if self._count.milliseconds is None:
            # What precedes the first time stamp is the rest of a reply.
            match = wire.TIME_RECORD.search(data, at)
            return None if match is None else _stamp(match)
        return _scan_binary(data, at)

    def _expected(self, items: Sequence[_Item], stamp: _Stamp) -> int:
        """How many samples lie between the last time stamp (the beginning) and this one."""
        count = self._count
        came = count.seen + sum(len(item.values) for item in items if isinstance(item, _Run))
        clean = not any(isinstance(item, _Damage) for item in items)
        if not came and clean and count.milliseconds is None:
            return 0  # the stamp of the first sample
        elapsed = stamp.milliseconds - (count.milliseconds or 0)
        if elapsed < 0:
            elapsed += SHOWN_MS if self._ascii else wire.TIME_BITS + 1
        per_stamp_ms = wire.STAMP_SAMPLES * 1e3 / self._rate_hz
        stamps, rest = divmod(came, wire.STAMP_SAMPLES)
        if clean and stamps and not rest and abs(elapsed - stamps * per_stamp_ms) <= per_stamp_ms / 2 + STAMP_JITTER_MS:
            return came
        return max(1, round(elapsed / per_stamp_ms)) * wire.STAMP_SAMPLES

    def _settle(self, items: Sequence[_Item], expected: int | None) -> list[Block]:
        """Blocks of the runs that can be placed in this span, or in its part so far if `expected` is None."""
        count = self._count
        places, follow = self._place(items, expected)
        falls, vague = self._falls(items, places)
        blocks = []
        runs = (item for item in items if isinstance(item, _Run))
        for run, index in zip(runs, places, strict=True):
            if index is None:
                continue
            size = len(run.values)
            data: dict[str, Array] = {self._channel: run.values * self._scale}
            status = None
            if self._ascii:
                data["digital"] = np.ones(size, np.uint8)
                data["digital"][[fall - index for fall in falls if index <= fall < index + size]] = 0
            if unsure := [fall - index for fall in vague if index <= fall < index + size]:
                status = np.zeros(size, np.uint8)
                status[unsure] = np.uint8(Status.INVALID)
                data[self._channel][unsure] = np.nan
            lost = index - count.following
            blocks.append(Block(first_index=index, data=data, lost_before=lost, status=status, consumed=run.end))
            count.following = index + size
        if expected is None:
            count.seen = follow - count.base
        else:
            # Lines that came in between and look like samples must not make an index come twice.
            count.base, count.seen = max(follow, count.following), 0
        return blocks

    def _given_up(self, items: Sequence[_Item]) -> list[Block]:
        """What could not be placed at the end of a stream, as a hole with one invalid sample behind it."""
        count = self._count
        lost = sum(len(item.values) for item in items if isinstance(item, _Run))
        lost += sum(item.samples for item in items if isinstance(item, _Damage))
        if not lost:
            return []
        data: dict[str, Array] = {self._channel: np.full(1, np.nan)}
        if self._ascii:
            data["digital"] = np.ones(1, np.uint8)
        index, status = count.following + lost - 1, np.full(1, Status.INVALID, np.uint8)
        count.following = index + 1
        return [Block(first_index=index, data=data, lost_before=lost - 1, status=status, consumed=items[-1].end)]

    def _place(self, items: Sequence[_Item], expected: int | None) -> _Places:
        """See the head of this file."""
        count = self._count
        at = count.base + count.seen
        lengths = [len(item.values) for item in items if isinstance(item, _Run)]
        damages = [item for item in items if isinstance(item, _Damage)]
        if expected is None:
            return _in_order(items, at, until_lost=True)
        missing = expected - count.seen - sum(lengths)
        follow = count.base + expected
        if missing == 0:  # none is lost, even if something came in between
            return _in_row(at, lengths), follow
        sure = len(damages) < 2 or all(damage.sure for damage in damages)
        if self._ascii and sure and missing == sum(damage.samples for damage in damages):
            return _in_order(items, at)
        return [None] * len(lengths), follow

    def _falls(self, items: Sequence[_Item], places: Sequence[int | None]) -> tuple[list[int], list[int]]:
        """Indices of the samples at which D7 fell, in order; and those of them that stand for an edge within a hole."""
        count = self._count
        falls: list[int] = []
        vague: list[int] = []
        runs = iter(places)
        stretch = reached = count.following  # where the samples without a hole began, and where they end
        for item, hidden in zip(items, self._hidden(items), strict=True):
            for _ in range(hidden):
                self._fall(None)
            if isinstance(item, _Event):
                self._fall(item.number)
            if not isinstance(item, _Run) or (index := next(runs)) is None:
                continue
            stop, hole = index + len(item.values), index - reached
            stretch = index if hole else stretch
            # A line that is low from the first sample on has not been seen to fall.
            at = max(index, 1, count.last_fall + 2)
            if count.fell and at < stop:
                # Those lost before it stand before it where there is room, else behind it.
                for back in range(2 * count.missed, 0, -2):
                    if at - back >= max(stretch + 1, count.last_fall + 2):
                        falls.append(at - back)
                        count.last_fall, count.missed = at - back, count.missed - 1
                count.fell, count.missed = count.fell + count.missed % 2, 0
            while count.fell and at < stop:
                falls.append(at)
                if hole > SMALL_HOLE:
                    vague.append(at)
                count.last_fall, count.fell = at, count.fell - 1
                at += 2
            reached = stop
        return falls, vague

    def _hidden(self, items: Sequence[_Item]) -> list[int]:
        """How many edges each item holds that cannot be read: damage that looks so, or that an event's number tells."""
        hidden = [int(isinstance(item, _Damage) and item.event) for item in items]
        event, since = self._count.event, list[int]()  # damages without an edge since the last event
        for k, item in enumerate(items):
            if isinstance(item, _Damage):
                since += [] if hidden[k] else [k]
                event = event if event is None else event + hidden[k]
            elif isinstance(item, _Event):
                missed = 0 if event is None else (item.number - event - 1) % wire.EVENT_MODULO
                if missed <= MAX_MISSED:
                    for which in since[-missed:] if missed else []:
                        hidden[which] += 1
                event, since = item.number, []
        return hidden

    def _fall(self, number: int | None) -> None:
        """An edge was reported, with its number if that could be read."""
        count = self._count
        follows = None if count.event is None else (count.event + 1) % wire.EVENT_MODULO
        if number is not None and follows is not None:
            missed = (number - follows) % wire.EVENT_MODULO
            count.missed = missed if missed <= MAX_MISSED else 0
        count.event = follows if number is None else number
        # There is no room for more than two beside one sample; pairs must stay pairs.
        count.fell = count.fell + 1 if count.fell < 2 else 1


def _in_row(at: int, lengths: Sequence[int]) -> list[int | None]:
    return [int(at + before) for before in np.cumsum([0, *lengths[:-1]])] if lengths else []


def _in_order(items: Sequence[_Item], at: int, *, until_lost: bool = False) -> _Places:
    """Each damage takes the place of its samples. `until_lost`: give up from where bytes seem to be missing."""
    places: list[int | None] = []
    certain = True
    for item in items:
        if isinstance(item, _Run):
            places.append(at if certain else None)
            at += len(item.values) if certain else 0
        elif isinstance(item, _Damage):
            certain = certain and (item.whole or not until_lost)
            at += item.samples if certain else 0
    return places, at


def _scan_ascii(data: bytes, at: int) -> _Item | None:
    """What begins at `at`, None if its line is not complete."""
    begin = at
    while begin < len(data) and data[begin] == 0:
        begin += 1
    if run := wire.RUN.match(data, begin):
        return _Run(values=wire.decimals(data, begin, run.end()), end=run.end())
    end = data.find(b"\n", begin) + 1
    if not end:
        return None
    line = data[begin:end].strip(b"\0\r\n ")
    if match := wire.STAMP.fullmatch(line):
        return _Stamp(milliseconds=int(match[1]) * 1000 + int(match[2]), end=end)
    if match := wire.EVENT.fullmatch(line):
        return _Event(number=int(match[1]) % wire.EVENT_MODULO, end=end)
    if not line or wire.NOTICE.fullmatch(line):
        return _Nothing(end=end)
    if line == b"end" or line.startswith(b"summary"):
        return _Nothing(end=end, last=True)
    size = end - begin
    samples = wire.samples_in(data[begin:end])
    whole = size == wire.SAMPLE_BYTES[wire.ASCII] * samples
    # Bytes that belong to no sample may be what remains of an event or a stamp.
    sure = size == wire.SAMPLE_BYTES[wire.ASCII] or wire.REMAINS.fullmatch(line) is not None
    return _Damage(samples=samples, sure=sure, whole=whole, event=wire.holds_event(line), size=size, end=end)


def _scan_binary(data: bytes, at: int) -> _Item | None:
    """What begins at `at`, where a sample or a record must begin; None if it is not complete."""
    words = wire.words(data, at, SCANNED_WORDS)
    tags = words >= wire.FIRST_TAG
    until = int(tags.argmax()) if tags.any() else len(words)
    if until:
        return _Run(values=wire.hexadecimals(words[:until]), end=at + 2 * until)
    if not len(words):
        return None
    if match := wire.TIME_RECORD.match(data, at):
        return _stamp(match)
    if match := wire.TEXT.match(data, at):
        return _Nothing(end=match.end())
    kind = data[at + 1]
    size = wire.RECORD_BYTES.get(kind, 0)
    if data[at] == wire.TAG and size > len(data) - at:
        return None
    if data[at] == wire.TAG and size and kind != wire.TIME and data[at + size - 2 : at + size] == wire.RECORD_END:
        return _Nothing(end=at + size, last=kind == wire.END)
    if data[at] == wire.TAG and kind in (wire.ERROR, wire.INFORMATION) and len(data) - at < wire.MAX_TEXT_BYTES:
        return None
    # After an odd number of lost bytes the tag stands one byte earlier, in what looked like a sample.
    match = wire.TIME_RECORD.search(data, max(at - 1, 0))
    end = match.start() if match else max(at + 1, len(data) - wire.RECORD_BYTES[wire.TIME])
    return _Damage(samples=max(end - at, 0) // 2, sure=False, whole=False, event=False, size=max(end - at, 0), end=end)


def _stamp(match: re.Match[bytes]) -> _Stamp:
    return _Stamp(milliseconds=int.from_bytes(match[1], "big") & wire.TIME_BITS, end=match.end())
