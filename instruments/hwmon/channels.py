"""The chips that Linux shows as power sensors, what they deliver, and how wrong it may be.

Offsets are of the shunt's voltage, so in amperes they are divided by the shunt's resistance. The drivers give whole
milliamperes and millivolts whatever the chip resolves: half a step is part of the offset. Nobody states how good the
shunt on a board is; SHUNT stands in for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from joulemeter.capture import Accuracy, Channel, Distribution, Kind, Limit, Quantity

# Drivers print whole mA and mV (Linux, Documentation/hwmon/sysfs-interface.rst).
STEP_A, STEP_V = 1e-3, 1e-3
# 1 % and 100 ppm/K over 20 K: what chip shunts on boards are (Bourns CSS2H, Susumu KRL, Vishay WSLP data sheets).
SHUNT = 0.012
# Where the driver was not told the shunt it takes 10 milliohms (drivers/hwmon/ina2xx.c, ina238.c, ina3221.c).
DEFAULT_SHUNT_OHM = 10e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """Half-widths. `gain` and `bus_gain` are ratios, of current and of voltage, over temperature where known.

    `offset_v` is that of the shunt's voltage; `offset_a` in its place where the shunt is inside. `power` says that the
    power file resolves better than current times voltage does. `refresh_s` is how often the registers change as Linux
    sets the chip up; `age` is how old the middle of what a reading stands for is on average, in refreshes: 1 where an
    average is shown when it is complete (half for its length, half for the wait), a half where it slides.
    """

    gain: float
    offset_v: float = 0.0
    offset_a: float = 0.0
    bus_gain: float
    bus_offset_v: float
    bus_step_v: float
    shunt: float = SHUNT
    power: bool = False
    refresh_s: float | None
    age: float = 1.0
    source: str


_TI = "Not checked against Texas Instruments' data sheet"

CHIPS: dict[str, Chip] = {
    "ina219": Chip(
        gain=0.01, offset_v=100e-6, bus_gain=0.01, bus_offset_v=0.0, bus_step_v=4e-3, refresh_s=1.064e-3,
        source=f"{_TI} SBOS448 (INA219A over temperature)",
    ),
    "ina220": Chip(
        gain=0.01, offset_v=100e-6, bus_gain=0.01, bus_offset_v=0.0, bus_step_v=4e-3, refresh_s=1.064e-3,
        source=f"{_TI} SBOS459 (INA220A over temperature)",
    ),
    "ina226": Chip(
        gain=0.001, offset_v=10e-6, bus_gain=0.001, bus_offset_v=7.5e-3, bus_step_v=1.25e-3, refresh_s=35.2e-3,
        source=f"{_TI} SBOS547",
    ),
    "ina230": Chip(
        gain=0.005, offset_v=50e-6, bus_gain=0.005, bus_offset_v=15e-3, bus_step_v=1.25e-3, refresh_s=35.2e-3,
        source=f"{_TI} SBOS601",
    ),
    "ina231": Chip(
        gain=0.005, offset_v=50e-6, bus_gain=0.005, bus_offset_v=15e-3, bus_step_v=1.25e-3, refresh_s=35.2e-3,
        source=f"{_TI} SBOS644",
    ),
    "ina228": Chip(
        gain=0.0005, offset_v=1e-6, bus_gain=0.0005, bus_offset_v=1e-3, bus_step_v=195.3125e-6, refresh_s=50.5e-3,
        power=True, source=f"{_TI} SLYS021A",
    ),
    "ina237": Chip(
        gain=0.003, offset_v=50e-6, bus_gain=0.003, bus_offset_v=5e-3, bus_step_v=3.125e-3, refresh_s=50.5e-3,
        power=True, source=f"{_TI} INA237",
    ),
    "ina238": Chip(
        gain=0.001, offset_v=5e-6, bus_gain=0.001, bus_offset_v=5e-3, bus_step_v=3.125e-3, refresh_s=50.5e-3,
        power=True, source=f"{_TI} INA238",
    ),
    "ina260": Chip(
        gain=0.005, offset_a=5e-3, bus_gain=0.001, bus_offset_v=7.5e-3, bus_step_v=1.25e-3, refresh_s=35.2e-3,
        shunt=0.0, source=f"{_TI} SBOS656 (shunt inside)",
    ),
    "ina3221": Chip(
        gain=0.0025, offset_v=80e-6, bus_gain=0.0025, bus_offset_v=16e-3, bus_step_v=8e-3, refresh_s=6.6e-3, age=0.5,
        source=f"{_TI} SBOS576",
    ),
    "powerz": Chip(
        gain=0.001, offset_a=2e-3, bus_gain=0.0005, bus_offset_v=2e-3, bus_step_v=1e-3, refresh_s=None, shunt=0.0,
        source="Not checked against ChargerLAB's figures of the KM003C; 2 of the driver's digits",
    ),
}  # fmt: skip
# NVIDIA's older kernels have a driver of their own for the same chip.
CHIPS["ina3221x"] = CHIPS["ina3221"]


def _normal(*half_widths: float) -> Limit:
    """Independent rectangular terms as one standard uncertainty (JCGM 100, 5.1.2)."""
    standard = sum(Limit(value=value).standard ** 2 for value in half_widths) ** 0.5
    return Limit(value=standard, distribution=Distribution.NORMAL)


def _row(chip: Chip, gains: Sequence[float], offsets: Sequence[float]) -> tuple[Accuracy, ...]:
    source = f"{chip.source}; shunt ±{chip.shunt:.1%} assumed" if chip.shunt else chip.source
    return (Accuracy(range=None, gain=_normal(*gains), offset=_normal(*offsets), source=source, verified=False),)


def offset_a(chip: Chip, shunt_ohm: float | None) -> float:
    """Half-width of the current's offset."""
    return chip.offset_a or chip.offset_v / (shunt_ohm or DEFAULT_SHUNT_OHM)


def current(chip: Chip | None, shunt_ohm: float | None, refresh_s: float | None, name: str = "current") -> Channel:
    rows = () if chip is None else _row(chip, (chip.gain, chip.shunt), (offset_a(chip, shunt_ohm), STEP_A / 2))
    return Channel(
        name=name, quantity=Quantity.CURRENT, unit="A", kind=Kind.INSTANT, accuracy=rows, refresh_s=refresh_s
    )


def voltage(chip: Chip | None, refresh_s: float | None, name: str = "voltage") -> Channel:
    step_v = 0.0 if chip is None else max(chip.bus_step_v, STEP_V)
    rows = () if chip is None else _row_without_shunt(chip, (chip.bus_gain,), (chip.bus_offset_v, step_v / 2))
    return Channel(
        name=name, quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT, accuracy=rows, refresh_s=refresh_s
    )


def _row_without_shunt(chip: Chip, gains: Sequence[float], offsets: Sequence[float]) -> tuple[Accuracy, ...]:
    return (Accuracy(range=None, gain=_normal(*gains), offset=_normal(*offsets), source=chip.source, verified=False),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A rail as its part of a power: the voltage at which its offset in amperes becomes watts, None if not known."""

    chip: Chip | None
    shunt_ohm: float | None
    volts: float | None
    multiplied: bool


def power(parts: Sequence[Part], refresh_s: float | None, name: str = "power") -> Channel:
    """Power of one rail, or of several added up: gains as of the worst, offsets as independent.

    Without a figure for one of the parts there is none for the whole.
    """
    rows: tuple[Accuracy, ...] = ()
    known = [(part.chip, part.volts) for part in parts if part.chip is not None and part.volts is not None]
    if parts and len(known) == len(parts):
        offsets = []
        for part, (chip, volts) in zip(parts, known, strict=True):
            offsets.append(volts * offset_a(chip, part.shunt_ohm))
            if part.multiplied:
                offsets.append(volts * STEP_A / 2)
        worst = max((chip for chip, _ in known), key=lambda chip: chip.gain + chip.bus_gain + chip.shunt)
        rows = _row(worst, (worst.gain, worst.bus_gain, worst.shunt), offsets)
    return Channel(name=name, quantity=Quantity.POWER, unit="W", kind=Kind.INSTANT, accuracy=rows, refresh_s=refresh_s)


def usual() -> tuple[Channel, ...]:
    """What most sensors deliver, for INFO; a header has what the sensor at hand does."""
    chip = CHIPS["ina226"]
    return (current(chip, None, chip.refresh_s), voltage(chip, chip.refresh_s))
