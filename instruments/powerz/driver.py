"""The meter on its wire: connect, say the credential, start its queue, and fetch what has gathered there.

Each request has one answer, and the next request waits for it; an answer that is spoilt or does not come is given up
for lost, which the ticks of the samples show. One that comes late is taken all the same: the meter has forgotten it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping

from joulemeter.capture import Channel, Epoch, Header
from joulemeter.errors import AccessError, JouleMeterError, NotFoundError, UsageError
from joulemeter.instrument import LinkDriver, Options
from joulemeter.polled import Poller
from joulemeter.transport import Link

from . import channels, discovery, wire
from .wire import Kind

# The meter answers within a millisecond; a busy host may be later.
ANSWER_S = 0.5
SLICE_S = 0.02
TRIES = 3
FLUSH_S = 0.5
# The queue of a real meter holds about 64 samples.
FETCH_S = {1000.0: 0.02, 50.0: 0.1, 10.0: 0.2, 2.0: 0.5}
SNAPSHOT_S = 0.25
# What a snapshot shows is a mean over the refresh before, and shows until the next one.
SNAPSHOT_AGE_S = channels.SNAPSHOT_REFRESH_S

# The meter counts current positive from socket to plug.
SIGNS = {"plug-to-socket": -1.0, "socket-to-plug": 1.0}

POLL = "Give --set mode=poll: readings twice a second, which need no permission."


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> Driver:
    """See `joulemeter.instruments.powerz.open`."""
    check(options)
    link, model = discovery.reach(address)
    return Driver(link, options, settings, model)


def check(options: Options) -> None:
    """Raises UsageError for what an inline meter cannot do."""
    if options.supply_v is not None:
        raise UsageError("A USB inline meter cannot supply a board.", "Leave --supply out.")
    if options.declared_v is not None:
        raise UsageError("This meter measures the voltage.", "Leave --assume-voltage out.")


class Driver(LinkDriver):
    def __init__(self, link: Link, options: Options, settings: Mapping[str, str], model: str | None = None) -> None:
        """Takes over `link`, and closes it if no POWER-Z is behind it. `model` where the USB id has told it.

        Raises NotFoundError, UsageError, IncompleteError.
        """
        check(options)
        self._link = link
        self._settings = settings
        self._rate = wire.RATES[settings["rate"]]
        self._number = 0
        self._buffer = b""
        self._asked_s: float | None = None  # when the queue was asked for and has not answered
        self._due_s = 0.0
        self._streaming = False
        self._poller: Poller | None = None
        try:
            self._connect()
            self.simulated = self._named() == wire.SIMULATED_NAME
            self.identity = self._identify(model)
            self._model = model or self.identity.model or "POWER-Z"
            self._polls = settings["mode"] == "poll" or (
                settings["mode"] == "auto" and self._model == wire.MODELS[wire.KM002C]
            )
            if self._polls:
                self._poller = Poller(
                    self._snapshot, wire.SNAPSHOT_BYTES, settings["interval"], SNAPSHOT_S, self._called()
                )
        except BaseException:
            self.close()
            raise

    def _called(self) -> str:
        return f"the {self._model} at {self._link.address}"

    # -- who is there -------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        # What an earlier program left running is stopped first; a meter that ran nothing may refuse.
        self._command(Kind.STOP_GRAPH)
        for _ in range(TRIES):
            answer = self._command(Kind.CONNECT)
            if answer is not None and answer.kind is Kind.ACCEPT:
                return
        raise NotFoundError(
            f"What is at {self._link.address} does not answer as a POWER-Z does.",
            "`joulemeter scan` lists those that do; or unplug it, plug it in again and close other programs.",
        )

    def _named(self) -> str | None:
        answer = self._command(Kind.GET_DATA, wire.SETTINGS)
        return wire.name(answer.parts[wire.SETTINGS]) if answer and wire.SETTINGS in answer.parts else None

    def _identify(self, model: str | None) -> wire.Identity:
        """Nobody has said where a KM002C keeps these, and a wrong address can make a meter hang."""
        if model == wire.MODELS[wire.KM002C]:
            return wire.Identity(model=model)
        addresses = (wire.DEVICE_BLOCK, wire.FIRMWARE_BLOCK, wire.CALIBRATION_BLOCK)
        return wire.identity(*(self._memory(address, wire.BLOCK_BYTES) for address in addresses))

    # -- one request, one answer --------------------------------------------------------------------------------------

    def _next_number(self) -> int:
        self._number = (self._number + 1) % 256
        return self._number

    def _command(self, kind: Kind, attribute: int = 0) -> wire.Packet | None:
        number = self._next_number()
        return self._exchange(wire.control(kind, number, attribute), number)[0]

    def _exchange(self, request: bytes, number: int, tail: int = 0) -> tuple[wire.Packet | None, bytes]:
        """The answer with that number, and up to `tail` bytes behind it; None where none came or it was spoilt."""
        self._flush()
        self._link.write(request)
        buffer, answer, deadline = b"", None, time.monotonic() + ANSWER_S
        while (left_s := deadline - time.monotonic()) > 0:
            buffer += self._link.read(min(left_s, SLICE_S))
            try:
                while answer is None and (packet := wire.packet(buffer)) is not None:
                    buffer = buffer[packet.size :]
                    # A credential is answered without its number; other packets were on their way before.
                    if packet.number == number or packet.kind is Kind.CREDENTIAL:
                        answer = packet
            except ValueError:
                break
            if answer is not None and (len(buffer) >= tail or answer.kind < Kind.PUT_DATA):
                return answer, buffer[:tail]
        return None, b""

    def _flush(self) -> None:
        deadline = time.monotonic() + FLUSH_S
        while self._link.read(0) and time.monotonic() < deadline:
            pass
        self._buffer, self._asked_s = b"", None

    def _memory(self, address: int, size: int) -> bytes | None:
        number = self._next_number()
        answer, secret = self._exchange(wire.memory_read(address, size, number), number, wire.blocks(size))
        if answer is None or answer.kind is not Kind.MEMORY_READ or answer.body != wire.memory_asked(address, size):
            return None
        return wire.memory(secret, size)

    def _authenticate(self) -> None:
        hardware_id = self._memory(wire.HARDWARE_ID, wire.HARDWARE_ID_BYTES)
        if hardware_id is None:
            raise AccessError(
                f"{self._called()} does not tell its hardware id, without which it does not stream.", POLL
            )
        number = self._next_number()
        answer, _ = self._exchange(wire.credential(hardware_id, number), number)
        if answer is None or answer.kind is not Kind.CREDENTIAL or not answer.level:
            raise AccessError(
                f"{self._called()} (firmware {self.identity.firmware or 'unknown'}) does not let programs stream.",
                f"{POLL} Or update its firmware.",
            )

    # -- streaming ----------------------------------------------------------------------------------------------------

    def start(self) -> Header:
        """Raises AccessError where the meter refuses, IncompleteError, DataError, UsageError."""
        if self._streaming:
            raise UsageError("This POWER-Z is streaming already.", "Stop it first.")
        if self._poller is not None:
            epoch = self._poller.start(wire.flows)
            return self._header(self._poller, channels.polled(), epoch)
        self._authenticate()
        answer = self._command(Kind.START_GRAPH, self._rate.index)
        if answer is None or answer.kind is not Kind.ACCEPT:
            raise AccessError(
                f"{self._called()} refuses to stream {self._rate.hz:g} samples a second.",
                f"Unplug it and plug it in again. {POLL}",
            )
        self._streaming, self._due_s = True, time.monotonic()
        return self._header(None, channels.streamed(self._rate.hz), None)

    def _header(self, poller: Poller | None, measured: tuple[Channel, ...], epoch: Epoch | None) -> Header:
        direction = self._settings["direction"]
        parameters: dict[str, object] = {"sign": SIGNS[direction], "direction": direction}
        if self.identity.hardware is not None:
            parameters["hardware"] = self.identity.hardware
        if poller is not None:
            parameters["age_ns"] = round(SNAPSHOT_AGE_S * 1e9)
        return Header(
            instrument=discovery.KEY,
            model=self._model,
            wire=wire.QUEUE_FORMAT if poller is None else wire.SNAPSHOT_FORMAT,
            rate_hz=self._rate.hz if poller is None else poller.rate_hz,
            word_bytes=wire.SAMPLE.itemsize if poller is None else poller.word_bytes,
            channels=measured,
            loss_modulo=self._rate.modulo if poller is None else None,
            serial=self.identity.serial,
            firmware=self.identity.firmware,
            address=self._link.address,
            simulated=self.simulated,
            epoch=epoch,
            parameters=parameters,
        )

    def read(self, timeout_s: float) -> bytes:
        """The samples that have gathered, as the meter sent them. Raises IncompleteError when it is gone."""
        if self._poller is not None:
            return self._poller.read(timeout_s)
        if not self._streaming:
            return b""
        deadline = time.monotonic() + timeout_s
        if self._asked_s is None:
            wait_s = self._due_s - time.monotonic()
            time.sleep(max(min(wait_s, timeout_s), 0.0))
            if wait_s > timeout_s:
                return b""
            self._link.write(wire.control(Kind.GET_DATA, self._next_number(), wire.QUEUE))
            self._asked_s = time.monotonic()
        return self._fetch(deadline)

    def _fetch(self, deadline_s: float) -> bytes:
        """What answers the request under way, b"" where it has not come in time."""
        asked_s = self._asked_s or 0.0
        while True:
            self._buffer += self._link.read(max(min(deadline_s - time.monotonic(), SLICE_S), 0.0))
            try:
                answer = wire.packet(self._buffer)
                if answer is not None and answer.kind is not Kind.PUT_DATA:
                    self._buffer = self._buffer[answer.size :]
                    continue
                # Bytes too many are a sign that some of those before came in between.
                if answer is not None and len(self._buffer) > answer.size:
                    wire.packet(self._buffer[answer.size :])
            except ValueError:
                self._flush()
                return b""
            if answer is not None:
                self._buffer, self._asked_s = self._buffer[answer.size :], None
                samples = answer.parts.get(wire.QUEUE, b"")
                full = len(samples) == wire.MOST_SAMPLES * wire.SAMPLE.itemsize
                self._due_s = asked_s + (0.0 if full else FETCH_S[self._rate.hz])
                return samples
            if time.monotonic() > asked_s + ANSWER_S:
                self._flush()
                return b""
            if time.monotonic() >= deadline_s:
                return b""

    def _snapshot(self) -> bytes:
        number = self._next_number()
        self._flush()
        self._link.write(wire.control(Kind.GET_DATA, number, wire.ADC))
        answer, deadline = b"", time.monotonic() + ANSWER_S
        while (left_s := deadline - time.monotonic()) > 0:
            answer += self._link.read(min(left_s, SLICE_S))
            try:
                packet = wire.packet(answer)
            except ValueError:
                break
            if packet is not None:
                return answer if packet.number == number else b""
        return answer

    def stop(self) -> None:
        """Put the meter back to where it is not streaming."""
        if self._streaming:
            self._streaming = False
            with contextlib.suppress(JouleMeterError):
                self._command(Kind.STOP_GRAPH)
