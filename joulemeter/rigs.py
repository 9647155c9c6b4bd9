"""From a rig's profile to a plan: what a recipe says, where nobody says otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from joulemeter import profile, registry
from joulemeter.errors import UsageError
from joulemeter.instrument import Info, Options
from joulemeter.plan import Meter, Plan, parse_meter
from joulemeter.profile import Assumed, Device, Rig, Simulation
from joulemeter.simulated import find_current, find_timing, load_text
from joulemeter.simulation import BOARD_V
from joulemeter.synthetic import Load, Step
from joulemeter.tables import Loaded
from joulemeter.trigger import parse_trigger


def plan(name: str | Path, *, output: Path, simulate: bool = False, options: Options | None = None) -> Plan:
    """The recipe alone, with `options` for its meter. Raises UsageError for a rig that does not fit together."""
    rig = profile.find(Rig, name)
    meter = parse_meter(rig.profile.meter, options or Options())
    meters = (meter,) if meter is not None else ()
    return complete(Plan(meters=meters, output=output, name=rig.profile.name, simulate=simulate), rig)


def complete(plan: Plan, rig: Loaded[Rig]) -> Plan:
    """The plan with what it leaves open as the rig has it.

    What it says stays, and what belongs to that goes with it: another workload brings its own trigger, and another
    load is not what the rig's board runs. Raises UsageError for a rig that does not fit together.
    """
    recipe, device = rig.profile, profile.find(Device, rig.profile.device)
    meters = tuple(_meter(meter, recipe, simulate=plan.simulate) for meter in plan.meters)
    plan = replace(
        plan,
        meters=meters,
        device=plan.device or described(device.profile),
        battery=plan.battery or cell(recipe),
        profiles={loaded.path: loaded.sha256 for loaded in (rig, device)} | dict(plan.profiles),
    )
    return _simulated(plan, recipe, device.profile) if plan.simulate else _real(plan, recipe)


def _real(plan: Plan, rig: Rig) -> Plan:
    if plan.workload is not None:
        return plan
    return replace(
        plan,
        trigger=plan.trigger or rig.trigger,
        workload=rig.workload,
        workload_options=dict(rig.options) | dict(plan.workload_options),
        inferences_per_window=plan.inferences_per_window or rig.inferences_per_window,
        board_runs=plan.board_runs or runs(rig),
    )


def _simulated(plan: Plan, rig: Rig, device: Device) -> Plan:
    simulation = rig.simulation
    if simulation is None:
        raise UsageError(f"The rig {rig.name!r} has no simulated board.", "Give it [simulation].")
    usual_windows = plan.trigger is None
    if plan.workload is None:
        trigger = plan.trigger or simulation.trigger or rig.trigger
        plan = replace(_as_long_as(plan, trigger, simulation), trigger=trigger, workload=simulation.workload)
    if plan.load is not None:
        return plan
    supply_v = volts(rig, plan.meters)
    load = board_load(rig, device, supply_v)
    plan = replace(plan, load=load_text(load), note=plan.note or f"simulated load: {load.name}")
    if plan.workload is not None:
        return plan
    inferences = plan.inferences_per_window or simulation.inferences_per_window
    return replace(
        plan,
        inferences_per_window=inferences,
        board_runs=plan.board_runs or runs(rig),
        truth=_truth(load, supply_v, inferences) if usual_windows else None,
    )


def board_load(rig: Rig, device: Device, supply_v: float) -> Load:
    """What the rig's simulated board draws: d0 high while a window's inferences run, then idle until the period ends.

    Figures are the device's, except those that the rig says are assumed; watts become amperes at `supply_v`.
    Raises UsageError when a figure is missing, or when the window is longer than the period.
    """
    simulation = rig.simulation
    if simulation is None:
        raise UsageError(f"The rig {rig.name!r} has no simulated board.", "Give it [simulation].")
    assumed = simulation.assumed
    busy_s = _inference_s(rig, device, assumed) * simulation.inferences_per_window
    if busy_s >= simulation.period_s:
        raise UsageError(
            f"The rig {rig.name!r}: a window takes {busy_s:g} s, the period is {float(simulation.period_s):g} s.",
            "Give it a longer period, or fewer inferences per window.",
        )
    active_a = _drawn_a(
        device, simulation.active_state, supply_v, *((assumed.active_a, assumed.active_w) if assumed else ())
    )
    idle_a = _drawn_a(device, simulation.idle_state, supply_v, *((assumed.idle_a, assumed.idle_w) if assumed else ()))
    steps = (
        Step(current_a=active_a, duration_s=busy_s, lines=1),
        Step(current_a=idle_a, duration_s=simulation.period_s - busy_s),
    )
    return Load(steps=steps, name=", ".join(filter(None, (device.name, _title(rig), _assumption(assumed)))))


def volts(rig: Rig, meters: tuple[Meter, ...]) -> float:
    """At what voltage the simulated board runs: the meter's own where it has one, else what it was given or told."""
    for meter in meters[:1]:
        given = meter.options.supply_v or meter.options.declared_v
        if (known := registry.instrument(meter.key).INFO.load_v or given) is not None:
            return known
    return rig.supply_v or BOARD_V


def described(device: Device) -> dict[str, Any]:
    """What a run keeps of its device."""
    return {"name": device.name, "maker": device.maker, "class": device.device_class}


def runs(rig: Rig) -> dict[str, Any] | None:
    """What the board is said to run, in the keys of result.json's `workload`."""
    asked = rig.inference
    if asked is None:
        return None
    return {"runtime": asked.runtime, "model": asked.model, "precision": asked.precision, "batch": asked.batch}


def cell(rig: Rig) -> dict[str, Any] | None:
    """What is asked about the rig's cell."""
    return {"cell": rig.cell, "every_s": float(rig.every_s)} if rig.cell and rig.every_s else None


def _meter(meter: Meter, rig: Rig, *, simulate: bool) -> Meter:
    """A meter with the rig's voltage and, if it is the rig's own, its settings; what was asked of it wins."""
    own = meter.key == rig.meter.partition("@")[0]
    settings: dict[str, str] = dict(rig.settings) if own else {}
    if own and simulate and rig.simulation is not None:
        settings |= rig.simulation.settings
    options = _fed(meter.options, registry.instrument(meter.key).INFO, rig, simulate=simulate)
    return replace(meter, options=replace(options, settings=settings | dict(options.settings)))


def _fed(options: Options, info: Info, rig: Rig, *, simulate: bool) -> Options:
    """The device's voltage to who can give it, or to who cannot see it.

    A real board is never powered because a recipe says so. Raises UsageError, naming the voltage.
    """
    supply_v = rig.supply_v
    if supply_v is None or options.supply_v is not None or options.declared_v is not None:
        return options
    if info.supplies is not None and info.supplies[0] <= supply_v <= info.supplies[1]:
        if not simulate:
            raise UsageError(
                f"In the rig {rig.name!r} the {info.key} powers the board with {supply_v:g} V.",
                f"If that is right for yours, give --supply {supply_v:g}V; if the board has a supply of its own, give "
                f"--assume-voltage {supply_v:g}V.",
            )
        return replace(options, supply_v=float(supply_v))
    return options if info.sees_voltage else replace(options, declared_v=float(supply_v))


def _as_long_as(plan: Plan, trigger: str | None, simulation: Simulation) -> Plan:
    """As many windows as the plan or the simulation says; where nothing counts them, the time that they take."""
    if plan.duration_s is not None or plan.target is not None:
        return plan
    windows = plan.windows or simulation.windows
    if trigger is None or parse_trigger(trigger).countable or simulation.workload or plan.workload:
        return replace(plan, windows=windows)
    return replace(plan, windows=None, duration_s=windows * simulation.period_s)


def _inference_s(rig: Rig, device: Device, stands_in: Assumed | None) -> float:
    if stands_in is not None and stands_in.time_s is not None:
        return stands_in.time_s
    asked = rig.inference
    if asked is None:
        raise UsageError(
            f"The rig {rig.name!r} does not say how long an inference takes.",
            "Give it [inference], or a time in [simulation.assumed].",
        )
    timing = find_timing(device, asked.model, asked.runtime, precision=asked.precision, batch=asked.batch)
    return timing.time_s * timing.batch


def _drawn_a(
    device: Device, state: str, supply_v: float, current_a: float | None = None, power_w: float | None = None
) -> float:
    """The current of a state: `current_a` or `power_w` if that is assumed, else what the device has, watts first.

    Raises UsageError when it has none.
    """
    if current_a is not None:
        return current_a
    if power_w is None:
        wanted = profile.fold(state)
        power_w = next((power.nominal_w for power in device.powers if profile.fold(power.state) == wanted), None)
    return power_w / supply_v if power_w is not None else find_current(device, state).nominal_a


def _title(rig: Rig) -> str:
    asked = rig.inference
    return f"{asked.model}, {asked.runtime}, {asked.precision}" if asked else ""


def _assumption(stands_in: Assumed | None) -> str:
    return f"assumed: {stands_in.because}" if stands_in else ""


def _truth(load: Load, supply_v: float, inferences: int) -> dict[str, float]:
    charge_c = load.pulse_charge_c(0) or 0.0
    return {
        "energy_per_inference_j": charge_c * supply_v / inferences,
        "latency_s": load.pulse_duration_s(0) / inferences,
    }
