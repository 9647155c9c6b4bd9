"""A second way to a battery's life: the circuit's equations stepped through the whole life, cycle after cycle.

Classical Runge-Kutta of fourth order on the equations as they are written in textbooks, with the depth of discharge
moving at every step and constant power truly constant. It shares nothing with the solver: no exponentials, no steady
state, no nodes. Slow, so cells are scaled down to some thousand cycles.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CURRENT, RESISTANCE, POWER = 0, 1, 2
KINDS = {"current": CURRENT, "resistance": RESISTANCE, "power": POWER}


@dataclass(frozen=True, kw_only=True)
class Case:
    """SI units; no farad and leak_s is zero. Resistance is fresh_ohm min(1 + 0.4 D + exp((D - dk) / w), 200)."""

    volts: tuple[tuple[float, ...], tuple[float, ...]]
    capacity_c: float
    fresh_ohm: float
    dk: float
    w: float
    fast_share: float
    tau1_s: float
    durations_s: tuple[float, ...]
    values: tuple[float, ...]
    kind: str
    cutoff_v: float
    farad: float = 0.0
    leak_s: float = 0.0
    loss_per_s: float = 0.0
    slow: tuple[float, float, float] | None = None  # share at hand, rate in 1/s, charge of both wells in C


def _stepped(
    dods: Any, volts: Any, cell: Any, durations: Any, values: Any, kind: int, cutoff: float, slow: Any, most: int
) -> tuple[float, float, int]:
    """(age, depth of discharge, what ended it: 0 rail, 1 charge, 2 charge at hand) at the end of the life."""
    capacity, fresh, dk, w, share, tau1, farad, leak, loss = cell
    c, rate, full = slow
    v1, age, dod, y1, y2 = 0.0, 0.0, 0.0, c * full, (1 - c) * full
    v = volts[0]
    for _ in range(most):
        for segment in range(len(durations)):
            span, value = durations[segment], values[segment]
            # Steps short against the fastest time of the circuit, and at least a few per segment.
            fastest = tau1 / (1 + share)
            if farad > 0:
                fastest = 1 / (1 / fastest + 1 / (fresh * farad))
            count = max(8, math.ceil(span / (0.4 * fastest)))
            h = span / count
            for step in range(count + 1):
                # The depth moves by less than a millionth within a step: constant over its four stages.
                place = min(max(int(np.searchsorted(dods, dod)) - 1, 0), len(dods) - 2)
                part = (dod - dods[place]) / (dods[place + 1] - dods[place])
                e = volts[place] + part * (volts[place + 1] - volts[place])
                r0 = fresh * min(1 + 0.4 * dod + math.exp((dod - dk) / w), 200.0)
                r1 = share * r0
                if farad == 0:
                    # The rail at once: the higher solution of v = e - v1 - r0 i(v).
                    if kind == 0:
                        v = e - v1 - r0 * value
                    elif kind == 1:
                        v = (e - v1) / (1 + r0 / value)
                    else:
                        square = (e - v1) ** 2 - 4 * r0 * value
                        v = ((e - v1) + math.sqrt(square)) / 2 if square >= 0 else 0.0
                if v < cutoff:
                    return age, dod, 0
                if dod >= 1:
                    return age, dod, 1
                if rate > 0 and y1 < 0:
                    return age, dod, 2
                if step == count:
                    break
                k1a = k1b = k2a = k2b = k3a = k3b = k4a = k4b = 0.0
                total = 0.0
                for stage in range(4):
                    if stage == 0:
                        a, b = v1, v
                    elif stage == 1:
                        a, b = v1 + h / 2 * k1a, v + h / 2 * k1b
                    elif stage == 2:
                        a, b = v1 + h / 2 * k2a, v + h / 2 * k2b
                    else:
                        a, b = v1 + h * k3a, v + h * k3b
                    if farad > 0:
                        ib = (e - a - b) / r0
                        out = value if kind == 0 else (b / value if kind == 1 else value / max(b, 1e-3))
                        slope = (ib - out - leak * b) / farad
                    else:
                        if kind == 0:
                            ib = value
                        elif kind == 1:
                            ib = (e - a) / (value + r0)
                        else:
                            square = (e - a) ** 2 - 4 * r0 * value
                            ib = value / (((e - a) + math.sqrt(max(square, 0.0))) / 2)
                        slope = 0.0
                    rise = (r1 * ib - a) / tau1
                    if stage == 0:
                        k1a, k1b = rise, slope
                        total += ib
                    elif stage == 1:
                        k2a, k2b = rise, slope
                        total += 2 * ib
                    elif stage == 2:
                        k3a, k3b = rise, slope
                        total += 2 * ib
                    else:
                        k4a, k4b = rise, slope
                        total += ib
                v1 += h / 6 * (k1a + 2 * k2a + 2 * k3a + k4a)
                v += h / 6 * (k1b + 2 * k2b + 2 * k3b + k4b)
                drawn = total / 6
                if rate > 0:
                    # Manwell and McGowan: the flow between the wells follows their heights.
                    flow = rate * c * (1 - c) * (y2 / (1 - c) - y1 / c)
                    y1 += h * (flow - drawn)
                    y2 -= h * flow
                dod += h * (drawn / capacity + loss)
                age += h
    return math.nan, dod, -1


def life(case: Case, *, most: int = 2_000_000) -> tuple[float, float, int]:
    """(age in s, depth of discharge, what ended it) by brute force."""
    stepped = compiled() or _stepped
    cell = (case.capacity_c, case.fresh_ohm, case.dk, case.w, case.fast_share, case.tau1_s, case.farad, case.leak_s)
    age, dod, why = stepped(
        np.array(case.volts[0]),
        np.array(case.volts[1]),
        (*cell, case.loss_per_s),
        np.array(case.durations_s),
        np.array(case.values),
        KINDS[case.kind],
        case.cutoff_v,
        case.slow or (0.5, 0.0, 1.0),
        most,
    )
    return float(age), float(dod), int(why)


_COMPILED: list[Callable[..., tuple[float, float, int]]] = []


def compiled() -> Callable[..., tuple[float, float, int]] | None:
    """The stepper as machine code, about a hundred times as fast; None without numba."""
    if not _COMPILED:
        try:
            import numba
        except ImportError:
            return None
        _COMPILED.append(numba.njit(_stepped))
    return _COMPILED[0]
