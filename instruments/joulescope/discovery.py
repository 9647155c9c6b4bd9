"""Which Joulescopes are there: those that the library sees, and those on USB that it does not."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from joulemeter.errors import JouleMeterError
from joulemeter.instrument import Found

from . import library, wire

USB_DEVICES = Path("/sys/bus/usb/devices")
DEVICE_NODES = Path("/dev/bus/usb")

INSTALL = "Install it: pip install 'joulemeter[joulescope]'."


def installed() -> bool:
    return importlib.util.find_spec(library.MODULE) is not None


def discover(key: str, usb: Path = USB_DEVICES, nodes: Path = DEVICE_NODES) -> list[Found]:
    """Ordered by address. `usb` is where the kernel lists USB devices, `nodes` where their device files are."""
    plugged = on_usb(usb, nodes)
    if not installed():
        return [_absent(key, model, serial) for model, serial, _ in plugged]
    barred = [_barred(key, model, serial, node) for model, serial, node in plugged if not _open_to_us(node)]
    paths = library_paths()
    named = {found.serial for found in barred}
    seen = [_found(key, path) for path in paths if path.rpartition("/")[2] not in {*named, library.NO_SERIAL}]
    if not barred:
        seen += [_found(key, path) for path in paths if path.rpartition("/")[2] == library.NO_SERIAL]
    return sorted([*barred, *seen], key=lambda found: found.address)


def library_paths() -> list[str]:
    """Device paths of measuring Joulescopes; none where the library cannot start."""
    try:
        with library.opened() as real:
            return library.measuring(real.device_paths())
    except JouleMeterError:
        return []


def on_usb(usb: Path, nodes: Path) -> list[tuple[str, str | None, Path]]:
    """Model, serial number and device file of each Joulescope that the kernel sees; on Linux only."""
    products = {model.product: key for key, model in wire.MODELS.items()}
    found = []
    for device in sorted(usb.glob("*")) if usb.is_dir() else []:
        vendor, product = (_attribute(device / name) for name in ("idVendor", "idProduct"))
        if vendor is None or product is None or int(vendor, 16) != wire.VENDOR:
            continue
        model = products.get(int(product, 16))
        bus, number = (_attribute(device / name) for name in ("busnum", "devnum"))
        if model is not None and bus is not None and number is not None:
            node = nodes / f"{int(bus):03d}" / f"{int(number):03d}"
            found.append((model, _attribute(device / "serial"), node))
    return found


def _attribute(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip() or None
    except OSError:
        return None


def _open_to_us(node: Path) -> bool:
    return not node.exists() or os.access(node, os.R_OK | os.W_OK)


def _found(key: str, path: str) -> Found:
    _, model, serial = path.split("/")
    known = serial != library.NO_SERIAL
    return Found(
        key=key,
        address=path,
        description=f"Joulescope {wire.MODELS[model].name}",
        serial=serial if known else None,
        problem=None if known else "Its serial number cannot be read, which mostly is a lack of permission.",
        remedy=None if known else library.UDEV,
    )


def _barred(key: str, model: str, serial: str | None, node: Path) -> Found:
    return Found(
        key=key,
        address=f"u/{model}/{serial or library.NO_SERIAL}",
        description=f"Joulescope {wire.MODELS[model].name}",
        serial=serial,
        problem=f"No permission to open {node}.",
        remedy=library.UDEV,
    )


def _absent(key: str, model: str, serial: str | None) -> Found:
    return Found(
        key=key,
        address=f"u/{model}/{serial or library.NO_SERIAL}",
        description=f"Joulescope {wire.MODELS[model].name}",
        serial=serial,
        problem="The package pyjoulescope_driver, through which it is spoken to, is not installed.",
        remedy=INSTALL,
    )
