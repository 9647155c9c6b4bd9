"""Cells by name: battery profiles, ours and Otii's, as the cells that `joulemeter.battery` computes.

    cell("CR2032")  cell("coin cell")             by name or alias; case and punctuation do not matter
    cell("mine.toml")  cell("recorded.json")      a profile of one's own, or one recorded by Qoitech's Otii
    cell("3s2p AA")  cell("2p CR2032")            packs: strings of 3 in series, 2 of them parallel
    cell("2x L91")  cell("2x CR2032 parallel")    N x NAME is in series unless it says parallel
    cell("lipo 500mAh")  cell("2s lipo 500mAh")   the charge marked on each cell; all else stays as it is

convert   a profile as a cell; how the grades are mapped
otii      battery profiles of Otii
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

from joulemeter import profile, units
from joulemeter.battery.cell import Cell, Curve, pack
from joulemeter.cells.convert import LETTERS, from_profile
from joulemeter.cells.otii import from_otii
from joulemeter.errors import UsageError

__all__ = ["LETTERS", "Found", "cell", "cutoff_v", "find", "from_otii", "from_profile", "names", "sized"]

_STRINGS = re.compile(r"(?:(\d+)s)?\s*(?:(\d+)p)?\s+(.+)", re.IGNORECASE)
_TIMES = re.compile(r"(\d+)\s*[x×*]\s*(.+?)(?:\s+(?:in\s+)?(series|parallel))?", re.IGNORECASE)
_MARKED = re.compile(r"(.+?)\s+([\d.]+\s*\w?(?:Ah|Wh))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A cell with what provenance needs: the file it stands in, as a person would name it, and that file's hash.

    cutoff_v    down to which its charge is stated; None where the source does not say
    """

    cell: Cell
    cutoff_v: float | None
    path: str
    sha256: str


def cell(name: str | Path) -> Cell:
    """The cell or pack of that name; the module tells how to write it. Raises UsageError, which lists near names."""
    return find(name).cell


def find(name: str | Path) -> Found:
    """As `cell`, with the file's path and hash. Raises UsageError."""
    if isinstance(name, Path):
        return _single(name)
    text, series, parallel = _strings(name.strip())
    marked = _MARKED.fullmatch(text)
    found = _single(marked[1] if marked else text)
    one = sized(found.cell, units.parse_positive(marked[2], "C")) if marked else found.cell
    cutoff = None if found.cutoff_v is None else found.cutoff_v * series
    return replace(found, cell=pack(one, series=series, parallel=parallel), cutoff_v=cutoff)


def cutoff_v(name: str | Path) -> float:
    """The voltage down to which the charge of the cell or pack is stated. Raises UsageError where nobody says."""
    found = find(name)
    if found.cutoff_v is None:
        raise UsageError(
            f"Down to which voltage the charge of a {found.cell.name} is stated is not known.",
            "Say below which voltage the device stops.",
        )
    return found.cutoff_v


def names() -> list[str]:
    """The names of the cells that come with the package."""
    return profile.names("battery")


def sized(cell: Cell, charge_c: float) -> Cell:
    """The cell with another rated charge in C, as marked on it. A rate table scales along; all else stays as it is."""
    rate = cell.rate and Curve(x=cell.rate.x, y=tuple(y + math.log(charge_c / cell.capacity_c) for y in cell.rate.y))
    return replace(
        cell,
        capacity_c=charge_c,
        rate=rate,
        grades={**cell.grades, "capacity": LETTERS["second-hand"]},
        sources={**cell.sources, "capacity": "as marked on the cell, according to whoever asked"},
    )


def _strings(text: str) -> tuple[str, int, int]:
    """What is packed, how many in series and how many parallel."""
    strings = _STRINGS.fullmatch(text)
    if strings:
        return strings[3], int(strings[1] or 1), int(strings[2] or 1)
    times = _TIMES.fullmatch(text)
    if times:
        count = int(times[1])
        return (times[2], 1, count) if (times[3] or "").lower() == "parallel" else (times[2], count, 1)
    return text, 1, 1


def _single(name: str | Path) -> Found:
    if str(name).lower().endswith(".json"):
        path = Path(name)
        recorded, cutoff = from_otii(path)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        return Found(cell=recorded, cutoff_v=cutoff, path=str(name), sha256=sha256)
    loaded = profile.find(profile.Cell, name)
    try:
        known = from_profile(loaded.profile)
    except UsageError as error:
        raise UsageError(f"{loaded.path}: {error}") from error
    stated = loaded.profile.capacity.cutoff_v
    return Found(cell=known, cutoff_v=None if stated is None else float(stated), path=loaded.path, sha256=loaded.sha256)
