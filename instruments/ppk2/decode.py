"""Bytes to samples: whole words, holes where the counter jumps, and never a sample from bytes read at a wrong offset.

Samples come out a few words late: a word is believed once HELD more have followed it, because the first words behind
a lost or a stray byte may follow by chance. Bytes without order for longer than align.GARBAGE_BYTES are an error.

The filter's averages and its range run on through a hole, as in the maker's application: the first samples behind it
are marked ALTERED if the range is another one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from joulemeter.capture import Block, Header
from joulemeter.errors import DataError, UsageError

from . import align, convert, wire

HELD = 3


def wanted_kernel() -> str:
    """numba costs about a second at start, so it is used only where asked for."""
    return "numba" if os.environ.get("JOULEMETER_FAST") == "1" else "numpy"


class Ppk2Decoder:
    def __init__(self, header: Header, kernel: str | None = None) -> None:
        """`kernel` is numpy or numba; both give the same bits. Raises UsageError, MissingExtraError."""
        if header.wire != wire.FORMAT:
            raise UsageError(
                f"This stream is {header.wire}, not {wire.FORMAT}.", "Use the version of JouleMeter that recorded it."
            )
        parameters = header.parameters
        table_a = wire.Calibration(constants=parameters["calibration"]).current_table_a(parameters["volts"])
        filtered = parameters["filter"] == "nordic"
        self._converter: Any
        if (kernel or wanted_kernel()) == "numba":
            from . import fast

            self._following = fast.following
            self._converter = fast.NumbaConverter(table_a, filtered=filtered)
        else:
            self._following = align.following
            self._converter = convert.NumpyConverter(table_a, filtered=filtered)
        self._pending = b""  # bytes not yet turned into samples, from stream byte _consumed on
        self._consumed = 0
        self._expected: int | None = None  # counter of the first pending word
        self._index = 0  # of the next sample
        self._lost = 0  # before that sample

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
            "expected": self._expected,
            "index": self._index,
            "lost": self._lost,
            "filter": self._converter.state.to_json(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self._pending = bytes.fromhex(state["pending"])
        self._consumed = state["consumed"]
        self._expected = state["expected"]
        self._index = state["index"]
        self._lost = state["lost"]
        self._converter.state = convert.FilterState.from_json(state["filter"])

    def _advance(self, raw: bytes, *, at_end: bool) -> list[Block]:
        data = self._pending + raw
        blocks: list[Block] = []
        at = disordered = 0
        while True:
            count = min((len(data) - at) // wire.WORD_BYTES, align.PIECE_WORDS)
            words = align.words_at(data, at, count)
            good = 0 if self._expected is None else self._following(words, self._expected)
            if self._expected is not None and good == count:
                last = count < align.PIECE_WORDS
                kept = count if last and at_end else max(count - HELD, 0)
                at = self._emit(words[:kept], at, blocks)
                if last:
                    break
                continue
            broken_at = at + wire.WORD_BYTES * good
            skipped = align.find(data, broken_at, at_end=at_end)
            # A jump of the counter without any shift is a plain loss: the words before it are as good as ever.
            kept = good if skipped == 0 else max(good - HELD, 0)
            at = self._emit(words[:kept], at, blocks)
            if skipped is None:
                disordered = len(data) - broken_at
                break
            if skipped:
                # Only the counter's byte vouches for the first word; the two before that may still be strangers.
                skipped += wire.WORD_BYTES
            at = broken_at + skipped
            self._lose(good - kept, skipped, align.counter(int(align.words_at(data, at, 1)[0])))
        self._pending, self._consumed = data[at:], self._consumed + at
        if disordered > align.GARBAGE_BYTES + align.UNDECIDED_BYTES and not blocks:
            raise DataError(
                f"{disordered} bytes of the PPK2's stream, from byte {self._consumed} on, do not look like its words.",
                "What came before is kept. Unplug the meter and plug it in again, without a hub; then record anew.",
            )
        return blocks

    def _emit(self, words: align.Words, at: int, blocks: list[Block]) -> int:
        """A block of these words, which stand at `at`; where they end."""
        end = at + wire.WORD_BYTES * len(words)
        if len(words):
            data, status = self._converter.convert(words)
            blocks.append(
                Block(
                    first_index=self._index,
                    data=data,
                    lost_before=self._lost,
                    status=status,
                    consumed=self._consumed + end,
                )
            )
            self._index += len(words)
            self._lost = 0
            self._expected = align.counter(int(words[-1])) + 1 & wire.COUNTER_MODULO - 1
        return end

    def _lose(self, taken_back: int, skipped: int, counter: int) -> None:
        """Go on at a word with `counter`, after `taken_back` words that no longer count and `skipped` bytes."""
        room = skipped / wire.WORD_BYTES
        if self._expected is None:
            lost = int(room)
        else:
            lost = (counter - self._expected - taken_back) % wire.COUNTER_MODULO
            # The counter leaves multiples of 64 open. Bytes that came were words once: as many as there is room for.
            lost += taken_back + max(0, int(room + 1 - lost) // wire.COUNTER_MODULO * wire.COUNTER_MODULO)
        self._expected = counter
        self._index += lost
        self._lost += lost
