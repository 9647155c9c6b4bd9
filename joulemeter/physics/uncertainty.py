"""The budget: what each known source of doubt contributes to a result (JCGM 100:2008, "GUM"), term by term.

Random terms come from the scatter of the windows (type A) and shrink with repetition. Systematic terms come from the
instrument's accuracy table, the voltage, the clock and the edges (type B); repeating does not reduce them.
`docs/uncertainty.md` explains every term; `combine.py` makes one interval of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from joulemeter.capture import Accuracy, Channel, Distribution, Header, Limit, Quantity
from joulemeter.physics.measurand import Measurand, Share, inferences_of
from joulemeter.physics.placement import Edges, edge_loss_j, edge_sensitivity_w, open_j, u_open_j
from joulemeter.physics.stats import Spread
from joulemeter.result import Term
from joulemeter.window import WindowEnergy

# Maker's figures hold from 18 to 28 degrees Celsius; each kelvin outside adds this share of them (Keithley 2450,
# SPEC-2450 rev A; the only general rule a maker gives).
AMBIENT_C = (18.0, 28.0)
WIDER_PER_KELVIN = 0.15
# Each year that calibration is overdue adds this share (two-year columns of the DMM6500 are 1.17 to 1.25 times the
# one-year ones).
WIDER_PER_YEAR = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What only the user knows about the measurement. None: as the maker's figures suppose.

    `resolution` is the smallest step of a reading by channel name, in the channel's unit; give it where the accuracy
    table does not hold it already (a maker's "digits" do). `decoupling_f` and `source_ohm` are the capacitance at the
    board's supply and the resistance in front of it, the meter's shunt included.
    """

    ambient_c: float | None = None
    calibrated_years_ago: float | None = None
    calibration_interval_years: float = 1.0
    resolution: Mapping[str, float] = field(default_factory=dict)
    decoupling_f: float | None = None
    source_ohm: float | None = None

    @property
    def widening(self) -> float:
        """The factor on every figure of the accuracy table."""
        low, high = AMBIENT_C
        ambient_c = low if self.ambient_c is None else self.ambient_c
        outside_k = max(low - ambient_c, ambient_c - high, 0.0)
        overdue = max((self.calibrated_years_ago or 0.0) - self.calibration_interval_years, 0.0)
        return (1 + WIDER_PER_KELVIN * outside_k) * (1 + WIDER_PER_YEAR * overdue)

    @property
    def lag_s(self) -> float:
        """How much later than the board a meter sees the current: the time constant of supply and capacitor."""
        return (self.decoupling_f or 0.0) * (self.source_ohm or 0.0)


def budget(
    used: Sequence[WindowEnergy],
    header: Header,
    spread: Spread,
    *,
    idle: Sequence[WindowEnergy] = (),
    conditions: Conditions | None = None,
    edges: Edges = Edges.COMMON,
    refresh: Edges = Edges.COMMON,
    outside_w: float | None = None,
) -> tuple[Term, ...]:
    """Terms of the energy per inference, in joules.

    `used` are the windows behind `spread`, all with energy; `spread` is that of the values whose median is reported.
    With `idle` windows the terms are those of net energy: idle power times the duration taken off. `edges` and
    `refresh` say how the errors of edges and of slow readings repeat; INDEPENDENT ones are left to the scatter where
    there is one. Where `outside_w`, the power beside the windows, is known, edge terms stand for what is left after
    placement.edge_loss_j has been put back, and a quarter of that loss is taken as not known; else for the bound.

    Gains of several ranges add linearly, being one reference seen through several dividers; offsets of ranges add as
    independent terms weighted by the time spent there. A range without a row gets the widest row of the table.
    """
    conditions = conditions or Conditions()
    measurand = Measurand(used, idle, header)
    terms = _scatter(spread)
    for channel, share in measurand.deciding():
        terms += _accuracy(channel, share, conditions)
        total_j = math.fsum(share.scaling.values())
        terms += [_type_b(share.name + one.name, one.limit, "1", total_j, one.source) for one in channel.factors]
    if measurand.stated is not None:
        volts = measurand.stated
        text = f"{volts.basis} voltage, {volts.volts:g} V"
        terms.append(_type_b("voltage", volts.limit, "V", measurand.energy_j / volts.volts, text))
    terms.append(_type_b("sample clock", header.clock, "1", measurand.energy_j, "limit of the instrument's clock"))
    if measurand.u_edge_s and (edges is not Edges.INDEPENDENT or spread.u_median is None):
        terms.append(_edges(measurand, header, None if edges is Edges.SHIFTED else outside_w))
    left_open_j = math.fsum(open_j(one, header) for one in used) / inferences_of(used)
    if left_open_j and (refresh is not Edges.INDEPENDENT or spread.u_median is None):
        text = "what the refresh or spacing of readings leaves open at the edges"
        limit = Limit(value=left_open_j)
        if outside_w is not None:
            limit = Limit(value=u_open_j(used, header, outside_w), distribution=Distribution.NORMAL)
        terms.append(_type_b("refresh", limit, "J", 1.0, text))
    loss_j = 0.0 if outside_w is None else edge_loss_j(used, header, outside_w, edges=edges)
    if loss_j:
        text = "the power step at the edges, which decides what misplaced edges lose, is known to a quarter"
        terms.append(_type_b("edge loss", Limit(value=abs(loss_j) / 4), "J", 1.0, text))
    if measurand.altered_j:
        limit = Limit(value=measurand.altered_j)
        terms.append(_type_b("range switch", limit, "J", 1.0, "energy hidden by the filter after range switches"))
    skew = measurand.main.u_delay
    if skew is not None:
        beside_w = 0.0 if outside_w is None else (outside_w - measurand.net_of_w) * measurand.per_window
        text = "delay between trigger and current: what is gained at one edge less what is lost at the other"
        terms.append(_type_b("skew", skew, "s", abs(measurand.step_w - beside_w), text))
    if conditions.lag_s:
        text = "energy that the board's capacitors move across the edges"
        terms.append(_type_b("decoupling", Limit(value=conditions.lag_s), "s", measurand.step_w, text))
    return tuple(terms)


def systematic(terms: Sequence[Term]) -> float:
    """Root sum of squares of the systematic terms."""
    return math.sqrt(math.fsum(term.contribution_j**2 for term in terms if not term.random))


def relative_gain(terms: Sequence[Term], energy_j: float) -> float:
    """Standard uncertainty of everything that scales with energy, as a ratio."""
    scaling = [term for term in terms if term.unit == "1" or term.term == "voltage"]
    return math.sqrt(math.fsum(term.contribution_j**2 for term in scaling)) / abs(energy_j)


def mean_power(terms: Sequence[Term], used: Sequence[WindowEnergy]) -> tuple[Term, ...]:
    """Terms of the energy per inference made terms of the mean power while the model runs; contributions in watts.

    Energy and time come from the same clock, so its error cancels. An edge that is off adds its power but lengthens
    the time as well, so only the difference of edge and mean power counts.
    """
    latency_s = math.fsum(one.window.duration_s for one in used) / inferences_of(used)
    mean_w = math.fsum(one.energy_j or 0.0 for one in used) / inferences_of(used) / latency_s
    edge_w = math.fsum(one.edge_power_w for one in used) / len(used)
    factors = {"sample clock": 0.0, "window edges": abs(edge_w - mean_w) / edge_w if edge_w else 0.0}
    return tuple(_scaled(term, factors.get(term.term, 1.0) / latency_s) for term in terms)


def at_one_volt(used: Sequence[WindowEnergy], header: Header) -> tuple[list[WindowEnergy], Header]:
    """Windows and header in which joules are coulombs, so that `budget` gives the terms of the charge.

    Where no voltage is known the charge of each range is unknown too; it then counts in the widest row of the table.
    """
    flows = (Quantity.CURRENT, Quantity.CHARGE)
    plain = tuple(channel for channel in header.channels if channel.quantity in flows and not channel.aside)
    return [_in_coulombs(one) for one in used], replace(header, channels=plain, voltage=None)


def _in_coulombs(one: WindowEnergy) -> WindowEnergy:
    charge_c = one.charge_c or 0.0
    known = one.energy_j is not None and charge_c
    per_volt = charge_c / one.energy_j if known and one.energy_j else 0.0
    return replace(
        one,
        energy_j=one.charge_c,
        edge_power_w=one.edge_power_w * per_volt,
        resolution_j=one.resolution_j * per_volt,
        altered_j=one.altered_j * per_volt,
        energy_by_range_j={key: part * per_volt for key, part in one.energy_by_range_j.items()}
        if per_volt
        else {None: charge_c},
    )


def _scaled(term: Term, factor: float) -> Term:
    return replace(term, sensitivity=term.sensitivity * factor, contribution_j=term.contribution_j * factor)


# -- the terms ---------------------------------------------------------------------------------------------------------


def _scatter(spread: Spread) -> list[Term]:
    if spread.u_median is None or spread.stdev is None:
        return []
    return [
        Term(
            term="repeatability",
            type="A",
            distribution="normal",
            value=spread.stdev,
            unit="J",
            sensitivity=spread.u_median / spread.stdev if spread.stdev else 0.0,
            contribution_j=spread.u_median,
            random=True,
            source=f"scatter of {spread.count} windows",
            dof=spread.dof,
        )
    ]


def _accuracy(channel: Channel, share: Share, conditions: Conditions) -> list[Term]:
    """Gain, offset by range, and the resolution where the user gave it."""
    terms = []
    if channel.accuracy:
        rows = {key: _row(channel.accuracy, key) for key in sorted(share.dwell, key=lambda k: -1 if k is None else k)}
        terms.append(_gain(rows, share, conditions.widening))
        for key, row in rows.items():
            name = f"{share.name}offset" if key is None else f"{share.name}offset, range {key}"
            offset = _wider(row.offset, conditions.widening)
            terms.append(_type_b(name, offset, channel.unit, share.dwell[key], _text(row, conditions.widening)))
    step = conditions.resolution.get(channel.name)
    if step:
        reach = math.fsum(share.dwell.values())
        terms.append(
            _type_b(
                f"{share.name}resolution", Limit(value=step / 2), channel.unit, reach, f"readings in steps of {step:g}"
            )
        )
    return terms


def _row(rows: Sequence[Accuracy], key: int | None) -> Accuracy:
    """The row of a range; the widest one where the range is unknown or has none."""
    known = {row.range: row for row in rows}
    widest = max(rows, key=lambda row: (row.gain.standard, row.offset.standard))
    return known.get(key) or known.get(None) or widest


def _gain(rows: Mapping[int | None, Accuracy], share: Share, widening: float) -> Term:
    """One reference is seen through every divider, so the ranges' gain errors add with their signs."""
    acting = {key: share.scaling.get(key, 0.0) for key in rows}
    rest = math.fsum(part for key, part in share.scaling.items() if key not in rows)
    u_j = abs(math.fsum(part * rows[key].gain.standard for key, part in acting.items())) * widening
    u_j += abs(rest) * max(row.gain.standard for row in rows.values()) * widening
    total_j = abs(math.fsum(share.scaling.values()))
    main = rows[max(acting, key=lambda key: abs(acting[key] * rows[key].gain.standard))]
    half_widths = 3**0.5 if main.gain.distribution == "rectangular" else 1.0
    return Term(
        term=f"{share.name}gain",
        type="B",
        distribution=str(main.gain.distribution),
        value=u_j * half_widths / total_j if total_j else 0.0,
        unit="1",
        sensitivity=total_j,
        contribution_j=u_j,
        random=False,
        source="; ".join(dict.fromkeys(_text(row, widening) for row in rows.values())),
        dof=main.gain.dof,
    )


def _text(row: Accuracy, widening: float) -> str:
    wider = "" if widening == 1 else f", times {widening:.2f} for temperature and age"
    return row.source + wider + ("" if row.verified else " (not verified)")


def _wider(limit: Limit, factor: float) -> Limit:
    return replace(limit, value=limit.value * factor)


def _edges(measurand: Measurand, header: Header, outside_w: float | None) -> Term:
    """Two independent edges, each rectangular: their sum is triangular over twice the half-width of one."""
    half_s = 2 * math.sqrt(3) * measurand.u_edge_s
    sensitivity = measurand.step_w
    if outside_w is not None:
        beside_w = (outside_w - measurand.net_of_w) * measurand.per_window
        sensitivity = edge_sensitivity_w(measurand.step_w, beside_w)
    return Term(
        term="window edges",
        type="B",
        distribution="triangular",
        value=half_s,
        unit="s",
        sensitivity=sensitivity,
        contribution_j=sensitivity * half_s / math.sqrt(6),
        random=False,
        source="trigger read once per sample" if header.rate_hz else "trigger stamps",
    )


def _type_b(name: str, limit: Limit, unit: str, sensitivity: float, source: str) -> Term:
    return Term(
        term=name,
        type="B",
        distribution=str(limit.distribution),
        value=limit.value,
        unit=unit,
        sensitivity=sensitivity,
        contribution_j=abs(sensitivity) * limit.standard,
        random=False,
        source=source,
        dof=limit.dof,
    )
