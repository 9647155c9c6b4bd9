"""A LeCroy as its clients see it: commands in, waveforms of template LECROY_2_3 out."""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Mapping, Sequence

import numpy as np

from joulemeter.instrument import Options
from joulemeter.scope.bench import ScopeSimulator, Shot
from joulemeter.scope.frontend import FrontEnd
from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused

_RATES_HZ = np.outer(10.0 ** np.arange(3, 10), [1, 2, 2.5, 5]).ravel()
_VBS = re.compile(r"VBS(\?)?\s+'\s*(return\s*=\s*)?app\.([\w.]+)\s*(?:=\s*(.*))?'", re.IGNORECASE)
_CHANNEL = re.compile(r"C([1-4]):(\w+)(\?)?\s*(.*)", re.IGNORECASE)
_COMMAND = re.compile(r"(\w+)(\?)?\s*(.*)")
_PER_DIV = {"BYTE": 32, "WORD": 32 * 256}
_NEW, _READY = 1, 1 << 13


class LecroySimulator(ScopeSimulator):
    """Header off or short, BYTE or WORD, both byte orders, single records and sequences."""

    reply_end = b"\n"
    codes_per_div = 32.0
    limit = 127

    def __init__(self, load: Draw, settings: Mapping[str, str], options: Options) -> None:
        super().__init__(load, FrontEnd.of(settings, options))
        self.identity = "LECROY,WAVESURFER3034Z,SIM00000001,8.5.0"
        self.header = "SHORT"
        self.word = False
        self.little = False
        self.tdiv_s, self.delay_s, self.most = 1e-3, 0.0, 1e6
        self.mode = "AUTO"
        self.segments = 0
        self.states = 0
        self.level_v = 0.0
        self.source = 1
        self.bandwidth: dict[int, str] = {}
        self.coupling: dict[int, str] = {}
        self._base()

    def _base(self) -> None:
        width_s = 10 * self.tdiv_s
        fitting = _RATES_HZ[_RATES_HZ * width_s <= self.most * (1 + 1e-9)]
        self.base.rate_hz = float(fitting[-1] if len(fitting) else _RATES_HZ[0])
        self.base.points = round(width_s * self.base.rate_hz)
        self.base.before = round((width_s / 2 + self.delay_s) * self.base.rate_hz)

    def advance(self, now_s: float) -> None:
        was = self.armed
        super().advance(now_s)
        if was and not self.armed and self.sweep.shots:
            self.states |= _NEW
            self._set_mode("STOP" if self.mode == "SINGLE" else self.mode)

    def answer(self, command: str) -> bytes | None:
        if match := _VBS.fullmatch(command):
            return self._vbs(match[3], bool(match[1]), match[4])
        if match := _CHANNEL.fullmatch(command):
            return self._channel(int(match[1]), match[2].upper(), bool(match[3]), match[4].strip())
        match = _COMMAND.fullmatch(command)
        if match is None:
            raise Refused(-113, "Undefined header")
        return self._plain(match[1].upper(), bool(match[2]), match[3].strip())

    def _said(self, head: str, value: str, unit: str = "") -> bytes:
        if self.header == "OFF":
            return value.encode()
        return f"{head} {value}{' ' + unit if unit else ''}".encode()

    def _vbs(self, name: str, asked: bool, value: str | None) -> bytes | None:
        leaf = name.lower()
        known = {
            "acquisition.horizontal.samplingrate": self.base.rate_hz,
            "acquisition.horizontal.acquisitionduration": self.base.points / self.base.rate_hz,
            "acquisition.horizontal.numsegments": max(self.segments, 1),
        }
        if asked and leaf in known:
            return self._said("VBS", f"{known[leaf]:.10g}")
        if not asked and leaf == "acquisition.horizontal.horscale" and value:
            self.tdiv_s = float(value)
            self._base()
            return None
        raise Refused(-113, "Undefined header")

    def _channel(self, number: int, name: str, asked: bool, value: str) -> bytes | None:
        channel = self.channels[number]
        head = f"C{number}:{name}"
        match name, asked:
            case ("TRA", False):
                channel.on = value.upper() == "ON"
            case ("TRA", True):
                return self._said(head, "ON" if channel.on else "OFF")
            case ("VDIV", False):
                channel.volts_per_div = float(value)
            case ("VDIV", True):
                return self._said(head, f"{channel.volts_per_div:.3E}", "V")
            case ("OFST", False):
                channel.centre_v = -float(value)
            case ("OFST", True):
                return self._said(head, f"{-channel.centre_v:.4E}", "V")
            case ("ATTN", False):
                channel.attenuation = float(value)
            case ("ATTN", True):
                return self._said(head, f"{channel.attenuation:g}")
            case ("CPL", False):
                self.coupling[number] = value
            case ("CPL", True):
                return self._said(head, self.coupling.get(number, "D1M"))
            case ("TRLV", False):
                self.level_v = float(value.upper().removesuffix("V"))
            case ("TRLV", True):
                return self._said(head, f"{self.level_v:.3E}", "V")
            case ("TRSL", False):
                self.rising = value.upper() == "POS"
            case ("TRSL", True):
                return self._said(head, "POS" if self.rising else "NEG")
            case ("TRCP", False):
                pass
            case ("WF", True):
                return self._waveform(number, value.upper() or "ALL")
            case _:
                raise Refused(-113, "Undefined header")
        return None

    def _plain(self, name: str, asked: bool, value: str) -> bytes | None:
        match name, asked:
            case (("CHDR" | "COMM_HEADER"), False):
                self.header = value.upper()
            case (("CHDR" | "COMM_HEADER"), True):
                return self._said("CHDR", self.header)
            case (("CFMT" | "COMM_FORMAT"), False):
                self.word = "WORD" in value.upper()
            case (("CORD" | "COMM_ORDER"), False):
                self.little = value.upper() == "LO"
            case (("TDIV" | "TIME_DIV"), False):
                self.tdiv_s = float(value.upper().removesuffix("S"))
                self._base()
            case (("TDIV" | "TIME_DIV"), True):
                return self._said("TDIV", f"{self.tdiv_s:.3E}", "S")
            case (("TRDL" | "TRIG_DELAY"), False):
                self.delay_s = float(value.upper().removesuffix("S"))
                self._base()
            case (("TRDL" | "TRIG_DELAY"), True):
                return self._said("TRDL", f"{self.delay_s:.6E}", "S")
            case (("MSIZ" | "MEMORY_SIZE"), False):
                self.most = float(value)
                self._base()
            case (("MSIZ" | "MEMORY_SIZE"), True):
                return self._said("MSIZ", f"{self.most:.3E}", "SAMPLE")
            case (("TRMD" | "TRIG_MODE"), False):
                self._set_mode(value.upper())
            case (("TRMD" | "TRIG_MODE"), True):
                return self._said("TRMD", self.mode)
            case ("ARM" | "ARM_ACQUISITION", False):
                self._set_mode("SINGLE")
            case ("STOP", False):
                self._set_mode("STOP")
            case ("INR", True):
                given, self.states = self.states, 0
                return self._said("INR", str(given))
            case ("SEQ" | "SEQUENCE", False):
                words = [word.strip() for word in value.split(",")]
                self.segments = int(float(words[1])) if words[0].upper() == "ON" and len(words) > 1 else 0
            case ("TRSE" | "TRIG_SELECT", False):
                words = [word.strip() for word in value.upper().split(",")]
                if words[0] != "EDGE":
                    raise Refused(-224, "Illegal parameter value")
                self.source = int(words[words.index("SR") + 1].removeprefix("C"))
            case ("TRSE" | "TRIG_SELECT", True):
                return self._said("TRSE", f"EDGE,SR,C{self.source},HT,OFF")
            case (("BWL" | "BANDWIDTH_LIMIT"), False):
                where, _, limit = value.partition(",")
                self.bandwidth[int(where.strip().upper().removeprefix("C"))] = limit
            case (("WFSU" | "WAVEFORM_SETUP"), False):
                pass
            case _:
                raise Refused(-113, "Undefined header")
        return None

    def _set_mode(self, mode: str) -> None:
        self.mode = mode
        if mode == "STOP":
            self.halt()
            return
        self.arm(max(self.segments, 1) if mode in ("SINGLE", "NORM", "AUTO") else 1)
        self.states |= _READY

    # -- waveforms ----------------------------------------------------------------------------------------------------

    def _waveform(self, number: int, what: str) -> bytes:
        shots = self.held if not self.armed else []
        shots = [shot for shot in shots if number in shot.codes]
        sequence = self.segments > 0
        size = 2 if self.word else 1
        data_bytes = sum(len(shot.codes[number]) for shot in shots) * size
        wanted = what in ("ALL", "DAT1")
        data = b"".join(self._encode(shot.codes[number]) for shot in shots) if wanted else b""
        first_s = shots[0].trigger_s if shots else 0.0
        mark = "<" if self.little else ">"
        times = b"".join(
            struct.pack(mark + "dd", shot.trigger_s - first_s, shot.first_s - shot.trigger_s) for shot in shots
        )
        parts = {
            "DESC": self._descriptor(number, shots, data_bytes, len(times) if sequence else 0),
            "TIME": times if sequence else b"",
            "DAT1": data,
        }
        if what != "ALL" and what not in parts:
            raise Refused(-224, "Illegal parameter value")
        payload = b"".join(parts.values()) if what == "ALL" else parts[what]
        head = f"{what}," if self.header == "OFF" else f"C{number}:WF {what},"
        return head.encode() + b"#9%09d" % len(payload) + payload

    def _encode(self, codes: np.ndarray[tuple[int], np.dtype[np.int16]]) -> bytes:
        if not self.word:
            return codes.astype(np.int8).tobytes()
        return (codes.astype(np.int32) * 256).astype("<i2" if self.little else ">i2").tobytes()

    def _descriptor(self, number: int, shots: Sequence[Shot], data_bytes: int, times_bytes: int) -> bytes:
        channel = self.channels[number]
        gain = channel.volts_per_div / _PER_DIV["WORD" if self.word else "BYTE"]
        top = 127 * 256 if self.word else 127
        bottom = -128 * 256 if self.word else -128
        count = data_bytes // (2 if self.word else 1)
        offset_s = shots[0].first_s - shots[0].trigger_s if shots else 0.0
        block = bytearray(346)

        def put(at: int, kind: str, *values: float | bytes) -> None:
            struct.pack_into(("<" if self.little else ">") + kind, block, at, *values)

        put(0, "16s16s", b"WAVEDESC", b"LECROY_2_3")
        put(32, "hh", int(self.word), int(self.little))
        put(36, "7l", 346, 0, 0, times_bytes, 0, 0, data_bytes)
        put(76, "16sl16s", b"LECROYWS3034Z", 1, b"")
        put(116, "lllllllll", count, count, 0, max(count - 1, 0), 0, 1, 0, max(len(shots), 1), 1)
        put(156, "ffffhh", gain, -channel.centre_v, top, bottom, 8, max(self.segments, 1))
        put(176, "fdd", 1 / self.base.rate_hz, offset_s, offset_s)
        put(196, "48s48s", b"V", b"S")
        if shots:
            at = time.gmtime(1.6e9 + shots[0].trigger_s)
            put(
                296,
                "dBBBBh",
                at.tm_sec + shots[0].trigger_s % 1,
                at.tm_min,
                at.tm_hour,
                at.tm_mday,
                at.tm_mon,
                at.tm_year,
            )
        put(312, "fhhhh", count / self.base.rate_hz, 0, 0, 0, 1)
        put(324, "hhf", 25, 2, channel.attenuation)
        put(344, "h", number - 1)
        return bytes(block)
