"""What is known of a cell, and packs of cells.

`D` is the depth of discharge: 0 fresh, 1 when the rated charge is gone. What is not known is None, never a guess.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import UsageError

Float = NDArray[np.float64]

YEAR_S: Final = 365.25 * 86400.0
KELVIN: Final = 273.15
# From best to worst: read at the maker's; second-hand of a named primary; a community's measurement; derived here.
GRADES: Final = "ABCD"


def known(ok: bool, what: str, remedy: str = "") -> None:
    """Raises UsageError with `what` unless `ok`."""
    if not ok:
        raise UsageError(what, remedy)


def positive(value: float | None, what: str, unit: str, *, most: float = math.inf) -> None:
    """Raises UsageError unless `value` is None or finite, greater than zero and at most `most`."""
    known(
        value is None or (math.isfinite(value) and 0 < value <= most),
        f"{what} of {value} {unit} is not possible.",
        f"Give a value above zero{'' if most == math.inf else f' and up to {most:g} {unit}'}.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A table, linear in between and held at its ends; `x` rises strictly. UsageError for any other table."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        known(len(self.x) == len(self.y) >= 1, "A table needs as many values as places, and at least one.")
        known(all(map(math.isfinite, (*self.x, *self.y))), "A table holds a value that is no number.")
        known(all(a < b for a, b in zip(self.x, self.x[1:], strict=False)), "The places of a table must rise.")

    def at(self, where: Float) -> Float:
        return np.interp(where, self.x, self.y)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knee:
    """Resistance over its fresh value: 1 + slope D + exp((D - dk) / w), and never above `most`.

    A form fitted by this project to ratios of published lives; it is no measurement of resistance. Published pulses
    end near a hundred times the fresh value even behind a capacitor, and a coin cell that gives its rated charge into
    15 kohm cannot be far above two hundred; an exponential that goes on would contradict the rating.
    """

    dk: float
    w: float
    slope: float = 0.4
    most: float = 200.0

    def __post_init__(self) -> None:
        positive(self.w, "A width of the knee", "")
        known(self.most > 2, f"A resistance of at most {self.most} times the fresh one leaves no knee.")
        known(self.slope >= 0, "A resistance that falls with discharge needs a table, not a knee.")

    def at(self, where: Float) -> Float:
        return np.minimum(1.0 + self.slope * where + np.exp(np.minimum((where - self.dk) / self.w, 700.0)), self.most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resistance:
    """Internal resistance: R0(D, T) = fresh_ohm shape(D) exp(B (1/T - 1/Tref)), and a fast pair R1 = fast_share R0.

    The pair answers within `tau1_s`. `arrhenius_k` is B; None: the resistance is known at `reference_c` only.
    """

    fresh_ohm: float
    shape: Curve | Knee
    fast_share: float = 0.0
    tau1_s: float = 0.4
    arrhenius_k: float | None = None
    reference_c: float = 25.0

    def __post_init__(self) -> None:
        positive(self.fresh_ohm, "A resistance", "ohm", most=1e6)
        positive(self.tau1_s, "A time constant", "s", most=1e5)
        known(self.fast_share >= 0, f"A fast share of {self.fast_share} is not possible.")
        known(
            self.arrhenius_k is None or 0 <= self.arrhenius_k <= 2e4,
            f"An Arrhenius constant of {self.arrhenius_k} K is not possible.",
        )
        if isinstance(self.shape, Curve):
            known(min(self.shape.y) > 0, "A resistance of zero or less stands in the table.")

    def ohm(self, dod: Float, temperature_c: Float | float) -> tuple[Float, Float]:
        """R0 and R1 in ohm at each depth and temperature (broadcast together)."""
        kelvin = np.asarray(temperature_c, np.float64) + KELVIN
        cold = np.exp((self.arrhenius_k or 0.0) * (1 / kelvin - 1 / (self.reference_c + KELVIN)))
        r0 = self.fresh_ohm * self.shape.at(dod) * cold
        return r0, self.fast_share * r0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowTerm:
    """The kinetic battery model's two wells (Manwell and McGowan, Solar Energy 50, 1993).

    A share `c` of the charge is at hand; the rest flows in as fast as the difference of the wells' heights decays,
    `k_per_s` (k' = k / (c (1 - c)) of the literature). It is driven by mean currents over minutes and hours, has no
    temperature here, and ends the cell when the charge at hand is gone.
    """

    c: float
    k_per_s: float

    def __post_init__(self) -> None:
        known(0 < self.c < 1, f"A share at hand of {self.c} is not between 0 and 1.")
        positive(self.k_per_s, "A rate of the slow term", "1/s")

    def full_c(self, capacity_c: float, rated_a: float | None) -> float:
        """Charge of both wells such that `rated_a` finds just `capacity_c` in them, in coulombs.

        From y1 = c (y - (1 - c) d) = 0 with d = I / (c k') (1 - exp(-k' t)) and I t = capacity.
        """
        if rated_a is None:
            return capacity_c
        gap = 1 - math.exp(-self.k_per_s * capacity_c / rated_a)
        return capacity_c + rated_a * (1 - self.c) / (self.c * self.k_per_s) * gap


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Largest currents the maker means the cell for, in A; None where not stated."""

    continuous_a: float | None = None
    pulse_a: float | None = None

    def __post_init__(self) -> None:
        positive(self.continuous_a, "A continuous limit", "A")
        positive(self.pulse_a, "A pulse limit", "A")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell, or a pack seen as one.

    capacity_c      rated charge in C, at the current `rated_a` where that is known
    ocv             volts at rest against D
    resistance      None: unknown, the rail is then taken as the voltage at rest and a caveat says so
    slow, rate      one or none of them. `rate` is ln of the charge in C against ln of the current in A
    loss_per_year   self-discharge as a ratio of the rated charge, at `reference_c`; it doubles each `loss_doubling_k`
    shelf_s         age beyond which nobody vouches for it
    grades, sources for each figure by its name here ("capacity", "ocv", "resistance", "arrhenius", "slow", "rate",
                    "loss", "loss_doubling", "shelf", "limits"): a letter of GRADES, and where it was read
    """

    name: str
    chemistry: str
    capacity_c: float
    ocv: Curve
    resistance: Resistance | None = None
    slow: SlowTerm | None = None
    rate: Curve | None = None
    rated_a: float | None = None
    loss_per_year: float | None = None
    loss_doubling_k: float | None = None
    reference_c: float = 25.0
    shelf_s: float | None = None
    limits: Limits = field(default_factory=Limits)
    rechargeable: bool = False
    grades: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        positive(self.capacity_c, "A capacity", "C", most=1e9)
        positive(self.rated_a, "A rated current", "A")
        positive(self.shelf_s, "A shelf life", "s")
        positive(self.loss_doubling_k, "A doubling of self-discharge", "K")
        known(
            self.loss_per_year is None or 0 <= self.loss_per_year < math.inf,
            f"A self-discharge of {self.loss_per_year} per year is not possible.",
        )
        falling = all(a >= b for a, b in zip(self.ocv.y, self.ocv.y[1:], strict=False))
        known(falling and min(self.ocv.y) > 0, f"The voltage at rest of {self.name} must fall and stay above zero.")
        known(self.ocv.x[0] >= 0 and self.ocv.x[-1] <= 1, "The voltage at rest is told from D = 0 to 1.")
        known(
            self.slow is None or self.rate is None,
            f"{self.name} has a slow term and a rate table: the same loss would be counted twice.",
            "Give one of them.",
        )
        if self.rate is not None:
            falls = all(a >= b for a, b in zip(self.rate.y, self.rate.y[1:], strict=False))
            known(falls, f"The rate table of {self.name} gains charge with current.")
        wrong = {grade for grade in self.grades.values() if grade not in GRADES or len(grade) != 1}
        known(not wrong, f"No grade: {', '.join(sorted(wrong))}.", f"Grades are {', '.join(GRADES)}.")

    def charge_at(self, current_a: Float) -> Float:
        """Charge in C at each mean current in A: by the rate table, held at its ends, or capacity_c."""
        if self.rate is None:
            return np.full_like(current_a, self.capacity_c)
        return np.exp(self.rate.at(np.log(np.maximum(current_a, 1e-30))))

    def loss_per_s(self, temperature_c: Float | float) -> Float:
        """Self-discharge as a share of the rated charge per second; zero where it is unknown."""
        warmer = np.asarray(temperature_c, np.float64) - self.reference_c
        grown = np.exp2(warmer / self.loss_doubling_k) if self.loss_doubling_k else np.ones_like(warmer)
        return (self.loss_per_year or 0.0) / YEAR_S * grown

    def worst_grade(self, relied_on: tuple[str, ...]) -> str | None:
        """The worst grade of these figures. A figure without a grade counts as the worst there is; None for none."""
        return max((self.grades.get(name, GRADES[-1]) for name in relied_on), default=None)


def pack(cell: Cell, *, series: int = 1, parallel: int = 1) -> Cell:
    """Equal cells, `series` of them in a string and `parallel` strings, as one cell. They are taken to stay equal."""
    known(series >= 1 and parallel >= 1, f"A pack of {series} in series and {parallel} parallel is not possible.")
    if series == parallel == 1:
        return cell
    more, log_more = float(parallel), math.log(parallel)

    def times(value: float | None) -> float | None:
        return None if value is None else value * more

    resistance = cell.resistance and replace(cell.resistance, fresh_ohm=cell.resistance.fresh_ohm * series / parallel)
    rate = cell.rate and Curve(x=tuple(x + log_more for x in cell.rate.x), y=tuple(y + log_more for y in cell.rate.y))
    return replace(
        cell,
        name=f"{series}S{parallel}P {cell.name}",
        capacity_c=cell.capacity_c * more,
        ocv=Curve(x=cell.ocv.x, y=tuple(y * series for y in cell.ocv.y)),
        resistance=resistance,
        rate=rate,
        rated_a=times(cell.rated_a),
        limits=Limits(continuous_a=times(cell.limits.continuous_a), pulse_a=times(cell.limits.pulse_a)),
    )
