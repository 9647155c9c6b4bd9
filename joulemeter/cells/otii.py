"""Battery profiles that Qoitech's Otii recorded: JSON, told in Otii's manual under "Battery profile manager"."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from joulemeter import units
from joulemeter.battery.cell import Cell, Curve, Resistance
from joulemeter.cells.convert import LETTERS
from joulemeter.errors import UsageError

# Within a pulse of a coin cell the resistance grows by a tenth in the first milliseconds to tens of milliseconds, then
# little until 1 s (Ganssle, coin-cell series: 30 mA, nine cells).
FAST_SHARE: Final = 0.1
FAST_S: Final = 0.01
# A profile may have ten thousand rows, whose noise would read as rising voltage.
BINS: Final = 200

# First letter of the designation of a round primary cell, IEC 60086-1.
_CHEMISTRY = {"C": "Li/MnO2", "E": "Li/SOCl2", "F": "Li/FeS2", "L": "alkaline"}


class _Row(msgspec.Struct):
    """`voltage` without load, `resistance` in ohm, `capacity` taken so far in the battery's unit."""

    voltage: float
    resistance: float
    capacity: float


class _Discharge(msgspec.Struct):
    table: list[_Row]
    temperature: float | None = None
    temperatureunit: str = "°C"


class _Battery(msgspec.Struct):
    manufacturer: str = ""
    model: str = ""
    capacityunit: str = "mAh"
    cutoffvoltage: float | None = None


class _Profile(msgspec.Struct):
    dischargetables: list[_Discharge]
    battery: _Battery = msgspec.field(default_factory=_Battery)


def from_otii(path: Path) -> tuple[Cell, float | None]:
    """The cell that was profiled, and the voltage at which the profile calls it empty, None where it does not say.

    Its one resistance is that of the profiled pulse: R0 and a fast part of FAST_SHARE R0 that answers within FAST_S.
    Its charge is what came out under the profiled load. Rows are averaged in BINS of depth; where the voltage recovers
    it is held level. Limits, self-discharge and shelf life are unknown. Raises UsageError.
    """
    told = _read(path)
    measured, battery = told.dischargetables[0], told.battery
    depth, volts, ohms = _binned(measured.table)
    notes = ["Its charge is what came out under the profiled load; its rated charge may be higher."]
    if measured.temperature is None:
        notes.append("The profile does not say at which temperature it was taken; 25 C is assumed.")
    relied_on = ("capacity", "ocv", "resistance")
    cell = Cell(
        name=" ".join(filter(None, (battery.manufacturer, battery.model))) or path.stem,
        chemistry=_chemistry(battery.model),
        capacity_c=measured.table[-1].capacity * units.parse(f"1{battery.capacityunit}", "C"),
        ocv=Curve(x=depth, y=_falling(volts)),
        resistance=Resistance(
            fresh_ohm=ohms[0] / (1 + FAST_SHARE),
            shape=Curve(x=depth, y=tuple(ohm / ohms[0] for ohm in ohms)),
            fast_share=FAST_SHARE,
            tau1_s=FAST_S,
            reference_c=25.0 if measured.temperature is None else measured.temperature,
        ),
        grades=dict.fromkeys(relied_on, LETTERS["third-party"]),
        sources=dict.fromkeys(relied_on, f"Otii battery profile {path.name}"),
        notes=tuple(notes),
    )
    return cell, battery.cutoffvoltage


def _read(path: Path) -> _Profile:
    try:
        told = msgspec.json.decode(path.read_bytes(), type=_Profile)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not a battery profile of Otii: {error}.") from error
    if len(told.dischargetables) != 1:
        raise UsageError(
            f"{path} holds {len(told.dischargetables)} discharge tables.", "Keep only the one that is wanted."
        )
    measured = told.dischargetables[0]
    if measured.temperatureunit not in ("°C", "C"):
        raise UsageError(f"{path}: the temperature is in {measured.temperatureunit!r}.", "Write it in °C.")
    _check(measured.table, path)
    return told


def _check(rows: list[_Row], path: Path) -> None:
    if len(rows) < 2:
        raise UsageError(f"{path}: a table of {len(rows)} rows tells nothing.", "Profile the cell until it is empty.")
    taken = -1.0
    for index, row in enumerate(rows):
        if row.voltage <= 0 or row.resistance <= 0 or row.capacity < 0:
            raise UsageError(f"{path}: row {index} has {row.voltage} V, {row.resistance} ohm and {row.capacity} taken.")
        if row.capacity <= taken:
            raise UsageError(f"{path}: in row {index} the charge taken does not rise.")
        taken = row.capacity


def _binned(rows: list[_Row]) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Mean depth, volts and ohms of the rows of each bin of depth; bins without rows are left out."""
    full = rows[-1].capacity
    bins: dict[int, list[_Row]] = {}
    for row in rows:
        bins.setdefault(min(int(BINS * row.capacity / full), BINS - 1), []).append(row)

    def means(column: str) -> tuple[float, ...]:
        return tuple(sum(getattr(row, column) for row in part) / len(part) for part in bins.values())

    return tuple(taken / full for taken in means("capacity")), means("voltage"), means("resistance")


def _falling(values: tuple[float, ...]) -> tuple[float, ...]:
    """The nearest series that never rises: neighbours that do are pooled (isotonic regression)."""
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] < mean:
            other, more = pools.pop()
            mean, count = (mean * count + other * more) / (count + more), count + more
        pools.append((mean, count))
    return tuple(mean for mean, count in pools for _ in range(count))


def _chemistry(model: str) -> str:
    """By the designation the model begins with ("CR2032"); "unknown" where there is none."""
    match = re.match(r"([CEFL])R\d", model)
    return _CHEMISTRY[match[1]] if match else "unknown"
