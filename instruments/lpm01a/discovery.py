"""Which LPM01As are on USB. Its id is that of ST's virtual serial port, which other boards use unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from joulemeter import ports
from joulemeter.instrument import Found, UsbId

USB_ID = UsbId(vendor=0x0483, product=0x5740)
NAME = "LPM01A"
OWN_NAME = "powershield"
UNNAMED = "STM32 virtual serial port, perhaps an LPM01A"
CONNECT = "Connect its USB port; its display then shows a menu. If it is connected, give its serial port."


def discover(key: str, listed: Iterable[Any] | None = None) -> list[Found]:
    """`listed` as pyserial's list_ports gives them; asked of the system if None. Those that name themselves first."""
    units = ports.discover(key, [USB_ID], _describe, listed)
    return sorted(units, key=lambda unit: unit.description == UNNAMED)


def _describe(port: Any) -> str:
    named = OWN_NAME in (port.product or "").lower().replace(" ", "")
    return str(port.product) if named else UNNAMED


def port_of(address: str, found: list[Found]) -> Found | None:
    """The unit meant; see `ports.choose`. Raises NotFoundError, UsageError."""
    return ports.choose(address, found, NAME, CONNECT)
