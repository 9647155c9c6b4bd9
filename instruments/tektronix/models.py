"""What the series of Tektronix oscilloscopes differ in, as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from joulemeter.scope.setup import FULL_OVER_TESTED, Family

# The maker states the gain as a share of what is shown, counted from the middle of the screen, and not of full scale:
# what zero in another place than the middle adds to that belongs to the share of the offset.
OF_READING = 1 / FULL_OVER_TESTED


class Probe(Enum):
    """How a series is told what divides in front of it."""

    GAIN = "CH{n}:PRO:GAIN is set"
    BEYOND = "what is beyond the probe, whose own gain can be asked for"
    EXTERNAL = "what is in front of the input, and nothing can be asked"


class Stamps(Enum):
    """How the times of FastFrame's triggers are asked for."""

    OF_CHANNEL = ":HOR:FAST:TIMES:ALL:CH{n}? 1,{count}"
    OF_ALL = ":HOR:FAST:TIMES:ALL?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`shown` switches a channel on, with {n}. `stamps` is None where there is no FastFrame.

    `lengths` are the lengths of a record where the rate follows from the time base; () where both are set.
    `more` is what else has to be set.
    """

    family: Family
    shown: str
    probe: Probe
    stamps: Stamps | None = None
    lengths: tuple[int, ...] = ()
    more: tuple[str, ...] = ()


def _family(
    bits: int, gain: float, offset_divisions: float, offset_v: float, offset_share: float, clock: float, source: str
) -> Family:
    return Family(
        divisions=10,
        bits=bits,
        least_v=1e-3,
        most_v=10.0,
        gain=gain * OF_READING,
        offset_divisions=offset_divisions,
        offset_v=offset_v,
        offset_share=offset_share + gain,
        clock=clock,
        source=source,
        verified=False,
        most_records=10000,
    )


_SERIES_456 = Model(
    family=_family(12, 0.02, 0.1, 0.0, 0.002, 2.5e-6, "usual for MSO 4, 5, 6: 2 % of reading, 0.1 div + 0.2 %"),
    shown=":DIS:GLO:CH{n}:STATE",
    probe=Probe.BEYOND,
    stamps=Stamps.OF_ALL,
    more=(":ACQ:FASTA:STATE 0", ":HOR:MODE:MAN:CONFIG HORIZ", ":DAT:RES 1"),
)
_SERIES_2 = Model(
    family=_family(8, 0.02, 0.1, 0.0, 0.002, 25e-6, "usual for MSO 2: 2 % of reading, 0.1 div + 0.2 %"),
    shown=":DIS:GLO:CH{n}:STATE",
    probe=Probe.EXTERNAL,
    more=(":ACQ:FASTA:STATE 0", ":HOR:MODE:MAN:CONFIG HORIZ", ":DAT:RES 1"),
)
_SERIES_3000_4000 = Model(
    # Offset and clock are the maker's, the gain is not.
    family=_family(
        8, 0.015, 0.15, 0.6e-3, 0.005, 10e-6, "MSO/DPO3000, 4000: 1.5 % of reading, 0.15 div + 0.6 mV + 0.5 %"
    ),
    shown=":SEL:CH{n}",
    probe=Probe.GAIN,
    lengths=(1000, 10_000, 100_000, 1_000_000, 10_000_000),
)
_SERIES_2000 = Model(
    family=_family(8, 0.03, 0.2, 0.0, 0.005, 25e-6, "assumed for MSO/DPO2000: 3 % of reading, 0.2 div + 0.5 %"),
    shown=":SEL:CH{n}",
    probe=Probe.GAIN,
    lengths=(100_000, 1_000_000),
    more=(":DAT:RESO FULL", ":DAT:COMP SINGULAR_YT"),
)
_SERIES_5000 = Model(
    family=_family(
        8, 0.02, 0.15, 0.6e-3, 0.005, 10e-6, "assumed for DPO5000, 7000: 2 % of reading, 0.15 div + 0.6 mV + 0.5 %"
    ),
    shown=":SEL:CH{n}",
    probe=Probe.BEYOND,
    stamps=Stamps.OF_CHANNEL,
)

# By what the model's name is, as a pattern; the last digit of its number is how many inputs it has.
MODELS: Sequence[tuple[str, Model]] = (
    (r"MSO[456][2468](B|LP)?|LPD64", _SERIES_456),
    (r"MSO2[24]", _SERIES_2),
    (r"(MSO|DPO)2\d\d[24]B?", _SERIES_2000),
    (r"(MSO|DPO|MDO)[34]\d\d[24][BC]?L?", _SERIES_3000_4000),
    (r"(MSO|DPO|DSA)(5\d\d4|7\d\d[24]|7\d{3}[24])(B|C|D|DX|SX)?", _SERIES_5000),
)


def model_of(name: str) -> Model | None:
    """None for one that is not in the table."""
    name = name.upper().replace(" ", "").replace("-", "")
    return next((model for pattern, model in MODELS if re.fullmatch(pattern, name)), None)


def inputs_of(name: str) -> int:
    digits = re.findall(r"\d", name)
    return int(digits[-1]) if digits else 4
