"""Bytes over TCP: a simulator, a serial server, or an instrument with a raw socket."""

from __future__ import annotations

import contextlib
import socket
import time

from joulemeter.errors import IncompleteError, NotFoundError

CONNECT_S = 5.0
# Reading what has gathered for so long costs far less than reading each packet as it comes.
GATHER_S = 0.004


class TcpLink:
    """`address` is HOST:PORT."""

    def __init__(self, address: str) -> None:
        """Raises NotFoundError."""
        self.address = address
        host, _, port = address.rpartition(":")
        try:
            self._socket = socket.create_connection((host, int(port)), timeout=CONNECT_S)
        except (OSError, OverflowError) as error:
            raise NotFoundError(
                f"Nothing answers at {address} ({error}).", "Start the simulator, or check host and port."
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self, timeout_s: float) -> bytes:
        try:
            self._socket.settimeout(max(timeout_s, 1e-3))
            first = self._socket.recv(65536)
            if first:
                time.sleep(min(GATHER_S, timeout_s))
                self._socket.settimeout(0)
                with contextlib.suppress(BlockingIOError):
                    return first + self._socket.recv(1 << 20)
                return first
        except TimeoutError:
            return b""
        except OSError as error:
            raise self._lost() from error
        raise self._lost()

    def _lost(self) -> IncompleteError:
        return IncompleteError(
            f"The connection to {self.address} was lost while reading.",
            "Check the other end; what had arrived is kept.",
        )

    def write(self, data: bytes) -> None:
        try:
            self._socket.settimeout(2.0)
            self._socket.sendall(data)
        except OSError as error:
            raise IncompleteError(f"{self.address} no longer takes commands.", "Check the other end.") from error

    def close(self) -> None:
        self._socket.close()
