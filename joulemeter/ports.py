"""Meters on serial ports: which ports may be one, and which one the user meant."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import Found, UsbId


def listed(ports: Iterable[Any] | None) -> list[Any]:
    """`ports` as pyserial's list_ports gives them; asked of the system if None."""
    if ports is None:
        from serial.tools import list_ports

        ports = list_ports.comports()
    return list(ports)


def discover(
    key: str, ids: Sequence[UsbId], describe: Callable[[Any], str], ports: Iterable[Any] | None = None
) -> list[Found]:
    """Ports with one of these USB ids, ordered by address; `describe` says what is at one."""
    known = {(usb.vendor, usb.product) for usb in ids}
    fitting = [port for port in listed(ports) if (port.vid, port.pid) in known]
    return [found(key, port, describe(port)) for port in sorted(fitting, key=lambda port: str(port.device))]


def found(key: str, port: Any, description: str) -> Found:
    """A port, and what stands in the way of opening it."""
    problem = remedy = None
    if os.name == "posix" and not os.access(port.device, os.R_OK | os.W_OK):
        problem = f"No permission to open {port.device}."
        remedy = "`joulemeter doctor` prints the udev rule or the group that is missing."
    return Found(
        key=key,
        address=port.device,
        description=description,
        serial=port.serial_number,
        problem=problem,
        remedy=remedy,
    )


def choose(address: str, units: Sequence[Found], name: str, connect: str) -> Found | None:
    """The unit meant by "" (the only one), an address or a serial number; None if `address` is none of them.

    `name` is what the meter is called, without an article, and `connect` what to do where there is none.
    Raises NotFoundError, UsageError.
    """
    if address:
        return next((unit for unit in units if address in (unit.serial, unit.address)), None)
    ready = [unit for unit in units if unit.problem is None]
    if len(ready) == 1:
        return ready[0]
    if ready:
        there = ", ".join(f"{unit.address} ({unit.description}, serial {unit.serial or 'unknown'})" for unit in ready)
        raise UsageError(f"More than one {name} may be meant.", f"Name one: {there}.")
    if units:
        raise NotFoundError(f"No {name} can be opened. {units[0].problem}", units[0].remedy or "")
    raise NotFoundError(f"No {name} is connected.", connect)
