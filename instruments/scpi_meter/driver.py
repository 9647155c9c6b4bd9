"""Ask each question of the profile in turn, again and again; power the board only where that was asked for."""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from joulemeter import units
from joulemeter.capture import Basis, Header, Limit, Voltage
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.polled import SLOWEST_S, Poller
from joulemeter.scpi import Identity, Scpi, SilentError
from joulemeter.tables import Loaded
from joulemeter.transport import visa

from . import channels, wire
from . import profile as profiles
from .profile import Channel, Profile

# How long *IDN? may take, and anything else before the profile is known.
IDENTIFY_S = 2.0
# Faster than this no answer of a bench instrument comes.
FASTEST_S = 0.02
# An output that was switched on shows its voltage within this time, to this share and this many volts.
RISE_S, NEAR_SHARE, NEAR_V = 3.0, 0.05, 0.1
# A voltage that somebody states (as for every meter that cannot see it), and one set without a figure of its maker's.
DECLARED_SHARE = 0.05
SET_SHARE, SET_V = 0.02, 0.01
# An error queue that never empties is none.
MOST_ERRORS = 32
SIMULATED_SERIAL = "SIM"
# What an instrument may answer to be told again: one value of one command.
_REPEATABLE = re.compile(r"[^;\x00-\x1f\x7f-\xff]{1,80}")


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.scpi_meter.open`."""
    given = None if settings["profile"] == "auto" else profiles.find(settings["profile"])
    if given is not None:
        check(given.profile, options, settings)
    if not address:
        raise NotFoundError(
            "Which SCPI instrument is meant must be said.", "Give scpi_meter@ADDRESS; `joulemeter devices` lists some."
        )
    way = profiles.Connection() if given is None else given.profile.connection
    bare = "TCPIP::{}::INSTR" if way.port is None else f"{{}}:{way.port}"
    session = visa.open_session(address, baud=way.baud, bare=bare)
    return Driver(Scpi(session, timeout_s=IDENTIFY_S), given, options, settings)


def check(profile: Profile, options: Options, settings: Mapping[str, str]) -> Channel | None:
    """The channel that is meant. Raises UsageError for what this instrument cannot do."""
    channel = profile.channel(settings["channel"])
    if options.declared_v is not None and profile.sees_voltage:
        raise UsageError(f"The {profile.name} measures the voltage.", "Leave --assume-voltage out.")
    volts = options.supply_v
    if volts is None:
        return channel
    if profile.supply is None or channel is None or channel.max_v is None:
        raise UsageError(
            f"The profile of the {profile.name} does not say how it would supply a board.",
            "Leave --supply out" + (" and say the voltage with --assume-voltage." if not profile.sees_voltage else "."),
        )
    if options.declared_v is not None:
        raise UsageError("--supply says the voltage.", "Leave --assume-voltage out.")
    if not (max(channel.min_v, 1e-9) <= volts <= channel.max_v):
        raise UsageError(
            f"Channel {channel.name} of the {profile.name} cannot supply {volts:g} V.",
            f"Choose {channel.min_v:g} V to {channel.max_v:g} V.",
        )
    return channel


class Driver:
    def __init__(
        self, scpi: Scpi, given: Loaded[Profile] | None, options: Options, settings: Mapping[str, str]
    ) -> None:
        """Takes over `scpi`, and closes it if the instrument is another one. Nothing of it is changed yet.

        Raises NotFoundError, UsageError, IncompleteError, AccessError.
        """
        self._scpi = scpi
        self._options = options
        self._undo: list[Callable[[], None]] = []
        try:
            self._identity = scpi.identify()
            loaded = self._fitting(given)
            self._channel = check(loaded.profile, options, settings)
            self._loaded = loaded
            scpi.timeout_s = float(self._profile.connection.answer_s)
            asked = dict.fromkeys(reading.query for reading in self._profile.readings)
            self._queries = {query: self._fill(query) for query in asked}
            order = list(asked)
            self._places = [
                [order.index(reading.query), reading.field - 1, reading.scale] for reading in self._profile.readings
            ]
            self._values = wire.reader(wire.places(self._places), self._profile.not_measured)
            refresh_s = max(float(reading.refresh_s) for reading in self._profile.readings)
            self._age_ns = round(refresh_s / 2 * 1e9)
            usual_s = min(max(refresh_s / 2, FASTEST_S), SLOWEST_S)
            self._room = wire.ANSWER_BYTES * len(self._queries)
            self._poller = Poller(self._ask, self._room, settings["interval"], usual_s, self._name)
        except BaseException:
            self.close()
            raise

    @property
    def _profile(self) -> Profile:
        return self._loaded.profile

    @property
    def _name(self) -> str:
        return f"the {self._identity.model} at {self._scpi.address}"

    def _fitting(self, given: Loaded[Profile] | None) -> Loaded[Profile]:
        """Raises NotFoundError."""
        who = f"{self._identity.maker} {self._identity.model}"
        loaded = given or profiles.matching(self._identity)
        if loaded is None:
            raise NotFoundError(
                f"What is at {self._scpi.address} is a {who}, and no profile fits it.",
                "Write one (notes.md of scpi_meter says how) and give it with --set profile=FILE.toml.",
            )
        if not loaded.profile.fits(self._identity):
            raise NotFoundError(
                f"What is at {self._scpi.address} is a {who}; the profile {loaded.path} is for other instruments.",
                "Leave profile out, or add the model to your own file.",
            )
        return loaded

    def _fill(self, template: str, volts: float | None = None) -> str:
        return profiles.fill(template, self._channel, volts)

    # -- start ---------------------------------------------------------------------------------------------------------

    def start(self) -> Header:
        """Set the instrument up, power the board if that was asked for, and begin to ask.

        Raises UsageError, DataError, NotFoundError, IncompleteError, AccessError.
        """
        try:
            return self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> Header:
        profile = self._profile
        self._scpi.timeout_s = float(profile.connection.answer_s)
        self._errors()
        for header in profile.keep:
            self._keep(self._fill(header))
        # Last of all, since it may end remote control.
        self._undo[:0] = [self._later(self._fill(command)) for command in reversed(profile.restore)]
        for command in profile.setup:
            self._send(self._fill(command))
        self._power()
        epoch = self._poller.start(self._values)
        return Header(
            instrument="scpi_meter",
            model=f"{self._identity.maker} {self._identity.model}",
            wire=wire.FORMAT,
            rate_hz=self._poller.rate_hz,
            word_bytes=self._poller.word_bytes,
            channels=channels.channels(profile),
            serial=self._identity.serial,
            firmware=self._identity.firmware,
            address=self._scpi.address,
            simulated=is_simulated(self._identity),
            epoch=epoch,
            voltage=self._voltage(),
            parameters={
                # What is shown is between fresh and one refresh old.
                "age_ns": self._age_ns,
                "profile": self._loaded.path,
                "profile_sha256": self._loaded.sha256,
                "channel": None if self._channel is None else self._channel.name,
                "queries": list(self._queries.values()),
                "readings": self._places,
                "not_measured": list(profile.not_measured),
            },
        )

    def _voltage(self) -> Voltage | None:
        """Where no reading tells it."""
        if self._profile.sees_voltage:
            return None
        set_v, declared_v = self._options.supply_v, self._options.declared_v
        if set_v is not None and self._profile.supply is not None:
            row = self._profile.supply.accuracy
            limit_v = SET_SHARE * set_v + SET_V if row is None else row.gain * set_v + row.offset_in("V")
            return Voltage(volts=set_v, basis=Basis.SET, limit=Limit(value=limit_v))
        if declared_v is not None:
            return Voltage(volts=declared_v, basis=Basis.DECLARED, limit=Limit(value=DECLARED_SHARE * declared_v))
        return None

    def _power(self) -> None:
        """The output on at the voltage asked for; without one the output is left alone, and has to be on."""
        supply, volts = self._profile.supply, self._options.supply_v
        if supply is None:
            return
        on = self._is_on(supply.state)
        if volts is None:
            if not on:
                raise UsageError(
                    f"The output of {self._name} is off, so there is nothing to measure.",
                    "Give --supply and a voltage, or switch it on.",
                )
            return
        found_v = self._asked_number(self._fill(supply.voltage))
        if on:
            # A board that runs must not be given another voltage behind its user's back.
            if abs(found_v - volts) > NEAR_V / 10:
                raise UsageError(
                    f"The output of {self._name} is on already, at {found_v:g} V.",
                    "Switch it off first, or leave --supply out.",
                )
            return
        for command in reversed(supply.set):
            self._undo.append(self._later(self._fill(command, found_v)))
        for command in supply.set:
            self._send(self._fill(command, volts))
        for command in reversed(supply.off):
            self._undo.append(self._later(self._fill(command)))
        for command in supply.on:
            self._send(self._fill(command))
        self._see_power(volts)

    def _see_power(self, volts: float) -> None:
        """Wait until the output is on and shows that voltage. Raises UsageError."""
        supply = self._profile.supply
        names = [reading.quantity for reading in self._profile.readings]
        deadline = time.monotonic() + RISE_S
        shown_v = None
        while supply is not None:
            on = self._is_on(supply.state)
            values = self._values(self._ask()) if "voltage" in names else None
            shown_v = None if values is None else values[names.index("voltage")]
            if on and (shown_v is None or abs(shown_v - volts) <= NEAR_V + NEAR_SHARE * volts):
                return
            if time.monotonic() > deadline:
                break
            time.sleep(FASTEST_S)
        shown = "is not on" if shown_v is None else f"shows {units.show(shown_v, 'V')} instead of {volts:g} V"
        raise UsageError(
            f"Told to supply the board, the output of {self._name} {shown}.",
            "Check its current limit, its protection, and a master switch for all outputs.",
        )

    def _is_on(self, query: str) -> bool:
        """Raises DataError."""
        answer = self._scpi.ask(self._fill(query))
        on = wire.is_on(answer, None if self._channel is None else self._channel.mask)
        if on is None:
            raise DataError(
                f"Asked whether its output is on, {self._name} answers {answer!r}.", "Check `state` in its profile."
            )
        return on

    def _asked_number(self, query: str) -> float:
        """Raises DataError."""
        answer = self._scpi.ask(query)
        value = wire.number(answer)
        if value is None or math.isnan(value):
            raise DataError(f"To {query} {self._name} answers {answer!r}, which is no number.", "Check its profile.")
        return value

    def _keep(self, header: str) -> None:
        """Put back later what this is set to now. Raises DataError."""
        found = self._scpi.ask(f"{header}?")
        if not _REPEATABLE.fullmatch(found):
            raise DataError(f"To {header}? {self._name} answers {found!r}.", "Check `keep` in its profile.")
        self._undo.append(self._later(f"{header} {found}"))

    # -- commands and errors -------------------------------------------------------------------------------------------

    def _send(self, command: str) -> None:
        """Raises UsageError with the instrument's own words where it refuses."""
        self._scpi.write(command)
        said = self._errors()
        if said:
            raise UsageError(
                f"{command} is refused by {self._name}: {'; '.join(said)}.",
                "Check the profile against the instrument's manual.",
            )

    def _later(self, command: str) -> Callable[[], None]:
        return lambda: self._send(command)

    def _errors(self) -> list[str]:
        """The entries of the error queue, which is empty afterwards; asking also waits for the command before."""
        said: list[str] = []
        if self._profile.error is None:
            return said
        for _ in range(MOST_ERRORS):
            entry = wire.complaint(self._scpi.ask(self._profile.error))
            if entry is None:
                break
            said.append(entry)
        return said

    # -- while it goes on ----------------------------------------------------------------------------------------------

    def _ask(self) -> bytes:
        answers = []
        for query in self._queries.values():
            try:
                answers.append(self._scpi.ask(query, retries=0))
            except SilentError:
                return b""
        return wire.pack(answers, self._room)

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the connection is gone."""
        return self._poller.read(timeout_s)

    def stop(self) -> None:
        """Everything back as it was found, the output first of all."""
        while self._undo:
            undo = self._undo.pop()
            # A command that is refused or lost must not keep the others from being sent.
            with contextlib.suppress(JouleMeterError, OSError):
                try:
                    undo()
                except IncompleteError:
                    # Nobody answers: what is left is sent without asking whether it was understood.
                    self._scpi.timeout_s = FASTEST_S

    def close(self) -> None:
        self.stop()
        with contextlib.suppress(JouleMeterError, OSError):
            self._scpi.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


def is_simulated(identity: Identity) -> bool:
    return bool(re.fullmatch(SIMULATED_SERIAL + r"\d{8}", identity.serial or ""))
