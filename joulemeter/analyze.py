"""A recording to a result: align, integrate, summarise. A pure function of the recording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from joulemeter import align as aligning
from joulemeter.align import Alignment
from joulemeter.capture import Basis, Header, Quantity, Recording, Stream
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.doubts import about_count, about_stream
from joulemeter.errors import DataError, UsageError
from joulemeter.integrate import complement, integrate
from joulemeter.result import Efficiency, Phase, Power, Result, Summary, Term, Windows
from joulemeter.stats import Spread, summarise
from joulemeter.trigger import Trigger, parse_trigger
from joulemeter.uncertainty import budget, relative_gain, systematic
from joulemeter.units import show_duration
from joulemeter.window import Role, Window, WindowEnergy

# Results whose windows may be off by more than this share are refused unless the user allows it.
MAX_ALIGNMENT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user asked of the analysis; None: as the recording says.

    `phases` are further triggers by name. `max_alignment` is the share of a window by which its edges may be off.
    """

    trigger: str | None = None
    phases: Mapping[str, str] | None = None
    max_alignment: float | None = None
    inferences_per_window: int | None = None
    convention: str = "native"
    debounce_s: float | None = None


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
    per_window, caveats = _inferences_per_window(recording, request)
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
    caveats += [*recording.caveats, *alignment.caveats]
    if stream is None:
        return _timing_only(recording, alignment, caveats)
    _refuse_loose_edges(alignment, MAX_ALIGNMENT if request.max_alignment is None else request.max_alignment)
    asked = recording.meta.get("phases") if request.phases is None else request.phases
    phases = {
        name: _phase(recording, stream, name, parse_trigger(text), request) for name, text in (asked or {}).items()
    }
    return _with_energy(recording, stream, alignment, phases, caveats)


def _refuse_loose_edges(alignment: Alignment, share: float) -> None:
    """Raises DataError when the edges may be off by more than `share` of the median window, at k = 2.

    Edges of a line in the samples themselves are unbiased and average out; stamps from elsewhere may all be late.
    """
    u_edge_s = alignment.sync.residual_s
    if alignment.sync.grade == "in-band" or not u_edge_s:
        return
    duration_s = float(np.median([window.duration_s for window in alignment.windows]))
    off_s = 2 * math.sqrt(2) * u_edge_s
    if off_s > share * duration_s:
        raise DataError(
            f"The windows cannot be placed well enough: edges may be off by {show_duration(off_s)} in windows of "
            f"{show_duration(duration_s)}, more than {share:.0%} of them.",
            f"Put about {math.ceil(off_s / share / duration_s)} times as many inferences into each window, give the "
            "meter a trigger line, or allow more with --max-alignment.",
        )


def _phase(
    recording: Recording, stream: Stream, name: str, trigger: Trigger, request: Request
) -> tuple[WindowEnergy, ...]:
    found = aligning.align(recording, stream, trigger, debounce_s=request.debounce_s)
    return tuple(integrate(stream, [replace(window, role=Role.PHASE, label=name) for window in found.windows]))


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


def _inferences_per_window(recording: Recording, request: Request) -> tuple[int | None, list[Caveat]]:
    asked, told = request.inferences_per_window, recording.meta.get("inferences_per_window")
    if asked is not None and asked < 1:
        raise UsageError(f"{asked} inferences per window make no sense.", "Give a whole number from 1.")
    if asked is not None or told is not None:
        return asked or told, []
    return None, [
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
) -> Analysis:
    header = stream.header
    baseline = _baseline(recording, stream)
    span_ns = (alignment.windows[0].start_ns, max(window.stop_ns for window in alignment.windows))
    between = [] if baseline else complement(alignment.windows, *span_ns)
    # What was recorded on purpose as idle is no part of the mean power.
    whole = Window(
        start_ns=max((window.stop_ns for window in baseline), default=0),
        stop_ns=stream.timebase.time_ns(stream.length),
        index=0,
        role=Role.IDLE,
    )
    measured = integrate(stream, [whole, *alignment.windows, *(baseline or between)])
    total, measured = measured[0], measured[1:]
    windows, idle_windows = measured[: len(alignment.windows)], measured[len(alignment.windows) :]
    rejected = dict(alignment.rejected)
    used, why = _judge(windows, stream.timebase.time_ns(stream.length))
    for reason in why:
        rejected[reason] = rejected.get(reason, 0) + 1
    kept = [window for window, good in zip(windows, used, strict=True) if good]
    if not kept:
        raise DataError(
            f"Nothing was measured: all {len(windows)} window(s) were rejected ({_listed(rejected)}).",
            "Look at the recording with `joulemeter report`, and record again.",
        )
    caveats += about_stream(stream, windows, kept, alignment)
    energies = [window.energy_j / window.window.inferences for window in kept if window.energy_j is not None]
    basis = Basis.SIMULATED if header.simulated else _power_basis(header)
    terms: tuple[Term, ...] = ()
    energy, net, idle_w = Summary(reason="voltage unknown"), None, None
    net_reason: str | None = "energy is unavailable"
    if energies:
        spread = summarise(energies)
        terms = budget(kept, header, spread)
        accuracy = any(term.term == "gain" for term in terms)
        energy = _summary(spread, basis, systematic(terms) if accuracy else None)
        idle_w = _mean_power(idle_windows)
        net, net_reason, net_caveats = _net(kept, idle_w, terms, basis, between=not baseline, accuracy=accuracy)
        caveats += net_caveats
        caveats += about_count(len(kept))
    else:
        caveats.append(
            doubt(
                Code.ENERGY_UNAVAILABLE,
                "This meter measures current only and no voltage was given, so energy and power are unknown; charge "
                "and latency are measured. Give --supply or --assume-voltage.",
            )
        )
    timed_by_host = alignment.sync.grade == "host-marker"
    latency = _latency(
        [window.window for window in kept],
        Basis.SIMULATED if header.simulated and not timed_by_host else Basis.MEASURED,
    )
    charges = [window.charge_c / window.window.inferences for window in kept if window.charge_c is not None]
    peaks = [window.peak_power_w for window in kept if window.peak_power_w is not None]
    power = Power(
        mean=total.mean_power_w,
        idle=idle_w,
        peak=max(peaks, default=None),
        inference=_mean_power(kept),
        basis=basis if energies else Basis.UNAVAILABLE,
    )
    result = Result(
        **_about(recording),
        simulated=header.simulated or bool(recording.meta.get("simulated")),
        instrument={
            "key": header.instrument,
            "model": header.model,
            "serial": header.serial,
            "firmware": header.firmware,
            "rate_hz": header.rate_hz,
            "voltage_basis": _voltage_basis(header),
            "voltage_v": None if header.voltage is None else header.voltage.volts,
        },
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
        efficiency=_efficiency(energy, latency),
        sync=alignment.sync,
        phases={
            name: _phase_summary(found, sum(window.window.inferences for window in kept), basis)
            for name, found in phases.items()
        },
        uncertainty=terms,
        caveats=_ordered(caveats, header.simulated),
    )
    return Analysis(result=result, windows=tuple(windows), used=tuple(used), alignment=alignment, phases=phases)


def _phase_summary(windows: Sequence[WindowEnergy], inferences: int, basis: Basis) -> Phase:
    whole = [window for window in windows if not window.missing_s]
    energies = [window.energy_j for window in whole if window.energy_j is not None]
    return Phase(
        windows=len(whole),
        energy_j=_summary(summarise(energies), basis, None) if energies else Summary(reason="energy is unavailable"),
        duration_s=_latency([window.window for window in whole], Basis.MEASURED) if whole else Summary(),
        per_inference=len(whole) / inferences if inferences else None,
    )


def _judge(windows: Sequence[WindowEnergy], end_ns: int) -> tuple[list[bool], list[str]]:
    """Which windows count, and the reasons of those that do not."""
    used, why = [], []
    for window in windows:
        reason = None
        if window.window.start_ns < 0:
            reason = "cut-at-start"
        elif window.window.stop_ns > end_ns:
            reason = "cut-at-end"
        elif window.missing_s > 0:
            reason = "lost-samples"
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


def _mean_power(windows: Sequence[WindowEnergy]) -> float | None:
    """Time-weighted mean power of windows that were seen in full or in part; None if there are none."""
    seen = [(w.energy_j, w.energy_j / w.mean_power_w) for w in windows if w.energy_j is not None and w.mean_power_w]
    total_s = math.fsum(span for _, span in seen)
    return math.fsum(energy for energy, _ in seen) / total_s if total_s else None


def _summary(spread: Spread, basis: Basis, u_systematic: float | None) -> Summary:
    known = [u for u in (spread.u_median, u_systematic) if u is not None]
    return Summary(
        median=spread.median,
        mean=spread.mean,
        stdev=spread.stdev,
        min=spread.min,
        max=spread.max,
        p5=spread.p5,
        p95=spread.p95,
        p99=spread.p99,
        ci95=spread.ci95,
        ci95_method=spread.ci95_method,
        u_random=spread.u_median,
        u_systematic=u_systematic,
        expanded_k2=2 * math.hypot(*known) if u_systematic is not None else None,
        basis=basis,
    )


def _net(
    kept: Sequence[WindowEnergy],
    idle_w: float | None,
    terms: Sequence[Term],
    basis: Basis,
    *,
    between: bool,
    accuracy: bool,
) -> tuple[Summary | None, str | None, list[Caveat]]:
    """Energy above idle: the same windows less idle power times their duration. Never clamped at zero."""
    if idle_w is None:
        return None, "no idle time was recorded", []
    values = [
        (window.energy_j or 0.0) / window.window.inferences
        - idle_w * window.window.duration_s / window.window.inferences
        for window in kept
    ]
    spread = summarise(values)
    caveats = []
    if between:
        caveats.append(
            note(
                Code.IDLE_BETWEEN_WINDOWS,
                "Idle power is the mean power between the windows of this recording. If the board did other work "
                "there, net energy is too low by that share; --baseline records idle on purpose.",
            )
        )
    if spread.median < 0:
        caveats.append(
            doubt(
                Code.NEGATIVE_NET,
                "Net energy is negative: the board drew more outside the windows than inside. The trigger may be "
                "inverted (try d0:low), or idle is not idle.",
            )
        )
    # Offsets cancel in the difference; what scales with energy acts on the difference alone.
    total = math.fsum(window.energy_j or 0.0 for window in kept) / sum(window.window.inferences for window in kept)
    edges = math.fsum(term.contribution_j**2 for term in terms if term.term in ("window edges", "range switch"))
    scaled = relative_gain(terms, total) * spread.median if total else 0.0
    return _summary(spread, basis, math.sqrt(edges + scaled**2) if accuracy else None), None, caveats


def _power_basis(header: Header) -> Basis:
    """A product with a voltage that was only stated is derived, not measured."""
    if header.channel(Quantity.POWER) or header.channel(Quantity.VOLTAGE):
        return Basis.MEASURED
    return Basis.DERIVED


def _voltage_basis(header: Header) -> str | None:
    if header.channel(Quantity.VOLTAGE):
        return str(Basis.MEASURED)
    return None if header.voltage is None else str(header.voltage.basis)


# -- without a meter --------------------------------------------------------------------------------------------------


def _timing_only(recording: Recording, alignment: Alignment, caveats: list[Caveat]) -> Analysis:
    latency = _latency(alignment.windows, Basis.MEASURED)
    reason = "no meter was used"
    caveats.append(
        note(
            Code.ENERGY_UNAVAILABLE,
            "No meter was used, so energy and power are unavailable; only time was measured. Name one with --meter.",
        )
    )
    caveats += about_count(len(alignment.windows))
    result = Result(
        **_about(recording),
        simulated=bool(recording.meta.get("simulated")),
        windows=Windows(
            found=len(alignment.windows),
            used=len(alignment.windows),
            rejected=alignment.rejected,
            inferences_per_window=_same([window.inferences for window in alignment.windows]),
        ),
        energy_per_inference_j=Summary(reason=reason),
        net_reason=reason,
        latency_s=latency,
        efficiency=_efficiency(Summary(), latency),
        sync=alignment.sync,
        caveats=_ordered(caveats, False),
    )
    empty = tuple(
        WindowEnergy(window=window, energy_j=None, charge_c=None, mean_power_w=None, peak_power_w=None, samples=0.0)
        for window in alignment.windows
    )
    return Analysis(result=result, windows=empty, used=(True,) * len(empty), alignment=alignment)


# -- both -------------------------------------------------------------------------------------------------------------


def _latency(windows: Sequence[Window], basis: Basis) -> Summary:
    return _summary(summarise([window.latency_s for window in windows]), basis, None)


def _efficiency(energy: Summary, latency: Summary) -> Efficiency:
    per_second = 1 / latency.median if latency.median else None
    if not energy.median or energy.median <= 0:
        return Efficiency(inferences_per_second=per_second)
    return Efficiency(
        inferences_per_joule=1 / energy.median,
        # (inferences / s) / W is inferences / J while the model runs; kept under the name people look for.
        inferences_per_second_per_watt=1 / energy.median,
        inferences_per_second=per_second,
        edp_js=energy.median * latency.median if latency.median else None,
    )


def _about(recording: Recording) -> dict[str, Any]:
    meta = recording.meta
    return {
        "name": recording.name,
        "created": str(meta.get("created") or ""),
        "device": meta.get("device"),
        "workload": meta.get("workload"),
        "provenance": meta.get("provenance") or {},
    }


def _same(values: Sequence[int]) -> int | None:
    return values[0] if values and len(set(values)) == 1 else None


def _ordered(caveats: Sequence[Caveat], simulated: bool) -> tuple[Caveat, ...]:
    """The worst first, each once; a simulated recording says so before anything else."""
    first = (
        [note(Code.SIMULATED, "The instrument was a simulator: no number here says anything about real hardware.")]
        if simulated
        else []
    )
    rank = {"invalid": 0, "doubt": 1, "note": 2}
    return (*first, *sorted(caveats, key=lambda caveat: rank[caveat.severity]))
