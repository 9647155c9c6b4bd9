"""One measurement from the meter's name to a result: the only place that runs an instrument and a workload together."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from joulemeter import registry, store
from joulemeter.align import Trigger, parse_trigger
from joulemeter.analyze import Analysis, Request, analyze
from joulemeter.capture import Event
from joulemeter.caveat import Code, doubt
from joulemeter.errors import DataError, IncompleteError, JouleMeterError, UsageError
from joulemeter.instrument import Options
from joulemeter.record import Health, Recorder
from joulemeter.simulation import DEFAULT_LOAD, SimulatedMeter
from joulemeter.synthetic import parse_load
from joulemeter.transport.faults import parse_faults
from joulemeter.units import show, show_duration
from joulemeter.workload import Stamps, Workload
from joulemeter.workload import parse as parse_workload

Progress = Callable[[str], None]

# With neither a number of windows nor a duration, this much is recorded.
DEFAULT_DURATION_S = 10.0
DEFAULT_INFERENCES = 100
# `--target` looks again after this long, and gives up after TARGET_LIMIT_S.
TARGET_LOOK_S = 2.0
TARGET_LIMIT_S = 600.0
BATCH_S = 1.0
# The meter's last samples are still on their way when the workload has ended.
TAIL_S = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """`KEY[@ADDRESS]` with what is asked of it."""

    key: str
    address: str
    options: Options = field(default_factory=Options)


def parse_meter(text: str, options: Options) -> Meter | None:
    """A meter, or None for "none". Raises NotFoundError for an unknown key."""
    key, _, address = text.partition("@")
    if key == "none":
        return None
    registry.instrument(key)
    return Meter(key=key, address=address, options=options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a measurement needs to know.

    `board_runs` says what a board that runs by itself is running. `timeout_s`: give up when no window has completed for
    so long.
    """

    meter: Meter | None
    output: Path
    name: str
    trigger: str | None = None
    workload: str | None = None
    workload_options: Mapping[str, str] = field(default_factory=dict)
    simulate: bool = False
    load: str | None = None
    faults: str | None = None
    duration_s: float | None = None
    windows: int | None = None
    target: float | None = None
    inferences_per_window: int | None = None
    warmup: int = 10
    baseline_s: float | None = None
    debounce_s: float | None = None
    timeout_s: float = 20.0
    note: str | None = None
    device: Mapping[str, Any] | None = None
    board_runs: Mapping[str, Any] | None = None
    argv: tuple[str, ...] = ()
    profiles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`trouble` is what ended the recording early although there is a result."""

    folder: Path
    analysis: Analysis
    trouble: JouleMeterError | None = None


def record(plan: Plan, progress: Progress) -> tuple[Path, JouleMeterError | None]:
    """Capture only. The run directory, and what ended it early, if anything."""
    _check(plan)
    folder, trouble = _capture(plan, progress)
    return folder, trouble


def measure(plan: Plan, progress: Progress) -> Outcome:
    """Record and analyse. Raises JouleMeterError when there is no result; the recording is kept and named."""
    _check(plan)
    folder, trouble = _capture(plan, progress)
    try:
        analysis = _analyze(folder, plan)
    except JouleMeterError as error:
        worse = trouble or error
        raise type(worse)(worse.what, f"{worse.remedy} The recording is kept in {folder}.".strip()) from error
    if trouble is None and plan.target is not None and not _narrow_enough(analysis, plan.target):
        missed = doubt(
            Code.TARGET_NOT_REACHED,
            f"The 95 % interval is still wider than ±{plan.target:.2%} of the median. Measure longer with --duration.",
        )
        caveats = (*analysis.result.caveats, missed)
        analysis = replace(analysis, result=replace(analysis.result, caveats=caveats))
    try:
        store.write_result(folder, analysis.result, analysis.windows)
    except JouleMeterError as error:
        trouble = trouble or error
    return Outcome(folder=folder, analysis=analysis, trouble=trouble)


def _check(plan: Plan) -> None:
    """Refuse what cannot work before anything is created."""
    if plan.trigger is not None:
        trigger = parse_trigger(plan.trigger)
        if trigger.source == "host" and plan.workload is None:
            raise UsageError(
                "The trigger 'host' needs a workload that this host runs.",
                "Name one with --workload, or use a digital line.",
            )
    if plan.meter is None and plan.workload is None:
        raise UsageError("Without a meter and without a workload there is nothing to measure.", "Name one of them.")
    if plan.meter is None and plan.simulate:
        raise UsageError("--simulate needs a --meter to simulate.")
    if not plan.simulate and (plan.load or plan.faults):
        raise UsageError("--load and --faults belong to a simulated meter.", "Add --simulate, or leave them out.")
    parse_load(plan.load or DEFAULT_LOAD)
    parse_faults(plan.faults or "")


def _analyze(folder: Path, plan: Plan) -> Analysis:
    request = Request(
        trigger=plan.trigger, inferences_per_window=plan.inferences_per_window, debounce_s=plan.debounce_s
    )
    return analyze(store.open_run(folder), request)


def _narrow_enough(analysis: Analysis, target: float) -> bool:
    energy = analysis.result.energy_per_inference_j
    quantity = energy if energy.median is not None else analysis.result.latency_s
    if quantity.ci95 is None or not quantity.median:
        return False
    return max(abs(edge - quantity.median) for edge in quantity.ci95) <= target * abs(quantity.median)


# -- recording --------------------------------------------------------------------------------------------------------


def _capture(plan: Plan, progress: Progress) -> tuple[Path, JouleMeterError | None]:
    workload = _workload(plan)
    if workload is not None:
        progress("preparing the workload")
        workload.prepare()
    try:
        meta = _meta(plan, workload.describe() if workload is not None else plan.board_runs)
        folder = store.create_run(plan.output, plan.name, meta)
        if plan.meter is None:
            return folder, _run_alone(plan, workload, folder, progress) if workload else None
        with contextlib.ExitStack() as stack:
            address = plan.meter.address
            if plan.simulate:
                simulator = SimulatedMeter(plan.meter.key, load=plan.load, faults=plan.faults)
                address = stack.enter_context(simulator).address
            return folder, _with_meter(plan, plan.meter, address, workload, folder, progress)
    finally:
        if workload is not None:
            workload.close()


def _with_meter(
    plan: Plan, meter: Meter, address: str, workload: Workload | None, folder: Path, progress: Progress
) -> JouleMeterError | None:
    trigger = parse_trigger(plan.trigger) if plan.trigger else None
    line = trigger.source if trigger is not None and trigger.source.startswith("d") else None
    progress(f"starting {meter.key}")
    recorder = Recorder(meter.key, address, meter.options, folder / meter.key, line)
    trouble: JouleMeterError | None = None
    try:
        with recorder:
            try:
                if plan.baseline_s:
                    _baseline(plan.baseline_s, recorder, folder, progress)
                if workload is not None:
                    _run_workload(plan, workload, folder, progress)
                    _tail(recorder)
                else:
                    _wait(plan, trigger, recorder, folder, progress)
            except KeyboardInterrupt:
                trouble = IncompleteError("Interrupted.", "What was recorded until then is kept.")
    except JouleMeterError as error:
        if not recorder.started:
            # Nothing was recorded, so nothing is left behind.
            with contextlib.suppress(OSError):
                (folder / store.RUN).unlink()
                folder.rmdir()
            raise
        trouble = error
    return trouble or recorder.error


def _tail(recorder: Recorder) -> None:
    until = time.monotonic() + TAIL_S
    while (left := until - time.monotonic()) > 0:
        recorder.poll(left)


def _wait(plan: Plan, trigger: Trigger | None, recorder: Recorder, folder: Path, progress: Progress) -> None:
    """Until enough windows, the wanted precision, or the time is over."""
    goal = plan.windows
    limit_s = plan.duration_s
    if goal is None and plan.target is None and limit_s is None:
        limit_s = DEFAULT_DURATION_S
    elif limit_s is None and plan.target is not None:
        limit_s = TARGET_LIMIT_S
    started = changed = looked = time.monotonic()
    look_every_s = TARGET_LOOK_S
    seen = -1
    while limit_s is None or time.monotonic() - started < limit_s:
        health = recorder.poll(0.1 if limit_s is None else min(0.1, max(0.01, started + limit_s - time.monotonic())))
        now = time.monotonic()
        complete = completed(trigger, health) if trigger is not None else 0
        progress(_line(health, complete if trigger else None, goal, now - started))
        if goal is not None and complete >= goal:
            return
        if complete != seen:
            seen, changed = complete, now
        elif goal is not None and now - changed > plan.timeout_s:
            return  # the analysis says what the trigger did instead
        if plan.target is not None and now - looked > look_every_s:
            with contextlib.suppress(DataError):
                if _narrow_enough(_analyze(folder, plan), plan.target):
                    return
            # Looking must stay cheap beside recording.
            look_every_s = max(TARGET_LOOK_S, 5 * (time.monotonic() - now))
            looked = time.monotonic()


def completed(trigger: Trigger, health: Health) -> int:
    """Windows that are complete after so many edges."""
    rises, falls = health.rises, health.falls
    match trigger.form:
        case "high":
            # A fall without a rise before it ends a window that had begun too early to count.
            return max(0, falls - bool(health.began_high))
        case "low":
            return max(0, rises - (not health.began_high))
        case "rising":
            return max(0, rises - 1)
        case "falling":
            return max(0, falls - 1)
        case _:
            return max(0, falls - 1) // 2


def _line(health: Health, complete: int | None, goal: int | None, elapsed_s: float) -> str:
    parts = [show_duration(elapsed_s), f"{health.samples} samples"]
    if health.power_w is not None:
        parts.append(show(health.power_w, "W"))
    if complete is not None:
        parts.append(f"{complete}/{goal} windows" if goal else f"{complete} windows")
    if health.lost:
        parts.append(f"{health.lost} LOST")
    return " · ".join(parts)


def _baseline(duration_s: float, recorder: Recorder, folder: Path, progress: Progress) -> None:
    begin = time.monotonic_ns()
    while (left := duration_s - (time.monotonic_ns() - begin) * 1e-9) > 0:
        health = recorder.poll(min(left, 0.1))
        progress(f"baseline · {_line(health, None, None, duration_s - left)}")
    stamps = (("begin", begin), ("end", time.monotonic_ns()))
    store.append_events(folder, [Event(label=label, source="baseline", monotonic_ns=at) for label, at in stamps])


# -- workloads --------------------------------------------------------------------------------------------------------


def _workload(plan: Plan) -> Workload | None:
    if plan.workload is None:
        return None
    spec = parse_workload(plan.workload, plan.workload_options)
    return registry.workload(spec.kind).create(spec.target, spec.options)


def _run_workload(plan: Plan, workload: Workload, folder: Path, progress: Progress) -> None:
    """Warm up, then run windows until enough; every begin and end becomes an event."""
    progress(f"warming up ({plan.warmup})")
    workload.warm_up(plan.warmup)
    per_window = plan.inferences_per_window or 1
    total = plan.windows or (DEFAULT_INFERENCES if plan.duration_s is None else None)
    done, batch = 0, DEFAULT_INFERENCES
    started = time.monotonic()
    while total is None or done < total:
        if plan.duration_s is not None and time.monotonic() - started >= plan.duration_s:
            break
        if done:
            workload.warm_up(1)  # what happened between the batches has cooled the caches
        began = time.monotonic()
        stamps = workload.run(batch if total is None else min(batch, total - done), per_window)
        _keep(stamps, per_window, folder)
        done += len(stamps)
        # About a second each: progress and Ctrl-C get through, and the interruptions stay rare.
        batch = max(1, round(len(stamps) * BATCH_S / max(time.monotonic() - began, 1e-3)))
        progress(f"{show_duration(time.monotonic() - started)} · {done}{f'/{total}' if total else ''} windows")


def _keep(stamps: Stamps, per_window: int, folder: Path) -> None:
    pairs = zip(stamps.begin_ns.tolist(), stamps.end_ns.tolist(), strict=True)
    events = []
    for begin, end in pairs:
        events.append(Event(label="begin", source="host", monotonic_ns=begin))
        events.append(Event(label="end", source="host", monotonic_ns=end, data={"inferences": per_window}))
    store.append_events(folder, events)


def _run_alone(plan: Plan, workload: Workload, folder: Path, progress: Progress) -> JouleMeterError | None:
    try:
        _run_workload(plan, workload, folder, progress)
    except KeyboardInterrupt:
        return IncompleteError("Interrupted.", "What was recorded until then is kept.")
    return None


# -- what is written about it -----------------------------------------------------------------------------------------


def _meta(plan: Plan, workload: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "trigger": plan.trigger or ("host" if plan.workload else None),
        "inferences_per_window": plan.inferences_per_window or (1 if plan.workload else None),
        "device": plan.device,
        "workload": workload,
        "simulated": plan.simulate,
        "note": plan.note,
        "provenance": {
            "command": list(plan.argv),
            "versions": versions(),
            "host": host(),
            "profiles": dict(plan.profiles),
            "streams": [plan.meter.key] if plan.meter else [],
        },
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("joulemeter", "numpy", "scipy", "pyserial"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def host() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "implementation": sys.implementation.name,
    }
