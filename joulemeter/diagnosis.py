"""What stands between this host and its meters: packages, permissions, ports."""

from __future__ import annotations

import importlib.util
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from joulemeter import registry
from joulemeter.instrument import Info

UDEV_FILE = "/etc/udev/rules.d/60-joulemeter.rules"

# extra -> the module it brings, and what it is for
EXTRAS = {"fast": ("numba", "faster decoding of long recordings")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`state` is good, absent (nothing wrong, nothing there) or broken."""

    state: str
    what: str
    remedy: str | None = None


def examine() -> list[Finding]:
    """Everything looked at, the good included."""
    findings = [Finding(state="good", what=f"Python {platform.python_version()} on {platform.system()}")]
    findings += _packages()
    for key, module in registry.instruments():
        devices = module.discover()
        if not devices:
            findings.append(Finding(state="absent", what=f"{key}: no device is connected"))
        for device in devices:
            findings.append(
                Finding(
                    state="broken" if device.problem else "good",
                    what=f"{key}: {device.description} at {device.address}"
                    + (f": {device.problem}" if device.problem else ""),
                    remedy=device.remedy,
                )
            )
        if os.name == "posix" and platform.system() == "Linux" and module.INFO.usb_ids:
            findings.append(_udev(module.INFO))
    return findings


def _packages() -> list[Finding]:
    findings = []
    litert = any(_present(name) for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"))
    findings.append(
        Finding(state="good", what="a TFLite runtime is installed")
        if litert
        else Finding(state="absent", what="no TFLite runtime", remedy="pip install ai-edge-litert")
    )
    for extra, (module, purpose) in EXTRAS.items():
        findings.append(
            Finding(state="good", what=f"{module}: {purpose}")
            if _present(module)
            else Finding(state="absent", what=f"{module}: {purpose}", remedy=f"pip install 'joulemeter[{extra}]'")
        )
    return findings


def _present(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _udev(info: Info) -> Finding:
    """Whether a rule lets users other than root open this instrument's USB devices."""
    rule = "\n".join(
        f'SUBSYSTEMS=="usb", ATTRS{{idVendor}}=="{usb.vendor:04x}", ATTRS{{idProduct}}=="{usb.product:04x}", '
        'MODE="0660", TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1"'
        for usb in info.usb_ids
    )
    vendor = f"{info.usb_ids[0].vendor:04x}"
    folders = [Path("/etc/udev/rules.d"), Path("/usr/lib/udev/rules.d"), Path("/lib/udev/rules.d")]
    for folder in folders:
        for path in sorted(folder.glob("*.rules")) if folder.is_dir() else ():
            try:
                text = path.read_text(encoding="utf-8", errors="replace").lower()
            except OSError:
                continue
            if vendor in text and ("joulemeter" in path.name or "nrf" in path.name):
                return Finding(state="good", what=f"{info.key}: udev rule in {path}")
    return Finding(
        state="absent",
        what=f"{info.key}: no udev rule; without one only root or the group of the port may open it",
        remedy=f"Write these lines to {UDEV_FILE}:\n{rule}\n"
        "then run: sudo udevadm control --reload && sudo udevadm trigger\n"
        "or join the port's group once: sudo usermod -aG dialout $USER, and log in again",
    )
