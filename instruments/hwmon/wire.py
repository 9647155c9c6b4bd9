"""The lines between this host and the agent on a board, as a meter uses them. Pure functions and tables.

Requests are JSON objects on a line each, or one of the words `ping` and `stop`. `hello` and `files` are answered by one
line. After `poll` the agent sends `{"polling":{"first_ns":DUE}}`, when slot 0 is due, and then a line per round,
`{"poll":[SLOT,[[BEFORE,AFTER,TEXT,FAILURE],...],SLOT]}`, one entry for each file: the board's clock in nanoseconds
before and after it was read, what it held, and the name of the error where it could not be read. SLOT counts the
intervals; a round that is a whole interval late takes the slot in which it happens, so that skipped slots show. It
stands at both ends, so that halves of two lines show as well. All lines of a stream have one width, filled up with
blanks: a round is a word of fixed size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FORMAT = "agent-poll/1"

PING = b"ping\n"
STOP = b"stop\n"

# Two slots and the brackets; then per file two stamps of up to 19 digits, a number and the name of an error.
ROUND_BYTES = 40
FILE_BYTES = 88


def request(operation: str, **fields: Any) -> bytes:
    return json.dumps({"op": operation, **fields}).encode() + b"\n"


def width(files: int) -> int:
    """Bytes of a round of so many files, the line end included."""
    return ROUND_BYTES + FILE_BYTES * files


def answer(line: bytes) -> dict[str, Any] | None:
    """The object on a line, None if there is none."""
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What one file held between two readings of the board's clock; `text` is None where the reading failed."""

    before_ns: int
    after_ns: int
    text: str | None
    failure: str | None

    @property
    def number(self) -> int | None:
        """sysfs holds integers; None for anything else."""
        try:
            return int(self.text) if self.text is not None else None
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    slot: int
    reads: tuple[Read, ...]


def parse_round(line: bytes, files: int) -> Round | None:
    """A line without its end as a round of so many files, None if it is anything else."""
    if len(line) + 1 != width(files):
        return None
    fields = answer(line)
    match fields:
        case {"poll": [int(slot), [*entries], int(again)]} if len(entries) == files and 0 <= slot == again:
            reads = [_read(entry) for entry in entries]
            return None if None in reads else Round(slot=slot, reads=tuple(read for read in reads if read))
    return None


def _read(entry: Any) -> Read | None:
    match entry:
        case [int(before), int(after), str() | None as text, str() | None as failure] if before <= after and (
            text is None
        ) != (failure is None):
            return Read(before_ns=before, after_ns=after, text=text, failure=failure)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the answer to `files` holds: texts of files, real paths of folders, failures by name."""

    texts: Mapping[str, str]
    failures: Mapping[str, str]


def parse_files(ok: Mapping[str, Any]) -> Files:
    """Raises KeyError, TypeError, ValueError for an answer of another shape."""
    rows: Sequence[Sequence[Any]] = ok["files"]
    texts = {str(path): str(text) for path, text, _ in rows if text is not None}
    return Files(texts=texts, failures={str(path): str(failure) for path, text, failure in rows if text is None})
