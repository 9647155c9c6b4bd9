"""The powercap tree as zones, and counters that turn over as one total. The lines they come in: joulemeter.boardfiles.

Sources: Linux, Documentation/power/powercap/powercap.rst, drivers/powercap/intel_rapl_common.c (behaviour).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from joulemeter.boardfiles.wire import FORMAT, Files

__all__ = ["FORMAT", "PATTERNS", "Totals", "Zone", "zones"]

# intel-rapl on AMD as well. intel-rapl-mmio shows the same package by another way: it would count twice.
PATTERNS = (
    "class/powercap/intel-rapl:*/name",
    "class/powercap/intel-rapl:*/energy_uj",
    "class/powercap/intel-rapl:*/max_energy_range_uj",
)
JOULES = 1e-6
# Counters have 32 bits, so this many units make a turn.
TURN = 1 << 32
# The registers change each millisecond or so (Intel SDM 3B, RAPL interfaces).
REFRESH_S = 1e-3
# No zone draws so much: more is a counter that began anew, or went round unseen.
TOP_W = 2000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """`place` is its number, 0 or 0:2, and `parent` the name of the zone that it stands below in the tree."""

    place: str
    label: str
    parent: str | None
    path: str
    range_uj: int | None
    failure: str | None

    @property
    def name(self) -> str:
        return f"{self.parent}/{self.label}" if self.parent else self.label

    @property
    def package(self) -> bool:
        """package-0, or package-0-die-1 where a package has several."""
        return self.parent is None and self.label.startswith("package")

    @property
    def unit_j(self) -> float | None:
        return None if self.range_uj is None else self.range_uj * JOULES / TURN


def zones(files: Files) -> list[Zone]:
    """Every zone in the order of the tree."""
    labels: dict[str, str] = {}
    for path in files.texts:
        folder = PurePosixPath(path)
        match = re.fullmatch(r"intel-rapl:(\d+(?::\d+)*)", folder.parent.name)
        if match is not None and folder.name == "name":
            labels[match[1]] = str(folder.parent)
    return [*_zones(files, dict(sorted(labels.items(), key=lambda item: [int(part) for part in item[0].split(":")])))]


def _zones(files: Files, folders: Mapping[str, str]) -> Iterator[Zone]:
    for place, folder in folders.items():
        above = folders.get(place.rpartition(":")[0])
        path = f"{folder}/energy_uj"
        known = files.number(path) is not None
        yield Zone(
            place=place,
            label=files.texts[f"{folder}/name"],
            parent=None if above is None else files.texts[f"{above}/name"],
            path=path,
            range_uj=files.number(f"{folder}/max_energy_range_uj"),
            failure=None if known else files.failures.get(path, "ENOENT"),
        )


class Totals:
    """Counters that turn over at different times, added up.

    A turn is added where there can have been one at the most. Where there may have been more, or where a counter began
    anew, the total begins anew too: a joule below everything that it has shown, so that whoever reads it sees a fall.
    """

    def __init__(self, ranges_uj: Sequence[int]) -> None:
        self._ranges = [*ranges_uj]
        self._last: list[int] = []
        self._at_ns = 0
        self._total_uj = self._floor_uj = 0

    def add(self, at_ns: int, counts_uj: Sequence[int]) -> float:
        """The total in joules, from 0 at the first readings on."""
        if self._last:
            steps = [(new - old) % turn for new, old, turn in zip(counts_uj, self._last, self._ranges, strict=True)]
            passed_s = (at_ns - self._at_ns) * 1e-9
            if all(_plausible(step, passed_s, turn) for step, turn in zip(steps, self._ranges, strict=True)):
                self._total_uj += sum(steps)
            else:
                self._floor_uj -= 1_000_000
                self._total_uj = self._floor_uj
        self._last, self._at_ns = [*counts_uj], at_ns
        return self._total_uj * JOULES

    def state(self) -> dict[str, Any]:
        return {"last": self._last, "at_ns": self._at_ns, "total_uj": self._total_uj, "floor_uj": self._floor_uj}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._last, self._at_ns = [*state["last"]], state["at_ns"]
        self._total_uj, self._floor_uj = state["total_uj"], state["floor_uj"]


def _plausible(step_uj: int, passed_s: float, range_uj: int) -> bool:
    """What is seen in one refresh may have been drawn in the one before it."""
    most_uj = TOP_W / JOULES * (passed_s + 2 * REFRESH_S) + 2 * range_uj / TURN
    return step_uj <= most_uj < range_uj
