"""A simulated board behind its agent: one INA226 behind a shunt of 10 milliohms at 5 V, read through Linux's driver.

It writes its lines by its own code, so that no mistake is shared with wire.py. The chip averages the shunt's and the
bus's voltage over 2.2 ms, again and again; a reading is the last average that was complete (INA226 data sheet, update
interval of 2 ms). The load begins (t = 0) when polling does. `simulator` in its hello tells whoever records.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Iterator

from joulemeter.synthetic import Draw

CONVERSION_S = 2.2e-3
SHUNT_OHM = 0.01
SHUNT_STEP_V = 2.5e-6
SHUNT_TOP = 0x7FFF
BUS_V, BUS_STEP_V = 5.0, 1.25e-3

FOLDER = "/sys/class/hwmon/hwmon0"
FIXED = {
    f"{FOLDER}/name": "ina226",
    f"{FOLDER}/device": "/sys/devices/platform/soc/i2c-1/1-0040",
    f"{FOLDER}/shunt_resistor": "10000",
    f"{FOLDER}/update_interval": "2",
}
CURRENT, POWER, BUS = f"{FOLDER}/curr1_input", f"{FOLDER}/power1_input", f"{FOLDER}/in1_input"
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
# A board is up for a while before anybody asks it; a wake-up is late by so much, and a read over I2C takes so long.
UPTIME_NS = 5_000_000_000
LATE_NS, READ_NS = 60_000, 250_000


class BoardSimulator:
    def __init__(self, load: Draw) -> None:
        self._load = self._drawn = load
        self._now_s = 0.0
        self._began_s = 0.0
        self._inbox = b""
        self._outbox: list[bytes] = []
        self._poll: _Poll | None = None
        load.powered(True, 0.0)

    def receive(self, data: bytes) -> None:
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            if line == b"ping":
                self._outbox.append(b"pong %d %d\n" % (_ns(self._now_s), _ns(self._now_s)))
            elif line == b"stop":
                if self._poll is not None:
                    self._answer({"ok": {"rounds": self._poll.slot, "late": 0}})
                self._poll = None
            elif line:
                self._obey(line)

    def _obey(self, line: bytes) -> None:
        try:
            asked = json.loads(line)
            operation = asked["op"]
        except (ValueError, TypeError, KeyError):
            return
        if operation == "hello":
            self._answer({"ok": HELLO})
        elif operation == "files":
            tree = FIXED | {path: self._text(path, self._now_s) for path in (CURRENT, POWER, BUS)}
            rows = [[path, text, None] for path, text in tree.items() if _any(path, asked["patterns"])]
            self._answer({"ok": {"files": rows}})
        elif operation == "poll" and {*asked["paths"]} <= {CURRENT, POWER, BUS, *FIXED}:
            self._began_s = self._now_s
            self._drawn = self._load.from_time(self._now_s)
            first_ns = _ns(self._now_s) + asked["interval_ns"]
            self._poll = _Poll(asked["paths"], asked["interval_ns"], asked["width"], first_ns)
            self._answer({"polling": {"first_ns": first_ns}})
        else:
            what = f"The simulated agent cannot do {asked!r}."
            self._answer({"error": {"kind": "data", "what": what, "remedy": ""}})

    def _answer(self, fields: object) -> None:
        self._outbox.append(json.dumps(fields).encode() + b"\n")

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        sent, self._outbox = b"".join(self._outbox), []
        return sent + b"".join(self._rounds())

    def _rounds(self) -> Iterator[bytes]:
        poll = self._poll
        while poll is not None and poll.due_ns + LATE_NS + READ_NS * len(poll.paths) <= _ns(self._now_s):
            at_ns = poll.due_ns + LATE_NS
            entries = []
            for path in poll.paths:
                text = self._text(path, (at_ns - UPTIME_NS) * 1e-9)
                entries.append(f'[{at_ns},{at_ns + READ_NS},"{text}",null]')
                at_ns += READ_NS
            line = f'{{"poll":[{poll.slot},[{",".join(entries)}],{poll.slot}]}}'
            yield line.encode().ljust(poll.width - 1) + b"\n"
            poll.slot += 1

    def _text(self, path: str, at_s: float) -> str:
        """What a file shows at that time of the device's clock."""
        # The last whole conversion, counted from the beginning of the load.
        whole = math.floor((at_s - self._began_s) / CONVERSION_S + 1e-9) - 1
        flow_a = self._drawn.mean_current_a(whole, 1, 1 / CONVERSION_S)[0] if whole >= 0 else 0.0
        shunt = min(round(flow_a * SHUNT_OHM / SHUNT_STEP_V), SHUNT_TOP)
        milliamperes = round(shunt * SHUNT_STEP_V / SHUNT_OHM * 1e3)
        if path == CURRENT:
            return str(milliamperes)
        if path == BUS:
            return str(round(round(BUS_V / BUS_STEP_V) * BUS_STEP_V * 1e3))
        if path == POWER:
            # The register holds 25 times the step of the current: 25 mW.
            return str(round(milliamperes * BUS_V / 25) * 25_000)
        return FIXED[path]


class _Poll:
    def __init__(self, paths: list[str], interval_ns: int, width: int, first_ns: int) -> None:
        self.paths, self.width = paths, width
        self._interval_ns, self._first_ns = interval_ns, first_ns
        self.slot = 0

    @property
    def due_ns(self) -> int:
        return self._first_ns + self.slot * self._interval_ns


def _ns(now_s: float) -> int:
    return UPTIME_NS + round(now_s * 1e9)


def _any(path: str, patterns: list[str]) -> bool:
    """fnmatch lets a star cross a slash, which does not matter in a tree of one folder."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
