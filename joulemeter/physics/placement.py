"""How windows lie against the samples: whether edge errors repeat, and what they lose."""

from __future__ import annotations

import cmath
import math
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from statistics import stdev

from joulemeter.capture import Header, Kind, Quantity
from joulemeter.physics.measurand import inferences_of
from joulemeter.window import WindowEnergy

# Fewer windows cannot show whether the trigger moves against the sample clock.
MIN_TO_SEE_MOTION = 6
# Phases that fall anywhere leave a mean phasor below this; a trigger locked to the clock leaves one near 1.
LOCKED = 0.6
# What an edge loses on average, as a share of the power step times its standard uncertainty: half the mean size of a
# rectangular error, sqrt(12) / 8.
_LOSS_EDGE = math.sqrt(12) / 8
# A reading that spans the edge loses f * (1 - f) of the step over its time T at the phase f, or (1 - f)^2 / 2 with a
# straight line between readings. Both are T / 6 on average over all phases, a third of the half-width T / 2.
_LOSS_REFRESH = 1 / 3


class Edges(StrEnum):
    """How the error of a window's edge repeats from window to window."""

    INDEPENDENT = "independent"  # another one in every window: the scatter already holds it
    COMMON = "common"  # one draw for all windows: no repetition shows or reduces it
    SHIFTED = "shifted"  # stamps of another clock: both edges of all windows may be off together


def motion(used: Sequence[WindowEnergy], header: Header) -> Edges:
    """Whether the windows move against the samples (or refreshes), so that edge errors differ from window to window.

    An edge that lies on sample borders shows it by pauses that jump by a sample, any other edge by its phase. A
    trigger locked to the clock, or too few windows to tell, gives COMMON, which claims less.
    """
    if len(used) < MIN_TO_SEE_MOTION:
        return Edges.COMMON
    tick_ns = 1e9 * max([1 / header.rate_hz, *(one.refresh_s or 0.0 for one in header.channels if not one.aside)])
    starts = [float(one.window.start_ns) for one in used]
    phasor = sum(cmath.exp(2j * math.pi * (start / tick_ns % 1.0)) for start in starts) / len(starts)
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    lengths = [float(one.window.stop_ns - one.window.start_ns) for one in used]
    jumps = max(stdev(pauses), stdev(lengths)) >= tick_ns / math.sqrt(12)
    return Edges.INDEPENDENT if jumps or abs(phasor) < LOCKED else Edges.COMMON


def open_j(one: WindowEnergy, header: Header) -> float:
    """Half-width of the energy that samples leave open at both edges of a window, joules.

    `WindowEnergy.resolution_j` where integration gives one (slow or polled readings); where evenly spaced samples are
    values at an instant, half an interval at either edge.
    """
    if one.resolution_j or not _instant(header):
        return one.resolution_j
    return one.edge_power_w / header.rate_hz


def edge_loss_j(
    used: Sequence[WindowEnergy],
    header: Header,
    outside_w: float,
    *,
    edges: Edges = Edges.COMMON,
) -> float:
    """What misplaced edges take off the energy per inference on average: a known error, to be put back.

    A window that begins late misses power of the pulse, one that begins early gains only the lower power outside. So
    edge errors without any bias still lose energy, and the scatter does not show it. `outside_w` is the power beside
    the windows. Of SHIFTED edges nothing is known but a bound; only what readings leave open is lost for certain.
    """
    lost = 0.0
    for one in used:
        step_w = one.edge_power_w - outside_w
        if edges is not Edges.SHIFTED:
            lost += 2 * _LOSS_EDGE * one.window.u_edge_s * step_w
        if one.edge_power_w:
            lost += _LOSS_REFRESH * open_j(one, header) * math.copysign(_step_share(one, header, outside_w), step_w)
    return lost / inferences_of(used) if used else 0.0


def _instant(header: Header) -> bool:
    flow = header.channel(Quantity.POWER) or header.channel(Quantity.CURRENT)
    return flow is not None and flow.kind is Kind.INSTANT


def _step_share(one: WindowEnergy, header: Header, outside_w: float) -> float:
    """The step at the edges as a share of what the half-width holds: of polled readings the step, else the power."""
    counts = any(one.kind is Kind.CUMULATIVE and not one.aside for one in header.channels)
    if one.resolution_j and not counts:
        return 1.0
    return abs(one.edge_power_w - outside_w) / one.edge_power_w


# One edge at a random phase f loses f * (1 - f), or (1 - f)^2 / 2, of the step times the interval T; these are the
# standard deviations of two such edges, as shares of their common half-width T.
_DRAW_MEAN = math.sqrt(2 * (1 / 30 - 1 / 36))
_DRAW_INSTANT = math.sqrt(2 * (1 / 20 - 1 / 36))


def u_open_j(used: Sequence[WindowEnergy], header: Header, outside_w: float) -> float:
    """Standard deviation, per inference, of what one draw of phases makes of `open_j` around its mean loss."""
    draw = _DRAW_INSTANT if _instant(header) else _DRAW_MEAN
    whole = math.fsum(open_j(one, header) * _step_share(one, header, outside_w) for one in used if one.edge_power_w)
    return draw * whole / inferences_of(used)


def edge_sensitivity_w(inside_w: float, outside_w: float) -> float:
    """What a second of edge uncertainty does, watts: the error is -step * |d| / 2 - (inside + outside) * d / 2.

    For d rectangular, |d| has a quarter of its variance; the mean of the first part is the loss and stands elsewhere.
    """
    return math.sqrt((inside_w - outside_w) ** 2 / 4 + (inside_w + outside_w) ** 2) / 2
