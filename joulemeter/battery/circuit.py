"""The rail within one cycle, solved exactly for a circuit that does not change meanwhile.

Cell E behind R0 and one pair R1, tau1; capacitor C with leakage at the rail; load a + g v + p / v, constant per step.
With ib the cell's current and v the rail:

    tau1 v1' = R1 ib - v1            R0 ib = E - v1 - v
    C v' = ib - a - (g + leak) v - p / v         (without a capacitor: ib = a + g v + p / v)

Each step is an affine map of the state, found from the two real exponentials of its matrix; the map of a cycle is their
composition, x -> M x + f, and the periodic steady state solves (I - M) x = f, whatever the ratio of the circuit's times
to the period. p / v is replaced by its tangent at the step's mean voltage, which is repeated until that stands still
(Newton's method). Below `floor_v`, where the life has ended anyway, constant power becomes constant current, so that a
load that the cell cannot feed gives a low rail and no riddle.

Arrays are (s, n): s steps, n nodes (depths of discharge, temperatures, cells), solved together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from joulemeter.battery.cell import Float

# Steps of constant power are cut here, because the tangent must hold within a piece: fine where transients are.
CUTS: Final = np.array([0.0, 0.01, 0.05, 0.17, 0.4, 0.7, 1.0])
PASSES: Final = 30
# What is left then is far less, because the passes converge quadratically.
SETTLED_V: Final = 1e-5
COLLAPSED_V: Final = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Nodes:
    """The circuit at each node (n,): volts, ohms, farads (None: no capacitor), siemens of leakage; `tau1_s` for all."""

    e: Float
    r0: Float
    r1: Float
    tau1_s: float
    farad: Float | None = None
    leak_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """The load at the rail, (s,) each: seconds, A, S, W; `group` is the step of the profile that each belongs to."""

    durations_s: Float
    a: Float
    g: Float
    p: Float
    group: NDArray[np.int64]

    def cut(self, *, capacitor: bool, r1: bool) -> Steps:
        """Steps of constant power in pieces. Nothing moves within one where there is no state at all."""
        if not (self.p > 0).any() or not (capacitor or r1):
            return self
        pieces = np.where(self.p > 0, len(CUTS) - 1, 1)
        share = [np.diff(CUTS) if powered else np.ones(1) for powered in self.p > 0]
        return Steps(
            durations_s=np.repeat(self.durations_s, pieces) * np.concatenate(share),
            a=np.repeat(self.a, pieces),
            g=np.repeat(self.g, pieces),
            p=np.repeat(self.p, pieces),
            group=np.repeat(self.group, pieces),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rail:
    """What happens at the rail, step by step.

    low_v, high_v, mean_v   (s, n), extremes within each step included
    mean_a                  (s, n) mean current out of the cell, of the load and the capacitor's leakage
    swing_v                 (s, n) rail at the step's end less that at its begin
    v1                      (s + 1, n) voltage over the fast pair at each step's edge
    """

    low_v: Float
    high_v: Float
    mean_v: Float
    mean_a: Float
    swing_v: Float
    v1: Float


def steady(nodes: Nodes, steps: Steps, floor_v: float) -> Rail:
    """The periodic steady state of `steps`, repeated for ever."""
    return _solve(nodes, steps, floor_v, None)


def transient(nodes: Nodes, steps: Steps, floor_v: float, v1: Float, rail_v: Float) -> Rail:
    """`steps` once, from the fast pair at `v1` and, with a capacitor, the rail at `rail_v` (n,)."""
    return _solve(nodes, steps, floor_v, (v1, rail_v))


def _solve(nodes: Nodes, steps: Steps, floor_v: float, start: tuple[Float, Float] | None) -> Rail:
    def once(volts: Float, swing: Float) -> Rail:
        a, g = _tangent(nodes, steps, volts, swing, floor_v)
        if nodes.farad is None:
            return _bare(nodes, steps, a, g, start, floor_v)
        return _buffered(nodes, nodes.farad, steps, a, g, start)

    powered = bool((steps.p > 0).any())
    shape = (len(steps.durations_s), len(nodes.e))
    swing = np.zeros(shape)
    volts = np.broadcast_to(np.maximum(nodes.e, floor_v), shape)
    rail = once(volts, swing)
    if not powered:
        return rail
    for _ in range(PASSES):
        volts = np.maximum(np.minimum(rail.mean_v, nodes.e), floor_v)
        rail = once(volts, np.clip(rail.swing_v, -volts, volts))
        # From above, the passes only come down: what is below the floor now stays there and may do so unsettled.
        fed = (rail.low_v > floor_v).all(axis=0)
        away = np.abs(rail.mean_v - volts).max(axis=0)
        if away[fed].max(initial=0.0) < SETTLED_V:
            break
    return _collapsed(nodes, steps, rail, fed & (away > COLLAPSED_V), floor_v)


def _collapsed(nodes: Nodes, steps: Steps, rail: Rail, where: NDArray[np.bool_], floor_v: float) -> Rail:
    """`rail` with nothing left of it at the nodes where the passes found no level: the cell cannot give that power."""
    if not where.any():
        return rail
    asked = (steps.a + steps.p / floor_v)[:, None] + steps.g[:, None] * nodes.e
    return Rail(
        low_v=np.where(where, 0.0, rail.low_v),
        high_v=np.where(where, nodes.e, rail.high_v),
        mean_v=np.where(where, floor_v, rail.mean_v),
        mean_a=np.where(where, asked, rail.mean_a),
        swing_v=np.where(where, 0.0, rail.swing_v),
        v1=np.where(where, 0.0, rail.v1),
    )


def _tangent(nodes: Nodes, steps: Steps, volts: Float, swing: Float, floor_v: float) -> tuple[Float, Float]:
    """(A, G) of the load's current A + G v: a + g v + p / v near `volts`, with p / floor_v at and below the floor.

    The curve lies above its tangent, by p / v³ times the mean square of the departure: a twelfth of `swing` squared.
    Where the tangent falls faster than the cell's own line, over the length of the step, there is no stable rail; a
    secant just short of that keeps the steps solvable, and the passes then walk down to the floor.
    """
    p = steps.p[:, None]
    with np.errstate(divide="ignore"):
        settled = -np.expm1(-steps.durations_s[:, None] / nodes.tau1_s)
        most = 0.95 / (nodes.r0 + nodes.r1 * settled)
    above = volts > floor_v
    fall = np.where(above, np.minimum(p / volts**2, most), 0.0)
    bend = np.where(above, p / volts**3 * swing**2 / 12, 0.0)
    return steps.a[:, None] + p / volts + bend + fall * volts, steps.g[:, None] - fall


def _phi(x: Float) -> tuple[Float, Float]:
    """(exp(x) - 1) / x and (exp(x) - 1 - x) / x², also near zero."""
    small = np.abs(x) < 1e-2
    safe = np.where(small, 1.0, x)
    grown = np.expm1(safe)
    first = np.where(small, 1 + x * (1 / 2 + x * (1 / 6 + x * (1 / 24 + x / 120))), grown / safe)
    second = np.where(small, 1 / 2 + x * (1 / 6 + x * (1 / 24 + x * (1 / 120 + x / 720))), (grown - safe) / safe**2)
    return first, second


def _bare(nodes: Nodes, steps: Steps, a: Float, g: Float, start: tuple[Float, Float] | None, floor_v: float) -> Rail:
    """Without a capacitor the rail follows at once: v = (E - v1 - R0 A) / (1 + R0 G), and v1 is one exponential."""
    t = steps.durations_s[:, None]
    slope = 1 + nodes.r0 * g
    # Of v1' = -l v1 + b.
    rate = (1 + nodes.r1 * g / slope) / nodes.tau1_s
    drive = nodes.r1 * (a + g * nodes.e) / slope / nodes.tau1_s
    first, second = _phi(-rate * t)
    decay = np.exp(-rate * t)
    gain = drive * t * first
    v1 = np.empty((len(t) + 1, len(nodes.e)))
    if start is None:
        share, offset = np.ones(len(nodes.e)), np.zeros(len(nodes.e))
        for index in range(len(t)):
            share = decay[index] * share
            offset = decay[index] * offset + gain[index]
        v1[0] = offset / np.maximum(1 - share, 1e-15)
    else:
        v1[0] = start[0]
    for index in range(len(t)):
        v1[index + 1] = decay[index] * v1[index] + gain[index]
    begin, end = (_at_once(nodes, steps, edge, floor_v) for edge in (v1[:-1], v1[1:]))
    mean_v1 = v1[:-1] * first + drive * t * second
    mean_v = (nodes.e - mean_v1 - nodes.r0 * a) / slope
    return Rail(
        low_v=np.minimum(begin, end),
        high_v=np.maximum(begin, end),
        mean_v=mean_v,
        mean_a=a + g * mean_v,
        swing_v=end - begin,
        v1=v1,
    )


def _at_once(nodes: Nodes, steps: Steps, v1: Float, floor_v: float) -> Float:
    """The rail (s, n) for the fast pair at `v1`: the higher root of v = E - v1 - R0 (a + g v + p / v)."""
    a, g, p = (part[:, None] for part in (steps.a, steps.g, steps.p))
    open_v, slope, drop = nodes.e - v1 - nodes.r0 * a, 1 + nodes.r0 * g, nodes.r0 * p
    square = open_v**2 - 4 * slope * drop
    root = (open_v + np.sqrt(np.maximum(square, 0.0))) / (2 * slope)
    fed = (square >= 0) & ((root > floor_v) | (p == 0))
    return np.where(fed, np.where(p > 0, root, open_v / slope), (open_v - drop / floor_v) / slope)


def _buffered(nodes: Nodes, farad: Float, steps: Steps, a: Float, g: Float, start: tuple[Float, Float] | None) -> Rail:
    """With a capacitor: x = (v1, v), x' = m x + b; its eigenvalues are real, as m12 and m21 agree in sign."""
    t = steps.durations_s[:, None]
    ratio, tau1 = nodes.r1 / nodes.r0, nodes.tau1_s
    shape = a.shape
    m11, m12 = -(1 + ratio) / tau1, -ratio / tau1
    m21 = -1 / (nodes.r0 * farad)
    m22 = m21 - (g + nodes.leak_s) / farad
    b1 = np.broadcast_to(ratio * nodes.e / tau1, shape)
    b2 = nodes.e / (nodes.r0 * farad) - a / farad
    half, middle = (m11 - m22) / 2, (m11 + m22) / 2
    spread = np.sqrt(np.maximum(half**2 + m12 * m21, (1e-7 * middle) ** 2))
    l1, l2 = middle + spread, middle - spread
    first1, second1 = _phi(l1 * t)
    first2, second2 = _phi(l2 * t)
    h1, h2 = first1 * t, first2 * t
    width = 2 * spread
    p11, p12, p21, p22 = (m11 - l2) / width, m12 / width, m21 / width, (m22 - l2) / width
    q11, q12, q21, q22 = (l1 - m11) / width, -p12, -p21, (l1 - m22) / width
    grow1, grow2 = l1 * h1, l2 * h2
    # (Phi - I, response to b) of each step. Differences from the identity keep I - M exact for slow modes.
    maps = np.empty((len(t), 2, 3, shape[1]))
    maps[:, 0, 0], maps[:, 0, 1] = grow1 * p11 + grow2 * q11, grow1 * p12 + grow2 * q12
    maps[:, 1, 0], maps[:, 1, 1] = grow1 * p21 + grow2 * q21, grow1 * p22 + grow2 * q22
    maps[:, 0, 2] = (h1 * p11 + h2 * q11) * b1 + (h1 * p12 + h2 * q12) * b2
    maps[:, 1, 2] = (h1 * p21 + h2 * q21) * b1 + (h1 * p22 + h2 * q22) * b2
    until = _composed(maps)
    x = _fixed_point(until[-1]) if start is None else np.stack(start)
    states = x + until[:, :, 0] * x[0] + until[:, :, 1] * x[1] + until[:, :, 2]
    v1, v = states[:, 0], states[:, 1]
    # v(t) = v0 + k1 h1(t) + k2 h2(t), from the slopes at the step's begin; extreme where k1 exp(l1 t) = -k2 exp(l2 t).
    s1 = m11 * v1[:-1] + m12 * v[:-1] + b1
    s2 = m21 * v1[:-1] + m22 * v[:-1] + b2
    k1, k2 = p21 * s1 + p22 * s2, q21 * s1 + q22 * s2
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.log(-k2 / k1) / width
    inside = (turn > 0) & (turn < t)
    turn = np.where(inside, turn, 0.0)
    between = v[:-1] + turn * (k1 * _phi(l1 * turn)[0] + k2 * _phi(l2 * turn)[0])
    mean_v = v[:-1] + t * (k1 * second1 + k2 * second2)
    # The cell's mean current from the charge balance of the step.
    mean_a = a + (g + nodes.leak_s) * mean_v + farad * (v[1:] - v[:-1]) / t
    return Rail(
        low_v=np.minimum(np.minimum(v[:-1], v[1:]), between),
        high_v=np.maximum(np.maximum(v[:-1], v[1:]), between),
        mean_v=mean_v,
        mean_a=mean_a,
        swing_v=v[1:] - v[:-1],
        v1=v1,
    )


def _composed(maps: Float) -> Float:
    """Steps x -> x + d x + f as (d, f), (s, 2, 3, n), composed from the first to each edge: (s + 1, 2, 3, n)."""
    until = np.zeros((len(maps) + 1, *maps.shape[1:]))
    for index, step in enumerate(maps):
        before = until[index]
        until[index + 1] = before + step + step[:, 0, None] * before[0] + step[:, 1, None] * before[1]
    return until


def _fixed_point(cycle: Float) -> Float:
    """x (2, n) with x = x + d x + f, for a cycle (d, f) of (2, 3, n)."""
    (d11, d12, f1), (d21, d22, f2) = cycle
    x: Float = np.stack([d12 * f2 - d22 * f1, d21 * f1 - d11 * f2]) / (d11 * d22 - d12 * d21)
    return x
