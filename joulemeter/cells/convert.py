"""A battery profile as a cell of `joulemeter.battery`.

Grades become letters: datasheet and vendor A, second-hand B, third-party C, derived and memory-check D.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Final

from joulemeter import profile
from joulemeter.battery.cell import Cell, Curve, Knee, Limits, Resistance, SlowTerm

LETTERS: Final[dict[profile.Grade, str]] = {
    "datasheet": "A",
    "vendor": "A",
    "second-hand": "B",
    "third-party": "C",
    "derived": "D",
    "memory-check": "D",
}


def from_profile(known: profile.Cell) -> Cell:
    """What the profile does not tell is None, and has neither grade nor source.

    Except for the voltage: without a curve it is the nominal one, flat, so that only charge ends a life. Grade and
    source of "ocv" and a note say so. Raises UsageError for figures that are not possible.
    """
    figures = _figures(known)
    grades = {name: LETTERS[part.grade] for name, part in figures.items()}
    sources = {name: part.source for name, part in figures.items()}
    notes = known.notes
    if known.ocv is None:
        grades["ocv"], sources["ocv"] = LETTERS["derived"], "not known: the nominal voltage, held to the end"
        notes = (*notes, f"Its voltage against discharge is not known; {known.nominal_v:g} V is taken throughout.")
        ocv = Curve(x=(0.0,), y=(float(known.nominal_v),))
    else:
        ocv = Curve(x=known.ocv.depth, y=tuple(map(float, known.ocv.voltage_v)))
    storage, limits, slow, rate = known.storage, known.limits, known.slow, known.rate
    return Cell(
        name=known.name,
        chemistry=known.chemistry,
        capacity_c=float(known.capacity.charge_c),
        ocv=ocv,
        resistance=None if known.resistance is None else _resistance(known.resistance, known.arrhenius),
        slow=None if slow is None else SlowTerm(c=slow.at_hand, k_per_s=1 / slow.time_constant_s),
        rate=None if rate is None else Curve(x=_logs(rate.current_a), y=_logs(rate.charge_c)),
        rated_a=_rated_a(known.capacity, ocv),
        loss_per_year=None if storage is None else _float(storage.loss_per_year),
        loss_doubling_k=None if known.loss_doubling is None else float(known.loss_doubling.step_k),
        shelf_s=None if storage is None else _float(storage.shelf_life_s),
        limits=Limits()
        if limits is None
        else Limits(continuous_a=_float(limits.continuous_a), pulse_a=_float(limits.pulse_a)),
        rechargeable=known.rechargeable,
        grades=grades,
        sources=sources,
        notes=notes,
    )


def _figures(known: profile.Cell) -> dict[str, profile.Figures]:
    """The tables that hold figures, by the names that Cell.grades has for them."""
    storage = known.storage
    parts: dict[str, profile.Figures | None] = {
        "capacity": known.capacity,
        "ocv": known.ocv,
        "resistance": known.resistance,
        "arrhenius": known.arrhenius,
        "slow": known.slow,
        "rate": known.rate,
        "limits": known.limits,
        "loss": None if storage is None or storage.loss_per_year is None else storage,
        "loss_doubling": known.loss_doubling,
        "shelf": None if storage is None or storage.shelf_life_s is None else storage,
    }
    return {name: part for name, part in parts.items() if part is not None}


def _resistance(known: profile.Resistance, cold: profile.Arrhenius | None) -> Resistance:
    share = known.fast_share or 0.0
    shape: Curve | Knee
    if known.knee is not None and known.width is not None and known.slope is not None and known.fresh_ohm is not None:
        shape, fresh_ohm = Knee(dk=known.knee, w=known.width, slope=known.slope), float(known.fresh_ohm)
    else:
        first = float(known.resistance_ohm[0])
        shape = Curve(x=known.depth, y=tuple(ohm / first for ohm in known.resistance_ohm))
        fresh_ohm = first / (1 + share)
    resistance = Resistance(
        fresh_ohm=fresh_ohm,
        shape=shape,
        fast_share=share,
        arrhenius_k=None if cold is None else float(cold.constant_k),
    )
    if known.fast_time_s is not None:
        resistance = replace(resistance, tau1_s=float(known.fast_time_s))
    if known.temperature_degc is not None:
        resistance = replace(resistance, reference_c=float(known.temperature_degc))
    return resistance


def _rated_a(capacity: profile.Capacity, ocv: Curve) -> float | None:
    """The current the charge is rated at; of a resistor at the mean voltage over the depth."""
    if capacity.current_a is not None or capacity.load_ohm is None:
        return _float(capacity.current_a)
    points = [(0.0, ocv.y[0]), *zip(ocv.x, ocv.y, strict=True), (1.0, ocv.y[-1])]
    mean_v = sum((b - a) * (left + right) / 2 for (a, left), (b, right) in pairwise(points))
    return mean_v / capacity.load_ohm


def _float(value: float | None) -> float | None:
    return None if value is None else float(value)


def _logs(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(math.log(value) for value in values)
