"""USB bulk endpoints through pyusb: meters that show no port of their own.

An address is `usb:BUS-PORT`, such as usb:1-1.3, which is what Linux calls the device; it stays the same as long as the
meter is in the same socket. Devices are found without pyusb on Linux, so that a missing package can be told.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joulemeter.errors import AccessError, IncompleteError, JouleMeterError, MissingExtraError, NotFoundError
from joulemeter.instrument import Found, UsbId

PREFIX = "usb:"
PACKAGE = "joulemeter[usb]"
SYSFS = Path("/sys/bus/usb/devices")
NODES = Path("/dev/bus/usb")
RULES = "/etc/udev/rules.d/60-joulemeter.rules"
# A whole number of packets of any speed; a transfer ends with a packet that is not full, long before.
READ_BYTES = 1 << 14
WRITE_S = 2.0


def udev_rule(ids: Sequence[UsbId]) -> str:
    """The lines that let whoever sits at the machine open these devices."""
    return "\n".join(
        f'SUBSYSTEMS=="usb", ATTRS{{idVendor}}=="{usb.vendor:04x}", ATTRS{{idProduct}}=="{usb.product:04x}", '
        'MODE="0660", TAG+="uaccess"'
        for usb in ids
    )


def permission_remedy(ids: Sequence[UsbId]) -> str:
    return (
        f"Write to {RULES}:\n{udev_rule(ids)}\nthen run: sudo udevadm control --reload && sudo udevadm trigger\n"
        "and plug it in again."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """A device as the system lists it. `node` is the file to open it by, None where there is none."""

    address: str
    usb: UsbId
    product: str | None = None
    serial: str | None = None
    node: Path | None = None


def units(ids: Sequence[UsbId], root: Path = SYSFS, nodes: Path = NODES) -> list[Unit]:
    """What is plugged in, ordered by address. Never raises for absence."""
    found = _listed_by_linux(root, nodes) if root.is_dir() else _listed_by_pyusb()
    return sorted((unit for unit in found if unit.usb in ids), key=lambda unit: unit.address)


def discover(
    key: str, ids: Sequence[UsbId], names: dict[UsbId, str], root: Path = SYSFS, nodes: Path = NODES
) -> list[Found]:
    """`units`, with what stands in the way of opening each. `names` are used where a device does not say its own."""
    missing = importlib.util.find_spec("usb") is None
    found = []
    for unit in units(ids, root, nodes):
        problem = remedy = None
        if missing:
            problem, remedy = "pyusb is not installed.", f"pip install '{PACKAGE}'"
        elif unit.node is not None and not os.access(unit.node, os.R_OK | os.W_OK):
            problem, remedy = f"No permission to open {unit.node}.", permission_remedy([unit.usb])
        found.append(
            Found(
                key=key,
                address=unit.address,
                description=unit.product or names[unit.usb],
                serial=unit.serial,
                problem=problem,
                remedy=remedy,
            )
        )
    return found


def _listed_by_linux(root: Path, nodes: Path) -> Iterator[Unit]:
    for folder in root.iterdir():
        said = {name: _said(folder / name) for name in ("idVendor", "idProduct", "busnum", "devnum")}
        if None in said.values():
            continue  # an interface, or a device that has just gone
        vendor, product, bus, number = (value or "" for value in said.values())
        yield Unit(
            address=PREFIX + folder.name,
            usb=UsbId(vendor=int(vendor, 16), product=int(product, 16)),
            product=_said(folder / "product"),
            serial=_said(folder / "serial"),
            node=nodes / f"{int(bus):03d}" / f"{int(number):03d}",
        )


def _said(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None


def _listed_by_pyusb() -> list[Unit]:
    if importlib.util.find_spec("usb") is None:
        return []
    try:
        devices = list(importlib.import_module("usb.core").find(find_all=True))
    except (ValueError, OSError):  # no libusb, or it cannot start
        return []
    return [
        Unit(address=_address(device), usb=UsbId(vendor=device.idVendor, product=device.idProduct))
        for device in devices
    ]


def _address(device: Any) -> str:
    """As Linux would call it; by its number where the system does not tell the sockets."""
    if ports := device.port_numbers:
        return f"{PREFIX}{device.bus}-{'.'.join(map(str, ports))}"
    return f"{PREFIX}{device.bus}/{device.address}"


class UsbLink:
    """Two bulk endpoints of one interface. A driver of the kernel's is taken off for as long as the link is open."""

    def __init__(
        self,
        address: str,
        ids: Sequence[UsbId],
        *,
        interface: int,
        endpoint_out: int,
        endpoint_in: int,
        backend: Any = None,
    ) -> None:
        """`backend` is pyusb's; None: the one it finds. Raises MissingExtraError, NotFoundError, AccessError."""
        self.address = address
        self._interface, self._out, self._in = interface, endpoint_out, endpoint_in
        self._core, self._util = _pyusb()
        self._device = self._find(ids, backend)
        self.usb = UsbId(vendor=self._device.idVendor, product=self._device.idProduct)
        self._detached = False
        self._open = True
        try:
            self._claim()
        except (OSError, NotImplementedError) as error:
            self.close()
            raise self._explain(error) from error

    def _find(self, ids: Sequence[UsbId], backend: Any) -> Any:
        wanted = {(usb.vendor, usb.product) for usb in ids}
        try:
            devices = list(self._core.find(find_all=True, backend=backend))
        except ValueError as error:  # pyusb's NoBackendError
            raise NotFoundError(
                "pyusb finds no libusb on this machine.",
                "Install libusb 1.0 (Debian: libusb-1.0-0; macOS: brew install libusb; Windows: pip install "
                "libusb-package).",
            ) from error
        for device in devices:
            if (device.idVendor, device.idProduct) in wanted and _address(device) == self.address:
                return device
        raise NotFoundError(f"There is no such meter at {self.address}.", "`joulemeter scan` lists what is connected.")

    def _claim(self) -> None:
        # Only Linux knows about drivers of the kernel's.
        with contextlib.suppress(NotImplementedError):
            if self._device.is_kernel_driver_active(self._interface):
                self._device.detach_kernel_driver(self._interface)
                self._detached = True
        self._util.claim_interface(self._device, self._interface)

    def _explain(self, error: Exception) -> JouleMeterError:
        """The system's reason as an error that says what to do."""
        code = getattr(error, "errno", None)
        if code in (errno.EACCES, errno.EPERM):
            return AccessError(f"No permission to open {self.address}.", permission_remedy([self.usb]))
        if code == errno.EBUSY:
            return AccessError(
                f"{self.address} is in use by another program.", "Close the other program, then try again."
            )
        if code in (errno.ENODEV, errno.ENOENT):
            return NotFoundError(f"What was at {self.address} has just gone.", "Plug it in again.")
        return NotFoundError(
            f"{self.address} cannot be opened ({error}).",
            "On Windows it needs the WinUSB driver; elsewhere plug it in again.",
        )

    def read(self, timeout_s: float) -> bytes:
        """The next transfer. Raises IncompleteError when unplugged."""
        # Zero would wait for ever.
        wait_ms = max(round(timeout_s * 1e3), 1)
        try:
            return bytes(self._opened().read(self._in, READ_BYTES, wait_ms))
        except self._core.USBTimeoutError:
            return b""
        except OSError as error:
            raise self._lost("was lost while reading") from error

    def write(self, data: bytes) -> None:
        try:
            self._opened().write(self._out, data, round(WRITE_S * 1e3))
        except OSError as error:
            raise self._lost("no longer takes commands") from error

    def _opened(self) -> Any:
        # pyusb would open it again by itself.
        if not self._open:
            raise self._lost("is closed")
        return self._device

    def _lost(self, how: str) -> IncompleteError:
        return IncompleteError(
            f"The connection to {self.address} {how}.", "Check cable and hub; what had arrived is kept."
        )

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        with contextlib.suppress(OSError, NotImplementedError):
            self._util.release_interface(self._device, self._interface)
        if self._detached:
            with contextlib.suppress(OSError, NotImplementedError):
                self._device.attach_kernel_driver(self._interface)
        with contextlib.suppress(OSError, NotImplementedError):
            self._util.dispose_resources(self._device)


def _pyusb() -> tuple[Any, Any]:
    try:
        return importlib.import_module("usb.core"), importlib.import_module("usb.util")
    except ImportError as error:
        raise MissingExtraError("Meters on USB bulk endpoints are reached through pyusb.", PACKAGE) from error
