"""What NVML delivers of a GPU and how wrong it may be.

Yang, Adamek and Armour held 21 boards against an external meter: errors scatter with a standard deviation of 4.5 %
(20 boards; a Quadro K620 was 41 % off), and NVIDIA's tool states 5 W. Of several GPUs the errors are taken as common.
"""

from __future__ import annotations

from collections.abc import Mapping

from joulemeter.capture import Accuracy, Channel, Distribution, Kind, Limit, Quantity

from . import wire

SOURCE = "Yang, Adamek, Armour, SC24 (arXiv 2312.02741), boards against an external meter; NVIDIA: 5 W"
GAIN = Limit(value=0.045, distribution=Distribution.NORMAL, dof=19)
OFFSET_W = 5.0
# How often the counter and most power readings move where nobody has looked; see refresh.py.
USUAL_REFRESH_S = 0.1
# nvml.h: what the average is over.
AVERAGE_S = 1.0

# The channel of each source.
NAMES = {"energy": "energy", "instant": "power", "average": "average power"}


def channels(source: str, there: tuple[str, ...], refresh_s: Mapping[str, float], gpus: int = 1) -> tuple[Channel, ...]:
    """The channel of `source` first, then the others of `there`.

    Beside power the counter is a witness; beside the counter instantaneous power stays for the eye. `refresh_s` is by
    source.
    """
    shown = (source, *(name for name in NAMES if name in there and name != source))
    made = [_channel(name, source, refresh_s[name], gpus) for name in shown]
    return (
        *made,
        Channel(name="temperature", quantity=Quantity.TEMPERATURE, unit="degC", kind=Kind.INSTANT),
    )


def _channel(name: str, source: str, refresh_s: float, gpus: int) -> Channel:
    counts = name == "energy"
    beside = name != source and (source, name) != ("energy", "instant")
    # An average that is reported smears an edge over all that it is an average of.
    smeared_s = AVERAGE_S if name == source == "average" else 0.0
    return Channel(
        name=NAMES[name],
        quantity=Quantity.ENERGY if counts else Quantity.POWER,
        unit="J" if counts else "W",
        kind=Kind.CUMULATIVE if counts else Kind.INSTANT,
        # Of a counter as well in watts: it is off by the offset in every second.
        accuracy=(Accuracy(range=None, gain=GAIN, offset=Limit(value=OFFSET_W * gpus), source=SOURCE, verified=True),),
        wrap=wire.WRAP_J if counts else None,
        refresh_s=refresh_s + smeared_s,
        witness=beside,
    )


def usual() -> tuple[Channel, ...]:
    """What most GPUs deliver, for INFO; a header has what the one at hand does."""
    there = tuple(NAMES)
    return channels("energy", there, dict.fromkeys(there, USUAL_REFRESH_S))
