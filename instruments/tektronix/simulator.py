"""A Tektronix as its clients see it: commands in any spelling in, preambles and curves out."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from joulemeter.instrument import Options
from joulemeter.scope.bench import Codes, ScopeSimulator, Shot
from joulemeter.scope.frontend import FrontEnd
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused

_COMMAND = re.compile(r"([:*\w]+)(\?)?\s*(.*)", re.DOTALL)
_RATES_HZ = np.outer(10.0 ** np.arange(3, 10), [1.25, 2.5, 3.125, 6.25]).ravel()
_SCALES_S = np.outer(10.0 ** np.arange(-9, 2), [1, 2, 4]).ravel()
_FRAME_MEMORY = 2_000_000
_CODES_PER_DIV = 25
_ZERO = datetime.datetime(2026, 11, 21, 7, 12, 28)
_PS = 10**12


@dataclass(frozen=True, slots=True)
class Kind:
    """`lengths`: the record lengths where the rate follows from the time base. `levels` is what YOFF tells."""

    identity: str
    inputs: int
    bits: int
    lacks: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    levels: float = 0.0


_SCALED = ("HORizontal:FASTframe", "HORizontal:MODe", "DISplay", "PROBEFunc", "DATa:FRAME", "NUMFRAMES")
KINDS: Mapping[str, Kind] = {
    "MSO58": Kind("TEKTRONIX,MSO58,SIM00000001,CF:91.1CT FV:1.44.3.433", 8, 12, ("SELect", "RESOlution", "COMPos")),
    "MSO24": Kind(
        "TEKTRONIX,MSO24,SIM00000002,CF:91.1CT FV:1.28.5.1144",
        4,
        8,
        ("SELect", "FASTframe", "FRAME", "PRObe:", "RESOlution", "COMPos"),
    ),
    "DPO5204B": Kind(
        "TEKTRONIX,DPO5204B,SIM00000003,CF:91.1CT FV:10.8.3 Build 3",
        4,
        8,
        ("DISplay", "MANual:", "RESample", "RESOlution", "COMPos", "DATa:WIDth", "AVAILable"),
        levels=-31.0,
    ),
    "DPO4034": Kind(
        "TEKTRONIX,DPO4034,SIM00000004,CF:91.1CT FV:v2.68",
        4,
        8,
        (*_SCALED, "RESample", "RESOlution", "COMPos", "FASTAcq"),
        lengths=(1000, 10_000, 100_000, 1_000_000, 10_000_000),
        levels=12.5,
    ),
    "DPO2024": Kind(
        "TEKTRONIX,DPO2024,SIM00000005,CF:91.1CT FV:v1.52",
        4,
        8,
        (*_SCALED, "RESample", "FASTAcq"),
        lengths=(100_000, 1_000_000),
        levels=12.5,
    ),
}

# What is set and asked back, with what it is to begin with; <x> is an input.
SETTINGS: Mapping[str, str] = {
    "HEADer": "1",
    "VERBose": "1",
    "ACQuire:MODe": "SAMPLE",
    "ACQuire:STOPAfter": "RUNSTOP",
    "ACQuire:FASTAcq:STATE": "1",
    "CH<x>:BANdwidth": "FULL",
    "CH<x>:COUPling": "AC",
    "CH<x>:DESKew": "5E-9",
    "CH<x>:OFFSet": "0.0",
    "CH<x>:POSition": "1.0",
    "CH<x>:PROBEFunc:EXTAtten": "1.0",
    "CH<x>:PRObe:GAIN": "1.0",
    "CH<x>:PRObe:UNIts": '"V"',
    "CH<x>:SCAle": "0.1",
    "CH<x>:TERmination": "1.0E+6",
    "DATa:COMPosition": "COMPOSITE_ENV",
    "DATa:ENCdg": "RIBINARY",
    "DATa:FRAMESTARt": "1",
    "DATa:FRAMESTOP": "1000000",
    "DATa:RESOlution": "REDUCED",
    "DATa:RESample": "2",
    "DATa:SOUrce": "CH1",
    "DATa:STARt": "1",
    "DATa:STOP": "1000",
    "DISplay:GLObal:CH<x>:STATE": "0",
    "HORizontal:DELay:MODe": "1",
    "HORizontal:FASTframe:COUNt": "2",
    "HORizontal:FASTframe:STATE": "0",
    "HORizontal:FASTframe:SUMFrame": "AVERAGE",
    "HORizontal:MODe": "AUTO",
    "HORizontal:MODe:MANual:CONFIGure": "RECORDLENGTH",
    "HORizontal:MODe:RECOrdlength": "1000",
    "HORizontal:MODe:SAMPLERate": "1.25E+6",
    "HORizontal:POSition": "50.0",
    "HORizontal:RECOrdlength": "1000",
    "HORizontal:SCAle": "4.0E-4",
    "SELect:CH<x>": "0",
    "TRIGger:A:EDGE:COUPling": "DC",
    "TRIGger:A:EDGE:SLOpe": "FALL",
    "TRIGger:A:EDGE:SOUrce": "CH4",
    "TRIGger:A:LEVel:CH<x>": "0.0",
    "TRIGger:A:MODe": "AUTO",
    "TRIGger:A:TYPe": "EDGE",
    "WFMOutpre:BYT_Nr": "1",
}
# The same by another name.
ALIASES = {"DATa:WIDth": "WFMOutpre:BYT_Nr"}
# What can only be asked.
ASKED = (
    *("ACQuire:STATE", "ACQuire:NUMACq", "ACQuire:NUMFRAMESACQuired", "ALLEv", "BUSY", "CURVe", "TRIGger:STATE"),
    *("DATa:SOUrce:AVAILable", "HORizontal:FASTframe:MAXFRames", "HORizontal:FASTframe:TIMEStamp:ALL"),
    *("HORizontal:FASTframe:TIMEStamp:ALL:CH<x>", "HORizontal:SAMPLERate"),
    *(f"WFMOutpre:{name}" for name in ("BN_Fmt", "BYT_Or", "ENCdg", "NR_Pt", "PT_Fmt", "PT_Off", "XINcr", "XUNit")),
    *(f"WFMOutpre:{name}" for name in ("XZEro", "YMUlt", "YOFf", "YZEro", "YUNit", "BIT_Nr")),
)
# Answers that VERBose OFF shortens.
_WORDS = {"SAVE": "SAV", "READY": "REA", "ARMED": "ARM", "TRIGGER": "TRI", "AUTO": "AUTO", "NORMAL": "NORM"}


@cache
def spelling(name: str) -> re.Pattern[str]:
    """Any abbreviation that has at least the capitals, as the manuals allow."""
    nodes = []
    for node in name.split(":"):
        if node.endswith("<x>"):
            nodes.append(rf"{node[:-3]}(\d)")
            continue
        least = len(node) - len(node.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ_"))
        tails = "|".join(node[least:end].upper() for end in range(len(node), least, -1))
        nodes.append(node[:least] + (f"(?:{tails})?" if tails else ""))
    return re.compile(":".join(nodes), re.IGNORECASE)


class TektronixSimulator(ScopeSimulator):
    """Headers on and off, one and two bytes, both byte orders, FastFrame where the model has it.

    `stray` is sent after the next curve, `short` is how many samples the next one lacks; `headed`: it keeps its
    headers on whatever it is told.
    """

    def __init__(self, load: Draw, settings: Mapping[str, str], options: Options, model: str = "MSO58") -> None:
        self._kind = KINDS[model]
        self.inputs = self._kind.inputs
        super().__init__(load, FrontEnd.of(settings, options))
        self.identity = self._kind.identity
        self.codes_per_div = _CODES_PER_DIV * 2.0 ** (self._kind.bits - 8)
        self.limit = (1 << self._kind.bits - 1) - 1
        self.stray, self.short, self.headed = b"", 0, False
        self.running = True
        self._names = [
            name
            for name in (*SETTINGS, *ALIASES, *ASKED, "ACQuire:STATE")
            if not any(lack in name for lack in self._kind.lacks)
        ]
        self._set = {
            (name, x): value
            for name, value in SETTINGS.items()
            for x in (range(1, self.inputs + 1) if "<x>" in name else (0,))
        }
        # The probe at the trigger line has a ring that says what it divides by; the others are plain wires.
        if self.probes_are_coded:
            self._set["CH<x>:PRObe:GAIN", 1] = "100.0000E-3"
        self._apply()

    @property
    def probes_are_coded(self) -> bool:
        return not self._kind.lengths and "PRObe:" not in self._kind.lacks

    # -- commands -----------------------------------------------------------------------------------------------------

    def answer(self, command: str) -> bytes | None:
        match = _COMMAND.fullmatch(command)
        if match is None:
            raise Refused(-113, "Undefined header; Command not found")
        header = match[1].removeprefix(":")
        for name in self._names:
            found = spelling(name).fullmatch(header)
            if found is None:
                continue
            x = int(found[1]) if found.groups() else 0
            if x > self.inputs:
                break
            name = ALIASES.get(name, name)
            if match[2]:
                return self._headed(name, x, self._asked(name, x, match[3].strip()))
            if name in SETTINGS or name == "ACQuire:STATE":
                self._change(name, x, match[3].strip())
                return None
            break
        raise Refused(-113, f"Undefined header; Command not found; {command}")

    def _headed(self, name: str, x: int, value: bytes) -> bytes:
        if self._set["HEADer", 0] == "0" and not self.headed:
            return value
        long = name.upper().replace("<X>", str(x))
        return f":{long} ".encode() + value

    def _asked(self, name: str, x: int, arguments: str) -> bytes:
        if name in SETTINGS:
            return self._word(self._set[name, x])
        node = name.rpartition(":")[2]
        match name:
            case "ACQuire:STATE" | "BUSY":
                return b"%d" % (self.armed or (self.running and node == "STATE"))
            case "ACQuire:NUMACq" | "ACQuire:NUMFRAMESACQuired":
                shots = len(self.sweep.shots)
                return b"%d" % (shots if node != "NUMACq" else min(shots, 1))
            case "TRIGger:STATE":
                return self._word(self._trigger_state())
            case "ALLEv":
                return self._events_told()
            case "CURVe":
                return self._curve()
            case "DATa:SOUrce:AVAILable":
                return ",".join(f"CH{n}" for n in self.held[-1].codes).encode() if self.held else b"NONE"
            case "HORizontal:FASTframe:MAXFRames":
                return b"%d" % (_FRAME_MEMORY // max(self.base.points, 1))
            case "HORizontal:FASTframe:TIMEStamp:ALL" | "HORizontal:FASTframe:TIMEStamp:ALL:CH<x>":
                return self._stamps(arguments if x else "")
            case "HORizontal:SAMPLERate":
                return f"{self.base.rate_hz:.4E}".encode()
            case _:
                return self._preamble()[node].encode()

    def _word(self, value: str) -> bytes:
        if self._set["VERBose", 0] == "0":
            value = _WORDS.get(value, value)
        return value.encode()

    def _change(self, name: str, x: int, value: str) -> None:
        if name == "ACQuire:STATE":
            self._run(value.upper() not in ("0", "OFF", "STOP"))
            return
        value = {"ON": "1", "OFF": "0"}.get(value.upper(), value.upper())
        if name == "HORizontal:MODe:SAMPLERate":
            fitting = _RATES_HZ[float(value) * (1 - 1e-9) <= _RATES_HZ]
            value = f"{fitting[0] if len(fitting) else _RATES_HZ[-1]:.6E}"
        elif name == "HORizontal:SCAle":
            value = f"{_SCALES_S[np.argmin(np.abs(np.log(_SCALES_S / float(value))))]:.4E}"
        elif name == "HORizontal:RECOrdlength" and float(value) not in self._kind.lengths:
            raise Refused(-222, "Data out of range")
        elif name == "HORizontal:MODe:RECOrdlength" and self._set["HORizontal:MODe", 0][:3] != "MAN":
            raise Refused(-221, "Settings conflict; record length is read only")
        elif name == "CH<x>:TERmination" and float(value) == 50 and self._kind.identity.startswith("TEKTRONIX,DPO2"):
            raise Refused(-224, "Illegal parameter value")
        elif name in ("CH<x>:PROBEFunc:EXTAtten", "CH<x>:PRObe:GAIN"):
            self._probed(name, x, float(value))
        elif name == "CH<x>:PRObe:UNIts":
            raise Refused(-113, "Undefined header; query only")
        elif name == "DATa:SOUrce":
            # It has the width of what was converted.
            self._set["WFMOutpre:BYT_Nr", 0] = "1" if self._kind.bits == 8 else "2"
        self._set[name, x] = value
        self._apply()

    def _probed(self, name: str, x: int, value: float) -> None:
        """Another probe shows another voltage on the same screen."""
        gain = name.endswith("GAIN")
        if gain and self.probes_are_coded:
            raise Refused(-113, "Undefined header; query only")
        old = float(self._set[name, x])
        factor = old / value if gain else value / old
        for other in ("CH<x>:SCAle", "CH<x>:OFFSet"):
            self._set[other, x] = f"{float(self._set[other, x]) * factor:.6E}"

    def _apply(self) -> None:
        shown = "SELect:CH<x>" if "SELect" not in self._kind.lacks else "DISplay:GLObal:CH<x>:STATE"
        for x, channel in self.channels.items():
            channel.on = self._set[shown, x] == "1"
            channel.volts_per_div = float(self._set["CH<x>:SCAle", x])
            position = float(self._set["CH<x>:POSition", x])
            channel.centre_v = float(self._set["CH<x>:OFFSet", x]) - position * channel.volts_per_div
        self.rising = self._set["TRIGger:A:EDGE:SLOpe", 0].startswith("RIS")
        if self._kind.lengths:
            self.base.points = int(float(self._set["HORizontal:RECOrdlength", 0]))
            self.base.rate_hz = self.base.points / (10 * float(self._set["HORizontal:SCAle", 0]))
        else:
            self.base.points = int(float(self._set["HORizontal:MODe:RECOrdlength", 0]))
            self.base.rate_hz = float(self._set["HORizontal:MODe:SAMPLERate", 0])
        delayed = self._set["HORizontal:DELay:MODe", 0] == "1"
        share = 0.5 if delayed else float(self._set["HORizontal:POSition", 0]) / 100
        self.base.before = round(share * self.base.points)

    # -- acquisition --------------------------------------------------------------------------------------------------

    @property
    def _framed(self) -> bool:
        return self._set["HORizontal:FASTframe:STATE", 0] == "1"

    def _run(self, on: bool) -> None:
        self.running = False
        if not on:
            self.halt()
        elif self._set["ACQuire:STOPAfter", 0].startswith("SEQ"):
            self.arm(int(float(self._set["HORizontal:FASTframe:COUNt", 0])) if self._framed else 1)
        else:
            self.running = True

    def _trigger_state(self) -> str:
        if self.sweep.armed_s is None:
            return "AUTO" if self.running else "SAVE"
        ready_s = self.sweep.armed_s + self.base.before / self.base.rate_hz
        return "ARMED" if self.now_s < ready_s and not self.sweep.shots else "READY"

    def _stamps(self, arguments: str) -> bytes:
        shots = self.held
        if arguments:
            first, last = sorted(int(word) for word in arguments.split(","))
            shots = shots[first - 1 : last]
        told = []
        for k, shot in enumerate(shots, 1):
            whole, ps = divmod(round(shot.trigger_s * _PS), _PS)
            at = _ZERO + datetime.timedelta(seconds=whole)
            digits = f"{ps:012d}"
            if arguments:
                spaced = " ".join(digits[n : n + 3] for n in range(0, 12, 3))
                told.append(f'{k},"{at:%d %b %Y %H:%M:%S}.{spaced}"')
            else:
                told.append(f"{k}: {at:%d.%m.%Y.%H:%M:%S}.{digits}")
        return (", " if not arguments else ",").join(told).encode()

    def _events_told(self) -> bytes:
        told = []
        while (entry := self._common("SYST:ERR?")) is not None and not entry.startswith(b"0,"):
            told.append(entry.removeprefix(b"-"))
        return b",".join(told) or b'0,"No events to report - queue empty"'

    # -- waveforms ----------------------------------------------------------------------------------------------------

    @property
    def _source(self) -> int:
        return int(self._set["DATa:SOUrce", 0].removeprefix("CH").split(",")[0])

    @property
    def _width(self) -> int:
        return int(self._set["WFMOutpre:BYT_Nr", 0])

    def _span(self) -> slice:
        start, stop = (int(float(self._set[f"DATa:{name}", 0])) for name in ("STARt", "STOP"))
        return slice(max(start, 1) - 1, min(stop, self.base.points))

    def _frames(self) -> list[Shot]:
        shots = [shot for shot in self.held if self._source in shot.codes]
        if not shots:
            raise Refused(2244, "Waveform requested is not activated")
        if not self._framed:
            return shots[-1:]
        first, last = (int(float(self._set[f"DATa:FRAME{name}", 0])) for name in ("STARt", "STOP"))
        first = min(first, len(shots))
        return shots[first - 1 : max(last, first)]

    def _preamble(self) -> dict[str, str]:
        self._frames()
        channel = self.channels[self._source]
        step = 1 << 8 * (self._width - 1)
        scale = channel.volts_per_div / _CODES_PER_DIV / step
        levels = self._kind.levels * step
        span = self._span()
        encoding = self._set["DATa:ENCdg", 0]
        return {
            "BIT_Nr": str(8 * self._width),
            "BN_Fmt": "RP" if encoding.startswith(("RP", "SRP")) else "RI",
            "BYT_Or": "LSB" if encoding.startswith("SR") else "MSB",
            "ENCdg": "ASCII" if encoding.startswith("ASC") else "BINARY",
            "NR_Pt": str(span.stop - span.start),
            "PT_Fmt": "Y",
            "PT_Off": "0",
            "XINcr": f"{1 / self.base.rate_hz:.9E}",
            "XUNit": '"s"',
            "XZEro": f"{(span.start - self.base.before) / self.base.rate_hz:.9E}",
            "YMUlt": f"{scale:.9E}",
            "YOFf": f"{levels:.4E}",
            "YZEro": f"{channel.centre_v + levels * scale:.9E}",
            "YUNit": self._set["CH<x>:PRObe:UNIts", self._source],
        }

    def _curve(self) -> bytes:
        waves = [self._scaled(shot.codes[self._source]) for shot in self._frames()]
        if self._set["DATa:ENCdg", 0].startswith("ASC"):
            return b";".join(b",".join(b"%d" % code for code in wave.tolist()) for wave in waves)
        order = ">" if self._preamble()["BYT_Or"] == "MSB" else "<"
        positive = self._preamble()["BN_Fmt"] == "RP"
        kind = np.dtype(f"{order}{'u' if positive else 'i'}{self._width}")
        middle = 1 << 8 * self._width - 1 if positive else 0
        data = b"".join((wave.astype(np.int32) + middle).astype(kind).tobytes() for wave in waves)
        if self.short:
            data, self.short = data[: -self.short * self._width], 0
        stray, self.stray = self.stray, b""
        return b"#%d%d" % (len(str(len(data))), len(data)) + data + stray

    def _scaled(self, codes: Codes) -> Codes:
        shift = 8 * self._width - self._kind.bits
        codes = codes[self._span()]
        return codes << shift if shift >= 0 else codes >> -shift
