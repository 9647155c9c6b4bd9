"""Feed the board, let the unit read without end, fetch what is new."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

from joulemeter import frames, units
from joulemeter.capture import Epoch, Header
from joulemeter.errors import AccessError, DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Found, Options
from joulemeter.scpi import Identity, Scpi, SilentError
from joulemeter.transport import visa

from . import channels, wire

KEITHLEY_USB = 0x05E6
MAKER = "KEITHLEY"
SIMULATED_SERIAL = "SIM00000001"
ANSWER_S = 2.0
# So long without an answer is more than a slow network.
GIVE_UP_S = 10.0
POLL_S = 0.02
# Readings that tell how fast it is: as many as come within a second, but not fewer than the slowest settings need.
TRIAL_ROWS, TRIAL_S = 32, 1.0
LEAST_TRIAL_ROWS = 8
NOTHING_S = 20.0
# No firmware reads faster; after this many seconds the buffer may have gone round.
FASTEST_HZ = 10_000.0
CLOCK_PPM = 50.0


def fits(identity: Identity) -> bool:
    return identity.maker.upper().startswith(MAKER) and model_of(identity) in wire.MODELS


def model_of(identity: Identity) -> str:
    return identity.model.upper().removeprefix("MODEL ").strip()


def discover(key: str) -> list[Found]:
    return visa.discover(key, fits, vendors=(KEITHLEY_USB,))


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.keithley_smu.open`."""
    if not address:
        raise NotFoundError(
            "Which unit? It has to be named.", "Give its address: keithley_smu@192.168.1.5, or see joulemeter scan."
        )
    return Driver(Scpi(visa.open_session(address, bare=f"{{}}:{wire.PORT}"), timeout_s=ANSWER_S), options, settings)


class Driver:
    """See instrument.Driver. The output is on from `start` to `stop` and at no other time."""

    def __init__(self, scpi: Scpi, options: Options, settings: Mapping[str, str]) -> None:
        """Takes over `scpi`, and closes it if none of these units is behind it.

        Raises NotFoundError, AccessError, UsageError, IncompleteError.
        """
        self._scpi = scpi
        self._running = self._closed = False
        try:
            self._identity = scpi.identify(fits)
            self._model = model_of(self._identity)
            if not fits(self._identity):
                raise NotFoundError(
                    f"What is at {scpi.address} is a {self._identity.maker} {self._identity.model}.",
                    f"This driver is for {', '.join(wire.MODELS)}.",
                )
            self._choose(options, settings)
            self._is_free()
        except BaseException:
            self.close()
            raise
        self._next = self._total = 0  # number of the next reading to fetch, readings made so far
        self._last_s = -1.0  # stamp of the last reading fetched
        self._looked_s = self._due_s = 0.0
        self._silent_s: float | None = None
        self._first: list[bytes] = []

    def _is_free(self) -> None:
        """Raises AccessError for a unit that is set to another language, or feeds something already."""
        language = self._scpi.ask("*LANG?").strip('"')
        if language != "SCPI":
            raise AccessError(
                f"The unit at {self._scpi.address} is set to the command set {language}.",
                "Set it to SCPI on its screen (Menu, System Settings, Command Set) and start it anew.",
            )
        if self._scpi.ask(":OUTP?").strip() not in ("0", "OFF"):
            raise AccessError(
                f"The output of the unit at {self._scpi.address} is on: it feeds something already.",
                "Switch it off with its OUTPUT key if that was left from before.",
            )

    def _choose(self, options: Options, settings: Mapping[str, str]) -> None:
        """Raises UsageError."""
        if options.declared_v is not None:
            raise UsageError("This unit measures the voltage.", "Leave --assume-voltage out.")
        low_v, high_v = 0.1, wire.SOURCE_RANGES_V[-1]
        if options.supply_v is None:
            raise UsageError(
                "This unit feeds the board, and was not told with what.", "Give the voltage: --supply 3.3V."
            )
        if not low_v <= options.supply_v <= high_v:
            raise UsageError(
                f"It is not made to feed a board {units.show(options.supply_v, 'V')} here.",
                f"Choose from {units.show(low_v, 'V')} to {units.show(high_v, 'V')}.",
            )
        self._volts = options.supply_v
        wanted_a = units.parse_positive(settings["range"], "A")
        ranges_a = wire.MODELS[self._model].ranges_a
        self._range_a = next((one for one in ranges_a if one >= wanted_a * (1 - 1e-9)), 0.0)
        if not self._range_a:
            raise UsageError(
                f"The {self._model} has no range for {units.show(wanted_a, 'A')}.",
                f"Its ranges: {', '.join(units.show(one, 'A') for one in ranges_a)}.",
            )
        auto = settings["limit"] == "auto"
        self._limit_a = self._range_a if auto else units.parse_positive(settings["limit"], "A")
        if self._limit_a > 1.05 * ranges_a[-1]:
            raise UsageError(
                f"The {self._model} cannot give {units.show(self._limit_a, 'A')}.",
                f"Choose a limit up to {units.show(1.05 * ranges_a[-1], 'A')}.",
            )
        self._nplc = _cycles(settings["nplc"])
        self._four_wire = settings["sense"] == "4"

    def start(self) -> Header:
        """Raises UsageError where the unit refuses a setting, IncompleteError, DataError."""
        self._scpi.write(":ABOR")
        self._scpi.errors()
        self._scpi.command(
            *wire.set_up(self._volts, self._range_a, self._limit_a, self._nplc, four_wire=self._four_wire)
        )
        self._load_trigger_model()
        self._next = self._total = 0
        self._last_s = -1.0
        self._running = True
        self._scpi.command(":OUTP ON")
        before_ns, utc_ns = time.monotonic_ns(), time.time_ns()
        self._scpi.write(":INIT")
        self._looked_s = time.monotonic()
        first_ns = self._await(1)
        self._await(TRIAL_ROWS)
        stamps_s = []
        self._first = []
        for frame, row in self._fetch():
            self._first.append(frames.pack(frame))
            stamps_s.append(row.rel_s)
        interval_s = statistics.median(b - a for a, b in itertools.pairwise(stamps_s))
        # The first reading was made somewhere between the command and when it was there: a rectangle.
        epoch = Epoch(
            monotonic_ns=(before_ns + first_ns) // 2,
            utc_ns=utc_ns + (first_ns - before_ns) // 2,
            u_s=(first_ns - before_ns) * 1e-9 / 2 / 3**0.5,
            u_drift_ppm=CLOCK_PPM / 3**0.5,
        )
        return self._header(1 / interval_s, epoch)

    def _load_trigger_model(self) -> None:
        for measure in wire.MEASURE_BLOCKS:
            try:
                self._scpi.command(*wire.trigger_model(measure))
            except UsageError:
                if measure == wire.MEASURE_BLOCKS[-1]:
                    raise
            else:
                return

    def _await(self, count: int) -> int:
        """Waits for so many readings, or fewer of a slow setting; when they were seen, monotonic ns."""
        begun = time.monotonic()
        while self._total < count:
            waited_s = time.monotonic() - begun
            if waited_s > TRIAL_S and self._total >= LEAST_TRIAL_ROWS:
                break
            if waited_s > NOTHING_S:
                raise IncompleteError("The unit was started and makes no readings.", "See the messages on its screen.")
            self._look()
        return time.monotonic_ns()

    def _header(self, rate_hz: float, epoch: Epoch) -> Header:
        return Header(
            instrument="keithley_smu",
            model=self._model,
            serial=self._identity.serial,
            firmware=self._identity.firmware,
            address=self._scpi.address,
            wire=wire.FORMAT,
            rate_hz=rate_hz,
            word_bytes=wire.WORD_BYTES,
            channels=channels.channels(self._model, self._range_a, wire.source_range(self._volts)),
            simulated=self._identity.serial == SIMULATED_SERIAL,
            epoch=epoch,
            parameters={
                "supply_v": self._volts,
                "limit_a": self._limit_a,
                "range_a": self._range_a,
                "nplc": self._nplc,
                "sense_wires": 4 if self._four_wire else 2,
            },
        )

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the unit is gone."""
        if self._first:
            taken, self._first = b"".join(self._first), []
            return taken
        deadline = time.monotonic() + timeout_s
        while True:
            now = time.monotonic()
            if self._due_s > deadline:
                time.sleep(max(deadline - now, 0.0))
                return b""
            time.sleep(max(self._due_s - now, 0.0))
            self._due_s = time.monotonic() + POLL_S
            known = self._total, self._looked_s
            try:
                self._look()
                fetched = self._fetch()
            except (SilentError, DataError) as error:
                # The unit still holds what could not be fetched; how far it is may have been misread.
                self._total, self._looked_s = known
                self._still_silent(error)
                return b""
            self._silent_s = None
            if fetched:
                return b"".join(frames.pack(frame) for frame, _ in fetched)

    def remaining(self) -> Iterator[bytes]:
        """What was read until now. Raises IncompleteError."""
        if self._running:
            self._scpi.write(":ABOR")
            self._look()
            while fetched := self._fetch():
                yield b"".join(frames.pack(frame) for frame, _ in fetched)

    def stop(self) -> None:
        """The output off, whatever else goes wrong."""
        if self._running:
            self._running = False
            for command in (":ABOR", ":OUTP OFF"):
                with contextlib.suppress(JouleMeterError):
                    self._scpi.write(command)

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

    def _still_silent(self, error: JouleMeterError) -> None:
        now = time.monotonic()
        self._silent_s = now if self._silent_s is None else self._silent_s
        if now - self._silent_s > GIVE_UP_S:
            raise IncompleteError(error.what, "Check the unit and the network; what had arrived is kept.") from error

    def _look(self) -> None:
        """Readings so far. The buffer goes round, so its last index tells them only modulo its length."""
        asked_s = time.monotonic()
        answer = self._scpi.ask(f':TRAC:ACT? "{wire.BUFFER}"', f':TRAC:ACT:END? "{wire.BUFFER}"', retries=0)
        try:
            there, end = (int(float(part)) for part in answer.split(";"))
        except ValueError as error:
            raise DataError(f"The unit says {answer!r} of its buffer.", "Start it anew.") from error
        backlog = self._total - self._next
        if there:
            self._total += (end - self._total) % wire.HELD
        if backlog + (asked_s - self._looked_s) * FASTEST_HZ >= wire.HELD:
            raise IncompleteError(
                "Nothing was fetched for so long that readings may have been overwritten in the unit.",
                "What came is kept. Keep the host awake, and record anew.",
            )
        self._looked_s = asked_s

    def _fetch(self) -> list[tuple[frames.Frame, wire.Row]]:
        """The next readings, a frame each; not across the end of the buffer. Raises DataError for a spoilt answer."""
        begin = self._next % wire.HELD
        count = min(self._total - self._next, wire.PIECE, wire.HELD - begin)
        if count <= 0:
            return []
        before_ns = time.monotonic_ns()
        query = f':TRAC:DATA? {begin + 1},{begin + count},"{wire.BUFFER}",{",".join(wire.ELEMENTS)}'
        given = wire.rows(self._scpi.ask(query, retries=0), count) or []
        after_ns = time.monotonic_ns()
        rows = [row for row in map(wire.parse, given) if row is not None]
        stamps_s = [self._last_s, *(row.rel_s for row in rows)]
        if len(rows) < count or any(b <= a for a, b in itertools.pairwise(stamps_s)):
            raise DataError(f"What the unit answers to {query} are no readings.", "Start the unit anew.")
        made = [
            frames.Frame(
                number=self._next + k,
                before_ns=before_ns,
                after_ns=after_ns,
                payload=text[: wire.ROW_BYTES].ljust(wire.ROW_BYTES, b"\0"),
            )
            for k, text in enumerate(given)
        ]
        self._next += count
        self._last_s = stamps_s[-1]
        return list(zip(made, rows, strict=True))


def _cycles(text: str) -> float:
    """Raises UsageError."""
    with contextlib.suppress(ValueError):
        if wire.NPLC[0] <= (cycles := float(text)) <= wire.NPLC[1]:
            return cycles
    raise UsageError(f"A reading cannot take {text!r} power line cycles.", "Choose from 0.01 to 10.")
