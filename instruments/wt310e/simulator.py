"""The device end of a WT310E's wire. It packs bytes by its own code, so that no mistake is shared with wire.py.

At each update it has the mean of the load over the interval before, and counts energy without a hole while it
integrates. As found, its ranges are fixed at 15 V and 1 A, and it measures RMS values four times a second. The load
begins (t = 0) when the meter is switched on. A current over 140 % of the range is shown as over it.
"""

from __future__ import annotations

import struct

from joulemeter.synthetic import Draw
from joulemeter.transport.scpidevice import Refused, ScpiDevice

RANGES = {
    "VOLT": (15.0, 30.0, 60.0, 150.0, 300.0, 600.0),
    "CURR": (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
}
RATES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
SHOWN_TO = 1.4
# Yokogawa's numbers for what is over its range and for what is not there.
OVER, NOTHING = 9.9e37, 9.91e37
WORDS = {OVER: b"INF", NOTHING: b"NAN"}
# Below one update the means are summed in pieces that divide every rate.
PIECE_HZ = 20.0

_SHORT = {
    "NUMERIC": "NUM", "NORMAL": "NORM", "VALUE": "VAL", "NUMBER": "NUM", "INTEGRATE": "INTEG", "STATE": "STAT",
    "START": "STAR", "RESET": "RES", "TIMER": "TIM", "INPUT": "INP", "VOLTAGE": "VOLT", "CURRENT": "CURR",
    "RANGE": "RANG", "CFACTOR": "CFAC", "SYNCHRONIZE": "SYNC", "COMMUNICATE": "COMM", "REMOTE": "REM",
    "HEADER": "HEAD", "VERBOSE": "VERB", "STATUS": "STAT", "ERROR": "ERR", "SAMPLE": "SAMP", "FORMAT": "FORM",
    "QMESSAGE": "QMES", "MEASURE": "MEAS", "AVERAGING": "AVER",
}  # fmt: skip


class Wt310eSimulator(ScpiDevice):
    identity = "YOKOGAWA,WT310E,SIM00000001,F1.04"

    def __init__(self, load: Draw, volts: float, *, model: str = "WT310E", auto: bool = False) -> None:
        super().__init__()
        self.identity = self.identity.replace("WT310E", model)
        self._load, self._volts = load, volts
        self._settings = {
            ":RATE": "250.0E-03", ":INP:CFAC": "3", ":INP:MODE": "RMS", ":INP:SYNC": "VOLTAGE",
            ":INP:VOLT:RANG": "15.0E+00", ":INP:CURR:RANG": "1.00E+00", ":INP:VOLT:AUTO": str(int(auto)),
            ":INP:CURR:AUTO": str(int(auto)), ":NUM:FORM": "ASCII", ":NUM:NORM:NUM": "4", ":INTEG:MODE": "NORMAL",
            ":INTEG:TIM": "0,0,0", ":COMM:REM": "0", ":COMM:HEAD": "0", ":COMM:VERB": "1", ":COMM:LOCK": "0",
            ":MEAS:AVER:STAT": "0", ":MEAS:AVER:TYPE": "LINEAR", ":MEAS:AVER:COUN": "8", ":MEAS:MHOL": "0",
            ":INP:FILT:LINE": "0", ":INP:FILT:FREQ": "0", ":INP:WIR": "P1W2", ":MATH": "CFU1", ":HOLD": "0",
            ":SYST:KLOC": "0",
        }  # fmt: skip
        self._items = ["U,1", "I,1", "P,1", "WH,1"] + ["NONE"] * 6
        self._state = "RESET"
        self._pieces = 0  # of the load, measured so far
        self._sums: list[float] = []
        self._shown: tuple[float, float, float] | None = None
        # Amperes times pieces: counted now, and as of the last update.
        self._counted = self._shown_count = 0.0
        load.powered(True, 0.0)

    def advance(self, now_s: float) -> None:
        due = int(now_s * PIECE_HZ + 1e-6) - self._pieces
        if due <= 0:
            return
        each = max(round(self._interval_s() * PIECE_HZ), 1)
        for mean_a in self._load.mean_current_a(self._pieces, due, PIECE_HZ).tolist():
            self._pieces += 1
            self._sums.append(mean_a)
            if self._state == "START":
                self._counted += mean_a
            if len(self._sums) >= each:
                self._update()

    def _interval_s(self) -> float:
        return float(self._settings[":RATE"])

    def _update(self) -> None:
        mean_a = sum(self._sums) / len(self._sums)
        self._sums = []
        self._shown_count = self._counted
        over_v = self._volts > SHOWN_TO * float(self._settings[":INP:VOLT:RANG"])
        over_a = mean_a > SHOWN_TO * float(self._settings[":INP:CURR:RANG"])
        self._shown = (
            OVER if over_v else self._volts,
            OVER if over_a else mean_a,
            OVER if over_v or over_a else self._volts * mean_a,
        )

    def _value(self, item: str) -> float:
        function = item.split(",")[0]
        if self._shown is None:
            return NOTHING
        match function:
            case "U" | "I" | "P":
                return self._shown["UIP".index(function)]
            case "WH":
                return NOTHING if self._state == "RESET" else self._shown_count / PIECE_HZ * self._volts / 3600
        return NOTHING

    def answer(self, command: str) -> bytes | None:
        header, _, value = command.partition(" ")
        query = header.endswith("?")
        nodes = [_SHORT.get(node, node) for node in header.rstrip("?").upper().lstrip(":").split(":")]
        if nodes[0] == "SAMP":
            nodes = nodes[1:]
        if nodes[0] == "NUM" and nodes[1].startswith("ITEM"):
            nodes.insert(1, "NORM")
        name, value = ":" + ":".join(nodes), value.strip().upper()
        if query:
            return self._query(name, value)
        self._set(name, value)
        return None

    def _query(self, name: str, value: str) -> bytes:
        match name:
            case ":NUM:NORM:VAL":
                items = self._items[: int(self._settings[":NUM:NORM:NUM"])]
                return self._told([self._value(item) for item in ([items[int(value) - 1]] if value else items)])
            case ":INTEG:STAT":
                return self._state.encode()
            case ":STAT:ERR":
                return super()._common("SYST:ERR?") or b""
            case ":STAT:EESR":
                return b"1"
            case ":*OPT":
                return b"0"
            case _ if name.startswith(":NUM:NORM:ITEM"):
                return self._items[int(name[len(":NUM:NORM:ITEM") :]) - 1].encode()
            case _ if name in self._settings:
                return self._settings[name].encode()
        raise Refused(113, "Undefined header")

    def _set(self, name: str, value: str) -> None:
        match name:
            case ":INTEG:STAR" | ":INTEG:STOP" | ":INTEG:RES":
                self._integrate(name[len(":INTEG:") :])
            case ":RATE":
                self._settings[name] = f"{_nearest(value, RATES):E}"
                self._sums = []
            case ":INP:VOLT:RANG" | ":INP:CURR:RANG":
                self._refuse_integrating()
                self._settings[name] = f"{_nearest(value, RANGES[name[5:9]]):E}"
                self._settings[f"{name[:9]}:AUTO"] = "0"
            case ":INP:VOLT:AUTO" | ":INP:CURR:AUTO":
                self._refuse_integrating()
                self._settings[name] = str(int(value in ("ON", "1")))
            case ":INP:MODE" if value not in ("RMS", "VMEAN", "DC"):
                raise Refused(131, "Invalid character data")
            case ":NUM:FORM":
                self._settings[name] = "FLOAT" if value.startswith("FLO") else "ASCII"
            case _ if name.startswith(":NUM:NORM:ITEM"):
                self._items[int(name[len(":NUM:NORM:ITEM") :]) - 1] = value
            case _ if name.startswith((":COMM:", ":INTEG:", ":SYST:COMM", ":STAT:")):
                self._settings[name] = {"ON": "1", "OFF": "0"}.get(value, value)
            case _ if name in self._settings:
                self._settings[name] = value
            case _:
                raise Refused(113, "Undefined header")

    def _refuse_integrating(self) -> None:
        if self._state != "RESET":
            raise Refused(813, "Invalid operation during integration")

    def _integrate(self, what: str) -> None:
        """The codes are those that yokotool knows."""
        if what == "STAR":
            if self._state == "START":
                raise Refused(842, "Attempted to start while integration in progress")
            self._state = "START"
        elif what == "STOP":
            if self._state != "START":
                raise Refused(844, "Attempted to stop while integration is not in progress")
            self._state = "STOP"
        elif self._state == "START":
            raise Refused(845, "Attempted to reset while integration in progress")
        else:
            self._state, self._counted, self._shown_count = "RESET", 0.0, 0.0

    def press_stop(self) -> None:
        """What a person does at the front panel."""
        self._state = "STOP"

    def protect(self) -> None:
        """What the meter does at a fixed small range that is much overloaded."""
        self._settings |= {":INP:CURR:RANG": "1.00E+00", ":INP:CURR:AUTO": "1"}

    def _told(self, values: list[float]) -> bytes:
        if self._settings[":NUM:FORM"] == "ASCII":
            return b",".join(WORDS.get(one) or _nr3(one) for one in values)
        payload = b"".join(struct.pack(">f", one) for one in values)
        return b"#4%04d%b" % (len(payload), payload)


def _nr3(value: float) -> bytes:
    """Six digits and an exponent that is a multiple of three, such as 123.456E-03."""
    mantissa, exponent = f"{value:.5E}".split("E")
    shift = int(exponent) % 3
    return f"{float(mantissa) * 10**shift:.{5 - shift}f}E{int(exponent) - shift:+03d}".encode()


def _nearest(value: str, choices: tuple[float, ...]) -> float:
    """The choice that is meant, such as 100MS, 15V or 200MA. Raises Refused."""
    number = value.rstrip("SVA")
    scale = 1e-3 if number.endswith("M") else 1.0
    try:
        wanted = float(number.rstrip("M")) * scale
    except ValueError:
        raise Refused(131, "Invalid character data") from None
    for one in choices:
        if abs(wanted / one - 1) < 1e-3:
            return one
    raise Refused(222, "Data out of range")
