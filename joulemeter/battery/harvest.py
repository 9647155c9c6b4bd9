"""Harvested power and plain energy, as balances of averages: no weather, no charging curve."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from joulemeter.battery.cell import YEAR_S, Cell, known, positive
from joulemeter.battery.life import SHELF_S, Life, loss_per_s, project
from joulemeter.battery.load import Load
from joulemeter.battery.supply import Supply


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Balance:
    """Average harvested power against a load.

    load_w        mean power out of the cell, its own loss included
    usable_w      harvested power that arrives
    sustained     the harvest covers the load: the cell is a buffer, and its age its only end
    life_s        where not sustained, how long the cell covers the rest; where sustained, its shelf life;
                  None where the load is refused, or a fresh cell does not bear its pulses
    autonomy_s    how long a full cell carries the load with no harvest at all; None as above
    storable      whether a surplus can be stored: the cell is rechargeable. A primary cell only rests meanwhile
    without       the projection without harvest
    """

    load_w: float
    usable_w: float
    sustained: bool
    life_s: float | None
    autonomy_s: float | None
    storable: bool
    without: Life


def balance(cell: Cell, load: Load, supply: Supply, *, harvested_w: float, efficiency: float) -> Balance:
    """`harvested_w` on average, of which `efficiency` (harvester's converter and storage) arrives at the rail.

    Pulses are still the cell's: the harvest takes from the mean current, not from the sag.
    """
    known(math.isfinite(harvested_w) and harvested_w >= 0, f"A harvest of {harvested_w} W is not possible.")
    known(0 < efficiency <= 1, f"An efficiency of {efficiency} is not between 0 and 1.")
    life = project(cell, load, supply)
    volts = float(np.mean(cell.ocv.at(np.linspace(0.0, max(life.dod_end, 1e-6), 101))))
    loss = loss_per_s(cell, supply)
    load_w = volts * (life.mean_current_a + loss * cell.capacity_c)
    usable_w = harvested_w * efficiency
    shelf_s = cell.shelf_s or SHELF_S
    runs = life.life_s is not None and life.life_s > 0
    sustained = usable_w >= load_w
    life_s: float | None = None
    if runs:
        short_w = load_w - usable_w
        # Without harvest the same charge lasts model_life_s at load_w.
        life_s = shelf_s if sustained else min(shelf_s, life.dod_end * cell.capacity_c * volts / short_w)
    return Balance(
        load_w=load_w,
        usable_w=usable_w,
        sustained=sustained and runs,
        life_s=life_s,
        autonomy_s=life.life_s if runs else None,
        storable=cell.rechargeable,
        without=life,
    )


def energy_life_s(energy_j: float, power_w: float, *, efficiency: float = 1.0, loss_per_year: float = 0.0) -> float:
    """Life in s of a plain store of energy: W / (P / efficiency + s W / year). It knows no voltage and no pulses."""
    positive(energy_j, "An energy", "J")
    positive(power_w, "A power", "W")
    known(0 < efficiency <= 1, f"An efficiency of {efficiency} is not between 0 and 1.")
    known(0 <= loss_per_year < 100, f"A self-discharge of {loss_per_year} per year is not possible.")
    return energy_j / (power_w / efficiency + loss_per_year * energy_j / YEAR_S)
