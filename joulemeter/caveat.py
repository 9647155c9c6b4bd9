"""Doubts with a name. Each says what happened, what it does to the number, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    NOTE = "note"
    DOUBT = "doubt"
    INVALID = "invalid"


class Code(StrEnum):
    """Every doubt this project can raise. Programs may rely on these words."""

    # where the numbers come from
    SIMULATED = "simulated"
    VOLTAGE_DECLARED = "voltage-declared"
    VOLTAGE_SET = "voltage-set"
    VOLTAGE_UNKNOWN = "voltage-unknown"
    ENERGY_UNAVAILABLE = "energy-unavailable"
    CALIBRATION_DEFAULTED = "calibration-defaulted"
    CALIBRATED = "calibrated"
    ACCURACY_UNVERIFIED = "accuracy-unverified"
    PARTLY_SEEN = "partly-seen"
    OTHER_SCOPE = "other-scope"
    BURDEN = "burden-voltage"
    SKEW = "skew"
    ZERO_UNKNOWN = "zero-unknown"
    FEWER_RECORDS = "fewer-records"
    INFERENCES_ASSUMED = "inferences-assumed"
    # the recording
    LOST_SAMPLES = "lost-samples"
    GAP_LENGTH_UNCERTAIN = "gap-length-uncertain"
    MISALIGNED = "misaligned"
    CLIPPED = "clipped"
    INVALID_SAMPLES = "invalid-samples"
    ALTERED_SAMPLES = "altered-samples"
    BACK_PRESSURE = "back-pressure"
    COUNTER_RESET = "counter-reset"
    UNFINISHED = "unfinished"
    TRUNCATED = "truncated"
    TRIALS_JOINED = "trials-joined"
    METERS_DIFFER = "meters-differ"
    CLOCK_STEP = "clock-step"
    HOST_SLEPT = "host-slept"
    # the windows
    CUT_WINDOW = "cut-window"
    BOUNCING_EDGES = "bouncing-edges"
    MISSING_EDGES = "missing-edges"
    ODD_WINDOWS = "odd-windows"
    ODD_STAMP_COUNT = "odd-stamp-count"
    SHORT_WINDOW = "short-window"
    FEW_SAMPLES = "few-samples"
    TOO_SHORT = "too-short-for-meter"
    SHAPE_DOUBT = "shape-doubt"
    HOST_CLOCK_ONLY = "host-clock-only"
    COUNT_MISMATCH = "count-mismatch"
    EDGE_COST = "edge-cost"
    # the statistics
    SINGLE_WINDOW = "single-window"
    FEW_WINDOWS = "few-windows"
    TARGET_NOT_REACHED = "target-not-reached"
    IDLE_BETWEEN_WINDOWS = "idle-between-windows"
    IDLE_ONE_SPAN = "idle-one-span"
    IDLE_DRIFT = "idle-drift"
    NEGATIVE_NET = "negative-net"
    NEGATIVE_ENERGY = "negative-energy"
    OUTLIERS = "outliers"
    SKEWED = "skewed"
    BIMODAL = "bimodal"
    DRIFT = "drift"
    WARM_UP = "warm-up"
    # the battery
    BATTERY_UNKNOWN = "battery-unknown"
    BATTERY_PULSE = "battery-pulse-current"
    BATTERY_REFUSED = "battery-refused"
    BATTERY_NEVER_STARTS = "battery-never-starts"
    BATTERY_SHELF = "battery-shelf-life"
    BATTERY_SEPARATION = "battery-separation-of-scales"
    BATTERY_RATE = "battery-rate-capacity"
    BATTERY_PASSIVATION = "battery-passivation"
    BATTERY_DELAY = "battery-voltage-delay"
    BATTERY_ASSUMED = "battery-assumed"
    BATTERY_GAPS = "battery-waveform-gaps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Caveat:
    """`text` is cause, effect on the number, and remedy, as plain sentences; `data` the figures behind it."""

    code: Code
    severity: Severity
    text: str
    data: dict[str, Any] = field(default_factory=dict)


def note(code: Code, text: str, **data: Any) -> Caveat:
    return Caveat(code=code, severity=Severity.NOTE, text=text, data=data)


def doubt(code: Code, text: str, **data: Any) -> Caveat:
    return Caveat(code=code, severity=Severity.DOUBT, text=text, data=data)


def invalid(code: Code, text: str, **data: Any) -> Caveat:
    return Caveat(code=code, severity=Severity.INVALID, text=text, data=data)
