"""Lines that the device prints, stamped as they arrive."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from joulemeter.capture import Event
from joulemeter.errors import JouleMeterError, UsageError
from joulemeter.transport import Link
from joulemeter.transport.connect import connect

DEFAULT_BAUD = 115200
POLL_S = 0.001
# USB adaptors hold bytes back for up to this long (the usual latency timer of serial adaptors).
LATENCY_S = 0.016
MAX_LINE = 4096
BITS_PER_BYTE = 10
# Of a stamp: polling and the adaptor's latency, rectangular.
U_STAMP_S = (POLL_S + LATENCY_S) / 12**0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """`began_ns` and `ended_ns`: the monotonic clock when its first bytes went over the wire, and its last."""

    text: str
    began_ns: int
    ended_ns: int

    def event(self) -> Event:
        return Event(label=self.text, source="serial", monotonic_ns=self.began_ns, u_s=U_STAMP_S)


class LineSplitter:
    """Bytes to lines. A stamp is the clock when the bytes were seen, less the time they took on the wire.

    Nothing that has just come was on the wire before the last look, but for what an adaptor held back. On a wire that
    is faster than its baud rate says (USB without a UART behind it) this is what bounds the stamps; so `feed` is also
    to be called when nothing has come.
    """

    def __init__(self, baud: int, now_ns: int) -> None:
        self._ns_per_byte = BITS_PER_BYTE / baud * 1e9
        self._part = b""
        self._began_ns = 0
        self._looked_ns = now_ns

    def feed(self, raw: bytes, now_ns: int) -> list[Line]:
        lines: list[Line] = []
        floor_ns, self._looked_ns = self._looked_ns - round(LATENCY_S * 1e9), now_ns
        left = len(raw)
        for piece in raw.splitlines(keepends=True):
            if not self._part:
                self._began_ns = max(floor_ns, now_ns - round(left * self._ns_per_byte))
            left -= len(piece)
            self._part += piece
            if self._part.endswith((b"\n", b"\r")) or len(self._part) > MAX_LINE:
                lines += self.finish(max(floor_ns, now_ns - round(left * self._ns_per_byte)))
        return lines

    def finish(self, now_ns: int) -> list[Line]:
        """The line that is still open, if there is one."""
        text = self._part.decode("utf-8", errors="replace").strip()
        self._part = b""
        return [Line(text=text, began_ns=self._began_ns, ended_ns=now_ns)] if text else []


class SerialText:
    """Reads `PORT[,BAUD]` in a thread and turns each line into an Event of source "serial"."""

    def __init__(self, port: str) -> None:
        """Raises UsageError, NotFoundError, AccessError."""
        address, baud = parse_port(port)
        self._splitter = LineSplitter(baud, time.monotonic_ns())
        self._link: Link = connect(address, baud)
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        try:
            while not self._ended.is_set():
                raw = self._link.read(POLL_S)
                self._keep(self._splitter.feed(raw, time.monotonic_ns()))
        except JouleMeterError:
            # The text has ended; the meters go on, and the windows it marked so far count.
            now_ns = time.monotonic_ns()
            lost = Line(text="(the serial port was lost)", began_ns=now_ns, ended_ns=now_ns)
            self._keep([*self._splitter.finish(now_ns), lost])

    def _keep(self, lines: list[Line]) -> None:
        if lines:
            with self._lock:
                self._events += [line.event() for line in lines]

    def take(self) -> list[Event]:
        """The lines since the last call, in order."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(2)
        self._link.close()


def parse_port(text: str, baud: int = DEFAULT_BAUD) -> tuple[str, int]:
    """`PORT[,BAUD]` as address and baud rate. Raises UsageError."""
    address, _, rate = text.partition(",")
    if rate and (not rate.isdigit() or int(rate) == 0):
        raise UsageError(f"{rate!r} is not a baud rate.", "Write PORT or PORT,BAUD, such as /dev/ttyACM0,115200.")
    return address, int(rate) if rate else baud
