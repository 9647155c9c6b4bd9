"""Message sessions that need no VISA library: raw TCP sockets, LeCroy's VICP, and any link.

A session carries messages of SCPI text and data blocks; joulemeter.scpi gives them meaning. Raw sockets are read
straight into the caller's buffer, because the termination scan of pyvisa-py goes byte by byte.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from abc import ABC, abstractmethod

from joulemeter.errors import IncompleteError, JouleMeterError, NotFoundError
from joulemeter.transport import Link

CONNECT_S = 5.0
WRITE_S = 5.0
# An instrument needs a moment between the end of one connection and the next.
RECONNECT_S = 2.0
# A serial line has no device clear: it is idle when it was quiet for so long.
QUIET_S = 0.2
# What is thrown away at most before a device that never falls silent is given up.
DRAIN_S = 2.0
VICP_PORT = 1861
_VICP_PAUSE_S = 0.1


class Session(ABC):
    """Messages to and from one instrument.

    `address` is what the user would type to reach it again. `ends`: the wire itself marks the last byte of a reply
    (VXI-11, HiSLIP, USBTMC, GPIB, VICP); otherwise a line feed or a count does.
    """

    address: str
    ends: bool

    @abstractmethod
    def write(self, message: bytes) -> None:
        """One message, its line feed included. Raises IncompleteError."""

    @abstractmethod
    def read_into(self, buffer: memoryview, timeout_s: float) -> tuple[int, bool]:
        """The next bytes of a reply: how many, and whether its end is among them. (0, False) after the timeout.

        Raises IncompleteError when the connection is gone.
        """

    @abstractmethod
    def clear(self) -> None:
        """Device clear: whatever the instrument was about to say is forgotten. Raises IncompleteError."""

    def discard(self) -> int:
        """Throws away what has arrived although nobody asked, without waiting; how many bytes."""
        return 0

    def status_byte(self) -> int | None:
        """The IEEE 488.2 status byte by serial poll; None where the wire has none."""
        return None

    @abstractmethod
    def close(self) -> None:
        """May be called twice and after a failure."""

    def _lost(self, how: str) -> IncompleteError:
        return IncompleteError(
            f"The connection to {self.address} {how}.", "Check cable and instrument; what had arrived is kept."
        )


class SocketSession(Session):
    """Raw TCP, such as port 5025 or 5555. Its device clear is a new connection: no late reply can follow it."""

    ends = False

    def __init__(self, address: str, host: str, port: int, timeout_s: float = CONNECT_S) -> None:
        """Raises NotFoundError."""
        self.address = address
        self._where = host, port
        try:
            self._socket = self._connect(timeout_s)
        except (OSError, OverflowError, UnicodeError) as error:
            raise NotFoundError(
                f"Nothing answers at {address} ({error}).",
                "Check host and port, and that the instrument allows remote control over LAN.",
            ) from error

    def _connect(self, timeout_s: float) -> socket.socket:
        made = socket.create_connection(self._where, timeout=timeout_s)
        # Small writes in a row would wait for each other's acknowledgement, 40 ms each.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def write(self, message: bytes) -> None:
        try:
            self._socket.settimeout(WRITE_S)
            self._socket.sendall(message)
        except OSError as error:
            raise self._lost("no longer takes commands") from error

    def read_into(self, buffer: memoryview, timeout_s: float) -> tuple[int, bool]:
        return self._receive(buffer, timeout_s), False

    def _receive(self, buffer: memoryview, timeout_s: float) -> int:
        try:
            self._socket.settimeout(max(timeout_s, 1e-3))
            count = self._socket.recv_into(buffer)
        except TimeoutError:
            return 0
        except OSError as error:
            raise self._lost("was lost while reading") from error
        if not count:
            raise self._lost("was closed by the other end")
        return count

    def discard(self) -> int:
        thrown = 0
        scratch = bytearray(1 << 16)
        deadline = time.monotonic() + DRAIN_S
        try:
            self._socket.settimeout(0)
            while (count := self._socket.recv_into(scratch)) and time.monotonic() < deadline:
                thrown += count
        except BlockingIOError:
            return thrown
        except OSError as error:
            raise self._lost("was lost") from error
        if count:
            raise self._lost("never falls silent")
        raise self._lost("was closed by the other end")

    def clear(self) -> None:
        self.close()
        deadline = time.monotonic() + RECONNECT_S
        while True:
            try:
                self._socket = self._connect(RECONNECT_S)
                return
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise self._lost(f"could not be made again ({error})") from error
                time.sleep(0.1)

    def close(self) -> None:
        self._socket.close()


class VicpSession(SocketSession):
    """LeCroy's Versatile Instrument Control Protocol, TCP port 1861.

    Each block has a header of eight bytes: operation, version 1, sequence number (1 to 255; 0 from firmware before
    2003), reserved, length as big-endian uint32. Bits of the operation: 0x80 data, 0x10 device clear, 0x08 service
    request, 0x01 end. A reply carries the sequence number of its query, so that a late one is told from the right one.
    Source: the protocol description in LeCroy's VICP client library.
    """

    ends = True
    _DATA, _REMOTE, _CLEAR, _SRQ, _END = 0x80, 0x40, 0x10, 0x08, 0x01

    def __init__(self, address: str, host: str, port: int = VICP_PORT, timeout_s: float = CONNECT_S) -> None:
        super().__init__(address, host, port, timeout_s)
        self._last = 0
        self._numbered = False
        self._begin()

    def _begin(self) -> None:
        self._head = bytearray()
        self._left = 0
        self._skip = self._final = self._counted = self._open = False

    def write(self, message: bytes) -> None:
        self._last = self._last % 255 + 1
        self._open = False
        # What is left of an older reply.
        self._skip |= self._left > 0
        operation = self._DATA | self._REMOTE | self._END
        super().write(struct.pack(">BBBBI", operation, 1, self._last, 0, len(message)) + message)

    def read_into(self, buffer: memoryview, timeout_s: float) -> tuple[int, bool]:
        deadline = time.monotonic() + timeout_s
        scratch = memoryview(bytearray(1 << 16))
        while True:
            if not self._left:
                if not self._header(deadline):
                    return 0, False
                if self._left or self._skip:
                    continue
            room = scratch if self._skip else buffer
            count = self._receive(room[: self._left], deadline - time.monotonic()) if self._left else 0
            if self._left and not count:
                return 0, False
            self._left -= count
            if self._skip:
                continue
            ended = self._final and not self._left
            # Old firmware sends an empty block or a line feed of its own after a reply; without a number it cannot be
            # told from one.
            if ended and not self._open and not self._counted and bytes(buffer[:count]) in (b"", b"\n"):
                continue
            self._open = not ended
            if count or ended:
                return count, ended

    def _header(self, deadline: float) -> bool:
        """Reads the header of the next block; False if it is not there in time."""
        room = memoryview(bytearray(8))
        while len(self._head) < 8:
            count = self._receive(room[: 8 - len(self._head)], deadline - time.monotonic())
            if not count:
                return False
            self._head += room[:count]
        operation, version, number, _, length = struct.unpack(">BBBBI", self._head)
        if version != 1 or not operation & (self._DATA | self._SRQ):
            raise IncompleteError(
                f"{self.address} sends what is not VICP ({self._head.hex(' ')}).",
                "Check that the oscilloscope's remote control is set to TCPIP (VICP).",
            )
        self._head.clear()
        self._left, self._final, self._counted = length, bool(operation & self._END), number != 0
        self._numbered |= self._counted
        self._skip = not operation & self._DATA or bool(operation & self._SRQ) or number not in (0, self._last)
        return True

    def discard(self) -> int:
        """The sequence number tells what is old."""
        return 0

    def clear(self) -> None:
        """Numbers tell old replies from new; a new connection is made only without them or in the middle of a block."""
        with contextlib.suppress(JouleMeterError):
            self._last = self._last % 255 + 1
            super().write(struct.pack(">BBBBI", self._DATA | self._CLEAR | self._END, 1, self._last, 0, 0))
            if self._numbered and not self._left and not self._head:
                return
        # As LeCroy's own client does, because of a bug of some oscilloscopes that it calls RebootScope.
        time.sleep(_VICP_PAUSE_S)
        super().clear()
        self._begin()


class LinkSession(Session):
    """Messages on any link: serial ports and simulated devices. There is no device clear: it waits for silence."""

    ends = False

    def __init__(self, link: Link) -> None:
        self.address = link.address
        self._link = link
        self._ready = bytearray()

    def write(self, message: bytes) -> None:
        self._link.write(message)

    def read_into(self, buffer: memoryview, timeout_s: float) -> tuple[int, bool]:
        deadline = time.monotonic() + timeout_s
        while not self._ready and (left := deadline - time.monotonic()) > 0:
            # A link in this process is not paced by a wire: short waits keep its clock close to ours.
            self._ready += self._link.read(min(left, 0.02))
        count = min(len(self._ready), len(buffer))
        buffer[:count] = self._ready[:count]
        del self._ready[:count]
        return count, False

    def discard(self) -> int:
        thrown = len(self._ready)
        self._ready.clear()
        return thrown

    def clear(self) -> None:
        now = time.monotonic()
        deadline, quiet = now + DRAIN_S, now + QUIET_S
        while (now := time.monotonic()) < quiet:
            if now > deadline:
                raise self._lost("never falls silent")
            if self._link.read(QUIET_S / 4):
                quiet = time.monotonic() + QUIET_S
        self._ready.clear()

    def close(self) -> None:
        self._link.close()
