"""Ask, wait for 192 bytes, ask again."""

from __future__ import annotations

from collections.abc import Mapping

from joulemeter import ports
from joulemeter.capture import Header
from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.polled import Poller, exchange
from joulemeter.transport import Link
from joulemeter.transport.connect import connect

from . import channels, discovery, wire

# Over USB; a meter that is there answers within a fifth of it.
ANSWER_S = 0.5
# A port that has just been opened may lose the first question.
TRIES = 3


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.tc66.open`."""
    check(options)
    unit = ports.choose(address, discovery.discover("tc66"), "TC66", discovery.CONNECT)
    return Driver(connect(address if unit is None else unit.address), options, settings)


def check(options: Options) -> None:
    """Raises UsageError for what an inline meter cannot do."""
    if options.supply_v is not None:
        raise UsageError("A USB inline meter cannot supply a board.", "Leave --supply out.")
    if options.declared_v is not None:
        raise UsageError("This meter measures the voltage.", "Leave --assume-voltage out.")


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, settings: Mapping[str, str]) -> None:
        """Takes over `link`, and closes it if none of these meters is behind it.

        Raises NotFoundError, UsageError, IncompleteError, MissingExtraError.
        """
        check(options)
        self._link = link
        try:
            self._cipher = wire.Cipher()
            self._first = self._identify()
            name = f"the {self._first.model} at {link.address}"
            self._poller = Poller(self._reading, wire.ANSWER_BYTES, settings["interval"], wire.USUAL_S, name)
        except BaseException:
            self.close()
            raise

    def _identify(self) -> wire.Reading:
        for _ in range(TRIES):
            if self._ask(wire.QUERY, len(wire.LOADER)) == wire.LOADER:
                raise NotFoundError(
                    f"The TC66 at {self._link.address} waits for firmware and measures nothing.",
                    "Unplug it everywhere and plug it in again without a key held down.",
                )
            reading = self._cipher.parse(self._reading())
            if reading is not None:
                return reading
        raise NotFoundError(
            f"What is at {self._link.address} does not answer as a TC66 or TC66C does.", discovery.CONNECT
        )

    def _reading(self) -> bytes:
        return self._ask(wire.ASK, wire.ANSWER_BYTES)

    def _ask(self, question: bytes, size: int) -> bytes:
        return exchange(self._link, question, size, ANSWER_S)

    def start(self) -> Header:
        """Raises IncompleteError, DataError, UsageError."""
        epoch = self._poller.start(self._cipher.parse)
        return Header(
            instrument="tc66",
            model=self._first.model,
            serial=str(self._first.serial),
            firmware=self._first.firmware,
            wire=wire.FORMAT,
            rate_hz=self._poller.rate_hz,
            word_bytes=self._poller.word_bytes,
            channels=channels.CHANNELS,
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
