"""Listen. Nothing is ever sent: the only commands that there are clear counters or change settings."""

from __future__ import annotations

import time

from joulemeter.capture import Header, Limit
from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.transport import Link
from joulemeter.transport.connect import connect

from . import channels, wire

# Over Bluetooth any rate will do; this is the one of those that are wired.
BAUD = 9600
# A meter that is there reports within a second.
PATIENCE_S = 3.5
# What else comes in that time does not come from one of these meters.
MOST_BYTES = 4096
LISTEN_S = 0.1
# Nobody states what beats the seconds: an oscillator inside a small microcontroller is good to about 1 %.
CLOCK = Limit(value=0.01)

PAIR = (
    "Pair it (PIN 1234), bind it to a port (sudo rfcomm bind 0 ADDRESS) and give that: atorch@/dev/rfcomm0; on Windows "
    "and macOS give the port that pairing made. Its app must not be connected."
)


def open_driver(address: str, options: Options) -> Driver:
    """See `joulemeter.instruments.atorch.open`."""
    check(options)
    if not address:
        raise NotFoundError("A Bluetooth meter cannot be found by itself.", PAIR)
    return Driver(connect(address, BAUD), options)


def check(options: Options) -> None:
    """Raises UsageError for what an inline meter cannot do."""
    if options.supply_v is not None:
        raise UsageError("An inline meter cannot supply a board.", "Leave --supply out.")
    if options.declared_v is not None:
        raise UsageError("This meter measures the voltage.", "Leave --assume-voltage out.")


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options) -> None:
        """Takes over `link`, and closes it if none of these meters is behind it.

        Raises NotFoundError, UsageError, IncompleteError.
        """
        check(options)
        self._link = link
        self._held = b""
        try:
            self._first, self._sum_from = self._identify()
        except BaseException:
            self.close()
            raise

    def _identify(self) -> tuple[wire.Report, int]:
        """The first report and where its checksum begins; the bytes from it on are held back for the recording."""
        deadline, heard = time.monotonic() + PATIENCE_S, b""
        while time.monotonic() < deadline and len(heard) < MOST_BYTES:
            heard += self._link.read(LISTEN_S)
            at = heard.find(wire.BEGIN)
            while 0 <= at <= len(heard) - wire.REPORT_BYTES:
                block = heard[at : at + wire.REPORT_BYTES]
                sum_from = wire.sum_of(block)
                if sum_from is not None:
                    self._held = heard[at:]
                    return self._known(block), sum_from
                at = heard.find(wire.BEGIN, at + 1)
        raise NotFoundError(f"What is at {self._link.address} sends no reports as Atorch's meters do.", PAIR)

    def _known(self, block: bytes) -> wire.Report:
        report = wire.parse(block)
        if report is None:
            what = "a mains meter" if block[wire.KIND_AT] == wire.MAINS else f"of kind {block[wire.KIND_AT]}"
            raise NotFoundError(
                f"The Atorch meter at {self._link.address} is {what}, which cannot be read here.",
                "Use one of Atorch's USB or DC meters.",
            )
        return report

    def start(self) -> Header:
        kind = wire.KINDS[self._first.kind]
        return Header(
            instrument="atorch",
            model=kind.name,
            wire=wire.FORMAT,
            rate_hz=wire.RATE_HZ,
            word_bytes=wire.REPORT_BYTES,
            loss_modulo=wire.RUN_MODULO,
            channels=channels.channels(kind),
            address=self._link.address,
            simulated=self._first.simulated,
            clock=CLOCK,
            parameters={"kind": self._first.kind, "sum_from": self._sum_from},
        )

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the port is gone."""
        if self._held:
            held, self._held = self._held, b""
            return held
        return self._link.read(timeout_s)

    def stop(self) -> None:
        """A meter cannot be told to be silent, and it supplies nothing."""
