"""Ask, wait for 130 bytes, ask again."""

from __future__ import annotations

from collections.abc import Mapping

from joulemeter.capture import Header
from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.polled import Poller, exchange
from joulemeter.transport import Link
from joulemeter.transport.connect import connect

from . import channels, wire

# Over Bluetooth; a meter that is there answers within half of it.
ANSWER_S = 1.0
# A connection that has just been made may lose the first question.
TRIES = 3

PAIR = (
    "Pair it (PIN 1234), bind it to a port (sudo rfcomm bind 0 ADDRESS) and give that: um25c@/dev/rfcomm0; on Windows "
    "and macOS give the port that pairing made."
)


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.um25c.open`."""
    check(options)
    if not address:
        raise NotFoundError("A Bluetooth meter cannot be found by itself.", PAIR)
    return Driver(connect(address), options, settings)


def check(options: Options) -> None:
    """Raises UsageError for what an inline meter cannot do."""
    if options.supply_v is not None:
        raise UsageError("A USB inline meter cannot supply a board.", "Leave --supply out.")
    if options.declared_v is not None:
        raise UsageError("This meter measures the voltage.", "Leave --assume-voltage out.")


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, settings: Mapping[str, str]) -> None:
        """Takes over `link`, and closes it if none of these meters is behind it.

        Raises NotFoundError, UsageError, IncompleteError.
        """
        check(options)
        self._link = link
        try:
            self._first = self._identify()
            name = f"the {self._first.model.name} at {link.address}"
            self._poller = Poller(self._ask, wire.ANSWER_BYTES, settings["interval"], wire.USUAL_S, name)
        except BaseException:
            self.close()
            raise

    def _identify(self) -> wire.Reading:
        for _ in range(TRIES):
            reading = wire.parse(self._ask())
            if reading is not None:
                return reading
        raise NotFoundError(f"What is at {self._link.address} does not answer as a UM24C, UM25C or UM34C does.", PAIR)

    def _ask(self) -> bytes:
        return exchange(self._link, wire.ASK, wire.ANSWER_BYTES, ANSWER_S)

    def start(self) -> Header:
        """Raises IncompleteError, DataError, UsageError."""
        epoch = self._poller.start(wire.parse)
        model = self._first.model
        return Header(
            instrument="um25c",
            model=model.name,
            wire=wire.FORMAT,
            rate_hz=self._poller.rate_hz,
            word_bytes=self._poller.word_bytes,
            channels=channels.channels(model),
            address=self._link.address,
            simulated=self._first.simulated,
            epoch=epoch,
            # What is shown is between fresh and one refresh old.
            parameters={"age_ns": round(channels.REFRESH_S / 2 * 1e9)},
        )

    def read(self, timeout_s: float) -> bytes:
        """Raises IncompleteError when the port is gone."""
        return self._poller.read(timeout_s)

    def stop(self) -> None:
        """Nothing runs in the meter, and it supplies nothing."""
