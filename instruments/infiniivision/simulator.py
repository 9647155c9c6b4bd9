"""An InfiniiVision as its clients see it: commands in the long and the short form in, waveforms out."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping

import numpy as np

from joulemeter.instrument import Options
from joulemeter.scope.bench import Codes, ScopeSimulator
from joulemeter.scope.frontend import FrontEnd
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused

MEMORY_POINTS = 200_000
# The deepest record that it takes, to be quick.
DEEPEST_POINTS = 50_000
_STEPS = [digit * 10**power for power in range(2, 6) for digit in (1, 2, 5)]
_COMMAND = re.compile(r"([:*\w]+)(\?)?\s*(.*)")
_CHANNEL = re.compile(r"CHAN(\d):(\w+)")
_RUN, _WAITING = 1 << 3, 1 << 5
_HOLE, _LOW, _HIGH = 0, 1, 255
_MIDDLE = 128
_DIVISIONS = 10
# What is set and asked back, and of no effect on the codes.
_HELD = {
    "ACQ:TYPE": "NORM",
    "ACQ:COUN": "8",
    "TIM:MODE": "MAIN",
    "TIM:REF": "CENT",
    "TRIG:MODE": "EDGE",
    "TRIG:EDGE:SOUR": "CHAN1",
    "TRIG:EDGE:COUP": "DC",
    "TRIG:EDGE:LEV": "+0.0E+00",
    "TRIG:SWE": "AUTO",
    "WAV:POIN:MODE": "NORM",
    "WAV:SEGM:ALL": "0",
}
_CHANNEL_HELD = {"UNIT": "VOLT", "IMP": "ONEM", "COUP": "DC", "BWL": "0"}


def short(header: str) -> str:
    """The short form of each node (SCPI-99, 6.2.1), digits kept."""
    nodes = [re.fullmatch(r"(\w*?)(\d*)", node) for node in header.upper().strip(":").split(":")]
    pairs = [(match[1], match[2]) for match in nodes if match]
    return ":".join(
        (word if len(word) <= 4 else word[: 3 if word[3] in "AEIOU" else 4]) + digits for word, digits in pairs
    )


class InfiniiVisionSimulator(ScopeSimulator):
    """BYTE and WORD, both byte orders, with and without a sign; single records and segments.

    `licensed`: whether it has segments. `forces`: whether it knows :TRIGger:FORCe. `zero_preambles` is how many
    preambles it answers with +0, `holes` how many samples at the end of each record it did not acquire.
    """

    codes_per_div = 32.0
    limit = 127

    def __init__(self, load: Draw, settings: Mapping[str, str], options: Options) -> None:
        super().__init__(load, FrontEnd.of(settings, options))
        self.identity = "KEYSIGHT TECHNOLOGIES,MSO-X 3054T,SIM00000001,07.50.2021102830"
        self.licensed = self.forces = True
        self.zero_preambles = self.holes = 0
        self.scale_s, self.position_s = 1e-4, 0.0
        self.segments = 0
        self.source, self.index = 1, 1
        self.word, self.little, self.signed = False, False, False
        self.points = DEEPEST_POINTS
        self.running, self.digitizing = True, False
        self.armed_event = self.triggered_event = self._told = self._forced = False
        self._set = dict(_HELD)
        self._channel_set = {number: dict(_CHANNEL_HELD) for number in self.channels}
        self._blocked: deque[str] = deque()
        self._base()

    def _base(self) -> None:
        width_s = _DIVISIONS * self.scale_s
        most = min(DEEPEST_POINTS, MEMORY_POINTS // max(self.segments, 1))
        self.base.points = max(count for count in _STEPS if count <= most)
        self.base.rate_hz = self.base.points / width_s
        self.base.before = round((width_s / 2 - self.position_s) * self.base.rate_hz)

    # -- acquisition --------------------------------------------------------------------------------------------------

    def _single(self) -> None:
        self.running = False
        self._told = self._forced = False
        self._base()
        self.arm(max(self.segments, 1))

    def advance(self, now_s: float) -> None:
        since_s = self.sweep.armed_s
        if since_s is not None and not self._told and now_s >= since_s:
            self.armed_event = self._told = True
        before = len(self.sweep.shots)
        super().advance(now_s)
        if len(self.sweep.shots) > before:
            self.index = 1
            # That somebody forced it is no trigger.
            self.triggered_event |= not self._forced
            self._forced = False
        if self.digitizing and not self.armed:
            self.digitizing = False
            while self._blocked and not self.digitizing:
                self._message(self._blocked.popleft())

    def _force(self) -> None:
        if self.armed and self._making is None:
            self._making = self.bench.shot(self.now_s, self.base, self.channels, self.codes_per_div, self.limit)
            self.armed_event = self._told = self._forced = True

    def clear(self) -> None:
        super().clear()
        self.digitizing = False
        self._blocked.clear()

    def _message(self, text: str) -> None:
        if self.digitizing:
            # :DIGitize blocks the bus until the record is there.
            self._blocked.append(text)
        else:
            super()._message(text)

    # -- commands -----------------------------------------------------------------------------------------------------

    def answer(self, command: str) -> bytes | None:
        match = _COMMAND.fullmatch(command)
        if match is None:
            raise Refused(-113, "Undefined header")
        name, asked, value = short(match[1]), bool(match[2]), match[3].strip().upper()
        if channel := _CHANNEL.fullmatch(name):
            return self._channel(int(channel[1]), channel[2], asked, value)
        if name in self._set:
            if asked:
                return self._set[name].encode()
            self._set[name] = short(value) if value[:1].isalpha() else value
            return None
        if asked:
            return self._asked(name)
        self._obey(name, value)
        return None

    def _channel(self, number: int, name: str, asked: bool, value: str) -> bytes | None:
        channel = self.channels.get(number)
        if channel is None:
            raise Refused(-113, "Undefined header")
        held = self._channel_set[number]
        if asked:
            known = {
                "DISP": "1" if channel.on else "0",
                "SCAL": f"{channel.volts_per_div:+.4E}",
                "OFFS": f"{channel.centre_v:+.4E}",
                "PROB": f"{channel.attenuation:+.4E}",
                **held,
            }
            if name not in known:
                raise Refused(-113, "Undefined header")
            return known[name].encode()
        match name:
            case "DISP":
                channel.on = value in ("1", "ON")
            case "PROB":
                # The scale is at the tip, and changes with it.
                channel.volts_per_div *= float(value) / channel.attenuation
                channel.attenuation = float(value)
            case "SCAL":
                if not 1e-3 <= float(value) / channel.attenuation <= 5.0 + 1e-9:
                    raise Refused(-222, "Data out of range")
                channel.volts_per_div = float(value)
            case "OFFS":
                channel.centre_v = float(value)
            case _ if name in held:
                if (name, value) == ("COUP", "AC"):
                    raise Refused(-221, "Settings conflict")
                held[name] = value
            case _:
                raise Refused(-113, "Undefined header")
        return None

    def _obey(self, name: str, value: str) -> None:
        match name:
            case "SING":
                self._single()
            case "RUN":
                self.halt()
                self.running = True
            case "STOP":
                self.running = False
                self.halt()
            case "DIG":
                for number in re.findall(r"\d", value):
                    self.channels[int(number)].on = True
                self._single()
                self.digitizing = True
            case "TRIG:FORC" if self.forces:
                self._force()
            case "TRIG:EDGE:SLOP":
                self.rising = value.startswith("POS")
            case "TIM:SCAL":
                self.scale_s = float(value)
                self._base()
            case "TIM:POS":
                self.position_s = float(value)
                self._base()
            case "ACQ:MODE":
                if value.startswith("SEGM") and not self.licensed:
                    raise Refused(-241, "Hardware missing")
                self.segments = 2 if value.startswith("SEGM") else 0
                self._base()
            case "ACQ:SEGM:COUN" if self.segments:
                self.segments = min(max(int(value), 2), 1000)
                self._base()
            case "ACQ:SEGM:IND":
                if not 1 <= int(value) <= len(self.held):
                    raise Refused(-222, "Data out of range")
                self.index = int(value)
            case "WAV:SOUR":
                self.source = int(short(value).removeprefix("CHAN"))
            case "WAV:FORM":
                if value[:4] not in ("BYTE", "WORD"):
                    raise Refused(-224, "Illegal parameter value")
                self.word = value.startswith("WORD")
            case "WAV:BYT":
                self.little = value.startswith("LSB")
            case "WAV:UNS":
                self.signed = value in ("0", "OFF")
            case "WAV:POIN":
                self.points = DEEPEST_POINTS if value.startswith("MAX") else int(value)
            case _:
                raise Refused(-113, "Undefined header")

    def _asked(self, name: str) -> bytes:
        match name:
            case "OPER:COND":
                waits = self.armed and self._told
                return b"%+d" % (_RUN * (self.armed or self.running) + _WAITING * waits)
            case "AER":
                given, self.armed_event = self.armed_event, False
                return b"%+d" % given
            case "TER":
                given, self.triggered_event = self.triggered_event, False
                return b"%+d" % given
            case "TRIG:EDGE:SLOP":
                return b"POS" if self.rising else b"NEG"
            case "TIM:SCAL":
                return f"{self.scale_s:+.9E}".encode()
            case "TIM:POS":
                return f"{self.position_s:+.9E}".encode()
            case "ACQ:MODE":
                return b"SEGM" if self.segments else b"RTIM"
            case "ACQ:SEGM:COUN":
                return b"%+d" % max(self.segments, 1)
            case "ACQ:SEGM:IND":
                return b"%+d" % self.index
            case "ACQ:SRAT":
                return f"{self.base.rate_hz:+.6E}".encode()
            case "ACQ:POIN":
                return b"%+d" % self.base.points
            case "WAV:SEGM:COUN":
                return b"%+d" % (len(self.held) if self.segments else 0)
            case "WAV:SEGM:TTAG":
                after_s = self.held[self.index - 1].trigger_s - self.held[0].trigger_s if self.held else 0.0
                return f"{after_s:+.12E}".encode()
            case "WAV:SOUR":
                return b"CHAN%d" % self.source
            case "WAV:FORM":
                return b"WORD" if self.word else b"BYTE"
            case "WAV:BYT":
                return b"LSBF" if self.little else b"MSBF"
            case "WAV:UNS":
                return b"0" if self.signed else b"1"
            case "WAV:POIN":
                return b"%+d" % len(self._codes())
            case "WAV:PRE":
                return self._preamble()
            case "WAV:DATA":
                return self._data()
            case _:
                raise Refused(-113, "Undefined header")

    # -- waveforms ----------------------------------------------------------------------------------------------------

    def _step(self) -> int:
        """Every so many of the points in memory are given."""
        return max(self.base.points // self.points, 1)

    def _codes(self) -> Codes:
        shot = self.held[self.index - 1] if self.held else None
        if shot is None or self.source not in shot.codes:
            raise Refused(-230, "Data corrupt or stale")
        codes = shot.codes[self.source][:: self._step()].copy()
        if self.holes:
            codes[-self.holes :] = -_MIDDLE
        return codes

    def _preamble(self) -> bytes:
        if self.zero_preambles:
            self.zero_preambles -= 1
            return b"+0"
        count = len(self._codes())
        channel = self.channels[self.source]
        shot = self.held[self.index - 1]
        per_code = channel.volts_per_div / self.codes_per_div / (256 if self.word else 1)
        middle = 0 if self.signed else _MIDDLE * (256 if self.word else 1)
        return (
            f"{int(self.word):+d},+0,{count:+d},+1,{self._step() / self.base.rate_hz:+.8E},"
            f"{shot.first_s - shot.trigger_s:+.8E},+0,{per_code:+.8E},{channel.centre_v:+.6E},{middle:+d}"
        ).encode()

    def _data(self) -> bytes:
        codes = self._codes().astype(np.int32) + _MIDDLE
        hole = np.zeros(len(codes), dtype=bool)
        if self.holes:
            hole[-self.holes :] = True
        low, high = (codes <= _LOW) & ~hole, codes >= _HIGH
        scale, top = (256, 0xFFFF) if self.word else (1, 0xFF)
        sent = codes * scale
        sent[low], sent[high], sent[hole] = _LOW, top, _HOLE
        if self.signed:
            sent -= _MIDDLE * scale
        kind = f"{'<' if self.little else '>'}{'i' if self.signed else 'u'}{2 if self.word else 1}"
        payload = sent.astype(kind).tobytes()
        return b"#8%08d" % len(payload) + payload
