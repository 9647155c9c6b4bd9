"""From a measured run, or a table of currents, to a battery life: what joins recording, cell and estimator."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from joulemeter import battery, cells
from joulemeter.battery import Load, Profile, Supply, project
from joulemeter.battery.harvest import Balance, balance
from joulemeter.battery.life import Life
from joulemeter.battery.spread import Population, Sensitivity, Spread, population, sensitivities
from joulemeter.battery.whatif import PERIODS_S, capacitor_for, period_for, periods
from joulemeter.capture import Array, Basis, Header, Recording, Stream
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.analyze import Analysis, Request, analyze
from joulemeter.physics.kinds import source_of
from joulemeter.result import Battery, Result
from joulemeter.units import show, show_duration
from joulemeter.window import Window, WindowEnergy

INFERENCE = "inference"
# Polled readings are brought to so many even steps of a window.
POLLED_STEPS = 512
# Points of a curve that a result keeps.
CURVE_POINTS = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about a battery. None: as the cell's data or the measurement say.

    `cell` as cells.cell reads it. `every_s`: one inference each that long. `voltage_v`: what the measurement was
    taken at, where it does not say. `cutoff_v`: the lowest voltage that what hangs at the cell accepts. `wanted_s`:
    a life to be met. `harvested_w` arrives on average, times `harvest_efficiency`.
    """

    cell: str
    every_s: float | None = None
    rest_a: float | None = None
    voltage_v: float | None = None
    cutoff_v: float | None = None
    temperature_c: float = 25.0
    capacitor: battery.Capacitor | None = None
    regulator: battery.Regulator = field(default_factory=battery.Regulator)
    events: tuple[battery.Event, ...] = ()
    wanted_s: float | None = None
    harvested_w: float | None = None
    harvest_efficiency: float = 0.8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Projection:
    """The answer, and what it was made of. `wanted` tells what would meet the wanted life."""

    question: Question
    cell: battery.Cell
    load: Load
    supply: Supply
    life: Life
    spread: Population
    sensitivities: tuple[Sensitivity, ...]
    periods: tuple[tuple[float, Life | None], ...]
    period_for_s: float | None
    saving_farad: float | None
    harvest: Balance | None
    basis: Basis
    caveats: tuple[Caveat, ...]

    def summary(self) -> Battery:
        """What a result keeps of it."""
        life, spread = self.life, self.spread
        every_s = self.load.period_s if self.load.every_s is not None else None
        return Battery(
            cell=self.cell.name,
            life_s={"p5": spread.p5_s, "p50": spread.p50_s, "p95": spread.p95_s},
            cause=self.cause(),
            naive_life_s=life.naive_life_s,
            inferences=None if life.life_s is None or every_s is None else life.life_s / every_s,
            every_s=every_s,
            mean_current_a=life.mean_current_a,
            capacity_c=self.cell.capacity_c,
            basis=self.basis,
            nominal_life_s=life.life_s,
            rest_current_a=self.load.rest_a,
            peak_current_a=life.peak_current_a,
            cutoff_v=life.cutoff_v,
            rail_fresh_v=life.rail_fresh_v,
            rail_end_v=life.rail_end_v,
            charge_left_c=life.charge_left_c,
            causes={str(cause): share for cause, share in spread.causes.items()},
            worst_grade=life.worst_grade,
            sensitivities=tuple(
                {"name": one.name, "low_s": one.life_low_s, "high_s": one.life_high_s, "elasticity": one.elasticity}
                for one in self.sensitivities
            ),
            periods=tuple(
                {"every_s": every, "life_s": one and one.life_s, "cause": one and str(one.cause)}
                for every, one in self.periods
            ),
            wanted_s=self.question.wanted_s,
            period_for_wanted_s=self.period_for_s,
            saving_capacitor_f=self.saving_farad,
            harvest=None
            if self.harvest is None
            else {
                "load_w": self.harvest.load_w,
                "usable_w": self.harvest.usable_w,
                "sustained": self.harvest.sustained,
                "life_s": self.harvest.life_s,
                "autonomy_s": self.harvest.autonomy_s,
                "storable": self.harvest.storable,
            },
            curve=_thinned(life),
        )

    def cause(self) -> str:
        """What ends it, for people."""
        where = f" at {self.life.sag_label!r}" if self.life.sag_label else ""
        return f"{self.life.cause}{where}"


def ask(
    question: Question,
    load: Load,
    basis: Basis,
    *,
    doubts: Sequence[Caveat] = (),
    spread: Spread | None = None,
) -> Projection:
    """Project a load; `spread` is how well it is known. Raises UsageError for what is not possible or not known."""
    cell = cells.cell(question.cell)
    load = replace(load, events=(*load.events, *question.events))
    supply = Supply(
        cutoff_v=question.cutoff_v or cells.cutoff_v(question.cell),
        regulator=question.regulator,
        capacitor=question.capacitor,
        temperature_c=question.temperature_c,
    )
    life = project(cell, load, supply)
    caveats = [*doubts, *life.caveats]
    if question.cutoff_v is None:
        caveats.append(
            note(
                Code.BATTERY_ASSUMED,
                f"Nobody says at which voltage the device gives up; {supply.cutoff_v:g} V is taken, to which the "
                f"capacity of a {cell.name} is stated. Give --cutoff.",
            )
        )
    periodic = load.every_s is not None
    wanted = question.wanted_s
    saving = None
    if life.cause in (battery.Cause.SAG, battery.Cause.NEVER_STARTS) or (wanted and (life.life_s or 0.0) < wanted):
        saving = capacitor_for(cell, load, supply, wanted)
    return Projection(
        question=question,
        cell=cell,
        load=load,
        supply=supply,
        life=life,
        spread=population(cell, load, supply, spread),
        sensitivities=sensitivities(cell, load, supply) if life.life_s else (),
        periods=periods(cell, load, supply, _periods(load)) if periodic else (),
        period_for_s=period_for(cell, load, supply, wanted) if periodic and wanted else None,
        saving_farad=saving,
        harvest=None
        if question.harvested_w is None
        else balance(cell, load, supply, harvested_w=question.harvested_w, efficiency=question.harvest_efficiency),
        basis=basis,
        caveats=tuple(caveats),
    )


def _periods(load: Load) -> list[float]:
    return sorted({*PERIODS_S, load.period_s})


def _thinned(life: Life) -> dict[str, list[float]]:
    curves = life.curves
    at = np.unique(np.linspace(0, len(curves.age_s) - 1, CURVE_POINTS).round().astype(int))
    columns = {"age_s": curves.age_s, "rail_min_v": curves.rail_min_v, "rail_max_v": curves.rail_max_v}
    return {name: [float(value) for value in column[at]] for name, column in columns.items()}


# -- from a run -------------------------------------------------------------------------------------------------------


def of_run(analysis: Analysis, recording: Recording, question: Question) -> Projection:
    """The life under the measured inference, and the sleep current that was measured or is given.

    Raises DataError where nothing was measured that a battery could feed, UsageError where the sleep current is not
    known.
    """
    cells.cell(question.cell)  # a misspelt name is told before anything else
    result = analysis.result
    stream = _stream(recording, result)
    used = [window for window, good in zip(analysis.windows, analysis.used, strict=True) if good]
    middle = sorted(used, key=lambda one: one.per_inference_j or one.charge_c or 0.0)[len(used) // 2]
    profile, doubts = _pulse(stream, middle)
    volts = _volts(result, middle) or question.voltage_v
    if volts is not None and profile.kind is battery.Kind.POWER and question.voltage_v is not None:
        profile = replace(profile, kind=battery.Kind.CURRENT, values=profile.values / volts)
    rest_a, told, rest_sd = _rest(result, question, volts, stream.header)
    every_s = question.every_s
    if every_s is None:
        every_s = _recorded_period_s(used)
        doubts.append(
            note(
                Code.BATTERY_ASSUMED,
                f"Nobody says how often an inference comes; as in the recording, one each {show_duration(every_s)} is "
                "taken. Give --every.",
            )
        )
    regulated = question.regulator.stage is not battery.Stage.DIRECT
    if volts is not None and not regulated and profile.kind is battery.Kind.CURRENT:
        doubts.append(
            note(
                Code.BATTERY_ASSUMED,
                f"The currents were measured at {volts:g} V and are taken to stay the same as the cell's voltage "
                "falls. Behind a converter, say so by --regulator dcdc.",
            )
        )
    energy = result.energy_per_inference_j
    known = energy.median and energy.u_random is not None and energy.u_systematic is not None
    active_sd = float(np.hypot(energy.u_random or 0.0, energy.u_systematic or 0.0) / energy.median) if known else 0.0
    if not known:
        doubts.append(
            note(
                Code.BATTERY_ASSUMED,
                "How wrong the measured energy may be is not known (the meter states no accuracy, or there was one "
                "window only), so the interval of the life holds the spread between cells and not that of the "
                "measurement.",
            )
        )
    load = Load(profile=profile, rest_a=rest_a, every_s=every_s)
    return ask(
        question,
        load,
        Basis.SIMULATED if result.simulated else result.power_w.basis,
        doubts=[*doubts, *told],
        spread=Spread(active_sd=active_sd, rest_sd=rest_sd),
    )


def _stream(recording: Recording, result: Result) -> Stream:
    if result.instrument is not None and result.instrument.get("added"):
        raise UsageError(
            "This result is a sum of several meters, so no current of one battery is in it.",
            "Analyse with --compare, or give a table of currents with --profile.",
        )
    streams = [one for one in recording.streams if result.instrument and one.header.model == result.instrument["model"]]
    if not streams:
        raise DataError("This run has no meter, so nothing says what a battery would feed.", "Measure with a meter.")
    return streams[0]


def _pulse(stream: Stream, measured: WindowEnergy) -> tuple[Profile, list[Caveat]]:
    """One inference of a window as steps, of the charge (or energy) that was measured."""
    source = source_of(stream.header)
    kind = battery.Kind.CURRENT if source.current is not None else battery.Kind.POWER
    window = measured.window
    values = _within(stream, window, kind)
    count = max(1, window.inferences)
    if count > 1:
        # The one whose charge is nearest to the mean stands for all.
        parts = [part for part in np.array_split(values, count) if len(part)]
        mean = float(np.nanmean(values))
        values = min(parts, key=lambda part: abs(float(np.nanmean(part)) - mean))
    total = measured.charge_c if kind is battery.Kind.CURRENT else measured.energy_j
    per_inference_s = window.duration_s / count
    packed = battery.compress(values, per_inference_s / len(values), kind=kind, label=INFERENCE)
    profile = packed.profile
    drawn = float((profile.durations_s * profile.values).sum())
    if total is not None and drawn > 0:
        # Border samples lie partly outside; the integral has shared them.
        profile = replace(profile, values=profile.values * (total / count / drawn))
    return profile, list(packed.caveats)


def _within(stream: Stream, window: Window, kind: battery.Kind) -> Array:
    """Current in A or power in W through a window, evenly spaced, NaN where samples are missing."""
    source = source_of(stream.header)
    index = stream.timebase.index
    first, last = round(index(window.start_ns)), max(round(index(window.stop_ns)), round(index(window.start_ns)) + 1)
    even = np.full(last - first, np.nan)
    times: list[Array] = []
    polled: list[Array] = []
    for block in stream.blocks(max(first - 2, 0), last + 2):
        power = source.power_w(block)
        flow = None if source.current is None else np.asarray(block.data[source.current.name], dtype=np.float64)
        values = flow if kind is battery.Kind.CURRENT else power
        if values is None:
            raise DataError("A counter tells no waveform, so peaks are unknown.", "Measure with a meter that samples.")
        if block.times_ns is not None:
            times.append(block.times_ns)
            polled.append(values)
            continue
        begin, end = max(block.first_index, first), min(block.first_index + len(block), last)
        if end > begin:
            even[begin - first : end - first] = values[begin - block.first_index : end - block.first_index]
    if not times:
        return even
    at = np.linspace(window.start_ns, window.stop_ns, POLLED_STEPS)
    drawn: Array = np.interp(at, np.concatenate(times), np.concatenate(polled))
    return drawn


def _volts(result: Result, measured: WindowEnergy) -> float | None:
    """The voltage of the measurement, stated or as energy over charge."""
    stated = (result.instrument or {}).get("voltage_v")
    if stated is not None:
        return float(stated)
    if measured.energy_j is not None and measured.charge_c:
        return measured.energy_j / measured.charge_c
    return None


def _rest(result: Result, question: Question, volts: float | None, header: Header) -> tuple[float, list[Caveat], float]:
    """Sleep current, what is to be said of it, and its relative standard uncertainty. Raises UsageError."""
    if question.rest_a is not None:
        return question.rest_a, [], 0.0
    idle_w = result.power_w.idle
    if idle_w is None:
        raise UsageError(
            "The current between inferences was not measured, and it decides most lives.",
            "Give --sleep-current, such as --sleep-current 1.2uA.",
        )
    if not volts:
        raise UsageError(
            "The power between inferences was measured, but nobody says at which voltage.",
            "Give --voltage, such as --voltage 3.0V, or --sleep-current.",
        )
    rest_a = idle_w / volts
    if rest_a < 0:
        raise UsageError(
            f"The current between inferences was measured as {show(rest_a, 'A', 3)}, which is no load.",
            "Give --sleep-current, and take the meter's zero by `joulemeter calibrate`.",
        )
    text = (
        f"The current at rest is what was measured between the inferences, {show(rest_a, 'A', 3)}. If the device "
        "sleeps deeper in use, give --sleep-current."
    )
    return rest_a, [note(Code.BATTERY_ASSUMED, text)], _u_rest(header, rest_a, volts)


def _u_rest(header: Header, rest_a: float, volts: float) -> float:
    """Relative standard uncertainty of a small current: gain and offset of the meter's most sensitive range."""
    main = source_of(header).main
    if not main.accuracy or not rest_a:
        return 0.0
    row = min(main.accuracy, key=lambda row: row.offset.standard)
    in_unit = rest_a if main.unit in ("A", "C") else rest_a * volts
    return math.hypot(row.gain.standard, row.offset.standard / in_unit)


def _recorded_period_s(used: Sequence[WindowEnergy]) -> float:
    starts = [one.window.start_ns for one in used]
    if len(starts) < 2:
        raise UsageError("One window does not tell how often an inference comes.", "Give --every, such as --every 10s.")
    count = max(1, used[0].window.inferences)
    return float(np.median(np.diff(starts))) * 1e-9 / count


# -- in a result ------------------------------------------------------------------------------------------------------


def asked(cell: str | None, every_s: float | None) -> dict[str, Any] | None:
    """What a run keeps of the question. Raises UsageError for a cell that there is not, or a period without one."""
    if cell is None:
        if every_s is not None:
            raise UsageError("--every says how often a battery feeds an inference.", "Give --cell too.")
        return None
    cells.cell(cell)
    return {"cell": cell, "every_s": every_s}


def analyzed(recording: Recording, request: Request, battery_asked: Mapping[str, Any] | None = None) -> Analysis:
    """The analysis of a recording, with the battery that is asked about, here or when it was recorded.

    A life that cannot be told is a doubt. Raises what `analyze` does.
    """
    analysis = analyze(recording, request)
    about: Mapping[str, Any] | None = battery_asked or recording.meta.get("battery")
    if not about:
        return analysis
    try:
        found = of_run(analysis, recording, Question(cell=about["cell"], every_s=about.get("every_s")))
    except (UsageError, DataError) as error:
        told = doubt(Code.BATTERY_UNKNOWN, f"Battery life is unknown. {error}")
        return replace(analysis, result=replace(analysis.result, caveats=(*analysis.result.caveats, told)))
    caveats = (*analysis.result.caveats, *found.caveats)
    return replace(analysis, result=replace(analysis.result, battery=found.summary(), caveats=caveats))
