"""Lines that the device prints, stamped as they begin to arrive."""

from __future__ import annotations

import threading
import time
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


class SerialText:
    """Reads `PORT[,BAUD]` in a thread and turns each line into an Event of source "serial".

    A stamp is the host's monotonic clock when the line's first bytes were seen, less the time they took on the wire;
    `u_s` covers polling and the adaptor's latency as a rectangular term.
    """

    def __init__(self, port: str) -> None:
        """Raises UsageError, NotFoundError, AccessError."""
        address, _, baud = port.partition(",")
        if baud and not baud.isdigit():
            raise UsageError(f"{baud!r} is not a baud rate.", "Write PORT or PORT,BAUD, such as /dev/ttyACM0,115200.")
        self._baud = int(baud) if baud else DEFAULT_BAUD
        self._link: Link = connect(address, self._baud)
        self._events: list[Event] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def _listen(self) -> None:
        line, began_ns = b"", 0
        try:
            while not self._ended.is_set():
                raw = self._link.read(POLL_S)
                now_ns = time.monotonic_ns()
                for piece in raw.splitlines(keepends=True):
                    if not line:
                        # The bytes that came in this batch were on the wire before now.
                        began_ns = now_ns - round(len(raw) * BITS_PER_BYTE / self._baud * 1e9)
                    line += piece
                    if line.endswith((b"\n", b"\r")) or len(line) > MAX_LINE:
                        self._keep(line, began_ns)
                        line = b""
        except JouleMeterError:
            # The text has ended; the meters go on, and the windows it marked so far count.
            self._keep(b"(the serial port was lost)", time.monotonic_ns())

    def _keep(self, line: bytes, began_ns: int) -> None:
        text = line.decode("utf-8", errors="replace").strip()
        if text:
            event = Event(label=text, source="serial", monotonic_ns=began_ns, u_s=(POLL_S + LATENCY_S) / 12**0.5)
            with self._lock:
                self._events.append(event)

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
