"""A simulated device for other programs: on a pseudo-terminal or a TCP port."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable

from joulemeter.errors import UsageError
from joulemeter.instrument import Device
from joulemeter.transport import UnpluggedError

# What a USB stack would hold before the device has to drop: about two seconds of a 400 kB/s stream.
OUTBOX_BYTES = 1 << 20
_TICK_S = 0.004


class _Pump:
    """Moves bytes between a device and a non-blocking file descriptor, dropping whole batches when nobody reads."""

    def __init__(self, device: Device, *, paced: bool) -> None:
        self.device = device
        self.paced = paced
        self.outbox = bytearray()
        self.now_s = 0.0
        self.started = time.monotonic()

    def tick(self, descriptor: int) -> bool:
        """One turn. False when the other side has gone. Raises UnpluggedError."""
        readable, _, _ = select.select([descriptor], [], [], 0 if self.outbox and not self.paced else _TICK_S)
        if readable:
            try:
                data = os.read(descriptor, 4096)
            except OSError:
                return False
            if not data:
                return False
            self.device.receive(data)
        if self.paced:
            self.now_s = time.monotonic() - self.started
        elif not self.outbox:
            self.now_s += _TICK_S
        fresh = self.device.transmit(self.now_s)
        if len(self.outbox) + len(fresh) <= OUTBOX_BYTES:
            self.outbox += fresh
        if self.outbox:
            with contextlib.suppress(BlockingIOError):
                sent = os.write(descriptor, self.outbox[:65536])
                del self.outbox[:sent]
            if self.outbox and not self.paced:
                select.select([], [descriptor], [], _TICK_S)
        return True


def serve_pty(
    device: Device, announce: Callable[[str], None], stopped: Callable[[], bool], *, paced: bool = True
) -> None:
    """Serve on a new pseudo-terminal until stopped or unplugged. `announce` is given its path. POSIX only."""
    if os.name != "posix":
        raise UsageError("Pseudo-terminals exist on Linux and macOS only.", "Use --tcp instead.")
    import tty

    host, port = os.openpty()
    try:
        # Raw before anybody opens it, so that no byte is echoed or translated.
        tty.setraw(host)
        tty.setraw(port)
        os.set_blocking(host, False)
        announce(os.ttyname(port))
        pump = _Pump(device, paced=paced)
        with contextlib.suppress(UnpluggedError):
            while not stopped():
                pump.tick(host)
    finally:
        # Our own end of `port` stays open until now: without it the host side would read an error after each client.
        os.close(port)
        os.close(host)


def serve_tcp(
    device: Device,
    address: tuple[str, int],
    announce: Callable[[str], None],
    stopped: Callable[[], bool],
    *,
    paced: bool = True,
) -> None:
    """Serve on HOST:PORT (port 0 picks one), one client at a time, until stopped or unplugged."""
    try:
        listener = socket.create_server(address)
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {address[0]}:{address[1]} ({error.strerror}).", "Choose another port."
        ) from error
    with listener, contextlib.suppress(UnpluggedError):
        listener.settimeout(0.1)
        announce("{}:{}".format(*listener.getsockname()[:2]))
        pump = _Pump(device, paced=paced)
        while not stopped():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            with client:
                client.setblocking(False)
                pump.outbox.clear()
                while not stopped() and pump.tick(client.fileno()):
                    pass
