"""A conversation with firmware over a serial line: text goes out, lines come back, and nothing waits for ever."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from joulemeter.capture import Event
from joulemeter.errors import IncompleteError
from joulemeter.serialtext import POLL_S, Line, LineSplitter
from joulemeter.transport import Link

NowNs = Callable[[], int]


class SilentError(IncompleteError):
    """The board did not say what it should have said by now."""


class Conversation:
    """Keeps every line that comes, asked for or not. `damaged` counts those with bytes in them that are no text."""

    def __init__(self, link: Link, baud: int, now_ns: NowNs = time.monotonic_ns) -> None:
        self.link = link
        self.baud = baud
        self.now_ns = now_ns
        self.damaged = 0
        self._splitter = LineSplitter(baud, now_ns())
        self._waiting: deque[Line] = deque()
        self._events: list[Event] = []

    def send(self, text: str) -> None:
        """What had come until now answers something else: it is kept, but no longer waited for."""
        self._read(0)
        self._waiting.clear()
        self.link.write(text.encode())

    def line(self, timeout_s: float) -> Line | None:
        """The next line, without what is no text in it; None when none came in time."""
        deadline_ns = self.now_ns() + round(timeout_s * 1e9)
        while not self._waiting:
            left_s = (deadline_ns - self.now_ns()) * 1e-9
            if left_s <= 0:
                return None
            self._read(min(POLL_S, left_s))
        return self._waiting.popleft()

    def drain(self, quiet_s: float, limit_s: float) -> None:
        """Until nothing has come for `quiet_s`, at most `limit_s`."""
        deadline_ns = self.now_ns() + round(limit_s * 1e9)
        while self.line(quiet_s) is not None and self.now_ns() < deadline_ns:
            pass

    def finish(self) -> None:
        """Nothing more will come of a line that has begun: keep its beginning."""
        self._keep(self._splitter.finish(self.now_ns()))

    def heard(self) -> list[Event]:
        """The lines since the last call, as they came."""
        events, self._events = self._events, []
        return events

    def _read(self, timeout_s: float) -> None:
        self._keep(self._splitter.feed(self.link.read(timeout_s), self.now_ns()))

    def _keep(self, lines: list[Line]) -> None:
        for line in lines:
            self._events.append(line.event())
            text = "".join(letter for letter in line.text if letter.isprintable() and letter != "\ufffd")
            self.damaged += text != line.text
            if text.strip():
                self._waiting.append(replace(line, text=text.strip()))
