"""What stands between this host and its meters: packages, permissions, ports."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from joulemeter import registry
from joulemeter.instrument import Found, Info

UDEV_FILE = "/etc/udev/rules.d/60-joulemeter.rules"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# What an extra that no meter needs is for.
PURPOSES = {
    "fast": "faster decoding of long recordings",
    "gpio": "edges on a GPIO line of this host",
    "onnx": "ONNX models as workloads",
    "openvino": "OpenVINO models as workloads",
}


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
        lacking = missing(module.INFO.extra)
        if lacking:
            what = f"{key}: needs {', '.join(lacking)}, which is not installed"
            findings.append(Finding(state="absent", what=what, remedy=install(module.INFO.extra or "")))
        elif not devices:
            findings.append(Finding(state="absent", what=f"{key}: no device was found"))
        for device in devices:
            findings.append(
                Finding(
                    state="broken" if device.problem else "good",
                    what=f"{key}: {device.description} at {device.address}"
                    + (f": {device.problem}" if device.problem else ""),
                    remedy=device.remedy,
                )
            )
    if platform.system() == "Linux":
        findings += _udev([module.INFO for _, module in registry.instruments() if module.INFO.usb_ids])
    return findings


def state(info: Info, found: Sequence[Found]) -> str:
    """How a kind of meter stands on this host, in a few words."""
    ready = sum(unit.problem is None for unit in found)
    if ready:
        return f"{ready} found"
    if found:
        return "found, cannot be opened"
    return f"needs extra {info.extra}" if missing(info.extra) else "not found"


def _packages() -> list[Finding]:
    findings = []
    litert = any(_present(name) for name in ("ai_edge_litert", "tflite_runtime", "tensorflow"))
    findings.append(
        Finding(state="good", what="a TFLite runtime is installed")
        if litert
        else Finding(state="absent", what="no TFLite runtime", remedy="pip install ai-edge-litert")
    )
    for extra, purpose in PURPOSES.items():
        lacking = missing(extra)
        findings.append(
            Finding(state="absent", what=f"{', '.join(lacking)}: {purpose}", remedy=install(extra))
            if lacking
            else Finding(state="good", what=f"extra {extra}: {purpose}")
        )
    return findings


def missing(extra: str | None) -> list[str]:
    """The packages of one of our extras that are not installed."""
    lacking = []
    for requirement in metadata.requires("joulemeter") or [] if extra is not None else []:
        wanted, _, marker = requirement.partition(";")
        name = _NAME.match(wanted)
        if name is None or f'extra == "{extra}"' not in marker or not _meant(marker):
            continue
        try:
            metadata.version(name[0])
        except metadata.PackageNotFoundError:
            lacking.append(name[0])
    return lacking


def install(extra: str) -> str:
    return f"pip install 'joulemeter[{extra}]'"


def _meant(marker: str) -> bool:
    """Whether it is for this system, as far as our own markers go."""
    asked = re.search(r"sys_platform == ['\"](\w+)['\"]", marker)
    return asked is None or asked[1] == sys.platform


def _present(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _udev(infos: Sequence[Info]) -> list[Finding]:
    """Whether rules let users other than root open the USB devices of these; one finding for all that lack them."""
    written = "\n".join(_rules()).lower()
    lacking = [info for info in infos if not all(f"{usb.vendor:04x}" in written for usb in info.usb_ids)]
    findings = [
        Finding(state="good", what=f"{info.key}: there is a udev rule for it") for info in infos if info not in lacking
    ]
    if not lacking:
        return findings
    rules = "\n".join(f"# {info.key}\n{_rule(info)}" for info in lacking)
    return [
        *findings,
        Finding(
            state="absent",
            what=f"no udev rule for {', '.join(info.key for info in lacking)}; without one only root, or for serial "
            "ports their group, may open them",
            remedy=f"Write the lines of the meters that you have to {UDEV_FILE}:\n{rules}\n"
            "then run: sudo udevadm control --reload && sudo udevadm trigger\n"
            "or, for serial ports, join their group once: sudo usermod -aG dialout $USER, and log in again",
        ),
    ]


def _rule(info: Info) -> str:
    return "\n".join(
        f'SUBSYSTEMS=="usb", ATTRS{{idVendor}}=="{usb.vendor:04x}", ATTRS{{idProduct}}=="{usb.product:04x}", '
        'MODE="0660", TAG+="uaccess", ENV{ID_MM_DEVICE_IGNORE}="1"'
        for usb in info.usb_ids
    )


def _rules() -> Iterator[str]:
    """The udev rules that are about meters: ours, and those that makers' programs bring."""
    for folder in map(Path, ("/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")):
        for path in sorted(folder.glob("*.rules")) if folder.is_dir() else ():
            if any(word in path.name for word in ("joulemeter", "nrf", "joulescope")):
                with contextlib.suppress(OSError):
                    yield path.read_text(encoding="utf-8", errors="replace")
