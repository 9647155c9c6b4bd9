"""USB HID devices through hidapi (extra `hid`)."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from joulemeter.errors import AccessError, IncompleteError, MissingExtraError, NotFoundError

EXTRA = "joulemeter[hid]"
# Reports taken in one read; the system holds no more.
MOST_REPORTS = 64
# A device that is busy sending may refuse a report for a moment.
WRITE_TRIES, WRITE_PAUSE_S = 3, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class HidInfo:
    """A HID interface as the system lists it. `path` opens it."""

    path: str
    vendor: int
    product: int
    serial: str | None
    name: str | None


def load() -> ModuleType:
    """The module of the package hidapi. Raises MissingExtraError.

    Its wheels for Linux bring two: `hidraw` uses the kernel's driver, `hid` takes the interface away from it.
    """
    for name in ("hidraw", "hid") if sys.platform == "linux" else ("hid",):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(name)
            # Another package brings a module of that name too.
            if hasattr(module, "device"):
                return module
    raise MissingExtraError("A USB HID device needs the package hidapi.", EXTRA)


def listed(ids: Sequence[tuple[int, int]]) -> list[HidInfo]:
    """Devices with one of these pairs of vendor and product, ordered by path. Raises MissingExtraError."""
    entries: list[dict[str, Any]] = load().enumerate(0, 0)
    found = [
        HidInfo(
            path=os.fsdecode(entry["path"]),
            vendor=entry["vendor_id"],
            product=entry["product_id"],
            serial=entry.get("serial_number") or None,
            name=entry.get("product_string") or None,
        )
        for entry in entries
        if (entry["vendor_id"], entry["product_id"]) in ids
    ]
    return sorted(found, key=lambda info: info.path)


def udev_rule(vendor: int, product: int) -> str:
    """The line that lets whoever is logged in open the device; with hidraw the rule for the USB device does not."""
    return (
        f'KERNEL=="hidraw*", SUBSYSTEM=="hidraw", ATTRS{{idVendor}}=="{vendor:04x}", '
        f'ATTRS{{idProduct}}=="{product:04x}", MODE="0660", TAG+="uaccess"'
    )


def barred(info: HidInfo) -> tuple[str, str] | None:
    """What stands in the way of opening it, and the remedy; None where nothing does."""
    if not info.path.startswith("/dev/") or os.access(info.path, os.R_OK | os.W_OK):
        return None
    return (
        f"No permission to open {info.path}.",
        "Write this line to /etc/udev/rules.d/60-joulemeter.rules:\n"
        f"{udev_rule(info.vendor, info.product)}\n"
        "then run: sudo udevadm control --reload && sudo udevadm trigger; or unplug the meter and plug it in again.",
    )


class HidLink:
    """A HID interface whose reports have no numbers. Every `write` is one report; what is read are whole reports."""

    def __init__(self, info: HidInfo, report_bytes: int = 64) -> None:
        """Raises NotFoundError, AccessError, MissingExtraError."""
        self.address = info.path
        self._report_bytes = report_bytes
        module = load()
        if info.path.startswith("/dev/") and not os.path.exists(info.path):  # noqa: PTH110 -- no path on other systems
            raise NotFoundError(f"There is no HID device {info.path}.", "`joulemeter scan` lists what is connected.")
        if (reason := barred(info)) is not None:
            raise AccessError(*reason)
        self._lock: int | None = None
        self._device = module.device()
        try:
            self._lock = _locked(info.path)
            self._device.open_path(os.fsencode(info.path))
            self._device.set_nonblocking(1)
        except (OSError, ValueError) as error:
            self.close()
            why = "another program holds it" if isinstance(error, BlockingIOError) else str(error)
            raise AccessError(
                f"{info.path} cannot be opened ({why}).", "Close other programs that use it, or plug it in again."
            ) from error

    def read(self, timeout_s: float) -> bytes:
        try:
            # hidapi takes 0 ms for "wait for ever" unless told not to block, as it was.
            reports = [self._device.read(self._report_bytes, max(round(timeout_s * 1e3), 0))]
            while reports[-1] and len(reports) < MOST_REPORTS:
                reports.append(self._device.read(self._report_bytes))
        except (OSError, ValueError) as error:
            raise IncompleteError(
                f"The connection to {self.address} was lost while reading.",
                "Check the cable and the hub; what had arrived is kept.",
            ) from error
        return b"".join(map(bytes, reports))

    def write(self, data: bytes) -> None:
        # Report number 0 stands for "has none" and is not sent.
        report = b"\0" + data
        for left in reversed(range(WRITE_TRIES)):
            with contextlib.suppress(OSError, ValueError):
                if self._device.write(report) >= 0:
                    return
            if left:
                time.sleep(WRITE_PAUSE_S)
        raise IncompleteError(
            f"{self.address} no longer takes commands.",
            "Check the cable, or unplug the meter and plug it in again.",
        )

    def close(self) -> None:
        self._device.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _locked(path: str) -> int | None:
    """A lock, so that a second JouleMeter cannot send commands in between: hidraw lets any number in.

    Raises BlockingIOError where another has it.
    """
    if not path.startswith("/dev/"):
        return None
    import fcntl

    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
