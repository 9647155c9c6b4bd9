"""A recording to a result: align, integrate, summarise. A pure function of the recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from joulemeter.capture import Basis, Header, Quantity, Recording, Stream, View
from joulemeter.caveat import Caveat, Code, doubt, invalid, note
from joulemeter.errors import DataError, UsageError
from joulemeter.pattern import SOURCE as SYNC_SOURCE
from joulemeter.physics import align as aligning
from joulemeter.physics import idle as idling
from joulemeter.physics import summary, total
from joulemeter.physics.agreement import Agreement, agree
from joulemeter.physics.align import Alignment
from joulemeter.physics.combine import Part, evaluate_parts
from joulemeter.physics.doubts import about_count, about_edge, about_stream, about_timing
from joulemeter.physics.integrate import FEW_SAMPLES, LEAST_READINGS, integrate
from joulemeter.physics.kinds import covered_until_ns, reading_s, source_of
from joulemeter.physics.loss import loss
from joulemeter.physics.stats import inspect, summarise
from joulemeter.physics.subject import about, host_time_basis, simulated
from joulemeter.physics.synccode import timebase_from_code
from joulemeter.physics.uncertainty import Conditions
from joulemeter.physics.witness import about as about_witness
from joulemeter.physics.witness import cross_check
from joulemeter.result import Power, Result, Summary, Term, Windows
from joulemeter.trigger import Trigger, parse_trigger
from joulemeter.units import show_duration
from joulemeter.window import Role, Window, WindowEnergy

# Results whose windows may be off by more than this share are refused unless the user allows it.
MAX_ALIGNMENT = 0.1
# What helps where one reason takes all windows.
REMEDIES = {
    "cut-by-record": "A window has to fit into a record: make records longer, such as --set record=100ms.",
    "no-measurement": "Leave --set zero out, or let it be quiet for longer before each trigger: --set pretrigger=5%.",
    "clipped": "The current leaves the screen: say how high it goes, such as --set peak=200mA.",
}
# A baseline is cut into this many parts, so that it shows its own scatter and drift.
BASELINE_PARTS = 10
# What the source of a stamp begins with that marks a part of the host's inference.
PART = "host:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked of the analysis; None: as the recording says.

    `phases` are further triggers by name. `max_alignment` is the share of a window by which its edges may be off.
    `conditions` are what only the user knows, such as the temperature. `add`: the meters measure parts of one device,
    so their energies are added; else they are compared.
    """

    trigger: str | None = None
    phases: Mapping[str, str] | None = None
    max_alignment: float | None = None
    inferences_per_window: int | None = None
    convention: str = "native"
    debounce_s: float | None = None
    conditions: Conditions | None = None
    add: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """`windows` are all inference windows found; those with `used` True count in the result. `phases` by name."""

    result: Result
    windows: tuple[WindowEnergy, ...]
    used: tuple[bool, ...]
    alignment: Alignment
    phases: Mapping[str, tuple[WindowEnergy, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> tuple[WindowEnergy, ...]:
        """Everything that has a row in windows.csv."""
        return (*self.windows, *(window for phase in self.phases.values() for window in phase))


def analyze(recording: Recording, request: Request | None = None) -> Analysis:
    """Raises DataError when nothing was measured, UsageError for a trigger or convention that does not fit."""
    request = request or Request()
    if request.convention not in aligning.CONVENTIONS:
        raise UsageError(
            f"{request.convention!r} is not a convention.", f"Conventions: {', '.join(aligning.CONVENTIONS)}."
        )
    trigger = _trigger(recording, request)
    stream = _main_stream(recording, trigger)
    if request.convention == "eembc" and trigger.form not in ("falling-pairs", "pairs"):
        raise UsageError("The convention 'eembc' needs EEMBC stamps.", "Use --trigger events:falling-pairs.")
    per_window = _inferences_per_window(recording, request)
    clocked_by = None
    if stream is not None and trigger.stamped:
        stream, clocked_by = _by_sync_code(recording, stream)
    alignment = aligning.align(
        recording,
        stream,
        trigger,
        inferences_per_window=per_window or 1,
        convention=request.convention,
        debounce_s=request.debounce_s,
    )
    if not alignment.windows:
        raise DataError(
            f"Nothing was measured: {trigger} marked no complete window ({_listed(alignment.rejected) or 'no pairs'}).",
            "Record longer, or check what the trigger line does.",
        )
    alignment = replace(alignment, sync=replace(alignment.sync, clock=clocked_by))
    caveats = [*_about_count(per_window, alignment), *recording.caveats, *alignment.caveats]
    if stream is None:
        return _timing_only(recording, alignment, _timed_phases(recording, request), caveats)
    max_share = MAX_ALIGNMENT if request.max_alignment is None else request.max_alignment
    _refuse_loose_edges(alignment, max_share)
    phases = {
        name: _phase(recording, stream, name, parse_trigger(text), request.debounce_s, max_share)
        for name, text in _phases(recording, request).items()
    }
    told = recording.meta.get("conditions")
    conditions = request.conditions or (Conditions(**told) if told else None)
    add = bool(recording.meta.get("add")) if request.add is None else request.add
    return _with_energy(recording, stream, alignment, phases, caveats, conditions, add=add, max_share=max_share)


def _by_sync_code(recording: Recording, stream: Stream) -> tuple[Stream, str | None]:
    """The stream with the clock relation that a sync code in its power gives, and what the relation rests on."""
    played = [event for event in recording.events if event.source == SYNC_SOURCE]
    if not played:
        return stream, None if stream.timebase.monotonic_ns is None else "arrival of the samples"
    timebase, _ = timebase_from_code(stream, played)
    return View(stream=stream, own_timebase=timebase), "sync code in the power"


def _refuse_loose_edges(alignment: Alignment, share: float) -> None:
    """Raises DataError when the edges may be off by more than `share` of the median window, at k = 2.

    Edges of a line in the samples themselves are unbiased and average out; stamps from elsewhere may all be late.
    """
    if alignment.sync.grade == "in-band":
        return
    duration_s, off_s = _median_s(alignment), _off_by_s(alignment)
    if off_s > share * duration_s:
        raise DataError(
            f"The windows cannot be placed well enough: edges may be off by {show_duration(off_s)} in windows of "
            f"{show_duration(duration_s)}, more than {share:.0%} of them.",
            f"Put about {math.ceil(off_s / share / duration_s)} times as many inferences into each window, give the "
            "meter a trigger line, or allow more with --max-alignment.",
        )


def _refuse_loose_parts(stream: Stream, windows: Sequence[Window], share: float) -> None:
    """Raises DataError where the windows cannot be carried well enough into the time of another meter."""
    off_s = 2 * math.sqrt(2) * max(window.u_edge_s for window in windows)
    duration_s = float(np.median([window.duration_s for window in windows]))
    if off_s > share * duration_s:
        raise DataError(
            f"The windows cannot be placed well enough in the time of {stream.name}: edges may be off by "
            f"{show_duration(off_s)} in windows of {show_duration(duration_s)}, more than {share:.0%} of them.",
            "Put more inferences into each window, or allow more with --max-alignment.",
        )


def _refuse_short_windows(stream: Stream, kept: Sequence[WindowEnergy]) -> None:
    """Raises DataError where most windows are shorter than what a slow meter shows something new in."""
    short = [window for window in kept if Code.TOO_SHORT in window.caveats]
    if 2 * len(short) <= len(kept):
        return
    period_s = reading_s(stream.header)
    window_s = float(np.median([window.window.duration_s for window in kept]))
    each_s = float(np.median([window.window.latency_s for window in kept]))
    raise DataError(
        f"The {stream.header.model} has a new reading every {show_duration(period_s)}, and windows of "
        f"{show_duration(window_s)} are too short for it: no energy can be told of less than {LEAST_READINGS:g} "
        "readings.",
        f"Put about {math.ceil(FEW_SAMPLES * period_s / each_s)} inferences into each window "
        "(--inferences-per-window), or use a faster meter.",
    )


def _phases(recording: Recording, request: Request) -> dict[str, str]:
    """Triggers by name: those asked for, and the parts that the host stamped on its own."""
    asked = recording.meta.get("phases") if request.phases is None else request.phases
    stamped = {event.source for event in recording.events if event.source.startswith(PART)}
    return {source.removeprefix(PART): source for source in sorted(stamped)} | dict(asked or {})


def _phase(
    recording: Recording, stream: Stream, name: str, trigger: Trigger, debounce_s: float | None, max_share: float
) -> tuple[WindowEnergy, ...]:
    """The occurrences of one part; those placed too loosely by the host's stamps have a duration only."""
    found = aligning.align(recording, stream, trigger, debounce_s=debounce_s, gated=False)
    windows = [replace(window, role=Role.PHASE, label=name) for window in found.windows]
    if trigger.stamped and _off_by_s(found) > max_share * _median_s(found):
        return tuple(map(_unmeasured, windows))
    measured = integrate(stream, windows)
    return tuple(_unmeasured(one.window) if Code.TOO_SHORT in one.caveats else one for one in measured)


def _off_by_s(alignment: Alignment) -> float:
    """By how much both edges of a window together may be off, at k = 2."""
    return 2 * math.sqrt(2) * (alignment.sync.residual_s or 0.0)


def _median_s(alignment: Alignment) -> float:
    return float(np.median([window.duration_s for window in alignment.windows]))


def _listed(rejected: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in rejected.items())


def _main_stream(recording: Recording, trigger: Trigger) -> Stream | None:
    """The stream whose numbers are reported: the first that has the trigger's line, else the first."""
    named = [
        stream
        for stream in recording.streams
        if any(trigger.source == channel.name or trigger.source in channel.lines for channel in stream.header.channels)
    ]
    return next(iter([*named, *recording.streams]), None)


def _trigger(recording: Recording, request: Request) -> Trigger:
    text = request.trigger or recording.trigger
    if text is None:
        raise UsageError(
            f"Nothing says when the model ran in {recording.name}.",
            "Name the trigger with --trigger, such as d0 for a pin that is high during the inference.",
        )
    return parse_trigger(text)


def _inferences_per_window(recording: Recording, request: Request) -> int | None:
    """As the user or the recording says; None where nobody does."""
    asked, told = request.inferences_per_window, recording.meta.get("inferences_per_window")
    if asked is not None and asked < 1:
        raise UsageError(f"{asked} inferences per window make no sense.", "Give a whole number from 1.")
    return asked or told


def _about_count(per_window: int | None, alignment: Alignment) -> list[Caveat]:
    if per_window is not None or alignment.counted:
        return []
    return [
        note(
            Code.INFERENCES_ASSUMED,
            "Nothing says how many inferences one window holds; one is assumed. If there are more, energy and latency "
            "per inference are too large by that factor: give --inferences-per-window.",
        )
    ]


# -- with a meter -----------------------------------------------------------------------------------------------------


def _with_energy(
    recording: Recording,
    stream: Stream,
    alignment: Alignment,
    phases: Mapping[str, tuple[WindowEnergy, ...]],
    caveats: list[Caveat],
    conditions: Conditions | None,
    *,
    add: bool,
    max_share: float,
) -> Analysis:
    header = stream.header
    stamped = {event.source.removeprefix(PART) for event in recording.events if event.source.startswith(PART)}
    streams = _streams(recording, stream, add)
    baseline = [part for window in _baseline(recording, stream) for part in idling.split(window, BASELINE_PARTS)]
    start_ns, stop_ns = alignment.windows[0].start_ns, max(window.stop_ns for window in alignment.windows)
    between = idling.spans(alignment.windows, start_ns, stop_ns, guard_s=max(map(idling.guard_s, streams)))
    end_ns = covered_until_ns(stream)
    # What was recorded on purpose as idle is no part of the mean power.
    whole = Window(
        start_ns=max((window.stop_ns for window in baseline), default=0),
        stop_ns=end_ns,
        index=0,
        role=Role.IDLE,
    )
    spans = total.Spans(whole=whole, windows=alignment.windows, on_purpose=baseline, beside=between)
    placed = [spans if one is stream else spans.moved(stream.timebase, one.timebase) for one in streams]
    measured = [total.measure(one, moved) for one, moved in zip(streams, placed, strict=True)]
    joined = total.add(measured)
    windows = joined.windows
    rejected = dict(alignment.rejected)
    used, why = _judge(windows, end_ns, triggered=header.triggered)
    for reason in why:
        rejected[reason] = rejected.get(reason, 0) + 1
    kept = [window for window, good in zip(windows, used, strict=True) if good]
    if not kept:
        most = max(why, key=why.count, default="")
        raise DataError(
            f"Nothing was measured: all {len(windows)} window(s) were rejected ({_listed(rejected)}).",
            REMEDIES.get(most, "Look at the recording with `joulemeter report`, and record again."),
        )
    for one, own, moved in zip(streams, measured, placed, strict=True):
        seen = [window for window, good in zip(own.windows, used, strict=True) if good]
        _refuse_short_windows(one, seen)
        if one is not stream:
            _refuse_loose_parts(one, moved.windows, max_share)
        caveats += about_stream(one, own.windows, seen, alignment)
    caveats += about_edge(recording, alignment)
    counted = cross_check(stream)
    caveats += about_witness(counted)
    grades = [alignment.sync.grade if one is stream else "host-marker" for one in streams]
    parts = [
        own.part(one, used, grade, named=len(streams) > 1)
        for one, own, grade in zip(streams, measured, grades, strict=True)
    ]
    energies = [window.per_inference_j for window in kept if window.per_inference_j is not None]
    basis = _together([Basis.SIMULATED if one.header.simulated else _power_basis(one.header) for one in streams])
    terms: tuple[Term, ...] = ()
    energy, net, idle_w = Summary(reason="voltage unknown"), None, None
    net_reason: str | None = "energy is unavailable"
    if energies:
        spread = summarise(energies)
        done = evaluate_parts([replace(part, idle=()) for part in parts], spread, conditions)
        terms = done.terms
        energy = summary.of(spread, basis, done.combined if summary.accuracy_known(terms, parts) else None)
        net, net_reason, idle_w, net_caveats = summary.net(
            kept, joined.idle, parts, basis, conditions, between=not baseline
        )
        caveats += [*net_caveats, *inspect(energies, "J"), *about_count(len(kept))]
        if spread.median < 0:
            caveats.append(
                invalid(
                    Code.NEGATIVE_ENERGY,
                    "The energy is below zero, which no device's is that only draws: the current is measured the wrong "
                    "way round, or zero is not where it was said to be.",
                )
            )
    else:
        caveats.append(
            doubt(
                Code.ENERGY_UNAVAILABLE,
                "This meter measures current only and no voltage was given, so energy and power are unknown; charge "
                "and latency are measured. Give --supply or --assume-voltage.",
            )
        )
    timed_by_host = alignment.sync.grade == "host-marker"
    host_basis = host_time_basis(recording)
    time_basis = Basis.SIMULATED if header.simulated and not timed_by_host else host_basis
    latency = summary.of_latency([window.window for window in kept], time_basis)
    any_simulated = simulated(recording)
    agreement, differ = (None, []) if add else _agreement(recording, stream, [window.window for window in kept])
    caveats += differ
    charges = [window.charge_c / window.window.inferences for window in kept if window.charge_c is not None]
    peaks = [window.peak_power_w for window in kept if window.peak_power_w is not None]
    power = Power(
        mean=joined.whole.mean_power_w,
        idle=idle_w,
        peak=max(peaks, default=None),
        inference=total.mean_power(kept),
        basis=basis if energies else Basis.UNAVAILABLE,
    )
    result = Result(
        **about(recording),
        simulated=any_simulated,
        instrument=_instrument(header) | (_added(streams, parts) if add else {}),
        windows=Windows(
            found=len(windows) + sum(alignment.rejected.values()),
            used=len(kept),
            rejected=rejected,
            inferences_per_window=_same([window.window.inferences for window in kept]),
        ),
        energy_per_inference_j=energy,
        net_energy_per_inference_j=net,
        net_reason=net_reason,
        latency_s=latency,
        power_w=power,
        charge_per_inference_c=summarise(charges).median if charges else None,
        loss_per_inference_j=loss(stream, [window.window for window in kept], basis),
        efficiency=summary.efficiency(energy, latency),
        sync=alignment.sync,
        phases={
            name: summary.of_phase(
                found,
                sum(window.window.inferences for window in kept),
                basis,
                Basis.SIMULATED if header.simulated and name not in stamped else host_basis,
            )
            for name, found in phases.items()
        },
        uncertainty=terms,
        agreement=agreement,
        cross_check=None if counted is None else asdict(counted),
        truth=recording.meta.get("truth"),
        caveats=_ordered(caveats, any_simulated),
    )
    return Analysis(result=result, windows=tuple(windows), used=tuple(used), alignment=alignment, phases=phases)


def _judge(windows: Sequence[WindowEnergy], end_ns: int, *, triggered: bool) -> tuple[list[bool], list[str]]:
    """Which windows count, and the reasons of those that do not.

    A record that is cut or clipped can be taken again with another setting; what streams is kept, with a doubt.
    """
    used, why = [], []
    for window in windows:
        reason = None
        if window.window.start_ns < 0:
            reason = "cut-at-start"
        elif window.window.stop_ns > end_ns:
            reason = "cut-at-end"
        elif window.invalid_samples and triggered:
            reason = "no-measurement"
        elif window.missing_s > 0:
            reason = "cut-by-record" if triggered else "lost-samples"
        elif window.clipped_samples and triggered:
            reason = "clipped"
        used.append(reason is None)
        why += [reason] if reason else []
    return used, why


def _baseline(recording: Recording, stream: Stream) -> list[Window]:
    """Idle windows that the session recorded on purpose, marked by host stamps."""
    stamps = [event for event in recording.events if event.source == "baseline" and event.monotonic_ns is not None]
    if len(stamps) < 2 or stream.timebase.monotonic_ns is None:
        return []
    times = [stream.timebase.from_monotonic(event.monotonic_ns or 0) for event in stamps]
    return [
        Window(start_ns=max(start, 0), stop_ns=stop, index=k, role=Role.BASELINE)
        for k, (start, stop) in enumerate(zip(times[0::2], times[1::2], strict=False))
        if stop > max(start, 0)
    ]


def _agreement(
    recording: Recording, stream: Stream, windows: Sequence[Window]
) -> tuple[dict[str, Any] | None, list[Caveat]]:
    """The other meters of a recording beside the one that is reported: the one that differs most, and every doubt."""
    found: list[Agreement] = []
    caveats: list[Caveat] = []
    for other in recording.streams:
        if other.name == stream.name:
            continue
        try:
            found.append(agree(stream, other, windows))
        except (DataError, UsageError) as error:
            text = f"{stream.name} and {other.name} could not be compared. {error}"
            caveats.append(doubt(Code.METERS_DIFFER, text))
    caveats += [doubt(Code.METERS_DIFFER, one.verdict) for one in found if one.en is not None and one.en > 1]
    worst = max(found, key=lambda one: one.en or 0.0, default=None)
    return None if worst is None else asdict(worst), caveats


def _instrument(header: Header) -> dict[str, Any]:
    return {
        "key": header.instrument,
        "model": header.model,
        "serial": header.serial,
        "firmware": header.firmware,
        "rate_hz": header.rate_hz,
        "triggered": header.triggered,
        "voltage_basis": _voltage_basis(header),
        "voltage_v": None if header.voltage is None else header.voltage.volts,
    }


def _added(streams: Sequence[Stream], parts: Sequence[Part]) -> dict[str, Any]:
    """Several meters as one instrument, with what each contributes to the sum."""
    shares = [
        {
            "stream": stream.name,
            **_instrument(stream.header),
            "energy_per_inference_j": float(np.median([one.per_inference_j for one in part.used])),
        }
        for stream, part in zip(streams, parts, strict=True)
    ]
    # What differs between them is told of each share and not of the sum.
    own: dict[str, Any] = dict.fromkeys(("serial", "firmware", "rate_hz", "voltage_basis", "voltage_v"))
    joined = {name: " + ".join(str(share[name]) for share in shares) for name in ("key", "model")}
    return {"added": shares, **own, **joined}


def _streams(recording: Recording, stream: Stream, add: bool) -> list[Stream]:
    """The streams that make up the result, the one with the trigger first."""
    if not add:
        return [stream]
    others = [other for other in recording.streams if other.name != stream.name]
    if not others:
        raise UsageError("There is one meter only, so there is nothing to add.", "Name the others with --meter too.")
    total.related(stream, others)
    return [stream, *others]


def _together(bases: Sequence[Basis]) -> Basis:
    """A sum is worth what its weakest part is."""
    order = (Basis.SIMULATED, Basis.ESTIMATED, Basis.DERIVED, Basis.MEASURED)
    return min(bases, key=lambda basis: order.index(basis) if basis in order else 0)


def _power_basis(header: Header) -> Basis:
    """A product with a voltage that was only stated is derived, not measured."""
    if (main := source_of(header).main).basis is not Basis.MEASURED:
        return main.basis
    whole = header.channel(Quantity.POWER) or header.channel(Quantity.VOLTAGE)
    return whole.basis if whole is not None else Basis.DERIVED


def _voltage_basis(header: Header) -> str | None:
    if (volts := header.channel(Quantity.VOLTAGE)) is not None:
        return str(volts.basis)
    return None if header.voltage is None else str(header.voltage.basis)


# -- without a meter --------------------------------------------------------------------------------------------------


def _timed_phases(recording: Recording, request: Request) -> dict[str, tuple[WindowEnergy, ...]]:
    """The parts that the host stamped; lines need a meter."""
    triggers = {name: parse_trigger(text) for name, text in _phases(recording, request).items()}
    return {
        name: tuple(map(_unmeasured, aligning.align(recording, None, trigger).windows))
        for name, trigger in triggers.items()
        if trigger.stamped
    }


def _unmeasured(window: Window) -> WindowEnergy:
    return WindowEnergy(window=window, energy_j=None, charge_c=None, mean_power_w=None, peak_power_w=None, samples=0.0)


def _timing_only(
    recording: Recording,
    alignment: Alignment,
    phases: Mapping[str, tuple[WindowEnergy, ...]],
    caveats: list[Caveat],
) -> Analysis:
    time_basis = host_time_basis(recording)
    latency = summary.of_latency(alignment.windows, time_basis)
    reason = "no meter was used"
    caveats.append(
        note(
            Code.ENERGY_UNAVAILABLE,
            "No meter was used, so energy and power are unavailable; only time was measured. Name one with --meter.",
        )
    )
    caveats += about_timing(alignment.windows)
    caveats += inspect([window.latency_s for window in alignment.windows], "s")
    caveats += about_count(len(alignment.windows))
    result = Result(
        **about(recording),
        simulated=simulated(recording),
        windows=Windows(
            found=len(alignment.windows),
            used=len(alignment.windows),
            rejected=alignment.rejected,
            inferences_per_window=_same([window.inferences for window in alignment.windows]),
        ),
        energy_per_inference_j=Summary(reason=reason),
        net_reason=reason,
        latency_s=latency,
        efficiency=summary.efficiency(Summary(), latency),
        sync=alignment.sync,
        phases={
            name: summary.of_phase(
                found, sum(window.inferences for window in alignment.windows), Basis.UNAVAILABLE, time_basis
            )
            for name, found in phases.items()
        },
        caveats=_ordered(caveats, simulated(recording)),
    )
    empty = tuple(map(_unmeasured, alignment.windows))
    return Analysis(result=result, windows=empty, used=(True,) * len(empty), alignment=alignment, phases=phases)


# -- both -------------------------------------------------------------------------------------------------------------


def _same(values: Sequence[int]) -> int | None:
    return values[0] if values and len(set(values)) == 1 else None


def _ordered(caveats: Sequence[Caveat], simulated: bool) -> tuple[Caveat, ...]:
    """The worst first, each once; a simulated recording says so before anything else."""
    first = (
        [note(Code.SIMULATED, "A simulator took part: no number here says anything about real hardware.")]
        if simulated
        else []
    )
    rank = {"invalid": 0, "doubt": 1, "note": 2}
    return (*first, *sorted(caveats, key=lambda caveat: rank[caveat.severity]))
