"""A calibration from the meter's name to a file: record it on a known load, fit, keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from joulemeter import calibrations, session, store
from joulemeter.capture import Header, Limit, Stream
from joulemeter.conduct import stream_names
from joulemeter.errors import UsageError
from joulemeter.instrument import Options
from joulemeter.physics.calibration import STABILITY, Calibration, constants_of, fit
from joulemeter.physics.reference import SETTLE_S, Point, reference_points, resistor_points, zero_points
from joulemeter.plan import Meter, Plan
from joulemeter.units import show

Progress = Callable[[str], None]

DEFAULT_DURATION_S = 2.0
SIMULATOR = "simulator"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationPlan:
    """What to connect to which meter.

    `ohms` and each of `volts` are a value with its half-width, in SI units; `volts` is what a voltmeter shows across
    the resistor, one for each of `supplies`, or empty: then the meter's own word is taken. `zero`: nothing is
    connected. `reference`: a better meter is in series, whatever the load. `add`: fit the points of the last
    calibration too. `serial` names a meter that has no number. `simulated_gain` is the hidden error of a simulated one.
    """

    meter: Meter
    output: Path
    ohms: tuple[float, float] | None = None
    supplies: tuple[float, ...] = ()
    volts: tuple[tuple[float, float], ...] = ()
    zero: bool = False
    reference: Meter | None = None
    serial: str | None = None
    add: bool = False
    stability: Limit = STABILITY
    duration_s: float = DEFAULT_DURATION_S
    simulate: bool = False
    simulated_gain: float = 1.0
    argv: tuple[str, ...] = field(default=())


def calibrate(plan: CalibrationPlan, progress: Progress) -> tuple[Path, Calibration]:
    """Record, fit and keep; the file and what is in it. Raises JouleMeterError; the recordings stay in any case."""
    _check(plan)
    headers, points = _record(plan, progress)
    header = headers[0]
    serial = plan.serial or header.serial or (SIMULATOR if header.simulated else None)
    if serial is None:
        raise UsageError(
            f"This {header.model} tells no serial number, so its calibration could be taken for another one's.",
            "Give it a name of its own with --meter-serial NAME, such as the number on its label.",
        )
    reference = _reference(plan, headers)
    if plan.add:
        last = calibrations.newest(header.instrument, serial, simulated=header.simulated)
        if last is None:
            raise UsageError(f"There is no calibration of {header.model} {serial} to add to.", "Leave out --add.")
        if last.constants != constants_of(header):
            raise UsageError(
                f"The constants inside {header.model} {serial} have changed since {last.created[:10]}.",
                "Leave out --add, and calibrate it anew.",
            )
        points = [*last.points, *points]
        reference = f"{last.reference}; {reference}"
    made = Calibration(
        instrument=header.instrument,
        model=header.model,
        serial=serial,
        firmware=header.firmware,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        reference=reference,
        simulated=header.simulated,
        corrections=fit(points, header, plan.stability),
        points=tuple(points),
        constants=constants_of(header),
        stability=plan.stability,
    )
    return calibrations.save(made), made


def _check(plan: CalibrationPlan) -> None:
    """Refuse what cannot work before anything is recorded."""
    ways = [plan.zero, plan.ohms is not None, plan.reference is not None]
    if sum(ways) != 1:
        raise UsageError(
            "A calibration needs one truth: a resistor, nothing at all, or a better meter.",
            "Give --load 100ohm±0.1%, --zero, or --reference KEY[@ADDRESS].",
        )
    if plan.simulate and plan.reference is not None:
        raise UsageError(
            "Two simulated meters do not look at one board at the same time.",
            "Try a simulated meter with --load or --zero.",
        )
    if plan.volts and plan.supplies and len(plan.volts) != len(plan.supplies):
        raise UsageError(
            f"{len(plan.supplies)} supplies and {len(plan.volts)} measured voltages do not go together.",
            "Give --voltage once for each --supply, in the same order.",
        )
    if plan.ohms is not None and not plan.supplies and not plan.volts:
        raise UsageError(
            "Without a voltage nobody knows what the resistor draws.",
            "Give --supply for a meter that powers it, or --voltage as a voltmeter shows it.",
        )
    if plan.duration_s <= SETTLE_S:
        raise UsageError(f"{plan.duration_s:g} s is over before the current has settled.", "Record for longer.")


def _record(plan: CalibrationPlan, progress: Progress) -> tuple[list[Header], list[Point]]:
    """Headers of the meters, the calibrated one first, and the points of all runs."""
    points: list[Point] = []
    headers: list[Header] = []
    runs = max(len(plan.supplies), len(plan.volts), 1)
    for k in range(runs):
        supply_v = plan.supplies[k] if plan.supplies else None
        volts = plan.volts[k] if plan.volts else None
        streams = _run(plan, supply_v, volts, progress)
        headers = headers or [stream.header for stream in streams]
        points += _points(plan, streams, volts)
    return headers, points


def _run(
    plan: CalibrationPlan, supply_v: float | None, volts: tuple[float, float] | None, progress: Progress
) -> list[Stream]:
    own = Options(
        supply_v=supply_v,
        declared_v=volts[0] if volts and supply_v is None else plan.meter.options.declared_v,
        settings=plan.meter.options.settings,
    )
    meters = (replace(plan.meter, options=own), *((plan.reference,) if plan.reference else ()))
    load = None
    if plan.simulate:
        across_v = volts[0] if volts else supply_v or 0.0
        amperes = 0.0 if plan.ohms is None else plan.simulated_gain * across_v / plan.ohms[0]
        load = f"{amperes!r}A/1s"
    recorded = Plan(
        meters=meters,
        output=plan.output,
        name=f"calibrate-{plan.meter.key}",
        simulate=plan.simulate,
        load=load,
        duration_s=plan.duration_s,
        argv=plan.argv,
        calibrated=False,  # the meter as it is, not as an earlier calibration corrects it
        note="calibration",
    )
    folder, trouble = session.record(recorded, progress)
    if trouble is not None:
        raise trouble
    streams = {stream.name: stream for stream in store.open_run(folder).streams}
    return [streams[name] for name in stream_names(recorded)]


def _points(plan: CalibrationPlan, streams: Sequence[Stream], volts: tuple[float, float] | None) -> tuple[Point, ...]:
    if plan.zero:
        return zero_points(streams[0])
    if plan.ohms is None:
        return reference_points(streams[0], streams[1])
    stated = streams[0].header.voltage
    if volts is not None:
        value, limit = volts[0], Limit(value=volts[1])
    elif stated is not None:
        value, limit = stated.volts, stated.limit
    else:
        raise UsageError(
            f"{streams[0].header.model} does not say which voltage it gives.", "Measure it and give --voltage."
        )
    return resistor_points(streams[0], value, limit, plan.ohms[0], Limit(value=plan.ohms[1]))


def _reference(plan: CalibrationPlan, headers: Sequence[Header]) -> str:
    """What the truth came from, in words."""
    if plan.zero:
        return "nothing connected"
    if plan.ohms is None:
        return f"{headers[1].model} {headers[1].serial or ''} in series".replace("  ", " ")
    resistor = f"{show(plan.ohms[0], 'ohm')} ± {plan.ohms[1] / plan.ohms[0]:.2%}"
    if plan.volts:
        return f"{resistor} at " + ", ".join(f"{volts:g} V ± {limit / volts:.2%}" for volts, limit in plan.volts)
    return f"{resistor} at " + ", ".join(f"{volts:g} V as set" for volts in plan.supplies)
