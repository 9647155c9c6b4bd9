"""A comparison as one HTML file that opens offline, to zoom into, to sort and to print.

It keeps the rules of the report (html.py): everything inside, no network, and only the scripts that are put in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from joulemeter.comparison.amounts import (
    ABOVE_IDLE,
    EDP,
    ENERGY,
    LATENCY,
    LIFE,
    MEAN_POWER,
    NET,
    PER_JOULE,
    PER_SECOND,
    POWER,
    QUANTITIES,
    TOTAL,
)
from joulemeter.comparison.doubts import scope_name
from joulemeter.comparison.entry import Origin
from joulemeter.comparison.table import Group, Placed, Table
from joulemeter.comparison.words import RESTS, SECTIONS, energy, interval, per, rank, ratio, shown, standing, verdict
from joulemeter.report import comparefigures
from joulemeter.report.compareplot import MOST_BARS
from joulemeter.report.page import embedded, environment, our_own, own_file, plotly_script, script_hash
from joulemeter.report.text import typeset

# Groups that get figures; each of more would cost a slow page.
MOST_DRAWN = 24
# Tables are wide.
LANDSCAPE = "@page { size: landscape; }"
# Columns after the energy, where any line of a section knows them.
COLUMNS = (LATENCY, PER_JOULE, TOTAL, ABOVE_IDLE, NET, PER_SECOND, EDP, POWER, MEAN_POWER, LIFE)


def render(table: Table, left_out: Sequence[str] = ()) -> str:
    """The page. Texts in `table` may come from anybody; they are shown, never obeyed."""
    drawn: dict[str, Any] = {}
    made = groups(table, drawn)
    scripts = [*([own_file("report.js"), plotly_script()] if drawn else []), own_file("compare.js")]
    text: str = (
        environment()
        .from_string(own_file("comparison.html") + own_file("compare.html"))
        .render(
            groups=made,
            simulated=table.simulated,
            sort=QUANTITIES[table.sort].label,
            left_out=left_out,
            style=our_own(own_file("report.css") + own_file("compare.css") + LANDSCAPE),
            scripts=[our_own(script) for script in scripts],
            policy=" ".join(map(script_hash, scripts)),
            data=embedded(drawn),
            drawn=bool(drawn),
        )
    )
    return text


def groups(table: Table, drawn: dict[str, Any], most_bars: int = MOST_BARS) -> list[dict[str, Any]]:
    """The groups for the templates; their figures, with so many bars, go into `drawn`."""
    return [_group(group, table.sort, number, drawn, most_bars) for number, group in enumerate(table.groups)]


def _group(group: Group, sort: str, number: int, drawn: dict[str, Any], most_bars: int) -> dict[str, Any]:
    figures = []
    if number < MOST_DRAWN and len(group.placed) > 1:
        for name, title, figure in (
            ("bars", f"{QUANTITIES[sort].label}, the best first", comparefigures.bars(group, sort, most_bars)),
            ("plane", "Energy against latency", comparefigures.plane(group)),
        ):
            if figure is not None:
                drawn[f"{name}{number}"] = figure
                figures.append({"id": f"{name}{number}", "title": title, "caption": figure.pop("caption")})
    return {
        "title": group.title + per(group),
        "count": len(group.placed),
        "simulated": group.simulated,
        "standing": list(standing(group, sort)),
        "ours": [_section(group.of(origin), origin) for origin in SECTIONS if origin.ours and group.of(origin)],
        "others": [_section(group.of(origin), origin) for origin in SECTIONS if not origin.ours and group.of(origin)],
        "reference": None if group.reference is None else group.reference.name,
        "against": [_against(one) for one in group.of(Origin.MEASURED, Origin.SIMULATED) if one.against is not None],
        "doubts": [{"code": str(doubt.code), "text": doubt.text} for doubt in group.doubts],
        "figures": figures,
    }


def _section(placed: Sequence[Placed], origin: Origin) -> dict[str, Any]:
    names = [name for name in COLUMNS if any(one.entry.amount(name).value is not None for one in placed)]
    held = origin.ours
    heads = [
        "rank",
        "name",
        "energy",
        *(["95 % interval"] if held else []),
        *(QUANTITIES[name].short for name in names),
    ]
    return {
        "origin": str(origin),
        "title": SECTIONS[origin],
        "heads": [*heads, "covers"],
        "rows": [_row(one, names, held=held) for one in placed],
    }


def _row(one: Placed, names: Sequence[str], *, held: bool) -> dict[str, Any]:
    entry = one.entry
    amount = entry.amount(ENERGY)
    place = one.rank.first if one.rank is not None else None
    cells = [_cell(typeset(energy(entry, 4)), amount.value if amount.value is not None else entry.energy_max_j)]
    if held:
        ends = interval(amount, ENERGY)
        small = RESTS[amount.rests] if amount.value is not None else amount.reason
        cells.append(_cell(typeset(ends) if ends else "unknown", amount.low, small))
    for name in names:
        known = entry.amount(name)
        ends = interval(known, name) if name in (LATENCY, NET, LIFE, PER_SECOND) else ""
        cells.append(_cell(typeset(shown(name, known.value, 4)), known.value, typeset(ends) if ends else None))
    cells.append(_cell(scope_name(entry.scope) if entry.scope else "unknown", entry.scope, words=True))
    about = (entry.device, entry.runtime, entry.precision, entry.meter)
    return {
        "rank": rank(one.rank) + ("*" if one.on_front else ""),
        "place": place,
        "name": entry.name,
        "simulated": entry.simulated,
        "about": ", ".join(part for part in about if part and part not in entry.name),
        "basis": str(entry.basis),
        "source": entry.source,
        "cells": cells,
    }


def _cell(text: str, value: float | str | None, small: str | None = None, *, words: bool = False) -> dict[str, Any]:
    return {"text": text, "value": "" if value is None else value, "small": small, "words": words}


def _against(one: Placed) -> dict[str, str]:
    if one.against is None:
        raise ValueError("this line has no ratio")
    times, held = ratio(one.against)
    return {"name": one.entry.name, "times": times, "interval": held, "verdict": verdict(one.against, one.entry)}
