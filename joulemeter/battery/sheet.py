"""Rail and mean current against depth of discharge: what the circuit says of one cell under one load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulemeter.battery.cell import Cell, Curve, Float
from joulemeter.battery.circuit import Nodes, Rail, Steps, steady, transient
from joulemeter.battery.load import REST, Event, Kind, Load
from joulemeter.battery.supply import Supply

# Mean currents over this long count as continuous: diffusion in a cell takes minutes to hours.
SUSTAINED_S = 600.0
# Steps of a slow well's ripple matter only where the cycle is not short against its time.
SHORT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sheet:
    """Columns over nodes (n,) of depth `dod`.

    low_v      (k, n) lowest rail of each labelled step: the cycle's, then the events'
    high_v     highest rail of the cycle
    mean_a     mean current out of the cell, events and the capacitor's leakage included
    cycle_a    (s, n) mean current of each step of the cycle
    event_a    for each event (s, n) the current of each step above the cycle's rest
    lag_s      slowest time constant of the circuit, in s
    """

    dod: Float
    low_v: Float
    high_v: Float
    mean_a: Float
    cycle_a: Float
    event_a: tuple[Float, ...]
    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bench:
    """Cell, load and supply ready to be solved: the load as the rail sees it.

    `labels` name the rows of Sheet.low_v; `events` are each event's own steps on top of the rest, which is `base`:
    (a, g, p) of the cycle's least step.
    """

    cell: Cell
    load: Load
    supply: Supply
    cycle: Steps
    events: tuple[Steps, ...]
    base: tuple[float, float, float]
    labels: tuple[str, ...]

    def grid(self, nodes: int) -> Float:
        """Depths to look at: evenly spaced, and where the cell's tables bend."""
        tables = [self.cell.ocv]
        if self.cell.resistance is not None and isinstance(self.cell.resistance.shape, Curve):
            tables.append(self.cell.resistance.shape)
        bends = np.clip(np.concatenate([table.x for table in tables]), 0.0, 1.0)
        return np.unique(np.concatenate([np.linspace(0.0, 1.0, nodes), bends]))

    def sheet(self, dod: Float, *, ir_scale: Float | float = 1.0, farad_scale: Float | float = 1.0) -> Sheet:
        """The sheet at depths `dod` (n,), resistances and capacitor scaled by factors that broadcast to it.

        With several temperatures the rail is the lowest of them and currents are means by their shares.
        """
        parts = [
            self._at(dod, celsius, np.broadcast_to(ir_scale, dod.shape), np.broadcast_to(farad_scale, dod.shape))
            for celsius, _ in self.supply.climate
        ]
        if len(parts) == 1:
            return parts[0]
        shares = np.array([share for _, share in self.supply.climate])

        def mean(rows: list[Float]) -> Float:
            return np.tensordot(shares, np.array(rows), 1)

        return Sheet(
            dod=dod,
            low_v=np.min([part.low_v for part in parts], axis=0),
            high_v=np.max([part.high_v for part in parts], axis=0),
            mean_a=mean([part.mean_a for part in parts]),
            cycle_a=mean([part.cycle_a for part in parts]),
            event_a=tuple(mean([part.event_a[i] for part in parts]) for i in range(len(self.events))),
            lag_s=max(part.lag_s for part in parts),
        )

    def nodes(self, dod: Float, celsius: float, ir_scale: Float, farad_scale: Float) -> Nodes:
        """The circuit at each depth. Without a resistance there is no sag, and a capacitor does nothing."""
        e = self.cell.ocv.at(dod)
        resistance, capacitor = self.cell.resistance, self.supply.capacitor
        if resistance is None:
            return Nodes(e=e, r0=np.zeros_like(e), r1=np.zeros_like(e), tau1_s=1.0)
        r0, r1 = resistance.ohm(dod, celsius)
        return Nodes(
            e=e,
            r0=r0 * ir_scale,
            r1=r1 * ir_scale,
            tau1_s=resistance.tau1_s,
            farad=None if capacitor is None else capacitor.farad_at(e) * farad_scale,
            leak_s=1 / capacitor.leakage_ohm if capacitor is not None and capacitor.leakage_ohm else 0.0,
        )

    def _at(self, dod: Float, celsius: float, ir_scale: Float, farad_scale: Float) -> Sheet:
        nodes = self.nodes(dod, celsius, ir_scale, farad_scale)
        floor_v = 0.98 * self.supply.rail_cutoff_v
        fine = {"capacitor": nodes.farad is not None, "r1": bool(nodes.r1.max() > 0)}
        cycle = self.cycle.cut(**fine)
        rail = steady(nodes, cycle, floor_v)
        mean_a = _mean(rail.mean_a, cycle.durations_s)
        lows = [_lowest(rail.low_v, cycle.group)]
        extra: list[Float] = []
        for event, steps in zip(self.load.events, self.events, strict=True):
            above, low, group = self._event(nodes, steps.cut(**fine), rail, floor_v)
            mean_a = mean_a + (above * steps.durations_s[:, None]).sum(axis=0) / event.every_s
            lows.append(_lowest(low, group))
            extra.append(above)
        lag_s = nodes.tau1_s if fine["r1"] else 0.0
        if nodes.farad is not None:
            lag_s = max(lag_s, float((nodes.farad * (nodes.r0 + nodes.r1)).max()))
        return Sheet(
            dod=dod,
            low_v=np.concatenate(lows),
            high_v=rail.high_v.max(axis=0),
            mean_a=mean_a,
            cycle_a=_merged(rail.mean_a, cycle),
            event_a=tuple(extra),
            lag_s=lag_s,
        )

    def _event(self, nodes: Nodes, steps: Steps, cycle: Rail, floor_v: float) -> tuple[Float, Float, NDArray[np.int64]]:
        """Current of each step above the rest, its lowest rail, and groups.

        It starts where the cycle has left the circuit at its worst: the fast pair at its highest and the rail at its
        lowest. A lower start never gives a higher rail, so no moment of the cycle is worse. The device is taken to do
        one thing at a time: cycle and event do not draw together.
        """
        rail = transient(nodes, steps, floor_v, cycle.v1.max(axis=0), cycle.low_v.min(axis=0))
        volts = np.maximum(rail.mean_v, floor_v)
        a, g, p = self.base
        above = (steps.a - a)[:, None] + (steps.g - g)[:, None] * rail.mean_v + (steps.p - p)[:, None] / volts
        return _merged(above, steps), rail.low_v, steps.group


def _mean(rows: Float, durations_s: Float) -> Float:
    mean: Float = (rows * durations_s[:, None]).sum(axis=0) / durations_s.sum()
    return mean


def _lowest(rows: Float, group: NDArray[np.int64]) -> Float:
    """Minimum over the pieces of each step."""
    return np.minimum.reduceat(rows, np.flatnonzero(np.diff(group, prepend=-1)), axis=0)


def _merged(rows: Float, steps: Steps) -> Float:
    """Mean over the pieces of each step, by duration."""
    begins = np.flatnonzero(np.diff(steps.group, prepend=-1))
    weights = steps.durations_s[:, None]
    return np.add.reduceat(rows * weights, begins, axis=0) / np.add.reduceat(weights, begins, axis=0)


def bench(cell: Cell, load: Load, supply: Supply) -> Bench:
    """Cell, load and supply put together. UsageError where the regulator lacks what the load's kind needs."""
    profile = load.profile
    a, g, p = supply.regulator.seen(profile.kind, profile.values)
    durations, labels = profile.durations_s, list(profile.labels)
    if load.rest_s > 0:
        rest = supply.regulator.seen(Kind.CURRENT, np.array([load.rest_a or 0.0]))
        a, g, p = (np.append(part, one) for part, one in zip((a, g, p), rest, strict=True))
        durations = np.append(durations, load.rest_s)
        labels.append(REST)
    cycle = Steps(durations_s=durations, a=a + supply.regulator.quiescent_a, g=g, p=p, group=np.arange(len(durations)))
    volts = float(np.mean(cell.ocv.y))
    quiet = int(np.argmin(cycle.a + cycle.g * volts + cycle.p / volts))
    base = (float(cycle.a[quiet]), float(cycle.g[quiet]), float(cycle.p[quiet]))
    events = []
    for event in load.events:
        more = supply.regulator.seen(event.profile.kind, event.profile.values)
        a, g, p = (part + under for part, under in zip(more, base, strict=True))
        group = np.arange(len(a))
        events.append(Steps(durations_s=event.profile.durations_s, a=a, g=g, p=p, group=group))
        labels += [_named(event, label) for label in event.profile.labels]
    return Bench(
        cell=cell, load=load, supply=supply, cycle=cycle, events=tuple(events), base=base, labels=tuple(labels)
    )


def _named(event: Event, label: str) -> str:
    return event.label if label == event.label or len(event.profile.labels) == 1 else f"{event.label}: {label}"


def sustained_a(sheet: Sheet, bench: Bench) -> float:
    """Largest mean current over SUSTAINED_S, or over the whole cycle where that is shorter, of the fresh cell."""
    span_s = SUSTAINED_S
    durations, currents = bench.cycle.durations_s, sheet.cycle_a[:, 0]
    most = _window(durations, currents, span_s) if durations.sum() > span_s else _weighted(durations, currents)
    extra = 0.0
    for steps, above in zip(bench.events, sheet.event_a, strict=True):
        own = steps.durations_s
        extra = max(extra, _window(np.append(own, span_s), np.append(above[:, 0], 0.0), span_s))
    return most + extra


def _weighted(durations_s: Float, currents_a: Float) -> float:
    return float((durations_s * currents_a).sum() / durations_s.sum())


def _window(durations_s: Float, currents_a: Float, span_s: float) -> float:
    """Largest mean over any `span_s` of a repeated profile; it begins or ends at an edge of a step."""
    edges = np.concatenate([[0.0], np.cumsum(np.tile(durations_s, 3))])
    charge = np.concatenate([[0.0], np.cumsum(np.tile(durations_s * currents_a, 3))])
    starts = np.concatenate([edges, edges - span_s])
    starts = starts[(starts >= 0) & (starts + span_s <= edges[-1])]
    drawn = np.interp(starts + span_s, edges, charge) - np.interp(starts, edges, charge)
    return float(drawn.max() / span_s)


def ripple(durations_s: Float, currents_a: Float, rate_per_s: float) -> Float:
    """Highest less mean, in A s, of d' = I - rate d under the repeated steps `currents_a` (s, n); an array (n,)."""
    if durations_s.sum() * rate_per_s < SHORT:
        return np.zeros(currents_a.shape[1])
    decay = np.exp(-rate_per_s * durations_s)[:, None]
    gain = currents_a * -np.expm1(-rate_per_s * durations_s)[:, None] / rate_per_s
    offset, share = np.zeros(currents_a.shape[1]), 1.0
    for index in range(len(durations_s)):
        offset = decay[index] * offset + gain[index]
        share *= float(decay[index, 0])
    value = offset / (1 - share)
    highest = value
    for index in range(len(durations_s)):
        value = decay[index] * value + gain[index]
        highest = np.maximum(highest, value)
    mean = _mean(currents_a, durations_s) / rate_per_s
    return np.maximum(highest - mean, 0.0)
