"""A simulated board behind its agent. It writes its lines by its own code, so that no mistake is shared with wire.py.

An instrument's simulator says what its files hold. The load begins (t = 0) when polling does. `simulator` in its hello
tells whoever records.
"""

from __future__ import annotations

import fnmatch
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from joulemeter.synthetic import Draw

HELLO = {
    "host": "simulated",
    "machine": "simulated",
    "kernel": "Linux simulated",
    "python": "3.11.0",
    "cpu": None,
    "governor": None,
    "pid": 1,
    "simulator": "joulemeter",
}
# A board is up for a while before anybody asks it; a wake-up is late by so much.
UPTIME_NS = 5_000_000_000
LATE_NS = 60_000


class BoardSimulator(ABC):
    """`read_ns` is what reading one source takes. `drawn` is the load as seen from the beginning of polling."""

    read_ns = 20_000

    def __init__(self, load: Draw) -> None:
        self._load = self.drawn = load
        self._now_s = 0.0
        self._began_s = 0.0
        self._ticks, self._charge_c = 0, 0.0
        self._inbox = b""
        self._asked: list[bytes] = []
        self._poll: _Poll | None = None
        load.powered(True, 0.0)

    @abstractmethod
    def texts(self, at_s: float) -> Mapping[str, str]:
        """What every file holds at a time since the load began; times never go back."""

    def output(self, argv: Sequence[str], at_s: float) -> str | None:
        """What a command prints, None where there is no such command."""
        del argv, at_s
        return None

    def charge_c(self, tick_s: float, at_s: float) -> float:
        """What was drawn up to the last whole tick, while this polling went on and those before it."""
        due = int(at_s / tick_s + 1e-6) - self._ticks
        if due > 0:
            self._charge_c += float(self.drawn.mean_current_a(self._ticks, due, 1 / tick_s).sum()) * tick_s
            self._ticks += due
        return self._charge_c

    def receive(self, data: bytes) -> None:
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        self._asked += lines

    def transmit(self, now_s: float) -> bytes:
        """Requests are answered here, for here the time is known."""
        self._now_s = max(self._now_s, now_s)
        asked, self._asked = self._asked, []
        sent = b"".join(self._rounds())
        for line in asked:
            sent += self._answered(line)
        return sent

    def _answered(self, line: bytes) -> bytes:
        if line == b"ping":
            return b"pong %d %d\n" % (_ns(self._now_s), _ns(self._now_s))
        if line == b"stop":
            poll, self._poll = self._poll, None
            return b"" if poll is None else _said({"ok": {"rounds": poll.slot, "late": 0}})
        try:
            asked = json.loads(line)
            operation = asked["op"]
        except (ValueError, TypeError, KeyError):
            return b""
        at_s = self._now_s - self._began_s
        if operation == "hello":
            return _said({"ok": HELLO})
        if operation == "files":
            tree = self.texts(at_s)
            rows = [[path, text, None] for path, text in tree.items() if _any(path, asked["patterns"])]
            outputs = [self._output(argv, at_s) for argv in asked.get("commands", [])]
            return _said({"ok": {"files": rows, "outputs": outputs}})
        if operation == "poll" and all(self._has(*source) for source in asked["sources"]):
            self._began_s = self._now_s
            self.drawn = self._load.from_time(self._now_s)
            self._ticks = 0
            first_ns = _ns(self._now_s) + asked["interval_ns"]
            self._poll = _Poll(asked["sources"], asked["interval_ns"], asked["width"], first_ns)
            return _said({"polling": {"first_ns": first_ns}})
        what = f"The simulated agent cannot do {asked!r}."
        return _said({"error": {"kind": "data", "what": what, "remedy": ""}})

    def _output(self, argv: Sequence[str], at_s: float) -> list[Any]:
        text = self.output(argv, at_s)
        return [None, "", "ENOENT"] if text is None else [0, text, ""]

    def _has(self, kind: str, what: Any) -> bool:
        at_s = self._now_s - self._began_s
        return self.output(what, at_s) is not None if kind == "output" else what in self.texts(at_s)

    def _rounds(self) -> Iterator[bytes]:
        poll = self._poll
        while poll is not None and poll.due_ns + LATE_NS + self.read_ns * len(poll.sources) <= _ns(self._now_s):
            at_ns = poll.due_ns + LATE_NS
            entries = []
            for kind, what in poll.sources:
                at_s = (at_ns - UPTIME_NS) * 1e-9 - self._began_s
                text = self.output(what, at_s) if kind == "output" else self.texts(at_s)[what]
                entries.append(f"[{at_ns},{at_ns + self.read_ns},{json.dumps(text)},null]")
                at_ns += self.read_ns
            line = f'{{"poll":[{poll.slot},[{",".join(entries)}],{poll.slot}]}}'
            yield line.encode().ljust(poll.width - 1) + b"\n"
            poll.slot += 1


class _Poll:
    def __init__(self, sources: list[tuple[str, Any]], interval_ns: int, width: int, first_ns: int) -> None:
        self.sources, self.width = sources, width
        self._interval_ns, self._first_ns = interval_ns, first_ns
        self.slot = 0

    @property
    def due_ns(self) -> int:
        return self._first_ns + self.slot * self._interval_ns


def _said(fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def _ns(now_s: float) -> int:
    return UPTIME_NS + round(now_s * 1e9)


def _any(path: str, patterns: list[str]) -> bool:
    """fnmatch lets a star cross a slash, which does not matter in such small trees."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
