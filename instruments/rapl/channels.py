"""What the counters deliver, and how wrong it may be.

No maker states it. The figures are what studies found against external meters; an offset of a counter is watts. Of
zones that nobody compared, psys and the parts of a package, there are none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from joulemeter.capture import Accuracy, Channel, Distribution, Kind, Limit, Quantity

from . import wire

# Names of processors: mobile parts, those before Haswell (2013), whose RAPL is a model, and servers.
MOBILE = re.compile(r"\d(?:U|Y|P|H|HK|HQ|HS|HX|G\d)\b")
MODELLED = re.compile(r"\bi[357]-[23]\d{3}|\bE[357]-\d{4}L?(?: v2| 0)? *@")
SERVER = re.compile(r"Xeon|EPYC")

PACKAGE = "5 % and a constant: Intel forum 1036543, and a project on an i5-8265U; Haswell and later"
MODEL = "before Haswell RAPL is a model: twice the gain of later ones assumed"
AMD = "AMD does not say what its counter holds: twice the gain of Intel's assumed"
DRAM_SERVER = "measured by the regulator on Haswell-EP (Desrochers, Paradis, Weaver, MEMSYS 2016); figures assumed"
DRAM_CLIENT = "Desrochers, Paradis, Weaver, MEMSYS 2016: 24 loads on a Haswell client, standard deviation 17 %, 0.35 W"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """`gain` a ratio, `offset_w` watts; `alone_gain` in place of both where the zone is not part of a sum."""

    gain: Limit
    offset_w: Limit
    source: str
    verified: bool = False
    alone_gain: Limit | None = None


def figures(zone: wire.Zone, cpu: str) -> Figures | None:
    """What is known of a zone of a processor of that name."""
    if zone.package:
        if "AMD" in cpu or MODELLED.search(cpu):
            source = AMD if "AMD" in cpu else MODEL
            return Figures(gain=Limit(value=0.10), offset_w=Limit(value=5.0), source=source)
        offset_w = 1.0 if MOBILE.search(cpu) and not SERVER.search(cpu) else 5.0
        return Figures(gain=Limit(value=0.05), offset_w=Limit(value=offset_w), source=PACKAGE)
    if zone.label == "dram":
        if SERVER.search(cpu):
            return Figures(gain=Limit(value=0.05), offset_w=Limit(value=0.5), source=DRAM_SERVER)
        return Figures(
            gain=Limit(value=0.0),
            offset_w=Limit(value=0.35, distribution=Distribution.NORMAL),
            source=DRAM_CLIENT,
            verified=True,
            alone_gain=Limit(value=0.17, distribution=Distribution.NORMAL),
        )
    return None


def energy(zones: Sequence[wire.Zone], cpu: str, name: str = "energy") -> Channel:
    """The counter of one zone, or the total of several, whose turns the decoder has added.

    A sum has the gain of its worst zone, and the zones' offsets as independent. Without a figure for one of them there
    is none for the whole.
    """
    known = [one for one in (figures(zone, cpu) for zone in zones) if one is not None]
    rows: tuple[Accuracy, ...] = ()
    if known and len(known) == len(zones):
        worst = max(known, key=lambda one: one.gain.standard)
        offset_w = sum(one.offset_w.standard**2 for one in known) ** 0.5
        gain, offset = worst.gain, Limit(value=offset_w, distribution=Distribution.NORMAL)
        if len(known) == 1:
            gain, offset = worst.alone_gain or gain, Limit(value=0.0) if worst.alone_gain else worst.offset_w
        source = "; ".join(dict.fromkeys(one.source for one in known))
        verified = all(one.verified for one in known)
        rows = (Accuracy(range=None, gain=gain, offset=offset, source=source, verified=verified),)
    range_uj = zones[0].range_uj if len(zones) == 1 else None
    return Channel(
        name=name,
        quantity=Quantity.ENERGY,
        unit="J",
        kind=Kind.CUMULATIVE,
        accuracy=rows,
        wrap=None if range_uj is None else range_uj * wire.JOULES,
        refresh_s=wire.REFRESH_S,
    )


def usual() -> tuple[Channel, ...]:
    """A desktop's package, for INFO; a header has what the processor at hand does."""
    zone = wire.Zone(place="0", label="package-0", parent=None, path="", range_uj=262_143_328_850, failure=None)
    return (energy([zone], "Intel"),)
