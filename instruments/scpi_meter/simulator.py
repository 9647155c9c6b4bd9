"""The device end: an instrument that answers the questions of a profile, for a load that it draws.

It reads the same TOML data as the driver and shares no code with it: commands are understood as SCPI-99 (volume 1, 6.2)
has them, in the long and the short form, so that other programs are answered as well. What it shows is the mean over
one refresh, until the next is complete. An output carries its voltage from the beginning; the board hangs on one.
"""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from joulemeter.errors import UsageError
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused, ScpiDevice

# Nodes that SCPI lets out.
OPTIONAL = {"SCAL", "DC", "LEV", "IMM", "AMPL"}
ROOTS = {"SOUR", "SENS"}
IN_SI = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6}
WHOLE_UNITS = {"Wh": 3600.0, "Ah": 3600.0, "A": 1.0, "V": 1.0, "W": 1.0, "J": 1.0, "C": 1.0, "s": 1.0}
# No real instrument has this serial number.
SERIAL = "SIM00000001"


def short(text: str) -> str:
    """A command in its shortest form: `:MEASure:VOLTage:DC? (@1)` is `MEAS:VOLT? (@1)`."""
    header, _, given = text.strip().partition(" ")
    nodes = [_node(node) for node in header.upper().strip(":").rstrip("?").split(":")]
    nodes = [node for node in nodes if node not in OPTIONAL] or nodes
    if len(nodes) > 1 and nodes[0] in ROOTS:
        nodes = nodes[1:]
    if len(nodes) > 1 and nodes[0] == "OUTP" and nodes[-1] == "STAT":
        nodes = nodes[:-1]
    given = re.sub(r"\bOFF\b", "0", re.sub(r"\bON\b", "1", re.sub(r"\s+", "", given.upper())))
    return ":".join(nodes) + "?" * header.endswith("?") + f" {given}".rstrip()


def _node(node: str) -> str:
    """Four letters, three where the fourth is a vowel."""
    word, digits = re.fullmatch(r"(.*?)(\d*)", node, re.DOTALL).groups()  # type: ignore[union-attr]
    if len(word) <= 4:
        return node
    return (word[:3] if word[3] in "AEIOU" else word[:4]) + digits


def si(text: str) -> float:
    """What a number with its unit is in the SI unit."""
    number, unit = re.fullmatch(r"\s*([-+.\deE]*?)\s*([A-Za-z]+)\s*", text).groups()  # type: ignore[union-attr]
    whole = next(each for each in WHOLE_UNITS if unit.endswith(each))
    return float(number or 1) * IN_SI[unit.removesuffix(whole)] * WHOLE_UNITS[whole]


class ScpiMeterSimulator(ScpiDevice):
    latency_s = 1e-3

    def __init__(self, load: Draw, profile: str, channel: str, volts: float) -> None:
        """Raises UsageError."""
        super().__init__()
        data = _data(profile)
        rows = data.get("channel", [{"name": ""}])
        self._names: list[str] = [row["name"] for row in rows]
        if channel not in ("auto", *self._names):
            raise UsageError(f"The simulated instrument has no channel {channel!r}.", f"It has {self._names}.")
        self._board = self._names[0] if channel == "auto" else channel
        self._selected = self._names[0]
        self._masks: dict[str, int] = {row["name"]: row["mask"] for row in rows if "mask" in row}
        self._load = load
        self._set_v = dict.fromkeys(self._names, volts)
        self._on = {name: name == self._board for name in self._names}
        self.identity = ",".join((data["makers"][0].strip("*"), data["models"][0].strip("*"), SERIAL, "0.0"))
        self._rate_hz = 1 / max(si(reading["refresh"]) for reading in data["reading"])
        self._shown, self._current_a = 0, float(load.mean_current_a(0, 1, self._rate_hz)[0])
        self._charge_c = self._energy_j = 0.0
        self._kept = {short(header): "1" for header in data.get("keep", [])}
        self._rules: list[tuple[re.Pattern[str], Callable[[re.Match[str]], str | None]]] = []
        self._learn(data)
        load.powered(True, 0.0)

    # -- what it understands -------------------------------------------------------------------------------------------

    def _learn(self, data: dict[str, Any]) -> None:
        by_query: dict[str, list[dict[str, Any]]] = {}
        for reading in data["reading"]:
            for part, field in _parts(reading):
                by_query.setdefault(part, []).append({**reading, "field": field})
        for query, readings in by_query.items():
            self._rule(query, partial(self._measured, readings))
        selects = [command for command in data.get("setup", []) if "{channel}" in command]
        for command in selects:
            header, _, given = command.partition(" ")
            self._rule(command, self._select)
            self._rule(f"{header}?", partial(self._chosen, given))
        for command in (*data.get("setup", []), *data.get("restore", [])):
            if command not in selects:
                self._rule(command, lambda match: None)
        if "supply" in data:
            supply = data["supply"]
            for key, act in (("set", self._set), ("on", self._switch_on), ("off", self._switch_off)):
                for command in supply[key]:
                    self._rule(command, act)
            self._rule(supply["state"], self._state)
            self._rule(supply["voltage"], lambda match: f"{self._set_v[self._channel(match)]:.4f}")

    def _rule(self, template: str, act: Callable[[re.Match[str]], str | None]) -> None:
        # Letters stand in for the placeholders while the rest is shortened.
        pattern = re.escape(short(template.replace("{channel}", "7777777").replace("{volts}", "8888888")))
        names = "|".join(map(re.escape, self._names))
        pattern = pattern.replace("7777777", f"(?P<channel>{names})").replace("8888888", r"(?P<volts>[-+.\dE]+)")
        self._rules.append((re.compile(pattern), act))

    def answer(self, command: str) -> bytes | None:
        said = short(command)
        for pattern, act in self._rules:
            match = pattern.fullmatch(said)
            if match is not None:
                given = act(match)
                return None if given is None else given.encode()
        header, _, value = said.partition(" ")
        if header.endswith("?") and header[:-1] in self._kept:
            return self._kept[header[:-1]].encode()
        if header in self._kept:
            self._kept[header] = value
            return None
        raise Refused(-113, "Undefined header")

    def _channel(self, match: re.Match[str]) -> str:
        return match.groupdict().get("channel") or self._selected

    def _select(self, match: re.Match[str]) -> None:
        self._selected = self._channel(match)

    def _chosen(self, given: str, match: re.Match[str]) -> str:
        return given.replace("{channel}", self._selected)

    # -- what it does --------------------------------------------------------------------------------------------------

    def _set(self, match: re.Match[str]) -> None:
        volts = match.groupdict().get("volts")
        if volts is not None:
            self._set_v[self._channel(match)] = float(volts)

    def _switch_on(self, match: re.Match[str]) -> None:
        self._switch(self._channel(match), True)

    def _switch_off(self, match: re.Match[str]) -> None:
        self._switch(self._channel(match), False)

    def _switch(self, name: str, on: bool) -> None:
        if self._on[name] is not on and name == self._board:
            self._load.powered(on, self.now_s)
        self._on[name] = on

    def _state(self, match: re.Match[str]) -> str:
        if self._masks:
            return f"0x{sum(mask for name, mask in self._masks.items() if self._on[name]):x}"
        return str(int(self._on[self._channel(match)]))

    def advance(self, now_s: float) -> None:
        due = int(now_s * self._rate_hz + 1e-6) - self._shown
        if due <= 0:
            return
        means = self._load.mean_current_a(self._shown, due, self._rate_hz)
        self._shown += due
        self._current_a = float(means[-1])
        if self._on[self._board]:
            charge_c = float(means.sum()) / self._rate_hz
            self._charge_c += charge_c
            self._energy_j += charge_c * self._set_v[self._board]

    def _measured(self, readings: list[dict[str, Any]], match: re.Match[str]) -> str:
        name = self._channel(match)
        volts = self._set_v[name] * self._on[name]
        amperes = self._current_a * (self._on[name] and name == self._board)
        values = {
            "current": amperes,
            "voltage": volts,
            "power": volts * amperes,
            "charge": self._charge_c,
            "energy": self._energy_j,
        }
        fields = [0.0] * max(reading["field"] for reading in readings)
        for reading in readings:
            value = values[reading["quantity"]]
            if "wrap" in reading:
                value %= si(reading["wrap"])
            fields[reading["field"] - 1] = value / (si(reading["unit"]) if "unit" in reading else 1.0)
        return ",".join(f"{value:+.8E}" for value in fields)


def _parts(reading: dict[str, Any]) -> list[tuple[str, int]]:
    """The questions of one message, each answered by itself, and which field of its answer holds the reading."""
    parts = reading["query"].split(";")
    field = reading.get("field", 1)
    return [(parts[0], field)] if len(parts) == 1 else [(parts[field - 1], 1)]


def _data(profile: str) -> dict[str, Any]:
    if profile.endswith(".toml") or "/" in profile or "\\" in profile:
        place = Path(profile)
    else:
        place = importlib.resources.files(__package__) / "profiles" / f"{profile}.toml"  # type: ignore[assignment]
    try:
        return tomllib.loads(place.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise UsageError(f"There is no profile {profile!r} to simulate ({error}).", "Name one, or a file.") from error
