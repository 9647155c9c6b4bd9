"""The instrument's side of the wires of bench instruments: raw TCP, VXI-11 with a portmapper, HiSLIP, VICP.

Sources: VXI-11 revision 1.0 (VXI-11 TCP/IP Instrument Protocol), RFC 5531 and 4506 (RPC, XDR), RFC 1833 (portmapper),
IVI-6.1 (HiSLIP), and the protocol description in LeCroy's VICP client library.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable
from typing import ClassVar

from joulemeter.instrument import Device
from joulemeter.transport.scpidevice import MessageDevice

# How much of a reply is taken from the device before the client has read the rest.
HOLD_BYTES = 1 << 20
FLUSH_S = 2.0
TURN_PIECES = 64


class Desk:
    """The device, its clock, and what it said that nobody has taken. The connection that spoke last hears it."""

    def __init__(self, device: Device, started_s: float | None = None) -> None:
        self.device = device
        self.speaker: Connection | None = None
        self.said = bytearray()
        self.ended = False
        self.vxi11_port = 0
        self._partial = False
        # A reply that was sent but, by the word of a HiSLIP client, not yet taken.
        self.untaken = False
        self._started = time.monotonic() if started_s is None else started_s

    def receive(self, speaker: Connection, data: bytes, *, end: bool | None = None) -> None:
        """A message or a part of it; its end on the wire is a line feed to the device. Raises UnpluggedError.

        `end` None: on a wire without messages. On the others a new one interrupts the unread reply to the last.
        """
        self.gather()
        if self.speaker is not speaker:
            self.clear()
            self.speaker = speaker
        elif end is not None and not self._partial and (self.said or self.status_byte() & 0x10):
            self.clear()
        self.gather()
        self._partial = end is False
        if end and not data.endswith(b"\n"):
            data += b"\n"
        if data:
            self.device.receive(data)

    def gather(self) -> None:
        """What the device says now; its time goes on whether or not somebody reads. Raises UnpluggedError."""
        while not self.ended and len(self.said) < HOLD_BYTES:
            fresh = self.device.transmit(time.monotonic() - self._started)
            if not fresh:
                return
            self.said += fresh
            # A device that does not tell ends a message with a line feed.
            self.ended = self.device.ended if isinstance(self.device, MessageDevice) else fresh.endswith(b"\n")

    def take(self, limit: int) -> tuple[bytes, bool]:
        """Up to `limit` bytes of one message, and whether they end it."""
        with memoryview(self.said) as said:
            data = bytes(said[:limit])
        del self.said[:limit]
        end = self.ended and not self.said
        if end:
            self.ended = False
        return data, end

    def clear(self) -> None:
        self.forget()
        if isinstance(self.device, MessageDevice):
            self.device.clear()

    def forget(self) -> None:
        self.said.clear()
        self.ended = self.untaken = False

    def status_byte(self) -> int:
        return self.device.status_byte() if isinstance(self.device, MessageDevice) else 0x10 * bool(self.said)

    def left(self, speaker: Connection) -> None:
        """The host has gone, which the device is told as no bytes."""
        if self.speaker is speaker:
            self.speaker = None
            self.forget()
            self.device.receive(b"")


class Connection:
    """One client. `inbox` holds what it sent, `outbox` what it has not yet taken."""

    def __init__(self, client: socket.socket, desk: Desk) -> None:
        self.socket = client
        self.desk = desk
        self.inbox = bytearray()
        self.outbox = bytearray()
        self.gone = False
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def arrived(self) -> None:
        """Called when the socket is readable or writable."""
        try:
            data = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone = True
            self.desk.left(self)
            return
        self.inbox += data
        self.heard()

    def heard(self) -> None:
        """Takes whole messages from the inbox."""
        raise NotImplementedError

    def speak(self) -> None:
        """Moves to the outbox what the client may have now."""

    def turn(self) -> None:
        """Sends what can be sent now; a device that never ends leaves the others their turn."""
        for _ in range(TURN_PIECES):
            if self.gone:
                return
            if len(self.outbox) < HOLD_BYTES:
                self.speak()
            if not self.outbox:
                return
            try:
                sent = self.socket.send(self.outbox)
            except BlockingIOError:
                return
            except OSError:
                self.gone = True
                self.desk.left(self)
                return
            del self.outbox[:sent]

    def finish(self) -> None:
        """Sends what is left, as far as the client takes it."""
        self.flush_said()
        with contextlib.suppress(OSError):
            self.socket.settimeout(FLUSH_S)
            self.socket.sendall(self.outbox)

    def flush_said(self) -> None:
        """What the device had said before it went, without an end."""

    def close(self) -> None:
        self.socket.close()

    @property
    def mine(self) -> bool:
        return self.desk.speaker is self


class Raw(Connection):
    """SOCKET: bytes, and nothing that marks an end."""

    def heard(self) -> None:
        data = bytes(self.inbox)
        self.inbox.clear()
        self.desk.receive(self, data)

    def speak(self) -> None:
        if self.mine:
            self.desk.gather()
            self.outbox += self.desk.take(HOLD_BYTES)[0]

    def flush_said(self) -> None:
        if self.mine:
            self.outbox += self.desk.take(len(self.desk.said))[0]


class Vicp(Connection):
    _DATA, _CLEAR, _POLL, _END = 0x80, 0x10, 0x04, 0x01
    # Long replies come in several blocks.
    block_bytes = 1 << 16

    def __init__(self, client: socket.socket, desk: Desk) -> None:
        super().__init__(client, desk)
        self._number = 0

    def heard(self) -> None:
        while len(self.inbox) >= 8:
            operation, version, number, _, length = struct.unpack(">BBBBI", self.inbox[:8])
            if version != 1:
                self.gone = True
                self.desk.left(self)
                return
            if len(self.inbox) < 8 + length:
                return
            data = bytes(self.inbox[8 : 8 + length])
            del self.inbox[: 8 + length]
            if operation & self._CLEAR:
                self.desk.clear()
            if operation & self._POLL:
                self._block(self._END, bytes([self.desk.status_byte()]))
            elif operation & self._DATA:
                self._number = number
                if data:
                    self.desk.receive(self, data, end=bool(operation & self._END))

    def speak(self) -> None:
        if not self.mine:
            return
        self.desk.gather()
        while self.desk.said:
            data, end = self.desk.take(self.block_bytes)
            self._block(self._END if end else 0, data)

    def flush_said(self) -> None:
        if self.mine and self.desk.said:
            self._block(0, self.desk.take(len(self.desk.said))[0])

    def _block(self, end: int, data: bytes) -> None:
        self.outbox += struct.pack(">BBBBI", self._DATA | end, 1, self._number, 0, len(data)) + data


class _Xdr:
    """Reads XDR, RFC 4506. Raises struct.error past the end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def uint(self) -> int:
        (value,) = struct.unpack_from(">I", self._data, self._at)
        self._at += 4
        return int(value)

    def opaque(self) -> bytes:
        length = self.uint()
        data = self._data[self._at : self._at + length]
        if len(data) < length:
            raise struct.error("short")
        self._at += length + -length % 4
        return data


def _opaque(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


class _Rpc(Connection):
    """ONC RPC over TCP: records of fragments, calls and their replies."""

    program: ClassVar[int]
    _LAST = 0x80000000
    _PROGRAM_UNAVAILABLE, _PROCEDURE_UNAVAILABLE, _GARBAGE = 1, 3, 4

    def __init__(self, client: socket.socket, desk: Desk) -> None:
        super().__init__(client, desk)
        self._record = bytearray()
        self._call = 0

    def procedures(self) -> dict[int, Callable[[_Xdr], bytes | None]]:
        """By number; None: the reply comes later."""
        raise NotImplementedError

    def heard(self) -> None:
        while len(self.inbox) >= 4:
            (mark,) = struct.unpack(">I", self.inbox[:4])
            length = mark & ~self._LAST
            if len(self.inbox) < 4 + length:
                return
            self._record += self.inbox[4 : 4 + length]
            del self.inbox[: 4 + length]
            if mark & self._LAST:
                record, self._record = bytes(self._record), bytearray()
                self._serve(record)

    def _serve(self, record: bytes) -> None:
        body = _Xdr(record)
        try:
            self._call, kind, version, program, _, procedure = (body.uint() for _ in range(6))
            for _ in range(2):  # credentials, verifier
                body.uint()
                body.opaque()
        except struct.error:
            self.gone = True
            self.desk.left(self)
            return
        if kind != 0 or version != 2 or program != self.program:
            self._reply(self._PROGRAM_UNAVAILABLE, b"")
            return
        if procedure == 0:
            self._reply(0, b"")
            return
        serve = self.procedures().get(procedure)
        if serve is None:
            self._reply(self._PROCEDURE_UNAVAILABLE, b"")
            return
        try:
            results = serve(body)
        except struct.error:
            self._reply(self._GARBAGE, b"")
            return
        if results is not None:
            self._reply(0, results)

    def _reply(self, status: int, results: bytes) -> None:
        # Reply, accepted, with an empty verifier.
        body = struct.pack(">IIIIII", self._call, 1, 0, 0, 0, status) + results
        self.outbox += struct.pack(">I", self._LAST | len(body)) + body


class Portmapper(_Rpc):
    """Version 2, GETPORT only: where VXI-11 is."""

    program = 100000
    _GETPORT = 3

    def procedures(self) -> dict[int, Callable[[_Xdr], bytes | None]]:
        return {self._GETPORT: self._getport}

    def _getport(self, body: _Xdr) -> bytes:
        program, _, protocol, _ = (body.uint() for _ in range(4))
        known = program == Vxi11.program and protocol == socket.IPPROTO_TCP
        return struct.pack(">I", self.desk.vxi11_port if known else 0)


class Vxi11(_Rpc):
    """The core channel. There is no abort channel, and a lock is granted to everybody."""

    program = 0x0607AF
    _NOT_SUPPORTED, _TIMEOUT, _BAD_LINK = 8, 15, 4
    _FLAG_END, _FLAG_TERMCHAR = 0x08, 0x80
    _COUNT, _CHAR, _END = 1, 2, 4
    _MOST_BYTES = 1 << 20

    def __init__(self, client: socket.socket, desk: Desk) -> None:
        super().__init__(client, desk)
        self._links: set[int] = set()
        # The read that waits for the device: most bytes, deadline, character that ends it.
        self._waiting: tuple[int, float, int | None] | None = None

    def procedures(self) -> dict[int, Callable[[_Xdr], bytes | None]]:
        return {
            10: self._create_link,
            11: self._write,
            12: self._read,
            13: self._status,
            14: self._nothing,  # trigger
            15: self._clear,
            16: self._nothing,  # remote
            17: self._nothing,  # local
            18: self._nothing,  # lock
            19: self._nothing,  # unlock
            20: self._unsupported,  # service requests
            22: self._unsupported,  # docmd
            23: self._destroy_link,
            25: self._unsupported,  # interrupt channel
            26: self._unsupported,
        }

    def _create_link(self, body: _Xdr) -> bytes:
        del body
        link = len(self._links) + 1
        self._links.add(link)
        return struct.pack(">IIII", 0, link, 0, self._MOST_BYTES)

    def _write(self, body: _Xdr) -> bytes:
        link, _, _, flags = (body.uint() for _ in range(4))
        data = body.opaque()
        if link not in self._links:
            return struct.pack(">II", self._BAD_LINK, 0)
        self.desk.receive(self, data, end=bool(flags & self._FLAG_END))
        return struct.pack(">II", 0, len(data))

    def _read(self, body: _Xdr) -> bytes | None:
        link, most, timeout_ms, _, flags, char = (body.uint() for _ in range(6))
        if link not in self._links:
            return struct.pack(">III", self._BAD_LINK, 0, 0)
        ends = char if flags & self._FLAG_TERMCHAR else None
        self._waiting = most, time.monotonic() + timeout_ms * 1e-3, ends
        return None

    def speak(self) -> None:
        if self._waiting is None:
            return
        most, deadline, char = self._waiting
        if self.mine:
            self.desk.gather()
        said = self.desk.said if self.mine else bytearray()
        most = min(most, HOLD_BYTES, self._MOST_BYTES)
        stop = -1 if char is None else said.find(char, 0, most)
        if stop >= 0:
            most = stop + 1
        if len(said) >= most or (said and self.desk.ended):
            data, end = self.desk.take(most)
            reason = self._END * end | self._CHAR * (stop >= 0) | self._COUNT * (not end and stop < 0)
            self._waiting = None
            self._reply(0, struct.pack(">II", 0, reason) + _opaque(data))
        elif time.monotonic() >= deadline:
            self._waiting = None
            self._reply(0, struct.pack(">II", self._TIMEOUT, 0) + _opaque(b""))

    def flush_said(self) -> None:
        if self._waiting is not None and self.mine and self.desk.said:
            self._reply(0, struct.pack(">II", 0, 0) + _opaque(self.desk.take(self._waiting[0])[0]))

    def _status(self, body: _Xdr) -> bytes:
        del body
        held = 0x10 * (self.mine and bool(self.desk.said))
        return struct.pack(">II", 0, self.desk.status_byte() | held)

    def _clear(self, body: _Xdr) -> bytes:
        del body
        self.desk.clear()
        return struct.pack(">I", 0)

    def _nothing(self, body: _Xdr) -> bytes:
        del body
        return struct.pack(">I", 0)

    def _unsupported(self, body: _Xdr) -> bytes:
        del body
        return struct.pack(">I", self._NOT_SUPPORTED)

    def _destroy_link(self, body: _Xdr) -> bytes:
        self._links.discard(body.uint())
        return struct.pack(">I", 0)


class Hislip(Connection):
    """Version 1.0, synchronised mode. A client has two connections, of which the second asks for status and clear."""

    _HEADER = struct.Struct(">2sBBIQ")
    _MOST_BYTES = 1 << 20
    _VENDOR = int.from_bytes(b"JM", "big")

    def __init__(self, client: socket.socket, desk: Desk) -> None:
        super().__init__(client, desk)
        self._id = 0
        self._command = bytearray()
        self._sync = True

    def heard(self) -> None:
        while len(self.inbox) >= self._HEADER.size:
            mark, kind, control, parameter, length = self._HEADER.unpack(self.inbox[: self._HEADER.size])
            if mark != b"HS":
                self.gone = True
                self.desk.left(self)
                return
            whole = self._HEADER.size + length
            if len(self.inbox) < whole:
                return
            data = bytes(self.inbox[self._HEADER.size : whole])
            del self.inbox[:whole]
            self._message(kind, control, parameter, data)

    def _message(self, kind: int, control: int, parameter: int, data: bytes) -> None:
        if kind in (6, 7, 12, 21) and control & 1:  # the client has taken the reply
            self.desk.untaken = False
        match kind:
            case 0:  # Initialize: version 1.0, session 1
                self._send(1, 0, 0x0100 << 16 | 1)
            case 17:  # AsyncInitialize
                self._sync = False
                self._send(18, 0, self._VENDOR)
            case 15:  # AsyncMaximumMessageSize
                self._send(16, 0, 0, struct.pack(">Q", self._MOST_BYTES))
            case 6 | 7:  # Data, DataEnd
                self._id = parameter
                self.desk.receive(self, data, end=kind == 7)
            case 19:  # AsyncDeviceClear
                self.desk.clear()
                self._send(23, 0, 0)
            case 8:  # DeviceClearComplete
                self._send(9, 0, 0)
            case 21:  # AsyncStatusQuery
                self._send(22, self.desk.status_byte() | 0x10 * (bool(self.desk.said) or self.desk.untaken), 0)
            case 4:  # AsyncLock
                self._send(5, 1, 0)
            case 10:  # AsyncRemoteLocalControl
                self._send(11, 0, 0)
            case 12:  # Trigger
                self._id = parameter
            case _:
                self._send(3, 1, 0)  # Error: unrecognised message type

    def speak(self) -> None:
        if not self.mine or not self._sync:
            return
        self.desk.gather()
        while self.desk.said:
            data, end = self.desk.take(1 << 18)
            self.desk.untaken = True
            self._send(7 if end else 6, 0, self._id, data)

    def flush_said(self) -> None:
        if self.mine and self.desk.said:
            self._send(6, 0, self._id, self.desk.take(len(self.desk.said))[0])

    def _send(self, kind: int, control: int, parameter: int, data: bytes = b"") -> None:
        self.outbox += self._HEADER.pack(b"HS", kind, control, parameter, len(data)) + data
