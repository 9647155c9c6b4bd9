"""Values of many windows as the summaries of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from joulemeter.capture import Basis
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import DataError
from joulemeter.physics import idle as idling
from joulemeter.physics.combine import Combined, Part, evaluate_parts, with_random
from joulemeter.physics.stats import Spread, summarise
from joulemeter.physics.uncertainty import Conditions
from joulemeter.result import Efficiency, Phase, Summary, Term
from joulemeter.window import Window, WindowEnergy


def of_phase(windows: Sequence[WindowEnergy], inferences: int, basis: Basis, time_basis: Basis) -> Phase:
    whole = [window for window in windows if not window.missing_s]
    energies = [window.energy_j for window in whole if window.energy_j is not None]
    reason = "no voltage, no meter, or edges that are not placed well enough"
    return Phase(
        windows=len(whole),
        energy_j=of(summarise(energies), basis, None) if energies else Summary(reason=reason),
        duration_s=of_latency([window.window for window in whole], time_basis) if whole else Summary(),
        per_inference=len(whole) / inferences if inferences else None,
    )


def accuracy_known(terms: Sequence[Term], parts: Sequence[Part]) -> bool:
    """Whether every meter that took part states how wrong it may be."""
    gains = [term.term for term in terms if term.term.endswith("gain")]
    return all(any(gain.startswith(part.name) for gain in gains) for part in parts)


def of(spread: Spread, basis: Basis, combined: Combined | None, u_random: float | None = None) -> Summary:
    """`combined` None: the accuracy is not known, and neither is any total."""
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
        u_random=spread.u_median if u_random is None else u_random,
        u_systematic=combined.u_systematic if combined else None,
        expanded_k2=combined.expanded_k2 if combined else None,
        k95=combined.k95 if combined else None,
        ci95_total=combined.ci95_total if combined else None,
        basis=basis,
    )


def net(
    kept: Sequence[WindowEnergy],
    idle_windows: Sequence[WindowEnergy],
    parts: Sequence[Part],
    basis: Basis,
    conditions: Conditions | None,
    *,
    between: bool,
) -> tuple[Summary | None, str | None, float | None, list[Caveat]]:
    """Energy above idle, why there is none, idle power, and the doubts. Never clamped at zero.

    `kept` and `idle_windows` are of all meters together, `parts` what each of them contributes.
    """
    try:
        idle = idling.model(idle_windows)
    except DataError:
        return None, "no idle time was recorded", None, []
    values = [one.per_inference_j for one in idling.net(kept, idle) if one.per_inference_j is not None]
    spread = summarise(values)
    if between and len(parts) == 1:
        parts = [replace(parts[0], outside_w=idle.power_w)]
    elif not between:
        parts = [replace(part, outside_w=None) for part in parts]
    done = evaluate_parts(parts, spread, conditions)
    u_random = idling.random_u(kept, idle, spread.u_median)
    combined = done.combined if accuracy_known(done.terms, parts) else None
    if combined is not None and u_random is not None:
        combined = with_random(combined, spread.median, u_random)
    caveats = list(idle.caveats)
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
    return of(spread, basis, combined, u_random), None, idle.power_w, caveats


def of_latency(windows: Sequence[Window], basis: Basis) -> Summary:
    return of(summarise([window.latency_s for window in windows]), basis, None)


def efficiency(energy: Summary, latency: Summary) -> Efficiency:
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
