"""Reports of 36 bytes, one a second. Pure functions and tables.

FF 55, message class (01: report), kind of meter, 31 bytes, checksum; numbers are big-endian. Voltage and current are
u24 at 4 and 7 of every kind; where the time that the meter has run is, as hours u16, minutes, seconds, differs. The
checksum is the low byte of a sum, exclusive or 0x44; the sum begins with the message class, in the J7-C one byte later.
Layout as CursedHardware/atorch-console and sigrok's atorch driver have it, for USB meters also lispnik/ud18 and
atorch-ble from real meters of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

FORMAT = "atorch/1"
RATE_HZ = 1.0
REPORT_BYTES = 36
# Message class 01 is a report; 02 answers a command, and none is ever sent.
BEGIN = b"\xff\x55\x01"
KIND_AT, VOLTAGE_AT, CURRENT_AT, NUMBER_BYTES = 3, 4, 7, 3
# At which byte the sum of the checksum begins.
SUMS = (2, 3)
_MASK = 0x44

# The time run starts over after so many seconds.
RUN_MODULO = 65536 * 3600
JOULES_PER_STEP = 36.0
# Meters leave the end of a report empty, or have limits there that cannot be as high; the simulator signs.
SIMULATED, _SIGNATURE_AT = b"JMsi", 31

MAINS, DC, USB = 1, 2, 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Steps of the last digit, and where things stand; `energy_at` None: how it is scaled is disputed."""

    name: str
    step_v: float
    step_a: float
    run_at: int
    energy_at: int | None = None


KINDS = {
    DC: Kind(name="Atorch DC meter", step_v=0.1, step_a=1e-3, run_at=26),
    USB: Kind(name="Atorch USB meter", step_v=10e-3, step_a=10e-3, run_at=23, energy_at=13),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`run_s` is how long the meter says it has run, `energy_j` None where it cannot be told."""

    kind: int
    voltage_v: float
    current_a: float
    energy_j: float | None
    run_s: int
    simulated: bool


def sum_of(block: bytes) -> int | None:
    """At which byte the sum of this report's checksum begins; None where it is no report or spoilt."""
    if len(block) != REPORT_BYTES or not block.startswith(BEGIN):
        return None
    return next((first for first in SUMS if checksum(block, first) == block[-1]), None)


def checksum(block: bytes, first: int) -> int:
    return sum(block[first:-1]) & 0xFF ^ _MASK


def parse(block: bytes) -> Report | None:
    """A whole report; None of a kind of meter that is not known here."""
    number = block[KIND_AT]
    kind = KINDS.get(number)
    if kind is None:
        return None
    energy = None if kind.energy_at is None else _number(block, kind.energy_at, 4) * JOULES_PER_STEP
    run = kind.run_at
    return Report(
        kind=number,
        voltage_v=_number(block, VOLTAGE_AT) * kind.step_v,
        current_a=_number(block, CURRENT_AT) * kind.step_a,
        energy_j=energy,
        run_s=_number(block, run, 2) * 3600 + block[run + 2] * 60 + block[run + 3],
        simulated=block[_SIGNATURE_AT:-1] == SIMULATED,
    )


def _number(block: bytes, at: int, size: int = NUMBER_BYTES) -> int:
    return int.from_bytes(block[at : at + size], "big")
