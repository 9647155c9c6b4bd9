"""An RTB2004 as its clients see it: commands in the long and the short form in, waveforms in four formats out."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from joulemeter.instrument import Options
from joulemeter.scope.bench import ScopeSimulator, Shot
from joulemeter.scope.frontend import FrontEnd
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused

_COMMAND = re.compile(r"([:*\w]+)(\?)?\s*(.*)")
_NODE = re.compile(r"([A-Z]+?)(\d*)")
_CHANNEL = re.compile(r"(CHAN|PROB|TRIG:A:LEV)(\d)(.*)")
_DIVISIONS = 12
_RATE_HZ = 1.25e9
# Of the middle of the screen, in codes of ten bits: 127.5 of eight.
_MIDDLE, _TOP = 510, 1023
# Where its clock was when it began.
_ZERO_S = 16 * 3600 + 24 * 60
_SCREEN_POINTS = 1200
_HELD = {
    "FORM:BORD": "MSBF",
    "ACQ:NSIN:COUN": "1",
    "ACQ:POIN": "10000",
    "ACQ:POIN:AUT": "1",
    "ACQ:SEGM:STAT": "0",
    "TIM:POS": "0",
    "TIM:REF": "50",
    "TIM:SCAL": "1E-3",
    "TRIG:A:EDGE:COUP": "AC",
    "TRIG:A:EDGE:SLOP": "NEG",
    "TRIG:A:MODE": "AUTO",
    "TRIG:A:SOUR": "CH3",
    "TRIG:A:TYPE": "WIDT",
}
_CHANNEL_HELD = {
    "CHAN:STAT": "0",
    "CHAN:TYPE": "PDET",
    "CHAN:ARIT": "AVER",
    "CHAN:COUP": "ACL",
    "CHAN:BAND": "FULL",
    "CHAN:POL": "NORM",
    "CHAN:SKEW": "1E-9",
    "CHAN:SCAL": "0.2",
    "CHAN:OFFS": "0.1",
    "CHAN:POS": "1",
    "CHAN:DATA:POIN": "DEF",
    "PROB:SET:ATT:UNIT": "A",
    "PROB:SET:ATT:MAN": "1",
    "TRIG:A:LEV": "0",
}
_WORDS = {"ON": "1", "OFF": "0"}
_ESB = 0x20


def short(header: str) -> str:
    """The short form of each node (SCPI-99, 6.2.1), a channel that is not named being the first."""
    nodes = []
    for node in header.upper().strip(":").split(":"):
        match = _NODE.fullmatch(node)
        word, digits = (match[1], match[2]) if match else (node, "")
        word = word if len(word) <= 4 else word[: 3 if word[3] in "AEIOU" else 4]
        nodes.append(word + (digits or ("1" if word in ("CHAN", "PROB") else "")))
    return ":".join(node for node in nodes if node != "VAL")


class RohdeSchwarzSimulator(ScopeSimulator):
    """UINT,8, UINT,16, REAL,32 and ASCII, both byte orders, single records and segments.

    `licensed`: whether it has its history. `short` is how many samples the next waveform lacks. `sticky`: it does not
    change the segment that it was told to.
    """

    codes_per_div = 100.0
    limit = 520

    def __init__(self, load: Draw, settings: Mapping[str, str], options: Options) -> None:
        super().__init__(load, FrontEnd.of(settings, options))
        self.identity = "Rohde&Schwarz,RTB2004,SIM00000001,02.400"
        self.licensed, self.sticky, self.short = True, False, 0
        self.running, self.broken = True, False
        self.form = "ASC,0"
        self.index = 0
        self.said: list[str] = []
        self._set = dict(_HELD) | {
            self._numbered(name, n): value for name, value in _CHANNEL_HELD.items() for n in self.channels
        }
        self._apply()

    def status_byte(self) -> int:
        """With the summary of the event register also for *OPC, which R&S' own clients wait for."""
        return super().status_byte() | (_ESB if self._completing and not self.busy() else 0)

    @staticmethod
    def _numbered(name: str, n: int) -> str:
        return f"{name}{n}" if name.startswith("TRIG") else name.replace(":", f"{n}:", 1)

    # -- commands -----------------------------------------------------------------------------------------------------

    def answer(self, command: str) -> bytes | None:
        self.said.append(command)
        match = _COMMAND.fullmatch(command)
        if match is None:
            raise Refused(-113, "Undefined header")
        name, asked, value = short(match[1]), bool(match[2]), match[3].strip()
        if not self.licensed and (":HIST" in name or "SEGM" in name):
            raise Refused(-241, "Hardware missing")
        if asked:
            return self._asked(name)
        self._change(name, value.upper())
        return None

    def _asked(self, name: str) -> bytes:
        if name in self._set and not name.endswith("DATA:POIN"):
            return self._set[name].encode()
        match name:
            case "*OPT":
                return b"K15 - History/Segmented Memory,K36 - Bode Plot" if self.licensed else b"K36 - Bode Plot"
            case "FORM" | "FORM:DATA":
                return self.form.encode()
            case "ACQ:STAT":
                return b"RUN" if self.armed or self.running else b"BRE" if self.broken else b"COMP"
            case "ACQ:AVA":
                return b"%d" % (len(self.held) if self.licensed else 1)
            case "ACQ:SRAT":
                return f"{self.base.rate_hz:.9E}".encode()
            case "STAT:OPER:COND":
                return b"8" if self._waiting else b"0"
        return self._of_channel(name)

    def _of_channel(self, name: str) -> bytes:
        match = _CHANNEL.fullmatch(name)
        if match is None or match[1] != "CHAN":
            raise Refused(-113, "Undefined header")
        n, leaf = int(match[2]), match[3].removeprefix(":")
        match leaf:
            case "DATA":
                return self._data(n)
            case "DATA:POIN":
                return b"%d" % len(self._codes(n))
            case "DATA:HEAD":
                shot, points = self._shot(n), len(self._codes(n))
                first_s = shot.first_s - shot.trigger_s
                last_s = first_s + (points - 1) / self.base.rate_hz
                return f"{first_s:.9E},{last_s:.9E},{points},{self._values(n)}".encode()
            case "DATA:YINC" | "DATA:YOR" | "DATA:XINC" | "DATA:XOR":
                return self._scaling(n)[leaf.rpartition(":")[2]]
            case "HIST:CURR":
                return b"%d" % self.index
            case "HIST:TSR":
                return f"{self._shot(n).trigger_s - self.held[-1].trigger_s:.12E}".encode()
            case "HIST:TSR:ALL":
                newest_s = self.held[-1].trigger_s
                return ",".join(f"{shot.trigger_s - newest_s:.12E}" for shot in self.held).encode()
            case "HIST:TSAB":
                at_s = _ZERO_S + self._shot(n).trigger_s
                return f"{at_s // 3600:.0f},{at_s // 60 % 60:.0f},{at_s % 60:.12E}".encode()
        raise Refused(-113, "Undefined header")

    def _change(self, name: str, value: str) -> None:
        match name:
            case "FORM" | "FORM:DATA":
                self.form = {"REAL": "REAL,32", "ASC": "ASC,0", "UINT": "UINT,8"}.get(value, value)
            case "*ESE" | "*SRE":
                # All events are told as it is.
                pass
            case "SING":
                self._single()
            case "RUN" | "RUNC":
                self.running = True
            case "STOP":
                self.broken |= self.armed
                self.running = False
                self.halt()
            case _ if name.endswith(":HIST:CURR"):
                if not 0 <= -int(value) < len(self.held):
                    raise Refused(-222, "Data out of range")
                self.index = self.index if self.sticky else int(value)
            case _ if name.endswith(":DATA:POIN") and name in self._set:
                # While it runs, DEF is used and nothing said.
                self._set[name] = "DEF" if self.running or self.armed else value
            case _ if name in self._set:
                if name.endswith(":COUP") and name.startswith("CHAN") and value == "DC":
                    raise Refused(-224, "Illegal parameter value")
                self._probed(name, value)
                self._set[name] = _WORDS.get(value, value)
                self._apply()
            case _:
                raise Refused(-113, "Undefined header")

    def _probed(self, name: str, value: str) -> None:
        """Another probe shows another voltage on the same screen."""
        if name.endswith("ATT:MAN"):
            scale = f"CHAN{name[4]}:SCAL"
            self._set[scale] = f"{float(self._set[scale]) * float(value) / float(self._set[name]):.6E}"

    def _apply(self) -> None:
        for n, channel in self.channels.items():
            channel.on = self._set[f"CHAN{n}:STAT"] == "1"
            channel.volts_per_div = float(self._set[f"CHAN{n}:SCAL"])
            position = float(self._set[f"CHAN{n}:POS"])
            channel.centre_v = float(self._set[f"CHAN{n}:OFFS"]) - position * channel.volts_per_div
        self.rising = self._set["TRIG:A:EDGE:SLOP"] == "POS"
        self.base.points = int(float(self._set["ACQ:POIN"]))
        self.base.rate_hz = min(self.base.points / (_DIVISIONS * float(self._set["TIM:SCAL"])), _RATE_HZ)
        self.base.before = round(self.base.points / 2 - float(self._set["TIM:POS"]) * self.base.rate_hz)

    # -- acquisition --------------------------------------------------------------------------------------------------

    def _single(self) -> None:
        self.running = self.broken = False
        self.index = 0
        self.arm(int(float(self._set["ACQ:NSIN:COUN"])))
        if self._set["TRIG:A:MODE"] == "AUTO":
            # Nothing is waited for.
            self._making = self.bench.shot(
                self.now_s + self.base.before / self.base.rate_hz,
                self.base,
                self.channels,
                self.codes_per_div,
                self.limit,
            )

    @property
    def _waiting(self) -> bool:
        since_s = self.sweep.armed_s
        return since_s is not None and self.now_s >= since_s + self.base.before / self.base.rate_hz

    # -- waveforms ----------------------------------------------------------------------------------------------------

    def _shot(self, n: int) -> Shot:
        if not self.held or n not in self.held[-1].codes:
            raise Refused(-221, "Settings conflict")
        return self.held[self.index - 1 if self.licensed else -1]

    def _values(self, n: int) -> int:
        """To a sample interval: two of a peak detector."""
        return 2 if self._set[f"CHAN{n}:TYPE"] == "PDET" else 1

    def _codes(self, n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Of ten bits, without a sign."""
        codes = np.clip(self._shot(n).codes[n].astype(np.int64) + _MIDDLE, 0, _TOP)
        return codes if self._set[f"CHAN{n}:DATA:POIN"] == "MAX" else codes[:_SCREEN_POINTS]

    def _scaling(self, n: int) -> dict[str, bytes]:
        channel, shot = self.channels[n], self._shot(n)
        scale = channel.volts_per_div / 25
        wide = 256.0 if self.form == "UINT,16" else 1.0
        told = {
            "YINC": scale / wide,
            "YOR": channel.centre_v - 127.5 * scale,
            "XINC": 1 / self.base.rate_hz,
            "XOR": shot.first_s - shot.trigger_s,
        }
        # They are of single precision.
        return {name: f"{np.float32(value):.9E}".encode() for name, value in told.items()}

    def _data(self, n: int) -> bytes:
        codes = self._codes(n)
        codes, self.short = codes[: len(codes) - self.short], 0
        mark = ">" if self._set["FORM:BORD"] == "MSBF" else "<"
        volts = self.channels[n].centre_v + (codes - _MIDDLE) * self.channels[n].volts_per_div / 100
        match self.form:
            case "UINT,8":
                data = (codes >> 2).astype(np.uint8).tobytes()
            case "UINT,16":
                data = (codes << 6).astype(np.dtype(mark + "u2")).tobytes()
            case "REAL,32":
                data = volts.astype(np.dtype(mark + "f4")).tobytes()
            case _:
                return ",".join(f"{volt:.6E}" for volt in volts).encode()
        return b"#%d%d" % (len(str(len(data))), len(data)) + data
