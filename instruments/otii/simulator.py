"""The Otii app's end of its TCP port, with one meter behind it. It writes its lines by its own code.

The load begins (t = 0) with each recording. The meter is found supplying 3.0 V, as somebody may have left it; voltage
and current of the board follow the output. i1 and i2 are the load's d0 and d1. Where the UART is on, the board logs
"begin" and "end" when d0 changes. The app names its server `joulemeter-simulator`: whoever records can say so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter.instrument import Options
from joulemeter.synthetic import Draw

RATES = {"Arc": {"mc": 4000, "mv": 1000}, "Ace": {"mc": 50_000, "mv": 50_000}}
# Elektor's review of the Arc: steps of 5 nA up to 20 mA, of 82 µA above.
LOW_TOP_A, LOW_STEP_A, HIGH_STEP_A = 20e-3, 5e-9, 82e-6
ANALOG, DIGITAL, LOG = ("mc", "mv"), ("i1", "i2"), "rx"
SAID = {True: "begin", False: "end"}

LICENCE = {"id": 1234, "type": "Automation", "available": True, "reserved_to": "", "hostname": ""}
HOST = "simulated"
DEVICE_IDS = {"Arc": "Arc512031204843494E3130393033313036", "Ace": "Ace512031204843494E3130393033313036"}


class Refusal(Exception):  # noqa: N818 - an answer
    def __init__(self, code: str, **data: Any) -> None:
        self.code, self.data = code, data


class Recording:
    """What the app keeps of one recording: values of the analog channels, entries of the others."""

    def __init__(self, began_s: float, load: Draw, rates: Mapping[str, int]) -> None:
        self.began_s, self.load, self.rates = began_s, load, dict(rates)
        self.running = True
        self.values: dict[str, list[float]] = {name: [] for name in ANALOG}
        self.entries: dict[str, list[dict[str, Any]]] = {name: [] for name in (*DIGITAL, LOG)}
        self.levels = 0
        # Added to the time stamps from that sample on, where a test wants a hole.
        self.hole: tuple[int, float] | None = None

    def start_s(self, channel: str, index: int) -> float:
        at_s = index / self.rates[channel]
        if self.hole is not None and at_s >= self.hole[0] / self.rates["mc"]:
            at_s += self.hole[1]
        return at_s


class OtiiSimulator:
    def __init__(
        self,
        load: Draw,
        options: Options,
        *,
        model: str = "Arc",
        logged_in: bool = True,
        licences: Sequence[Mapping[str, Any]] = (LICENCE,),
        source_ohm: float = 0.0,
    ) -> None:
        """`options.declared_v` is the board's own supply, in line. The voltage falls by `source_ohm` times current."""
        self._load = load
        self._board_v = options.declared_v or 3.0
        self._source_ohm = source_ohm
        self.model = model
        self.device = {"device_id": DEVICE_IDS[model], "name": model, "type": model}
        self.logged_in = logged_in
        self.licences = [dict(licence) for licence in licences]
        self.connected = True
        self.project = True
        self.elsewhere = False  # the device belongs to another project
        self.state: dict[str, Any] = {
            "main": True,
            "main_voltage": 3.0,
            "max_current": 2.5,
            "exp_voltage": 3.3,
            "uart_baudrate": 115200,
            "range": "low",
            "power_regulation": "voltage",
            "4wire": False,
            "supply_mode": "power-box",
            "exp_port": False,
            "uart": False,
        }
        self.rates = dict(RATES[model])
        self.enabled: set[str] = set()
        self.recordings: list[Recording] = []
        self.calibrations = 0
        self._now_s = 0.0
        self._greet = 1
        self._inbox = b""
        self._requests: list[bytes] = []
        self._powered: bool | None = None
        self._commands = self._table()
        self._tell_board()

    # -- the wire ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Requests in whatever pieces they come; nothing at all says that the client has hung up."""
        if not data:
            self._inbox, self._requests = b"", []
            # What follows at once still goes to the client that has gone.
            self._greet = 2
        *lines, self._inbox = (self._inbox + data).split(b"\r\n")
        self._requests += lines

    def transmit(self, now_s: float) -> bytes:
        self._now_s = max(self._now_s, now_s)
        self._record()
        answers = b""
        if self._greet:
            self._greet -= 1
            if not self._greet:
                data = {"otii_version": "3.5.5", "protocol_version": "0.1", "server": "joulemeter-simulator"}
                answers = _line({"type": "information", "info": "connected", "data": data})
        for request in self._requests:
            answers += self._answer(request)
        self._requests = []
        return answers

    def _answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            command, data = request["cmd"], request.get("data", {})
        except (ValueError, TypeError, KeyError):
            return _line({"type": "error", "errorcode": "Not able to parse request", "data": {"data": repr(line)}})
        head = {"cmd": command, "trans_id": request.get("trans_id", "")}
        try:
            obey = self._commands.get(command)
            if obey is None:
                raise Refusal("Invalid command")
            return _line({"type": "response", **head, "data": obey(data) or {}})
        except KeyError as missing:
            refusal = Refusal("Missing key in request", key=missing.args[0])
        except Refusal as refused:
            refusal = refused
        return _line({"type": "error", "errorcode": refusal.code, **head, "data": refusal.data})

    def _table(self) -> dict[str, Callable[[Mapping[str, Any]], Any]]:
        commands: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "otii_is_logged_in": lambda data: {"logged_in": self.logged_in},
            "otii_login": self._login,
            "otii_logout": self._logout,
            "otii_get_licenses": lambda data: {"licenses": self.licences},
            "otii_reserve_license": lambda data: self._reserve(data["license_id"], "joulemeter"),
            "otii_return_license": lambda data: self._reserve(data["license_id"], ""),
            "otii_has_license": lambda data: {"has_license": self._licensed},
        }
        licensed: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "otii_get_devices": lambda data: {"devices": [self.device] if self.connected else []},
            "otii_get_active_project": lambda data: {"project_id": 1 if self.project else -1},
            "otii_create_project": self._create_project,
            "project_start_recording": self._start,
            "project_stop_recording": self._stop,
            "project_get_last_recording": self._last,
            "recording_is_running": lambda data: {"running": self._recorded(data).running},
            "recording_get_channel_data_count": lambda data: {"count": len(self._channel(data))},
            "recording_get_channel_data": self._data,
            "recording_get_channel_info": self._info,
            "recording_get_channel_statistics": self._statistics,
            "arc_add_to_project": self._add,
            "arc_is_connected": lambda data: {"connected": self.connected},
            "arc_get_version": lambda data: {"hw_version": "1.0", "fw_version": "1.4.0"},
            "arc_calibrate": self._calibrate,
            "arc_enable_channel": self._enable_channel,
            "arc_enable_exp_port": lambda data: self._change("exp_port", data["enable"]),
            "arc_enable_uart": lambda data: self._change("uart", data["enable"]),
            "arc_get_gpi": self._gpi,
            "arc_get_channel_samplerate": lambda data: {"value": self.rates[data["channel"]]},
            "arc_set_channel_samplerate": self._set_rate,
            "arc_get_supply_mode": lambda data: {"supply_mode": self.state["supply_mode"]},
            "arc_set_main": lambda data: self._change("main", data["enable"]),
            "arc_get_main": lambda data: {"value": self.state["main"]},
            "arc_get_range": lambda data: {"range": self.state["range"]},
            "arc_set_range": lambda data: self._change("range", data["range"]),
            "arc_set_power_regulation": lambda data: self._change("power_regulation", data["mode"]),
            "arc_set_4wire": lambda data: self._change("4wire", data["enable"]),
        }
        for name in ("main_voltage", "max_current", "exp_voltage", "uart_baudrate"):
            licensed[f"arc_get_{name}"] = lambda data, name=name: {"value": self.state[name]}  # type: ignore[misc]
            licensed[f"arc_set_{name}"] = lambda data, name=name: self._change(name, data["value"])  # type: ignore[misc]
        return commands | {name: self._with_licence(obey) for name, obey in licensed.items()}

    # -- account -------------------------------------------------------------------------------------------------------

    def _with_licence(self, obey: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
        def guarded(data: Mapping[str, Any]) -> Any:
            if not self._licensed:
                raise Refusal("No license")
            return obey(data)

        return guarded

    @property
    def _licensed(self) -> bool:
        return self.logged_in and any(each["available"] and each["hostname"] == HOST for each in self.licences)

    def _login(self, data: Mapping[str, Any]) -> None:
        if data["password"] != "right":  # noqa: S105 - of nobody
            raise Refusal("Could not login", message=f"{data['username']} is not known")
        self.logged_in = True

    def _logout(self, data: Mapping[str, Any]) -> None:
        self.logged_in = False

    def _reserve(self, licence_id: int, holder: str) -> None:
        for licence in self.licences:
            if licence["id"] == licence_id and licence["available"]:
                licence.update(reserved_to=holder, hostname=HOST if holder else "")
                return
        raise Refusal("License could not be reserved" if holder else "License could not be returned")

    # -- the meter -----------------------------------------------------------------------------------------------------

    def _device(self, data: Mapping[str, Any]) -> None:
        if not self.connected or data["device_id"] != self.device["device_id"]:
            raise Refusal("Device not connected", device_id=data["device_id"])

    def _add(self, data: Mapping[str, Any]) -> None:
        self._device(data)
        if self.elsewhere:
            raise Refusal("Command failure", message="the device is used by another project")

    def _change(self, name: str, value: Any) -> None:
        if name == "main_voltage" and not 0.5 <= value <= (5.0 if self.model == "Arc" else 25.0):
            raise Refusal("Invalid key value", key="value", value=value)
        self.state[name] = value
        self._tell_board()

    def _tell_board(self) -> None:
        powered = bool(self.state["main"])
        if powered != self._powered:
            self._powered = powered
            self._load.powered(powered, self._now_s)

    def _calibrate(self, data: Mapping[str, Any]) -> None:
        self._device(data)
        self.calibrations += 1

    def _enable_channel(self, data: Mapping[str, Any]) -> None:
        self._device(data)
        change = self.enabled.add if data["enable"] else self.enabled.discard
        change(data["channel"])

    def _set_rate(self, data: Mapping[str, Any]) -> None:
        if self.model == "Arc":
            raise Refusal("Command not valid for device type")
        self.rates[data["channel"]] = data["value"]

    def _gpi(self, data: Mapping[str, Any]) -> dict[str, bool]:
        levels = self.recordings[-1].levels if self.recordings and self.recordings[-1].running else 0
        return {"value": bool(levels >> data["pin"] - 1 & 1)}

    # -- recordings ----------------------------------------------------------------------------------------------------

    def _create_project(self, data: Mapping[str, Any]) -> dict[str, int]:
        self.project = True
        return {"project_id": 1}

    def _start(self, data: Mapping[str, Any]) -> None:
        if not self.project:
            raise Refusal("Project does not exist")
        if self.recordings and self.recordings[-1].running:
            raise Refusal("Command failure", message="a recording is running")
        self.recordings.append(Recording(self._now_s, self._load.from_time(self._now_s), self.rates))

    def _stop(self, data: Mapping[str, Any]) -> None:
        for recording in self.recordings:
            recording.running = False

    def _last(self, data: Mapping[str, Any]) -> dict[str, Any]:
        number = len(self.recordings)
        return {"recording_id": number, "name": f"Recording {number}"} if number else {"recording_id": -1}

    def _recorded(self, data: Mapping[str, Any]) -> Recording:
        if not self.project:
            raise Refusal("Project does not exist")
        if not 0 < data["recording_id"] <= len(self.recordings):
            raise Refusal("Invalid key value", key="recording_id", value=data["recording_id"])
        number: int = data["recording_id"]
        return self.recordings[number - 1]

    def _channel(self, data: Mapping[str, Any]) -> Sequence[Any]:
        recording, name = self._recorded(data), data["channel"]
        if name not in self.enabled or self.elsewhere:
            raise Refusal("Invalid key value", key="channel", value=name)
        return recording.values[name] if name in ANALOG else recording.entries[name]

    def _data(self, data: Mapping[str, Any]) -> dict[str, Any]:
        recording, name, index = self._recorded(data), data["channel"], data["index"]
        values = self._channel(data)[index : index + data["count"]]
        if name in ANALOG:
            start_s, rate = recording.start_s(name, index), recording.rates[name]
            return {"data_type": "analog", "timestamp": start_s, "interval": 1 / rate, "values": values}
        return {"data_type": "log" if name == LOG else "digital", "values": values}

    def _info(self, data: Mapping[str, Any]) -> dict[str, float]:
        recording, name = self._recorded(data), data["channel"]
        rate = recording.rates[name]
        return {"offset": 0.0, "from": 0.0, "to": len(self._channel(data)) / rate, "sample_rate": rate}

    def _statistics(self, data: Mapping[str, Any]) -> dict[str, float]:
        """Energy in joules, as the sum of current times the voltage of the same time."""
        recording, name = self._recorded(data), data["channel"]
        rate = recording.rates[name]
        first, last = round(data["from"] * rate), round(data["to"] * rate)
        values = np.array(self._channel(data)[first:last])
        told = {"min": float(values.min()), "max": float(values.max()), "average": float(values.mean())}
        if name == "mc":
            times = (np.arange(first, first + len(values)) + 0.5) / rate
            at = np.minimum((times * recording.rates["mv"]).astype(int), len(recording.values["mv"]) - 1)
            told["energy"] = float(np.sum(values * np.array(recording.values["mv"])[at]) / rate)
            told["charge"] = float(values.sum() / rate)
        return told

    def _record(self) -> None:
        """What has come since the last time."""
        if not self.recordings or not self.recordings[-1].running or not self.connected:
            return
        recording = self.recordings[-1]
        fresh = {}
        for name in ANALOG:
            rate, done = recording.rates[name], len(recording.values[name])
            due = int((self._now_s - recording.began_s) * rate + 1e-6) - done
            fresh[name] = (done, max(due, 0), rate)
        first, count, rate = fresh["mc"]
        if count:
            current = self._current(recording, first, count, rate)
            recording.values["mc"] += _float32(_quantised(current))
            lines = recording.load.lines(first, count, rate) if self._powered else np.zeros(count, np.uint8)
            self._edges(recording, first, lines, rate)
            if current.max() > self.state["max_current"]:
                self._change("main", False)
        first, count, rate = fresh["mv"]
        if count:
            volts = self._board_v if self.state["power_regulation"] == "inline" else self.state["main_voltage"]
            if self.state["power_regulation"] == "inline" and not self.state["4wire"]:
                volts = 0.0
            drop = self._source_ohm * self._current(recording, first, count, rate)
            recording.values["mv"] += _float32((volts - drop) * bool(self._powered))

    def _current(self, recording: Recording, first: int, count: int, rate: int) -> NDArray[np.float64]:
        if not self._powered:
            return np.zeros(count)
        return recording.load.mean_current_a(first, count, rate)

    def _edges(self, recording: Recording, first: int, lines: NDArray[np.uint8], rate: int) -> None:
        before = np.concatenate([[recording.levels], lines[:-1]]).astype(np.uint8)
        for k in np.flatnonzero(before != lines):
            at_s = (first + int(k)) / rate
            for bit, name in enumerate(DIGITAL):
                level = bool(lines[k] >> bit & 1)
                if level == bool(before[k] >> bit & 1):
                    continue
                recording.entries[name].append({"timestamp": at_s, "value": level})
                if bit == 0 and self.state["uart"]:
                    text = SAID[level]
                    sent_s = 10 * len(text) / self.state["uart_baudrate"]
                    recording.entries[LOG].append({"timestamp": at_s + sent_s, "value": text})
        recording.levels = int(lines[-1])


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\r\n"


def _quantised(current: NDArray[np.float64]) -> NDArray[np.float64]:
    step = np.where(current <= LOW_TOP_A, LOW_STEP_A, HIGH_STEP_A)
    return np.rint(current / step) * step


def _float32(values: NDArray[np.float64]) -> list[float]:
    """Numbers as an app prints them that keeps them in single precision."""
    single: list[float] = values.astype(np.float32).astype(np.float64).tolist()
    return single
