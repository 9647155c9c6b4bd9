"""The power_supply tree as batteries, and what a round of their files is worth.

Files hold uW, uA, uV, uWh and uAh. The sign of a current or a power differs from driver to driver, and for ACPI
batteries from kernel to kernel: it is not used. Sources: Linux, Documentation/ABI/testing/sysfs-class-power and
Documentation/power/power_supply_class.rst; commits 05f94eb98907 and 234f71555019 (signs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from joulemeter.boardfiles.wire import FORMAT, Files, Read, Round, number
from joulemeter.capture import Header

__all__ = ["FORMAT", "PATTERNS", "Discharge", "Supply", "supplies"]

STATIC = ("type", "scope", "status", "present", "model_name", "energy_full_design", "charge_full_design")
MOVING = ("power_now", "current_now", "voltage_now", "energy_now", "charge_now")
PATTERNS = tuple(f"class/power_supply/*/{name}" for name in (*STATIC, *MOVING))

DISCHARGING, CHARGING = "Discharging", "Charging"
MICRO = 1e-6
# uWh to J, and uAh to C.
PER_MICRO_HOUR = 3.6e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """`texts` is what its files hold, `failures` why some cannot be read, both by the name of the file."""

    name: str
    folder: str
    texts: Mapping[str, str]
    failures: Mapping[str, str]

    @property
    def battery(self) -> bool:
        """One that feeds the machine: mice and headsets have batteries too, and say `Device`."""
        texts = self.texts
        return texts.get("type") == "Battery" and texts.get("scope") != "Device" and texts.get("present") != "0"

    @property
    def status(self) -> str:
        return self.texts.get("status", "Unknown")

    def number(self, name: str) -> int | None:
        return number(self.texts.get(name))

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    @property
    def flow(self) -> tuple[str, ...]:
        """The files whose product is its power; empty where it shows none."""
        if self.number("power_now") is not None:
            return ("power_now",)
        both = ("current_now", "voltage_now")
        return both if all(self.number(name) is not None for name in both) else ()

    @property
    def counter(self) -> str | None:
        return next((name for name in ("energy_now", "charge_now") if self.number(name) is not None), None)


def supplies(files: Files) -> list[Supply]:
    """All of them, batteries or not, by name."""
    folders = sorted({str(PurePosixPath(path).parent) for path in (*files.texts, *files.failures)})
    return [
        Supply(
            name=PurePosixPath(folder).name,
            folder=folder,
            texts=dict(_of(files.texts, folder)),
            failures=dict(_of(files.failures, folder)),
        )
        for folder in folders
    ]


def _of(rows: Mapping[str, str], folder: str) -> Iterator[tuple[str, str]]:
    return (
        (PurePosixPath(path).name, text) for path, text in rows.items() if str(PurePosixPath(path).parent) == folder
    )


class Discharge:
    """What the batteries give. No measurement unless one of them discharges, none charges, and it shows a power.

    `batteries` among the header's parameters has the files of each, in order: its status, those of its power, and its
    counter where there is one; and what the counter stood at.
    """

    def __init__(self, header: Header) -> None:
        self._batteries: list[list[str]] = header.parameters["batteries"]
        self._counted_from: list[int] = header.parameters["counted_from"]
        self._names = [channel.name for channel in header.channels]

    def __call__(self, found: Round) -> Sequence[float] | None:
        reads = iter(found.reads)
        batteries = [{name: next(reads) for name in names} for names in self._batteries]
        if any(read.number is None for battery in batteries for name, read in battery.items() if name != "status"):
            return None
        statuses = [battery["status"].text for battery in batteries]
        giving = [battery for battery, status in zip(batteries, statuses, strict=True) if status == DISCHARGING]
        power_w = sum(_power_w(battery) for battery in giving)
        if CHARGING in statuses or not power_w:
            return [math.nan] * len(self._names)
        worth = {"power": power_w, "counted": self._counted(batteries)}
        if len(batteries) == 1:
            worth |= {"current": abs(_si(batteries[0], "current_now")), "voltage": _si(batteries[0], "voltage_now")}
        return [worth[name] for name in self._names]

    def _counted(self, batteries: Sequence[Mapping[str, Read]]) -> float:
        left = [
            battery[name].number or 0
            for battery in batteries
            for name in ("energy_now", "charge_now")
            if name in battery
        ]
        return sum(before - now for before, now in zip(self._counted_from, left, strict=True)) * PER_MICRO_HOUR


def _power_w(battery: Mapping[str, Read]) -> float:
    if "power_now" in battery:
        return abs(_si(battery, "power_now"))
    return abs(_si(battery, "current_now") * _si(battery, "voltage_now"))


def _si(battery: Mapping[str, Read], name: str) -> float:
    value = battery[name].number if name in battery else None
    return math.nan if value is None else value * MICRO
