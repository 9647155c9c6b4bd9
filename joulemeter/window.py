"""Windows: the spans of a stream in which the model ran, or did not, and what each of them cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from joulemeter.caveat import Code


class Role(StrEnum):
    INFERENCE = "inference"
    WARMUP = "warmup"
    IDLE = "idle"
    BASELINE = "baseline"
    PHASE = "phase"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The half-open span [start_ns, stop_ns) of stream time.

    `u_edge_s` is the standard uncertainty of each edge. `timed_s` is the duration that the trigger states where the
    convention sums over slightly different samples (see align.eembc_windows), else None: stop - start.
    """

    start_ns: int
    stop_ns: int
    index: int
    role: Role = Role.INFERENCE
    label: str = ""
    inferences: int = 1
    u_edge_s: float = 0.0
    timed_s: float | None = None

    @property
    def duration_s(self) -> float:
        return (self.stop_ns - self.start_ns) * 1e-9

    @property
    def latency_s(self) -> float:
        """Seconds per inference."""
        return (self.duration_s if self.timed_s is None else self.timed_s) / self.inferences


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowEnergy:
    """What one window cost. None is unknown, never zero.

    `missing_s` is the part of the window without samples: its energy is not in `energy_j`. `edge_power_w` is the
    largest power of the two samples just inside either edge. `energy_by_range_j` and `dwell_by_range_s` split the
    window by the instrument's range (key None where it has only one). `altered_j` bounds the energy that a filter
    replaced. `resolution_j` is the half-width that the refresh or the spacing of slow readings leaves open at the
    edges. `invalid_samples` are readings that the meter itself says to be no measurement.
    """

    window: Window
    energy_j: float | None
    charge_c: float | None
    mean_power_w: float | None
    peak_power_w: float | None
    samples: float
    missing_s: float = 0.0
    clipped_samples: int = 0
    altered_samples: int = 0
    invalid_samples: int = 0
    altered_j: float = 0.0
    edge_power_w: float = 0.0
    resolution_j: float = 0.0
    energy_by_range_j: Mapping[int | None, float] = field(default_factory=dict)
    dwell_by_range_s: Mapping[int | None, float] = field(default_factory=dict)
    caveats: tuple[Code, ...] = ()

    @property
    def per_inference_j(self) -> float | None:
        return None if self.energy_j is None else self.energy_j / self.window.inferences
