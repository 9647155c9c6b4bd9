"""The figures of a comparison as plotly.js data; see figures.py for the rules they keep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from joulemeter.comparison.amounts import ENERGY, LATENCY, QUANTITIES, Amount
from joulemeter.comparison.entry import Origin
from joulemeter.comparison.table import Group, Placed
from joulemeter.comparison.words import energy, rank, shown
from joulemeter.report.compareplot import KINDS, LINEAR_SPAN, MOST_BARS, amount, front_of, in_words, isopowers, name
from joulemeter.report.compareplot import bars as telling
from joulemeter.report.figures import Figure, axis, layout_of
from joulemeter.report.text import plain, typeset

ROW_PX, PLANE_PX = 31, 420
# (fill, edge, marker) of each kind; none is told by its colour alone
LOOKS = {
    Origin.MEASURED: ("var(--accent)", "var(--accent)", "circle"),
    Origin.SIMULATED: ("var(--paper)", "var(--simulated)", "x"),
    Origin.PUBLISHED: ("var(--lane)", "var(--lane)", "square"),
    Origin.BOUND: ("var(--paper)", "var(--lane)", "triangle-down-open"),
}
# Fewer and rounder figures than a table has; the table has them all.
NAME_LETTERS, LABEL_LETTERS = 44, 26
MOST_LABELS = 12
# Above the plot and left, where plotly.js has no buttons, with a line for the title over it.
_LEGEND: Figure = {
    "showlegend": True,
    "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom"},
    "margin": {"l": 8, "r": 8, "t": 64, "b": 8},
}


def bars(group: Group, sort: str, most: int = MOST_BARS) -> Figure | None:
    """A bar for each line, its name above it, so that a narrow screen has room for both; None without any."""
    lines = telling(group, sort, most)
    if len(lines) < 2:
        return None
    quantity = QUANTITIES[sort]
    values = {id(one): found for one in lines if (found := amount(one.entry, sort)) is not None}
    ends = [end for found in values.values() for end in (found.value, found.low, found.high) if end and end > 0]
    low, high = min(ends), max(ends)
    logarithmic = high / low > LINEAR_SPAN
    # plotly.js caps an interval that is null, so bars without one are a trace by themselves.
    parts = [
        (origin, bounded, at)
        for origin in Origin
        for bounded in (True, False)
        if (at := [place for place, one in enumerate(lines) if _kind(one, values) == (origin, bounded)])
    ]
    named: set[Origin] = set()
    traces = []
    for origin, bounded, at in parts:
        fill, edge, _ = LOOKS[origin]
        known = [values[id(lines[place])] for place in at]
        trace: Figure = {
            "type": "bar",
            "orientation": "h",
            "name": KINDS[origin],
            "legendgroup": str(origin),
            "showlegend": origin not in named,
            "x": [found.value for found in known],
            "y": at,
            "width": 0.42,
            "marker": {
                "color": fill,
                "line": {"color": edge, "width": 1.2},
                "pattern": {"shape": {Origin.SIMULATED: "/", Origin.BOUND: "."}.get(origin, ""), "fgcolor": edge},
            },
            "text": [_hover(lines[place], sort) for place in at],
            "textposition": "none",
            "hovertemplate": "%{text}<extra></extra>",
        }
        if bounded:
            trace["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [_reach(found.value, found.high) for found in known],
                "arrayminus": [_reach(found.low, found.value) for found in known],
                "color": "var(--ink)",
                "thickness": 1.3,
                "width": 4,
            }
        named.add(origin)
        traces.append(trace)
    span = [math.log10(low / 2), math.log10(high * 1.5)] if logarithmic else [0, high * 1.08]
    layout = layout_of(group.simulated, ROW_PX * len(lines) + 40) | {
        "hovermode": "closest",
        **_LEGEND,
        "barmode": "overlay",
        "bargap": 0.2,
        "xaxis": axis(quantity.label) | _scale(low, high, quantity.unit, logarithmic=logarithmic) | {"range": span},
        "yaxis": {
            "range": [len(lines) - 0.4, -0.9],
            "showticklabels": False,
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "annotations": [_above(one, place) for place, one in enumerate(lines)],
    }
    better = "longer" if quantity.more else "shorter"
    cut = len(group.placed) - len(lines)
    caption = f"A {better} bar is better; whiskers are intervals of 95 %, where they are known."
    caption += f" {cut} of {len(group.placed)} lines are left out here, and stand in the tables." if cut else ""
    return {"data": traces, "layout": layout, "caption": caption}


def _kind(one: Placed, values: Mapping[int, Amount]) -> tuple[Origin, bool]:
    return one.entry.origin, values[id(one)].bounded


def _above(one: Placed, place: int) -> Figure:
    ours = one.entry.origin.ours
    text = f"{rank(one.rank)} · {_name(one, NAME_LETTERS)}"
    return {
        "text": f"<b>{text}</b>" if ours else text,
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "yref": "y",
        "y": place - 0.22,
        "yanchor": "bottom",
        "showarrow": False,
        "align": "left",
        "font": {"size": 11, "color": "var(--ink)" if ours else "var(--muted)"},
    }


def plane(group: Group) -> Figure | None:
    """Energy against latency with lines of equal power and the Pareto front; None for fewer than two points."""
    points = [one for one in group.placed if one.on_front is not None]
    if len(points) < 2:
        return None
    energies, latencies = _values(points, ENERGY), _values(points, LATENCY)
    x_range = [math.log10(min(latencies) / 2.5), math.log10(max(latencies) * 2.5)]
    y_range = [math.log10(min(energies) / 2.5), math.log10(max(energies) * 2.5)]
    traces = [*_powers(energies, latencies, x_range, y_range)]
    front = front_of(group)
    if len(front) > 1:
        line = {"color": "var(--random)", "width": 2}
        traces.append(
            {
                "mode": "lines",
                "name": "Pareto front",
                "x": _values(front, LATENCY),
                "y": _values(front, ENERGY),
                "line": line,
                "hoverinfo": "skip",
            }
        )
    for origin in Origin:
        there = [one for one in points if one.entry.origin is origin]
        if there:
            traces.append(_markers(there, origin))
    named = list(dict.fromkeys([*front, *(one for one in points if one.entry.origin.ours)]))[:MOST_LABELS]
    middle = math.sqrt(min(latencies) * max(latencies))
    layout = layout_of(group.simulated, PLANE_PX) | {
        "hovermode": "closest",
        **_LEGEND,
        "xaxis": axis("Latency")
        | _scale(min(latencies), max(latencies), "s", logarithmic=True)
        | {"range": x_range, "nticks": 6},
        "yaxis": axis(f"Energy per {group.per}")
        | _scale(min(energies), max(energies), "J", logarithmic=True)
        | {"range": y_range},
        "annotations": [
            _label(one, turn, left=(one.entry.amount(LATENCY).value or 0.0) > middle) for turn, one in enumerate(named)
        ],
    }
    caption = (
        "Lower and further left is better. Dashed: lines of equal power. The line joins the Pareto front: nothing "
        "takes less energy and less time than these, beyond doubt."
    )
    return {"data": traces, "layout": layout, "caption": caption}


def _markers(there: Sequence[Placed], origin: Origin) -> Figure:
    fill, edge, symbol = LOOKS[origin]
    found: Figure = {
        "mode": "markers",
        "name": KINDS[origin],
        "x": _values(there, LATENCY),
        "y": _values(there, ENERGY),
        "marker": {
            "symbol": symbol,
            "size": 11 if origin.ours else 8,
            "color": edge if origin is Origin.SIMULATED else fill,
            "opacity": 0.9,
            "line": {"color": ["var(--random)" if one.on_front else edge for one in there], "width": 1.6},
        },
        "text": [_hover(one, LATENCY) for one in there],
        "hovertemplate": "%{text}<extra></extra>",
    }
    for side, quantity in (("error_x", LATENCY), ("error_y", ENERGY)):
        amounts = [one.entry.amount(quantity) for one in there]
        if any(found.bounded for found in amounts):
            found[side] = {
                "type": "data",
                "symmetric": False,
                "array": [_reach(found.value, found.high) for found in amounts],
                "arrayminus": [_reach(found.low, found.value) for found in amounts],
                "color": edge,
                "thickness": 1.3,
                "width": 3,
            }
    return found


def _powers(
    energies: Sequence[float], latencies: Sequence[float], x_range: Sequence[float], y_range: Sequence[float]
) -> list[Figure]:
    """Lines of equal power across the plot, each with its power at the upper end."""
    x: list[float | None] = []
    y: list[float | None] = []
    texts: list[str] = []
    for power in isopowers(energies, latencies):
        start = max(x_range[0], y_range[0] - math.log10(power))
        stop = min(x_range[1], y_range[1] - math.log10(power))
        if start < stop:
            x += [10**start, 10**stop, None]
            y += [power * 10**start, power * 10**stop, None]
            texts += ["", in_words(power, "W"), ""]
    look = {"color": "var(--muted)", "width": 0.8, "dash": "dash"}
    return [
        {
            "mode": "lines+text",
            "x": x,
            "y": y,
            "text": texts,
            "textposition": "bottom left",
            "textfont": {"size": 10, "color": "var(--muted)"},
            "line": look,
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]


def _label(one: Placed, turn: int, *, left: bool) -> Figure:
    latency, of = one.entry.amount(LATENCY).value or 0.0, one.entry.amount(ENERGY).value or 0.0
    return {
        "text": _name(one, LABEL_LETTERS),
        "x": math.log10(latency),
        "y": math.log10(of),
        "xanchor": "right" if left else "left",
        "yanchor": "bottom" if turn % 2 else "top",
        "xshift": -8 if left else 8,
        "showarrow": False,
        "font": {"size": 10, "color": "var(--ink)" if one.entry.origin.ours else "var(--muted)"},
    }


def _name(one: Placed, letters: int) -> str:
    return plain(name(one.entry, letters), letters)


def _hover(one: Placed, sort: str) -> str:
    entry = one.entry
    parts = [plain(entry.name), KINDS[entry.origin], f"rank {rank(one.rank)}", f"energy {typeset(energy(entry, 4))}"]
    parts += [
        f"{QUANTITIES[name].label} {typeset(shown(name, entry.amount(name).value, 4))}"
        for name in dict.fromkeys((LATENCY, sort))
        if name != ENERGY
    ]
    parts += ["on the Pareto front"] if one.on_front else []
    return "<br>".join(parts)


def _scale(low: float, high: float, unit: str, *, logarithmic: bool) -> Figure:
    """Ticks with units: powers of ten on a logarithmic axis."""
    if logarithmic:
        powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
        steps = [(factor, exponent) for exponent in powers for factor in ((1, 2, 5) if len(powers) < 6 else (1,))]
        ticks = [factor * 10.0**exponent for factor, exponent in steps]
    else:
        step = 10.0 ** math.floor(math.log10(high))
        step = next(part * step for part in (0.1, 0.2, 0.5, 1.0, 2.0) if high / (part * step) <= 6)
        ticks = [step * count for count in range(int(high * 1.08 / step) + 1)]
    words = [in_words(tick, unit) if tick else "0" for tick in ticks]
    return {"type": "log" if logarithmic else "linear", "tickvals": ticks, "ticktext": words}


def _values(placed: Sequence[Placed], name: str) -> list[float]:
    return [one.entry.amount(name).value or 0.0 for one in placed]


def _reach(low: float | None, high: float | None) -> float | None:
    """Length of a whisker; None draws none."""
    return None if low is None or high is None else max(high - low, 0.0)
