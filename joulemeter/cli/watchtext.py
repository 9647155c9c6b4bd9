"""What `joulemeter watch` shows: a panel for each meter on a terminal, plain lines and JSON elsewhere.

A line is a list of pieces, each a text with a style, so that widths are counted without escape sequences.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import numpy as np

from joulemeter.capture import Basis, Header, Quantity
from joulemeter.live import View
from joulemeter.physics.livefigures import Figures, Level
from joulemeter.physics.livelines import Pulses
from joulemeter.physics.livestrip import Columns
from joulemeter.units import show, show_duration

SCHEMA = "joulemeter.watch/1"

Piece = tuple[str, str]
Line = list[Piece]

STYLES = {"": "", "bold": "1", "dim": "2", "bad": "1;31", "doubt": "33", "power": "32", "line": "36"}

LABEL, COLUMN, LEAST_COLUMN, GAP = 9, 14, 11, 3
HEADINGS = ("now", "mean", "min", "max")
# Rows of the strip: what is left of the screen, within these limits.
MOST_ROWS = 8
AXIS = 10
# What the strip's axis ends at, times a power of ten.
ROUND = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Glyphs:
    """`fill` are cells from empty to full, `peak` shades what is reached only at times.

    `low`, `high` and `both` are a digital line's.
    """

    fill: str
    peak: str
    low: str
    high: str
    both: str
    axis: str
    dot: str


BLOCKS = Glyphs(fill=" ▁▂▃▄▅▆▇█", peak="░", low="▁", high="█", both="▒", axis="│", dot="·")
ASCII = Glyphs(fill=" .:#", peak="'", low="_", high="#", both="%", axis="|", dot="-")


def glyphs(encoding: str | None) -> Glyphs:
    """Blocks where the terminal's encoding has them."""
    try:
        "".join((BLOCKS.fill, BLOCKS.peak, BLOCKS.both, BLOCKS.axis, BLOCKS.dot)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def render(lines: Sequence[Line], width: int, encoding: str, *, colour: bool) -> list[str]:
    """Lines cut to `width`, with escape sequences for colour only. What comes from a device cannot send others."""
    return [_render(line, width, encoding, colour) for line in lines]


def _render(line: Line, width: int, encoding: str, colour: bool) -> str:
    parts = []
    for text, style in line:
        shown = "".join(letter if letter.isprintable() else " " for letter in text)[:width]
        width -= len(shown)
        shown = shown.encode(encoding, "replace").decode(encoding)
        parts.append(f"\x1b[{STYLES[style]}m{shown}\x1b[0m" if colour and STYLES[style] and shown else shown)
    return "".join(parts)


# -- the terminal -----------------------------------------------------------------------------------------------------


def screen(views: Sequence[View], width: int, height: int, drawn: Glyphs) -> list[Line]:
    """The panels of all meters below each other and a last line, `height` lines at most."""
    room = (height - 1) // max(len(views), 1)
    lines = [line for view in views for line in panel(view, width, room, drawn)]
    return [*lines[: height - 1], [(f"Ctrl-C or q ends it {drawn.dot} nothing is recorded", "dim")]]


def panel(view: View, width: int, height: int, drawn: Glyphs) -> list[Line]:
    """One meter in at most `height` lines: the strip takes what is left, and gives way first."""
    head = [_title(view, width), *_table(view, width), *_flow(_totals(view), width)]
    details = [] if view.remark is None else _worded("", view.remark, width)
    lines = _lines(view.figures.pulses, width)
    room = height - len(head) - len(details) - len(lines) - 1
    strip = _strip(view, width, room, drawn)
    blank: list[Line] = [[]] if len(strip) <= room else []
    return [*head, *strip, *lines, *details, *blank][:height]


def _title(view: View, width: int) -> Line:
    header = view.header
    model = "" if header.model.lower() == view.name.lower() else f" {header.model}"
    left = f"{view.name}{model}" + (f" at {header.address}" if header.address else "")
    right = [("SIMULATED ", "doubt")] if header.simulated else []
    if view.calibrated:
        right.append((f"calibrated {view.calibrated} ", "dim"))
    right.append((show_duration(view.elapsed_s), "dim"))
    taken = sum(len(text) for text, _ in right)
    left = left[: max(width - taken - 1, 0)]
    return [(left, "bold"), (" " * max(width - taken - len(left), 1), ""), *right]


def _table(view: View, width: int) -> list[Line]:
    figures = view.figures
    if figures.records is not None:
        return _records(view, width)
    shown = min(len(HEADINGS), max((width - LABEL) // LEAST_COLUMN, 1))
    column = min(COLUMN, (width - LABEL) // shown)
    rows: list[Line] = [[(" " * LABEL + "".join(f"{text:>{column}}" for text in HEADINGS[:shown]), "dim")]]
    if view.power_unknown is not None:
        rows += _worded("power", f"unknown: {view.power_unknown}", width)
    else:
        rows.append(_level("power", figures.power, "W", column, shown))
    if figures.current is not None or figures.power is None:
        rows.append(_level("current", figures.current, "A", column, shown))
    return rows


def _worded(label: str, text: str, width: int) -> list[Line]:
    """A sentence beside its label, on as many lines as it takes."""
    labels = chain([label], repeat(""))
    return [
        [(f"{first:{LABEL}}", "dim"), (line, "doubt")]
        for first, line in zip(labels, textwrap.wrap(text, max(width - LABEL, 20)), strict=False)
    ]


def _level(label: str, level: Level | None, unit: str, column: int, shown: int) -> Line:
    if level is None:
        return [(f"{label:{LABEL}}", "dim"), (f"{'waiting':>{column}}", "dim")]
    values = (level.now, level.mean, level.low, level.high)[:shown]
    now, *rest = (f"{show(value, unit):>{column}}" for value in values)
    return [(f"{label:{LABEL}}", "dim"), (now, "bold"), ("".join(rest), "")]


def _records(view: View, width: int) -> list[Line]:
    """A triggered instrument knows nothing of the time between its records."""
    records = view.figures.records
    if records is None or records.duration_s is None:
        return [[(f"{'records':{LABEL}}", "dim"), ("none yet: waiting for the trigger", "doubt")]]
    told = [(f"{records.count}", "bold"), (f"the last one {show(records.duration_s, 's')}", "")]
    if view.heard_s is not None:
        told.append((f"{show_duration(view.heard_s)} ago", "dim"))
    if records.energy_j is not None:
        told.append((show(records.energy_j, "J"), ""))
        told.append((f"mean {show(records.energy_j / records.duration_s, 'W')}", ""))
    elif records.charge_c is not None:
        told.append((show(records.charge_c, "C"), ""))
        told.append((f"mean {show(records.charge_c / records.duration_s, 'A')}", ""))
    rows = _flow([(f"{'records':{LABEL - GAP}}", "dim"), *told], width)
    if records.pulse_j is not None:
        rows.append([(f"{'pulse':{LABEL}}", "dim"), (show(records.pulse_j, "J"), "bold"), (" in the last one", "")])
    if view.power_unknown is not None:
        rows += _worded("power", f"unknown: {view.power_unknown}", width)
    return rows


def _totals(view: View) -> list[Piece]:
    figures = view.figures
    told = []
    if figures.records is None:
        if figures.energy_j is not None:
            told.append((f"energy {show(figures.energy_j, 'J')}", "bold"))
        if figures.charge_c is not None:
            told.append((f"charge {show(figures.charge_c, 'C')}", ""))
    if figures.volts is not None:
        told.append((f"at {show(figures.volts, 'V')}{_basis(view)}", ""))
    told.append((f"rate {show(view.rate_hz or view.header.rate_hz, 'Hz')}", "" if view.rate_hz else "dim"))
    told.append((f"{figures.samples} samples", ""))
    if figures.records is None:
        told.append((f"{figures.lost} LOST", "bad") if figures.lost else ("0 lost", ""))
    if figures.clipped:
        told.append((f"{figures.clipped} CLIPPED", "bad"))
    return told


def _basis(view: View) -> str:
    basis = basis_of(view.header)
    return "" if basis in (None, Basis.MEASURED) else f" ({basis})"


def basis_of(header: Header) -> Basis | None:
    """Where the voltage comes from; None where there is none."""
    channel = header.channel(Quantity.VOLTAGE)
    return channel.basis if channel is not None else None if header.voltage is None else header.voltage.basis


def _flow(pieces: Sequence[Piece], width: int, indent: int = 0) -> list[Line]:
    """Pieces side by side, on as many lines as that takes."""
    lines: list[Line] = [[]]
    at = 0
    for text, style in pieces:
        if at and at + GAP + len(text) > width:
            lines.append([(" " * indent, "")] if indent else [])
            at = indent
        elif at:
            lines[-1].append((" " * GAP, ""))
            at += GAP
        lines[-1].append((text, style))
        at += len(text)
    return lines


def _strip(view: View, width: int, room: int, drawn: Glyphs) -> list[Line]:
    """Power over time in at most `room` rows: a column is filled up to its mean and shaded up to its greatest value."""
    moving = [(one.name, one.strip) for one in view.figures.pulses if one.strip is not None]
    rows = min(room - len(moving), MOST_ROWS)
    if rows < 1:
        return []
    columns = view.figures.strip.columns(width - AXIS - 1)
    top = axis_end(columns.top)
    labels = [""] * rows
    labels[-1] = show(columns.step_s * len(columns.mean), "s", 2)
    labels[0] = "" if columns.top is None else show(top, "W" if view.power_unknown is None else "A", 2)
    cells = [(label, text, "power") for label, text in zip(labels, _chart(columns, top, rows, drawn), strict=True)]
    cells += [(name, _levels(strip.columns(width - AXIS - 1), drawn), "line") for name, strip in moving]
    return [[(f"{label:>{AXIS - 1}} {drawn.axis}", "dim"), (text, style)] for label, text, style in cells]


def _chart(columns: Columns, top: float, rows: int, drawn: Glyphs) -> list[str]:
    """Rows of cells, the uppermost first."""
    full = len(drawn.fill) - 1
    filled, peaks = heights(columns, top, rows, full)
    lines = []
    for foot in range((rows - 1) * full, -1, -full):
        parts = zip(np.clip(filled - foot, 0, full).tolist(), (peaks > foot).tolist(), strict=True)
        lines.append("".join(drawn.peak if reached and not part else drawn.fill[part] for part, reached in parts))
    return lines


def axis_end(top: float | None) -> float:
    """A round number that is no less than the greatest value shown; 1 where there is none."""
    if top is None or not top > 0:
        return 1.0
    decade: float = 10.0 ** math.floor(math.log10(top))
    return next(step * decade for step in (*ROUND, 20.0) if step * decade >= top)


def heights(columns: Columns, top: float, rows: int, levels: int) -> tuple[Any, Any]:
    """Mean and greatest value of each column in steps of a cell's `levels`, (n,) int64; 0 is empty.

    What is above zero is never drawn as nothing.
    """
    full = rows * levels
    steps = []
    for values in (columns.mean, columns.high):
        share = np.nan_to_num(values, nan=0.0) / top * full
        steps.append(np.where(share > 0, np.clip(np.rint(share), 1, full), 0).astype(np.int64))
    return steps[0], steps[1]


def _levels(columns: Columns, drawn: Glyphs) -> str:
    cells = []
    for low, high in zip(columns.low.tolist(), columns.high.tolist(), strict=True):
        cells.append(" " if math.isnan(low) else drawn.both if low < high else drawn.high if high else drawn.low)
    return "".join(cells)


def _lines(pulses: Sequence[Pulses], width: int) -> list[Line]:
    """A row for each line that moved, and one for all that did not."""
    moved = [one for one in pulses if one.count or one.strip is not None]
    lines = [
        line for one in moved for line in _flow([(f"{one.name:{LABEL - GAP}}", "bold"), *_pulses(one)], width, LABEL)
    ]
    quiet: list[Piece] = []
    for level, what in ((True, "high"), (False, "low"), (None, "no falling edge yet")):
        names = [
            one.name for one in pulses if one not in moved and one.high is level and one.falls_only is (level is None)
        ]
        quiet += [(f"{' '.join(names)} {what}", "dim")] if names else []
    return [*lines, *(_flow(quiet, width) if quiet else [])]


def _pulses(one: Pulses) -> list[Piece]:
    level = "" if one.high is None else "high" if one.high else "low"
    told: list[Piece] = [(f"{level:4}", "line")]
    told.append((_counted_pulses(one), ""))
    if one.widths_s:
        told.append((f"last {show(one.widths_s[-1], 's')}", "bold"))
    if one.periods_s:
        told.append((f"every {show(_mean(one.periods_s), 's')}", ""))
    low, high = (show(edge(one.widths_s, default=0.0), "s", 3) for edge in (min, max))
    if low != high:
        told.append((f"{low} to {high}", "dim"))
    return told


def _counted_pulses(one: Pulses) -> str:
    return _counted(one.count, "falling edge" if one.falls_only else "pulse")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


# -- elsewhere --------------------------------------------------------------------------------------------------------


def plain(view: View, *, named: bool) -> str:
    """One line of text about one meter; `named` where there are several."""
    figures = view.figures
    told = [f"{view.elapsed_s:.1f} s"]
    told += [view.name] if named else []
    if figures.records is not None:
        told += _plain_records(figures)
    else:
        told += _plain_levels(figures, view.power_unknown)
        told.append(f"{figures.lost} LOST" if figures.lost else "0 lost")
    if figures.clipped:
        told.append(f"{figures.clipped} CLIPPED")
    for one in figures.pulses:
        if one.count:
            told.append(f"{one.name} {one.count}x" + (f" {show(one.widths_s[-1], 's')}" if one.widths_s else ""))
    if view.header.simulated:
        told.append("SIMULATED")
    return "  ".join(told)


def _plain_levels(figures: Figures, power_unknown: str | None) -> list[str]:
    level, unit = (figures.power, "W") if power_unknown is None else (figures.current, "A")
    now = "waiting" if level is None else show(level.now, unit)
    return [*([] if power_unknown is None else ["power unknown"]), now, *_overall(figures, level, unit)]


def _overall(figures: Figures, level: Level | None, unit: str) -> list[str]:
    told = []
    if level is not None:
        told += [f"mean {show(level.mean, unit)}", f"{show(level.low, unit, 3)} to {show(level.high, unit, 3)}"]
    if figures.energy_j is not None:
        told.append(show(figures.energy_j, "J"))
    if figures.charge_c is not None:
        told.append(show(figures.charge_c, "C"))
    return told


def _plain_records(figures: Figures) -> list[str]:
    records = figures.records
    if records is None or records.duration_s is None:
        return ["0 records", "waiting for the trigger"]
    told = [_counted(records.count, "record"), f"last {show(records.duration_s, 's')}"]
    if records.energy_j is not None:
        told.append(show(records.energy_j, "J"))
    elif records.charge_c is not None:
        told.append(show(records.charge_c, "C"))
    if records.pulse_j is not None:
        told.append(f"pulse {show(records.pulse_j, 'J')}")
    return told


def summary(view: View) -> str:
    """What is left to say of one meter in the end."""
    figures = view.figures
    told = [f"{view.name}: {show_duration(view.elapsed_s)}"]
    if figures.records is not None:
        told += _plain_records(figures)
    else:
        if view.power_unknown is not None:
            told += ["power unknown", *_overall(figures, figures.current, "A")]
        else:
            told += _overall(figures, figures.power, "W")
        told.append(f"{figures.lost} of {figures.samples + figures.lost} samples lost")
    told += [f"{one.name} {_counted_pulses(one)}" for one in figures.pulses if one.count]
    if view.header.simulated:
        told.append("SIMULATED")
    return ", ".join(told)


def as_json(view: View, kind: str) -> dict[str, Any]:
    """One meter as JSON types, SI units; null is unknown. `kind` is reading or summary."""
    figures, header = view.figures, view.header
    return {
        "schema": SCHEMA,
        "type": kind,
        "meter": view.name,
        "model": header.model,
        "simulated": header.simulated,
        "time_s": round(view.elapsed_s, 3),
        "covered_s": figures.covered_s,
        "power_w": _of(figures.power),
        "power_unknown": view.power_unknown,
        "current_a": _of(figures.current),
        "voltage_v": figures.volts,
        "voltage_basis": basis_of(header),
        "energy_j": figures.energy_j,
        "charge_c": figures.charge_c,
        "samples": figures.samples,
        "lost": None if header.triggered else figures.lost,
        "clipped": figures.clipped,
        "rate_hz": view.rate_hz,
        "lines": {
            one.name: {
                "high": one.high,
                "pulses": one.count,
                "widths_s": list(one.widths_s),
                "period_s": _mean(one.periods_s) if one.periods_s else None,
            }
            for one in figures.pulses
        },
        "records": None
        if figures.records is None
        else {
            "count": figures.records.count,
            "duration_s": figures.records.duration_s,
            "energy_j": figures.records.energy_j,
            "charge_c": figures.records.charge_c,
            "pulse_j": figures.records.pulse_j,
        },
    }


def _of(level: Level | None) -> dict[str, float] | None:
    if level is None:
        return None
    return {"now": level.now, "mean": level.mean, "min": level.low, "max": level.high}
