"""What the digitizer delivers, how wrong it may be, and what it takes from the device's supply.

The tables of direct current were not found: 0.06 % + 0.01 % of range up to 100 mA and 0.3 % + 0.03 % above are assumed
for all models, several times what the adjustment manual (DMM6500-905-01) calculates with as an example on 10 mA.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

SOURCE = "assumed: the maker's table of digitized direct current was not found"
DOF = 8.0
SMALL_A = 0.1
# Share of the reading, share of the range: up to SMALL_A, above.
SMALL, LARGE = (0.0006, 0.0001), (0.003, 0.0003)

# V at full range; DMM6500 data sheet p. 13, alternating current, whose shunts are the same.
BURDEN_V = {100e-6: 0.14, 1e-3: 0.17, 10e-3: 0.17, 100e-3: 0.20, 1.0: 0.75, 3.0: 1.70, 10.0: 0.50}


def channels(range_a: float) -> tuple[Channel, ...]:
    gain, offset = SMALL if range_a <= SMALL_A * 1.001 else LARGE
    row = Accuracy(
        range=None,
        gain=Limit(value=gain, dof=DOF),
        offset=Limit(value=offset * range_a, dof=DOF),
        source=SOURCE,
        verified=False,
    )
    return (Channel(name="current", quantity=Quantity.CURRENT, unit="A", kind=Kind.MEAN, accuracy=(row,)),)
