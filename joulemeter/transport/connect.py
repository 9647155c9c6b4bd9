"""From what the user typed to a link."""

from __future__ import annotations

from joulemeter.transport import Link
from joulemeter.transport.serial import SerialLink
from joulemeter.transport.tcp import TcpLink


def connect(address: str, baud: int = 115200) -> Link:
    """HOST:PORT (with or without tcp:// before it) by TCP, everything else as a serial port.

    Raises NotFoundError, AccessError.
    """
    plain = address.removeprefix("tcp://")
    host, colon, port = plain.rpartition(":")
    if colon and port.isdigit() and host and "/" not in host:
        return TcpLink(plain)
    return SerialLink(address, baud)
