"""A source-measure unit that feeds the load. It writes its rows by its own code.

A reading takes its power line cycles, and reading the voltage back as much again. The 2450 has the older firmware,
which calls its block MEAS.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused, ScpiDevice

LINE_HZ = 50.0
BLOCKS = {"2450": "MEAS", "2460": "MDIG", "2461": "MDIG"}
DEFAULTS = {
    "FORM": "ASC",
    "FORM:ASC:PREC": "0",
    "FUNC": '"CURR"',
    "CURR:RANG": "1E-4",
    "CURR:RANG:AUTO": "1",
    "CURR:NPLC": "1",
    "CURR:RSEN": "0",
    "CURR:AZER": "1",
    "VOLT:RANG": "2",
    "VOLT:RANG:AUTO": "1",
    "VOLT:NPLC": "1",
    "SOUR:FUNC": "VOLT",
    "SOUR:VOLT": "0",
    "SOUR:VOLT:RANG": "0.02",
    "SOUR:VOLT:RANG:AUTO": "1",
    "SOUR:VOLT:ILIM": "1.05E-4",
    "SOUR:VOLT:READ:BACK": "1",
    "TRAC:POIN": "100000",
    "TRAC:FILL:MODE": "CONT",
}
IGNORED = ("AZER:ONCE", "STAT:PRES", "SYST:BEEP")


def short(header: str) -> str:
    """The short form of each node, without the optional ones (SCPI-99, 6.2.1)."""
    nodes = [re.sub(r"\d+$", "", node) for node in header.upper().strip(":?").split(":")]
    nodes = [node if len(node) <= 4 else node[: 3 if node[3] in "AEIOU" else 4] for node in nodes]
    nodes = nodes[1:] if nodes[0] == "SENS" and len(nodes) > 1 else nodes
    return ":".join(node for node in nodes if node not in ("DC", "LEV", "IMM", "STAT") or nodes[0] in ("STAT", "TRAC"))


class SmuSimulator(ScpiDevice):
    def __init__(self, load: Draw, model: str) -> None:
        super().__init__()
        self.identity = f"KEITHLEY INSTRUMENTS,MODEL {model},SIM00000001,1.7.12b"
        self.language = "SCPI"
        self.on = False
        self._load = self._draw = load
        self._model = model
        self._reset()

    def _reset(self) -> None:
        self._switch(False)
        self._set = dict(DEFAULTS)
        self._program: dict[int, str] = {}
        self._made = 0
        self._zero_s: float | None = None  # when the trigger model was started; None while idle

    def _switch(self, on: bool) -> None:
        if on != self.on:
            self.on = on
            self._load.powered(on, self.now_s)

    def advance(self, now_s: float) -> None:
        if self._zero_s is not None:
            self._made = int((now_s - self._zero_s) / self._interval_s + 1e-6)

    @property
    def _interval_s(self) -> float:
        back = self._set["SOUR:VOLT:READ:BACK"].upper() in ("1", "ON")
        return float(self._set["CURR:NPLC"]) / LINE_HZ * (2 if back else 1)

    def _readings(self, first: int, count: int) -> NDArray[np.float64]:
        """Amperes, seconds, volts and state of the source, (count, 4)."""
        aperture_hz = LINE_HZ / float(self._set["CURR:NPLC"])
        step = round(self._interval_s * aperture_hz)
        drawn = self._draw.mean_current_a(first * step, count * step, aperture_hz)[::step]
        limit_a, volts = float(self._set["SOUR:VOLT:ILIM"]), float(self._set["SOUR:VOLT"])
        limited = drawn > limit_a
        amperes = np.where(limited, limit_a, drawn) * self.on
        over = amperes > 1.05 * float(self._set["CURR:RANG"])
        sink = np.where(limited, volts * limit_a / np.maximum(drawn, 1e-12), volts) * self.on
        state = 8 + 32 * limited + 128 * self.on + 64 * (self._set["CURR:RSEN"].upper() in ("1", "ON"))
        stamps = np.arange(first, first + count) * self._interval_s
        return np.stack([np.where(over, 9.9e37, amperes), stamps, sink, state], axis=1)

    def answer(self, command: str) -> bytes | None:
        header, _, rest = command.partition(" ")
        name, query = short(header), header.endswith("?")
        arguments = [part.strip().strip("\"'") for part in rest.split(",")] if rest.strip() else []
        if header.upper() == "*LANG?":
            return self.language.encode()
        if header.upper() == "*RST":
            self._reset()
            return None
        if name.startswith("TRIG:BLOC:"):
            kind = name.split(":")[-1 if "BRAN" in name else 2]
            if kind not in ("BUFF", "ALW", BLOCKS[self._model]):
                raise Refused(-113, "Undefined header")
            self._program[int(arguments[0])] = kind
            return None
        if query:
            return self._query(name, arguments)
        self._command(name, arguments)
        return None

    def _query(self, name: str, arguments: list[str]) -> bytes:
        held = int(float(self._set["TRAC:POIN"]))
        match name:
            case "OUTP":
                return b"%d" % self.on
            case "READ":
                now = round(self.now_s * 1e3)
                limit_a = float(self._set["SOUR:VOLT:ILIM"])
                amperes = min(float(self._load.mean_current_a(now, 1, 1e3)[0]), limit_a) * self.on
                volts = float(self._set["SOUR:VOLT"]) * self.on
                return b"%.6E" % (volts if "VOLT" in self._set["FUNC"] else amperes)
            case "TRAC:ACT":
                return b"%d" % min(self._made, held)
            case "TRAC:ACT:END":
                return b"%d" % ((self._made - 1) % held + 1 if self._made else 0)
            case "TRAC:STAT:AVER":
                count = min(self._made, held)
                return b"%.6E" % float(self._readings(self._made - count, count)[:, 0].mean())
            case "TRAC:DATA":
                return self._data(arguments, held)
        if name not in self._set:
            raise Refused(-113, "Undefined header")
        return self._set[name].encode()

    def _data(self, arguments: list[str], held: int) -> bytes:
        begin, end = int(arguments[0]), int(arguments[1])
        elements = [one.upper() for one in arguments[3:]] or ["READ"]
        if self._set["FORM"].upper() != "ASC" and "SOURSTAT" in elements:
            raise Refused(1133, "Parameter 4, Syntax error, expected valid name parameters")
        first = begin - 1 + (self._made - begin) // held * held
        if not 1 <= begin <= end <= held or first < 0 or first + end - begin >= self._made:
            raise Refused(5100, "Buffer index out of range")
        columns = ["READ", "REL", "SOUR", "SOURSTAT"]
        digits = int(self._set["FORM:ASC:PREC"]) or 7
        return b",".join(
            f"{row[columns.index(one)]:.{digits - 1}E}".encode() if one != "SOURSTAT" else b"%d" % row[3]
            for row in self._readings(first, end - begin + 1)
            for one in elements
        )

    def _command(self, name: str, arguments: list[str]) -> None:
        match name:
            case "OUTP":
                self._switch(arguments[0].upper() in ("1", "ON"))
            case "INIT":
                if not self._program:
                    raise Refused(2705, "The trigger model is empty")
                self._draw, self._zero_s, self._made = self._load.from_time(self.now_s), self.now_s, 0
            case "ABOR":
                self._zero_s = None
            case "TRIG:LOAD":
                self._program = {}
            case "TRAC:CLE":
                self._made = 0
            case _ if name in self._set:
                if name == "SOUR:VOLT" and abs(float(arguments[0])) > 1.05 * 200:
                    raise Refused(-222, "Parameter data out of range")
                self._set[name] = arguments[0] if name != "FUNC" else f'"{arguments[0]}"'
            case _ if name not in IGNORED:
                raise Refused(-113, "Undefined header")
