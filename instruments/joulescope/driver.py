"""A Joulescope through its library: set up, stream, and leave everything as it was found.

The library calls back on a thread of its own with each message; it becomes a frame there and waits for `read`.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from joulemeter import frames, units
from joulemeter.capture import Header
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import AccessError, IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.transport.connect import connect

from . import channels, discovery, library, wire
from .fake import Driver as FakeDriver
from .library import Library, told

# Every signal has sent something by then; a JS220 needs about a second to set its clock.
FIRST_S = 5.0
# A JS110 may take three seconds over a setting; what is said last, to one that no longer answers, is worth less.
ANSWER_S, LAST_S = 4.0, 1.0
# Messages a second: at high rates many, so that a recording is never far behind.
PUBLISH_HZ, PUBLISH_SLOW_HZ, FAST_HZ = 100, 20, 100e3
AUTO_LINES = ("d0", "d1", "d7")
REMOVED = "@/!remove"
LOG = "jsdrv"

_PORT = re.compile(r"^(tcp://.*|/.*|COM\d+|[^/]+:\d+)$")
_SKIPPED = re.compile(r"pkt_index skip: expected (\d+), received (\d+)")


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.joulescope.open`."""
    check(options)
    if _PORT.match(address):
        simulated = FakeDriver(connect(address))
        paths = simulated.device_paths()
        if not paths:
            library.release(simulated)
            raise NotFoundError(
                f"What is at {address} is no simulated Joulescope.",
                "A real one has no port: leave the address out, or give its serial number.",
            )
        return Driver(simulated, paths[0], settings, address=address, simulated=True)
    real = library.load()
    try:
        path = choose(address, library.measuring(real.device_paths()))
    except BaseException:
        library.release(real)
        raise
    return Driver(real, path, settings)


def check(options: Options) -> None:
    """Raises UsageError for what a Joulescope cannot do."""
    if options.supply_v is not None:
        raise UsageError("A Joulescope cannot supply a board.", "Leave --supply out and give the board a supply.")
    if options.declared_v is not None:
        raise UsageError("A Joulescope measures the voltage.", "Leave --assume-voltage out.")


def choose(address: str, paths: Sequence[str]) -> str:
    """The path meant by "" (the only one), a path or a serial number.

    Raises NotFoundError, UsageError, and AccessError for one that is there and may not be opened.
    """
    fitting = [path for path in paths if address in ("", path, path.rpartition("/")[2])]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise UsageError(f"{len(fitting)} Joulescopes are connected.", f"Name one: {', '.join(fitting)}.")
    for found in discovery.discover("joulescope"):
        if found.problem is not None and address in ("", found.address, found.serial):
            raise AccessError(f"{found.description} cannot be opened. {found.problem}", found.remedy or "")
    there = f"There are: {', '.join(paths)}." if paths else f"Connect it by USB. {library.VIRTUAL}"
    raise NotFoundError(f"No Joulescope {address}".rstrip() + " is connected.", there)


class Driver:
    def __init__(
        self,
        used: Library,
        path: str,
        settings: Mapping[str, str],
        *,
        address: str | None = None,
        simulated: bool = False,
    ) -> None:
        """Takes over `used`, and releases it if the meter cannot be opened.

        Raises UsageError for settings that this model cannot take, AccessError, NotFoundError.
        """
        self._library = used
        self._path = path
        self._address = address or path
        self._simulated = simulated
        _, self._key, self._serial = path.split("/")
        self._model = wire.MODELS[self._key]
        self._name = f"Joulescope {self._model.name} {self._serial}"
        self._frames: deque[bytes] = deque()
        self._arrived = threading.Condition()
        self._first: dict[str, Mapping[str, Any]] = {}
        self._gone = self._opened = self._streaming = self._closed = False
        self._subscribed: list[tuple[str, Callable[[str, Any], None]]] = []
        self._found: list[tuple[str, Any]] = []
        self._skips = _SkipWatch(self._lost)
        try:
            self._plan(settings)
            with told(self._name):
                self._subscribe(REMOVED, self._on_removed)
                # As it is: the defaults would switch the board off for a moment.
                used.open(path, "restore", ANSWER_S)
                self._opened = True
            self._versions = {topic: self._asked(topic) for topic in ("c/fw/version", "s/fpga/version")}
        except BaseException:
            self.close()
            raise

    def _plan(self, settings: Mapping[str, str]) -> None:
        model, rate, lines = self._model, settings["rate"], settings["lines"]
        self._rate_hz = model.full_hz if rate == "full" else units.parse_positive(rate, "Hz")
        if self._rate_hz not in model.rates_hz:
            rates = ", ".join(units.show(one, "Hz").replace(" ", "") for one in model.rates_hz)
            raise UsageError(f"A {model.name} has no rate of {rate}.", f"It has {rates}.")
        wanted = [name for name in AUTO_LINES if name in model.lines]
        if lines != "auto":
            wanted = [name.strip() for name in lines.split(",")] if lines != "none" else []
        for name in wanted:
            if name not in model.lines or wanted.count(name) > 1:
                raise UsageError(f"{name!r} cannot be recorded.", f"A {model.name} has {', '.join(model.lines)}.")
        ranged = ["range"] if len(wanted) <= model.lines_beside_range else []
        self._signals = ("current", "voltage", *ranged, *(name for name in model.lines if name in wanted))
        self._set: list[tuple[str, Any]] = [*self._range(settings["range"]), *self._io(settings["io"])]
        self._publish_hz = PUBLISH_HZ if self._rate_hz >= FAST_HZ else PUBLISH_SLOW_HZ

    def _range(self, chosen: str) -> list[tuple[str, Any]]:
        old = self._key == "js110"
        if chosen == "auto":
            return [("s/i/range/select", wire.JS110_AUTO)] if old else [("s/i/range/mode", "auto")]
        if chosen not in self._model.ranges:
            ranges = ", ".join(self._model.ranges)
            raise UsageError(f"A {self._model.name} has no range of {chosen}.", f"It has {ranges}, and auto.")
        code = self._model.select_base | 1 << list(self._model.ranges).index(chosen)
        return [("s/i/range/select", code)] + ([] if old else [("s/i/range/mode", "manual")])

    def _io(self, chosen: str) -> list[tuple[str, Any]]:
        if chosen == "found":
            return []
        topic, known = ("s/extio/voltage", wire.JS110_IO_MV) if self._key == "js110" else ("c/gpio/vref", wire.VREF)
        if chosen not in known:
            raise UsageError(
                f"The inputs of a {self._model.name} cannot be set to {chosen}.", f"Choose one of: {', '.join(known)}."
            )
        return [(topic, known[chosen])]

    # -- the library's callbacks, on its thread -----------------------------------------------------------------------

    def _on_signal(self, name: str) -> Callable[[str, Any], None]:
        signal = wire.SIGNALS[name]

        def take(topic: str, message: Any) -> None:
            if message is not None and message["data"] is not None:
                self._first.setdefault(name, message)
                self._keep(signal.kind, message["sample_id"], wire.pack(signal, message))

        return take

    def _on_statistics(self, topic: str, message: Any) -> None:
        if message is not None:
            self._keep(wire.STATISTICS, *wire.pack_statistics(message))

    def _on_removed(self, topic: str, path: Any) -> None:
        if path == self._path:
            with self._arrived:
                self._gone = True
                self._arrived.notify_all()

    def _lost(self, sample_ids: int) -> None:
        self._keep(wire.LOST, 0, wire.pack_lost(sample_ids))

    def _keep(self, kind: int, number: int, payload: bytes) -> None:
        now_ns = time.monotonic_ns()
        frame = frames.Frame(kind=kind, number=number, before_ns=now_ns, after_ns=now_ns, payload=payload)
        with self._arrived:
            self._frames.append(frames.pack(frame))
            self._arrived.notify_all()

    # -- the life of a driver -----------------------------------------------------------------------------------------

    def start(self) -> Header:
        """Raises UsageError, IncompleteError where a signal stays away, NotFoundError, AccessError."""
        if self._streaming:
            raise UsageError("This Joulescope is streaming already.", "Stop it first.")
        self._frames.clear()
        self._first.clear()
        self._streaming = True
        with told(self._name):
            self._configure()
            for name in self._signals:
                self._subscribe(f"{self._path}/{wire.SIGNALS[name].topic}/!data", self._on_signal(name))
            self._subscribe(f"{self._path}/{wire.STATISTICS_TOPIC}/value", self._on_statistics)
            # The current last: what it is recorded with is there by then.
            for name in reversed(self._signals):
                self._publish(f"{wire.SIGNALS[name].topic}/ctrl", 1)
            # The library of a JS110 gives missing packets no sample ids, but says so in its log.
            if self._key == "js110":
                self._skips.watch(self._library)
            self._publish(f"{wire.STATISTICS_TOPIC}/scnt", round(self._model.statistics_hz / channels.STATISTICS_HZ))
            self._publish(f"{wire.STATISTICS_TOPIC}/ctrl", 1)
        self._await_all()
        return self._header()

    def _configure(self) -> None:
        """Each setting, with what it was before where the meter says so."""
        for topic, value in self._set:
            before = self._asked(topic)
            if before is not None and before != value:
                self._found.insert(0, (topic, before))
            self._publish(topic, value)
        if self._key == "js110":
            self._publish("s/i/lsb_src", "gpi0")
            self._publish("s/v/lsb_src", "gpi1")
        else:
            self._publish("h/fp", self._publish_hz)
        if self._key == "js220" and self._averages:
            self._publish("h/filter", wire.AVERAGING)
        self._publish("h/fs", round(self._rate_hz))

    @property
    def _averages(self) -> bool:
        """Whether a JS220 averages by itself instead of the library's low-pass filter, which is late."""
        known = [wire.version(value) for value in self._versions.values() if isinstance(value, int)]
        return len(known) == len(self._versions) and min(known) >= wire.AVERAGING_VERSION

    def _asked(self, topic: str) -> Any:
        """What a topic holds; None where nobody has said."""
        try:
            return self._library.query(f"{self._path}/{topic}")
        except (RuntimeError, TimeoutError):
            return None

    def _publish(self, topic: str, value: Any, timeout: float | None = ANSWER_S) -> None:
        self._library.publish(f"{self._path}/{topic}", value, timeout)

    def _subscribe(self, topic: str, call: Callable[[str, Any], None]) -> None:
        self._library.subscribe(topic, "pub", call)
        self._subscribed.append((topic, call))

    def _await_all(self) -> None:
        with self._arrived:
            self._arrived.wait_for(lambda: self._gone or set(self._first) == set(self._signals), FIRST_S)
        missing = [name for name in self._signals if name not in self._first]
        if missing and not self._gone:
            self.stop()
            raise IncompleteError(
                f"{self._name} was started but sends no {', '.join(missing)}.",
                f"Record fewer lines (--set lines=d0). {library.REPLUG}",
            )
        if missing:
            raise self._unplugged()

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the meter is gone."""
        with self._arrived:
            if not self._frames and not self._gone:
                self._arrived.wait(timeout_s)
            taken = b"".join(self._frames)
            self._frames.clear()
        if not taken and self._gone:
            raise self._unplugged()
        return taken

    def _unplugged(self) -> IncompleteError:
        return IncompleteError(f"{self._name} was unplugged.", "Plug it in again; what had arrived is kept.")

    def stop(self) -> None:
        """Stop streaming and put range and inputs back as they were found."""
        self._skips.end()
        if not self._streaming:
            return
        self._streaming = False
        undone = [(f"{wire.STATISTICS_TOPIC}/ctrl", 0)]
        undone += [(f"{wire.SIGNALS[name].topic}/ctrl", 0) for name in self._signals]
        undone += self._found
        self._found = []
        for number, (topic, value) in enumerate(undone, 1):
            # Waiting for the last one waits for all, and a meter that no longer answers costs one wait.
            with contextlib.suppress(JouleMeterError, RuntimeError, TimeoutError, OSError):
                if not self._gone:
                    self._publish(topic, value, LAST_S if number == len(undone) else 0)
        for topic, call in [one for one in self._subscribed if one[0] != REMOVED]:
            self._unsubscribe(topic, call)

    def _unsubscribe(self, topic: str, call: Callable[[str, Any], None]) -> None:
        with contextlib.suppress(RuntimeError, TimeoutError):
            self._library.unsubscribe(topic, call)
        self._subscribed.remove((topic, call))

    def close(self) -> None:
        self.stop()
        if self._closed:
            return
        self._closed = True
        for topic, call in list(self._subscribed):
            self._unsubscribe(topic, call)
        with contextlib.suppress(RuntimeError, TimeoutError):
            if self._opened and not self._gone:
                self._library.close(self._path)
        library.release(self._library)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    # -- the header ---------------------------------------------------------------------------------------------------

    def _header(self) -> Header:
        first = self._first["current"]
        ids_hz, step = int(first["sample_rate"]), int(first["decimate_factor"])
        late = self._late(ids_hz, step)
        overhead = (frames.OVERHEAD + 16) * len(self._signals) * self._publish_hz / self._rate_hz
        return Header(
            instrument="joulescope",
            model=self._model.name,
            wire=wire.FORMAT,
            rate_hz=ids_hz / step,
            word_bytes=wire.sample_bytes(self._signals) + int(overhead),
            channels=channels.channels(self._key, self._signals),
            serial=self._serial,
            firmware=self._firmware(),
            address=self._address,
            simulated=self._simulated,
            parameters={"signals": list(self._signals), "ids_hz": ids_hz, "late": late, "settings": self._set_text()},
            caveats=self._caveats(ids_hz / step),
        )

    def _late(self, ids_hz: int, step: int) -> dict[str, int]:
        """Sample ids by which current and voltage carry a later id than the lines do: the library's filter on a JS220.

        On a JS110 it filters the lines as well, and a JS320 averages by itself.
        """
        fine = round(ids_hz / self._model.full_hz)
        if self._key != "js220" or self._averages or step <= fine:
            return {}
        late = wire.filter_delay(step, fine) + step // 2 - fine // 2
        return {"current": late, "voltage": late}

    def _firmware(self) -> str | None:
        said = [(name.split("/")[1], value) for name, value in self._versions.items() if isinstance(value, int)]
        return ", ".join(f"{name} {'.'.join(map(str, wire.version(value)))}" for name, value in said) or None

    def _set_text(self) -> dict[str, Any]:
        return dict(self._set)

    def _caveats(self, rate_hz: float) -> tuple[Caveat, ...]:
        caveats = []
        if rate_hz < self._model.full_hz and not (self._key == "js220" and self._averages) and self._key != "js320":
            text = (
                "At less than the full rate the library filters the current, which smears edges over some ten samples. "
                "Energy of windows shorter than a hundred samples leaks across their edges: record at the full rate"
                + (
                    ", or update the meter to 1.3.0 or later, which averages by itself."
                    if self._key == "js220"
                    else "."
                )
            )
            caveats.append(note(Code.ALTERED_SAMPLES, text))
        if "range" not in self._signals:
            text = (
                "The current range is not recorded beside so many lines, so the offset of the widest range is taken "
                "for all. Record three lines or fewer, or do a zero run."
            )
            caveats.append(doubt(Code.ACCURACY_UNVERIFIED, text))
        return tuple(caveats)


class _SkipWatch(logging.Handler):
    """Hears the library say that it left packets out."""

    def __init__(self, lost: Callable[[int], None]) -> None:
        super().__init__(logging.WARNING)
        self._told_lost = lost

    def watch(self, used: Library) -> None:
        used.log_level = "warning"
        logging.getLogger(LOG).addHandler(self)

    def end(self) -> None:
        logging.getLogger(LOG).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        said = _SKIPPED.search(record.getMessage())
        if said is not None:
            self._told_lost((int(said[2]) - int(said[1])) % (1 << 16) * wire.SAMPLES_PER_PACKET)
