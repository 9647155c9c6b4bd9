"""Which TC66s are on USB.

Their vendor id is that of the microcontroller's maker, whose other customers use it as well: the maker's name tells.
Which product id they have is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from joulemeter import ports as serial_ports
from joulemeter.instrument import Found

# GigaDevice's id and Ruideng's name, as fqueze/usb-power-profiling finds the meter.
VENDOR, MAKER = 0x28E9, "ruideng"
CONNECT = (
    "Connect the micro-USB socket at its side to this computer, or give the serial port: tc66@/dev/ttyACM0. Its "
    "Bluetooth is not used."
)


def discover(key: str, ports: Iterable[Any] | None = None) -> list[Found]:
    """`ports` as pyserial's list_ports gives them; asked of the system if None."""
    fitting = [port for port in serial_ports.listed(ports) if port.vid == VENDOR and _named(port)]
    return [
        serial_ports.found(key, port, port.product or "RDTech TC66")
        for port in sorted(fitting, key=lambda port: str(port.device))
    ]


def _named(port: Any) -> bool:
    return MAKER in (port.manufacturer or "").lower()
