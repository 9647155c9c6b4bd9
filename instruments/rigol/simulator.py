"""Rigol oscilloscopes as their clients see them: SCPI in long and short form in, preambles and pages of codes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.instrument import Options
from joulemeter.scope.bench import ScopeSimulator, Shot
from joulemeter.scope.frontend import FrontEnd
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Personality:
    """`zero` is the code in the middle of the screen; `step` codes to one of the converter, `per_div` to a division."""

    name: str
    firmware: str
    wide: int
    per_div: int
    zero: int
    step: int
    wide_codes: bool
    most_hz: float
    rates_hz: tuple[float, ...] = ()
    depths: tuple[int, ...]
    shared: bool
    screen: int
    page: int
    exponents: bool
    root: str


# Rates between are not to be had on a DHO800 (ngscopeclient/scopehal).
_DHO_HZ = (1.25e5, 2.5e5, 5e5, 1.25e6, 2.5e6, 6.25e6, 1.25e7, 3.125e7, 6.25e7, 1.5625e8, 3.125e8, 6.25e8, 1.25e9)
_LADDER = (10**3, 10**4, 10**5, 10**6, 10**7, 25 * 10**6)
PERSONALITIES = {
    "DS1054Z": Personality(
        name="DS1054Z",
        firmware="00.04.04.SP3",
        wide=12,
        per_div=25,
        zero=127,
        step=1,
        wide_codes=False,
        most_hz=1e9,
        depths=(12_000, 120_000, 1_200_000, 12_000_000, 24_000_000),
        shared=True,
        screen=1200,
        page=250_000,
        exponents=False,
        root="FUNC",
    ),
    "MSO5074": Personality(
        name="MSO5074",
        firmware="00.01.03.00.03",
        wide=10,
        per_div=25,
        zero=128,
        step=1,
        wide_codes=False,
        most_hz=8e9,
        depths=_LADDER,
        shared=False,
        screen=1000,
        page=250_000_000,
        exponents=True,
        root="",
    ),
    "DHO804": Personality(
        name="DHO804",
        firmware="00.01.03.00.04",
        wide=10,
        per_div=7500,
        zero=32768,
        step=16,
        wide_codes=True,
        most_hz=1.25e9,
        rates_hz=_DHO_HZ,
        depths=_LADDER,
        shared=False,
        screen=1000,
        page=250_000,
        exponents=True,
        root="REC",
    ),
}

_COMMAND = re.compile(r":?([A-Za-z0-9:]+)(\?)?\s*(.*)", re.DOTALL)
_NODE = re.compile(r"([A-Z]+)(\d?)")
# After :SING it still says for a while that it is stopped.
LAG_S = 0.001
# How far back a running oscilloscope looks for what it shows.
SEEN_S = 0.1
_BLANK = "{kind},{mode},0,1,0.000000,0.000000,0,0.000000,0,0"


def _whole(making: Generator[int, None, Shot]) -> Shot:
    while True:
        try:
            next(making)
        except StopIteration as end:
            shot: Shot = end.value
            return shot


class RigolSimulator(ScopeSimulator):
    """`blanks` preambles say nothing, `empties` acquisitions bring nothing, pages end after `short_page` points.

    `deaf`: it does not hear :SING, as firmware at times.
    """

    late_s = LAG_S

    def __init__(self, load: Draw, settings: Mapping[str, str], options: Options) -> None:
        front = FrontEnd.of(settings, options)
        super().__init__(load, front)
        self.kind = PERSONALITIES[settings["model"]]
        self.identity = f"RIGOL TECHNOLOGIES,{self.kind.name},SIM00000001,{self.kind.firmware}"
        self.codes_per_div = float(self.kind.per_div)
        self.limit = min(self.kind.zero + 1, 32767)
        self.blanks = self.empties = 0
        self.short_page: int | None = None
        self.deaf = False
        self.depth_at: int | None = None
        self.tdiv_s, self.offset_s = 5e-4, 2.5e-3
        self.sweep_mode, self.running = "AUTO", True
        self.level_v, self.source = front.level_v, front.trigger
        self.wave_source, self.wave_mode, self.word = 1, "NORM", False
        self.start, self.stop = 1, self.kind.screen
        self.texts: dict[str, str] = {"ACQ:TYPE": "NORM", "TIM:MODE": "MAIN", "TRIG:MODE": "EDGE", "TRIG:COUP": "DC"}
        self.recording, self.frames, self.frame, self.interval_s = False, 10, 1, 1e-7
        self._kept: list[Shot] = []
        self._screen: Shot | None = None
        self._as_if_set_by_hand(front)
        self._base()

    def _as_if_set_by_hand(self, front: FrontEnd) -> None:
        """Both signals on the screen, for clients that only look."""
        for number, top_v, factor in (
            (front.trigger, front.high_v, front.trigger_attenuation),
            (front.current, front.peak_a * front.volts_per_ampere, front.attenuation),
        ):
            channel = self.channels[number]
            least = top_v / 6
            decade = 10.0 ** np.floor(np.log10(least))
            scale = float(next(step * decade for step in (1, 2, 5, 10) if step * decade >= least * 0.999))
            channel.on, channel.attenuation = True, factor
            channel.volts_per_div, channel.centre_v = scale, 3 * scale

    # -- time and memory ----------------------------------------------------------------------------------------------

    @property
    def _share(self) -> int:
        """What the memory is divided by: channels in use, the trigger's among them."""
        if not self.kind.shared:
            return 1
        used = {number for number, channel in self.channels.items() if channel.on} | {self.source}
        return 1 if len(used) == 1 else 2 if len(used) == 2 else 4

    def _base(self) -> None:
        # AUTO takes the least depth here, of which there is little to compute.
        depth = self.kind.depths[self.depth_at or 0] // self._share
        width_s = self.kind.wide * self.tdiv_s
        rate = min(depth / width_s, self.kind.most_hz / self._share)
        if self.kind.rates_hz:
            rate = max((one for one in self.kind.rates_hz if one <= rate * (1 + 1e-9)), default=depth / width_s)
        self.base.rate_hz, self.base.points = rate, depth
        self.base.before = round(depth / 2 - self.offset_s * rate)

    def _running_shot(self) -> Shot:
        """What a running oscilloscope shows now."""
        after_s = (self.base.points - self.base.before) / self.base.rate_hz
        latest_s = max(self.now_s - after_s, self.base.before / self.base.rate_hz)
        at = self.bench.trigger_after(max(latest_s - SEEN_S, 0.0), latest_s, self.base.rate_hz, rising=self.rising)
        return _whole(
            self.bench.shot(latest_s if at is None else at, self.base, self.channels, self.codes_per_div, self.limit)
        )

    def arm(self, records: int) -> None:
        if self.sweep.shots:
            # A memory keeps what it holds until the next trigger.
            self._kept = self.sweep.shots
        super().arm(records)

    def busy(self) -> bool:
        # *OPC? does not wait for a trigger.
        return False

    def advance(self, now_s: float) -> None:
        was = self.armed
        super().advance(now_s)
        if was and not self.armed and self.empties:
            self.empties -= 1
            self.sweep.shots, self._kept = [], []

    def _status(self) -> str:
        if self.running:
            return "AUTO" if self.sweep_mode == "AUTO" else "TD"
        began_s = self.sweep.armed_s
        if began_s is None or self.now_s < began_s:
            return "STOP"
        if self.now_s < self._searched_s and not self.sweep.shots:
            return "RUN"
        at = self.bench.trigger_after(self._searched_s, self.now_s, self.base.rate_hz, rising=self.rising)
        return "WAIT" if at is None else "TD"

    def _memory(self) -> Shot | None:
        """The record that can be read."""
        if self.running:
            return None
        shots = self.sweep.shots or self._kept
        if not shots:
            return self._screen
        return shots[min(self.frame if self.recording else len(shots), len(shots)) - 1]

    # -- commands -----------------------------------------------------------------------------------------------------

    def answer(self, command: str) -> bytes | None:
        if command.upper() == "*WAI":
            return None
        match = _COMMAND.fullmatch(command.strip())
        if match is None:
            raise Refused(-113, "Undefined header")
        nodes, number = [], 0
        for node in match[1].upper().split(":"):
            parts = _NODE.fullmatch(node)
            if parts is None:
                raise Refused(-113, "Undefined header")
            nodes.append(_short(parts[1]))
            number = int(parts[2] or number)
        if nodes[0] == "TIM" and nodes[1:2] == ["MAIN"]:
            del nodes[1]
        head, value = ":".join(nodes), match[3].strip()
        if not match[2]:
            self._told(head, number, value)
            return None
        given = self._asked(head, number)
        return given.encode("latin-1") if isinstance(given, str) else given

    def _told(self, head: str, number: int, value: str) -> None:
        if head.startswith("CHAN:"):
            self._tell_channel(number, head.removeprefix("CHAN:"), value)
            return
        if self.kind.root and head.startswith(self.kind.root + ":"):
            self._tell_frames(head.removeprefix(self.kind.root + ":"), value)
            return
        if head in self.texts:
            self.texts[head] = value.upper()
            return
        setters: dict[str, Callable[[str], None]] = {
            "RUN": lambda _: self._run(),
            "STOP": lambda _: self._halt(),
            "SING": lambda _: self._single(),
            "ACQ:MDEP": self._set_depth,
            "TIM:SCAL": lambda text: setattr(self, "tdiv_s", float(text)),
            "TIM:OFFS": lambda text: setattr(self, "offset_s", float(text)),
            "TRIG:SWE": lambda text: setattr(self, "sweep_mode", text.upper()[:4]),
            "TRIG:EDGE:SOUR": lambda text: setattr(self, "source", _channel(text)),
            "TRIG:EDGE:SLOP": lambda text: setattr(self, "rising", text.upper().startswith("POS")),
            "TRIG:EDGE:LEV": lambda text: setattr(self, "level_v", float(text)),
            "WAV:SOUR": lambda text: setattr(self, "wave_source", _channel(text)),
            "WAV:MODE": self._set_mode,
            "WAV:FORM": lambda text: setattr(self, "word", text.upper() == "WORD"),
            "WAV:STAR": lambda text: setattr(self, "start", int(float(text))),
            "WAV:STOP": lambda text: setattr(self, "stop", int(float(text))),
            "MATH:DISP": lambda _: None,
        }
        if head not in setters:
            raise Refused(-113, "Undefined header")
        try:
            setters[head](value)
        except ValueError as error:
            raise Refused(-224, "Illegal parameter value") from error
        self._base()

    def _asked(self, head: str, number: int) -> str | bytes:
        if head.startswith("CHAN:"):
            return self._ask_channel(number, head.removeprefix("CHAN:"))
        if self.kind.root and head.startswith(self.kind.root + ":"):
            return self._ask_frames(head.removeprefix(self.kind.root + ":"))
        if head in self.texts:
            return self.texts[head]
        if head == "WAV:DATA":
            return self._page()
        if head == "WAV:PRE":
            return self._preamble()
        field = {"XINC": 4, "XOR": 5, "XREF": 6, "YINC": 7, "YOR": 8, "YREF": 9}.get(head.removeprefix("WAV:"))
        if field is not None:
            return self._preamble().split(",")[field]
        told: dict[str, Callable[[], str]] = {
            "ACQ:MDEP": lambda: "AUTO" if self.depth_at is None else self._integer(self.base.points),
            "ACQ:SRAT": lambda: self._real(self.base.rate_hz),
            "TIM:SCAL": lambda: self._real(self.tdiv_s),
            "TIM:OFFS": lambda: self._real(self.offset_s),
            "TRIG:STAT": self._status,
            "TRIG:SWE": lambda: self.sweep_mode,
            "TRIG:EDGE:SOUR": lambda: f"CHAN{self.source}",
            "TRIG:EDGE:SLOP": lambda: "POS" if self.rising else "NEG",
            "TRIG:EDGE:LEV": lambda: self._real(self.level_v),
            "WAV:SOUR": lambda: f"CHAN{self.wave_source}",
            "WAV:MODE": lambda: self.wave_mode,
            "WAV:FORM": lambda: "WORD" if self.word else "BYTE",
            "WAV:STAR": lambda: str(self.start),
            "WAV:STOP": lambda: str(self.stop),
            "MATH:DISP": lambda: "0",
        }
        if head not in told:
            raise Refused(-113, "Undefined header")
        return told[head]()

    def _real(self, value: float) -> str:
        return f"{value:.6E}" if self.kind.exponents else f"{value:.6e}"

    def _integer(self, value: int) -> str:
        return f"{value:.4E}" if self.kind.exponents else str(value)

    def _tell_channel(self, number: int, name: str, value: str) -> None:
        channel = self.channels[number]
        match name:
            case "DISP":
                channel.on = value.upper() in ("1", "ON")
                self._base()
            case "SCAL":
                channel.volts_per_div = float(value)
            case "OFFS":
                channel.centre_v = -float(value)
            case "PROB":
                if float(value) not in (0.01, 0.1, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
                    raise Refused(-224, "Illegal parameter value")
                # The scale is told at the tip.
                channel.volts_per_div *= float(value) / channel.attenuation
                channel.attenuation = float(value)
            case "COUP" | "BWL" | "INV" | "UNIT":
                self.texts[f"CHAN{number}:{name}"] = value.upper()
            case _:
                raise Refused(-113, "Undefined header")

    def _ask_channel(self, number: int, name: str) -> str:
        channel = self.channels[number]
        match name:
            case "DISP":
                return str(int(channel.on))
            case "SCAL":
                return self._real(channel.volts_per_div)
            case "OFFS":
                return self._real(-channel.centre_v)
            case "PROB":
                return self._real(channel.attenuation)
            case "COUP":
                return self.texts.get(f"CHAN{number}:COUP", "DC")
            case "BWL":
                return self.texts.get(f"CHAN{number}:BWL", "OFF")
        raise Refused(-113, "Undefined header")

    def _set_depth(self, text: str) -> None:
        if not self.running:
            raise Refused(-221, "Settings conflict")
        if text.upper() == "AUTO":
            self.depth_at = None
            return
        unit = {"K": 10**3, "M": 10**6}.get(text.upper()[-1:], 1)
        points = round(float(text.rstrip("kKM")) * unit) * self._share
        if points not in self.kind.depths:
            raise Refused(-224, "Illegal parameter value")
        self.depth_at = self.kind.depths.index(points)

    def _set_mode(self, text: str) -> None:
        mode = text.upper()[:4]
        if mode not in ("NORM", "MAX", "MAXI", "RAW"):
            raise ValueError(text)
        self.wave_mode = mode[:3] if mode.startswith("MAX") else mode

    def _run(self) -> None:
        self.halt()
        self.running = True

    def _halt(self) -> None:
        if self.running:
            self._screen = self._running_shot()
            self.sweep.shots, self._kept = [], []
        self.running = False
        self.halt()

    def _single(self) -> None:
        if self.deaf:
            self.running = False
            return
        self.running, self.sweep_mode = False, "SING"
        self.arm(1)

    # -- frames -------------------------------------------------------------------------------------------------------

    def _tell_frames(self, name: str, value: str) -> None:
        count = "FRAM" if self.kind.root == "REC" else "FEND"
        match name:
            case "WREC:ENAB":
                self.recording = value.upper() in ("1", "ON")
                self.running = not self.recording
                self.halt()
            case "WREC:OPER" if value.upper() == "RUN" and self.recording:
                self.frame = 1
                self.running = False
                self.sweep.shots, self._kept = [], []
                self.arm(self.frames)
            case "WREC:OPER" if value.upper() == "STOP":
                self.halt()
            case "WREP:FCUR":
                if not 1 <= int(value) <= len(self.sweep.shots):
                    raise Refused(-222, "Data out of range")
                self.frame = int(value)
            case "WREC:FINT":
                self.interval_s = float(value)
            case "WREC:PROM" | "WREP:OPER":
                pass
            case _ if name == f"WREC:{count}":
                self.frames = int(value)
            case _:
                raise Refused(-113, "Undefined header")

    def _ask_frames(self, name: str) -> str:
        match name:
            case "WREC:ENAB":
                return str(int(self.recording))
            case "WREC:OPER":
                return "RUN" if self.armed else "STOP"
            case "WREC:FMAX":
                return str(min(65000, self.kind.depths[-1] // self._share // self.base.points))
            case "WREP:FMAX":
                # The DHO tells what it could hold, the DS1000Z what it has.
                return str(self.frames if self.kind.root == "REC" else len(self.sweep.shots))
            case "WREP:FCUR":
                # Where it is, not how many there are: 1 before the first trigger and after it.
                return str(max(len(self.sweep.shots), 1) if self.armed else self.frame)
        raise Refused(-113, "Undefined header")

    # -- waveforms ----------------------------------------------------------------------------------------------------

    @property
    def _deep(self) -> bool:
        return self.wave_mode == "RAW" or (self.wave_mode == "MAX" and not self.running)

    def _shown(self) -> Shot | None:
        """The record that is told: of the memory, or what the screen shows."""
        return self._running_shot() if self.running and not self._deep else self._memory()

    def _which(self) -> slice | NDArray[np.intp]:
        """The samples of it that are told."""
        if self._deep:
            return slice(0, self.base.points)
        shown = self.kind.wide * self.tdiv_s * self.base.rate_hz
        steps = np.arange(self.kind.screen) * (shown / self.kind.screen)
        return np.clip(((self.base.points - shown) / 2 + steps).astype(np.intp), 0, self.base.points - 1)

    def _axis(self) -> tuple[float, float]:
        """Interval of the samples that are told, and when the first one is."""
        if self._deep:
            return 1 / self.base.rate_hz, self.offset_s - self.base.points / 2 / self.base.rate_hz
        width_s = self.kind.wide * self.tdiv_s
        return width_s / self.kind.screen, self.offset_s - width_s / 2

    def _preamble(self) -> str:
        kind, mode = int(self.word), {"NORM": 0, "MAX": 1, "RAW": 2}[self.wave_mode]
        channel = self.channels[self.wave_source]
        missing = self._deep and self._memory() is None
        if self.blanks or missing or not channel.on:
            self.blanks -= bool(self.blanks)
            return _BLANK.format(kind=kind, mode=mode)
        interval_s, begin_s = self._axis()
        points = self.base.points if self._deep else self.kind.screen
        if self.kind.exponents and self.kind.wide_codes:
            points = min(self.stop - self.start + 1, points)
        volts = channel.volts_per_div / self._per_div
        origin = round(-channel.centre_v / volts)
        fields = [str(kind), str(mode), str(points), "1", self._real(interval_s), self._real(begin_s), "0"]
        return ",".join([*fields, self._real(volts), str(origin), str(self._zero)])

    @property
    def _narrowed(self) -> int:
        """A 12-bit oscilloscope that is asked for bytes gives the upper ones."""
        return 256 if self.kind.wide_codes and not self.word else 1

    @property
    def _per_div(self) -> float:
        return self.kind.per_div / self._narrowed

    @property
    def _zero(self) -> int:
        return self.kind.zero // self._narrowed

    def _page(self) -> bytes:
        shot = self._shown()
        codes = None if shot is None else shot.codes.get(self.wave_source)
        if codes is None:
            return b"#9%09d" % 0
        limit = self.kind.page // (2 if self.word and not self.kind.wide_codes else 1)
        told = codes[self._which()][self.start - 1 : self.stop]
        if self._deep and (len(told) > limit or self.start < 1):
            raise Refused(-222, "Data out of range")
        if self.short_page is not None:
            told = told[: self.short_page]
        highest = 65535 if self.kind.wide_codes else 255
        unsigned = np.clip(told.astype(np.int32) + self.kind.zero, 0, highest) // self.kind.step * self.kind.step
        data = (unsigned // self._narrowed).astype("<u2" if self.word else "u1").tobytes()
        return b"#9%09d" % len(data) + data


def _short(word: str) -> str:
    """The short form of a keyword: four letters, or three where the fourth is a vowel (SCPI-99, volume 1, 6.2.1)."""
    return word if len(word) <= 4 else word[:3] if word[3] in "AEIOU" else word[:4]


def _channel(text: str) -> int:
    match = re.fullmatch(r"CHAN(?:NEL)?([1-4])", text.strip().upper())
    if match is None:
        raise ValueError(text)
    return int(match[1])
