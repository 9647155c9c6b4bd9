"""The Otii app on its TCP port: set the meter up, let the app record, and pull what it has recorded meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from joulemeter import units
from joulemeter.capture import Basis, Header, Limit, Voltage
from joulemeter.errors import (
    KEPT,
    AccessError,
    IncompleteError,
    JouleMeterError,
    MissingExtraError,
    NotFoundError,
    UsageError,
)
from joulemeter.instrument import LinkDriver, Options
from joulemeter.transport import Link
from joulemeter.transport.connect import connect

from . import channels, discovery, wire
from .connection import PATIENCE_S, START_APP, UNSUPPORTED, Connection, NoAnswer, Refused, explained
from .licences import Licence

# Seldom enough for an app that also draws, often enough for the host's clock to be related to the samples.
PULL_S = 0.1
PULL_SAMPLES = 20_000
# A pull of less than this many pieces waits for the next.
LEAST_PIECES = 0.5
ANSWER_S = 1.0
STOP_S = 2.0
# After so long without a sample, or while the meter supplies the board: ask what has become of it.
QUIET_S = 1.0
DEVICES_S = 3

MAIN, INLINE, INLINE_4WIRE = "main", "inline", "inline-4wire"
AS_SET = "app"
EXPANSION_V = (1.2, 5.0)
MAX_CURRENT_A = (0.001, 5.0)
DECLARED_SHARE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The user's settings, read. None: as set in the app."""

    connection: str
    max_current_a: float | None
    logic_v: float | None
    rate_hz: int | None
    uart: tuple[int, str, str] | None
    force_high: bool
    low_range: str
    calibrate: bool


def read_settings(settings: Mapping[str, str]) -> Settings:
    """Raises UsageError."""
    rate = settings["rate"]
    if rate != "auto" and not (rate.isdigit() and int(rate) > 0):
        raise UsageError(f"{rate!r} is no sample rate.", "Give samples a second, such as --set rate=10000.")
    return Settings(
        connection=settings["connection"],
        max_current_a=_within(settings["max-current"], "A", MAX_CURRENT_A, "The limit of the current"),
        logic_v=_within(settings["logic"], "V", EXPANSION_V, "The level of the expansion port"),
        rate_hz=None if rate == "auto" else int(rate),
        uart=_uart(settings["uart"]),
        force_high=settings["range"] == "high",
        low_range=settings["low-range"],
        calibrate=settings["calibrate"] == "on",
    )


def _within(text: str, unit: str, span: tuple[float, float], what: str) -> float | None:
    if text == AS_SET:
        return None
    value = units.parse(text, unit)
    if not span[0] <= value <= span[1]:
        raise UsageError(
            f"{what} cannot be {units.show(value, unit)}.",
            f"Choose {units.show(span[0], unit)} to {units.show(span[1], unit)}, or {AS_SET} for what the app has.",
        )
    return value


def _uart(text: str) -> tuple[int, str, str] | None:
    if text == "off":
        return None
    baud, _, words = text.partition(":")
    begin, comma, end = words.partition(",")
    if not (baud.isdigit() and begin and comma and end):
        raise UsageError(f"{text!r} does not say how to read the log.", "Write uart=BAUD:BEGIN,END, or uart=off.")
    return int(baud), begin, end


def check(options: Options, settings: Settings) -> None:
    """Raises UsageError for what no Otii can take."""
    inline = settings.connection != MAIN
    if options.supply_v is not None and inline:
        raise UsageError("An Otii in line with the board's own supply does not supply it.", "Leave --supply out.")
    if options.declared_v is not None and settings.connection != INLINE:
        raise UsageError(
            "The Otii measures the voltage.",
            f"Leave --assume-voltage out; it belongs to --set connection={INLINE}, where it cannot.",
        )
    if options.declared_v is not None and not options.declared_v > 0:
        raise UsageError(f"{options.declared_v:g} V is no supply voltage.", "Give the voltage that the board runs on.")
    _check_supply(options.supply_v, "An Otii", max(model.top_v for model in channels.MODELS.values()))


def _check_supply(volts: float | None, who: str, top_v: float) -> None:
    if volts is not None and not channels.BOTTOM_V <= volts <= top_v:
        raise UsageError(f"{who} cannot supply {volts:g} V.", f"It supplies {channels.BOTTOM_V:g} V to {top_v:g} V.")


def open_driver(address: str, options: Options, chosen: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.otii.open`."""
    settings = read_settings(chosen)
    check(options, settings)
    client()
    server, device = discovery.split(address)
    try:
        link = connect(server)
    except NotFoundError as error:
        raise NotFoundError(f"No Otii app answers at {server}.", START_APP) from error
    return Driver(link, options, settings, device)


def client() -> Any:
    """The maker's package. Raises MissingExtraError."""
    try:
        from otii_tcp_client import otii
    except ImportError as error:
        raise MissingExtraError("An Otii is reached through Qoitech's client package.", "joulemeter[otii]") from error
    return otii


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, settings: Settings, wanted: str = "") -> None:
        """Takes over `link`, and closes it if no Otii can be used behind it.

        Raises NotFoundError, AccessError, UsageError, MissingExtraError, IncompleteError.
        """
        check(options, settings)
        self._link = link
        self._options, self._settings = options, settings
        self._connection: Connection | None = None
        self._licence: Licence | None = None
        self._undo: list[Callable[[], object]] = []
        self._recording: Any = None
        self._not_added = ""
        self._pulled: dict[str, int] = {}
        self._due = self._heard = self._checked = 0.0
        self._powered = False
        self._word = self._piece_samples = 0
        try:
            self._connection = Connection(link)
            otii = client().Otii(self._connection)
            with explained(link.address):
                self._licence = Licence(otii)
                devices = otii.get_devices(timeout=DEVICES_S, devicefilter=list(channels.MODELS))
            self._otii = otii
            self._device = discovery.choose(devices, wanted, link.address)
            self._model = channels.MODELS[self._device.type]
            self._check_model()
        except BaseException:
            self.close()
            raise

    def _check_model(self) -> None:
        """Raises UsageError for what this one cannot take."""
        who = f"An Otii {self._model.name}"
        _check_supply(self._options.supply_v, who, self._model.top_v)
        if self._settings.connection != MAIN and self._model is not channels.ACE:
            raise UsageError(
                f"{who} cannot measure in line with another supply; an Ace can.", "Supply the board by it."
            )
        if self._settings.rate_hz is not None and not self._model.free_rate:
            raise UsageError(f"{who} samples at {self._model.current_hz:g} Hz only.", "Leave --set rate out.")

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(self) -> Header:
        """Set the meter up, power the board if that was asked for, and let the app record.

        Raises UsageError, AccessError, NotFoundError, IncompleteError.
        """
        if self._recording is not None:
            raise UsageError("This Otii is recording already.", "Stop it first.")
        self._patience(PATIENCE_S)
        try:
            with explained(self._link.address):
                return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Header:
        device, settings = self._device, self._settings
        project = self._project()
        self._calibrate()
        inputs = self._enable()
        rates = self._rates()
        self._supply()
        levels = [bool(device.get_gpi(pin)) for pin, _ in enumerate(wire.INPUTS, start=1)]
        try:
            project.start_recording()
        except Refused as refused:
            raise AccessError(
                f"The Otii app does not start to record ({refused.code}; {refused.text}).",
                "End the recording that runs in the app, and see that the device belongs to the open project.",
            ) from refused
        # Last of all: what is put back is still recorded.
        self._undo.insert(0, project.stop_recording)
        self._recording = project.get_last_recording()
        if self._recording is None:
            raise IncompleteError("The Otii app says that it records, and has no recording.", "Restart the app.")
        self._see_device()
        self._pulled = dict.fromkeys((*self._channels(), *inputs), 0)
        self._word = wire.word_bytes(*rates)
        self._piece_samples = round(rates[0] * wire.PIECE_S)
        self._due = self._heard = self._checked = time.monotonic()
        self._patience(ANSWER_S)
        return Header(
            instrument="otii",
            model=f"Otii {device.type}",
            wire=wire.FORMAT,
            rate_hz=rates[0],
            word_bytes=self._word,
            channels=channels.channels(self._model, voltage=self._sees_voltage, lines=len(inputs)),
            serial=device.id,
            firmware=self._firmware(),
            address=self._link.address,
            simulated=self._greeting.simulated or device.type == "Simulator",
            voltage=self._declared(),
            parameters={
                "app": self._greeting.version,
                "inputs": list(inputs),
                "levels": [*levels, False][: len(inputs)],
                "words": list(settings.uart[1:]) if settings.uart else [],
                "low_range": "doubted" if settings.force_high else settings.low_range,
                "connection": settings.connection,
            },
        )

    def _project(self) -> Any:
        """The project that is open in the app, else a new one, with the device in it."""
        from otii_tcp_client.otii import OtiiException

        try:
            project = self._otii.get_active_project()
        except OtiiException:
            project = self._otii.create_project()
        try:
            self._device.add_to_project()
        except Refused as refused:
            # How the app says that it has the device already is not known: the recording shows whether it has.
            if refused.code in ("Device not connected", "No license", "Not logged in"):
                raise
            self._not_added = refused.text or refused.code
        return project

    def _see_device(self) -> None:
        """Raises AccessError where the recording is without the device."""
        try:
            self._recording.get_channel_data_count(self._device.id, wire.CURRENT)
        except Refused as refused:
            why = f" It could not be added to the project: {self._not_added}." if self._not_added else ""
            raise AccessError(
                f"The Otii app records, but not this meter ({refused.code}).{why}",
                "Close other projects that hold it, or add it to the open one in the app.",
            ) from refused

    def _calibrate(self) -> None:
        if not self._settings.calibrate:
            return
        if self._device.get_main():
            raise UsageError(
                "The Otii's output is on, so it cannot calibrate itself.", "Switch it off in the app, or leave it out."
            )
        self._device.calibrate()

    def _enable(self) -> tuple[str, ...]:
        """The inputs that are recorded, in the order of their bits."""
        device, settings = self._device, self._settings
        if settings.logic_v is not None:
            self._set("exp_voltage", settings.logic_v)
        device.enable_exp_port(True)
        inputs: tuple[str, ...] = wire.INPUTS
        if settings.uart is not None:
            self._set("uart_baudrate", settings.uart[0])
            device.enable_uart(True)
            self._undo.append(lambda: device.enable_uart(False))
            inputs = (*inputs, wire.LOG)
        for channel in (*self._channels(), *inputs):
            device.enable_channel(channel, True)
        return inputs

    def _rates(self) -> tuple[float, float]:
        """Samples a second of current and voltage."""
        model, device = self._model, self._device
        if model.free_rate:
            wanted = self._settings.rate_hz or round(model.current_hz)
            for channel in self._channels():
                device.set_channel_samplerate(channel, wanted)
        rates = {wire.CURRENT: model.current_hz, wire.VOLTAGE: model.voltage_hz}
        for channel in self._channels():
            with _where_supported():
                rates[channel] = float(device.get_channel_samplerate(channel)) or rates[channel]
        return rates[wire.CURRENT], rates[wire.VOLTAGE]

    def _supply(self) -> None:
        """The limit, the voltage, and the output on, as far as asked for. Raises UsageError where it stays off."""
        device, settings, supply_v = self._device, self._settings, self._options.supply_v
        if settings.max_current_a is not None:
            self._set("max_current", settings.max_current_a)
        if settings.force_high:
            self._set("range", "high")
        was_on = bool(device.get_main())
        if settings.connection != MAIN:
            # Stays so: with another regulation the output would drive the board's own supply.
            device.set_power_regulation("inline")
            device.set_4wire(settings.connection == INLINE_4WIRE)
        elif supply_v is not None:
            with _where_supported():
                if device.get_supply_mode() != "power-box":
                    raise UsageError(
                        "The Otii emulates a battery, whose voltage is not set.",
                        "Choose the power box in the app, or leave --supply out.",
                    )
            with _where_supported():
                device.set_power_regulation("voltage")
            self._set("main_voltage", supply_v)
        elif not was_on:
            raise UsageError(
                "The Otii's output is off, so there is nothing to measure.",
                "Give --supply and a voltage, or switch it on in the app.",
            )
        if not was_on:
            # Undone first of all: the board is without power before anything else is put back.
            self._undo.append(lambda: device.set_main(False))
            device.set_main(True)
        self._powered = True

    def _set(self, what: str, value: float | str) -> None:
        """Set it, and put back later what was there."""
        found = getattr(self._device, f"get_{what}")()
        change = getattr(self._device, f"set_{what}")
        self._undo.append(lambda: change(found))
        change(value)

    def _declared(self) -> Voltage | None:
        volts = self._options.declared_v
        if volts is None:
            return None
        return Voltage(volts=volts, basis=Basis.DECLARED, limit=Limit(value=DECLARED_SHARE * volts))

    def _firmware(self) -> str | None:
        with _where_supported():
            return str(self._device.get_version()["fw_version"])
        return None

    @property
    def _greeting(self) -> wire.Greeting:
        if self._connection is None:
            raise IncompleteError("This Otii was closed.", "Open it again.")
        return self._connection.greeting

    @property
    def _sees_voltage(self) -> bool:
        """In line, without sense wires, the voltage is the drop across the meter and not the board's."""
        return self._settings.connection != INLINE

    def _channels(self) -> tuple[str, ...]:
        return (wire.CURRENT, wire.VOLTAGE) if self._sees_voltage else (wire.CURRENT,)

    def _patience(self, limit_s: float) -> None:
        if self._connection is not None:
            self._connection.limit_s = limit_s

    # -- read ----------------------------------------------------------------------------------------------------------

    def read(self, timeout_s: float) -> bytes:
        """What the app has recorded since the last time. Raises IncompleteError when it, or the meter, is gone."""
        if self._recording is None:
            time.sleep(timeout_s)
            return b""
        wait_s = self._due - time.monotonic()
        if wait_s > timeout_s:
            time.sleep(timeout_s)
            return b""
        time.sleep(max(wait_s, 0.0))
        try:
            pulled = self._pull()
            self._look_after()
        except NoAnswer:
            return b""  # nothing was counted as pulled: it is asked for again
        except Refused as refused:
            raise IncompleteError(
                f"The Otii app no longer gives the recording ({refused.code}; {refused.text}).",
                f"Leave its project and the meter alone while recording. {KEPT}",
            ) from refused
        return pulled

    def _pull(self) -> bytes:
        """What is new in all channels; b"" where that is not worth a piece. Counted as pulled only when all is here."""
        now, before_ns = time.monotonic(), time.monotonic_ns()
        self._due = max(self._due + PULL_S, now)
        current = self._values(wire.CURRENT, round(LEAST_PIECES * self._piece_samples))
        if current is None:
            return b""
        voltage = self._values(wire.VOLTAGE) if self._sees_voltage else None
        voltage = voltage or wire.NOTHING
        # Asked for last: what happened up to the last sample is there by now.
        entries = {name: self._entries(name) for name in self._pulled if name not in (wire.CURRENT, wire.VOLTAGE)}
        pulled = wire.Piece(current=current, voltage=voltage, entries=entries, last=True)
        packed = wire.pack(
            self._pulled[wire.CURRENT], pulled, self._word, self._piece_samples, before_ns, time.monotonic_ns()
        )
        self._pulled[wire.CURRENT] += len(current)
        if self._sees_voltage:
            self._pulled[wire.VOLTAGE] += len(voltage)
        for name, given in entries.items():
            self._pulled[name] += len(given)
        if len(current) == PULL_SAMPLES:
            self._due = now
        self._heard = now
        return packed

    def _values(self, channel: str, least: int = 1) -> wire.Series | None:
        count = min(self._new(channel), PULL_SAMPLES)
        if count < least:
            return None
        data = self._recording.get_channel_data(self._device.id, channel, self._pulled[channel], count)
        made = wire.series(data)
        if made is None:
            raise NoAnswer
        return made if len(made) else None

    def _entries(self, channel: str) -> list[dict[str, Any]]:
        count = self._new(channel)
        if not count:
            return []
        data = self._recording.get_channel_data(self._device.id, channel, self._pulled[channel], count)
        made = wire.entries(data, str if channel == wire.LOG else int)
        if made is None:
            raise NoAnswer
        return made

    def _new(self, channel: str) -> int:
        count = self._recording.get_channel_data_count(self._device.id, channel)
        if not isinstance(count, int):
            raise NoAnswer
        return count - self._pulled[channel]

    def _look_after(self) -> None:
        """Now and then: are meter and recording still there, and is the output on? Raises IncompleteError."""
        now = time.monotonic()
        quiet = now - self._heard >= QUIET_S
        if now - self._checked < QUIET_S or not (quiet or self._powered):
            return
        self._checked = now
        if self._powered and not self._device.get_main():
            raise IncompleteError(
                "The Otii's output has gone off: the current exceeded its limit, or somebody switched it off.",
                f"Raise --set max-current, or look for a short. {KEPT}",
            )
        if not quiet:
            return
        if not self._device.is_connected():
            raise IncompleteError(
                "The Otii is no longer connected to the app's host.",
                f"Check its USB cable. {KEPT}",
            )
        with _where_supported():
            if not self._recording.is_running():
                raise IncompleteError(
                    "The recording was ended in the Otii app.",
                    f"Leave the app alone while recording. {KEPT}",
                )

    # -- stop ----------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the recording, and put back what was changed, the board's power first. The app keeps its recording."""
        self._recording, self._powered = None, False
        undo, self._undo = self._undo, []
        self._patience(STOP_S)
        with contextlib.suppress(JouleMeterError, NoAnswer, OSError):
            for step in reversed(undo):
                with contextlib.suppress(Refused):
                    step()

    def close(self) -> None:
        self.stop()
        if self._licence is not None:
            self._licence.give_back()
        if self._connection is not None:
            self._connection.close_connection()
        with contextlib.suppress(JouleMeterError, OSError):
            self._link.close()


@contextlib.contextmanager
def _where_supported() -> Iterator[None]:
    """Leave out what this app or model does not know."""
    try:
        yield
    except Refused as refused:
        if refused.code not in UNSUPPORTED:
            raise
