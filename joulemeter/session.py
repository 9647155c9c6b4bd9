"""One measurement from the meter's name to a result: the only place that knows both what records and what computes."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from joulemeter import registry, store
from joulemeter.caveat import Code, doubt
from joulemeter.conduct import conduct, stream_names
from joulemeter.errors import DataError, JouleMeterError, UsageError
from joulemeter.lifetime import analyzed
from joulemeter.physics.analyze import Analysis, Request
from joulemeter.physics.stats import needed
from joulemeter.plan import Plan
from joulemeter.simulation import BOARD_V, DEFAULT_LOAD, Board, SimulatedMeter
from joulemeter.synthetic import parse_load
from joulemeter.transport.faults import parse_faults
from joulemeter.trigger import FALLS, Trigger, parse_trigger
from joulemeter.workload import Habits, Workload
from joulemeter.workload import parse as parse_workload
from joulemeter.workload.edge import EdgeLine, measure_cost, parse_edge

Progress = Callable[[str], None]
# What an oscilloscope takes before it is fetched, where nobody says: more would be lost with the network.
MOST_RECORDS = 100
# The address of a board that is not there.
SIMULATED = "simulated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`trouble` is what ended the recording early although there is a result."""

    folder: Path
    analysis: Analysis
    trouble: JouleMeterError | None = None


def record(plan: Plan, progress: Progress, echo: Progress | None = None) -> tuple[Path, JouleMeterError | None]:
    """Capture only. The run directory, and what ended it early, if anything. `echo` is given what a program prints."""
    check(plan)
    plan = _with_trigger_level(_with_board_voltage(plan))
    with stand_ins(plan) as (addresses, board), contextlib.ExitStack() as held:
        workload = _workload(plan, board)
        if workload is not None:
            held.callback(workload.close)
            if plan.sync_code and not workload.habits.plays:
                raise UsageError("This workload cannot play a sync code.", "Use a trigger line.")
            workload.echo = echo
            progress("preparing the workload")
            workload.prepare()
            edge, cost = open_edge(plan, held)
            if edge is not None:
                workload.edges(edge)
        else:
            cost = None
        described = plan.board_runs if workload is None else workload.describe()
        content = meta(plan, workload.habits if workload is not None else None, described, cost)
        folder = store.create_run(plan.output, plan.name, content)

        def enough() -> bool:
            with contextlib.suppress(DataError):
                return plan.target is not None and narrow_enough(analyze_run(folder, plan), plan.target)
            return False

        return folder, conduct(plan, addresses, workload, folder, progress, enough)


def measure(plan: Plan, progress: Progress, echo: Progress | None = None) -> Outcome:
    """Record and analyse. Raises JouleMeterError when there is no result; the recording is kept and named."""
    folder, trouble = record(plan, progress, echo)
    try:
        analysis = analyze_run(folder, plan)
    except JouleMeterError as error:
        if trouble is not None:
            raise trouble.kept_in(folder) from error
        raise error.kept_in(folder) from None
    if trouble is None and plan.target is not None and not narrow_enough(analysis, plan.target):
        analysis = _with_missed_target(analysis, plan.target)
    try:
        store.write_result(folder, analysis.result, analysis.rows)
    except JouleMeterError as error:
        trouble = trouble or error
    return Outcome(folder=folder, analysis=analysis, trouble=trouble)


def check(plan: Plan) -> None:
    """Refuse what cannot work before anything is created."""
    for text in (plan.trigger, *plan.phases.values()):
        if text is None:
            continue
        trigger = parse_trigger(text)
        if trigger.source == "host" and plan.workload is None and not plan.marked:
            raise UsageError(
                "The trigger 'host' needs a workload that this host runs.",
                "Name one with --workload, or use a digital line.",
            )
        _check_line(plan, trigger)
        if trigger.source == "serial" and plan.serial is None and plan.workload is None:
            raise UsageError("The trigger 'serial' needs the device's text.", "Name its port with --serial PORT,BAUD.")
    if not plan.meters and plan.workload is None and not plan.marked:
        raise UsageError("Without a meter and without a workload there is nothing to measure.", "Name one of them.")
    if plan.windows is not None and plan.duration_s is None and plan.workload is None and not plan.marked:
        named = parse_trigger(plan.trigger) if plan.trigger else None
        if named is not None and not named.countable:
            raise UsageError(
                f"Windows of {named} can be counted only when the recording has ended.",
                "Say how long to record: --duration 10s.",
            )
    if plan.add and len(plan.meters) < 2:
        raise UsageError("--add needs several meters, each on a part of the device.", "Name them with --meter.")
    if plan.sync_code and (plan.workload is None or not plan.meters):
        raise UsageError("A sync code needs a workload that plays it and a meter that sees it.", "Name both.")
    if not plan.meters and plan.simulate:
        raise UsageError("--simulate needs a --meter to simulate.")
    if not plan.simulate and (plan.load or plan.faults) and _board(plan) is None:
        raise UsageError("--load and --faults belong to a simulated meter.", "Add --simulate, or leave them out.")
    if plan.edge is not None:
        parse_edge(plan.edge)
        if plan.workload is None and not plan.marked:
            raise UsageError("An edge is put around inferences that this host runs.", "Name one with --workload.")
    parse_load(plan.load or DEFAULT_LOAD)
    parse_faults(plan.faults or "")


def _check_line(plan: Plan, trigger: Trigger) -> None:
    """Raises UsageError for a form that a meter cannot show which only reports falling edges."""
    for meter in plan.meters:
        for channel in registry.instrument(meter.key).INFO.channels:
            if trigger.source in channel.lines and channel.falls_only and trigger.form not in FALLS:
                raise UsageError(
                    f"The {meter.key} reports only when {trigger.source} falls, not whether it is high.",
                    f"Use {' or '.join(f'{trigger.source}:{form}' for form in FALLS)}.",
                )


def analyze_run(folder: Path, plan: Plan) -> Analysis:
    """The result of what was recorded. Raises JouleMeterError when there is none."""
    request = Request(
        trigger=plan.trigger,
        phases=plan.phases,
        inferences_per_window=plan.inferences_per_window,
        debounce_s=plan.debounce_s,
        max_alignment=plan.max_alignment,
        conditions=plan.conditions,
    )
    return analyzed(store.open_run(folder), request)


def narrow_enough(analysis: Analysis, target: float) -> bool:
    """Whether the 95 % interval of the median lies within `target` of it on both sides."""
    energy = analysis.result.energy_per_inference_j
    quantity = energy if energy.median is not None else analysis.result.latency_s
    if quantity.ci95 is None or not quantity.median:
        return False
    return max(abs(edge - quantity.median) for edge in quantity.ci95) <= target * abs(quantity.median)


def _how_many_more(analysis: Analysis, target: float) -> str:
    used = [window for window, good in zip(analysis.windows, analysis.used, strict=True) if good]
    energies = [window.per_inference_j for window in used if window.per_inference_j is not None]
    values = energies or [window.window.latency_s for window in used]
    more = needed(values, target)
    if more is None:
        return "How many more windows would do cannot be told: the values drift or are too few. Measure longer."
    return f"About {more} more windows would do: give --windows {len(values) + more} or a longer --duration."


def _with_missed_target(analysis: Analysis, target: float) -> Analysis:
    missed = doubt(
        Code.TARGET_NOT_REACHED,
        f"The 95 % interval is still wider than ±{target * 100:.3g} % of the median. "
        f"{_how_many_more(analysis, target)}",
    )
    caveats = (*analysis.result.caveats, missed)
    return replace(analysis, result=replace(analysis.result, caveats=caveats))


@contextlib.contextmanager
def stand_ins(plan: Plan) -> Iterator[tuple[list[str], str]]:
    """Addresses of the meters and of the simulated board ("" where there is none); simulators run meanwhile."""
    with contextlib.ExitStack() as simulators:
        addresses, board = [meter.address for meter in plan.meters], _board(plan)
        if board is not None and not plan.meters:
            yield addresses, simulators.enter_context(SimulatedMeter(board.kind, load=plan.load)).address
        elif plan.simulate:
            simulated = [
                SimulatedMeter(
                    meter.key, load=plan.load, faults=plan.faults, settings=meter.options.settings, board=board
                )
                for meter in plan.meters
            ]
            addresses = [simulators.enter_context(meter).address for meter in simulated]
            yield addresses, simulated[0].board
        else:
            yield addresses, ""


def _with_board_voltage(plan: Plan) -> Plan:
    """A simulated board has a supply of its own, whose voltage is known: nobody has to state it."""
    if _board(plan) is None:
        return plan
    meters = tuple(
        meter
        if meter.options.supply_v is not None
        or meter.options.declared_v is not None
        or registry.instrument(meter.key).INFO.sees_voltage
        else replace(meter, options=replace(meter.options, declared_v=BOARD_V))
        for meter in plan.meters
    )
    return replace(plan, meters=meters)


def _with_trigger_level(plan: Plan) -> Plan:
    """What marks the inferences is also what an oscilloscope is to wait for, and the other way round."""
    waiting = [meter for meter in plan.meters if "trigger" in registry.instrument(meter.key).INFO.settings]
    if not waiting:
        return plan
    if plan.trigger is None:
        settings = registry.instrument(waiting[0].key).INFO.chosen(waiting[0].options)
        plan = replace(plan, trigger=settings["trigger"].partition(":")[0])
    wanted = parse_trigger(plan.trigger) if plan.trigger else None
    if wanted is None or wanted.level is None:
        return plan
    slope = ":falling" if wanted.form in ("low", "falling") else ""
    level = {"trigger": f"{wanted.source}@{wanted.level:g}V{slope}"}
    if plan.windows is not None:
        level["records"] = f"<={min(plan.windows, MOST_RECORDS)}"
    return replace(
        plan,
        meters=tuple(
            replace(meter, options=replace(meter.options, settings=level | dict(meter.options.settings)))
            if meter in waiting
            else meter
            for meter in plan.meters
        ),
    )


def _board(plan: Plan) -> Board | None:
    """The simulated board that a workload asks for by the address "simulated"."""
    spec = parse_workload(plan.workload) if plan.workload else None
    if spec is None or spec.target != SIMULATED:
        return None
    if len(plan.meters) > 1:
        raise UsageError("A simulated board is seen by one meter only.", "Name one --meter.")
    if plan.meters and not plan.simulate:
        raise UsageError("A real meter does not see a simulated board.", "Add --simulate, or name the board's port.")
    return Board(kind=spec.kind, options=plan.board_options)


def runs_here(workload: str | None) -> bool:
    """Whether this host runs the model itself, and no board or other machine does."""
    if workload is None:
        return False
    spec = parse_workload(workload)
    on_a_board = hasattr(registry.workload(spec.kind), "simulate")
    return not on_a_board and not spec.target.startswith("ssh://")


def _workload(plan: Plan, board: str) -> Workload | None:
    if plan.workload is None:
        return None
    spec = parse_workload(plan.workload, plan.workload_options)
    if spec.target.startswith("ssh://"):
        from joulemeter.workload import remote

        return remote.create(spec.kind, spec.target, spec.options)
    return registry.workload(spec.kind).create(board or spec.target, spec.options)


def open_edge(plan: Plan, held: contextlib.ExitStack) -> tuple[EdgeLine | None, Mapping[str, Any] | None]:
    """The line that this host toggles around each window, and what that costs, measured before anything records."""
    if plan.edge is None:
        return None, None
    edge = held.enter_context(parse_edge(plan.edge))
    return edge, measure_cost(edge).to_dict()


def trigger_of(plan: Plan, habits: Habits | None) -> str | None:
    """What was asked for, else the best of the workload's that a meter of the plan can see."""
    if plan.trigger or habits is None:
        return plan.trigger
    if plan.edge and plan.meters:
        return "d0" if parse_edge(plan.edge).level == "high" else "d0:low"
    channels = [channel for meter in plan.meters for channel in registry.instrument(meter.key).INFO.channels]
    lines = {line for channel in channels for line in channel.lines}
    return next(text for text in habits.triggers if not (one := parse_trigger(text)).digital or one.source in lines)


# -- what is written about it -----------------------------------------------------------------------------------------


def meta(
    plan: Plan, habits: Habits | None, workload: Mapping[str, Any] | None, edge: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The content of run.json; `edge` is what toggling a line around the windows costs."""
    return {
        "trigger": trigger_of(plan, habits),
        "add": plan.add,
        "edge": edge,
        "phases": dict(plan.phases),
        "conditions": asdict(plan.conditions) if plan.conditions else None,
        "inferences_per_window": plan.inferences_per_window,
        "device": plan.device,
        "workload": workload,
        "battery": plan.battery,
        "truth": plan.truth,
        "simulated": plan.simulate or _board(plan) is not None,
        "simulated_board": _board(plan) is not None,
        "note": plan.note,
        "provenance": {
            "command": list(plan.argv),
            "versions": versions(),
            "host": host(),
            "profiles": dict(plan.profiles),
            "streams": stream_names(plan),
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
