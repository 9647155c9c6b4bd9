"""A simulated board: the load that a device profile's currents and timings make."""

from __future__ import annotations

from joulemeter import units
from joulemeter.errors import UsageError
from joulemeter.profile import Current, Device, Rig, Timing, fold, load
from joulemeter.synthetic import Load, Step


def simulated_load(
    device: Device,
    model: str,
    runtime: str,
    period_s: float,
    idle_state: str,
    *,
    precision: str | None = None,
    batch: int = 1,
    active_state: str = "active",
) -> Load:
    """The active current with d0 high while the model runs, then the idle current until the period ends.

    `precision` may be left out where the profile has only one timing of that model and runtime.
    Raises UsageError when the profile lacks a timing or a current, or when the model takes longer than the period.
    """
    timing = find_timing(device, model, runtime, precision=precision, batch=batch)
    busy_s = timing.time_s * timing.batch
    if busy_s >= period_s:
        raise UsageError(
            f"{model} takes {units.show(busy_s, 's')} on {device.name}, the period is {units.show(period_s, 's')}.",
            "Choose a longer period.",
        )
    active = find_current(device, active_state)
    idle = find_current(device, idle_state)
    return Load(
        steps=(
            Step(current_a=active.nominal_a, duration_s=busy_s, lines=1),
            Step(current_a=idle.nominal_a, duration_s=period_s - busy_s),
        ),
        name=f"{device.name}: {timing.model}, {timing.runtime}, {timing.precision}",
    )


def rig_load(rig: Rig) -> Load:
    """The load of a rig's simulated board. Raises UsageError when the rig does not describe one."""
    if rig.inference is None or rig.simulation is None:
        raise UsageError(f"The rig {rig.name!r} has no simulated board.", "Give it [inference] and [simulation].")
    return simulated_load(
        load("device", rig.device),
        rig.inference.model,
        rig.inference.runtime,
        rig.simulation.period_s,
        rig.simulation.idle_state,
        precision=rig.inference.precision,
        batch=rig.inference.batch,
        active_state=rig.simulation.active_state,
    )


def load_text(load: Load) -> str:
    """The steps as `synthetic.parse_load` reads them, to the last digit."""
    return ",".join(
        "/".join(
            (
                f"{float(step.current_a)!r}A",
                f"{float(step.duration_s)!r}s",
                *(f"d{line}" for line in range(8) if step.lines >> line & 1),
            )
        )
        for step in load.steps
    )


def find_timing(device: Device, model: str, runtime: str, *, precision: str | None = None, batch: int = 1) -> Timing:
    """The one timing that fits. Raises UsageError when there is none or more than one."""
    wanted = (fold(model), fold(runtime), batch)
    fitting = [
        row
        for row in device.timings
        if (fold(row.model), fold(row.runtime), row.batch) == wanted
        and (precision is None or fold(row.precision) == fold(precision))
    ]
    if len(fitting) == 1:
        return fitting[0]
    rows = fitting or device.timings
    listed = "; ".join(f"{row.model}, {row.runtime}, {row.precision}, batch {row.batch}" for row in rows)
    if fitting:
        raise UsageError(f"{device.name} has several timings that fit: {listed}.", "Say which precision.")
    asked = ", ".join(filter(None, (model, runtime, precision, f"batch {batch}")))
    raise UsageError(
        f"The profile of {device.name} has no timing of {asked}.",
        f"It has {listed}." if listed else "It has no timings: measure the board itself.",
    )


def find_current(device: Device, state: str) -> Current:
    """The current of that state. Raises UsageError when the profile has none."""
    for current in device.currents:
        if fold(current.state) == fold(state):
            return current
    states = ", ".join(current.state for current in device.currents)
    raise UsageError(
        f"The profile of {device.name} has no current for the state {state!r}.",
        f"It has {states}." if states else "It has no currents: measure the board itself.",
    )
