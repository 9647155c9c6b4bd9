"""Fix the ranges, start the integrator, ask on a grid, and leave the meter as it was found."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from joulemeter import units
from joulemeter.capture import Header
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.polled import Poller
from joulemeter.scpi import CutShortError, Identity, Scpi, SilentError
from joulemeter.transport import visa

from . import channels, wire

TIMEOUT_S, ANSWER_S = 1.0, 0.5
# The integrator takes a moment after its start (yokotool waits 0.2 s).
STARTED_S, FIRST_S = 3.0, 0.5
WATCH_S, POLL_S = 1.0, 0.02
ERRORS = ":STAT:ERR?"
SIMULATED = "SIM"
# States of the integrator in which it does not count; anything else is a spoilt answer.
ENDED = ("STOP", "RES", "TIM", "ERR", "READ")
SAME = 1e-3
# What is put back as it was found; ranging comes last, for a range set by number ends it.
KEPT = (":RATE", ":INP:CFAC", ":INP:MODE", ":INP:SYNC", ":INP:VOLT:RANG", ":INP:CURR:RANG")
RANGING = (":INP:VOLT:AUTO", ":INP:CURR:AUTO")


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.wt310e.open`."""
    check(options)
    if not address:
        raise NotFoundError("No meter was named.", "Give its address: wt310e@192.168.1.5.")
    return Driver(Scpi(visa.open_session(address), timeout_s=TIMEOUT_S), settings)


def check(options: Options) -> None:
    """Raises UsageError for what a power meter cannot do."""
    if options.supply_v is not None:
        raise UsageError("A power meter cannot supply a board.", "Leave --supply out.")
    if options.declared_v is not None:
        raise UsageError("This meter measures the voltage.", "Leave --assume-voltage out.")


class Driver:
    """See instrument.Driver."""

    def __init__(self, scpi: Scpi, settings: Mapping[str, str]) -> None:
        """Takes over `scpi`, and closes it if no such meter is behind it. Raises NotFoundError, UsageError."""
        self._scpi = scpi
        self._settings = settings
        self._found: dict[str, str] = {}
        self._measuring = self._remote = self._closed = False
        self._watched = 0.0
        try:
            self.identity, self.model = self._identify()
            self._ranges = {
                "volts": self._wanted("volts", "V", wire.RANGES_V),
                "amps": self._wanted("amps", "A", self.model.ranges_a),
            }
            self._float = settings["format"] == wire.FLOAT
            self._poller = Poller(
                self._ask,
                wire.WIDTHS[settings["format"]],
                "auto",
                wire.RATES[settings["rate"]],
                f"the {self.model.name} at {scpi.address}",
            )
        except BaseException:
            self.close()
            raise

    def _identify(self) -> tuple[Identity, wire.Model]:
        identity = self._scpi.identify()
        model = wire.model_of(identity.maker, identity.model)
        if model is None:
            raise NotFoundError(
                f"What is at {self._scpi.address} is a {identity.maker} {identity.model}.",
                "This driver is for WT310, WT310E and WT310EH; `joulemeter scan` lists what is connected.",
            )
        return identity, model

    def _wanted(self, name: str, unit: str, ranges: tuple[float, ...]) -> float | None:
        """The range that the user asked for. Raises UsageError."""
        asked = self._settings[name]
        if asked == "keep":
            return None
        value = units.parse_positive(asked, unit)
        for one in ranges:
            if abs(value / one - 1) <= SAME:
                return one
        raise UsageError(
            f"The {self.model.name} has no range of {units.show(value, unit)}.",
            f"Its ranges: {', '.join(units.show(one, unit) for one in ranges)}.",
        )

    def start(self) -> Header:
        """Raises UsageError for what the meter refuses, IncompleteError, DataError."""
        if self._measuring:
            raise UsageError("This meter is measuring already.", "Stop it first.")
        scpi, settings = self._scpi, self._settings
        self._measuring = self._remote = True
        scpi.write("*CLS", ":COMM:REM ON", ":COMM:HEAD OFF", ":COMM:VERB OFF")
        # Nothing can be changed while an earlier program's integration goes on or stands.
        self._end_integration()
        self._found = {name: scpi.ask(f"{name}?") for name in (*KEPT, *RANGING)}
        self._refuse_sensor()
        self._fix_ranges()
        refresh_s = wire.RATES[settings["rate"]]
        self._set(
            f":INP:MODE {settings['input'].upper()}",
            # Without a source the whole of each interval is measured, whatever the shape of the current.
            f":INP:SYNC {'OFF' if settings['input'] == channels.DC else 'VOLT'}",
            f":RATE {refresh_s:g}",
            f":NUM:FORM {'FLO' if self._float else 'ASC'}",
            f":NUM:NORM:NUM {len(wire.ITEMS)}",
            *(f":NUM:NORM:ITEM{number} {item}" for number, item in enumerate(wire.ITEMS, start=1)),
            ":INTEG:MODE NORM",
            ":INTEG:TIM 0,0,0",
        )
        range_v, range_a = self._fixed(":INP:VOLT:RANG"), self._fixed(":INP:CURR:RANG")
        self._set(":INTEG:STAR")
        scpi.wait(":INTEG:STAT?", _runs, STARTED_S, "start of the integrator")
        self._watched = time.monotonic()
        parse = wire.PARSERS[settings["format"]]
        self._await_reading(parse)
        epoch = self._poller.start(parse)
        by_power = settings["source"] == channels.POWER
        return Header(
            instrument="wt310e",
            model=self.model.name,
            serial=self.identity.serial,
            firmware=self.identity.firmware,
            address=scpi.address,
            wire=wire.FORMAT,
            rate_hz=self._poller.rate_hz,
            word_bytes=self._poller.word_bytes,
            channels=channels.channels(self.model, settings["input"], settings["source"], range_v, range_a, refresh_s),
            simulated=(self.identity.serial or "").startswith(SIMULATED),
            epoch=epoch,
            parameters={
                "format": settings["format"],
                "range_v": range_v,
                "range_a": range_a,
                "input": settings["input"],
                # What is shown is between fresh and one refresh old; a power is the mean of the refresh before that.
                "age_ns": round((1.0 if by_power else 0.5) * refresh_s * 1e9),
            },
        )

    def _set(self, *commands: str) -> None:
        """One by one, so that the meter's complaint is about one of them. Raises UsageError."""
        for command in commands:
            self._scpi.command(command, query=ERRORS)

    def _refuse_sensor(self) -> None:
        if self._found[":INP:CURR:RANG"].upper().startswith("EXT"):
            raise UsageError(
                "The meter is set to an external current sensor.",
                "Choose a current range at its front panel: this driver knows the direct input only.",
            )

    def _fix_ranges(self) -> None:
        """Raises UsageError where the meter chooses its ranges and the user has not."""
        for name, where in (("volts", ":INP:VOLT"), ("amps", ":INP:CURR")):
            wanted = self._ranges[name]
            if wanted is not None:
                # 7.5 V and 2.5 mA are ranges only of the other crest factors.
                self._set(":INP:CFAC 3", f"{where}:AUTO OFF", f"{where}:RANG {wanted:g}")
            elif self._found[f"{where}:AUTO"].strip().upper() in ("1", "ON"):
                raise UsageError(
                    f"The meter chooses its {name} range by itself, and nothing is measured while it switches.",
                    f"Say which: --set {name}={'15V' if name == 'volts' else '1A'}; it has to hold the highest peak.",
                )
            elif self._found[":INP:CFAC"].strip().upper() not in ("3", "+3"):
                raise UsageError(
                    "The meter is set to another crest factor than 3, which doubles its errors.",
                    "Name both ranges, --set volts=15V and --set amps=1A; crest factor 3 is then set too.",
                )

    def _fixed(self, query: str) -> float:
        value = self._scpi.ask_number(f"{query}?")
        if value is None or not value > 0:
            raise UsageError(f"The meter answers {query}? with no range.", "See its display.")
        return value

    def _ask(self) -> bytes:
        """One answer, b"" where none came or it is spoilt. Raises IncompleteError."""
        self._watch()
        try:
            if self._float:
                return self._scpi.ask_block(":NUM:NORM:VAL?", timeout_s=ANSWER_S, retries=0).tobytes()
            return self._scpi.ask(":NUM:NORM:VAL?", timeout_s=ANSWER_S, retries=0).encode("latin-1")
        except (SilentError, CutShortError, DataError):
            return b""

    def _await_reading(self, parse: Callable[[bytes], wire.Reading | None]) -> None:
        """The first reading takes an update of the meter. Raises UsageError where there will be none."""
        deadline = time.monotonic() + FIRST_S + 3 * wire.RATES[self._settings["rate"]]
        answer = b""
        while time.monotonic() < deadline:
            answer = self._ask()
            if parse(answer) is not None:
                return
            time.sleep(POLL_S)
        if wire.is_over(answer):
            raise UsageError(
                "The meter shows an input over its range.", "Choose higher ones: --set volts=30V or --set amps=5A."
            )

    def _watch(self) -> None:
        """Now and then: that it still integrates, and in the range that was fixed. Raises IncompleteError."""
        if time.monotonic() - self._watched < WATCH_S:
            return
        self._watched = time.monotonic()
        try:
            told = self._scpi.ask(":INTEG:STAT?", ":INP:CURR:AUTO?", timeout_s=ANSWER_S, retries=0).split(";")
        except SilentError:
            return
        if told[0].strip().upper().startswith(ENDED):
            raise IncompleteError(
                f"The integrator stopped by itself (its state is {told[0].strip()!r}).",
                "Somebody pressed STOP, or its count is full. What was recorded until then is kept.",
            )
        if len(told) > 1 and told[1].strip().upper() in ("1", "ON"):
            raise IncompleteError(
                "The meter left the fixed current range to protect its input, and integrates on in another.",
                "Choose a higher range: --set amps=1A or more. What was recorded until then is kept.",
            )

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the meter is gone, or no longer integrates as it was told."""
        return self._poller.read(timeout_s)

    def _end_integration(self) -> None:
        if _runs(self._scpi.ask(":INTEG:STAT?", retries=0)):
            self._scpi.write(":INTEG:STOP")
        self._scpi.write(":INTEG:RES")

    def stop(self) -> None:
        found, self._found = self._found, {}
        measuring, self._measuring = self._measuring, False
        with contextlib.suppress(JouleMeterError):
            if measuring:
                self._end_integration()
                for name, value in found.items():
                    self._scpi.write(f"{name} {value}")
                # An answer, so that all of it has been carried out before the connection closes.
                self._scpi.ask(ERRORS, retries=0)
        if self._remote:
            self._remote = False
            with contextlib.suppress(JouleMeterError):
                self._scpi.write(":COMM:REM OFF")

    def close(self) -> None:
        self.stop()
        if not self._closed:
            self._closed = True
            with contextlib.suppress(JouleMeterError, OSError):
                self._scpi.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def _runs(state: str) -> bool:
    return state.strip().upper().startswith("STAR")
