"""What is measured, as a weighted sum of windows.

Energy per inference weighs each used window with one over the number of inferences; net energy takes the idle windows
off with the weight of the time they stand for. So what acts on both alike cancels by arithmetic, and only as far as it
does: an offset is gone where idle was seen in the same range, and stays where it was not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from joulemeter.capture import Channel, Header, Quantity, Voltage
from joulemeter.physics.kinds import source_of
from joulemeter.window import WindowEnergy

# A channel of one of these leaves no room for a stated voltage.
_COMPLETE = (Quantity.POWER, Quantity.ENERGY, Quantity.VOLTAGE)


def inferences_of(windows: Sequence[WindowEnergy]) -> int:
    return sum(one.window.inferences for one in windows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How one channel enters: `scaling` joules by range go with its gain, `dwell` with its offset, joules per unit."""

    name: str
    scaling: Mapping[int | None, float]
    dwell: Mapping[int | None, float]


class Measurand:
    def __init__(self, used: Sequence[WindowEnergy], idle: Sequence[WindowEnergy], header: Header) -> None:
        self.header = header
        count = inferences_of(used)
        span_s, idle_s = _dwell_s(used), _dwell_s(idle)
        self._parts = [(one, 1 / count) for one in used]
        self._parts += [(one, -span_s / idle_s / count) for one in idle if idle_s]
        self.energy_j = math.fsum(weight * (one.energy_j or 0.0) for one, weight in self._parts)
        self.charge_c = math.fsum(weight * (one.charge_c or 0.0) for one, weight in self._parts)
        self.by_range = self._split([one.energy_by_range_j for one, _ in self._parts])
        self.dwell_s = self._split([one.dwell_by_range_s for one, _ in self._parts])
        self.edge_w = math.fsum(one.edge_power_w for one in used) / count
        idle_w = math.fsum(one.energy_j or 0.0 for one in idle) / idle_s if idle_s else 0.0
        # Power at the edges as it acts on the measurand: net energy has idle power taken off on both sides.
        self.net_of_w = idle_w
        self.per_window = len(used) / count
        self.step_w = abs(self.edge_w - idle_w * self.per_window)
        self.u_edge_s = max((one.window.u_edge_s for one in used), default=0.0)
        self.altered_j = math.fsum(one.altered_j for one in used) / count
        # The mean voltage of the windows themselves, where none was stated; one where joules are coulombs.
        plain_j = math.fsum(one.energy_j or 0.0 for one in used)
        plain_c = math.fsum(one.charge_c or 0.0 for one in used)
        self._volts = plain_j / plain_c if plain_c else 1.0

    def _split(self, mappings: Sequence[Mapping[int | None, float]]) -> dict[int | None, float]:
        total: dict[int | None, float] = {}
        for mapping, (_, weight) in zip(mappings, self._parts, strict=True):
            for key, part in mapping.items():
                total[key] = total.get(key, 0.0) + weight * part
        return total

    @property
    def main(self) -> Channel:
        return source_of(self.header).main

    @property
    def stated(self) -> Voltage | None:
        """The voltage that turned charge into energy, where no channel measured it."""
        measured = any(self.header.channel(quantity) for quantity in _COMPLETE)  # or made of the stated one
        return None if measured else self.header.voltage

    def deciding(self) -> list[tuple[Channel, Share]]:
        """The channels whose accuracy decides: power or energy itself, else charge or current and the voltage."""
        source = source_of(self.header)
        if source.power is not None:
            return [(source.power, Share(name="", scaling=self.by_range, dwell=self.dwell_s))]
        flow, volts = source.current, source.voltage
        shares = []
        if flow is not None:
            by_volts = {key: dwell_s * self._volts for key, dwell_s in self.dwell_s.items()}
            shares.append((flow, Share(name="", scaling=self.by_range, dwell=by_volts)))
        if volts is not None:
            both = Share(name="voltage ", scaling={None: self.energy_j}, dwell={None: self.charge_c})
            shares.append((volts, both))
        return shares


def _dwell_s(windows: Sequence[WindowEnergy]) -> float:
    return math.fsum(math.fsum(one.dwell_by_range_s.values()) for one in windows)
