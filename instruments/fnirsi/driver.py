"""Start the stream, keep it going, and end it so that the meter does not freeze."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping

from joulemeter import ports
from joulemeter.capture import Header
from joulemeter.errors import IncompleteError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.transport import Link, hid
from joulemeter.transport.connect import connect

from . import channels, decode, discovery, wire

KEY, NAME = "fnirsi", "FNIRSI USB meter"

# Reports come every 40 ms: what is silent for so long does not stream.
SILENCE_S = 0.1
# How long a meter goes on by itself is not known.
DRAIN_S = 3.0
# With less between two commands the meter crashes (Randomblock1/fnirsi-usb-tool waits 25 ms, OpenFNB58 50 ms).
COMMAND_S = 0.03
FIRST_S = 1.5
POLL_S = 0.02
# Before the recorder gives the meter up, so that its user is told what helps with this one.
FROZEN_S = 1.5
# Eleven minutes of reports.
HELD_BYTES = 1 << 20

CONNECT = "Connect its micro-USB port marked PC to this computer; the USB-C and USB-A ports of the meter carry no data."
FROZEN = (
    "Its firmware is known to freeze: unplug it on all sides, plug it in again, and update its firmware. An FNB58 with "
    "firmware 0.68 needs --set keepalive=3ms. What had arrived is kept."
)


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.fnirsi.open`."""
    check(options)
    if not address:
        hid.load()
    units = discovery.units(KEY)
    chosen = ports.choose(address, [unit.found for unit in units], NAME, CONNECT)
    if chosen is None:
        if address.startswith("/dev/hidraw"):
            hid.load()
            raise NotFoundError(f"There is no {NAME} at {address}.", "`joulemeter scan` lists where there is one.")
        return Driver(connect(address), options, settings)
    unit = next(unit for unit in units if unit.found is chosen)
    settings = {**settings, "model": unit.model}
    return Driver(hid.HidLink(unit.info, wire.REPORT_BYTES), options, settings, serial=chosen.serial)


def check(options: Options) -> None:
    """Raises UsageError for what an inline meter cannot do."""
    if options.supply_v is not None:
        raise UsageError("A USB inline meter cannot supply a board.", "Leave --supply out.")
    if options.declared_v is not None:
        raise UsageError("This meter measures the voltage.", "Leave --assume-voltage out.")


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, settings: Mapping[str, str], *, serial: str | None = None) -> None:
        """Takes over `link`, and closes it if none of these meters is behind it.

        Raises NotFoundError, UsageError, IncompleteError.
        """
        check(options)
        self._link = link
        self._model = settings["model"]
        self._serial = serial
        keepalive = settings["keepalive"]
        keepalive = wire.MODELS[self._model].keepalive if keepalive == "auto" else keepalive
        self._keepalive_s = wire.KEEPALIVES[keepalive]
        self._simulated = False
        self._pump: _Pump | None = None
        try:
            self._wake()
        except BaseException:
            self.close()
            raise

    def _wake(self) -> None:
        """Make it stream, which is the only sign of life that it gives."""
        self._drain()
        for kind in wire.MODELS[self._model].start:
            self._link.write(wire.command(kind))
            time.sleep(COMMAND_S)
        reports, measured, deadline = decode.Splitter(), False, time.monotonic() + FIRST_S
        while not measured:
            if time.monotonic() > deadline:
                raise NotFoundError(
                    f"What is at {self._link.address} does not send measurements as a {self._model} does.",
                    f"{CONNECT} If it is one, it has frozen: unplug it and plug it in again.",
                )
            for report in reports.feed(self._link.read(POLL_S)):
                self._simulated |= report[1] == wire.SIMULATED
                measured |= wire.samples(report) is not None
        self._pump = _Pump(self._link, self._keepalive_s, self._model, reports.pending)
        self._pump.start()

    def _drain(self) -> None:
        """Throw away what comes until nothing does; without being told to go on, the meter ends by itself."""
        heard = now = time.monotonic()
        deadline = now + DRAIN_S
        while now < min(heard + SILENCE_S, deadline):
            raw = self._link.read(SILENCE_S)
            now = time.monotonic()
            heard = now if raw else heard

    def start(self) -> Header:
        """Raises NotFoundError, IncompleteError."""
        if self._pump is None:
            self._wake()
        assert self._pump is not None  # noqa: S101 -- it was made just now
        self._pump.forget()
        return Header(
            instrument=KEY,
            model=self._model,
            wire=wire.FORMAT,
            rate_hz=wire.RATE_HZ,
            word_bytes=wire.WORD_BYTES,
            channels=channels.channels(),
            serial=self._serial,
            address=self._link.address,
            simulated=self._simulated,
            clock=channels.CLOCK,
        )

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the meter is gone or has frozen."""
        if self._pump is None:
            raise UsageError("This meter does not stream.", "Start it first.")
        return self._pump.read(timeout_s)

    def stop(self) -> None:
        """No longer tell it to go on, and take what it still sends: with reports left unread it may freeze."""
        pump, self._pump = self._pump, None
        if pump is None:
            return
        pump.end()
        if pump.error is None:
            with contextlib.suppress(JouleMeterError):
                self._drain()


class _Pump(threading.Thread):
    """Takes reports as they come and tells the meter to go on, however slowly they are asked for.

    The system keeps few of them (Linux 64, 2.5 s) and drops the rest without a word.
    """

    def __init__(self, link: Link, keepalive_s: float, model: str, begun: bytes) -> None:
        """`begun` is the part of a report that has been read."""
        super().__init__(daemon=True)
        self._link = link
        self._keepalive_s = keepalive_s
        self._model = model
        self._held = bytearray(begun)
        self._arrived = threading.Condition()
        self._ending = threading.Event()
        self.error: JouleMeterError | None = None

    def run(self) -> None:
        due = time.monotonic() + self._keepalive_s
        silent_s = 0.0
        try:
            while not self._ending.is_set():
                raw = self._link.read(POLL_S)
                if time.monotonic() >= due:
                    self._link.write(wire.KEEPALIVE)
                    due = time.monotonic() + self._keepalive_s
                # By what was waited for and not by the clock: a host that slept is no meter that froze.
                silent_s = 0.0 if raw else silent_s + POLL_S
                self._take(raw, silent_s)
        except JouleMeterError as error:
            with self._arrived:
                self.error = error
                self._arrived.notify()

    def _take(self, raw: bytes, silent_s: float) -> None:
        if silent_s > FROZEN_S:
            raise IncompleteError(f"The {self._model} has sent nothing for {FROZEN_S:g} s.", FROZEN)
        if not raw:
            return
        with self._arrived:
            if len(self._held) > HELD_BYTES:
                raise IncompleteError(
                    f"The reports of the {self._model} were not taken for minutes.", "Record on a host that keeps up."
                )
            self._held += raw
            self._arrived.notify()

    def forget(self) -> None:
        """Drop the whole reports that are held: a recording begins with the next one."""
        with self._arrived:
            del self._held[: len(self._held) // wire.REPORT_BYTES * wire.REPORT_BYTES]

    def read(self, timeout_s: float) -> bytes:
        """What has arrived, b"" if nothing came in time. Raises what ended the thread, after the last bytes."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._held or self.error, timeout_s)
            if self._held:
                raw = bytes(self._held)
                self._held.clear()
                return raw
            if self.error is not None:
                raise self.error
            return b""

    def end(self) -> None:
        self._ending.set()
        self.join()
