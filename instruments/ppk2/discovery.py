"""Which PPK2s are on USB. Firmware 1.2.0 and later shows two ports; samples come from the lower interface."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from joulemeter import ports
from joulemeter.instrument import Found

NAME = "PPK2"
CONNECT = "Connect its USB port marked USB DATA/POWER and switch it on, or give its port."
VENDOR = 0x1915
PRODUCT = 0xC00A
# Nordic's application lists these beside the PPK2's own; they are shown, not opened.
OTHER_PRODUCTS = (0x520F, 0x521F)


def discover(key: str, listed: Iterable[Any] | None = None) -> list[Found]:
    """`listed` as pyserial's list_ports gives them; asked of the system if None. Ordered by address."""
    units: dict[tuple[int, str], list[Any]] = {}
    for port in ports.listed(listed):
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
    unit = ports.found(key, port, port.product or NAME)
    if port.pid == PRODUCT:
        return unit
    return replace(
        unit,
        problem=f"It shows USB id {port.vid:04X}:{port.pid:04X}, not that of a PPK2 ready to measure.",
        remedy="If it is a PPK2, open it once in Nordic's Power Profiler application, which loads its firmware.",
    )


def port_of(address: str, found: list[Found]) -> Found | None:
    """The unit meant; see `ports.choose`. Raises NotFoundError, UsageError."""
    return ports.choose(address, found, NAME, CONNECT)
