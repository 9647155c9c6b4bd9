"""What an output delivers and how wrong it may be.

Maker: the noise that short averaging adds to the fixed term (N6700 Specifications Guide, p. 52). The N6781A's gains and
fixed terms are from memory of its data sheet (5990-5829EN) and were not checked; of other modules no table was at hand,
and ten times the N6781A's are taken.
"""

from __future__ import annotations

from joulemeter.capture import Accuracy, Channel, Kind, Limit, Quantity

from . import wire

N6781A = "N6781A data sheet 5990-5829EN, from memory; added noise: N6700 Specifications Guide, p. 52"
OTHERS = "no table at hand for this module: ten times the N6781A's"
AUTO = "auto"
DOF = 8.0
WIDER, WIDER_DOF = 10.0, 4.0
# Full scale in A: gain, fixed term in A.
CURRENT = {3.0: (0.03e-2, 250e-6), 0.1: (0.025e-2, 10e-6), 1e-3: (0.025e-2, 100e-9), 10e-6: (0.025e-2, 8e-9)}
VOLTAGE = (0.025e-2, 1.2e-3)
# Averaging time in s: what it adds to the fixed term of the 20 V range, in V.
ADDED_V = {5.1e-6: 2.3e-3, 102e-6: 0.99e-3, 1e-3: 0.30e-3, 10e-3: 87e-6, 16.7e-3: 70e-6}


def channels(
    module: wire.Module = wire.SMU, range_a: float | None = None, period_s: float = 2 * wire.LEAST_S, both: bool = True
) -> tuple[Channel, ...]:
    """`range_a` None: it chooses by itself and does not say which, so the widest range's fixed term holds."""
    gain, offset = CURRENT[range_a or max(CURRENT)]
    made = [_channel(wire.CURRENT, Quantity.CURRENT, "A", gain, offset, module)]
    if both:
        gain, offset = VOLTAGE
        made.append(_channel(wire.VOLTAGE, Quantity.VOLTAGE, "V", gain, offset + added_v(period_s), module))
    return tuple(made)


def added_v(period_s: float) -> float:
    """Of the longest averaging time that is not longer."""
    return next((added for taken_s, added in reversed(ADDED_V.items()) if taken_s <= period_s), max(ADDED_V.values()))


def _channel(name: str, quantity: Quantity, unit: str, gain: float, offset: float, module: wire.Module) -> Channel:
    factor, dof, source = (1.0, DOF, N6781A) if module.accuracy else (WIDER, WIDER_DOF, OTHERS)
    row = Accuracy(
        range=None,
        gain=Limit(value=factor * gain, dof=dof),
        offset=Limit(value=factor * offset, dof=dof),
        source=source,
        verified=False,
    )
    return Channel(name=name, quantity=quantity, unit=unit, kind=Kind.MEAN, accuracy=(row,))
