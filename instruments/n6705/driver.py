"""The mainframe on its wire: choose what is logged, power the board if asked, fetch, and leave all as it was found."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from joulemeter import units
from joulemeter.capture import Basis, Header, Limit, Voltage
from joulemeter.errors import JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.scpi import Identity, Scpi
from joulemeter.transport import visa

from . import channels, fetching, wire

TIMEOUT_S = 2.0
SUPPLIES = (0.1, 20.0)
# What the output holds of a voltage that was set, and what a stated one may be wrong by: this project's guesses.
SET_LIMIT, DECLARED_LIMIT = (0.001, 0.010), (0.05, 0.0)
SIMULATED = "SIM"
MOST_POINTS = 512 * 1024
SAME = 1e-3


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.n6705.open`."""
    check(options, settings)
    if not address:
        raise NotFoundError("No mainframe was named.", "Give its address: n6705@192.168.1.5.")
    return Driver(Scpi(visa.open_session(address, bare="{}:5025"), timeout_s=TIMEOUT_S), options, settings)


def check(options: Options, settings: Mapping[str, str]) -> None:
    """Raises UsageError for what no such mainframe can do."""
    supply_v, declared_v = options.supply_v, options.declared_v
    if supply_v is not None and not SUPPLIES[0] <= supply_v <= SUPPLIES[1]:
        raise UsageError(
            f"This driver does not set an output to {supply_v:g} V.", f"Give {SUPPLIES[0]:g} V to {SUPPLIES[1]:g} V."
        )
    if declared_v is not None and (settings["parameters"] == "both" or supply_v is not None):
        raise UsageError("This instrument measures the voltage, or sets it.", "Leave --assume-voltage out.")
    if declared_v is not None and not declared_v > 0:
        raise UsageError(f"{declared_v:g} V is no supply voltage.", "Give the voltage that the board runs on.")
    if supply_v is None and settings["limit"] != "keep":
        raise UsageError(
            "A current limit is set only where the board is powered.", "Give --supply, or leave limit out."
        )


class Way(Protocol):
    """A way of measuring: by the log or by arrays."""

    period_s: float

    def prepare(self) -> None:
        """Raises UsageError for what the instrument refuses, IncompleteError."""
        ...

    def begin(self) -> None: ...
    def read(self, timeout_s: float) -> bytes: ...
    def end(self) -> None:
        """Leave the measuring as it was found. Raises IncompleteError."""
        ...


class Driver:
    """See instrument.Driver."""

    def __init__(self, scpi: Scpi, options: Options, settings: Mapping[str, str]) -> None:
        """Takes over `scpi`, and closes it if no such mainframe is behind it. Raises NotFoundError, UsageError."""
        self._scpi = scpi
        self._options = options
        self._settings = settings
        self._way: Way | None = None
        self._undo: list[str] = []
        self._closed = False
        try:
            check(options, settings)
            self.identity = self._identify()
            self._output = int(settings["output"])
            self.module_name = self._module_name()
            self._module = wire.module(self.module_name)
            self._plan = self._planned()
        except BaseException:
            self.close()
            raise

    def _identify(self) -> Identity:
        identity = self._scpi.identify(lambda one: wire.fits(one.maker, one.model))
        if not wire.fits(identity.maker, identity.model):
            raise NotFoundError(
                f"What is at {self._scpi.address} is a {identity.maker} {identity.model}.",
                "This driver is for N6705 and N6700 mainframes; `joulemeter scan` lists what is connected.",
            )
        return identity

    def _module_name(self) -> str:
        there = int(self._scpi.ask_number(":SYST:CHAN?") or 0)
        if not 1 <= self._output <= there:
            raise UsageError(f"This mainframe has {there} outputs, and no output {self._output}.", "Set output=1.")
        self._outputs = there
        return self._scpi.ask(f":SYST:CHAN:MOD? (@{self._output})").strip().strip('"').upper()

    def _planned(self) -> fetching.Plan:
        """Raises UsageError."""
        settings, both = self._settings, self._settings["parameters"] == "both"
        if both and not self._module.both:
            raise UsageError(
                f"Output {self._output} is an {self.module_name}, which measures current and voltage by turns and "
                "logs one of them only.",
                "Give --set parameters=current and --supply or --assume-voltage, or use an N678xA or N676xA module.",
            )
        parameters = 2 if both else 1
        array = settings["mode"] == "array"
        least_s = wire.LEAST_TINT_S[parameters] if array else parameters * wire.LEAST_S
        period = settings["period"]
        period_s = least_s if period == "auto" else units.parse_positive(period, "s")
        if period_s < least_s * (1 - SAME) or period_s > wire.LONGEST_S:
            raise UsageError(
                f"A sample every {units.show(period_s, 's')} cannot be had.",
                f"Choose {units.show(least_s, 's')} to {units.show(wire.LONGEST_S, 's')}.",
            )
        points, before = _count(settings, "points"), _count(settings, "before")
        if not before < points <= MOST_POINTS or points < 2:
            raise UsageError(
                f"A record of {points} samples with {before} before the trigger cannot be.",
                f"Choose 2 to {MOST_POINTS} points, and fewer before the trigger.",
            )
        return fetching.Plan(
            output=self._output,
            outputs=self._outputs,
            parameters=parameters,
            period_s=period_s,
            exact=period != "auto",
            range_a=self._range(),
            points=points,
            before=before,
            wait_s=units.parse_positive(settings["wait"], "s"),
        )

    def _range(self) -> float | None:
        """The range that holds what the user asked for. Raises UsageError."""
        asked = self._settings["range"]
        if asked == channels.AUTO:
            return None
        wanted_a = units.parse_positive(asked, "A")
        ranges = self._module.ranges_a or (wanted_a,)
        fitting = [one for one in ranges if one >= wanted_a * (1 - SAME)]
        if not fitting:
            raise UsageError(
                f"The {self.module_name} has no range of {units.show(wanted_a, 'A')}.",
                f"Its ranges: {', '.join(units.show(one, 'A') for one in ranges)}.",
            )
        return fitting[0]

    def start(self) -> Header:
        """Raises UsageError for what the instrument refuses, IncompleteError."""
        if self._way is not None:
            raise UsageError("This mainframe is measuring already.", "Stop it first.")
        array = self._settings["mode"] == "array"
        way: Way = fetching.Arrays(self._scpi, self._plan) if array else fetching.Log(self._scpi, self._plan)
        self._way = way
        self._scpi.write("*CLS")
        way.prepare()
        if self._options.supply_v is not None:
            self._supply(self._options.supply_v)
        header = self._header(way, array)
        way.begin()
        return header

    def _supply(self, volts: float) -> None:
        """Note how it is before anything is changed."""
        at = f"(@{self._output})"
        limit = ":CURR:LIM" if self.module_name.startswith("N678") else ":CURR"
        on = bool(self._scpi.ask_number(f":OUTP? {at}"))
        undo = [] if on else [f":OUTP OFF,{at}"]
        undo.append(f":VOLT {self._scpi.ask(f':VOLT? {at}')},{at}")
        commands = [f":VOLT {volts:.9g},{at}"]
        if self._settings["limit"] != "keep":
            undo.append(f"{limit} {self._scpi.ask(f'{limit}? {at}')},{at}")
            commands.append(f"{limit} {units.parse_positive(self._settings['limit'], 'A'):.9g},{at}")
        self._undo = undo
        self._scpi.command(*commands)
        self._scpi.command(f":OUTP ON,{at}")

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError."""
        return b"" if self._way is None else self._way.read(timeout_s)

    def stop(self) -> None:
        way, self._way = self._way, None
        undo, self._undo = self._undo, []
        with contextlib.suppress(JouleMeterError):
            if undo:
                # The board's supply comes first, whatever else fails.
                self._scpi.write(*undo)
        with contextlib.suppress(JouleMeterError):
            if way is not None:
                way.end()

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

    def _header(self, way: Way, array: bool) -> Header:
        plan, both = self._plan, self._plan.parameters == 2
        period_s = way.period_s
        return Header(
            instrument="n6705",
            model=f"{self.identity.model} with {self.module_name}",
            serial=self.identity.serial,
            firmware=self.identity.firmware,
            address=self._scpi.address,
            wire=wire.FORMAT,
            rate_hz=1 / period_s,
            word_bytes=wire.record_bytes(plan.parameters) if array else wire.word_bytes(plan.parameters, period_s),
            channels=channels.channels(self._module, plan.range_a, period_s, both),
            simulated=(self.identity.serial or "").startswith(SIMULATED),
            triggered=array,
            voltage=None if both else self._voltage(),
            parameters={
                "output": self._output,
                "module": self.module_name,
                "range_a": plan.range_a,
                "period_s": period_s,
                **({"points": plan.points, "before": plan.before} if array else {}),
            },
        )

    def _voltage(self) -> Voltage | None:
        """Set by the output where that is on, stated by the user where it is not."""
        at = f"(@{self._output})"
        declared_v = self._options.declared_v
        if declared_v is not None:
            return Voltage(volts=declared_v, basis=Basis.DECLARED, limit=_limit(declared_v, *DECLARED_LIMIT))
        if not self._scpi.ask_number(f":OUTP? {at}"):
            return None
        volts = self._scpi.ask_number(f":VOLT? {at}")
        return None if not volts else Voltage(volts=volts, basis=Basis.SET, limit=_limit(volts, *SET_LIMIT))


def _limit(volts: float, share: float, fixed_v: float) -> Limit:
    """Half-width in volts."""
    return Limit(value=share * volts + fixed_v)


def _count(settings: Mapping[str, str], name: str) -> int:
    try:
        return int(settings[name])
    except ValueError as error:
        raise UsageError(f"{name} cannot be {settings[name]!r}.", "Give a whole number.") from error
