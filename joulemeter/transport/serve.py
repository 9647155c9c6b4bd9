"""Simulated devices for other programs: on pseudo-terminals or a TCP port."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable, Sequence

from joulemeter.errors import UsageError
from joulemeter.instrument import Device
from joulemeter.transport import UnpluggedError

# What a USB stack would hold before the device has to drop: about two seconds of a 400 kB/s stream.
OUTBOX_BYTES = 1 << 20
_TICK_S = 0.004


class _Clock:
    """Seconds since the devices were plugged in; unpaced, time goes on only as fast as it is asked to."""

    def __init__(self, *, paced: bool, started_s: float | None = None) -> None:
        self.paced = paced
        self._now_s = 0.0
        self._started = time.monotonic() if started_s is None else started_s

    def now_s(self) -> float:
        return time.monotonic() - self._started if self.paced else self._now_s

    def advance(self) -> None:
        self._now_s += _TICK_S


class _Pump:
    """Moves bytes between a device and a non-blocking file descriptor, dropping whole batches when nobody reads."""

    def __init__(self, device: Device, descriptor: int) -> None:
        self.device = device
        self.descriptor = descriptor
        self.outbox = bytearray()
        self.there = True

    def receive(self) -> bool:
        """False when the other side has gone, which the device is told as no bytes. Raises UnpluggedError."""
        try:
            data = os.read(self.descriptor, 4096)
        except OSError:
            data = b""
        self.device.receive(data)
        self.there = bool(data)
        return self.there

    def transmit(self, now_s: float) -> None:
        fresh = self.device.transmit(now_s)
        if len(self.outbox) + len(fresh) <= OUTBOX_BYTES:
            self.outbox += fresh
        if self.outbox:
            # One that has gone is seen when it is read from.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                sent = os.write(self.descriptor, self.outbox[:65536])
                del self.outbox[:sent]


def _tick(pumps: Sequence[_Pump], clock: _Clock) -> bool:
    """One turn of all devices, in order. False when the other side of one has gone. Raises UnpluggedError."""
    held_up = [pump.descriptor for pump in pumps if pump.outbox and not clock.paced]
    readable, _, _ = select.select([pump.descriptor for pump in pumps], held_up, [], _TICK_S)
    there = True
    for pump in pumps:
        if pump.descriptor in readable:
            there = pump.receive() and there
    if not any(pump.outbox for pump in pumps):
        clock.advance()
    now_s = clock.now_s()
    for pump in pumps:
        pump.transmit(now_s)
    return there


def serve_pty(
    device: Device, announce: Callable[[str], None], stopped: Callable[[], bool], *, paced: bool = True
) -> None:
    """As `serve_ptys`, with one device; `announce` is given its path."""
    serve_ptys([device], lambda paths: announce(paths[0]), stopped, paced=paced)


def serve_ptys(
    devices: Sequence[Device],
    announce: Callable[[Sequence[str]], None],
    stopped: Callable[[], bool],
    *,
    paced: bool = True,
    tcp: tuple[str, int] | None = None,
    started_s: float | None = None,
) -> None:
    """Serve each on a new pseudo-terminal until stopped or one is unplugged; they share one clock. POSIX only.

    `announce` is given their paths. A device that acts on others stands before them. With `tcp`, the last one is served
    on that HOST:PORT instead, to one client at a time. `started_s` is time.monotonic() when they were plugged in.
    """
    if os.name != "posix":
        raise UsageError("Pseudo-terminals exist on Linux and macOS only.", "Use --tcp instead.")
    import tty

    with contextlib.ExitStack() as held:
        pumps: list[_Pump] = []
        paths: list[str] = []
        listener = None if tcp is None else held.enter_context(_listen(tcp))
        for device in devices if listener is None else devices[:-1]:
            host, port = os.openpty()
            held.callback(os.close, host)
            # Our own end of `port` stays open: without it the host side would read an error after each client.
            held.callback(os.close, port)
            # Raw before anybody opens it, so that no byte is echoed or translated.
            tty.setraw(host)
            tty.setraw(port)
            os.set_blocking(host, False)
            pumps.append(_Pump(device, host))
            paths.append(os.ttyname(port))
        if listener is not None:
            listener.setblocking(False)
            paths.append(_name(listener))
        announce(paths)
        clock = _Clock(paced=paced, started_s=started_s)
        client: socket.socket | None = None
        alone = list(pumps)
        with contextlib.suppress(UnpluggedError):
            while not stopped():
                if listener is not None and client is None:
                    with contextlib.suppress(BlockingIOError):
                        client = held.enter_context(listener.accept()[0])
                        client.setblocking(False)
                        pumps = [*alone, _Pump(devices[-1], client.fileno())]
                if not _tick(pumps, clock) and client is not None and not pumps[-1].there:
                    client.close()
                    client, pumps = None, list(alone)


def serve_tcp(
    device: Device,
    address: tuple[str, int],
    announce: Callable[[str], None],
    stopped: Callable[[], bool],
    *,
    paced: bool = True,
) -> None:
    """Serve on HOST:PORT (port 0 picks one), one client at a time, until stopped or unplugged."""
    with _listen(address) as listener, contextlib.suppress(UnpluggedError):
        listener.settimeout(0.1)
        announce(_name(listener))
        clock = _Clock(paced=paced)
        while not stopped():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            with client:
                client.setblocking(False)
                pumps = [_Pump(device, client.fileno())]
                while not stopped() and _tick(pumps, clock):
                    pass


def _listen(address: tuple[str, int]) -> socket.socket:
    """Raises UsageError."""
    try:
        return socket.create_server(address)
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {address[0]}:{address[1]} ({error.strerror}).", "Choose another port."
        ) from error


def _name(listener: socket.socket) -> str:
    return "{}:{}".format(*listener.getsockname()[:2])
