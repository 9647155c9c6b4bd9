"""A result as one HTML file that opens offline, on any screen and on paper.

Everything is inside: style, plotly.js and decimated data. A content security policy forbids the network and runs
exactly the scripts put in here, by their hashes, so that a text that slipped through escaping would stay a text.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import resources
from typing import Any

from joulemeter import units
from joulemeter.report import figures
from joulemeter.report.figures import Figure, Row, Waveform
from joulemeter.report.text import typeset, visible
from joulemeter.result import Result

__all__ = ["Waveform", "render"]

MOST_ROWS = 200  # windows listed one by one; windows.csv has them all
NO_REASON = "No reason was recorded."
NO_ENERGY = ("energy-unavailable", "voltage-unknown")  # caveats that say why energy is not known
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


def render(result: Mapping[str, Any], windows: Sequence[Row], waveform: Waveform | None) -> str:
    """The page. `result` is result.json, `windows` the rows of windows.csv, `waveform` an envelope if there is one.

    Texts in all three may come from anybody; they are shown, never obeyed.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> str:
        if isinstance(value, Markup):
            return value
        return "unknown" if value is None else visible(value)

    whole = _over(Result(name="", created="", simulated=False).to_dict(), result)
    drawn, absent = _figures(whole, windows, waveform)
    scripts = [_own("report.js"), _plotly()] if drawn else []
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "show": lambda *quantity: typeset(units.show(*quantity)),
        "uncertain": lambda *quantity: typeset(units.show_uncertain(*quantity)),
        "duration": lambda seconds: typeset(units.show_duration(seconds)),
        "quantity": _quantity,
        "facts": lambda value: list(_facts(value)),
        "day": _day,
        "words": figures.words,
    }
    energy = whole["energy_per_inference_j"]
    return environment.from_string(_own("template.html")).render(
        r=whole,
        energy=energy,
        energy_reason=_energy_reason(whole),
        derived_basis=DERIVED.get(energy["basis"], energy["basis"]),
        windows=windows,
        most_rows=MOST_ROWS,
        wave=waveform,
        joined_s=figures.merged(figures.window_spans(windows))[1],
        drawn=drawn,
        absent=absent,
        grade=GRADES.get(whole["sync"]["grade"]),
        widest=max((abs(term["contribution_j"]) for term in whole["uncertainty"]), default=0.0) or 1.0,
        caveats=_by_severity(whole["caveats"]),
        no_reason=NO_REASON,
        style=Markup(_own("report.css")),  # noqa: S704  our own file
        scripts=[Markup(script) for script in scripts],  # noqa: S704  our own file and plotly's
        policy=" ".join(map(_hash, scripts)) or "'none'",
        # No "<" at all: nothing inside can close the script element or open a comment.
        data=Markup(json.dumps(drawn, allow_nan=False).replace("<", "\\u003c")),  # noqa: S704
    )


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
            drawn["spread"] = figures.spread(known, values, unit, result[field], what, result["simulated"])
            drawn["spread"]["caption"] = _spread_caption(what, known, len(windows), result[field])
            return drawn, absent
    absent["spread"] = {
        0: "No inference window was found, so there is nothing to distribute.",
        1: "There is only one window, and one value has no distribution. Record more windows to see the scatter.",
    }.get(len(windows), "Neither energy nor duration is known for more than one window: nothing to distribute.")
    return drawn, absent


def _spread_caption(what: str, known: Sequence[Row], windows: int, summary: Mapping[str, Any]) -> str:
    many = len(known) > figures.MOST_MARKERS
    parts = [
        (True, f"{what} of {len(known):,} windows in order, and how often each value occurs."),
        (many, "Line and band are the mean, lowest and highest of neighbouring windows."),
        (summary["median"] is not None, "Dotted: the median."),
        (summary["ci95"] is not None, "Shaded: its 95 % interval by scatter alone."),
        (not many and any(row["caveats"] for row in known), "Open diamonds: windows with caveats."),
        (len(known) < windows, f"Not known for {windows - len(known):,} of {windows:,} windows, which are left out."),
    ]
    return " ".join(text for holds, text in parts if holds)


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
        stem, _, suffix = name.rpartition("_")
        if stem and suffix in SUFFIXES and isinstance(value, int | float) and not isinstance(value, bool):
            yield stem.replace("_", " "), typeset(units.show(value, SUFFIXES[suffix]))
        else:
            yield name.replace("_", " "), value


def _day(text: str) -> str:
    """An ISO 8601 stamp to the minute; anything else as it stands."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return text


def _own(name: str) -> str:
    return (resources.files("joulemeter.report") / name).read_text("utf-8")


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    # Browsers hash a script with its line ends made one, and find its end by its letters.
    return str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
