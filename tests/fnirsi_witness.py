"""Runs baryluk/fnirsi-usb-power-data-logger's program with a `usb` package that speaks to HOST:PORT.

fnirsi_witness.py fnirsi_logger.py HOST:PORT VENDOR PRODUCT SECONDS
"""

from __future__ import annotations

import importlib.util
import runpy
import socket
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

program, address, vendor, product, seconds = sys.argv[1:]
host, _, port = address.rpartition(":")
link = socket.create_connection((host, int(port)))
ends = time.monotonic() + float(seconds)


class USBTimeoutError(Exception):
    pass


class Endpoint:
    def __init__(self, address: int) -> None:
        self.bEndpointAddress = address

    def write(self, data: bytes) -> None:
        link.sendall(data)

    def read(self, size_or_buffer: int, timeout: int) -> bytes:
        if time.monotonic() > ends and threading.current_thread() is threading.main_thread() and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        link.settimeout(timeout / 1000)
        data = b""
        try:
            while len(data) < size_or_buffer:
                data += link.recv(size_or_buffer - len(data))
        except TimeoutError:
            raise USBTimeoutError from None
        return data


class Interface(list[Endpoint]):
    def __init__(self, endpoints: list[Endpoint]) -> None:
        super().__init__(endpoints)
        self.bInterfaceClass, self.bInterfaceNumber, self.bAlternateSetting = 3, 0, 0


class Device:
    def __init__(self) -> None:
        self.interface = Interface([Endpoint(0x83), Endpoint(0x03)])

    def __iter__(self) -> Any:
        return iter([[self.interface]])

    def get_active_configuration(self) -> dict[tuple[int, int], Interface]:
        return {(0, 0): self.interface}

    def is_kernel_driver_active(self, number: int) -> bool:
        return False

    def reset(self) -> None:
        pass

    def set_configuration(self) -> None:
        pass


stopped: list[bool] = []
usb, core, util = (types.ModuleType(name) for name in ("usb", "usb.core", "usb.util"))
sys.modules |= {"usb": usb, "usb.core": core, "usb.util": util}
vars(usb).update(core=core, util=util)
vars(core).update(
    USBError=Exception,
    USBTimeoutError=USBTimeoutError,
    find=lambda idVendor, idProduct: (  # noqa: N803 -- pyusb's names
        Device() if (idVendor, idProduct) == (int(vendor), int(product)) else None
    ),
)
vars(util).update(
    ENDPOINT_OUT=0,
    ENDPOINT_IN=0x80,
    endpoint_direction=lambda address: address & 0x80,
    find_descriptor=lambda interface, custom_match: next(filter(custom_match, interface), None),
)
has_crc = importlib.util.find_spec("crc") is not None
sys.argv = [program, "--crc", "true" if has_crc else "false"]
sys.path.insert(0, str(Path(program).parent))
runpy.run_path(program, run_name="__main__")
