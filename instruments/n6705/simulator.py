"""The device end of a mainframe's wire: four outputs, two of them N6781A, with the log and the arrays of each.

It packs bytes by its own code, so that no mistake is shared with wire.py. As found, somebody has switched output 1 on
at 3 V, and another program has left the log of output 2 set to current and voltage, which stretches everybody's
interval. The load is at output 1; its line 0 is wired, inverted, to the trigger input. It begins (t = 0) when the log
is initiated, or the first array after the output was set up for arrays.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused, ScpiDevice

MODULES = ("N6781A", "N6781A", "N6733B", "N6733B")
LOADED = 1
TICK_S = 20.48e-6
# In ticks: an interval of the log has five for each parameter.
TICKS_EACH, TICKS_LONGEST = 5, 2_929_687
BUFFER_S = 20.0
FOUND_V, FOUND_LIMIT_A = 3.0, 1.0

_SHORT = {
    "SENSE": "SENS", "SOURCE": "SOUR", "FUNCTION": "FUNC", "CURRENT": "CURR", "VOLTAGE": "VOLT", "PERIOD": "PER",
    "MINMAX": "MINM", "TRIGGER": "TRIG", "INITIATE": "INIT", "FETCH": "FETC", "ABORT": "ABOR", "FORMAT": "FORM",
    "BORDER": "BORD", "OUTPUT": "OUTP", "STATE": "STAT", "SWEEP": "SWE", "TINTERVAL": "TINT", "RESOLUTION": "RES",
    "RANGE": "RANG", "MEASURE": "MEAS", "CHANNEL": "CHAN", "MODEL": "MOD", "SYSTEM": "SYST", "POINTS": "POIN",
    "OFFSET": "OFFS", "ACQUIRE": "ACQ", "ARRAY": "ARR", "IMMEDIATE": "IMM", "LIMIT": "LIM", "LEVEL": "LEV",
    "AMPLITUDE": "AMPL", "COUNT": "COUN", "PROTECTION": "PROT", "NORMAL": "NORM", "SWAPPED": "SWAP", "PMODE": "PMOD",
}  # fmt: skip
# Nodes that may be left out.
_SILENT = {"IMM", "LEV", "AMPL"}
_AT = re.compile(r",?\s*(?:\(@([\d,: ]*)\)|@\(([\d,: ]*)\))\s*$")


@dataclass(slots=True)
class _Output:
    on: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    # The log: when it was initiated, the records fetched or overwritten, and how long an interval is, in ticks.
    log_s: float | None = None
    taken: int = 0
    ticks: int = TICKS_EACH
    # The array: when it was armed, on which tick its first sample is, and how long an interval is, in seconds.
    armed_s: float | None = None
    starts: int | None = None
    tint_s: float = TICK_S


class N6705Simulator(ScpiDevice):
    identity = "Keysight Technologies,N6705C,SIM00000001,E.02.07.3297"

    def __init__(
        self, load: Draw, *, on: bool = True, model: str = "N6705C", modules: tuple[str, ...] = MODULES
    ) -> None:
        super().__init__()
        self.identity = self.identity.replace("N6705C", model)
        self._modules = modules
        self._load = load
        self._drawn: Draw = load
        self._zero_s = 0.0
        self._ascii, self._swapped = True, False
        self._fine = True
        self._outputs = [_Output() for _ in modules]
        for output in self._outputs:
            output.settings = {"VOLT": 0.0, "CURR": FOUND_LIMIT_A, "CURR:LIM": FOUND_LIMIT_A, "VOLT:PROT": 22.0}
            output.settings |= {"POIN": 1024, "OFFS": 0, "TINT": TICK_S, "PER": 0.1, "PMOD": "VOLT"}
            output.settings |= {f"ELOG:{name}": False for name in ("CURR", "VOLT", "CURR:MINM", "VOLT:MINM")}
            output.settings |= {"FUNC:CURR": False, "FUNC:VOLT": True, "ELOG:SOUR": "BUS", "ACQ:SOUR": "BUS"}
            output.settings |= {f"{kind}{what}:RANG": 3.0 for kind in ("", "ELOG:") for what in ("CURR", "VOLT")}
        self._outputs[LOADED - 1].settings["VOLT"] = FOUND_V
        if len(modules) > 1:
            self._outputs[1].settings |= {"ELOG:CURR": True, "ELOG:VOLT": True}
        self._switch(LOADED, on)

    def _switch(self, number: int, on: bool) -> None:
        self._outputs[number - 1].on = on
        if number == LOADED:
            self._load.powered(on, self.now_s)

    def _parameters(self) -> int:
        """All that is logged anywhere: an average, and two more for its least and greatest value."""
        logged = [
            3 if output.settings[f"ELOG:{name}:MINM"] else 1
            for output in self._outputs
            for name in ("CURR", "VOLT")
            if output.settings[f"ELOG:{name}"]
        ]
        return sum(logged)

    def _interval_ticks(self, output: _Output) -> int:
        parameters = max(self._parameters(), 1)
        grid = 1 if self._fine and parameters <= 4 else 2
        asked: int = grid * round(output.settings["PER"] / TICK_S / grid)
        return min(max(asked, TICKS_EACH * parameters), TICKS_LONGEST)

    def busy(self) -> bool:
        return any(output.armed_s is not None for output in self._outputs)

    def advance(self, now_s: float) -> None:
        for output in self._outputs:
            if output.armed_s is not None:
                self._watch(output, now_s)

    def _watch(self, output: _Output, now_s: float) -> None:
        """Complete the record whose trigger has come, once its last sample is in."""
        before, points, tint_s = -output.settings["OFFS"], output.settings["POIN"], output.tint_s
        reached = int((now_s - self._zero_s) / tint_s)
        if output.starts is None and output.settings["ACQ:SOUR"] == "EXT" and output.armed_s is not None:
            first = int((output.armed_s - self._zero_s) / tint_s) + max(before, 0) + 1
            lines = self._drawn.lines(first - 1, max(reached - first + 2, 0), 1 / tint_s) & 1
            edges = [k for k in range(1, len(lines)) if lines[k] and not lines[k - 1]]
            if edges:
                output.starts = first - 1 + edges[0] - before
        if output.starts is not None and reached >= output.starts + points:
            output.armed_s = None

    def answer(self, command: str) -> bytes | None:
        header, _, rest = command.partition(" ")
        query = header.endswith("?")
        # qcodes and others leave a blank before the question mark's list.
        nodes = [_SHORT.get(node, node) for node in header.rstrip("?").upper().lstrip(":").split(":")]
        if nodes[0] == "SOUR":
            nodes = nodes[1:]
        name = ":".join(node for k, node in enumerate(nodes) if not k or node not in _SILENT)
        match = _AT.search(rest)
        numbers = self._numbers((match[1] or match[2]) if match else None)
        value = (rest[: match.start()] if match else rest).strip().upper()
        if query:
            return self._query(name, value, numbers)
        self._set(name, value, numbers)
        return None

    def _numbers(self, text: str | None) -> list[int]:
        """The outputs of a list such as 1,3 or 1:4. Raises Refused."""
        if text is None:
            return [1]
        numbers: list[int] = []
        for part in text.replace(" ", "").split(","):
            first, _, last = part.partition(":")
            numbers += range(int(first), int(last or first) + 1)
        if not all(1 <= number <= len(self._outputs) for number in numbers):
            raise Refused(-222, "Data out of range")
        return numbers

    def _set(self, name: str, value: str, numbers: list[int]) -> None:
        if name in ("FORM", "FORM:DATA"):
            self._ascii = value.startswith("ASC")
        elif name == "FORM:BORD":
            self._swapped = value.startswith("SWAP")
        elif name == "SENS:SWE:TINT:RES":
            self._fine = value == "RES20"
        elif name == "*RST":
            for number in range(1, len(self._outputs) + 1):
                self._switch(number, False)
        else:
            for number in numbers:
                self._set_output(name, value, number)

    def _set_output(self, name: str, value: str, number: int) -> None:
        output = self._outputs[number - 1]
        settings = output.settings
        match name:
            case "OUTP" | "OUTP:STAT":
                self._switch(number, _on(value))
            case "VOLT" | "CURR" | "CURR:LIM" | "VOLT:PROT":
                settings[name] = float(value)
            case "OUTP:PMOD":
                settings["PMOD"] = value
            case "SENS:ELOG:PER":
                settings["PER"] = float(value)
            case "SENS:SWE:TINT":
                settings["TINT"] = float(value)
            case "SENS:SWE:POIN":
                settings["POIN"] = int(value)
                self._zero_s = -1.0
            case "SENS:SWE:OFFS:POIN":
                settings["OFFS"] = int(value)
            case "TRIG:ELOG:SOUR" | "TRIG:ACQ:SOUR":
                if value not in ("IMM", "BUS", "EXT"):
                    raise Refused(-224, "Illegal parameter value")
                settings[name.removeprefix("TRIG:")] = value
            case "TRIG:ELOG" if output.log_s is None:
                raise Refused(-211, "Trigger ignored")
            case "TRIG:ELOG":
                self._begin(output)
            case "INIT:ELOG":
                if not self._parameters() or not (settings["ELOG:CURR"] or settings["ELOG:VOLT"]):
                    raise Refused(-221, "Settings conflict")
                output.log_s = float("inf")
                if settings["ELOG:SOUR"] == "IMM":
                    self._begin(output)
            case "ABOR:ELOG":
                output.log_s = None
            case "INIT:ACQ":
                self._arm(output)
            case "ABOR:ACQ":
                output.armed_s = None
            case _:
                self._set_sense(name, value, number)

    def _set_sense(self, name: str, value: str, number: int) -> None:
        settings = self._outputs[number - 1].settings
        plain = name.removeprefix("SENS:")
        key = plain.replace("ELOG:FUNC:", "ELOG:")
        if name.startswith("SENS:") and (":RANG" in plain):
            if not plain.endswith("AUTO") and value != "MAX":
                settings[plain] = float(value)
        elif name.startswith("SENS:") and key in settings and isinstance(settings[key], bool):
            both = self._modules[number - 1].startswith(("N678", "N676"))
            settings[key] = _on(value)
            if not both and settings["ELOG:CURR"] and settings["ELOG:VOLT"]:
                settings[key] = False
                raise Refused(-221, "Settings conflict")
        else:
            raise Refused(-113, "Undefined header")

    def _begin(self, output: _Output) -> None:
        output.log_s, output.taken, output.ticks = self.now_s, 0, self._interval_ticks(output)
        self._drawn = self._load.from_time(self.now_s)

    def _arm(self, output: _Output) -> None:
        output.armed_s, output.starts, output.tint_s = self.now_s, None, self._tint_s(output)
        if self._zero_s < 0:
            self._zero_s = self.now_s
            self._drawn = self._load.from_time(self.now_s)

    def _tint_s(self, output: _Output) -> float:
        """From 5.12 us, 10.24 us for two parameters, on its grid (N6705C guide, p. 213)."""
        least = 1 if not (output.settings["FUNC:CURR"] and output.settings["FUNC:VOLT"]) else 2
        quarters = max(round(output.settings["TINT"] / (TICK_S / 4)), least)
        return TICK_S / 4 * float(quarters if quarters < 4 else 4 * round(quarters / 4))

    def _query(self, name: str, value: str, numbers: list[int]) -> bytes:
        number = numbers[0]
        output = self._outputs[number - 1]
        asked: dict[str, Callable[[], bytes]] = {
            "SYST:CHAN": lambda: b"%d" % len(self._outputs),
            "SYST:CHAN:COUN": lambda: b"%d" % len(self._outputs),
            "SYST:CHAN:MOD": lambda: ",".join(self._modules[k - 1] for k in numbers).encode(),
            "FETC:ELOG": lambda: self._log(number, int(value)),
            "FETC:ARR:CURR": lambda: self._array(number, "CURR"),
            "FETC:ARR:VOLT": lambda: self._array(number, "VOLT"),
            "MEAS:VOLT": lambda: _nr3(self._volts(output)),
            "MEAS:CURR": lambda: _nr3(self._now_a(number)),
            "SENS:ELOG:PER": lambda: _nr3(self._interval_ticks(output) * TICK_S),
            "SENS:SWE:TINT": lambda: _nr3(self._tint_s(output)),
            "OUTP": lambda: b",".join(b"%d" % self._outputs[k - 1].on for k in numbers),
            "OUTP:STAT": lambda: b",".join(b"%d" % self._outputs[k - 1].on for k in numbers),
            "OUTP:PMOD": lambda: str(output.settings["PMOD"]).encode(),
        }
        if name in asked:
            return asked[name]()
        plain = name.removeprefix("SENS:").replace("ELOG:FUNC:", "ELOG:")
        plain = {"SWE:POIN": "POIN", "SWE:OFFS:POIN": "OFFS"}.get(plain, plain)
        if plain not in output.settings:
            raise Refused(-113, "Undefined header")
        return b",".join(_shown(self._outputs[k - 1].settings[plain]) for k in numbers)

    def _volts(self, output: _Output) -> float:
        return float(output.settings["VOLT"]) if output.on else 0.0

    def _amperes(self, number: int, first: int, count: int, interval_s: float) -> list[float]:
        if number != LOADED or not self._outputs[number - 1].on:
            return [0.0] * count
        return [float(one) for one in self._drawn.mean_current_a(first, count, 1 / interval_s)]

    def _now_a(self, number: int) -> float:
        return self._amperes(number, int(self.now_s / 0.01), 1, 0.01)[0]

    def _log(self, number: int, most: int) -> bytes:
        """Records of the buffer, oldest first; what it could not hold is gone without a word."""
        output = self._outputs[number - 1]
        if output.log_s is None:
            raise Refused(-230, "Data corrupt or stale")
        interval_s = output.ticks * TICK_S
        made = max(int((self.now_s - output.log_s) / interval_s), 0) if output.log_s < float("inf") else 0
        output.taken = max(output.taken, made - int(BUFFER_S / interval_s))
        first, count = output.taken, min(most, made - output.taken)
        output.taken += count
        columns = []
        for name in ("CURR", "VOLT"):
            if output.settings[f"ELOG:{name}"]:
                values = self._values(number, name, first, count, interval_s)
                columns += [values] * (1 + 2 * output.settings[f"ELOG:{name}:MINM"])
        return self._told([one for record in zip(*columns, strict=True) for one in record])

    def _values(self, number: int, name: str, first: int, count: int, interval_s: float) -> list[float]:
        if name == "CURR":
            return self._amperes(number, first, count, interval_s)
        return [self._volts(self._outputs[number - 1])] * count

    def _array(self, number: int, name: str) -> bytes:
        output = self._outputs[number - 1]
        if output.starts is None or output.armed_s is not None:
            raise Refused(-230, "Data corrupt or stale")
        return self._told(self._values(number, name, output.starts, output.settings["POIN"], output.tint_s))

    def _told(self, values: list[float]) -> bytes:
        if self._ascii:
            return b",".join(_nr3(one) for one in values)
        payload = struct.pack(f"{'<' if self._swapped else '>'}{len(values)}f", *values)
        size = str(len(payload)).encode()
        return b"#%d%b%b" % (len(size), size, payload)


def _on(value: str) -> bool:
    if value not in ("0", "1", "ON", "OFF"):
        raise Refused(-224, "Illegal parameter value")
    return value in ("1", "ON")


def _nr3(value: float) -> bytes:
    return b"%+.6E" % value


def _shown(value: Any) -> bytes:
    if isinstance(value, bool):
        return b"%d" % value
    return _nr3(float(value)) if isinstance(value, int | float) else str(value).encode()
