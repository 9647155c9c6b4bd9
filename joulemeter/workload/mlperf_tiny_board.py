"""A simulated board with MLPerf Tiny firmware, and a simulated IO manager in front of it.

In energy mode its stamp line, d0, rests high and falls at boot, at `timestamp` and at both ends of a window; the window
lies between two falling edges, so the low time of the first stamp is part of it, at the current of idling. Other lines
are high during an inference as the load says.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Generator, Mapping
from dataclasses import replace

from joulemeter import units
from joulemeter.errors import UsageError
from joulemeter.synthetic import Load
from joulemeter.workload import SimulatedBoard, refuse_unknown_options, whole
from joulemeter.workload.boards import Board, Program, Wire
from joulemeter.workload.mlperf_protocol import SIMULATOR

# Ends with whether the board restarts.
_Obeying = Generator[float | None, None, bool]

STAMP_LINE = 0b1
COMMAND_CHARACTERS = 80
BUFFER_BYTES = 96 * 96 * 3
# Input bytes and classes; one class is a score.
MODELS = {"kws01": (490, 12), "vww01": (27648, 2), "ad01": (2560, 1), "ic01": (3072, 10), "strww01": (1200, 3)}
BAUD = {"energy": 9600, "performance": 115200}
MANAGER_BAUD = 115200
FAULTS = {
    "none": "",
    "silent": "says nothing, ever",
    "noboot": "has booted long ago and is asked for nothing",
    "hang": "stops in the first window of at least ten inferences",
    "reset": "restarts there, once",
    "lost": "misses a character of the second piece of each input",
    "garbage": "noise before every line",
    "stale": "the end of an old answer waits, and half a command lies in its buffer",
}
NOISE = b"\xff\x00\xc3\x28"
LAP_START_US = 1_234_567


def simulate(load: Load, options: Mapping[str, str]) -> SimulatedBoard:
    """Options: model, mode, baud, stamp (its low time), boot (until ready), io (on, off), fault. Raises UsageError."""
    refuse_unknown_options("simulated mlperf-tiny", options, ("model", "mode", "baud", "stamp", "boot", "io", "fault"))
    mode = _one_of("mode", options.get("mode", "energy"), BAUD)
    managed = _one_of("io", options.get("io", "off"), {"on": "", "off": ""}) == "on"
    board = MlperfTinyBoard(
        load,
        BAUD["energy"] if managed else whole("baud", options.get("baud", str(BAUD[mode])), 1),
        model=_one_of("model", options.get("model", "kws01"), MODELS),
        energy=mode == "energy",
        stamp_s=units.parse_positive(options.get("stamp", "1ms"), "s"),
        boot_s=units.parse_positive(options.get("boot", "100ms"), "s"),
        fault=_one_of("fault", options.get("fault", "none"), FAULTS),
    )
    device = IoManager(board, whole("baud", options.get("baud", str(MANAGER_BAUD)), 1)) if managed else board
    return SimulatedBoard(device=device, timeline=board.timeline)


def _one_of(name: str, text: str, known: Mapping[str, object]) -> str:
    if text not in known:
        raise UsageError(f"{name} cannot be {text!r}.", f"It is one of {', '.join(known)}.")
    return text


class MlperfTinyBoard(Board):
    rest_lines = STAMP_LINE

    def __init__(
        self, load: Load, baud: int, *, model: str, energy: bool, stamp_s: float, boot_s: float, fault: str
    ) -> None:
        self._model, self._energy, self._fault = model, energy, fault
        self._stamp_s, self._boot_s = stamp_s, boot_s
        self._sick = fault in ("hang", "reset")
        self._buffer = bytearray(BUFFER_BYTES)
        self._expected = self._loaded = 0
        super().__init__(load, baud)

    @property
    def result(self) -> str:
        """The answer to the bytes in the buffer: class CRC-32 mod classes, or a score."""
        size, classes = MODELS[self._model]
        check = zlib.crc32(self._buffer[:size])
        if classes == 1:
            return f"{check % 1000 / 100:.3f}"
        return ",".join(f"{0.9 if k == check % classes else 0.1 / (classes - 1):.3f}" for k in range(classes))

    # -- the program --------------------------------------------------------------------------------------------------

    def program(self) -> Program:
        command = bytearray()
        if self._fault == "silent":
            yield float("inf")
        if self._fault == "stale":
            command += b"db 0123"
            yield from self.put(b"0.008,0.008]\r\nm-ready\r\n")
        elif self._fault != "noboot":
            yield from self._boot()
        while True:
            letter = yield from self.getchar()
            if letter != ord("%"):
                # What does not fit overwrites the last place, which the terminator then takes.
                command[COMMAND_CHARACTERS:] = b""
                command.append(letter)
                continue
            words = command[:COMMAND_CHARACTERS].decode("latin-1").split(" ")
            command.clear()
            words = [word for word in words if word]
            if not words:
                yield float("inf")  # the reference firmware reads through a null pointer here
            restart = yield from self._obey(words)
            if restart:
                return
            yield from self._print("m-ready")

    def _boot(self) -> Program:
        yield from self.sleep(self._boot_s)
        yield from self._print(f"m-timestamp-mode-{'energy' if self._energy else 'performance'}")
        yield from self._stamp()
        yield from self._print("m-init-done")
        # What came meanwhile was ignored.
        self.inbound.take(self.time_s)
        yield from self._print("m-ready")

    def _obey(self, words: list[str]) -> _Obeying:
        match words:
            case ["name", *_]:
                yield from self._print(f"m-name-dut-[{SIMULATOR}]")
            case ["profile", *_]:
                yield from self._print("m-profile-[ULPMark for tinyML Firmware V0.0.1]")
                yield from self._print(f"m-model-[{self._model}]")
            case ["timestamp", *_]:
                yield from self._stamp()
            case ["help", *_]:
                yield from self._print("help name timestamp profile db infer results")
            case ["db"]:
                yield from self._print("e-[Command 'db' requires a subcommand]")
            case ["db", "load", *size]:
                yield from self._load(size)
            case ["db", "print", *_]:
                yield from self._show()
            case ["db", digits, *_]:
                yield from self._fill(digits)
            case ["infer", *numbers]:
                return (yield from self._infer([_atoi(number) for number in numbers[:2]]))
            case ["results", *_]:
                yield from self._print(f"m-results-[{self.result}]")
            case _:
                yield from self._print(f"e-[Unknown command: {words[0]}]")
        return False

    def _load(self, size: list[str]) -> Program:
        count = _atoi(size[0]) if size else None
        if count is None:
            yield from self._print("e-[Command 'db load' requires the # of bytes]")
        elif count == 0:
            yield from self._print("e-[Command 'db load' must be >0 bytes]")
        elif count < 0 or count > BUFFER_BYTES:
            yield from self._print(f"Supplied buffer size {count} exceeds maximum of {BUFFER_BYTES}", b"\n")
        else:
            self._expected, self._loaded = count, 0
            yield from self._print(f"m-[Expecting {count} bytes]")

    def _fill(self, digits: str) -> Program:
        if self._fault == "lost" and 0 < self._loaded <= 31:
            digits = digits[:5] + digits[6:]
        if len(digits) % 2:
            yield from self._print("e-[Insufficent number of hex digits]")
            return
        for pair in re.findall("..", digits):
            if not re.fullmatch("[0-9a-fA-F]{2}", pair):
                yield from self._print(f"e-[Invalid hex digit '{pair}']")
                return
            self._buffer[self._loaded % BUFFER_BYTES] = int(pair, 16)
            self._loaded += 1
            if self._loaded == self._expected:
                yield from self._print("m-load-done")
                return

    def _show(self) -> Program:
        for first in range(0, self._expected, 8):
            row = self._buffer[first : min(first + 8, self._expected)]
            yield from self._print(f"m-buffer-{row.hex('-')}")
        if self._expected % 8:
            yield from self._print("")

    def _infer(self, numbers: list[int]) -> _Obeying:
        count, warmups = [*numbers, *(1, 10)[len(numbers) :]]
        if count <= 0 or warmups < 0:
            which = "iterations must be >0" if count <= 0 else "warmup must be >=0"
            yield from self._print(f"e-[Inference {which}]")
            return False
        size = MODELS[self._model][0]
        if self._loaded != size:
            yield from self._print(f"Input db has {self._loaded} elemented, expected {size}", b"\n")
        yield from self._print(f"m-warmup-start-{warmups}")
        for _ in range(warmups):
            yield from self._inference()
        self.rest()
        yield from self._print("m-warmup-done")
        yield from self._print(f"m-infer-start-{count}")
        yield from self._stamp()
        for done in range(count):
            yield from self._inference()
            if self._sick and count >= 10 and done == count // 2:
                self._sick = False
                if self._fault == "reset":
                    return True
                yield float("inf")
        self.rest()
        yield from self._stamp()
        yield from self._print("m-infer-done")
        yield from self._print(f"m-results-[{self.result}]")
        return False

    def _inference(self) -> Program:
        for step in self.active:
            yield from self.draw(replace(step, lines=step.lines | STAMP_LINE))

    def _stamp(self) -> Program:
        if not self._energy:
            yield from self._print(f"m-lap-us-{(LAP_START_US + int(self.time_s * 1e6)) % (1 << 32)}")
            return
        self.timeline.hold(self.time_s, self.idle_a, 0)
        yield from self.sleep(self._stamp_s)
        self.rest()

    def _print(self, line: str, end: bytes = b"\r\n") -> Program:
        yield from self.put((NOISE if self._fault == "garbage" else b"") + line.encode("latin-1") + end)


class IoManager:
    """Between host and board: passes commands on, gives the board's lines back whole, with a mark before them."""

    def __init__(self, board: MlperfTinyBoard, baud: int) -> None:
        self._board = board
        self._inbound, self._outbound = Wire(baud), Wire(baud)
        self._received = b""
        self._command = bytearray()
        self._line = bytearray()

    def receive(self, data: bytes) -> None:
        self._received += data

    def transmit(self, now_s: float) -> bytes:
        self._inbound.put(self._received, now_s)
        self._received = b""
        while self._inbound.next_s() <= now_s:
            arrived_s, letter = self._inbound.pop()
            if letter != ord("%"):
                self._command.append(letter)
                continue
            self._pass_on(arrived_s)
            self._obey(self._command.decode("latin-1"), arrived_s)
            self._command.clear()
        self._pass_on(now_s)
        return self._outbound.take(now_s)

    def _pass_on(self, now_s: float) -> None:
        self._board.run(now_s)
        while self._board.outbound.next_s() <= now_s:
            arrived_s, letter = self._board.outbound.pop()
            self._line.append(letter)
            if letter == ord("\n"):
                self._outbound.put(b"[dut]: " + self._line, arrived_s)
                self._line.clear()

    def _obey(self, command: str, now_s: float) -> None:
        word, _, rest = command.strip().partition(" ")
        match word:
            case "dut":
                said = [f"m-dut-passthrough({rest})"]
                self._board.receive_at(rest.encode("latin-1") + b"%", now_s)
            case "name":
                said = [f"m-name-io-manager-[{SIMULATOR}]"]
            case "tm":
                said = ["m-timestmp-mode-FALLING", "m-[Timer disabled after mode change]"]
            case "enable-timer" | "disable-timer":
                said = []
            case _:
                said = [f"e-[Unknown command: {word}]"]
        self._outbound.put("".join(f"{line}\r\n" for line in [*said, "m-ready"]).encode("latin-1"), now_s)


def _atoi(text: str) -> int:
    """As in C: the digits that a text begins with, 0 where there are none."""
    match = re.match(r"\s*[+-]?\d+", text)
    return int(match[0]) if match else 0
