"""What instruments that speak SCPI or another IEEE 488.2 dialect have in common.

Pure functions for identities, numbers, errors and the headers of data blocks, and `Scpi`: questions and answers on a
session (joulemeter.transport.visa), with one retry after a device clear and errors that say what happened.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from joulemeter.errors import AccessError, DataError, IncompleteError, NotFoundError, UsageError
from joulemeter.transport.visa_wires import DRAIN_S, Session

TIMEOUT_S = 5.0
# Where a block may begin: `C1:WF ALL,` of a LeCroy is ten bytes.
PREFIX_BYTES = 64
# More than the longest tail of a block (two line feeds), so that a read never ends exactly where the reply does.
SLACK_BYTES = 16
# How long the line feed after a block on a raw socket is waited for; some instruments send none.
TAIL_S = 0.05
_PIECE_BYTES = 1 << 20
_POLL_S = (0.002, 0.1)
_MESSAGE_AVAILABLE = 0x10
_EMPTY = b" \t\r\n"
_WRONG_INTERFACE = re.compile(rb"CURRENT REMOTE CONTROL INTERFACE IS (\w+)")
# What to use instead, by the name that the oscilloscope has for it.
_INTERFACES = {"TCPIP": "Use vicp:HOST. Or: ", "LXI": "Use TCPIP::HOST::INSTR. Or: "}

Bytes = NDArray[np.uint8]
Progress = Callable[[int, int], None]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The answer to *IDN?. A serial number or firmware that the instrument does not tell is None."""

    maker: str
    model: str
    serial: str | None = None
    firmware: str | None = None


def parse_identity(text: str) -> Identity | None:
    """IEEE 488.2, 10.14: four fields with commas between, 0 for what is unknown; None if it is something else."""
    fields = [field.strip().strip('"') for field in text.strip().removeprefix("*IDN ").split(",", 3)]
    if len(fields) < 2 or not fields[0] or not fields[1] or not fields[0].isprintable():
        return None
    serial, firmware = (field if field not in ("", "0") else None for field in (*fields[2:], "", "")[:2])
    return Identity(maker=fields[0], model=fields[1], serial=serial, firmware=firmware)


def number(text: str) -> float | None:
    """A decimal number; None for 9.91E37, which is how SCPI says not-a-number, and infinity for +-9.9E37 and more.

    SCPI-99, volume 1, 7.2.1. Raises DataError.
    """
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(f"{text.strip()!r} is not a number.", "Check the query and whether headers are on.") from error
    if math.isnan(value) or math.isclose(value, 9.91e37, rel_tol=1e-6):
        return None
    return math.copysign(math.inf, value) if abs(value) >= 9.9e37 * (1 - 1e-6) else value


def numbers(text: str) -> list[float | None]:
    """Numbers with commas between them. Raises DataError."""
    return [number(field) for field in text.split(",")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """An entry of the instrument's error queue, such as -113, "Undefined header"."""

    code: int
    text: str


def parse_complaint(text: str) -> Complaint | None:
    """The answer to SYSTem:ERRor?; None for 0, no error. Raises DataError."""
    match = re.fullmatch(r'\s*([+-]?\d+)\s*(?:,\s*"?(.*?)"?)?\s*', text, re.DOTALL)
    if match is None:
        raise DataError(f"{text.strip()!r} is not an entry of an error queue.", "Check the instrument's dialect.")
    code = int(match[1])
    return Complaint(code=code, text=match[2] or "") if code else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """`start` is the offset of the payload; `length` its bytes, None for the indefinite form #0."""

    start: int
    length: int | None


def block_header(head: bytes) -> BlockHeader | None:
    """The header of arbitrary block data at the beginning of a reply; None as long as it is not all there.

    Definite `#<n><n digits>`, indefinite `#0` (IEEE 488.2, 8.7.9 and 8.7.10) and `#(<digits>)`, which Rohde & Schwarz
    use above 1 GB. Up to PREFIX_BYTES of text may stand before it. Raises DataError for anything else.
    """
    blank = len(head) - len(head.lstrip(_EMPTY))
    mark = head.find(b"#", 0, PREFIX_BYTES + blank)
    if mark < 0 or b"\n" in head[blank:mark]:
        if b"\n" in head[blank:] or len(head) >= PREFIX_BYTES + blank:
            raise _no_block(head)
        return None
    if len(head) < mark + 2:
        return None
    kind = head[mark + 1 : mark + 2]
    if kind == b"0":
        return BlockHeader(start=mark + 2, length=None)
    if kind == b"(":
        digits, bracket, _ = head[mark + 2 : mark + 34].partition(b")")
        if not bracket and len(head) < mark + 34:
            return None
        start = mark + 3 + len(digits)
    elif kind.isdigit():
        start = mark + 2 + int(kind)
        digits = head[mark + 2 : start]
        if len(head) < start:
            return None
    else:
        raise _no_block(head)
    if not digits.isdigit():
        raise _no_block(head)
    return BlockHeader(start=start, length=int(digits))


def _no_block(head: bytes) -> DataError:
    shown = head.strip(_EMPTY)[:PREFIX_BYTES].decode("latin-1")
    return DataError(f"The instrument answered {shown!r} instead of a data block.", "See its error queue.")


class CutShortError(IncompleteError):
    """A block that broke off. `data` holds the bytes that arrived, (n,) uint8; `expected` how many were announced."""

    def __init__(self, what: str, remedy: str, data: Bytes, expected: int) -> None:
        super().__init__(what, remedy)
        self.data = data
        self.expected = expected


class SilentError(IncompleteError):
    """The instrument did not answer, or not to the end."""


class Scpi:
    """Questions and answers on a session, which it closes. Commands are joined by semicolons into one message.

    Within one message a SCPI command begins with a colon (or an asterisk), or it would be looked for below the one
    before. `timeout_s` is how long an answer may take to begin, or to go on. `retries` is how often a question without
    a usable answer is asked again after a device clear; 0 for questions that change something.
    """

    def __init__(self, session: Session, *, timeout_s: float | None = None, retries: int = 1) -> None:
        self.session = session
        self.timeout_s = TIMEOUT_S if timeout_s is None else timeout_s
        self.retries = retries
        # Told of the blocks whose caller asks for nothing else.
        self.progress: Progress | None = None
        # True between a question and the end of its answer: what comes next may be the old answer.
        self._owed = False

    @property
    def address(self) -> str:
        return self.session.address

    def write(self, *commands: str) -> None:
        """Raises IncompleteError."""
        if self._owed:
            self.recover()
        self.session.discard()
        self.session.write(_message(commands))

    def ask(self, *commands: str, timeout_s: float | None = None, retries: int | None = None) -> str:
        """The answer to the last command, without its line end.

        Raises SilentError, IncompleteError, AccessError when the instrument is set to another interface.
        """
        return self._again(commands, retries, lambda: self._line(commands[-1], timeout_s or self.timeout_s))

    def ask_number(self, *commands: str) -> float | None:
        """As `number`. Raises also DataError."""
        return number(self.ask(*commands))

    def ask_block(
        self,
        *commands: str,
        dtype: DTypeLike = np.uint8,
        length: int | None = None,
        progress: Progress | None = None,
        timeout_s: float | None = None,
        retries: int | None = None,
    ) -> NDArray[Any]:
        """The payload of a data block, (bytes / itemsize,) `dtype`, whatever bytes are in it.

        `length` is the true number of bytes where the header cannot be trusted or has none (#0 on a raw socket).
        `progress` is told bytes so far and in all; what it raises ends the transfer, and the session stays usable.
        Raises CutShortError with what had arrived, DataError when there is no block or its length is wrong,
        SilentError, IncompleteError, AccessError.
        """
        limit_s = timeout_s or self.timeout_s
        told = progress or self.progress
        payload = self._again(commands, retries, lambda: self._block(commands[-1], limit_s, length, told))
        kind = np.dtype(dtype)
        if len(payload) % kind.itemsize:
            raise DataError(
                f"{commands[-1]} gave {len(payload)} bytes, which are not whole samples of {kind.itemsize} bytes.",
                "Check the format that the instrument is set to.",
            )
        return payload.view(kind)

    def identify(self, fits: Callable[[Identity], bool] = lambda identity: True) -> Identity:
        """Who it is, whether or not it `fits`. Raises NotFoundError when nobody answers, or no SCPI instrument.

        What a client before this one asked for and did not read may come first: an answer that does not fit is asked
        for again after a device clear.
        """
        try:
            text = self.ask("*IDN?")
            identity = parse_identity(text)
            if identity is None or not fits(identity):
                self.recover()
                text = self.ask("*IDN?")
                identity = parse_identity(text)
        except SilentError as error:
            raise NotFoundError(
                f"What is at {self.address} does not answer *IDN?.",
                "Check the address and the port, and that remote control is on.",
            ) from error
        if identity is None:
            raise NotFoundError(
                f"What is at {self.address} answers *IDN? with {text[:80]!r}.",
                "That is no SCPI instrument, or its terminal port: use the raw socket port.",
            )
        return identity

    def errors(self, query: str = ":SYST:ERR?", most: int = 32) -> list[Complaint]:
        """The instrument's error queue, which is empty afterwards."""
        found = []
        for _ in range(most):
            complaint = parse_complaint(self.ask(query))
            if complaint is None:
                break
            found.append(complaint)
        return found

    def command(self, *commands: str, query: str = ":SYST:ERR?") -> None:
        """Commands that the instrument must accept. Raises UsageError with its own words if it does not."""
        self.write(*commands)
        complaints = self.errors(query)
        if complaints:
            said = "; ".join(f"{one.code} {one.text}".strip() for one in complaints)
            raise UsageError(
                f"The instrument at {self.address} refuses {';'.join(commands)}: {said}.",
                "Choose a setting that it has.",
            )

    def wait(
        self,
        query: str,
        done: Callable[[str], bool],
        limit_s: float,
        awaited: str,
        stopped: Callable[[], bool] = lambda: False,
    ) -> str:
        """Asks until the answer is `done`, and gives that answer. Raises IncompleteError after `limit_s`.

        `awaited` is what the message says did not come, such as "trigger".
        """
        deadline = time.monotonic() + limit_s
        pause_s, longest_s = _POLL_S
        while True:
            # A register that reading clears must not be asked twice.
            reply = self.ask(query, retries=0)
            if done(reply):
                return reply
            if stopped():
                raise IncompleteError(f"Stopped while waiting for the {awaited}.", "What had arrived is kept.")
            if time.monotonic() >= deadline:
                raise IncompleteError(
                    f"No {awaited} came within {limit_s:g} s at {self.address} ({query} says {reply!r}).",
                    "Check wiring, level and slope, or allow more time.",
                )
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, longest_s)

    def wait_complete(self, limit_s: float, awaited: str = "end of the operation") -> None:
        """Waits until all commands sent have been carried out, by *OPC and the event register, which blocks nothing.

        IEEE 488.2, 12.5.2. The event register is cleared. Raises IncompleteError.
        """
        self.ask("*ESR?")
        self.write("*OPC")
        self.wait("*ESR?", lambda reply: bool(int(number(reply) or 0) & 1), limit_s, awaited)

    def recover(self) -> None:
        """Device clear, then whatever is still on its way is thrown away. Raises IncompleteError."""
        self._owed = False
        self.session.clear()
        if not self.session.ends:
            self.session.discard()
            return
        # Reading where nothing is to be said would be an error of its own (-420): only what is announced is read.
        scratch = memoryview(bytearray(_PIECE_BYTES))
        deadline = time.monotonic() + DRAIN_S
        while (self.session.status_byte() or 0) & _MESSAGE_AVAILABLE and time.monotonic() < deadline:
            if self.session.read_into(scratch, 0.1) == (0, False):
                return

    def close(self) -> None:
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def _again(self, commands: tuple[str, ...], retries: int | None, answer: Callable[[], _Answer]) -> _Answer:
        left = self.retries if retries is None else retries
        while True:
            self.write(*commands)
            self._owed = True
            try:
                given = answer()
            except (SilentError, CutShortError, DataError):
                if not left:
                    raise
                left -= 1
                self.recover()
            else:
                self._owed = False
                return given

    def _line(self, query: str, timeout_s: float) -> str:
        got = bytearray()
        scratch = memoryview(bytearray(4099))
        deadline = time.monotonic() + timeout_s
        while True:
            count, end = self.session.read_into(scratch, deadline - time.monotonic())
            got += scratch[:count]
            if self.session.ends:
                if end:
                    break
            else:
                # No answer begins with a line feed: it is the rest of the one before.
                del got[: len(got) - len(got.lstrip(_EMPTY))]
                if b"\n" in got:
                    del got[got.index(b"\n") :]
                    break
            if time.monotonic() >= deadline or not count:
                raise self._silent(query, timeout_s, bytes(got))
        self._interface(got)
        return got.decode("latin-1").strip()

    def _block(self, query: str, timeout_s: float, length: int | None, progress: Progress | None) -> Bytes:
        head, header, end = self._head(query, timeout_s)
        expected = header.length if length is None else length
        if expected is None and not self.session.ends:
            raise DataError(
                f"{query} gave a block without a length, whose end cannot be seen on a raw socket.",
                "Reach the instrument by VXI-11 or USB.",
            )
        begun = head[header.start :]
        if expected is None:
            return self._indefinite(query, timeout_s, begun, end, progress)
        # Room for the tail as well: whatever the wire, the last read then asks for more than is left.
        room: Bytes = np.empty(max(expected, len(begun)) + SLACK_BYTES, np.uint8)
        view = memoryview(room)  # type: ignore[arg-type]
        done = len(begun)
        view[:done] = begun
        while done < expected and not end:
            left = expected - done
            piece = left + SLACK_BYTES if left <= _PIECE_BYTES else _PIECE_BYTES
            try:
                count, end = self.session.read_into(view[done : done + piece], timeout_s)
            except IncompleteError as error:
                raise self._cut(query, room[: min(done, expected)], expected, error.what) from error
            if not count and not end:
                why = f"{self.address} fell silent for {timeout_s:g} s."
                raise self._cut(query, room[: min(done, expected)], expected, why)
            done += count
            if progress is not None:
                progress(min(done, expected), expected)
        if done < expected:
            raise self._cut(query, room[:done], expected, f"{self.address} ended its reply early.")
        self._tail(query, expected, bytes(room[expected:done]), end)
        return room[:expected]

    def _head(self, query: str, timeout_s: float) -> tuple[bytes, BlockHeader, bool]:
        """What was read until the header was complete. Raises SilentError, DataError, AccessError."""
        got = bytearray()
        # Little, so that hardly any payload is copied twice.
        scratch = memoryview(bytearray(PREFIX_BYTES))
        deadline = time.monotonic() + timeout_s
        while True:
            count, end = self.session.read_into(scratch, deadline - time.monotonic())
            got += scratch[:count]
            self._interface(got)
            header = block_header(bytes(got))
            if header is not None:
                return bytes(got), header, end
            if end:
                raise _no_block(bytes(got))
            if not count or time.monotonic() >= deadline:
                raise self._silent(query, timeout_s, bytes(got))

    def _indefinite(self, query: str, timeout_s: float, begun: bytes, end: bool, progress: Progress | None) -> Bytes:
        got = bytearray(begun)
        scratch = memoryview(bytearray(_PIECE_BYTES))
        while not end:
            try:
                count, end = self.session.read_into(scratch, timeout_s)
            except IncompleteError as error:
                raise self._cut(query, np.frombuffer(got, np.uint8), len(got), error.what) from error
            if not count and not end:
                why = f"{self.address} fell silent for {timeout_s:g} s."
                raise self._cut(query, np.frombuffer(got, np.uint8), len(got), why)
            got += scratch[:count]
            if progress is not None:
                progress(len(got), len(got))
        return np.frombuffer(got.removesuffix(b"\n"), np.uint8)

    def _tail(self, query: str, expected: int, tail: bytes, end: bool) -> None:
        """The line feed after a block. Raises DataError when there is more than that."""
        scratch = memoryview(bytearray(PREFIX_BYTES))
        while not end and len(tail) <= PREFIX_BYTES and not (tail.strip(_EMPTY) or (tail and not self.session.ends)):
            count, end = self.session.read_into(scratch, self.timeout_s if self.session.ends else TAIL_S)
            tail += bytes(scratch[:count])
            if not count:
                break
        if tail.strip(_EMPTY) or (self.session.ends and not end):
            raise DataError(
                f"{query} announced {expected} bytes, but more came.",
                "Its firmware may count samples instead of bytes; the instrument's driver has to know.",
            )

    def _silent(self, query: str, timeout_s: float, got: bytes) -> SilentError:
        began = f", only {got[:40]!r}" if got else ""
        return SilentError(
            f"{self.address} did not answer {query} within {timeout_s:g} s{began}.",
            "Check that the instrument knows the command and is not busy, or allow more time.",
        )

    def _cut(self, query: str, data: Bytes, expected: int, why: str) -> CutShortError:
        return CutShortError(
            f"{query} broke off after {len(data)} of {expected} bytes. {why}",
            "Check cable and instrument; what had arrived is kept.",
            data,
            expected,
        )

    def _interface(self, got: bytes | bytearray) -> None:
        """Raises AccessError when a LeCroy says that it is set to the other kind of remote control."""
        match = _WRONG_INTERFACE.search(got)
        if match is not None:
            with contextlib.suppress(IncompleteError):
                self.recover()
            kind = match[1].decode("ascii")
            use = _INTERFACES.get(kind, "")
            raise AccessError(
                f"The instrument at {self.address} takes commands by another interface only: {kind}.",
                f"{use}Change it on the instrument under Utilities, Utilities Setup, Remote.",
            )


def _message(commands: tuple[str, ...]) -> bytes:
    text = ";".join(commands)
    try:
        return text.encode("latin-1") + b"\n"
    except UnicodeEncodeError as error:
        raise UsageError(f"{text!r} holds characters that no instrument understands.", "Use plain letters.") from error
