"""A result as one HTML file that opens offline, on any screen and on paper.

Everything is inside: style, plotly.js and decimated data. A content security policy forbids the network and runs
exactly the scripts put in here, by their hashes, so that a text that slipped through escaping would stay a text.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from joulemeter import units
from joulemeter.report import comparehtml, figures
from joulemeter.report.figures import Figure, Row, Waveform
from joulemeter.report.page import embedded, environment, our_own, own_file, plotly_script, script_hash
from joulemeter.report.text import typeset
from joulemeter.result import Result

if TYPE_CHECKING:
    from joulemeter.comparison import Table

__all__ = ["Waveform", "render"]

MOST_BARS = 14  # of published results, the best and the nearest; a table has them all
MOST_ROWS = 200  # windows listed one by one; windows.csv has them all
NO_REASON = "No reason was recorded."
NO_ENERGY = ("energy-unavailable", "voltage-unknown")  # caveats that say why energy is not known
# Caveats about how the windows scatter, which are said beside their picture.
STRIKING = ("drift", "warm-up", "outliers", "bimodal", "skewed", "few-windows", "odd-windows")
SEVERITIES = {
    "invalid": "Invalid: do not use the numbers these concern",
    "doubt": "Doubt: a number may be further off than its uncertainty says",
    "note": "Note: good to know when reading the numbers",
}
GRADES = {
    "in-band": "the trigger travels in the same words as the samples",
    "host-marker": "stamped by the host, whose clock was fitted to the instrument’s",
    "shape": "found in the shape of the power alone, without any marker",
}
# A ratio of measured numbers is derived; any weaker basis passes on to what is made from it.
DERIVED = {"measured": "derived"}
SUFFIXES = {"hz": "Hz", "s": "s", "j": "J", "w": "W", "v": "V", "a": "A", "c": "C", "ohm": "ohm", "bytes": "B"}


def render(
    result: Mapping[str, Any],
    windows: Sequence[Row],
    waveform: Waveform | None,
    *,
    table: Table | None = None,
    left_out: Sequence[str] = (),
    command: Sequence[str] = (),
) -> str:
    """The page. `result` is result.json, `windows` the rows of windows.csv, `waveform` an envelope if there is one.

    `table` is the result among published rows, `left_out` what of these is not shown; `command` made the page. Texts in
    all of them may come from anybody; they are shown, never obeyed.
    """
    whole = _over(Result(name="", created="", simulated=False).to_dict(), result)
    phases = [row for row in windows if row["label"] in whole["phases"]]
    inferences = [row for row in windows if row["label"] not in whole["phases"]]
    drawn, absent = _figures(whole, inferences, _with_phases(waveform, phases))
    groups = [] if table is None else comparehtml.groups(table, drawn, MOST_BARS)
    scripts = [
        *([own_file("report.js"), plotly_script()] if drawn else []),
        *([own_file("compare.js")] if groups else []),
    ]
    made = environment()
    made.filters |= {
        "show": lambda *quantity: typeset(units.show(*quantity)),
        "uncertain": lambda *quantity: typeset(units.show_uncertain(*quantity)),
        "duration": lambda seconds: typeset(units.show_duration(seconds)),
        "quantity": _quantity,
        "facts": lambda value: list(_facts(value)),
        "day": _day,
        "words": figures.words,
        "without_command": lambda facts: {name: value for name, value in facts.items() if name != "command"},
        "number": lambda value: f"{value:,.0f}" if value >= 1e4 else f"{value:.4g}",
        "shell": lambda words: shlex.join(map(str, words)),
    }
    energy = whole["energy_per_inference_j"]
    text: str = made.from_string(own_file("comparison.html") + own_file("template.html")).render(
        r=whole,
        energy=energy,
        energy_reason=_energy_reason(whole),
        derived_basis=DERIVED.get(energy["basis"], energy["basis"]),
        windows=windows,
        most_rows=MOST_ROWS,
        wave=waveform,
        joined_s=figures.merged(figures.window_spans(inferences))[1],
        drawn=drawn,
        absent=absent,
        striking=[caveat for caveat in whole["caveats"] if caveat["code"] in STRIKING],
        grade=GRADES.get(whole["sync"]["grade"]),
        widest=max((abs(term["contribution_j"]) for term in whole["uncertainty"]), default=0.0) or 1.0,
        caveats=_by_severity(whole["caveats"]),
        no_reason=NO_REASON,
        groups=groups,
        left_out=left_out,
        command=_bare(command),
        measured_by=_bare(whole["provenance"].get("command") or ()),
        style=our_own(own_file("report.css") + (own_file("compare.css") if groups else "")),
        scripts=[our_own(script) for script in scripts],
        policy=" ".join(map(script_hash, scripts)) or "'none'",
        data=embedded(drawn),
    )
    return text


def _bare(command: object) -> list[str]:
    """A command as somebody else would type it: without the place where joulemeter happens to lie."""
    words = [str(word) for word in command] if isinstance(command, list | tuple) else []
    if not words:
        return []
    program = PurePath(words[0]).name
    return [*(["python", "-m", "joulemeter"] if program == "__main__.py" else [program]), *words[1:]]


def _with_phases(wave: Waveform | None, phases: Sequence[Row]) -> Waveform | None:
    """Phases have lanes of their own, as digital lines do."""
    if wave is None:
        return None
    spans: dict[str, list[figures.Span]] = {}
    for row in phases:
        spans.setdefault(str(row["label"]), []).extend(figures.window_spans([row]))
    return replace(wave, lines={**wave.lines, **{f"phase {name}": found for name, found in spans.items() if found}})


def _figures(
    result: Mapping[str, Any], windows: Sequence[Row], wave: Waveform | None
) -> tuple[dict[str, Figure], dict[str, str]]:
    """Figures by name, and for each that cannot be drawn a sentence that says why."""
    drawn: dict[str, Figure] = {}
    absent: dict[str, str] = {}
    if wave is None:
        absent["waveform"] = "The recording was not at hand when this report was written, so there is no waveform."
    elif not wave.seen:
        absent["waveform"] = "Not one good sample was recorded, so there is no waveform."
    else:
        drawn["waveform"] = figures.waveform(wave, windows, result["simulated"])
    if result["battery"] and len(result["battery"]["curve"].get("age_s", ())) > 1:
        drawn["battery"] = figures.life(result["battery"], result["simulated"])

    for key, field, unit, what in (
        ("energy_j", "energy_per_inference_j", "J", "Energy per inference"),
        ("duration_s", "latency_s", "s", "Latency"),
    ):
        known, values = figures.per_inference(windows, key)
        if len(values) > 1:
            drift = _drift(result) if key == "energy_j" else None
            drawn["spread"] = figures.spread(known, values, unit, result[field], what, result["simulated"], drift)
            drawn["spread"]["caption"] = _spread_caption(
                what, known, len(windows), result[field], drifts=drift is not None
            )
            return drawn, absent
    absent["spread"] = {
        0: "No inference window was found, so there is nothing to distribute.",
        1: "There is only one window, and one value has no distribution. Record more windows to see the scatter.",
    }.get(len(windows), "Neither energy nor duration is known for more than one window: nothing to distribute.")
    return drawn, absent


def _spread_caption(what: str, known: Sequence[Row], windows: int, summary: Mapping[str, Any], *, drifts: bool) -> str:
    many = len(known) > figures.MOST_MARKERS
    parts = [
        (True, f"{what} of {len(known):,} windows in order, and how often each value occurs."),
        (many, "Line and band are the mean, lowest and highest of neighbouring windows."),
        (summary["median"] is not None, "Dotted: the median."),
        (summary["ci95"] is not None, "Shaded: its 95 % interval by scatter alone."),
        (drifts, "Dashed: the drift."),
        (not many and any(row["caveats"] for row in known), "Open diamonds: windows with caveats."),
        (len(known) < windows, f"Not known for {windows - len(known):,} of {windows:,} windows, which are left out."),
    ]
    return " ".join(text for holds, text in parts if holds)


def _drift(result: Mapping[str, Any]) -> float | None:
    """How far the energy per inference changes from the first window to the last, where that is no scatter."""
    found = (caveat["data"].get("total") for caveat in result["caveats"] if caveat["code"] == "drift")
    return next(found, None)


def _over(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """`given`, with what an older version did not write yet filled in as not known."""
    merged = {**defaults, **given}
    for key, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(given.get(key), Mapping):
            merged[key] = _over(default, given[key])
    return merged


def _energy_reason(result: Mapping[str, Any]) -> str:
    found = (caveat["text"] for caveat in result["caveats"] if caveat["code"] in NO_ENERGY)
    return result["energy_per_inference_j"]["reason"] or next(found, NO_REASON)


def _by_severity(caveats: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, list[Mapping[str, Any]]]]:
    """Heading and caveats by severity, the worst first; a severity this version does not know counts as a doubt."""
    groups: dict[str, list[Mapping[str, Any]]] = {severity: [] for severity in SEVERITIES}
    for caveat in caveats:
        groups.get(caveat["severity"], groups["doubt"]).append(caveat)
    return {severity: (SEVERITIES[severity], group) for severity, group in groups.items() if group}


def _quantity(value: float | None, unit: str) -> str:
    """A value with its unit, ratios as per cent or ppm."""
    if value is None:
        return "unknown"
    if unit in units.PLAIN["1"]:
        ratio = value * units.PLAIN["1"][unit]
        return f"{ratio * 100:.3g} %" if abs(ratio) >= 1e-4 else f"{ratio * 1e6:.3g} ppm"
    if unit == "1":
        return _quantity(value, "")
    return typeset(units.show(value, unit, 3))


def _facts(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested JSON as lines of name and value; a name that ends in a unit gives it to its number."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _facts(inner, f"{name} {key}".strip())
    elif isinstance(value, list | tuple) and any(isinstance(inner, Mapping) for inner in value):
        yield name.replace("_", " "), f"{len(value)} entries, in result.json"
    elif isinstance(value, list | tuple):
        yield name, shlex.join(map(str, value)) if name == "command" else ", ".join(map(str, value))
    else:
        if isinstance(value, bool):
            value = "yes" if value else "no"
        stem, _, suffix = name.rpartition("_")
        if stem and suffix in SUFFIXES and value is None:
            yield stem.replace("_", " "), None
        elif stem and suffix in SUFFIXES and isinstance(value, int | float):
            yield stem.replace("_", " "), typeset(units.show(value, SUFFIXES[suffix]))
        else:
            yield name.replace("_", " "), value


def _day(text: str) -> str:
    """An ISO 8601 stamp to the minute; anything else as it stands."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return text
