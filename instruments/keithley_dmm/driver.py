"""Let the buffer go round, ask how far it is, fetch what is new."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import numpy as np

from joulemeter import units
from joulemeter.capture import Basis, Header, Limit, Voltage
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import AccessError, DataError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Found, Options
from joulemeter.scpi import CutShortError, Identity, Scpi, SilentError
from joulemeter.transport import visa

from . import channels, wire
from .buffer import Buffer

KEITHLEY_USB = 0x05E6
MAKER = "KEITHLEY"
SIMULATED_SERIAL = "SIM00000001"
# Nobody has said how well a voltage is known that is only declared.
DECLARED_SHARE = 0.05
# A meter that takes more than this of the supply changes what it measures.
BURDEN_SHARE, USUAL_V = 0.01, 3.3
ANSWER_S = 2.0
# So long without an answer is more than a slow network.
GIVE_UP_S = 10.0
FRAME_S, POLL_S = 0.01, 0.01
# A record that ends with an edge has ended when nothing follows it for so long.
QUIET_S = 0.1
# What is left between the oldest reading and where fetching goes on after an overrun, as a share of the buffer.
HEADROOM = 8
BUFFERS = (1000, 5_000_000)


def fits(identity: Identity) -> bool:
    return identity.maker.upper().startswith(MAKER) and model_of(identity) in wire.MODELS


def model_of(identity: Identity) -> str:
    return identity.model.upper().removeprefix("MODEL ").strip()


def discover(key: str) -> list[Found]:
    return visa.discover(key, fits, vendors=(KEITHLEY_USB,))


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.keithley_dmm.open`."""
    check(options)
    if not address:
        raise NotFoundError(
            "Which meter? It has to be named.", "Give its address: keithley_dmm@192.168.1.5, or see joulemeter scan."
        )
    return Driver(Scpi(visa.open_session(address, bare=f"{{}}:{wire.PORT}"), timeout_s=ANSWER_S), options, settings)


def check(options: Options) -> None:
    """Raises UsageError for what a multimeter cannot do."""
    if options.supply_v is not None:
        raise UsageError("A multimeter cannot supply a board.", "Leave --supply out; give --assume-voltage.")


class Driver:
    """See instrument.Driver. `read` takes as long as a transfer does."""

    def __init__(self, scpi: Scpi, options: Options, settings: Mapping[str, str]) -> None:
        """Takes over `scpi`, and closes it if none of these meters is behind it.

        Raises NotFoundError, AccessError, UsageError, IncompleteError.
        """
        self._scpi = scpi
        self._running = self._closed = False
        self._declared_v = options.declared_v
        try:
            check(options)
            self._identity = scpi.identify(fits)
            if not fits(self._identity):
                raise NotFoundError(
                    f"What is at {scpi.address} is a {self._identity.maker} {self._identity.model}.",
                    f"This driver is for {', '.join(wire.MODELS)}.",
                )
            self._speaks_scpi()
            self._choose(settings)
        except BaseException:
            self.close()
            raise
        self._ready: deque[bytes] = deque()
        self._buffer = Buffer(scpi, self._held, self._rate_hz)
        self._next = 0  # reading to fetch
        self._following = 0  # index after the last record
        self._checked = 0  # up to here the readings are those of one record, which began at the stamp
        self._began_s = 0.0
        self._due_s = self._came_s = 0.0
        self._silent_s: float | None = None

    def _speaks_scpi(self) -> None:
        language = self._scpi.ask("*LANG?").strip('"')
        if language != "SCPI":
            raise AccessError(
                f"The meter at {self._scpi.address} is set to the command set {language}.",
                "Set it to SCPI on its screen (Menu, Settings, Command Set) and start it anew.",
            )

    def _choose(self, settings: Mapping[str, str]) -> None:
        """Raises UsageError."""
        self._mode, self._edge = settings["mode"], settings["edge"]
        wanted_a = units.parse_positive(settings["range"], "A")
        ranges_a = wire.MODELS[model_of(self._identity)].ranges_a
        self._range_a = next((one for one in ranges_a if one >= wanted_a * (1 - 1e-9)), 0.0)
        if not self._range_a:
            raise UsageError(
                f"The {model_of(self._identity)} has no range for {units.show(wanted_a, 'A')}.",
                f"Its ranges: {', '.join(units.show(one, 'A') for one in ranges_a)}.",
            )
        self._rate_hz = units.parse_positive(settings["rate"], "Hz")
        low_hz, high_hz = wire.RATES_HZ
        if not low_hz <= self._rate_hz <= high_hz:
            raise UsageError(
                f"The digitizer cannot take {units.show(self._rate_hz, 'Hz')}.", "Choose from 1kHz to 1MHz."
            )
        self._held = _count(settings["buffer"], "buffer", *BUFFERS)
        most = self._held // 2 if self._mode == wire.EXTERNAL else BUFFERS[1]
        self._readings = _count(settings["readings"], "readings", 2, most)
        self._wait_s = units.parse_positive(settings["wait"], "s")

    def start(self) -> Header:
        """Raises UsageError where the meter refuses a setting, IncompleteError, DataError."""
        self._scpi.write(":ABOR")
        self._scpi.errors()
        self._scpi.command(*wire.set_up(self._range_a, self._rate_hz, self._held))
        self._load_trigger_model()
        self._rate_hz = self._granted(":DIG:CURR:SRAT?", self._rate_hz)
        self._range_a = self._granted(":DIG:CURR:RANG?", self._range_a)
        self._ready.clear()
        self._next = self._following = self._checked = 0
        self._running = True
        self._buffer = Buffer(self._scpi, self._held, self._rate_hz)
        self._scpi.command(":INIT")
        self._due_s = self._came_s = time.monotonic()
        return self._header()

    def _load_trigger_model(self) -> None:
        for digitize in wire.DIGITIZE_BLOCKS:
            try:
                self._scpi.command(*wire.trigger_model(self._mode, self._edge, self._readings, digitize))
            except UsageError:
                if digitize == wire.DIGITIZE_BLOCKS[-1]:
                    raise
            else:
                return

    def _granted(self, query: str, wanted: float) -> float:
        value = self._scpi.ask_number(query)
        if value is None or not 0.5 * wanted < value < 2 * wanted:
            raise DataError(f"The meter answers {query} with {value}, not {wanted:g}.", "Start the meter anew.")
        return value

    @property
    def _burden_v(self) -> float | None:
        return next((v for a, v in channels.BURDEN_V.items() if abs(a / self._range_a - 1) < 1e-6), None)

    def _header(self) -> Header:
        volts = self._declared_v
        burden_v = self._burden_v
        return Header(
            instrument="keithley_dmm",
            model=model_of(self._identity),
            serial=self._identity.serial,
            firmware=self._identity.firmware,
            address=self._scpi.address,
            wire=wire.FORMAT,
            rate_hz=self._rate_hz,
            word_bytes=wire.WORD_BYTES,
            channels=channels.channels(self._range_a),
            simulated=self._identity.serial == SIMULATED_SERIAL,
            triggered=self._mode != wire.STREAM,
            voltage=None
            if volts is None
            else Voltage(volts=volts, basis=Basis.DECLARED, limit=Limit(value=DECLARED_SHARE * volts)),
            parameters={
                "mode": self._mode,
                "range_a": self._range_a,
                "burden_v": burden_v,
                "burden_ohm": None if burden_v is None else burden_v / self._range_a,
                "readings": self._readings if self._mode == wire.EXTERNAL else None,
            },
            caveats=self._caveats(),
        )

    def _burden(self) -> tuple[Caveat, ...]:
        burden_v = self._burden_v
        if burden_v is None or burden_v < BURDEN_SHARE * (self._declared_v or USUAL_V):
            return ()
        text = (
            f"On its range of {units.show(self._range_a, 'A', 3)} the meter may take up to "
            f"{units.show(burden_v, 'V', 2)} at full current, which the board then lacks: it may slow down or reset, "
            "and its energy is that at the lower voltage. Feed the board so much more, or use a larger range."
        )
        return (note(Code.BURDEN, text, burden_v=burden_v),)

    def _caveats(self) -> tuple[Caveat, ...]:
        return (*self._burden(), *self._about_mode())

    def _about_mode(self) -> tuple[Caveat, ...]:
        if self._mode == wire.EXTERNAL:
            length_s = self._readings / self._rate_hz
            text = (
                f"Each record is {units.show(length_s, 's')} from the edge on, however long the inference took: a "
                "longer one is cut, and with a shorter one what follows it is counted too. --set mode=gate measures "
                "from edge to edge."
            )
            return (doubt(Code.OTHER_SCOPE, text, record_s=length_s),)
        if self._mode == wire.GATE:
            text = (
                "The meter does not tell which way an edge goes. The first one after arming is taken to begin an "
                "inference: the line has to be at rest when the recording begins, or the records are the pauses."
            )
            return (doubt(Code.MISSING_EDGES, text),)
        return ()

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the meter is gone, or no record comes for as long as `wait` says."""
        deadline = time.monotonic() + timeout_s
        while not self._ready:
            now = time.monotonic()
            if self._due_s > deadline:
                time.sleep(max(deadline - now, 0.0))
                return b""
            time.sleep(max(self._due_s - now, 0.0))
            known = self._buffer.total, self._buffer.looked_s
            try:
                self._fetch()
            except (SilentError, CutShortError, DataError) as error:
                # The meter still holds what could not be fetched; how far it is may have been misread.
                self._buffer.total, self._buffer.looked_s = known
                self._still_silent(error)
                return b""
            self._silent_s = None
            self._none_came()
        return self._ready.popleft()

    def remaining(self) -> Iterator[bytes]:
        """What was made until now; a record that is not complete is left out. Raises IncompleteError."""
        if self._running:
            self._scpi.write(":ABOR")
            if not self._buffer.look():
                self._catch_up()
            while self._take(last=True):
                yield from self._ready
                self._ready.clear()
        yield from self._ready
        self._ready.clear()

    def stop(self) -> None:
        if self._running:
            self._running = False
            with contextlib.suppress(JouleMeterError):
                self._scpi.write(":ABOR")

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
        self._due_s = now + POLL_S
        if now - self._silent_s > GIVE_UP_S:
            raise IncompleteError(error.what, "Check the meter and the network; what had arrived is kept.") from error

    def _none_came(self) -> None:
        if self._mode == wire.STREAM or self._ready or time.monotonic() - self._came_s <= self._wait_s:
            return
        raise IncompleteError(
            f"No record came within {units.show_duration(self._wait_s)} at EXT TRIG IN.",
            "Check the wire, the edge and that the device runs; or allow more with --set wait=5min.",
        )

    # What is to be fetched.

    def _fetch(self) -> None:
        if not self._buffer.look():
            self._catch_up()
        if self._mode == wire.GATE:
            self._watch_edges()
        self._take(last=False)
        pause_s = max(FRAME_S, wire.LEAST_READINGS / self._rate_hz) if self._mode == wire.STREAM else POLL_S
        behind = self._buffer.total - self._next >= wire.PIECE
        self._due_s = self._buffer.looked_s + (0.0 if behind else pause_s)

    def _catch_up(self) -> None:
        """Raises IncompleteError where nothing tells how many records were lost."""
        if self._mode != wire.STREAM:
            raise IncompleteError(
                "Nothing was fetched for so long that records may have been overwritten in the meter.",
                "Lower the rate, or give it a longer --set buffer; what came is kept.",
            )
        self._buffer.recount()

    def _watch_edges(self) -> None:
        """Raises IncompleteError once an edge was missed: from then on pauses would be taken for inferences."""
        if self._scpi.ask(":TRIG:EXT:IN:OVER?", retries=0) not in ("0", "OFF"):
            raise IncompleteError(
                "Edges on EXT TRIG IN came faster than the meter could act on them, and one was missed.",
                "Use longer pulses and pauses, or --set mode=stream; the records until then are kept.",
            )

    def _take(self, *, last: bool) -> bool:
        """Fetches what is due into `_ready`; whether that was anything."""
        if self._mode == wire.STREAM:
            return self._take_stream(last=last)
        if self._mode == wire.EXTERNAL:
            return self._take_record(self._readings)
        return self._take_gated(last=last)

    def _take_stream(self, *, last: bool) -> bool:
        buffer = self._buffer
        oldest = buffer.total - buffer.held
        if self._next < oldest:
            self._next = oldest + buffer.held // HEADROOM
        count = min(buffer.total - self._next, wire.PIECE)
        if not count or (count < wire.LEAST_READINGS and not last):
            return False
        before_ns = time.monotonic_ns()
        readings = buffer.readings(self._next, count)
        # What may have been overwritten while it was under way is lost.
        grown = 0 if last else buffer.due(time.monotonic())
        spoilt = min(max(oldest + grown - self._next, 0), count)
        first, self._next = self._next + spoilt, self._next + count
        self._give(first, readings[4 * spoilt :], before_ns)
        return True

    def _give(self, first: int, readings: bytes, before_ns: int) -> None:
        count, after_ns = len(readings) // 4, time.monotonic_ns()
        parts = max(1, count // max(round(self._rate_hz * FRAME_S), wire.LEAST_READINGS))
        cuts = [k * count // parts for k in range(parts + 1)]
        for begin, end in itertools.pairwise(cuts):
            if end > begin:
                self._ready.append(wire.pack(first + begin, readings[4 * begin : 4 * end], before_ns, after_ns))

    def _take_record(self, count: int) -> bool:
        self._not_overwritten()
        if self._buffer.total - self._next < count:
            return False
        before_ns = time.monotonic_ns()
        rel_s = float(self._buffer.stamps(self._next, 1)[0])
        self._put_record(rel_s, self._buffer.readings(self._next, count), before_ns)
        return True

    def _take_gated(self, *, last: bool) -> bool:
        """One record, if the next has begun or nothing has followed for a while."""
        self._not_overwritten()
        buffer = self._buffer
        if buffer.total == self._next:
            return False
        before_ns = time.monotonic_ns()
        begin = max(self._checked - 1, self._next)
        stamps_s = buffer.stamps(begin, buffer.total - begin)
        if begin == self._next:
            self._began_s = float(stamps_s[0])
        breaks = np.flatnonzero(np.diff(stamps_s) > 1.5 / self._rate_hz)
        quiet = not last and buffer.looked_s - buffer.grown_s > QUIET_S
        self._checked = begin + int(breaks[0]) + 1 if len(breaks) else buffer.total
        if not len(breaks) and not quiet:
            return False
        self._put_record(self._began_s, buffer.readings(self._next, self._checked - self._next), before_ns)
        return True

    def _not_overwritten(self) -> None:
        """Raises IncompleteError."""
        if self._buffer.total - self._next + self._buffer.due(time.monotonic()) > self._buffer.held:
            raise IncompleteError(
                "Records come faster than they can be fetched, and the meter's buffer has gone round.",
                "Lower the rate or the readings of a record; what came is kept.",
            )

    def _put_record(self, rel_s: float, readings: bytes, before_ns: int) -> None:
        # Records that follow each other closely are still two.
        number = max(round(rel_s * self._rate_hz), self._following + 1) if self._following else 0
        count = len(readings) // 4
        self._next, self._following = self._next + count, number + count
        self._ready.append(wire.pack(number, readings, before_ns, time.monotonic_ns()))
        self._came_s = time.monotonic()


def _count(text: str, name: str, least: int, most: int) -> int:
    if not text.isdigit() or not least <= int(text) <= most:
        raise UsageError(f"{name}={text} cannot be.", f"Give a whole number from {least} to {most}.")
    return int(text)
