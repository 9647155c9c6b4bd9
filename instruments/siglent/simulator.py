"""Siglents as their clients see them: one of each dialect, and commands in the long and the short form."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping

import numpy as np

from joulemeter.instrument import Options
from joulemeter.scope.bench import ScopeSimulator, Shot
from joulemeter.scope.frontend import FrontEnd
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused

_COMMAND = re.compile(r"([:*\w]+)(\?)?\s*(.*)")
_OLD_CHANNEL = re.compile(r"C(\d):(\w+)")
_NEW_CHANNEL = re.compile(r"CHAN(\d):([\w:]+)")
_NUMBER = re.compile(r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*([munkKMG]?)")
_SCALES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9}
_OLD_RATES = [digit * 10.0**power for power in range(3, 9) for digit in (1, 2.5, 5)] + [1e9]
_NEW_SIGNAL, _READY = 1, 1 << 13
# The guide's list of time scales, which the descriptor gives a place in.
_STEPS = [f"{digit}e{power:+03d}" for power in range(-10, 4) for digit in (1, 2, 5)][1:]
# What all records of a sequence share.
_TOTAL_POINTS = 1_600_000
_CLOCK_S = 7 * 3600 + 48 * 60 + 9.25


def simulator(load: Draw, settings: Mapping[str, str], options: Options) -> OldSimulator | NewSimulator:
    """The model that the setting names."""
    kind = OldSimulator if settings["model"].endswith("-E") else NewSimulator
    return kind(load, settings, options)


def _number(text: str) -> float:
    match = _NUMBER.match(text)
    if match is None:
        raise Refused(-104, "Data type error")
    return float(match[1]) * _SCALES[match[2]]


def _block(payload: bytes) -> bytes:
    return b"#9%09d" % len(payload) + payload + b"\n"


class OldSimulator(ScopeSimulator):
    """The old dialect: headers off or short, bytes only, units behind numbers, two line feeds behind blocks."""

    codes_per_div = 25.0
    limit = 127

    def __init__(self, load: Draw, settings: Mapping[str, str], options: Options) -> None:
        super().__init__(load, FrontEnd.of(settings, options))
        self.identity = f"Siglent Technologies,{settings['model']},SIM00000001,8.2.6.1.37R9"
        self.header = "SHORT"
        self.tdiv_s, self.delay_s, self.depth = 1e-3, 0.0, 14e6
        self.mode = "AUTO"
        self.states = 0
        self._told = True
        self._sparse = {"SP": "0", "NP": "0", "FP": "0"}
        self._held_settings = {"TRSE": "EDGE,SR,C1,HT,OFF", "ACQW": "SAMPLING", "BWL": "C1,OFF"}
        self._channel_held = {number: {"CPL": "D1M", "UNIT": "V", "TRCP": "DC"} for number in self.channels}
        self._levels = dict.fromkeys(self.channels, 0.0)
        self._base()

    def _base(self) -> None:
        width_s = 14 * self.tdiv_s
        fitting = [rate for rate in _OLD_RATES if rate * width_s <= self.depth * (1 + 1e-9)]
        self.base.rate_hz = fitting[-1] if fitting else _OLD_RATES[0]
        self.base.points = round(width_s * self.base.rate_hz)
        self.base.before = round((width_s / 2 - self.delay_s) * self.base.rate_hz)

    def advance(self, now_s: float) -> None:
        since_s = self.sweep.armed_s
        if since_s is not None and not self._told and now_s >= since_s:
            self.states |= _READY
            self._told = True
        was = self.armed
        super().advance(now_s)
        if was and not self.armed:
            self.states |= _NEW_SIGNAL
            self.mode = "STOP"

    def answer(self, command: str) -> bytes | None:
        match = _COMMAND.fullmatch(command)
        if match is None:
            raise Refused(-113, "Undefined header")
        name, asked, value = match[1].upper().lstrip(":"), bool(match[2]), match[3].strip()
        if channel := _OLD_CHANNEL.fullmatch(name):
            return self._channel(int(channel[1]), channel[2], asked, value)
        if asked:
            return self._query(name, value)
        self._obey(name, value)
        return None

    def _said(self, head: str, value: str, unit: str = "") -> bytes:
        if self.header == "OFF":
            return value.encode()
        return f"{head} {value}{unit}".encode()

    def _channel(self, number: int, name: str, asked: bool, value: str) -> bytes | None:
        channel, held = self.channels[number], self._channel_held[number]
        head = f"C{number}:{name}"
        if asked:
            if name in ("WF", "WAVEFORM"):
                return self._waveform(number, value.upper())
            known = {
                "TRA": ("ON" if channel.on else "OFF", ""),
                "VDIV": (f"{channel.volts_per_div:.2E}", "V"),
                "OFST": (f"{-channel.centre_v:.2E}", "V"),
                "ATTN": (f"{channel.attenuation:g}", ""),
                "TRLV": (f"{self._levels[number]:.2E}", "V"),
                "TRSL": ("POS" if self.rising else "NEG", ""),
                **{key: (text, "") for key, text in held.items()},
            }
            if name not in known:
                raise Refused(-113, "Undefined header")
            return self._said(head, *known[name])
        match name:
            case "TRA":
                channel.on = value.upper() == "ON"
            case "VDIV":
                channel.volts_per_div = _number(value)
            case "OFST":
                channel.centre_v = -_number(value)
            case "ATTN":
                channel.volts_per_div *= float(value) / channel.attenuation
                channel.attenuation = float(value)
            case "TRLV":
                self._levels[number] = _number(value)
            case "TRSL":
                self.rising = value.upper() == "POS"
            case _ if name in held:
                held[name] = value
            case _:
                raise Refused(-113, "Undefined header")
        return None

    def _query(self, name: str, value: str) -> bytes:
        known = {
            "CHDR": (self.header, ""),
            "TRMD": (self.mode, ""),
            "TRIG_MODE": (self.mode, ""),
            "TDIV": (f"{self.tdiv_s:.2E}", "S"),
            "TRDL": (f"{self.delay_s:.2E}", "S"),
            "MSIZ": (f"{self.depth * 1e-3:g}K" if self.depth < 1e6 else f"{self.depth * 1e-6:g}M", ""),
            "SARA": (f"{self.base.rate_hz:.2E}", "Sa/s"),
            "SANU": (f"{self.base.points:.2E}" if self.header == "OFF" else f"{self.base.points * 1e-3:g}k", "pts"),
            "SAST": (self._status(), ""),
            "SAMPLE_STATUS": (self._status(), ""),
            "WFSU": (",".join(f"{key},{text}" for key, text in self._sparse.items()), ""),
            **{key: (text, "") for key, text in self._held_settings.items()},
        }
        if name == "INR":
            given, self.states = self.states, 0
            return self._said("INR", str(given))
        if name not in known:
            raise Refused(-113, "Undefined header")
        return self._said(name, *known[name])

    def _status(self) -> str:
        if self.armed:
            return "Ready" if self._told else "Arm"
        return "Stop" if self.mode in ("STOP", "SINGLE") else "Auto"

    def _obey(self, name: str, value: str) -> None:
        match name:
            case "CHDR":
                self.header = value.upper()
            case "TDIV":
                self.tdiv_s = _number(value)
                self._base()
            case "TRDL":
                self.delay_s = _number(value)
                self._base()
            case "MSIZ" | "MEMORY_SIZE":
                self.depth = _number(value)
                self._base()
            case "WFSU":
                words = [word.strip() for word in value.upper().split(",")]
                self._sparse |= dict(zip(words[::2], words[1::2], strict=False))
            case "TRMD" | "TRIG_MODE":
                self._set_mode(value.upper())
            case "ARM":
                self._set_mode("SINGLE")
            case "STOP":
                self._set_mode("STOP")
            case _ if name in self._held_settings:
                self._held_settings[name] = value
            case _:
                raise Refused(-113, "Undefined header")

    def _set_mode(self, mode: str) -> None:
        self.mode = mode
        self.halt()
        if mode == "SINGLE":
            self._told = False
            self.arm(1)

    def _waveform(self, number: int, what: str) -> bytes:
        if what != "DAT2":
            raise Refused(-224, "Illegal parameter value")
        codes = self.held[-1].codes.get(number) if self.held else None
        sent = b"" if codes is None else codes.astype(np.int8)[:: max(int(self._sparse["SP"]), 1)].tobytes()
        first, most = int(self._sparse["FP"]), int(self._sparse["NP"])
        sent = sent[first : first + most] if most else sent[first:]
        head = "DAT2," if self.header == "OFF" else f"C{number}:WF DAT2,"
        return head.encode() + _block(sent)


# Setting, reply.
_NEW_HELD = {
    "ACQ:TYPE": "NORMal",
    "ACQ:MODE": "YT",
    "ACQ:MMAN": "AUTO",
    "ACQ:INT": "OFF",
    "TRIG:TYPE": "EDGE",
    "TRIG:EDGE:SOUR": "C1",
    "TRIG:EDGE:COUP": "DC",
    "TIM:REF": "DELay",
    "TIM:REF:POS": "50",
    "WAV:POIN": "0",
    "WAV:INT": "1",
    "HIST": "OFF",
}


def short(header: str) -> str:
    """The short form of each node, by SCPI's rule, digits kept; HISTORy is cut as well."""
    nodes = [re.fullmatch(r"(\w*?)(\d*)", node) for node in header.upper().strip(":").split(":")]
    pairs = [(match[1], match[2]) for match in nodes if match]
    return ":".join(
        (word if len(word) <= 4 else word[: 3 if word[3] in "AEIOU" else 4]) + digits for word, digits in pairs
    )


class NewSimulator(ScopeSimulator):
    """The new dialect: bytes and words, pages, sequences with their history.

    `parks`: a finished sequence waits as "Ready", and can be read only once it is stopped. `cumulative`: the counter of
    acquisitions goes on. `per_frame`: it counts the records of a sequence. `page` is the longest page that it says to
    give, `page_given` what it gives. `counts_samples`: the header of a block counts words. `timed`: it tells when a
    record was triggered.
    """

    def __init__(self, load: Draw, settings: Mapping[str, str], options: Options) -> None:
        super().__init__(load, FrontEnd.of(settings, options))
        self.identity = f"Siglent Technologies,{settings['model']},SIM00000001,4.8.12.1.1.6.5"
        self.bits = 8 if settings["model"].endswith("Plus") else 12
        # 30 codes to a division as bytes, 7680 as words, whatever the converter.
        self.codes_per_div, self.limit = 30.0 * 2 ** (self.bits - 8), 2 ** (self.bits - 1) - 1
        self.depths = (20e3, 200e3, 2e6) if self.bits == 8 else (10e3, 100e3, 1e6)
        self.parks, self.cumulative, self.per_frame, self.timed = self.bits > 8, False, True, True
        self.page = self.page_given = 1_000_000
        self.counts_samples = False
        self.big_endian = False
        self.scale_s, self.delay_s, self.depth = 1e-3, 0.0, self.depths[0]
        self.mode = "AUTO"
        self.sequence, self.segments = False, 2
        self.word = False
        self.source, self.start, self.frame = 1, 0, 1
        self.level_v = 0.0
        self.parked = False
        self.counter = 3
        self._set = dict(_NEW_HELD)
        self._channel_set = {
            number: {"UNIT": "V", "IMP": "ONEMeg", "COUP": "DC", "BWL": "FULL", "VIS": "ON"} for number in self.channels
        }
        self._base()

    def _base(self) -> None:
        width_s = 10 * self.scale_s
        depth = min(self.depth, _TOTAL_POINTS / self.segments) if self.sequence else self.depth
        self.base.rate_hz = min(depth / width_s, 1e9)
        self.base.points = round(width_s * self.base.rate_hz)
        self.base.before = round((width_s / 2 - self.delay_s) * self.base.rate_hz)

    # -- acquisition --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        """A single acquisition."""
        self.parked = False
        self._base()
        if not self.cumulative:
            self.counter = 0
        self.arm(self.segments if self.sequence else 1)

    def advance(self, now_s: float) -> None:
        was, before = self.armed, len(self.sweep.shots)
        super().advance(now_s)
        done = was and not self.armed
        if self.per_frame or not self.sequence:
            self.counter += len(self.sweep.shots) - before
        else:
            self.counter += done
        if done:
            self.parked = self.parks and self.sequence
            self.frame = 1

    def _status(self) -> str:
        since_s = self.sweep.armed_s
        if since_s is not None:
            return "Ready" if self.now_s >= since_s else "Stop" if self.late_s else "Arm"
        if self.parked:
            return "Ready"
        return "Auto" if self.mode == "AUTO" else "Stop"

    # -- commands -----------------------------------------------------------------------------------------------------

    def answer(self, command: str) -> bytes | None:
        match = _COMMAND.fullmatch(command)
        if match is None:
            raise Refused(-113, "Undefined header")
        name, asked, value = short(match[1]), bool(match[2]), match[3].strip()
        if channel := _NEW_CHANNEL.fullmatch(name):
            return self._channel(int(channel[1]), channel[2], asked, value)
        if name in self._set:
            if asked:
                return self._set[name].encode()
            self._set[name] = value
            return None
        if asked:
            return self._query(name)
        self._obey(name, value.upper())
        return None

    def _channel(self, number: int, name: str, asked: bool, value: str) -> bytes | None:
        channel, held = self.channels.get(number), self._channel_set.get(number, {})
        if channel is None:
            raise Refused(-113, "Undefined header")
        if asked:
            known = {
                "SWIT": "ON" if channel.on else "OFF",
                "SCAL": f"{channel.volts_per_div:.2E}",
                "OFFS": f"{-channel.centre_v:.2E}",
                "PROB": f"{channel.attenuation:.2E}",
                **held,
            }
            if name not in known:
                raise Refused(-113, "Undefined header")
            return known[name].encode()
        match name:
            case "SWIT":
                channel.on = value.upper() == "ON"
            case "PROB":
                factor = float(value.split(",")[-1])
                channel.volts_per_div *= factor / channel.attenuation
                channel.attenuation = factor
            case "SCAL":
                if not 0.5e-3 <= float(value) / channel.attenuation <= 10.0 + 1e-9:
                    raise Refused(-222, "Data out of range")
                channel.volts_per_div = float(value)
            case "OFFS":
                channel.centre_v = -float(value)
            case _ if name in held:
                held[name] = value
            case _:
                raise Refused(-113, "Undefined header")
        return None

    def _obey(self, name: str, value: str) -> None:
        match name:
            case "CHDR":
                pass
            case "TIM:SCAL":
                self.scale_s = float(value)
                self._base()
            case "TIM:DEL":
                self.delay_s = float(value)
                self._base()
            case "ACQ:MDEP":
                if _number(value.replace("K", "k")) not in self.depths:
                    raise Refused(-224, "Illegal parameter value")
                self.depth = _number(value.replace("K", "k"))
                self._base()
            case "ACQ:SEQ":
                self.sequence = value == "ON"
                self._base()
            case "ACQ:SEQ:COUN":
                self.segments = min(int(value), 500)
                self._base()
            case "TRIG:MODE":
                self.mode = {"SINGLE": "SING", "NORMAL": "NORM"}.get(value, value)
                self.halt()
                self.parked = False
                if self.mode in ("SING", "NORM"):
                    self._run()
            case "TRIG:RUN":
                if self.mode == "SING" and not self.armed:
                    self._run()
            case "TRIG:STOP":
                self.mode, self.parked = "STOP", False
                self.halt()
            case "TRIG:EDGE:LEV":
                self.level_v = float(value)
            case "TRIG:EDGE:SLOP":
                self.rising = value.startswith("RIS")
            case "WAV:SOUR":
                self.source = int(value.removeprefix("C"))
            case "WAV:STAR":
                self.start = int(float(value))
            case "WAV:WIDT":
                self.word = value == "WORD"
            case "WAV:SEQ" | "HIST:FRAM":
                if not 1 <= int(value.split(",")[0]) <= max(len(self.held), 1):
                    raise Refused(-222, "Data out of range")
                self.frame = int(value.split(",")[0])
            case _:
                raise Refused(-113, "Undefined header")

    def _query(self, name: str) -> bytes:
        match name:
            case "WAV:PRE":
                return self._prefix() + _block(self._descriptor())
            case "WAV:DATA":
                return self._prefix() + self._data()
            case "HIST:TIME" if self.timed:
                at_s = _CLOCK_S + (self.held[self.frame - 1].trigger_s if self.held else 0.0)
                minutes, seconds = divmod(at_s, 60)
                return f"{int(minutes // 60):02d}:{int(minutes % 60):02d}:{seconds:09.6f}".encode()
        known = {
            "TIM:SCAL": f"{self.scale_s:.2E}",
            "TIM:DEL": f"{self.delay_s:.6E}",
            "ACQ:MDEP": f"{self.depth * 1e-3:g}k" if self.depth < 1e6 else f"{self.depth * 1e-6:g}M",
            "ACQ:SRAT": f"{self.base.rate_hz:.2E}",
            "ACQ:POIN": f"{self.base.points:.2E}" if self.bits == 8 else f"{self.base.points}",
            "ACQ:SEQ": "ON" if self.sequence else "OFF",
            "ACQ:SEQ:COUN": str(self.segments),
            "ACQ:NUM": str(self.counter),
            "TRIG:MODE": self.mode,
            "TRIG:STAT": self._status(),
            "TRIG:EDGE:LEV": f"{self.level_v:.2E}",
            "TRIG:EDGE:SLOP": "RISing" if self.rising else "FALLing",
            "WAV:SOUR": f"C{self.source}",
            "WAV:STAR": str(self.start),
            "WAV:WIDT": "WORD" if self.word else "BYTE",
            "WAV:MAXP": str(self.page),
            "HIST:FRAM": str(len(self.held)),
        }
        if name not in known:
            raise Refused(-113, "Undefined header")
        return known[name].encode()

    # -- waveforms ----------------------------------------------------------------------------------------------------

    def _prefix(self) -> bytes:
        return b"C%d:WF " % self.source if self.sequence else b""

    def _shot(self) -> Shot | None:
        if self.parked or self.armed or not self.held:
            return None
        shot = self.held[min(self.frame, len(self.held)) - 1]
        return shot if self.source in shot.codes else None

    def _descriptor(self) -> bytes:
        shot, block = self._shot(), bytearray(346)
        if shot is None:
            return bytes(block)
        channel, count = self.channels[self.source], len(shot.codes[self.source])
        factor = channel.attenuation

        def put(at: int, kind: str, *values: float | bytes) -> None:
            struct.pack_into("<" + kind, block, at, *values)

        put(0, "16s16shh", b"WAVEDESC", b"WAVEACE", int(self.word), int(self.big_endian))
        put(36, "i", 346)
        put(60, "i", count * (2 if self.word else 1))
        put(76, "16s", b"Siglent SDS")
        put(116, "i", count)
        put(132, "ii", self.start, 1)
        put(144, "ii", 1, len(self.held))
        put(156, "fff", channel.volts_per_div / factor, -channel.centre_v / factor, 30.0 if self.bits == 8 else 7680.0)
        put(172, "hh", 8 if self.bits == 8 else 16, self.frame)
        put(176, "fd", 1 / self.base.rate_hz, self.delay_s)
        put(324, "hhfhh", _STEPS.index(f"{self.scale_s:.0e}"), 0, factor, 0, 0)
        put(344, "h", self.source - 1)
        return bytes(block)

    def _data(self) -> bytes:
        shot = self._shot()
        if shot is None:
            return _block(b"")
        most = int(float(self._set["WAV:POIN"])) or len(shot.codes[self.source])
        codes = shot.codes[self.source][self.start : self.start + min(most, self.page, self.page_given)]
        if self.word:
            words = codes.astype(np.int32) * 2 ** (16 - self.bits)
            sent: bytes = words.astype(">i2" if self.big_endian else "<i2").tobytes()
        else:
            sent = (codes >> (self.bits - 8)).astype(np.int8).tobytes()
        if self.counts_samples and self.word:
            return b"#9%09d" % len(codes) + sent + b"\n"
        return _block(sent)
