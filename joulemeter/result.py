"""The result of a measurement, in the shape of result.json (schema joulemeter.result/1).

Every field that is not known is None, with its basis "unavailable" and a caveat that says why.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from joulemeter.capture import Basis
from joulemeter.caveat import Caveat

SCHEMA = "joulemeter.result/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A quantity over all windows used.

    `ci95` holds the median with 95 % confidence as far as scatter goes (`ci95_method` says how it was made).
    `u_random` and `u_systematic` are standard uncertainties of the median, the second one not reduced by repeating;
    `expanded_k2` is twice their root sum of squares, plus what the edges are known to lose; `ci95_total` holds the true
    value with 95 %, with the coverage factor `k95` that the shape of the budget asks for. One window has no stdev, no
    ci95 and no scatter: None.
    """

    median: float | None = None
    mean: float | None = None
    stdev: float | None = None
    min: float | None = None
    max: float | None = None
    p5: float | None = None
    p95: float | None = None
    p99: float | None = None
    ci95: tuple[float, float] | None = None
    ci95_method: str | None = None
    u_random: float | None = None
    u_systematic: float | None = None
    expanded_k2: float | None = None
    k95: float | None = None
    ci95_total: tuple[float, float] | None = None
    basis: Basis = Basis.UNAVAILABLE
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    mean: float | None = None
    idle: float | None = None
    peak: float | None = None
    inference: float | None = None
    basis: Basis = Basis.UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    inferences_per_joule: float | None = None
    inferences_per_second_per_watt: float | None = None
    inferences_per_second: float | None = None
    edp_js: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """How windows and samples were brought together.

    `clock` says what related the host's stamps to the samples: the arrival of the bytes, or a sync code in the power.
    `confidence` is that of windows found by their shape. `grade` is in-band (trigger and samples in the same words),
    host-marker or shape. `residual_s` is the standard uncertainty of an edge. `missed` and `extra` are edges that
    should or should not have been there.
    """

    grade: str | None = None
    trigger: str | None = None
    clock: str | None = None
    confidence: float | None = None
    offset_s: float | None = None
    drift_ppm: float | None = None
    residual_s: float | None = None
    matched: int = 0
    missed: int = 0
    extra: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of the inference with a trigger of its own: energy and duration of one occurrence."""

    windows: int
    energy_j: Summary
    duration_s: Summary
    per_inference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    found: int = 0
    used: int = 0
    rejected: Mapping[str, int] = field(default_factory=dict)
    inferences_per_window: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One line of the budget: `value` in `unit`, standard uncertainty `contribution_j` in the energy per inference.

    `dof` are the degrees of freedom of the contribution; None stands for infinitely many.
    """

    term: str
    type: str
    distribution: str
    value: float
    unit: str
    sensitivity: float
    contribution_j: float
    random: bool
    source: str
    dof: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Battery:
    """A projected life.

    `life_s` are percentiles over cells of a kind (p5, p50, p95), `nominal_life_s` that of the cell as its data has it;
    None where the load is refused. `cause` is what ends the nominal one, `causes` the shares over the cells.
    `naive_life_s` is the rated charge over the mean current, as others print it. `worst_grade` is that of the poorest
    figure it rests on, from A, the maker's own text, to D, fitted or derived. `curve` is the rail against age;
    `periods` are lives at other periods, `sensitivities` lives where one input is lower and higher, strongest first.
    """

    cell: str
    life_s: Mapping[str, float | None]
    cause: str
    naive_life_s: float
    inferences: float | None
    every_s: float | None
    mean_current_a: float
    capacity_c: float
    basis: Basis
    nominal_life_s: float | None = None
    rest_current_a: float | None = None
    peak_current_a: float | None = None
    cutoff_v: float | None = None
    rail_fresh_v: float | None = None
    rail_end_v: float | None = None
    charge_left_c: float | None = None
    causes: Mapping[str, float] = field(default_factory=dict)
    worst_grade: str | None = None
    sensitivities: tuple[Mapping[str, Any], ...] = ()
    periods: tuple[Mapping[str, Any], ...] = ()
    wanted_s: float | None = None
    period_for_wanted_s: float | None = None
    saving_capacitor_f: float | None = None
    harvest: Mapping[str, Any] | None = None
    curve: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All of it. `truth` is the closed form of a simulated load, None for everything real.

    `loss_per_inference_j` is what a shunt took, which is no part of the energy; None where no meter tells it.
    `cross_check` is the meter's own counter against its readings, where it has one (physics.witness.CrossCheck).
    """

    name: str
    created: str
    simulated: bool
    device: Mapping[str, Any] | None = None
    workload: Mapping[str, Any] | None = None
    instrument: Mapping[str, Any] | None = None
    windows: Windows = field(default_factory=Windows)
    energy_per_inference_j: Summary = field(default_factory=Summary)
    net_energy_per_inference_j: Summary | None = None
    net_reason: str | None = None
    latency_s: Summary = field(default_factory=Summary)
    power_w: Power = field(default_factory=Power)
    charge_per_inference_c: float | None = None
    loss_per_inference_j: Summary | None = None
    efficiency: Efficiency = field(default_factory=Efficiency)
    sync: Sync = field(default_factory=Sync)
    phases: Mapping[str, Phase] = field(default_factory=dict)
    uncertainty: tuple[Term, ...] = ()
    agreement: Mapping[str, Any] | None = None
    cross_check: Mapping[str, Any] | None = None
    battery: Battery | None = None
    truth: Mapping[str, float] | None = None
    caveats: tuple[Caveat, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, schema first."""
        plain: dict[str, Any] = dataclasses.asdict(self)
        return {"schema": plain.pop("schema"), **plain}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    """Numpy scalars are the only foreign thing that may reach a result."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} does not belong in a result")
