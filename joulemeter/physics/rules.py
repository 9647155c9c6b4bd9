"""What a result is held to: an earlier one, and limits of its own. A rule that cannot be judged has failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from joulemeter.errors import JouleMeterError, UsageError
from joulemeter.physics.regression import Change, Verdict, calibrations, change, ranges
from joulemeter.result import Result
from joulemeter.units import show, show_uncertain

REGRESSION = "max-regression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A result, and the energies per inference of its windows used, J, in their order; None where they are gone."""

    result: Result
    windows_j: Sequence[float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """`max_regression` is relative (0.03 is 3 %); `limits` are SI values by the names of LIMITS.

    `strict`: what is not resolved fails. `between_runs`: see regression.change.
    """

    max_regression: float | None = None
    limits: Mapping[str, float] = field(default_factory=dict)
    between_runs: float = 0.0
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What became of one rule. `value` and `limit` are in SI units, relative for a regression; unknown is None.

    `resolved` is False where the interval leaves open which side of the limit it is.
    """

    rule: str
    passed: bool
    resolved: bool
    value: float | None
    limit: float
    unit: str
    text: str


class Doubt(StrEnum):
    """What is not alike in a result and its baseline, so that a difference may not be the kernel's."""

    SIMULATED_AND_MEASURED = "simulated-and-measured"
    SAME_RESULT = "same-result"
    OTHER_METER = "other-meter"
    UNKNOWN_METER = "unknown-meter"
    OTHER_RANGE = "other-range"
    OTHER_CALIBRATION = "other-calibration"
    OTHER_VOLTAGE = "other-voltage"
    OTHER_RATE = "other-rate"
    OTHER_TRIGGER = "other-trigger"
    OTHER_DEVICE = "other-device"
    OTHER_WORKLOAD = "other-workload"
    OTHER_COUNT = "other-count"
    NO_WINDOWS = "no-windows"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    code: Doubt
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """All of it. `change` is None where there was no baseline, or nothing could be compared."""

    result: Result
    baseline: Result | None
    findings: tuple[Finding, ...]
    doubts: tuple[Named, ...] = ()
    change: Change | None = None

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def simulated(self) -> bool:
        return self.result.simulated or (self.baseline is not None and self.baseline.simulated)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A quantity of a result with what holds it at 95 %, or why there is none."""

    value: float | None
    interval: tuple[float, float] | None = None
    reason: str | None = None


def _energy(result: Result) -> Reading:
    energy = result.energy_per_inference_j
    return Reading(value=energy.median, interval=energy.ci95_total or energy.ci95, reason=energy.reason)


def _net(result: Result) -> Reading:
    energy = result.net_energy_per_inference_j
    if energy is None:
        return Reading(value=None, reason=result.net_reason)
    return Reading(value=energy.median, interval=energy.ci95_total or energy.ci95, reason=energy.reason)


def _latency(result: Result) -> Reading:
    latency = result.latency_s
    return Reading(value=latency.median, interval=latency.ci95_total or latency.ci95, reason=latency.reason)


def _power(result: Result) -> Reading:
    return Reading(value=result.power_w.mean, reason="power is unavailable")


# rule -> what it is, its unit, and where it stands
LIMITS: dict[str, tuple[str, str, Callable[[Result], Reading]]] = {
    "max-energy": ("Energy per inference", "J", _energy),
    "max-net-energy": ("Energy per inference above idle", "J", _net),
    "max-latency": ("Latency", "s", _latency),
    "max-power": ("Mean power of the recording", "W", _power),
}


def check(measured: Measured, baseline: Measured | None, rules: Rules) -> Check:
    """Every rule asked for, judged. Raises UsageError where there is none, or no baseline for one."""
    if baseline is None and rules.max_regression is not None:
        raise UsageError("There is no baseline to hold a regression against.", "Give --baseline RESULT.")
    findings = [_limited(measured.result, name, limit, rules) for name, limit in rules.limits.items()]
    found: Change | None = None
    doubts: list[Named] = []
    if baseline is not None:
        doubts = differences(measured, baseline)
        if rules.max_regression is not None:
            found, finding = _regression(measured, baseline, rules, rules.max_regression)
            findings.insert(0, finding)
    if not findings:
        raise UsageError("Nothing says what the result is held to.", "Give --baseline RESULT, or --max-energy 2.5mJ.")
    return Check(
        result=measured.result,
        baseline=None if baseline is None else baseline.result,
        findings=tuple(findings),
        doubts=tuple(doubts),
        change=found,
    )


def _limited(result: Result, name: str, limit: float, rules: Rules) -> Finding:
    label, unit, read = LIMITS[name]
    reading = read(result)
    allowed = show(limit, unit)
    if reading.value is None:
        text = f"{label} is unknown ({reading.reason or 'nobody says why'}), so it cannot be held to {allowed}."
        return Finding(rule=name, passed=False, resolved=False, value=None, limit=limit, unit=unit, text=text)
    good = reading.value <= limit
    text = f"{label} is {show(reading.value, unit)}, {'within' if good else 'more than'} {allowed}."
    resolved = reading.interval is None or not reading.interval[0] <= limit < reading.interval[1]
    if reading.interval is not None and not resolved:
        low, high = (show(edge, unit) for edge in reading.interval)
        text += f" Not resolved: the 95 % interval ({low} to {high}) holds the limit."
    return Finding(
        rule=name,
        passed=good and (resolved or not rules.strict),
        resolved=resolved,
        value=reading.value,
        limit=limit,
        unit=unit,
        text=text,
    )


def _regression(measured: Measured, baseline: Measured, rules: Rules, limit: float) -> tuple[Change | None, Finding]:
    new, old = measured.result, baseline.result
    try:
        found = change(new, old, measured.windows_j, baseline.windows_j, between_runs=rules.between_runs)
    except JouleMeterError as error:
        text = f"Nothing can be said of a regression. {error}"
        return None, Finding(
            rule=REGRESSION, passed=False, resolved=False, value=None, limit=limit, unit="1", text=text
        )
    verdict = found.against(limit)
    now, before = (
        show_uncertain(one.energy_per_inference_j.median, one.energy_per_inference_j.u_random, "J")
        for one in (new, old)
    )
    text = f"Energy per inference changed by {found}, {now} against {before}. {_said(found, verdict, limit)}"
    return found, Finding(
        rule=REGRESSION,
        passed=verdict is Verdict.HELD or (verdict is Verdict.LOOSE and not rules.strict),
        resolved=verdict is not Verdict.LOOSE,
        value=found.ratio - 1,
        limit=limit,
        unit="1",
        text=text,
    )


def _said(found: Change, verdict: Verdict, limit: float) -> str:
    allowed = f"{limit * 100:.3g} %"
    match verdict:
        case Verdict.WORSE:
            if found.low - 1 >= limit:
                return f"It rose by more than {allowed}."
            return f"It rose, and a rise of {allowed} is not excluded."
        case Verdict.LOOSE:
            return (
                f"No rise is resolved, but one of {allowed} is not excluded either: the interval is too wide for this "
                "rule. Record more windows, or let board and supply settle."
            )
        case Verdict.HELD if not found.resolved:
            return f"No difference is resolved, and a rise of {allowed} is excluded."
        case Verdict.HELD if found.ratio > 1:
            return f"It rose, but a rise of {allowed} is excluded."
        case _:
            return "It fell."


# -- what is not alike -------------------------------------------------------------------------------------------------


def _of(given: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, object]:
    return {name: (given or {}).get(name) for name in names}


_METER = ("key", "model", "serial")
_WORKLOAD = ("runtime", "version", "delegate", "threads", "model", "model_sha256", "precision", "batch")

# doubt -> what it is called, what it is made of, and what it means for the comparison
_ALIKE: dict[Doubt, tuple[str, Callable[[Result], dict[str, object]], str]] = {
    Doubt.OTHER_METER: (
        "The meter",
        lambda result: _of(result.instrument, _METER),
        "Its accuracy does not cancel and is in the interval.",
    ),
    Doubt.OTHER_VOLTAGE: (
        "The voltage",
        lambda result: _of(result.instrument, ("voltage_v", "voltage_basis")),
        "Energy differs with it, and its limits do not cancel.",
    ),
    Doubt.OTHER_RATE: (
        "The sample rate",
        lambda result: _of(result.instrument, ("rate_hz",)),
        "Edges of windows fall differently.",
    ),
    Doubt.OTHER_TRIGGER: (
        "The trigger",
        lambda result: {"trigger": result.sync.trigger, "grade": result.sync.grade},
        "What counts as an inference may not be the same.",
    ),
    Doubt.OTHER_DEVICE: (
        "The device",
        lambda result: {"name": (result.device or {}).get("name")},
        "A change may be the board's.",
    ),
    Doubt.OTHER_WORKLOAD: (
        "The workload",
        lambda result: _of(result.workload, _WORKLOAD),
        "A change may be the workload's, which may be what is being checked.",
    ),
    Doubt.OTHER_COUNT: (
        "The number of inferences per window",
        lambda result: {"count": result.windows.inferences_per_window},
        "What is shared by all inferences of a window weighs differently.",
    ),
}


def differences(measured: Measured, baseline: Measured) -> list[Named]:
    """What is not alike in a result and its baseline, worst first."""
    new, old = measured.result, baseline.result
    found: list[Named] = []
    if new.simulated != old.simulated:
        which = ("result", "baseline") if new.simulated else ("baseline", "result")
        text = f"The {which[0]} is simulated and the {which[1]} is measured; they have nothing to do with each other."
        found.append(Named(code=Doubt.SIMULATED_AND_MEASURED, text=text))
    if new == old:
        text = "The result is the baseline itself, so nothing was checked. Look at the paths."
        found.append(Named(code=Doubt.SAME_RESULT, text=text))
    for code, (label, parts, meaning) in _ALIKE.items():
        now, before = parts(new), parts(old)
        unlike = [
            f"{name} {_shown(now[name])}, before {_shown(before[name])}" for name in now if now[name] != before[name]
        ]
        if unlike:
            found.append(Named(code=code, text=f"{label} differs ({'; '.join(unlike)}). {meaning}"))
    if ranges(new) != ranges(old) and not any(one.code is Doubt.OTHER_METER for one in found):
        text = "The meter used other ranges. Its gain does not cancel and is in the interval."
        found.append(Named(code=Doubt.OTHER_RANGE, text=text))
    if calibrations(new) != calibrations(old) and not any(one.code is Doubt.OTHER_METER for one in found):
        text = "The meter's gain rests on something else (a calibration), so it does not cancel and is in the interval."
        found.append(Named(code=Doubt.OTHER_CALIBRATION, text=text))
    if not new.simulated and all((one.instrument or {}).get("serial") is None for one in (new, old)):
        text = "No serial number says that both come from one meter; it is taken to be one, and its gain to cancel."
        found.append(Named(code=Doubt.UNKNOWN_METER, text=text))
    if measured.windows_j is None or baseline.windows_j is None:
        which_one = "the result" if measured.windows_j is None else "the baseline"
        text = (
            f"There is no windows.csv that belongs to {which_one}, so the scatter is that of the budgets: outliers "
            "widen it. Keep the whole run directory."
        )
        found.append(Named(code=Doubt.NO_WINDOWS, text=text))
    return found


def _shown(value: object) -> str:
    """A value of a file in a few words."""
    if value is None:
        return "unknown"
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."
