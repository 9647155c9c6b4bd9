"""Firmware that infers when it is sent a byte and answers with its prediction: `uart@PORT[,BAUD]`.

The board raises its pin, infers, lowers the pin, and sends the prediction as one byte (or as many as `reply` says).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from joulemeter import units
from joulemeter.capture import Event
from joulemeter.errors import IncompleteError, UsageError
from joulemeter.serialtext import BITS_PER_BYTE, DEFAULT_BAUD, POLL_S, U_STAMP_S, parse_port
from joulemeter.synthetic import Load
from joulemeter.transport import Link
from joulemeter.transport.connect import connect
from joulemeter.units import show_duration
from joulemeter.workload import Habits, Say, SimulatedBoard, Stamps, Workload, byte_of, refuse_unknown_options, whole
from joulemeter.workload.firmware import NowNs, SilentError

OPTIONS = ("baud", "byte", "reply", "timeout", "boot")
SOURCE = "answer"
# Between windows, so that a pulse on a meter's line is nearer to its own window than to the next one, although an
# adaptor delays the answer by up to LATENCY_S.
REST_S = 0.05
REMEDY = "Check the baud rate, TX and RX, that the board has power, and the option byte: what it takes as its trigger."


def create(target: str, options: Mapping[str, str]) -> Uart:
    """The board at `target`, PORT or PORT,BAUD. Raises UsageError."""
    refuse_unknown_options("uart", options, OPTIONS)
    if not target:
        raise UsageError("A uart workload needs a port.", "Write uart@PORT or uart@PORT,BAUD.")
    address, baud = parse_port(target, whole("baud", options.get("baud", str(DEFAULT_BAUD)), 1))
    return Uart(
        address,
        baud,
        trigger=byte_of(options.get("byte", "0x01")),
        reply=whole("reply", options.get("reply", "1"), 1),
        timeout_s=units.parse_positive(options.get("timeout", "5s"), "s"),
        boot_s=units.parse_positive(options.get("boot", "1s"), "s"),
    )


def simulate(load: Load, options: Mapping[str, str]) -> SimulatedBoard:
    """A board with this firmware. Raises UsageError."""
    from joulemeter.workload.uart_board import simulate as simulate_board

    return simulate_board(load, options)


class Uart(Workload):
    """`timeout_s` is given to each answer; `boot_s` passes before the first trigger."""

    def __init__(
        self,
        address: str,
        baud: int,
        *,
        trigger: int = 1,
        reply: int = 1,
        timeout_s: float = 5.0,
        boot_s: float = 1.0,
        open_link: Callable[[str, int], Link] = connect,
        now_ns: NowNs = time.monotonic_ns,
    ) -> None:
        self.habits = Habits(triggers=("d0", "host"))
        self.address, self.baud = address, baud
        self.trigger, self.reply, self.timeout_s, self.boot_s = trigger, reply, timeout_s, boot_s
        self._open_link, self._now_ns = open_link, now_ns
        self._link: Link | None = None
        self._events: list[Event] = []
        self._answers: Counter[str] = Counter()
        self._unasked = 0

    def prepare(self) -> None:
        if self._link is None:
            self._link = self._open_link(self.address, self.baud)

    def ready(self, say: Say) -> None:
        """Let it boot, then one inference to see that it answers. Raises IncompleteError when it does not."""
        self.prepare()
        say("waiting for the board")
        self._rest(self.boot_s)
        self._unasked = 0
        self._ask()

    def _rest(self, seconds: float) -> None:
        until_ns = self._now_ns() + round(seconds * 1e9)
        while (left_s := (until_ns - self._now_ns()) * 1e-9) > 0:
            self._unasked += len(self._board().read(min(left_s, REST_S)))

    def warm_up(self, count: int) -> None:
        for _ in range(count):
            self._ask()

    def run(self, count: int, inferences_per_window: int | None = None) -> Stamps:
        """As in Workload. Raises IncompleteError when the board falls silent or says more than its answer."""
        per_window = inferences_per_window or 1
        if count < 1 or per_window < 1:
            raise UsageError(f"{count} windows of {per_window} inferences measure nothing.", "Both must be at least 1.")
        begin_ns, end_ns = np.empty(count, np.int64), np.empty(count, np.int64)
        for window in range(count):
            self._rest(REST_S)
            pairs = [self._ask() for _ in range(per_window)]
            begin_ns[window], end_ns[window] = pairs[0][0], pairs[-1][1]
            for sent_ns, arrived_ns, answer in pairs:
                self._keep(sent_ns, arrived_ns, answer)
        return Stamps(begin_ns=begin_ns, end_ns=end_ns, inferences_per_window=per_window, u_s=U_STAMP_S)

    def _ask(self) -> tuple[int, int, bytes]:
        """Send the trigger and wait: when it was sent, when the answer began to arrive, the answer."""
        link = self._board()
        self._unasked += len(link.read(0))
        sent_ns = self._now_ns()
        link.write(bytes([self.trigger]))
        answer = b""
        while len(answer) < self.reply:
            left_s = self.timeout_s - (self._now_ns() - sent_ns) * 1e-9
            if left_s <= 0:
                got = f"{len(answer)} of {self.reply} bytes" if answer else "nothing"
                raise SilentError(
                    f"The board on {self.address} did not answer its trigger: {got} in "
                    f"{show_duration(self.timeout_s)}.",
                    REMEDY,
                )
            answer += link.read(min(POLL_S, left_s))
        arrived_ns = self._now_ns() - round(len(answer) * BITS_PER_BYTE / self.baud * 1e9)
        if len(answer) > self.reply:
            raise IncompleteError(
                f"The board on {self.address} answered its trigger with {len(answer)} bytes, not with {self.reply}.",
                "Say how long an answer is with the option reply.",
            )
        return sent_ns, max(arrived_ns, sent_ns), answer

    def _keep(self, sent_ns: int, arrived_ns: int, answer: bytes) -> None:
        """One byte is a number, more are a string of hexadecimal digits."""
        prediction = answer[0] if len(answer) == 1 else answer.hex()
        self._answers[str(prediction)] += 1
        latency_s = (arrived_ns - sent_ns) * 1e-9
        data = {"prediction": prediction, "latency_s": latency_s}
        self._events.append(Event(label="prediction", source=SOURCE, monotonic_ns=arrived_ns, u_s=U_STAMP_S, data=data))

    def _board(self) -> Link:
        if self._link is None:
            raise UsageError("The board was not prepared.", "Call prepare() first.")
        return self._link

    def heard(self) -> Sequence[Event]:
        events, self._events = self._events, []
        return events

    def describe(self) -> dict[str, Any]:
        return {
            "runtime": None,
            "version": None,
            "delegate": None,
            "threads": None,
            "model": None,
            "model_sha256": None,
            "batch": 1,
            "port": self.address,
            "baud": self.baud,
            "trigger_byte": self.trigger,
            "predictions": dict(sorted(self._answers.items())),
            "inferences": self._answers.total(),
            "unasked_bytes": self._unasked,
        }

    def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()
