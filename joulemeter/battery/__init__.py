"""Battery life: a measured load in, life and what ends it out.

circuit             the rail within a cycle, exactly
cell, load, supply  what is known of the cell, what is drawn from it, what stands in between
sheet               rail and mean current against depth of discharge
life                the projection and its doubts
spread              the same over a population of cells
whatif              other periods, capacitors and sleep currents
harvest             harvested power and rechargeable cells, as a balance
"""

from joulemeter.battery.cell import Cell, Curve, Knee, Limits, Resistance, SlowTerm, pack
from joulemeter.battery.life import Cause, Curves, Life, project
from joulemeter.battery.load import Compressed, Event, Kind, Load, Profile, compress, constant, steps
from joulemeter.battery.supply import Capacitor, Regulator, Stage, Supply

__all__ = [
    "Capacitor",
    "Cause",
    "Cell",
    "Compressed",
    "Curve",
    "Curves",
    "Event",
    "Kind",
    "Knee",
    "Life",
    "Limits",
    "Load",
    "Profile",
    "Regulator",
    "Resistance",
    "SlowTerm",
    "Stage",
    "Supply",
    "compress",
    "constant",
    "pack",
    "project",
    "steps",
]
