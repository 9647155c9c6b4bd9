"""From a resource string to a session, and the instruments that can be found.

192.168.1.5:5025, tcp://HOST:PORT, TCPIP::HOST::PORT::SOCKET    raw TCP, read past pyvisa (see visa_wires)
vicp:HOST[:PORT], VICP::HOST[,PORT]::INSTR                      LeCroy VICP
/dev/ttyUSB0, COM3, ASRL/dev/ttyUSB0::INSTR                     serial, by pyserial
TCPIP::HOST[,PORT]::INSTR, TCPIP::HOST::hislip0::INSTR, USB::..., GPIB::...   through pyvisa
192.168.1.5                                                     as the instrument's driver says
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from joulemeter.errors import AccessError, JouleMeterError, UsageError
from joulemeter.instrument import Found
from joulemeter.scpi import Identity, Scpi
from joulemeter.transport import visa_library
from joulemeter.transport.serial import SerialLink
from joulemeter.transport.visa_library import LibrarySession
from joulemeter.transport.visa_wires import CONNECT_S, VICP_PORT, LinkSession, Session, SocketSession, VicpSession

__all__ = ["DISCOVERY_S", "LinkSession", "Session", "discover", "open_session"]

DISCOVERY_S = 3.0
_ANSWER_S = 1.0
# Drivers look one after the other; what one has found holds for the next.
_FRESH_S = 10.0

_HOST = r"\[[0-9A-Fa-f:.]+\]|[^:,/\s]+"
_SOCKET = re.compile(rf"(?:tcp://)?({_HOST}):(\d+)|TCPIP\d*::({_HOST})::(\d+)::SOCKET", re.IGNORECASE)
_VICP = re.compile(rf"vicp:({_HOST})(?::(\d+))?|VICP\d*::({_HOST})(?:,(\d+))?(?:::INSTR)?", re.IGNORECASE)
_SERIAL = re.compile(r"(?:ASRL)?(/[^:]+|COM\d+)(?:::INSTR)?", re.IGNORECASE)
_BARE = re.compile(_HOST)


def open_session(
    address: str, *, baud: int = 115200, timeout_s: float = CONNECT_S, bare: str = "TCPIP::{}::INSTR"
) -> Session:
    """A session to the instrument, not yet asked anything.

    `bare` is where an address of only a host leads, such as "{}:5555"; `timeout_s` is for making the connection.
    Raises NotFoundError, AccessError, MissingExtraError, UsageError.
    """
    address = address.strip()
    if match := _VICP.fullmatch(address):
        host, port = match[1] or match[3], match[2] or match[4]
        return VicpSession(address, host.strip("[]"), int(port or VICP_PORT), timeout_s)
    if match := _SOCKET.fullmatch(address):
        host, port = match[1] or match[3], match[2] or match[4]
        return SocketSession(address, host.strip("[]"), int(port), timeout_s)
    if match := _SERIAL.fullmatch(address):
        return LinkSession(SerialLink(match[1], baud))
    if "::" in address:
        return LibrarySession(address, timeout_s)
    if _BARE.fullmatch(address):
        return open_session(bare.format(address), baud=baud, timeout_s=timeout_s)
    raise UsageError(
        f"{address!r} is not an address of an instrument.",
        "Write HOST, HOST:PORT, vicp:HOST, a serial port, or a VISA resource such as TCPIP::HOST::INSTR.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is at a resource: who it says it is, or why it cannot be asked."""

    address: str
    identity: Identity | None = None
    error: JouleMeterError | None = None


_seen: tuple[float, tuple[Seen, ...]] = (-_FRESH_S, ())
_one_at_a_time = threading.Lock()


def look(limit_s: float = DISCOVERY_S) -> tuple[Seen, ...]:
    """Everything that a VISA library lists on USB, GPIB and LAN, asked who it is, all at once and within the limit.

    What is absent, a library or a backend included, is no error.
    """
    global _seen
    with _one_at_a_time:
        when, what = _seen
        if time.monotonic() - when > _FRESH_S:
            what = _look(limit_s)
            _seen = time.monotonic(), what
    return what


def _look(limit_s: float) -> tuple[Seen, ...]:
    deadline = time.monotonic() + limit_s
    found: list[Seen] = []

    def ask(address: str) -> None:
        try:
            with Scpi(open_session(address, timeout_s=_ANSWER_S), timeout_s=_ANSWER_S, retries=0) as scpi:
                found.append(Seen(address=address, identity=scpi.identify()))
        except JouleMeterError as error:
            found.append(Seen(address=address, error=error))

    threads = [threading.Thread(target=ask, args=(address,), daemon=True) for address in visa_library.listed(limit_s)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(deadline + 2 * _ANSWER_S - time.monotonic(), 0.0))
    return tuple(sorted(found, key=lambda one: one.address))


def discover(key: str, fits: Callable[[Identity], bool], vendors: Sequence[int] = ()) -> list[Found]:
    """The instruments that say who they are and fit.

    Those on USB that may not be opened cannot say it: they are listed if their maker is one of `vendors` (USB ids).
    """
    found = []
    for one in look():
        if one.identity is not None and fits(one.identity):
            name = f"{one.identity.maker} {one.identity.model}"
            found.append(Found(key=key, address=one.address, description=name, serial=one.identity.serial))
        elif isinstance(one.error, AccessError) and _usb_vendor(one.address) in vendors:
            found.append(
                Found(
                    key=key,
                    address=one.address,
                    description="an instrument that does not say which",
                    problem=one.error.what,
                    remedy=one.error.remedy,
                )
            )
    return found


def _usb_vendor(address: str) -> int | None:
    match = re.match(r"USB\d*::(0x[0-9A-F]+|\d+)::", address, re.IGNORECASE)
    return int(match[1], 0) if match else None
