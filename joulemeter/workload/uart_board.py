"""A simulated board that infers when sent a byte, with its pin high meanwhile, and answers with its prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from joulemeter.errors import UsageError
from joulemeter.serialtext import DEFAULT_BAUD
from joulemeter.synthetic import Load
from joulemeter.workload import SimulatedBoard, byte_of, refuse_unknown_options, whole
from joulemeter.workload.boards import Board, Program

CLASSES = 10
PIN = 0b1
FAULTS = ("none", "silent", "babble")


def simulate(load: Load, options: Mapping[str, str]) -> SimulatedBoard:
    """Options: baud, byte (any byte triggers if not given), reply (bytes of an answer), fault. Raises UsageError."""
    refuse_unknown_options("simulated uart", options, ("baud", "byte", "reply", "fault"))
    fault = options.get("fault", "none")
    if fault not in FAULTS:
        raise UsageError(f"fault cannot be {fault!r}.", f"It is one of {', '.join(FAULTS)}.")
    trigger = options.get("byte")
    board = UartBoard(
        load,
        whole("baud", options.get("baud", str(DEFAULT_BAUD)), 1),
        trigger=None if trigger is None else byte_of(trigger),
        reply=whole("reply", options.get("reply", "1"), 1),
        fault=fault,
    )
    return SimulatedBoard(device=board, timeline=board.timeline)


class UartBoard(Board):
    """Its k-th prediction is (7 k + 3) mod 10, in the last byte of the answer."""

    def __init__(self, load: Load, baud: int, *, trigger: int | None, reply: int, fault: str) -> None:
        self._trigger, self._reply, self._fault = trigger, reply, fault
        super().__init__(load, baud)

    def program(self) -> Program:
        inferences = 0
        while True:
            byte = yield from self.getchar()
            if self._trigger is not None and byte != self._trigger:
                continue
            for step in self.active:
                yield from self.draw(replace(step, lines=step.lines | PIN))
            self.rest()
            prediction = (7 * inferences + 3) % CLASSES
            inferences += 1
            if self._fault != "silent":
                yield from self.put(prediction.to_bytes(self._reply, "big"))
            if self._fault == "babble":
                yield from self.put(b"\r\n")
