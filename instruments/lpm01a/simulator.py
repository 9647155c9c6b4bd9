"""The device end of an LPM01A's cable. It packs bytes by its own code, so that no mistake is shared with wire.py.

The load begins (t = 0) at each start of an acquisition. A sample is the load's true mean current over its interval, or
that times the voltage and the interval. One line of the load is wired to D7; it is looked at 100 000 times a second,
and an edge is reported before the line of the sample in whose interval it fell. The board has power after `pwr on`, or
in the power-up state `auto` from the first acquisition on.

It names itself to `powershield`: whoever records can say so. Everything else is as UM2269 and firmware 1.0.6 have it.
What a real unit does when its buffer overflows is not known; here whole samples are left out, or the acquisition ends.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter import units
from joulemeter.errors import UsageError
from joulemeter.synthetic import Draw

LINE_RATE_HZ = 100_000
STAMP_EVERY = 1000
FULL = 100  # of the buffer, in per cent

RATES = {
    **{str(rate): float(rate) for rate in (1, 2, 5, 10, 20, 50, 100, 200, 500)},
    **{f"{rate}k": 1000.0 * rate for rate in (1, 2, 5, 10, 20, 50, 100)},
}
# What each setting may be.
SETTINGS = {
    "freq": re.compile("|".join(RATES)),
    "acqtime": re.compile(r"inf|\d+[um]?"),
    "acqmode": re.compile("dyn|stat"),
    "funcmode": re.compile("optim|high"),
    "output": re.compile("current|energy"),
    "format": re.compile("ascii_dec|bin_hexa"),
    "trigsrc": re.compile("sw|d7"),
    "trigdelay": re.compile(r"\d+m?"),
    "eventsrc": re.compile("d7 (?:fal|ris)"),
    "pwrend": re.compile("on|off"),
    "lcd": re.compile(r'[12] ".{0,16}"'),
    "targrst": re.compile(r"\d+m?"),
}
DEFAULTS = {"freq": "100", "output": "current", "format": "ascii_dec", "eventsrc": "", "pwrend": "on"}
NEEDS_1_0_6 = ("pwr", "eventsrc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    kind: str
    at_s: float
    samples: int = 0


def parse_trouble(text: str) -> list[Trouble]:
    """`overrun@1.2s:300,merge@2s`. Raises UsageError."""
    troubles = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"(overrun(?=@[^:]+:)|merge|spoil|end)@([^:]+)(?::(\d+))?", part)
        if match is None:
            raise UsageError(
                f"{part!r} is no trouble of an LPM01A.",
                "Write overrun@TIME:SAMPLES, merge@TIME, spoil@TIME or end@TIME.",
            )
        troubles.append(Trouble(kind=match[1], at_s=units.parse(match[2], "s"), samples=int(match[3] or 0)))
    return troubles


class Lpm01aSimulator:
    def __init__(self, load: Draw, *, line: int = 0, firmware: str = "1.0.6", trouble: str = "") -> None:
        """`line` of the load is wired to D7. Raises UsageError."""
        if not re.fullmatch(r"\d+\.\d+\.\d+", firmware):
            raise UsageError(f"{firmware!r} is no firmware version.", "Write it as 1.0.6.")
        self._load = self._drawn = load
        self._line = line
        self._firmware = firmware
        self._old = tuple(map(int, firmware.split("."))) < (1, 0, 6)
        self._trouble = parse_trouble(trouble)
        self._inbox = b""
        self._outbox = bytearray()
        self._now_s = 0.0
        self._settings = dict(DEFAULTS)
        self._millivolts = 3300
        self._power = "auto"
        self._supplied = self._streaming = False

    # -- what the host says -------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        for line in lines:
            if text := line.strip(b"\r\0 ").decode("latin-1"):
                self._obey(text)

    def _obey(self, text: str) -> None:
        name, _, argument = text.partition(" ")
        queries: dict[str, Callable[[], str]] = {
            "powershield": lambda: " 0-0-0 joulemeter simulator",
            "version": lambda: f": {self._firmware}",
            "status": lambda: ": ok",
            "range": lambda: " 0100-09 5000-05",
            "htc": str,
            "hrc": str,
        }
        if name == "stop":
            self._stop()
        elif name == "echo":
            self._outbox += f"\r\nPowerShield > {text}\r\n".encode()
        elif (self._old and name in NEEDS_1_0_6) or (self._streaming and name not in ("pwr", "volt", "targrst")):
            self._refuse(text)
        elif text in queries:
            self._acknowledge(text, queries[text]())
        elif name == "volt" and (argument == "get" or re.fullmatch(r"\d+m", argument)):
            self._volt(text, argument)
        elif name == "pwr" and (match := re.fullmatch(r"(auto|on|off|get)(?: (?:no)?status)?", argument)):
            self._pwr(text, match[1])
        elif name in SETTINGS and SETTINGS[name].fullmatch(argument):
            self._settings[name] = argument
            self._acknowledge(text)
        elif text == "start":
            self._acknowledge(text)
            self._start()
        else:
            self._refuse(text)

    def _acknowledge(self, text: str, added: str = "") -> None:
        self._outbox += f"\r\nPowerShield > ack {text}{added}\r\n\r\n".encode()

    def _refuse(self, text: str) -> None:
        self._outbox += f"\r\nPowerShield > error {text}\r\nError detail: invalid command or argument\r\n\r\n".encode()

    def _volt(self, text: str, argument: str) -> None:
        if argument == "get":
            self._acknowledge(text, f" {self._millivolts}-03")
        elif 1800 <= int(argument[:-1]) <= 3300:
            self._millivolts = int(argument[:-1])
            self._acknowledge(text)
        else:
            self._refuse(text)

    def _pwr(self, text: str, wanted: str) -> None:
        if wanted == "get":
            self._acknowledge(text, " on" if self._supplied else " off")
            return
        self._power = wanted
        if wanted != "auto":
            self._supply(wanted == "on")
        self._acknowledge(text)

    def _supply(self, on: bool) -> None:
        if on != self._supplied:
            self._supplied = on
            self._load.powered(on, self._now_s)

    def _start(self) -> None:
        if self._power == "auto":
            self._supply(True)
        self._streaming, self._start_s, self._made, self._number = True, self._now_s, 0, 0
        self._drawn = self._load.from_time(self._now_s)
        self._high: bool | None = None
        self._rate_hz = RATES[self._settings["freq"]]
        self._binary = self._settings["format"] == "bin_hexa"
        self._full = False
        self._left_out: set[int] = set()
        self._hurt: dict[int, str] = {}
        for trouble in self._trouble:
            first = round(trouble.at_s * self._rate_hz)
            if trouble.kind == "overrun":
                self._left_out |= set(range(first, first + trouble.samples))
            else:
                self._hurt[first] = trouble.kind

    def _stop(self) -> None:
        if not self._streaming:
            return  # nothing at all: a client that waits for an answer waits for ever
        self._outbox += self._due(self._now_s)
        self._finish(b"")

    def _finish(self, reason: bytes) -> None:
        self._streaming = False
        if self._binary:
            self._outbox += (b"\xf0\xf1" + reason + b"\r\n\xff\xff" if reason else b"") + b"\xf0\xf4\xff\xff"
        else:
            self._outbox += (b"\r\nerror: " + reason + b"\r\n" if reason else b"") + b"\r\nend\r\n"
        self._outbox += b"\r\nsummary beg\r\n0008-09\r\n9999-06\r\nsummary end\r\n"
        self._outbox += b"\r\nPowerShield > Acquisition completed\r\n"
        if self._power == "auto" and self._settings["pwrend"] == "off":
            self._supply(False)

    # -- what the host hears ------------------------------------------------------------------------------------------

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        sent = bytes(self._outbox)
        self._outbox.clear()
        sent += self._due(self._now_s)
        sent += bytes(self._outbox)  # of an acquisition that ended by itself
        self._outbox.clear()
        return sent

    def _due(self, now_s: float) -> bytes:
        if not self._streaming:
            return b""
        # A hair more than the product, so that rounding never holds a due sample back.
        count = int((now_s - self._start_s) * self._rate_hz + 1e-6) - self._made
        return self._samples(count) if count > 0 else b""

    def _samples(self, count: int) -> bytes:
        first, self._made = self._made, self._made + count
        values, falls = np.zeros(count), np.empty(0, np.int64)
        if self._supplied:
            values = self._drawn.mean_current_a(first, count, self._rate_hz)
            falls = self._falls(first, count)
        if self._settings["output"] == "energy":
            values = values * (self._millivolts / 1000) / self._rate_hz
        packed = _pack_binary(values) if self._binary else _pack_decimal(values)
        sent = bytearray()
        edges = np.bincount(falls - first, minlength=count) if len(falls) else np.zeros(count, np.int64)
        for k, sample in enumerate(packed):
            index = first + k
            if index % STAMP_EVERY == 0:
                sent += self._stamp(index)
            for _ in range(int(edges[k])):
                sent += self._event()
            hurt = self._hurt.get(index)
            if hurt == "end":
                self._outbox += sent
                self._finish(b"Acquisition stopped. Data buffer full")
                sent = self._outbox
                self._outbox = bytearray()
                return bytes(sent)
            if index in self._left_out:
                self._full = True
            else:
                sent += self._damaged(sample, hurt)
        return bytes(sent)

    def _falls(self, first: int, count: int) -> NDArray[np.int64]:
        """Sample indices in whose intervals D7 fell."""
        looks = max(1, round(LINE_RATE_HZ / self._rate_hz))
        states = self._drawn.lines(first * looks, count * looks, self._rate_hz * looks) >> self._line & 1
        before = int(states[0]) if self._high is None else int(self._high)
        self._high = bool(states[-1])
        fell = np.flatnonzero(np.diff(np.concatenate([[before], states]).astype(np.int8)) == -1)
        indices: NDArray[np.int64] = first + fell // looks
        return indices

    def _event(self) -> bytes:
        if self._binary or not self._settings["eventsrc"]:
            return b""
        number, self._number = self._number, (self._number + 1) % 100
        return f"event {number:02d} ris\r\n".encode()  # "ris" whichever edge was chosen

    def _stamp(self, index: int) -> bytes:
        milliseconds = int(index * 1000 / self._rate_hz)
        load, self._full = FULL if self._full else 0, False
        if self._binary:
            return b"\xf0\xf3" + struct.pack(">IB", milliseconds, load) + b"\xff\xff"
        seconds, rest = divmod(milliseconds, 1000)
        return f"\r\nTimeStamp: {seconds:03d}s {rest:03d}ms, buff {load:02d}%\r\n\0".encode()

    def _damaged(self, sample: bytes, hurt: str | None) -> bytes:
        match hurt:
            case "merge":
                return sample[:1]  # 3...  and the line behind it, 3930-08, make 33930-08
            case "spoil":
                return sample[:2] + b"\xe5" + sample[3:]
        return sample


def _pack_decimal(values: Iterable[float]) -> list[bytes]:
    """Four digits and a power of ten: 6409-07. Small values keep the power of their last digit, 0023-10."""
    packed = []
    for value in values:
        digits = f"{max(value, 0.0):.3e}"
        power = max(int(digits[6:]) - 3, -14) if value > 0 else -10
        mantissa = round(value * 10.0**-power) if value > 0 else 0
        if mantissa > 9999:
            mantissa, power = round(mantissa / 10), power + 1
        packed.append(f"{mantissa:04d}{'-' if power <= 0 else '+'}{abs(power):02d}\r\n".encode())
    return packed


def _pack_binary(values: NDArray[np.float64]) -> list[bytes]:
    """Twelve bits and a negative power of sixteen, the first four bits of the twelve not all zero."""
    words = []
    for value in np.maximum(values, 0.0).tolist():
        power = 0
        while power < 14 and round(value * 16 ** (power + 1)) < 4096:
            power += 1
        words.append(struct.pack(">H", power << 12 | round(value * 16**power)))
    return words
