"""Simulated NVIDIA GPUs at the end of a link: lines of JSON in, lines of JSON out, made by their own code.

Every board draws the load. Its sensor has something new every `refresh_s`: the counter stands at the energy drawn until
then, instantaneous power is the mean of the last part of that time, as long as the board's sensor looks, and average
power that of the last second. The load begins (t = 0) when the GPUs are plugged in. A counter starts at what was left
there.
"""

from __future__ import annotations

import binascii
import json
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from joulemeter import units
from joulemeter.errors import UsageError
from joulemeter.synthetic import Draw

# Parts of a refresh of which the sensor sees the last few.
PARTS = 4
AVERAGE_S = 1.0
BEFORE_MJ = 987_654_321
OK, INVALID_ARGUMENT, NOT_SUPPORTED, NO_FUNCTION, LOST = 0, 2, 3, 13, 15
UNSIGNED_INT = 1
# What the clock stood at when the GPUs were plugged in, for time stamps.
PLUGGED_US = 1_700_000_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """`seen` is how many of the PARTS its sensor sees. `fields` are the power fields that its driver knows."""

    name: str
    capability: tuple[int, int]
    seen: int = PARTS
    counter: bool = True
    fields: tuple[int, ...] = (185, 186)
    usage: bool = True
    lost: bool = False
    mig: bool = False
    virtual: bool = False
    driver: str = "999.1"


BOARDS = {
    "a4000": Board(name="Simulated RTX A4000", capability=(8, 6)),
    "a100": Board(name="Simulated A100-PCIE-40GB", capability=(8, 0), seen=1, fields=(186,)),
    "mig": Board(name="Simulated A100-PCIE-40GB", capability=(8, 0), seen=1, fields=(186,), mig=True),
    "h100": Board(name="Simulated H100 PCIe", capability=(9, 0), seen=1),
    "gh200": Board(name="Simulated GH200 480GB", capability=(9, 0), seen=1),
    "gb10": Board(name="Simulated GB10", capability=(12, 1)),
    "v100": Board(name="Simulated Tesla V100", capability=(7, 0), seen=2, fields=(186,)),
    "p100": Board(name="Simulated Tesla P100", capability=(6, 0), seen=2, counter=False, fields=(186,)),
    "k40": Board(name="Simulated Tesla K40m", capability=(3, 5), counter=False, fields=()),
    "a2": Board(name="Simulated A2", capability=(8, 6), counter=False, fields=()),
    "vgpu": Board(
        name="Simulated GRID A100-10C", capability=(8, 0), counter=False, fields=(), usage=False, virtual=True
    ),
    "lost": Board(name="Simulated RTX A4000", capability=(8, 6), lost=True),
    "orin": Board(name="Simulated Orin (nvgpu)", capability=(8, 7), counter=False, fields=(), usage=False),
}

_TROUBLE = re.compile(r"(\w+)=(\d+)(?:@([^,]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """From `at_s` on a call is answered with a return code."""

    call: str
    code: int
    at_s: float


def parse_trouble(text: str) -> list[Trouble]:
    """`nvmlInit=18` or `nvmlDeviceGetTotalEnergyConsumption=15@2s`, with commas between. Raises UsageError."""
    troubles = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _TROUBLE.fullmatch(part)
        if match is None:
            raise UsageError(f"{part!r} is no trouble of a simulated GPU.", "Write CALL=CODE or CALL=CODE@TIME.")
        at_s = units.parse(match[3], "s") if match[3] else 0.0
        troubles.append(Trouble(call=match[1], code=int(match[2]), at_s=at_s))
    return troubles


def parse_boards(text: str) -> list[Board]:
    """`a100` or `a100+p100`. Raises UsageError."""
    unknown = [name for name in text.split("+") if name not in BOARDS]
    if unknown:
        raise UsageError(f"There is no simulated GPU {unknown[0]!r}.", f"There are: {', '.join(BOARDS)}.")
    return [BOARDS[name] for name in text.split("+")]


class _RefusedError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class GpuSimulator:
    def __init__(self, load: Draw, volts: float, boards: str, refresh_s: float, trouble: str = "") -> None:
        """Raises UsageError."""
        self._load = load
        self._volts = volts
        self._boards = parse_boards(boards)
        self._troubles = parse_trouble(trouble)
        self._part_s = refresh_s / PARTS
        self._now_s = 0.0
        self._parts = 0
        self._energy_j = 0.0
        first_w = float(load.mean_current_a(0, 1, 1 / self._part_s)[0]) * volts
        # The mean power of each part of the last second, and of a refresh at least.
        self._recent_w = deque([first_w] * PARTS, maxlen=max(PARTS, round(AVERAGE_S / self._part_s)))
        self._inbox = b""
        self._waiting: list[dict[str, Any]] = []
        load.powered(True, 0.0)

    def receive(self, data: bytes) -> None:
        """Calls; a line that is none is not answered."""
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            digits, _, text = line.partition(b" ")
            if digits == f"{binascii.crc32(text):08x}".encode():
                self._waiting.append(json.loads(text))

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        self._refresh()
        calls, self._waiting = self._waiting, []
        return b"".join(map(self._answer, calls))

    def _refresh(self) -> None:
        due = int(self._now_s / (PARTS * self._part_s) + 1e-6) * PARTS - self._parts
        if due <= 0:
            return
        powers_w = self._load.mean_current_a(self._parts, due, 1 / self._part_s) * self._volts
        self._parts += due
        self._energy_j += float(powers_w.sum()) * self._part_s
        self._recent_w.extend(powers_w.tolist())

    def _answer(self, asked: Mapping[str, Any]) -> bytes:
        code, value = OK, None
        try:
            value = self._called(asked["call"], asked["args"])
        except _RefusedError as refused:
            code = refused.code
        answer = {"n": asked["n"], "simulated": True, "return": code, "value": value}
        text = json.dumps(answer, separators=(",", ":")).encode()
        return f"{binascii.crc32(text):08x} ".encode() + text + b"\n"

    def _called(self, name: str, arguments: list[Any]) -> Any:
        for trouble in self._troubles:
            if trouble.call == name and self._now_s >= trouble.at_s:
                raise _RefusedError(trouble.code)
        whole: dict[str, Callable[[], Any]] = {
            "nvmlInit": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: self._boards[0].driver,
            "nvmlDeviceGetCount": lambda: len(self._boards),
        }
        if name in whole:
            return whole[name]()
        index, *rest = arguments
        if not 0 <= index < len(self._boards):
            raise _RefusedError(INVALID_ARGUMENT)
        if self._boards[index].lost:
            raise _RefusedError(LOST)
        return self._of_board(name, index, self._boards[index], rest)

    def _of_board(self, name: str, index: int, board: Board, rest: list[Any]) -> Any:
        # What is not there stands as None.
        calls: dict[str, Callable[[], Any]] = {
            "nvmlDeviceGetHandleByIndex": lambda: index,
            "nvmlDeviceGetName": lambda: board.name,
            "nvmlDeviceGetUUID": lambda: f"GPU-00000000-4a4d-0000-0000-{index:012x}",
            "nvmlDeviceGetPciInfo": lambda: f"00000000:{0x65 + index:02X}:00.0",
            "nvmlDeviceGetCudaComputeCapability": lambda: board.capability,
            "nvmlDeviceGetMigMode": lambda: [1, 1] if board.mig else None,
            "nvmlDeviceGetVirtualizationMode": lambda: 2 if board.virtual else 0,
            "nvmlDeviceGetTotalEnergyConsumption": lambda: (
                BEFORE_MJ + int(self._energy_j * 1e3 + 1e-6) if board.counter else None
            ),
            "nvmlDeviceGetPowerUsage": lambda: self._usage_mw(board) if board.usage else None,
            "nvmlDeviceGetFieldValues": lambda: [self._field(board, field) for field, _ in rest[0]],
            "nvmlDeviceGetTemperature": lambda: 55,
        }
        if name not in calls:
            raise _RefusedError(NO_FUNCTION)
        value = calls[name]()
        if value is None:
            raise _RefusedError(NOT_SUPPORTED)
        return value

    def _instant_mw(self, board: Board) -> int:
        return round(sum(list(self._recent_w)[-board.seen :]) / board.seen * 1e3)

    def _average_mw(self) -> int:
        return round(sum(self._recent_w) / len(self._recent_w) * 1e3)

    def _usage_mw(self, board: Board) -> int:
        return self._average_mw() if board.capability > (8, 0) else self._instant_mw(board)

    def _field(self, board: Board, field: int) -> list[int]:
        """Return code, type, value, time stamp."""
        if field not in board.fields:
            return [NOT_SUPPORTED, 0, 0, 0]
        value = self._instant_mw(board) if field == 186 else self._average_mw()
        return [OK, UNSIGNED_INT, value, PLUGGED_US + round(self._parts * self._part_s * 1e6)]
