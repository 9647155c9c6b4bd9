"""One recording, from the first meter's start to the last one's end: meters, workload, device text and stamps."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from joulemeter import calibrations, store
from joulemeter.capture import Event
from joulemeter.errors import KEPT, IncompleteError, JouleMeterError, UsageError
from joulemeter.pattern import default_pattern
from joulemeter.physics.calibration import check
from joulemeter.plan import Plan
from joulemeter.record import Health, Recorder
from joulemeter.serialtext import SerialText
from joulemeter.trigger import Trigger, parse_trigger
from joulemeter.units import show, show_duration
from joulemeter.workload import Stamps, Workload
from joulemeter.workload.beacon import play
from joulemeter.workload.stamping import salvaged

Progress = Callable[[str], None]
# Whether what has been recorded so far is precise enough.
Enough = Callable[[], bool]

# With neither a number of windows nor a duration, this much is recorded.
DEFAULT_DURATION_S = 10.0
# The source of the event that says what was learnt of the workload while it ran.
WORKLOAD = "workload"
# `--target` looks again after this long, and gives up after TARGET_LIMIT_S.
TARGET_LOOK_S = 2.0
TARGET_LIMIT_S = 600.0
BATCH_S = 1.0
# Where a time is given and no count: shorter inferences share a window.
LEAST_WINDOW_S = 1e-3
# Where nobody says how many inferences a window holds, it lasts for this many readings of the meter.
ROOM_READINGS = 10
# ... and there are at least so many of them.
FEWEST_WINDOWS = 10
# How long a first sample is awaited; a meter that stays silent the recorder gives up on before.
FIRST_SAMPLE_S = 60.0
# A terminal of 80 columns, with one left for the cursor.
COLUMNS = 79
BASELINE = "baseline · "
# The meter's last samples are still on their way when the workload has ended.
TAIL_S, TAIL_READINGS = 0.3, 2


class Stage:
    """The meters of a plan, recording into a folder while the block runs.

    Raises JouleMeterError when a meter does not start: then nothing was recorded and the folder is gone. `trouble` is
    what ended the recording early, once the block has ended; an error of the block itself passes through.
    """

    def __init__(self, plan: Plan, addresses: Sequence[str], folder: Path, progress: Progress) -> None:
        self.plan = plan
        self.folder = folder
        self.progress = progress
        self.recorders: list[Recorder] = []
        self.text: SerialText | None = None
        self.trouble: JouleMeterError | None = None
        self._addresses = addresses
        self._held = contextlib.ExitStack()

    def __enter__(self) -> Self:
        try:
            with contextlib.ExitStack() as starting:
                self._start(starting)
                self._held = starting.pop_all()
        except JouleMeterError as error:
            # By now everything has been closed, so what is on disk is all there will be.
            raise error if _forget(self.folder) else error.kept_in(self.folder) from None
        except KeyboardInterrupt:
            _forget(self.folder)
            raise
        return self

    def _start(self, starting: contextlib.ExitStack) -> None:
        self.text = starting.enter_context(SerialText(self.plan.serial)) if self.plan.serial else None
        watched = watched_trigger(self.plan)
        for meter, address, name in zip(self.plan.meters, self._addresses, stream_names(self.plan), strict=True):
            self.progress(f"starting {meter.key}")
            recorder = Recorder(meter.key, address, meter.options, self.folder / name, watched)
            starting.enter_context(recorder)
            self.recorders.append(recorder)
            if self.plan.calibrated:
                _copy_calibration(self.folder / name)
        for recorder in self.recorders:
            if recorder.started["triggered"]:
                continue  # it is armed, and waits for what comes now
            # A window that begins before the first sample would be cut off.
            until = time.monotonic() + FIRST_SAMPLE_S
            while not recorder.health.samples and time.monotonic() < until:
                recorder.poll(0.5)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.keep_text()
        except JouleMeterError as lost:
            self.trouble = lost
        finally:
            self._held.close()
        self.trouble = self.trouble or next((recorder.error for recorder in self.recorders if recorder.error), None)

    @property
    def reading_s(self) -> float:
        """How long a reading of the slowest meter stands for."""
        return max((float(recorder.started["reading_s"]) for recorder in self.recorders), default=0.0)

    @property
    def tail_s(self) -> float:
        """How long to go on after the last window, so that the readings that cover its end arrive."""
        return TAIL_S + TAIL_READINGS * self.reading_s

    @property
    def triggered(self) -> bool:
        """Whether a meter waits for the trigger itself, and says when it has waited long enough."""
        return any(recorder.started["triggered"] for recorder in self.recorders)

    @property
    def rate_hz(self) -> float:
        return float(self.recorders[0].started["rate_hz"])

    def poll(self, timeout_s: float) -> Health:
        """Health of the first meter; raises what ended any of them early."""
        health = self.recorders[0].poll(timeout_s)
        for other in self.recorders[1:]:
            other.poll(0)
        return health

    def rest(self, duration_s: float) -> None:
        """Go on recording for so long."""
        until = time.monotonic() + duration_s
        while (left := until - time.monotonic()) > 0:
            if self.recorders:
                self.poll(left)
            else:
                time.sleep(left)

    def baseline(self) -> None:
        """Record idle on purpose, if the plan wants it."""
        duration_s = self.plan.baseline_s
        if not duration_s or not self.recorders:
            return
        begin = time.monotonic_ns()
        while (left := duration_s - (time.monotonic_ns() - begin) * 1e-9) > 0:
            health = self.poll(min(left, 0.1))
            told = _line(health, duration_s - left, left_s=round(left), columns=COLUMNS - len(BASELINE))
            self.progress(BASELINE + told)
        stamps = (("begin", begin), ("end", time.monotonic_ns()))
        self.keep([Event(label=label, source="baseline", monotonic_ns=at) for label, at in stamps])

    def keep(self, events: Sequence[Event]) -> None:
        if events:
            store.append_events(self.folder, events)

    def keep_text(self) -> None:
        if self.text is not None:
            self.keep(self.text.take())


def conduct(
    plan: Plan, addresses: Sequence[str], workload: Workload | None, folder: Path, progress: Progress, enough: Enough
) -> JouleMeterError | None:
    """Record into `folder`; what ended the recording early, if anything.

    Raises JouleMeterError when a meter did not start: then nothing was recorded and the folder is gone.
    """
    trouble: JouleMeterError | None = None
    with Stage(plan, addresses, folder, progress) as stage:
        try:
            _run(stage, workload, enough)
        except JouleMeterError as error:
            trouble = error
        except KeyboardInterrupt:
            trouble = IncompleteError("Interrupted.", KEPT)
    return trouble or stage.trouble


def stream_names(plan: Plan) -> list[str]:
    """A folder name per meter: its key, numbered where a key comes twice."""
    keys = [meter.key for meter in plan.meters]
    return [key if keys.count(key) == 1 else f"{key}-{keys[: place + 1].count(key)}" for place, key in enumerate(keys)]


def watched_trigger(plan: Plan) -> str | None:
    """The trigger, if its windows can be counted while recording."""
    return plan.trigger if plan.trigger and parse_trigger(plan.trigger).countable else None


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


def _forget(folder: Path) -> bool:
    """Leave nothing behind where nothing was recorded, and say so; what another meter has recorded already is kept."""
    if any(words.stat().st_size for words in folder.glob(f"*/{store.WORDS}")):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _run(stage: Stage, workload: Workload | None, enough: Enough) -> None:
    plan = stage.plan
    if workload is None:
        stage.baseline()
        _wait(stage, enough)
        return
    try:
        workload.ready(stage.progress)
        stage.baseline()
        _play_code(stage, workload)
        _run_workload(stage, workload, enough)
        _play_code(stage, workload)
    finally:
        # Also where it failed: the windows until then are a result, and what ran belongs to it.
        stage.keep([*workload.heard(), *_learnt(workload)])
    if plan.meters:
        stage.rest(stage.tail_s)


def _learnt(workload: Workload) -> list[Event]:
    """What it says of itself now; nothing where it can no longer tell."""
    with contextlib.suppress(JouleMeterError):
        return [Event(label="described", source=WORKLOAD, data=workload.describe())]
    return []


def _wait(stage: Stage, enough: Enough) -> None:
    """Until enough windows, the wanted precision, or the time is over."""
    plan = stage.plan
    trigger = parse_trigger(plan.trigger) if plan.trigger and watched_trigger(plan) else None
    goal = plan.windows
    limit_s = plan.duration_s
    if limit_s is None and (goal is None or trigger is None):
        limit_s = TARGET_LIMIT_S if plan.target is not None else DEFAULT_DURATION_S
    look = _Look(enough) if plan.target is not None else None
    started = changed = time.monotonic()
    seen = before = -1
    then = 0  # samples when a window was last complete
    while limit_s is None or time.monotonic() - started < limit_s:
        left_s = 0.1 if limit_s is None else max(0.01, started + limit_s - time.monotonic())
        health = stage.poll(min(0.1, left_s))
        stage.keep_text()
        now = time.monotonic()
        complete = completed(trigger, health) if trigger is not None else 0
        elapsed_s = now - started
        # What came before, while the meters started and in the baseline, came in another time.
        before = complete if before < 0 else before
        rate_hz = (complete - before) / elapsed_s
        told = _line(
            health,
            elapsed_s,
            complete=complete if trigger else None,
            goal=goal,
            per_window=plan.inferences_per_window,
            rate_hz=rate_hz,
            left_s=_left_s(
                None if limit_s is None else limit_s - elapsed_s, None if goal is None else goal - complete, rate_hz
            ),
        )
        stage.progress(told)
        if goal is not None and complete >= goal:
            for recorder in stage.recorders:
                recorder.enough = True
            return
        if complete != seen:
            seen, changed, then = complete, now, health.samples
        elif goal is not None and now - changed > plan.timeout_s and (not stage.triggered or health.samples > then):
            return  # the analysis says what the trigger did instead
        if look is not None and look():
            return


def completed(trigger: Trigger, health: Health) -> int:
    """Windows that are complete after so many edges."""
    rises, falls = health.rises, health.falls
    match trigger.form:
        case "whole":
            return falls
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


def _line(
    health: Health,
    elapsed_s: float,
    *,
    complete: int | None = None,
    goal: int | None = None,
    per_window: int | None = None,
    rate_hz: float = 0.0,
    left_s: int | None = None,
    columns: int = COLUMNS,
) -> str:
    """How it is going, on one line of so many columns: where they do not suffice, the highest ranks are left out.

    `rate_hz` is of windows.
    """
    inferences = complete * per_window if complete and per_window else None
    pulse = ((health.median_s, "s"), (health.median_j, "J"))
    medians = ", ".join(show(value, unit) for value, unit in pulse if value is not None)
    told = [  # in the order of the line, each with its rank
        (2, show_duration(elapsed_s)),
        (0, f"{health.lost} LOST" if health.lost else None),
        (1, None if health.power_w is None else show(health.power_w, "W")),
        (5, None if health.mean_w is None or medians else f"mean {show(health.mean_w, 'W')}"),
        (3, None if complete is None else f"{complete}{f'/{goal}' if goal else ''} windows"),
        (8, f"{inferences} inferences" if inferences and inferences != complete else None),
        (9, f"{rate_hz * (per_window or 1):.3g}/s" if rate_hz else None),
        (4, f"median {medians}" if medians else None),
        (5, health.doing or None),
        (4, None if left_s is None else f"{show_duration(left_s) if left_s >= 60 else f'{left_s} s'} left"),
        (10, f"{health.samples} samples" if health.samples else None),
    ]
    kept = [(rank, text) for rank, text in told if text]
    while len(line := " · ".join(text for _, text in kept)) > columns and kept:
        kept.remove(max(kept))
    return line


def _left_s(time_s: float | None, windows: int | None, rate_hz: float) -> int | None:
    """Until the time is over or the windows that are missing have come at this rate; None while nobody can tell.

    In whole seconds: digits that change all the time say nothing.
    """
    ends = [] if time_s is None else [time_s]
    if windows is not None and rate_hz:
        ends.append(windows / rate_hz)
    return max(math.ceil(min(ends)), 0) if ends else None


# -- workloads --------------------------------------------------------------------------------------------------------


def _run_workload(stage: Stage, workload: Workload, enough: Enough) -> None:
    """Warm up, then run windows until there are enough; every begin and end becomes an event."""
    plan, habits = stage.plan, workload.habits
    warmup = habits.warmup if plan.warmup is None else plan.warmup
    stage.progress(f"warming up ({warmup})")
    # The first inferences are slower by far: how long one takes is told by the second half.
    timed = warmup - warmup // 2 if habits.plays else warmup
    workload.warm_up(warmup - timed)
    began = time.monotonic()
    workload.warm_up(timed)
    warm_s = time.monotonic() - began
    limit_s = plan.duration_s or (TARGET_LIMIT_S if plan.target is not None and plan.windows is None else None)
    per_window = plan.inferences_per_window
    if per_window is None and warmup and habits.plays:
        # Where nobody counts the windows, there need not be millions of them; a slow meter needs long ones.
        least_s = LEAST_WINDOW_S if limit_s is not None else 0.0
        if stage.reading_s > LEAST_WINDOW_S:
            least_s = ROOM_READINGS * stage.reading_s
        each_s = warm_s / timed
        per_window = math.ceil(least_s / each_s) if each_s < least_s else None
    usual = habits.windows
    if per_window is not None and plan.inferences_per_window is None:
        usual = max(FEWEST_WINDOWS, math.ceil(usual / per_window))
    total = plan.windows or (usual if limit_s is None else None)
    done, batch = 0, habits.at_once
    look = _Look(enough) if plan.target is not None else None
    started = time.monotonic()
    while total is None or done < total:
        if (limit_s is not None and time.monotonic() - started >= limit_s) or (done and look is not None and look()):
            break
        if done and warmup:
            workload.warm_up(1)  # what happened between the batches has cooled the caches
        began = time.monotonic()
        stage.progress(f"running · {done}{f'/{total}' if total else ''} windows")
        try:
            stamps = workload.run(batch if total is None else min(batch, total - done), per_window)
        except BaseException as error:
            if (done_before := salvaged(error)) is not None:
                stage.keep(events_of(done_before))
            raise
        stage.keep([*workload.heard(), *events_of(stamps)])
        health = stage.poll(0) if stage.recorders else Health()
        done += len(stamps)
        # About a second each: progress and Ctrl-C get through, and the interruptions stay rare.
        batch = max(1, round(len(stamps) * BATCH_S / max(time.monotonic() - began, 1e-3)))
        elapsed_s = time.monotonic() - started
        rate_hz = done / elapsed_s
        told = _line(
            health,
            elapsed_s,
            complete=done,
            goal=total,
            per_window=stamps.inferences_per_window,
            rate_hz=rate_hz,
            left_s=_left_s(
                None if limit_s is None else limit_s - elapsed_s, None if total is None else total - done, rate_hz
            ),
        )
        stage.progress(told)


class _Look:
    """Looks now and then whether what was recorded is enough; looking stays cheap beside recording."""

    def __init__(self, enough: Enough) -> None:
        self._enough = enough
        self._next = 0.0

    def __call__(self) -> bool:
        began = time.monotonic()
        if began < self._next:
            return False
        found = self._enough()
        now = time.monotonic()
        self._next = now + max(TARGET_LOOK_S, 5 * (now - began))
        return found


def _play_code(stage: Stage, workload: Workload) -> None:
    """The sync code, with inferences as its busy work."""
    if not stage.plan.sync_code:
        return
    began = time.monotonic()
    workload.warm_up(1)
    pattern = default_pattern(stage.rate_hz, time.monotonic() - began)
    stage.progress(f"sync code, {show_duration(pattern.duration_s)}")
    stage.keep(play(pattern, lambda: workload.warm_up(1)))
    stage.poll(0)


def events_of(stamps: Stamps) -> list[Event]:
    """The windows, and each of their parts, as the rows that `store` keeps them in."""
    parts = {"host": (stamps.begin_ns, stamps.end_ns)}
    parts |= {f"host:{name}": pair for name, pair in stamps.phases.items()}
    rows = []
    for source, (begins, ends) in parts.items():
        counted = {"inferences": stamps.inferences_per_window} if source == "host" else {}
        for first in range(0, len(begins), store.WINDOWS_PER_LINE):
            some = slice(first, first + store.WINDOWS_PER_LINE)
            data = {"begin_ns": begins[some].tolist(), "end_ns": ends[some].tolist(), **counted}
            rows.append(Event(label=store.WINDOWS, source=source, u_s=stamps.u_s, data=data))
    return rows
