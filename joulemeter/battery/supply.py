"""What stands between cell and load: regulator, capacitor at the rail, brown-out level, temperature."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from joulemeter.battery.cell import Curve, Float, known, positive
from joulemeter.battery.load import Kind


class Stage(StrEnum):
    """How the load hangs at the rail."""

    DIRECT = "direct"
    LDO = "ldo"
    DCDC = "dcdc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacitor:
    """A capacitor across the cell.

    `leakage_ohm` discharges it for ever (None: none is counted). `derating` is what is left of `farad` under its
    voltage: a share, or a table of the share against volts (small ceramics keep half at 3 V). No series resistance.
    """

    farad: float
    leakage_ohm: float | None = None
    derating: float | Curve = 1.0

    def __post_init__(self) -> None:
        positive(self.farad, "A capacitor", "F", most=1e5)
        positive(self.leakage_ohm, "A leakage resistance", "ohm")
        left = self.derating.y if isinstance(self.derating, Curve) else (self.derating,)
        known(all(0 < share <= 1 for share in left), "What is left of a capacitor is between 0 and 1.")

    def farad_at(self, volts: Float) -> Float:
        """Capacitance in F at each voltage."""
        left = self.derating.at(volts) if isinstance(self.derating, Curve) else self.derating
        return self.farad * np.broadcast_to(left, np.shape(volts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Regulator:
    """DIRECT: the load is the rail's. LDO: the load's current is the rail's. DCDC: the load's power over `efficiency`.

    `output_v` is needed where a load in W or ohm stands behind an LDO, and for a DCDC with a load in A or ohm.
    `dropout_v` is added to the brown-out level; `quiescent_a` is drawn from the rail at all times.
    """

    stage: Stage = Stage.DIRECT
    output_v: float | None = None
    dropout_v: float = 0.0
    quiescent_a: float = 0.0
    efficiency: float = 1.0

    def __post_init__(self) -> None:
        positive(self.output_v, "An output voltage", "V", most=1e3)
        known(0 <= self.dropout_v < 100, f"A dropout of {self.dropout_v} V is not possible.")
        known(0 <= self.quiescent_a < 100, f"A quiescent current of {self.quiescent_a} A is not possible.")
        known(0 < self.efficiency <= 1, f"An efficiency of {self.efficiency} is not between 0 and 1.")
        known(
            self.stage is Stage.DCDC or self.efficiency == 1.0,
            "Only a DC-DC converter has an efficiency here; an LDO passes the load's current.",
        )

    def _output(self, kind: Kind) -> float:
        known(
            self.output_v is not None,
            f"A {kind} behind a regulator ({self.stage}) needs the regulator's output voltage.",
            "Give output_v.",
        )
        return self.output_v or math.nan

    def seen(self, kind: Kind, values: Float) -> tuple[Float, Float, Float]:
        """(a, g, p), each like `values`: the rail's current is a + g v + p / v at v volts, without the quiescent."""
        none = np.zeros_like(values)
        if self.stage is Stage.DIRECT:
            return (
                values if kind is Kind.CURRENT else none,
                1 / values if kind is Kind.RESISTANCE else none,
                values if kind is Kind.POWER else none,
            )
        if self.stage is Stage.LDO:
            if kind is Kind.CURRENT:
                return values, none, none
            output_v = self._output(kind)
            return (values / output_v if kind is Kind.POWER else output_v / values), none, none
        if kind is Kind.POWER:
            return none, none, values / self.efficiency
        output_v = self._output(kind)
        watts = values * output_v if kind is Kind.CURRENT else output_v**2 / values
        return none, none, watts / self.efficiency


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """`cutoff_v` is the lowest voltage that what hangs at the rail accepts: brown-out, or a converter's lowest input.

    `temperature_c` is one temperature, or pairs of (temperature, share of the time); with several the cell must bear
    the load at each of them, and ages by their mean.
    """

    cutoff_v: float
    regulator: Regulator = field(default_factory=Regulator)
    capacitor: Capacitor | None = None
    temperature_c: float | tuple[tuple[float, float], ...] = 25.0

    def __post_init__(self) -> None:
        positive(self.cutoff_v, "A brown-out level", "V", most=1e3)
        for celsius, share in self.climate:
            known(-60 <= celsius <= 125, f"A temperature of {celsius} C is no place for a battery.", "Check its unit.")
            known(share > 0, "A share of the time at a temperature must be above zero.")
        total = sum(share for _, share in self.climate)
        known(abs(total - 1) < 1e-3, f"The shares of the temperatures make {total:g}, not 1.")

    @property
    def climate(self) -> tuple[tuple[float, float], ...]:
        if isinstance(self.temperature_c, tuple):
            known(bool(self.temperature_c), "No temperature is given.")
            return self.temperature_c
        return ((self.temperature_c, 1.0),)

    @property
    def rail_cutoff_v(self) -> float:
        """The level that ends the life, at the rail: brown-out plus the regulator's dropout."""
        return self.cutoff_v + self.regulator.dropout_v
