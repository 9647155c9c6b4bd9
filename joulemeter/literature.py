"""What others published, as rows in SI units, to lay a measurement beside.

The tables are the CSV files of the package joulemeter.published; its README.md tells their columns and sources. Nothing
in them was measured by this project, and no function here takes a measurement: `basis` is always PUBLISHED or DERIVED.

Each row is checked as it is loaded. A row that cannot be read (no source, an unknown word, a figure that is not
positive) is an error that names it. A row whose own figures contradict each other is kept with its `doubt`, and
`select` leaves it out unless it is asked for.
"""

from __future__ import annotations

import csv
import difflib
import functools
import importlib.resources
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Literal, get_args

from joulemeter.capture import Basis
from joulemeter.errors import DataError, UsageError

Table = Literal["mlperf_tiny", "inference_energy", "zhaw_latency", "detection_rates"]
Grade = Literal["vendor", "second-hand", "third-party", "memory-check"]
DeviceClass = Literal["mcu", "fpga", "sbc", "jetson", "accelerator", "gpu", "pc"]
Unit = Literal["inference", "token", "image", "request", "hour of signal", "run"]

TABLES: tuple[Table, ...] = get_args(Table)

# How far energy may be from power times time. A mean latency leaves out the pauses between inferences, whose energy is
# counted: up to 7 % in results that were reviewed. A slipped decimal, unit or column is far beyond a tenth.
TOLERANCE = 0.1

TASKS = {
    "ad": "anomaly detection",
    "ic": "image classification",
    "kws": "keyword spotting",
    "sww": "streaming wakeword",
    "vww": "visual wake words",
}
# Submitters to MLPerf Tiny that make the chip they submitted; the others measured somebody else's.
MAKERS = frozenset({"STMicroelectronics", "greenwaves-technologies", "renesas", "silicon_labs", "syntiant"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One published result. None is what the source does not state.

    `energy_j` and `latency_s` belong to one `per`: an inference, a token, an image and so on. Compare rows of the same
    `per` only. `rate_hz` is how many of them per second; where several run at once it is not the reciprocal of the
    latency. `rate_min_hz` and `rate_max_hz` are for sources that give a range or a limit.

    `power_w` is a mean power. `power_max_w` is a rated or a peak power: time times that is `energy_max_j`, an upper
    bound of the energy and never its value.

    `basis` is PUBLISHED where the figures are the source's own or plain arithmetic on them, DERIVED where an assumption
    enters that the source does not make: a rated or peak power for a mean one, a unit or voltage left unsaid, a rate
    told in relation to another. `notes` says which.
    """

    name: str
    table: Table
    device: str
    device_class: DeviceClass
    model: str
    source: str
    grade: Grade
    basis: Basis
    per: Unit
    task: str | None = None
    benchmark: str | None = None
    runtime: str | None = None
    precision: str | None = None
    batch: int | None = None
    scenario: str | None = None
    latency_s: float | None = None
    rate_hz: float | None = None
    rate_min_hz: float | None = None
    rate_max_hz: float | None = None
    energy_j: float | None = None
    power_w: float | None = None
    power_max_w: float | None = None
    supply_v: float | None = None
    accuracy: float | None = None
    firmware_bytes: int | None = None
    approximate: bool = False
    repeats: bool = False
    boundary: str | None = None
    instrument: str | None = None
    statistic: str | None = None
    reviewed_by: str | None = None
    year: int | None = None
    notes: str | None = None

    @property
    def time_s(self) -> float | None:
        """Seconds of power that one inference costs: the reciprocal of the rate, or the latency of one alone."""
        if self.rate_hz is not None:
            return 1 / self.rate_hz
        return self.latency_s if self.batch == 1 else None

    @property
    def energy_max_j(self) -> float | None:
        """Upper bound of the energy, from rated or peak power."""
        return None if self.power_max_w is None or self.time_s is None else self.power_max_w * self.time_s

    @property
    def agreement(self) -> float | None:
        """Energy over power times time: 1 where the figures agree, None where one of them is unknown."""
        if self.energy_j is None or self.power_w is None or self.time_s is None:
            return None
        return self.energy_j / (self.power_w * self.time_s)

    @property
    def doubt(self) -> str | None:
        """Why the figures of this row cannot all be right, for people; None where nothing contradicts them."""
        if self.agreement is None or abs(self.agreement - 1) <= TOLERANCE:
            return None
        return (
            f"{self.name}: the energy is {self.agreement:.3g} times power times time, so that at least one of the "
            "three is wrong in the source."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a source says beside its results: `low` to `high` of `unit`, SI; None is a side left open.

    One figure has low == high. A statement without a figure has neither, and no unit.
    """

    subject: str
    quantity: str
    low: float | None
    high: float | None
    unit: str | None
    approximate: bool
    grade: Grade
    source: str
    statement: str


@functools.cache
def rows() -> tuple[Row, ...]:
    """All published rows, doubtful ones too, table by table. Raises DataError that names a row that cannot be used."""
    found = tuple(_row(table, place, cells) for table in TABLES for place, cells in _cells(table))
    names: set[str] = set()
    for row in found:
        if row.name in names:
            raise DataError(f"Two published rows are named {row.name}.", "Give one of them what tells them apart.")
        names.add(row.name)
    return found


@functools.cache
def statements() -> tuple[Statement, ...]:
    """All published statements. Raises DataError that names a line that cannot be used."""
    return tuple(_statement(place, cells) for place, cells in _cells("statements"))


def select(*patterns: str, table: Table | None = None, doubtful: bool = False) -> tuple[Row, ...]:
    """The rows that every one of `patterns` matches, of one `table` or of all; rows in `doubt` only if asked for.

    A pattern is a glob over the whole name, device, model, task, benchmark or runtime, or, without wildcards, a part of
    one of them. Case does not count, and hyphen, underscore and space are the same. Raises UsageError where nothing
    matches, with the nearest words.
    """
    there = [row for row in rows() if (table is None or row.table == table) and (doubtful or row.doubt is None)]
    chosen = tuple(row for row in there if all(_matches(pattern, row) for pattern in patterns))
    if not chosen:
        asked = " and ".join(repr(pattern) for pattern in patterns)
        raise UsageError(f"No published row{f' of {table}' if table else ''} matches {asked}.", _nearest(patterns))
    return chosen


def doubtful() -> tuple[Row, ...]:
    """The rows whose energy, power and time contradict each other; `doubt` says how."""
    return tuple(row for row in rows() if row.doubt is not None)


# -- matching ----------------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]", "-", text.casefold())


def _words(row: Row) -> Iterator[str]:
    fields = (row.name, row.device, row.model, row.task, row.benchmark, row.runtime)
    return (_plain(field) for field in fields if field is not None)


def _matches(pattern: str, row: Row) -> bool:
    plain = _plain(pattern)
    if re.search(r"[*?[]", plain):
        return any(fnmatchcase(word, plain) for word in _words(row))
    return any(plain in word for word in _words(row))


def _nearest(patterns: tuple[str, ...]) -> str:
    known = {
        _plain(word): word for row in rows() for word in (row.device, row.model, row.benchmark, row.runtime) if word
    }
    near = [word for pattern in patterns for word in difflib.get_close_matches(_plain(pattern).strip("*"), known)]
    if near:
        return f"Near to it: {', '.join(dict.fromkeys(known[word] for word in near))}."
    return "Give a part of a device, model or runtime, such as kws, or a glob such as *jetson*."


# -- loading -----------------------------------------------------------------------------------------------------------

# What a column is in SI: the field, and the power of ten of its unit. Columns not named here are fields of text.
SCALED = {
    "latency_ms": ("latency_s", -3),
    "latency_us": ("latency_s", -6),
    "rate_hz": ("rate_hz", 0),
    "rate_min_hz": ("rate_min_hz", 0),
    "rate_max_hz": ("rate_max_hz", 0),
    "energy_mj": ("energy_j", -3),
    "power_mw": ("power_w", -3),
    "power_max_mw": ("power_max_w", -3),
    "power_max_w": ("power_max_w", 0),
    "accuracy": ("accuracy", 0),
}
COUNTED = {"batch": ("batch", 1), "year": ("year", 1), "firmware_kb": ("firmware_bytes", 1000)}
TEXT = frozenset(
    (
        *("device", "device_class", "model", "task", "runtime", "precision", "scenario", "per", "basis", "boundary"),
        *("instrument", "statistic", "grade", "reviewed_by", "source", "notes"),
    )
)
FLAGS = frozenset({"approximate"})
# Seconds per inference where several run at once: no latency, but the reciprocal of a rate.
EACH = "each_us"

Cells = dict[str, str]


def _cells(stem: str) -> Iterator[tuple[str, Cells]]:
    """Lines of a table as (place for messages, filled cells by column)."""
    file = importlib.resources.files("joulemeter.published") / f"{stem}.csv"
    lines = csv.DictReader(file.read_text(encoding="utf-8").splitlines(), strict=True)
    for number, line in enumerate(lines, start=2):
        place = f"{stem}.csv, line {number}"
        if None in line or None in line.values():
            raise _broken(place, "has more or fewer cells than the heading")
        yield place, {column: cell for column, cell in line.items() if cell}


def _row(table: Table, place: str, cells: Cells) -> Row:
    fields = _mlperf_tiny(place, cells) if table == "mlperf_tiny" else _fields(place, cells)
    for name in ("device", "model", "source"):
        if name not in fields:
            raise _broken(place, f"has no {name}")
    for name, allowed in (("device_class", DeviceClass), ("grade", Grade), ("per", Unit)):
        if fields.get(name) not in get_args(allowed):
            raise _broken(place, f"has {fields.get(name)!r} as its {name}, which is none of {get_args(allowed)}")
    if fields.get("basis") not in (Basis.PUBLISHED, Basis.DERIVED):
        raise _broken(place, f"has {fields.get('basis')!r} as its basis, which is neither published nor derived")
    fields["basis"] = Basis(str(fields["basis"]))
    if "power_max_w" in fields and ("power_w" in fields or "energy_j" in fields or fields["basis"] is Basis.PUBLISHED):
        raise _broken(place, "mixes a bound with figures that were published")
    accuracy = fields.get("accuracy")
    if isinstance(accuracy, float) and accuracy > 1:
        raise _broken(place, "has an accuracy above 1")
    fields["name"] = f"{table}/{fields.get('name') or _name(fields)}"
    return Row(table=table, **fields)  # type: ignore[arg-type]  # held to the fields by the tables above


def _fields(place: str, cells: Cells) -> dict[str, object]:
    fields: dict[str, object] = {}
    for column, cell in cells.items():
        if column in TEXT:
            fields[column] = cell
        elif column in SCALED:
            name, exponent = SCALED[column]
            fields[name] = _number(place, column, cell, exponent)
        elif column in COUNTED:
            name, factor = COUNTED[column]
            fields[name] = round(_number(place, column, cell)) * factor
        elif column in FLAGS:
            fields[column] = _flag(place, column, cell)
        elif column == EACH:
            fields["rate_hz"] = 1 / _number(place, column, cell, -6)
        else:
            raise _broken(place, f"has a column {column!r}, which means nothing here")
    return fields


def _name(fields: dict[str, object]) -> str:
    batch = fields.get("batch")
    parts = (
        *(fields.get(name) for name in ("year", "device", "runtime", "model", "precision", "scenario")),
        f"batch {batch}" if batch is not None and batch != 1 else None,
    )
    return "/".join(str(part) for part in parts if part is not None)


def _mlperf_tiny(place: str, cells: Cells) -> dict[str, object]:
    """A run of MLPerf Tiny, where a time is the mean window over the inferences in it."""
    missing = sorted({"round", "submitter", "system", "benchmark", "path", "monitor", "per", "basis"} - set(cells))
    if missing:
        raise _broken(place, f"has no {', '.join(missing)}")
    window_s = _number(place, "window_s", cells.get("window_s", ""))
    benchmark = cells["benchmark"]
    where = [cells["round"], cells["submitter"], cells["system"], cells.get("model"), benchmark]
    board = cells["monitor"] == "js110"
    fields: dict[str, object] = {
        "name": "/".join(part for part in where if part),
        "device": cells["system"],
        "device_class": "fpga" if board else "accelerator" if cells["submitter"] == "syntiant" else "mcu",
        "model": cells.get("model", benchmark),
        "benchmark": benchmark,
        "task": TASKS.get(benchmark),
        "batch": 1,
        "latency_s": window_s / _number(place, "inferences_per_window", cells.get("inferences_per_window", "")),
        "energy_j": _number(place, "energy_uj", cells.get("energy_uj", ""), -6),
        "power_w": _number(place, "power_mw", cells.get("power_mw", ""), -3),
        "supply_v": _number(place, "supply_v", cells["supply_v"]) if "supply_v" in cells else None,
        "per": cells["per"],
        "basis": cells["basis"],
        "repeats": "byte-identical" in cells.get("notes", ""),
        "boundary": "whole board" if board else "supply of the device under test",
        "instrument": "Joulescope JS110" if board else "ST X-NUCLEO-LPM01A",
        "statistic": f"median of {cells['windows']} windows" if cells.get("windows", "1") != "1" else None,
        "grade": "vendor" if cells["submitter"] in MAKERS else "third-party",
        "reviewed_by": "MLPerf",
        "source": f"github.com/mlcommons/tiny_results_{cells['round']}: {cells['path']}",
        "notes": cells.get("notes"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _statement(place: str, cells: Cells) -> Statement:
    for name in ("subject", "quantity", "source", "statement"):
        if name not in cells:
            raise _broken(place, f"has no {name}")
    low, high = (_number(place, side, cells[side]) if side in cells else None for side in ("low", "high"))
    if low is not None and high is not None and low > high:
        raise _broken(place, "runs from high to low")
    if ("unit" in cells) is (low is None and high is None):
        raise _broken(place, "has a figure without a unit, or a unit without a figure")
    if cells.get("grade") not in get_args(Grade):
        raise _broken(place, f"has {cells.get('grade')!r} as its grade, which is none of {get_args(Grade)}")
    return Statement(
        subject=cells["subject"],
        quantity=cells["quantity"],
        low=low,
        high=high,
        unit=cells.get("unit"),
        approximate=_flag(place, "approximate", cells.get("approximate", "no")),
        grade=cells["grade"],  # type: ignore[arg-type]
        source=cells["source"],
        statement=cells["statement"],
    )


def _number(place: str, column: str, cell: str, exponent: int = 0) -> float:
    """`cell` times ten to the `exponent`, rounded once; only what is finite and positive."""
    try:
        value = Decimal(cell)
    except InvalidOperation:
        raise _broken(place, f"has {cell!r} as its {column}, which is no number") from None
    if not value.is_finite() or value <= 0:
        raise _broken(place, f"has {cell!r} as its {column}, which is not positive; leave it empty if unknown")
    return float(value.scaleb(exponent))


def _flag(place: str, column: str, cell: str) -> bool:
    if cell not in ("yes", "no"):
        raise _broken(place, f"has {cell!r} as its {column}, which is neither yes nor no")
    return cell == "yes"


def _broken(place: str, what: str) -> DataError:
    return DataError(
        f"{place} of the published results {what}.", "Correct the line; results/published holds the files."
    )
