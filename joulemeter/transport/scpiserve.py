"""A simulated bench instrument on the wires of real ones, for any client: raw TCP, VXI-11, HiSLIP and VICP at once.

Unlike transport.serve, nothing is dropped when the client is slow: an instrument keeps its reply until it is read.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from joulemeter.errors import UsageError
from joulemeter.instrument import Device
from joulemeter.transport import UnpluggedError, scpifaces
from joulemeter.transport.scpifaces import Connection, Desk

_TICK_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Face:
    """One way to reach the device: `kind` is a key of KINDS; port 0 picks a free one."""

    kind: str
    host: str = "127.0.0.1"
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    connection: type[Connection]
    address: str


KINDS: Mapping[str, _Kind] = {
    "socket": _Kind(connection=scpifaces.Raw, address="TCPIP::{host}::{port}::SOCKET"),
    "vxi11": _Kind(connection=scpifaces.Vxi11, address="TCPIP::{host},{port}::inst0::INSTR"),
    "hislip": _Kind(connection=scpifaces.Hislip, address="TCPIP::{host}::hislip0,{port}::INSTR"),
    "vicp": _Kind(connection=scpifaces.Vicp, address="vicp:{host}:{port}"),
    # Where clients look for VXI-11 that are not told a port; it has to be on port 111.
    "portmapper": _Kind(connection=scpifaces.Portmapper, address="{host}:{port}"),
}


def serve_scpi(
    device: Device,
    faces: Sequence[Face],
    announce: Callable[[dict[str, str]], None],
    stopped: Callable[[], bool],
    *,
    started_s: float | None = None,
) -> None:
    """Serves until stopped, or until the device raises UnpluggedError: what it sent before that still goes out.

    `announce` is given the address at which each kind of face is reached; `started_s` is time.monotonic() when it was
    plugged in. Raises UsageError.
    """
    with contextlib.ExitStack() as held:
        selector = held.enter_context(selectors.DefaultSelector())
        desk = Desk(device, started_s)
        addresses: dict[str, str] = {}
        for face in faces:
            listener = held.enter_context(_listen(face))
            listener.setblocking(False)
            port = listener.getsockname()[1]
            selector.register(listener, selectors.EVENT_READ, KINDS[face.kind].connection)
            addresses[face.kind] = KINDS[face.kind].address.format(host=face.host, port=port)
            if face.kind == "vxi11":
                desk.vxi11_port = port
        announce(addresses)
        connections: list[Connection] = []
        try:
            while not stopped():
                for key, _ in selector.select(_TICK_S):
                    if isinstance(key.data, Connection):
                        key.data.arrived()
                    else:
                        listener = key.fileobj  # type: ignore[assignment]
                        with contextlib.suppress(OSError):
                            made = key.data(listener.accept()[0], desk)
                            connections.append(made)
                            selector.register(made.socket, selectors.EVENT_READ, made)
                desk.gather()
                for one in list(connections):
                    one.turn()
                    if one.gone:
                        connections.remove(one)
                        selector.unregister(one.socket)
                        one.close()
                    else:
                        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if one.outbox else 0)
                        if selector.get_key(one.socket).events != events:
                            selector.modify(one.socket, events, one)
        except UnpluggedError:
            for one in connections:
                one.finish()
        finally:
            for one in connections:
                one.close()


@contextlib.contextmanager
def serving(device: Device, *kinds: str | Face) -> Iterator[dict[str, str]]:
    """`device` served in a thread on free ports of the loopback interface; the address of each kind of face."""
    stop, ready = threading.Event(), threading.Event()
    addresses: dict[str, str] = {}
    faces = [Face(kind=kind) if isinstance(kind, str) else kind for kind in kinds]
    failed: list[UsageError] = []

    def announce(where: dict[str, str]) -> None:
        addresses.update(where)
        ready.set()

    def run() -> None:
        try:
            serve_scpi(device, faces, announce, stop.is_set)
        except UsageError as error:
            failed.append(error)
            ready.set()

    server = threading.Thread(target=run, daemon=True)
    server.start()
    try:
        ready.wait(5)
        if failed:
            raise failed[0]
        yield addresses
    finally:
        stop.set()
        server.join(5)


def _listen(face: Face) -> socket.socket:
    if face.kind not in KINDS:
        raise UsageError(f"There is no face {face.kind!r}.", f"Choose one of: {', '.join(KINDS)}.")
    try:
        return socket.create_server((face.host, face.port))
    except OSError as error:
        raise UsageError(
            f"Cannot listen on {face.host}:{face.port} ({error.strerror}).", "Choose another port."
        ) from error
