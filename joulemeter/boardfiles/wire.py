"""The lines between this host and the agent on a board, as a meter uses them. Pure functions and tables.

Requests are JSON objects on a line each, or one of the words `ping` and `stop`. `hello` and `files` are answered by one
line. After `poll` the agent sends `{"polling":{"first_ns":DUE}}`, when slot 0 is due, and then a line per round,
`{"poll":[SLOT,[[BEFORE,AFTER,TEXT,FAILURE],...],SLOT]}`, one entry for each source: the board's clock in nanoseconds
before and after it was read, what it held, and the name of the error where it could not be read. SLOT counts the
intervals; a round that is a whole interval late takes the slot in which it happens, so that skipped slots show. It
stands at both ends, so that halves of two lines show as well. All lines of a stream have one width, filled up with
blanks: a round is a word of fixed size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

FORMAT = "agent-poll/2"

PING = b"ping\n"
STOP = b"stop\n"

# Two slots and the brackets.
ROUND_BYTES = 40


class Kind(StrEnum):
    """What is read again and again."""

    NUMBER = "number"  # a file that holds an integer
    TEXT = "text"  # a file that holds a word
    OUTPUT = "output"  # what a command prints


# What it holds (the agent's limits), two stamps of up to 19 digits, and the name of an error.
SOURCE_BYTES = {Kind.NUMBER: 88, Kind.TEXT: 130, Kind.OUTPUT: 2066}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """`path` is that of a file; `argv` in its place a command, never seen by a shell."""

    kind: Kind = Kind.NUMBER
    path: str = ""
    argv: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.path or " ".join(self.argv)

    @property
    def asked(self) -> list[Any]:
        """As `poll` wants it."""
        return [str(self.kind), self.path or list(self.argv)]


def request(operation: str, **fields: Any) -> bytes:
    return json.dumps({"op": operation, **fields}).encode() + b"\n"


def width(sources: Sequence[Source]) -> int:
    """Bytes of a round of these, the line end included."""
    return ROUND_BYTES + sum(SOURCE_BYTES[source.kind] for source in sources)


def answer(line: bytes) -> dict[str, Any] | None:
    """The object on a line, None if there is none."""
    try:
        read = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def number(text: str | None) -> int | None:
    """sysfs holds integers; None for anything else."""
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What a source held between two readings of the board's clock; `text` is None where the reading failed."""

    before_ns: int
    after_ns: int
    text: str | None
    failure: str | None

    @property
    def number(self) -> int | None:
        return number(self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    slot: int
    reads: tuple[Read, ...]

    @property
    def middle_ns(self) -> int:
        """Of the time that reading it took, by the board's clock."""
        return (self.reads[0].before_ns + self.reads[-1].after_ns) // 2


def parse_round(line: bytes, sources: int, size: int) -> Round | None:
    """A line without its end as a round of so many sources and `size` bytes, None if it is anything else."""
    if len(line) + 1 != size:
        return None
    match answer(line):
        case {"poll": [int(slot), [*entries], int(again)]} if len(entries) == sources and 0 <= slot == again:
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
class Output:
    """What a command printed; `code` is None where it could not be run, and `said` then the name of the error."""

    code: int | None
    text: str
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the answer to `files` holds: texts of files, real paths of folders, failures by name, and outputs."""

    texts: Mapping[str, str]
    failures: Mapping[str, str]
    outputs: Sequence[Output] = field(default_factory=tuple)

    def has(self, path: str) -> bool:
        """Whether there is such a file, readable or not."""
        return path in self.texts or path in self.failures

    def number(self, path: str) -> int | None:
        return number(self.texts.get(path))


def parse_files(ok: Mapping[str, Any]) -> Files:
    """Raises KeyError, TypeError, ValueError for an answer of another shape."""
    rows: Sequence[Sequence[Any]] = ok["files"]
    return Files(
        texts={str(path): str(text) for path, text, _ in rows if text is not None},
        failures={str(path): str(failure) for path, text, failure in rows if text is None},
        outputs=tuple(
            Output(code=None if code is None else int(code), text=str(text), said=str(said))
            for code, text, said in ok.get("outputs", ())
        ),
    )
