"""What the chip delivers, and how wrong it may be. Its maker states nothing; the figures are assumed, and wide."""

from __future__ import annotations

from collections.abc import Sequence

from joulemeter.capture import Accuracy, Basis, Channel, Distribution, Kind, Limit, Quantity

from . import wire

# As few as figures that rest on a guess have (JCGM 100, G.4.2: a doubt of about 35 %).
DOF = 4
SOURCES = {
    wire.RAILS: "nobody states or has published it: 10 % assumed. Rails only, about 20-35 % below the input",
    wire.ESTIMATE: "estimate: a fit of pi-top's whose data are not published; 15 % assumed",
}
GAIN = {wire.RAILS: 0.10, wire.ESTIMATE: 0.15}
OFFSET_W = {wire.RAILS: 0.1, wire.ESTIMATE: 0.5}


def channels(rails: Sequence[str], power: str, *, has_input: bool = True) -> tuple[Channel, ...]:
    """The chosen power first, then the sum behind it if that is an estimate, each rail, and the input's voltage."""
    made = [_power("power", power)]
    if power == wire.ESTIMATE:
        made.append(_power("power rails", wire.RAILS))
    made += [_power(f"power {rail}", wire.RAILS) for rail in rails]
    if has_input:
        made.append(Channel(name=wire.INPUT, quantity=Quantity.VOLTAGE, unit="V", kind=Kind.INSTANT))
    return tuple(made)


def _power(name: str, power: str) -> Channel:
    row = Accuracy(
        range=None,
        gain=Limit(value=GAIN[power], distribution=Distribution.NORMAL, dof=DOF),
        offset=Limit(value=OFFSET_W[power], dof=DOF),
        source=SOURCES[power],
        verified=False,
    )
    basis = Basis.ESTIMATED if power == wire.ESTIMATE else Basis.MEASURED
    return Channel(name=name, quantity=Quantity.POWER, unit="W", kind=Kind.INSTANT, accuracy=(row,), basis=basis)
