"""Which PPK2s are on USB. Firmware 1.2.0 and later shows two ports; samples come from the lower interface."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any

from joulemeter.errors import NotFoundError, UsageError
from joulemeter.instrument import Found

VENDOR = 0x1915
PRODUCT = 0xC00A
# Nordic's application lists these beside the PPK2's own; they are shown, not opened.
OTHER_PRODUCTS = (0x520F, 0x521F)


def discover(key: str, ports: Iterable[Any] | None = None) -> list[Found]:
    """`ports` as pyserial's list_ports gives them; asked of the system if None. Ordered by address."""
    if ports is None:
        from serial.tools import list_ports

        ports = list_ports.comports()
    units: dict[tuple[int, str], list[Any]] = {}
    for port in ports:
        if port.vid == VENDOR and port.pid in (PRODUCT, *OTHER_PRODUCTS):
            unit = port.serial_number or (port.location or port.device).partition(":")[0]
            units.setdefault((port.pid, unit), []).append(port)
    found = [_found(key, min(group, key=_interface)) for group in units.values()]
    return sorted(found, key=lambda unit: unit.address)


def _interface(port: Any) -> tuple[int, str]:
    """pyserial's location ends in the interface number: 1-2:1.1 before 1-2:1.3."""
    number = re.search(r"\.(\d+)$", port.location or "")
    return (int(number[1]) if number else 0, port.device)


def _found(key: str, port: Any) -> Found:
    problem = remedy = None
    if port.pid != PRODUCT:
        problem = f"It shows USB id {port.vid:04X}:{port.pid:04X}, not that of a PPK2 ready to measure."
        remedy = "If it is a PPK2, open it once in Nordic's Power Profiler application, which loads its firmware."
    elif os.name == "posix" and not os.access(port.device, os.R_OK | os.W_OK):
        problem = f"No permission to open {port.device}."
        remedy = "`joulemeter doctor` prints the udev rule or the group that is missing."
    return Found(
        key=key,
        address=port.device,
        description=port.product or "PPK2",
        serial=port.serial_number,
        problem=problem,
        remedy=remedy,
    )


def port_of(address: str, found: list[Found]) -> Found | None:
    """The unit meant by "" (the only one) or by a serial number; None if `address` is neither.

    Raises NotFoundError, UsageError.
    """
    ready = [unit for unit in found if unit.problem is None]
    if address == "":
        if len(ready) == 1:
            return ready[0]
        if ready:
            listed = ", ".join(f"{unit.address} (serial {unit.serial or 'unknown'})" for unit in ready)
            raise UsageError(f"{len(ready)} PPK2s are connected.", f"Name one: {listed}.")
        if found:
            raise NotFoundError(f"No PPK2 can be opened. {found[0].problem}", found[0].remedy or "")
        raise NotFoundError(
            "No PPK2 is connected.", "Connect its USB port marked USB DATA/POWER and switch it on, or give its port."
        )
    return next((unit for unit in found if address in (unit.serial, unit.address)), None)
