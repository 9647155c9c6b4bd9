"""A digitizing multimeter that runs its trigger model. It packs readings by its own code.

Line 0 of the load is wired to EXT TRIG IN. The DMM7510 has the older firmware, which calls its digitize block DIG.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused, ScpiDevice

EDGE_HZ = 1e5
FIRMWARE = {"DMM6500": "1.7.12b", "DMM7510": "1.6.4d", "DAQ6510": "1.0.04b"}
OVERFLOW = 9.9e37
BLOCKS = {"DMM6500": "MDIG", "DMM7510": "DIG", "DAQ6510": "MDIG"}
DEFAULTS = {
    "FORM": "ASC",
    "FORM:BORD": "SWAP",
    "DIG:FUNC": '"NONE"',
    "FUNC": '"VOLT:DC"',
    "DIG:CURR:RANG": "1",
    "DIG:CURR:SRAT": "1000",
    "DIG:CURR:APER": "AUTO",
    "CURR:RANG": "0.01",
    "CURR:RANG:AUTO": "1",
    "CURR:NPLC": "1",
    "TRIG:EXT:IN:EDGE": "FALL",
    "TRAC:POIN": "100000",
    "TRAC:FILL:MODE": "CONT",
}
# Taken, and of no effect here.
IGNORED = ("SYST:CLE", "DISP:SCR", "CURR:AZER", "CURR:DC:RANG:AUTO")


@dataclass(slots=True)
class Group:
    """Readings from `first` on, made at `start_s` and after; `count` is None while it goes on."""

    first: int
    start_s: float
    count: int | None


def short(header: str) -> str:
    """The short form of each node, without the optional ones (SCPI-99, 6.2.1)."""
    nodes = [re.sub(r"\d+$", "", node) for node in header.upper().strip(":?").split(":")]
    nodes = [node if len(node) <= 4 else node[: 3 if node[3] in "AEIOU" else 4] for node in nodes]
    nodes = nodes[1:] if nodes[0] == "SENS" and len(nodes) > 1 else nodes
    return ":".join(node for node in nodes if node not in ("DC", "UPP", "IMM") or nodes[0] == "MEAS")


class DmmSimulator(ScpiDevice):
    def __init__(self, load: Draw, model: str) -> None:
        super().__init__()
        self.identity = f"KEITHLEY INSTRUMENTS,MODEL {model},SIM00000001,{FIRMWARE[model]}"
        self.language = "SCPI"
        self._load = self._draw = load
        self._zero_s = 0.0  # when the trigger model was started, and the load's stream began
        self._seen = self._level = 0  # samples of line 0, and its last state
        self._model = model
        self._reset()
        load.powered(True, 0.0)

    def _reset(self) -> None:
        self._set = dict(DEFAULTS)
        self._program: dict[int, list[str]] = {}
        self._clear_buffer()
        self._abort()
        self._overrun = False

    def _clear_buffer(self) -> None:
        self._groups: list[Group] = []

    def _abort(self) -> None:
        self._close_group(self.now_s)
        self._at = 0  # block that is executed, 0 while idle
        self._clock_s = 0.0  # up to when the model has run
        self._until_s: float | None = None  # end of a counted group
        self._latched = False

    # The trigger model.

    def advance(self, now_s: float) -> None:
        if not self._at:
            return
        for edge_s in self._edges(now_s):
            self._run(edge_s)
            if self._waits("EXT"):
                self._step(edge_s)
            elif self._latched:
                self._overrun = True
            else:
                self._latched = True
        self._run(now_s)

    def _edges(self, now_s: float) -> list[float]:
        """Edges of line 0 that the detector is set to, since the last call; seconds of this device's clock."""
        first = self._seen
        count = int((now_s - self._zero_s) * EDGE_HZ) - first
        if count <= 0:
            return []
        levels = (self._draw.lines(first, count, EDGE_HZ) & 1).astype(np.int64)
        steps = np.diff(levels, prepend=self._level)
        self._seen, self._level = first + count, int(levels[-1])
        wanted = {"RIS": steps > 0, "FALL": steps < 0, "EITH": steps != 0}[self._set["TRIG:EXT:IN:EDGE"][:4].upper()]
        return [self._zero_s + float(at) / EDGE_HZ for at in first + np.flatnonzero(wanted)]

    def _waits(self, event: str) -> bool:
        block = self._program.get(self._at)
        return self._until_s is None and block is not None and block[0] == "WAIT" and block[1] == event

    def _run(self, now_s: float) -> None:
        """Executes blocks until one takes longer than `now_s`."""
        while self._at:
            if self._until_s is not None:
                if self._until_s > now_s:
                    return
                self._clock_s, self._until_s = self._until_s, None
                self._at += 1
            block = self._program.get(self._at)
            if block is None:
                self._at = 0
                return
            match block[0]:
                case "BUFF":
                    self._clear_buffer()
                case "WAIT":
                    if not (self._latched and block[1] == "EXT"):
                        return
                    self._latched = False
                case "ALW":
                    self._at = int(block[1])
                    self._enter(self._at)
                    continue
                case "DIG":
                    self._close_group(self._clock_s)
                    count = int(block[2]) if block[2] != "INF" else None
                    if count is None or count:
                        self._groups.append(Group(self._made(self._clock_s), self._clock_s, count))
                    if count:
                        self._until_s = self._clock_s + count / self._rate_hz
                        continue
            self._at += 1
            self._enter(self._at)

    def _enter(self, number: int) -> None:
        block = self._program.get(number, [""])
        if block[0] == "WAIT" and "ENT" in block:
            self._latched = False

    def _step(self, now_s: float) -> None:
        self._clock_s = now_s
        self._at += 1
        self._enter(self._at)
        self._run(now_s)

    # Readings.

    @property
    def _rate_hz(self) -> float:
        return float(self._set["DIG:CURR:SRAT"])

    @property
    def _held(self) -> int:
        return int(float(self._set["TRAC:POIN"]))

    def _close_group(self, now_s: float) -> None:
        if self._groups:
            self._groups[-1].count = self._made(now_s) - self._groups[-1].first

    def _made(self, now_s: float) -> int:
        """Readings until then."""
        if not self._groups:
            return 0
        last = self._groups[-1]
        elapsed = int((now_s - last.start_s) * self._rate_hz + 1e-6)
        return last.first + (elapsed if last.count is None else min(elapsed, last.count))

    def _index(self, slot: int) -> int:
        """The newest reading in a place of the buffer, 1 on. Raises Refused for a place that is empty."""
        made = self._made(self.now_s)
        index = slot - 1 + (made - slot) // self._held * self._held
        if not 1 <= slot <= self._held or index < 0:
            raise Refused(5100, "Buffer index out of range")
        return index

    def _amperes(self, first: int, count: int) -> NDArray[np.float64]:
        made = np.empty(0)
        for group in self._groups:
            size = self._made(self.now_s) - group.first if group.count is None else group.count
            begin, end = max(first, group.first), min(first + count, group.first + size)
            if end > begin:
                at = round((group.start_s - self._zero_s) * self._rate_hz) + begin - group.first
                made = np.concatenate([made, self._draw.mean_current_a(at, end - begin, self._rate_hz)])
        range_a = float(self._set["DIG:CURR:RANG"])
        made[np.abs(made) > range_a * (1.2 if range_a < 2 else 1.01)] = OVERFLOW
        return made

    def _stamp(self, index: int) -> float:
        group = next(one for one in reversed(self._groups) if one.first <= index)
        return group.start_s + (index - group.first) / self._rate_hz - self._groups[0].start_s

    # Commands.

    def answer(self, command: str) -> bytes | None:
        header, _, rest = command.partition(" ")
        name, query = short(header), header.endswith("?")
        arguments = [part.strip().strip("\"'") for part in rest.split(",")] if rest.strip() else []
        if header.upper() == "*LANG?":
            return self.language.encode()
        if header.upper().startswith(("*LANG", "*TRG")):
            return None
        if header.upper() == "*RST":
            self._reset()
            return None
        if name.startswith("TRIG:BLOC:"):
            self._define(name.split(":")[2:], arguments)
            return None
        if query and name == "TRAC:DATA":
            return self._data(arguments)
        if query and name in ("READ", "MEAS:CURR:DC", "MEAS:CURR"):
            now = round(self.now_s * 1e3)
            return b"%.6E" % float(self._load.mean_current_a(now, 1, 1e3)[0])
        if query and name == "TRAC:ACT":
            return b"%d" % min(self._made(self.now_s), self._held)
        if query and name == "TRAC:ACT:END":
            made = self._made(self.now_s)
            return b"%d" % ((made - 1) % self._held + 1 if made else 0)
        if query and name == "TRIG:EXT:IN:OVER":
            return b"%d" % self._overrun
        return self._setting(name, query, arguments)

    def _setting(self, name: str, query: bool, arguments: list[str]) -> bytes | None:
        if name == "INIT" and not query:
            if not self._program:
                raise Refused(2705, "The trigger model is empty")
            self._abort()
            self._draw, self._zero_s = self._load.from_time(self.now_s), self.now_s
            self._seen, self._level = 0, int(self._draw.lines(0, 1, EDGE_HZ)[0] & 1)
            self._at, self._clock_s = 1, self.now_s
            self._run(self.now_s)
        elif name == "ABOR":
            self._abort()
        elif name == "TRIG:LOAD":
            self._program = {}
        elif name == "TRIG:EXT:IN:CLE":
            self._latched = self._overrun = False
        elif name == "TRAC:CLE":
            self._clear_buffer()
        elif name in self._set:
            if query:
                return self._set[name].encode()
            if name.startswith("TRAC:") and len(arguments) > 1 and arguments[1] != "defbuffer1":
                return None
            if name == "DIG:CURR:SRAT" and not 1e3 <= float(arguments[0]) <= 1e6:
                raise Refused(-222, "Parameter data out of range")
            self._set[name] = arguments[0] if not name.endswith("FUNC") else f'"{arguments[0]}"'
            if name == "TRAC:POIN":
                self._clear_buffer()
        elif name not in IGNORED:
            raise Refused(-113, "Undefined header")
        return None

    def _define(self, nodes: list[str], arguments: list[str]) -> None:
        number, rest = int(arguments[0]), arguments[1:]
        kind = nodes[-1] if nodes[0] == "BRAN" else nodes[0]
        if kind in ("MDIG", "DIG"):
            if kind != BLOCKS[self._model]:
                raise Refused(-113, "Undefined header")
            kind, rest = "DIG", [rest[0] if rest else "defbuffer1", rest[1].upper() if len(rest) > 1 else "1"]
        if kind not in ("BUFF", "WAIT", "ALW", "DIG"):
            raise Refused(-113, "Undefined header")
        self._program[number] = [kind, *rest]

    def _data(self, arguments: list[str]) -> bytes:
        begin, end = int(arguments[0]), int(arguments[1])
        elements = [one[:4].upper() for one in arguments[3:]] or ["READ"]
        wanted = self._set["FORM"][:4].upper()
        if wanted != "ASC" and not set(elements) <= {"READ", "REL", "RELA", "EXTR"}:
            raise Refused(1133, "Parameter 4, Syntax error, expected valid name parameters")
        first, last = self._index(begin), self._index(end)
        if last < first:
            raise Refused(5100, "Buffer index out of range")
        columns = [
            self._amperes(first, last - first + 1)
            if one == "READ"
            else np.array([self._stamp(index) for index in range(first, last + 1)])
            for one in elements
        ]
        rows = np.stack(columns, axis=1).ravel()
        if wanted.startswith("ASC"):
            return b",".join(b"%.6E" % value for value in rows)
        order = "<" if self._set["FORM:BORD"][:4].upper() == "SWAP" else ">"
        return b"#0" + struct.pack(f"{order}{len(rows)}{'d' if wanted == 'REAL' else 'f'}", *rows)
