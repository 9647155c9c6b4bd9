"""What the families of Rigol oscilloscopes can, as a table; the simulated ones are named by PLAYED."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from joulemeter.scope.setup import Family

# Makers state the clock as of delivery, and its drift by the year.
YEARS = 5
# Models that the simulator can be.
PLAYED = ("DS1054Z", "MSO5074", "DHO804")


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Waveform recording: one frame to each trigger, played back afterwards.

    `root` is the subsystem, `count` what sets how many. `positioned`: while it records, the frame that it is at can be
    asked for, and is 1 before the first trigger already; else the number of frames can be asked for when it has ended.
    """

    root: str
    count: str
    interval_s: float
    positioned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """`wide` is the divisions of the screen; `page` the most points to one :WAV:DATA?; `word`: 16 bits to a code.

    `depths` are the depths of memory, of one channel; `shared`: halved for two channels, quartered for more.
    `lettered`: they are written 10k, 1M. `pages_told`: the preamble tells the points of the page, not of the memory.
    `waits`: it must have caught up (*WAI) before it is asked for data.
    """

    family: Family
    wide: int
    page: int
    word: bool
    depths: tuple[int, ...]
    shared: bool = False
    lettered: bool = True
    pages_told: bool = False
    waits: bool = False
    fifty_ohm: bool = False
    frames: Frames | None = None

    def depth(self, points: int) -> str:
        """How a depth is written in :ACQ:MDEP."""
        if self.lettered:
            for unit, letter in ((10**6, "M"), (10**3, "k")):
                if points % unit == 0:
                    return f"{points // unit}{letter}"
        return str(points)

    def depths_for(self, channels: int) -> tuple[int, ...]:
        if not self.shared:
            return self.depths
        return tuple(points // (1 if channels == 1 else 2 if channels == 2 else 4) for points in self.depths)


_DS1000Z = Model(
    family=Family(
        divisions=8,
        bits=8,
        least_v=1e-3,
        most_v=10.0,
        gain=0.02,
        offset_divisions=0.1,
        offset_v=2e-3,
        offset_share=0.01,
        clock=25e-6 + YEARS * 5e-6,
        source="usual for the DS1000Z: 2 % of full scale, 0.1 div + 2 mV + 1 % of the offset",
        verified=False,
        most_records=10000,
    ),
    wide=12,
    page=250_000,
    word=False,
    depths=(12_000, 120_000, 1_200_000, 12_000_000, 24_000_000),
    shared=True,
    lettered=False,
    frames=Frames(root=":FUNC", count="FEND", interval_s=1e-7, positioned=False),
)
_MSO5000 = Model(
    family=Family(
        divisions=8,
        bits=8,
        least_v=5e-4,
        most_v=10.0,
        gain=0.02,
        offset_divisions=0.1,
        offset_v=2e-3,
        offset_share=0.015,
        clock=10e-6 + YEARS * 10e-6,
        source="usual for the MSO5000: 2 % of full scale, 0.1 div + 2 mV + 1.5 % of the offset",
        verified=False,
        most_records=10000,
    ),
    wide=10,
    page=250_000_000,
    word=False,
    depths=(10**3, 10**4, 10**5, 10**6, 10**7, 25 * 10**6, 50 * 10**6, 10**8, 2 * 10**8),
    waits=True,
)
_MSO7000 = Model(
    family=_MSO5000.family,
    wide=10,
    page=250_000_000,
    word=False,
    depths=(10**3, 10**4, 10**5, 10**6, 10**7, 25 * 10**6, 50 * 10**6, 10**8),
    waits=True,
    fifty_ohm=True,
)
_DHO = Model(
    family=Family(
        divisions=8,
        bits=12,
        least_v=5e-4,
        most_v=10.0,
        gain=0.03,
        offset_divisions=0.1,
        offset_v=2e-3,
        offset_share=0.015,
        clock=25e-6,
        source="usual for the DHO800: 3 % of full scale, 0.1 div + 2 mV + 1.5 % of the offset",
        verified=False,
        most_records=10000,
    ),
    wide=10,
    page=250_000,
    word=True,
    depths=(10**3, 10**4, 10**5, 10**6, 10**7, 25 * 10**6, 50 * 10**6),
    pages_told=True,
    frames=Frames(root=":REC", count="FRAM", interval_s=1e-8, positioned=True),
)

# By how the model's name begins, as a pattern.
MODELS: Mapping[str, Model] = {
    r"(DS|MSO)1\d{3}Z": _DS1000Z,
    r"MSO5\d{3}": _MSO5000,
    r"(DS|MSO)[78]\d{3}(?!\d)": _MSO7000,
    r"DHO([89]\d{2}|[14]\d{3})(?!\d)": _DHO,
}


def model_of(name: str) -> Model | None:
    """By the name that *IDN? tells; None for one that is not known."""
    found = [model for pattern, model in MODELS.items() if re.match(pattern, name.upper())]
    return found[0] if found else None


def inputs_of(name: str) -> int:
    """How many inputs it has: the last digit of the number in its name, as in DHO802 and MSO5354."""
    match = re.search(r"\d+", name)
    return int(match[0][-1]) if match and match[0][-1] in "24" else 4
