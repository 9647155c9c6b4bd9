"""The budget: what each known source of doubt contributes to the energy per inference (JCGM 100:2008, "GUM").

Random terms shrink with repetition and come from the scatter of the windows (type A). Systematic terms come from
the instrument's accuracy table, the voltage, the clock and the edges (type B); repeating does not reduce them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from joulemeter.capture import Accuracy, Channel, Header, Limit, Quantity
from joulemeter.result import Term
from joulemeter.stats import Spread
from joulemeter.window import WindowEnergy


def budget(used: Sequence[WindowEnergy], header: Header, spread: Spread) -> tuple[Term, ...]:
    """Terms of the energy per inference, in joules. `used` are the windows behind `spread`, all with energy.

    Gains of several ranges add linearly, being one reference seen through several dividers; offsets of ranges add as
    independent terms weighted by the time spent there.
    """
    count = sum(window.window.inferences for window in used)
    energy_j = math.fsum(window.energy_j or 0.0 for window in used) / count
    terms = []
    if spread.u_median is not None and spread.stdev is not None:
        terms.append(
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
            )
        )
    channel = _measured(header)
    if channel is not None and channel.accuracy:
        terms += _instrument(used, header, channel, count)
    if header.voltage is not None and channel is not None and channel.quantity is Quantity.CURRENT:
        volts = header.voltage
        terms.append(
            _type_b("voltage", volts.limit, "V", energy_j / volts.volts, f"{volts.basis} voltage, {volts.volts:g} V")
        )
    terms.append(_type_b("sample clock", header.clock, "1", energy_j, "limit of the instrument's clock"))
    u_edge_s = max((window.window.u_edge_s for window in used), default=0.0)
    if u_edge_s:
        edges_w = math.fsum(window.edge_power_w for window in used) / count
        # Both edges; kept as systematic because trigger and sample clock may be locked to each other.
        sensitivity = math.sqrt(2) * edges_w
        terms.append(
            Term(
                term="window edges",
                type="B",
                distribution="rectangular",
                value=u_edge_s * math.sqrt(3),
                unit="s",
                sensitivity=sensitivity,
                contribution_j=sensitivity * u_edge_s,
                random=False,
                source="trigger read once per sample" if header.rate_hz else "trigger stamps",
            )
        )
    altered_j = math.fsum(window.altered_j for window in used) / count
    if altered_j:
        limit = Limit(value=altered_j)
        terms.append(_type_b("range switch", limit, "J", 1.0, "energy hidden by the filter after range switches"))
    return tuple(terms)


def systematic(terms: Sequence[Term]) -> float:
    """Root sum of squares of the systematic terms."""
    return math.sqrt(math.fsum(term.contribution_j**2 for term in terms if not term.random))


def relative_gain(terms: Sequence[Term], energy_j: float) -> float:
    """Standard uncertainty of everything that scales with energy, as a ratio."""
    scaling = ("gain", "voltage", "sample clock")
    return math.sqrt(math.fsum(term.contribution_j**2 for term in terms if term.term in scaling)) / abs(energy_j)


def _measured(header: Header) -> Channel | None:
    """The channel whose accuracy decides."""
    return header.channel(Quantity.POWER) or header.channel(Quantity.CURRENT)


def _instrument(used: Sequence[WindowEnergy], header: Header, channel: Channel, count: int) -> list[Term]:
    """Gain and offset terms per range."""
    rows: dict[int | None, Accuracy] = {row.range: row for row in channel.accuracy}
    energy: dict[int | None, float] = {}
    dwell: dict[int | None, float] = {}
    for window in used:
        for key, part in window.energy_by_range_j.items():
            energy[key] = energy.get(key, 0.0) + part
        for key, part in window.dwell_by_range_s.items():
            dwell[key] = dwell.get(key, 0.0) + part
    gain_j, sources = 0.0, []
    terms = []
    volts = header.voltage.volts if header.voltage and channel.quantity is Quantity.CURRENT else 1.0
    for key in sorted(dwell, key=lambda key: -1 if key is None else key):
        row = rows.get(key, rows.get(None))
        if row is None:
            continue
        gain_j += row.gain.standard * abs(energy.get(key, 0.0)) / count
        sources.append(row.source)
        label = "offset" if key is None else f"offset, range {key}"
        terms.append(_type_b(label, row.offset, channel.unit, volts * dwell[key] / count, row.source))
    total_j = math.fsum(abs(part) for part in energy.values()) / count
    distribution = next(iter(rows.values())).gain.distribution
    gain = Term(
        term="gain",
        type="B",
        distribution=str(distribution),
        value=gain_j / total_j if total_j else 0.0,
        unit="1",
        sensitivity=total_j,
        contribution_j=gain_j,
        random=False,
        source="; ".join(dict.fromkeys(sources)),
    )
    return [gain, *terms]


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
    )
