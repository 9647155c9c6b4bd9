"""A result as text for a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

from joulemeter.capture import Basis
from joulemeter.caveat import Code, Severity
from joulemeter.cli.common import wrap
from joulemeter.result import Result, Summary
from joulemeter.units import show, show_duration, show_uncertain

SIMULATED = "SIMULATED: no number here says anything about real hardware."


def render(result: Result, folder: Path | None = None) -> str:
    """The numbers, how they were had, and every doubt about them."""
    lines = [SIMULATED, ""] if result.simulated else []
    lines += [_title(result)]
    for label, text in _figures(result):
        lines += wrap(text, " " * 25, f"  {label:22} ")
    lines += ["", *wrap(_windows(result), "  ")]
    for severity, heading in ((Severity.INVALID, "INVALID"), (Severity.DOUBT, "doubt"), (Severity.NOTE, "note")):
        for caveat in result.caveats:
            if caveat.severity is severity and caveat.code is not Code.SIMULATED:
                lines += wrap(f"{heading}: {caveat.text}", "  ")
    if folder is not None:
        lines += ["", f"Recording and result: {folder}"]
    return "\n".join(lines)


def _title(result: Result) -> str:
    parts = [result.name]
    if result.device and result.device.get("name"):
        parts.append(str(result.device["name"]))
    if result.instrument:
        meter = str(result.instrument["model"])
        if result.instrument["voltage_v"] is not None:
            meter += f" at {result.instrument['voltage_v']:g} V ({result.instrument['voltage_basis']})"
        parts.append(meter)
    if result.workload and result.workload.get("model"):
        parts.append(f"{result.workload['model']} on {result.workload.get('runtime')}")
    return " · ".join(parts)


def _figures(result: Result) -> list[tuple[str, str]]:
    energy, net, latency, power = (
        result.energy_per_inference_j,
        result.net_energy_per_inference_j,
        result.latency_s,
        result.power_w,
    )
    rows = [("energy per inference", _with_uncertainty(energy, "J"))]
    if energy.u_systematic is not None or energy.u_random is not None:
        random = show(energy.u_random, "J", 2)
        rows.append(("", f"standard uncertainty: random {random}, systematic {show(energy.u_systematic, 'J', 2)}"))
    if energy.ci95_total is not None and energy.k95 is not None:
        low, high = (show(edge, "J", 4) for edge in energy.ci95_total)
        rows.append(("", f"95 % in all: {low} to {high} (k = {energy.k95:.2f})"))
    if energy.ci95 is not None:
        low, high = (show(edge, "J", 5) for edge in energy.ci95)
        rows.append(("", f"95 % by scatter: {low} to {high} ({energy.ci95_method})"))
    rows.append(("above idle", f"unknown ({result.net_reason})" if net is None else _with_uncertainty(net, "J")))
    rows.append(("latency", _latency(latency)))
    rows += [("", line) for line in _latency_spread(latency, result.windows.used)]
    if power.basis is not Basis.UNAVAILABLE:
        rows.append(
            (
                "power",
                f"mean {show(power.mean, 'W')}, inference {show(power.inference, 'W')}, idle {show(power.idle, 'W')}",
            )
        )
    else:
        rows.append(("power", "unavailable"))
    efficiency = result.efficiency
    if efficiency.inferences_per_joule is not None:
        rows.append(("inferences per joule", f"{efficiency.inferences_per_joule:.4g}"))
    if result.charge_per_inference_c is not None:
        rows.append(("charge per inference", show(result.charge_per_inference_c, "C")))
    if result.loss_per_inference_j is not None:
        rows.append(
            ("lost in the shunt", f"{show(result.loss_per_inference_j.median, 'J')} per inference, not included")
        )
    accuracy, edge = ((result.workload or {}).get(name) for name in ("accuracy", "edge"))
    if edge:
        begin, end = edge["begin"], edge["end"]
        costs = f"{show(begin['median_s'], 's', 2)} to begin, {show(end['median_s'], 's', 2)} to end"
        jitter = show(max(begin["jitter_s"], end["jitter_s"]), "s", 2)
        rows.append(("edge of this host", f"{edge['line']}: {costs}, jitter {jitter}"))
    if accuracy:
        rows.append(("accuracy (top 1)", f"{accuracy['top1']:.2%}, {accuracy['correct']} of {accuracy['of']}"))
    for name, phase in result.phases.items():
        duration = show(phase.duration_s.median, "s")
        energy_text = "" if phase.energy_j.median is None else f"{show(phase.energy_j.median, 'J')} in "
        rows.append((f"phase {name}", f"{energy_text}{duration} ({phase.windows} windows)"))
    for share in (result.instrument or {}).get("added", ()):
        rows.append((f"of it {share['stream']}", f"{show(share['energy_per_inference_j'], 'J')} ({share['model']})"))
    if result.cross_check is not None:
        counted, summed = (result.cross_check[name] for name in ("counted", "integrated"))
        off = f"{(counted - summed) / summed:+.1%}" if summed else "unknown"
        rows.append(
            ("meter's own counter", f"{show(counted, result.cross_check['unit'])} in all, {off} of its readings")
        )
    if result.agreement is not None:
        rows.append(("second meter", str(result.agreement["verdict"])))
    battery = result.battery
    if battery is not None:
        every = f", one inference each {show_duration(battery.every_s)}" if battery.every_s else ""
        p5, p50, p95 = (battery.life_s[name] for name in ("p5", "p50", "p95"))
        if p50 is None or p5 is None or p95 is None:
            rows.append(("battery life", f"{battery.cell}: unknown, {battery.cause}{every}"))
        else:
            rows.append(("battery life", f"{battery.cell}: {show_duration(p50)}{every}; ends by {battery.cause}"))
            rows.append(("", f"90 % of cells: {show_duration(p5)} to {show_duration(p95)}"))
        rows.append(("", f"charge over mean current would say {show_duration(battery.naive_life_s)}"))
    if result.truth is not None and energy.median is not None:
        true_j = result.truth["energy_per_inference_j"]
        off = f"{(energy.median - true_j) / true_j:+.3%}"
        rows.append(("simulated load, exact", f"{show(true_j, 'J', 6)}; the measured median differs by {off}"))
    return rows


def _with_uncertainty(summary: Summary, unit: str) -> str:
    if summary.median is None:
        return f"unavailable ({summary.reason or summary.basis})"
    if summary.expanded_k2 is None:
        return f"{show(summary.median, unit, 6)} ({summary.basis}; total uncertainty unknown)"
    return f"{show_uncertain(summary.median, summary.expanded_k2, unit)} (k=2; {summary.basis})"


def _latency(latency: Summary) -> str:
    if latency.median is None:
        return "unavailable"
    text = f"median {show(latency.median, 's')}"
    if latency.p95 is not None:
        text += f", p95 {show(latency.p95, 's')}, p99 {show(latency.p99, 's')}"
    return text


def _latency_spread(latency: Summary, count: int) -> list[str]:
    """What oscilloscopes show of a measurement; nothing where it is one value."""
    if latency.stdev is None or latency.min is None or latency.max is None:
        return []
    least, mean, most = (show(value, "s", 5) for value in (latency.min, latency.mean, latency.max))
    return [f"min {least}, mean {mean}, max {most}", f"sdev {show(latency.stdev, 's')} of {count} windows"]


def _windows(result: Result) -> str:
    windows, sync = result.windows, result.sync
    text = f"{windows.used} of {windows.found} windows used"
    if windows.rejected:
        text += " (" + ", ".join(f"{count} {reason}" for reason, count in windows.rejected.items()) + ")"
    if windows.inferences_per_window:
        text += f", {windows.inferences_per_window} inference(s) each"
    text += f"; trigger {sync.trigger}, {sync.grade}"
    if sync.residual_s is not None:
        text += f", edges to {show(sync.residual_s, 's', 2)}"
    if sync.missed or sync.extra:
        text += f"; {sync.missed} missing, {sync.extra} extra edges"
    return text + "."


def mlperf_lines(result: Result) -> str:
    """The two lines that MLPerf Tiny tools parse; a figure that is not known has no line."""
    lines = [SIMULATED] if result.simulated else []
    if result.energy_per_inference_j.median is not None:
        lines.append(f"Median energy cost is {result.energy_per_inference_j.median * 1e6:.3f} uJ/inf.")
    if result.latency_s.median:
        lines.append(f"Median throughput is {1 / result.latency_s.median:.3f} inf./sec.")
    return "\n".join(lines)


FORMATS = ("text", "json", "mlperf")


def present(result: Result, form: str, folder: Path | None = None) -> str:
    """A result in one of FORMATS."""
    match form:
        case "json":
            return result.to_json()
        case "mlperf":
            return mlperf_lines(result)
        case _:
            return render(result, folder)
