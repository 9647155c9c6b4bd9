"""Simulated boards: a program on a small processor, its serial line, and what it draws meanwhile.

The program is a generator in the board's own time: it yields the time at which it goes on, or None to wait for a byte.
Bytes take their ten bits each way, and printing blocks, as it does in plain firmware.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator

from joulemeter.errors import UsageError
from joulemeter.serialtext import BITS_PER_BYTE
from joulemeter.synthetic import Load, Step
from joulemeter.timeline import Timeline

Program = Generator[float | None, None, None]

NEVER = float("inf")


class Wire:
    """One direction of a serial line: bytes and the time at which each has arrived."""

    def __init__(self, baud: int) -> None:
        self._byte_s = BITS_PER_BYTE / baud
        self._free_s = 0.0
        self._on_way: deque[tuple[float, int]] = deque()

    def put(self, data: bytes, now_s: float) -> float:
        """The time at which the last of them has arrived."""
        self._free_s = max(self._free_s, now_s)
        for byte in data:
            self._free_s += self._byte_s
            self._on_way.append((self._free_s, byte))
        return self._free_s

    def next_s(self) -> float:
        return self._on_way[0][0] if self._on_way else NEVER

    def pop(self) -> tuple[float, int]:
        return self._on_way.popleft()

    def take(self, now_s: float) -> bytes:
        """What has arrived by then."""
        taken = bytearray()
        while self.next_s() <= now_s:
            taken.append(self.pop()[1])
        return bytes(taken)

    def clear(self) -> None:
        self._on_way.clear()


class Board(ABC):
    """A Device that has power from the start, until a meter that supplies it says otherwise.

    `rest_lines` are the digital lines while nothing runs.
    """

    rest_lines = 0

    def __init__(self, load: Load, baud: int) -> None:
        """Raises UsageError for a load without an inference or without idle."""
        self.active, self.idle_a = split(load)
        self.timeline = Timeline(self.idle_a, self.rest_lines)
        self.timeline.name = load.name
        self.timeline.power = self._power
        self.time_s = 0.0
        self.inbound, self.outbound = Wire(baud), Wire(baud)
        self._received = b""
        self._on = True
        self._wake_s: float | None = 0.0
        self._running: Program = self.program()

    @abstractmethod
    def program(self) -> Program:
        """What runs from power-on; it runs again from the top when it returns."""

    # -- the device end of the line -----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """They were sent just before the next `transmit`, and not as long ago as the last."""
        self._received += data

    def receive_at(self, data: bytes, now_s: float) -> None:
        if self._on:
            self.inbound.put(data, now_s)

    def transmit(self, now_s: float) -> bytes:
        self.run(now_s)
        return self.outbound.take(now_s)

    def run(self, now_s: float) -> None:
        received, self._received = self._received, b""
        self.receive_at(received, now_s)
        while self._on and (due_s := self._due_s()) <= now_s:
            self.time_s = max(self.time_s, due_s)
            try:
                self._wake_s = next(self._running)
            except StopIteration:
                self._start(self.time_s)

    def _due_s(self) -> float:
        return self.inbound.next_s() if self._wake_s is None else self._wake_s

    def _start(self, now_s: float) -> None:
        self.time_s = now_s
        self._wake_s = now_s
        self._running = self.program()
        self.inbound.clear()
        self.rest()

    def _power(self, on: bool, now_s: float) -> None:
        if on == self._on:
            return
        self._on = on
        if on:
            self._start(now_s)
        else:
            self.outbound.clear()
            self.timeline.hold(now_s, 0.0, 0)

    # -- what programs are made of ------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> Program:
        yield self.time_s + seconds

    def getchar(self) -> Generator[float | None, None, int]:
        while self.inbound.next_s() > self.time_s:
            yield None
        return self.inbound.pop()[1]

    def put(self, data: bytes) -> Program:
        yield self.outbound.put(data, self.time_s)

    def rest(self) -> None:
        self.timeline.hold(self.time_s, self.idle_a, self.rest_lines)

    def draw(self, step: Step) -> Program:
        self.timeline.hold(self.time_s, step.current_a, step.lines)
        yield self.time_s + step.duration_s


def split(load: Load) -> tuple[tuple[Step, ...], float]:
    """The steps of one inference, and the mean current of the others. Raises UsageError when either has none."""
    active = tuple(step for step in load.steps if step.lines)
    others = [step for step in load.steps if not step.lines]
    if not active or not others:
        raise UsageError(
            f"The load {load.name!r} does not say what a board draws in an inference and beside it.",
            "Give it a step with a line high and one without, such as 8mA/20ms/d0,250uA/80ms.",
        )
    idle_c = sum(step.current_a * step.duration_s for step in others)
    return active, idle_c / sum(step.duration_s for step in others)
