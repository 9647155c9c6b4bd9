"""A simulated desktop: a package with its cores and its memory. It counts by its own code.

Counters have 32 bits in units of 2**-14 J, of which Linux shows 61.035 uJ each; they change each millisecond. That of
the package is about to turn over when the machine is plugged in.
"""

from __future__ import annotations

from collections.abc import Mapping

from joulemeter.boardfiles.simulator import BoardSimulator
from joulemeter.synthetic import Draw

UNIT_J = 2.0**-14
SHOWN_NJ = 61_035
BITS = 1 << 32
TICK_S = 1e-3
# Of what the load draws; cores are part of the package.
SHARES = {"0": ("package-0", 0.85), "0:0": ("core", 0.6), "0:1": ("dram", 0.15)}
BEFORE = {"0": BITS - 100_000, "0:0": 4711, "0:1": 815}


class RaplSimulator(BoardSimulator):
    def __init__(self, load: Draw, volts: float) -> None:
        super().__init__(load)
        self._volts = volts

    def texts(self, at_s: float) -> Mapping[str, str]:
        drawn_j = self.charge_c(TICK_S, at_s) * self._volts
        tree = {}
        for place, (name, share) in SHARES.items():
            folder = f"/sys/class/powercap/intel-rapl:{place}"
            count = (BEFORE[place] + int(drawn_j * share / UNIT_J)) % BITS
            tree[f"{folder}/name"] = name
            tree[f"{folder}/energy_uj"] = str(count * SHOWN_NJ // 1000)
            tree[f"{folder}/max_energy_range_uj"] = str((BITS - 1) * SHOWN_NJ // 1000)
        return tree
