"""One recording, from the first meter's start to the last one's end: meters, workload, device text and stamps."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from joulemeter import calibrations, store
from joulemeter.capture import Event
from joulemeter.errors import IncompleteError, JouleMeterError, UsageError
from joulemeter.pattern import default_pattern
from joulemeter.physics.calibration import check
from joulemeter.plan import Plan
from joulemeter.record import Health, Recorder
from joulemeter.serialtext import SerialText
from joulemeter.simulation import SimulatedMeter
from joulemeter.trigger import Trigger, parse_trigger
from joulemeter.units import show, show_duration
from joulemeter.workload import Stamps, Workload
from joulemeter.workload.beacon import play

Progress = Callable[[str], None]
# Whether what has been recorded so far is precise enough.
Enough = Callable[[], bool]

# With neither a number of windows nor a duration, this much is recorded.
DEFAULT_DURATION_S = 10.0
DEFAULT_INFERENCES = 100
# `--target` looks again after this long, and gives up after TARGET_LIMIT_S.
TARGET_LOOK_S = 2.0
TARGET_LIMIT_S = 600.0
BATCH_S = 1.0
# The meter's last samples are still on their way when the workload has ended.
TAIL_S = 0.3


def conduct(
    plan: Plan, workload: Workload | None, folder: Path, progress: Progress, enough: Enough
) -> JouleMeterError | None:
    """Record into `folder`; what ended the recording early, if anything.

    Raises JouleMeterError when a meter did not start: then nothing was recorded and the folder is gone.
    """
    if not plan.meters:
        return _alone(plan, workload, folder, progress) if workload is not None else None
    recorders: list[Recorder] = []
    trouble: JouleMeterError | None = None
    with contextlib.ExitStack() as simulators:
        addresses = [meter.address for meter in plan.meters]
        if plan.simulate:
            simulated = [SimulatedMeter(meter.key, load=plan.load, faults=plan.faults) for meter in plan.meters]
            addresses = [simulators.enter_context(meter).address for meter in simulated]
        try:
            with contextlib.ExitStack() as open_recorders:
                text = open_recorders.enter_context(SerialText(plan.serial)) if plan.serial else None
                _start(plan, addresses, folder, recorders, open_recorders, progress)
                try:
                    _run(plan, workload, recorders, text, folder, progress, enough)
                except KeyboardInterrupt:
                    trouble = IncompleteError("Interrupted.", "What was recorded until then is kept.")
                finally:
                    _keep_text(text, folder)
        except JouleMeterError as error:
            if not all(recorder.started for recorder in recorders) or len(recorders) < len(plan.meters):
                _forget(folder)
                raise
            trouble = error
        except KeyboardInterrupt:
            _forget(folder)
            raise
    return trouble or next((recorder.error for recorder in recorders if recorder.error), None)


def stream_names(plan: Plan) -> list[str]:
    """A folder name per meter: its key, numbered where a key comes twice."""
    keys = [meter.key for meter in plan.meters]
    return [key if keys.count(key) == 1 else f"{key}-{keys[: place + 1].count(key)}" for place, key in enumerate(keys)]


def watched_line(plan: Plan) -> str | None:
    """The digital line whose edges are counted while recording."""
    trigger = parse_trigger(plan.trigger) if plan.trigger else None
    return trigger.source if trigger is not None and trigger.digital else None


def _start(
    plan: Plan,
    addresses: Sequence[str],
    folder: Path,
    recorders: list[Recorder],
    stack: contextlib.ExitStack,
    progress: Progress,
) -> None:
    line = watched_line(plan)
    for meter, address, name in zip(plan.meters, addresses, stream_names(plan), strict=True):
        progress(f"starting {meter.key}")
        recorder = Recorder(meter.key, address, meter.options, folder / name, line)
        recorders.append(recorder)
        stack.enter_context(recorder)
        if plan.calibrated:
            _copy_calibration(folder / name)


def _copy_calibration(folder: Path) -> None:
    """Keep the user's newest calibration of this meter with the run, so that the numbers stay what they were.

    One that no longer fits the meter is not used, and the run says so.
    """
    header = store.read_header(folder)
    calibration = calibrations.find(header)
    if calibration is None:
        return
    try:
        check(header, calibration)
    except UsageError as error:
        text = f"The calibration of {calibration.created[:10]} was not used. {error}"
        store.append_events(folder.parent, [Event(label=text, source=store.CALIBRATION_REFUSED)])
        return
    store.write_json(folder / store.CALIBRATION, calibration)


def _forget(folder: Path) -> None:
    """Nothing was recorded, so nothing is left behind; what another meter has recorded already is kept."""
    with contextlib.suppress(OSError):
        if not any(folder.glob(f"*/{store.WORDS}")):
            (folder / store.RUN).unlink()
            folder.rmdir()


def _run(
    plan: Plan,
    workload: Workload | None,
    recorders: Sequence[Recorder],
    text: SerialText | None,
    folder: Path,
    progress: Progress,
    enough: Enough,
) -> None:
    if plan.baseline_s:
        _baseline(plan.baseline_s, recorders, folder, progress)
    if workload is not None:
        rate_hz = float(recorders[0].started["rate_hz"])
        _play_code(plan, workload, rate_hz, recorders, folder, progress)
        _run_workload(plan, workload, folder, progress)
        _play_code(plan, workload, rate_hz, recorders, folder, progress)
        until = time.monotonic() + TAIL_S
        while (left := until - time.monotonic()) > 0:
            _poll(recorders, left)
    else:
        _wait(plan, recorders, text, folder, progress, enough)


def _poll(recorders: Sequence[Recorder], timeout_s: float) -> Health:
    """Health of the first meter; raises what ended any of them early."""
    health = recorders[0].poll(timeout_s)
    for other in recorders[1:]:
        other.poll(0)
    return health


def _keep_text(text: SerialText | None, folder: Path) -> None:
    if text is not None:
        store.append_events(folder, text.take())


def _wait(
    plan: Plan,
    recorders: Sequence[Recorder],
    text: SerialText | None,
    folder: Path,
    progress: Progress,
    enough: Enough,
) -> None:
    """Until enough windows, the wanted precision, or the time is over."""
    trigger = parse_trigger(plan.trigger) if plan.trigger and watched_line(plan) else None
    goal = plan.windows
    limit_s = plan.duration_s
    if limit_s is None and (goal is None or trigger is None):
        limit_s = TARGET_LIMIT_S if plan.target is not None else DEFAULT_DURATION_S
    started = changed = looked = time.monotonic()
    look_every_s = TARGET_LOOK_S
    seen = -1
    while limit_s is None or time.monotonic() - started < limit_s:
        left_s = 0.1 if limit_s is None else max(0.01, started + limit_s - time.monotonic())
        health = _poll(recorders, min(0.1, left_s))
        _keep_text(text, folder)
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
            if enough():
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


def _baseline(duration_s: float, recorders: Sequence[Recorder], folder: Path, progress: Progress) -> None:
    begin = time.monotonic_ns()
    while (left := duration_s - (time.monotonic_ns() - begin) * 1e-9) > 0:
        health = _poll(recorders, min(left, 0.1))
        progress(f"baseline · {_line(health, None, None, duration_s - left)}")
    stamps = (("begin", begin), ("end", time.monotonic_ns()))
    store.append_events(folder, [Event(label=label, source="baseline", monotonic_ns=at) for label, at in stamps])


# -- workloads --------------------------------------------------------------------------------------------------------


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


def _play_code(
    plan: Plan, workload: Workload, rate_hz: float, recorders: Sequence[Recorder], folder: Path, progress: Progress
) -> None:
    """The sync code, with inferences as its busy work."""
    if not plan.sync_code:
        return
    began = time.monotonic()
    workload.warm_up(1)
    pattern = default_pattern(rate_hz, time.monotonic() - began)
    progress(f"sync code, {show_duration(pattern.duration_s)}")
    store.append_events(folder, play(pattern, lambda: workload.warm_up(1)))
    _poll(recorders, 0)


def _keep(stamps: Stamps, per_window: int, folder: Path) -> None:
    events = []
    for begin, end in zip(stamps.begin_ns.tolist(), stamps.end_ns.tolist(), strict=True):
        events.append(Event(label="begin", source="host", monotonic_ns=begin))
        events.append(Event(label="end", source="host", monotonic_ns=end, data={"inferences": per_window}))
    store.append_events(folder, events)


def _alone(plan: Plan, workload: Workload, folder: Path, progress: Progress) -> JouleMeterError | None:
    """Timing without a meter."""
    try:
        _run_workload(plan, workload, folder, progress)
    except KeyboardInterrupt:
        return IncompleteError("Interrupted.", "What was recorded until then is kept.")
    return None
