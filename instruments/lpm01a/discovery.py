"""Which LPM01As are on USB. Its id is that of ST's virtual serial port, which other boards use unchanged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import Found

VENDOR, PRODUCT = 0x0483, 0x5740
OWN_NAME = "powershield"
CONNECT = "Connect its USB port; its display then shows a menu. If it is connected, give its serial port."


def discover(key: str, ports: Iterable[Any] | None = None) -> list[Found]:
    """`ports` as pyserial's list_ports gives them; asked of the system if None. Those that name themselves first."""
    if ports is None:
        from serial.tools import list_ports

        ports = list_ports.comports()
    fitting = [port for port in ports if (port.vid, port.pid) == (VENDOR, PRODUCT)]
    return [_found(key, port) for port in sorted(fitting, key=lambda port: (not _named(port), port.device))]


def _named(port: Any) -> bool:
    return OWN_NAME in (port.product or "").lower().replace(" ", "")


def _found(key: str, port: Any) -> Found:
    problem = remedy = None
    if os.name == "posix" and not os.access(port.device, os.R_OK | os.W_OK):
        problem = f"No permission to open {port.device}."
        remedy = "`joulemeter doctor` prints the udev rule or the group that is missing."
    return Found(
        key=key,
        address=port.device,
        description=port.product if _named(port) else "STM32 virtual serial port, perhaps an LPM01A",
        serial=port.serial_number,
        problem=problem,
        remedy=remedy,
    )


def port_of(address: str, found: list[Found]) -> Found | None:
    """The unit meant by "" (the only one) or by a serial number; None if `address` is neither.

    Raises NotFoundError, UsageError.
    """
    if address:
        return next((unit for unit in found if address in (unit.serial, unit.address)), None)
    ready = [unit for unit in found if unit.problem is None]
    if len(ready) == 1:
        return ready[0]
    if ready:
        listed = ", ".join(f"{unit.address} ({unit.description}, serial {unit.serial or 'unknown'})" for unit in ready)
        raise UsageError(f"{len(ready)} ports may be an LPM01A.", f"Name one: {listed}.")
    if found:
        raise NotFoundError(f"No LPM01A can be opened. {found[0].problem}", found[0].remedy or "")
    raise NotFoundError("No LPM01A is connected.", CONNECT)
