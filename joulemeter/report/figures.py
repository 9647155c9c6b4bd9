"""The report's figures as plotly.js data: dictionaries that go into the page as JSON.

Colours are CSS variables ("var(--band)"), which report.js resolves so that plots follow light, dark and print.
Text that came from a file or a device goes through `plain`, for plotly.js reads tags, links included, in every text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joulemeter import units
from joulemeter.report.detail import Steps
from joulemeter.report.text import plain, typeset

Floats = NDArray[np.float64]
Figure = dict[str, Any]
Span = tuple[float, float]
Row = Mapping[str, Any]

MOST_SPANS = 1000  # more of them in one lane cannot be told apart on any screen
MOST_MARKERS = 2000  # more of them make a browser slow
MOST_BINS = 40
FEWEST_BINS = 20  # fewer of them across a close-up show steps, not a waveform
MOST_NAMED = 15_000  # windows that keep their times and energies for a closer look; more make the file large
LANE_PX, WAVE_PX, SPREAD_PX, LIFE_PX = 26, 340, 300, 240
DAY_S, YEAR_S = 86400.0, 365.25 * 86400.0
QUANTITIES = {"W": "Power", "A": "Current"}
_NO_AXIS = {"fixedrange": True, "showgrid": False, "zeroline": False, "showticklabels": False, "ticks": ""}
_UNTOUCHED = {"hoverinfo": "skip", "mode": "lines"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Waveform:
    """A recording cut into bins for the eye: the lowest, highest and mean sample of each.

    `time_s`, `low_w`, `high_w`, `mean_w` are (n,) float64: the middle of each bin in stream time and its values in
    `unit` ("W", or "A" where power is not known); NaN where samples are missing. A few thousand bins are plenty:
    the file grows by about 0.1 kB with each. `lines` are digital lines by name: the spans during which each was high.
    `name` is the stream's, where there are others beside it.
    `details` hold finer steps in the same unit, for a closer look: first of the whole, then of parts of it.
    """

    time_s: Floats
    low_w: Floats
    high_w: Floats
    mean_w: Floats
    unit: str = "W"
    lines: Mapping[str, Sequence[Span]] = field(default_factory=dict)
    details: Sequence[Steps] = ()
    name: str | None = None

    @property
    def quantity(self) -> str:
        return QUANTITIES.get(self.unit, "Signal")

    @property
    def bin_s(self) -> float | None:
        """The usual width of a bin, None for a single one."""
        return float(np.median(np.diff(self.time_s))) if len(self.time_s) > 1 else None

    @property
    def finest_s(self) -> float | None:
        """The finest step of the whole, None for a single one."""
        return self.details[0].step_s if self.details else self.bin_s

    @property
    def close_s(self) -> float | None:
        """The finest step there is of any part."""
        return min((detail.step_s for detail in self.details), default=self.bin_s)

    @property
    def seen(self) -> bool:
        """Whether there is any sample to draw."""
        return bool(np.isfinite(self.mean_w).any())


def merged(spans: Iterable[Span], most: int = MOST_SPANS) -> tuple[list[Span], float]:
    """Spans in order, and how close neighbours were joined, in seconds: 0 unless there are more than `most`."""
    ordered = sorted(spans)
    if len(ordered) <= most:
        return ordered, 0.0
    close_s = (max(stop for _, stop in ordered) - ordered[0][0]) / most
    joined = ordered[:1]
    for start, stop in ordered[1:]:
        if start - joined[-1][1] < close_s:
            joined[-1] = (joined[-1][0], max(stop, joined[-1][1]))
        else:
            joined.append((start, stop))
    return joined, close_s


def window_spans(windows: Sequence[Row]) -> list[Span]:
    return [(w["start_s"], w["stop_s"]) for w in windows if w["start_s"] is not None and w["stop_s"] is not None]


def waveform(wave: Waveform, windows: Sequence[Row], simulated: bool) -> Figure:
    """Low-to-high band with the mean in it, windows as shading, one lane below per digital line."""
    symbol, factor = _axis_unit(float(np.nanmax(np.abs(wave.high_w))), wave.unit)
    shaded, _ = merged(window_spans(windows))
    mean = {
        "x": _numbers(wave.time_s, 9),
        "y": _numbers(wave.mean_w / factor),
        "customdata": [
            [low, high, name]
            for low, high, name in zip(
                _numbers(wave.low_w / factor, 4),
                _numbers(wave.high_w / factor, 4),
                _names_at(wave.time_s, windows),
                strict=True,
            )
        ],
        "hovertemplate": f"%{{customdata[2]}}mean %{{y:.4~g}} {symbol}"
        f"<br>%{{customdata[0]}} to %{{customdata[1]}} {symbol}<extra></extra>",
        "mode": "lines",
        "line": {"shape": "hvh", "width": 1.4, "color": "var(--line)"},
        "yaxis": "y2",
    }
    traces = [
        _boxes(shaded, 0.0, 1.0, "var(--window)", "y"),
        _band(_borders(wave.time_s), wave.low_w / factor, wave.high_w / factor, "y2"),
        mean,
    ]
    lanes = list(wave.lines.items())
    for lane, (_, spans) in enumerate(lanes):
        traces.append(_boxes(merged(spans)[0], -lane - 0.32, -lane + 0.32, "var(--lane)", "y3"))
    bottom = LANE_PX * len(lanes) / (WAVE_PX + LANE_PX * len(lanes))
    layout = layout_of(simulated, WAVE_PX + LANE_PX * len(lanes)) | {
        "xaxis": axis("Time (s)") | {"anchor": "y3" if lanes else "y2", "range": _extent(wave)},
        "yaxis": _NO_AXIS | {"range": [0, 1], "domain": [bottom, 1]},
        "yaxis2": axis(f"{wave.quantity} ({symbol})")
        | {"overlaying": "y", "tickmode": "auto", "side": "left", "rangemode": "tozero"},
    }
    if lanes:
        layout["yaxis3"] = _NO_AXIS | {
            "domain": [0, max(bottom - 0.03, 0.01)],
            "range": [0.6 - len(lanes), 0.6],
            "showticklabels": True,
            "tickvals": [-lane for lane in range(len(lanes))],
            "ticktext": [plain(name, 14) + "\N{NO-BREAK SPACE}" * 2 for name, _ in lanes],
            "automargin": True,
        }
    figure = {"data": traces, "layout": layout, "close_up": _close_up(wave, windows)}
    return figure | ({"detail": _detail(wave, windows, factor)} if wave.details else {})


def _detail(wave: Waveform, windows: Sequence[Row], factor: float) -> Figure:
    """What report.js draws of when somebody zooms in: steps, the finest first, windows and lines one by one."""
    spans, _ = merged(window_spans(windows), MOST_NAMED)
    rows = _timed(windows) if len(spans) == len(window_spans(windows)) else []
    most = MOST_NAMED // max(len(wave.lines), 1)
    return {
        "steps": [steps.packed(factor) for steps in sorted(wave.details, key=lambda steps: steps.step_s)],
        "windows": _edges(spans),
        "names": [_told(row) for row in rows],
        "lanes": [_edges(merged(spans, most)[0]) for spans in wave.lines.values()],
        "most_spans": MOST_SPANS,
    }


def _edges(spans: Sequence[Span]) -> list[float | None]:
    """Start and stop of each in turn, in s, to the nanosecond."""
    return [round(edge, 9) for span in spans for edge in span]


def per_inference(windows: Sequence[Row], key: str) -> tuple[list[Row], Floats]:
    """The windows in which `key` ("energy_j" or "duration_s") is known, and its share per inference, (n,) float64."""
    known = [row for row in windows if row[key] is not None and row["inferences"]]
    return known, np.array([row[key] / row["inferences"] for row in known], dtype=np.float64)


def spread(
    known: Sequence[Row],
    values: Floats,
    unit: str,
    summary: Mapping[str, Any],
    what: str,
    simulated: bool,
    drift: float | None = None,
) -> Figure:
    """One value per window in order of time, and beside it, on the same axis, how often each value occurs.

    `values` is (n,) in the SI unit `unit`; `summary` is theirs in result.json; `drift` is how far they change from the
    first to the last, drawn as a line through the median.
    """
    symbol, factor = _axis_unit(float(np.abs(values).max()), unit)
    scaled = values / factor
    # Equal values still need an axis around them.
    slack = max(float(np.ptp(scaled)) * 0.06, abs(float(np.median(scaled))) * 1e-5) or 1.0
    low, high = float(scaled.min()) - slack, float(scaled.max()) + slack
    counts, edges = np.histogram(scaled, min(max(int(len(scaled) ** 0.5) + 1, 5), MOST_BINS), (low, high))
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": counts.tolist(),
        "y": _numbers((edges[:-1] + edges[1:]) / 2, 9),
        "width": float(edges[1] - edges[0]) * 0.94,
        "xaxis": "x2",
        "marker": {"color": "var(--band)", "line": {"width": 0}},
        "hovertemplate": f"%{{x}} windows near %{{y:.5~g}} {symbol}<extra></extra>",
    }
    marks = []
    if summary["ci95"] is not None:
        lo, hi = (bound / factor for bound in summary["ci95"])
        marks.append(_mark(lo, hi, {"type": "rect", "fillcolor": "var(--interval)", "line": {"width": 0}}))
    if summary["median"] is not None:
        at = summary["median"] / factor
        marks.append(_mark(at, at, {"type": "line", "line": {"color": "var(--accent)", "width": 1.2, "dash": "dot"}}))
    layout = layout_of(simulated, SPREAD_PX) | {
        "xaxis": axis("Window, in order") | {"domain": [0, 0.68], "nticks": 8},
        "xaxis2": axis("Number") | {"domain": [0.76, 1], "nticks": 4, "rangemode": "tozero"},
        "yaxis": axis(f"{what} ({symbol})") | {"range": [low, high]},
        "bargap": 0,
        "hovermode": "closest",
        "shapes": marks,
    }
    return {"data": [*_in_order(known, scaled, symbol), *_trend(known, summary, drift, factor), bars], "layout": layout}


def _trend(known: Sequence[Row], summary: Mapping[str, Any], drift: float | None, factor: float) -> list[Figure]:
    if drift is None or summary["median"] is None:
        return []
    ends = np.array([summary["median"] - drift / 2, summary["median"] + drift / 2]) / factor
    # Many windows are drawn by their place, few by their index.
    x = [0, len(known)] if len(known) > MOST_MARKERS else [known[0]["index"], known[-1]["index"]]
    return [
        _UNTOUCHED | {"x": x, "y": _numbers(ends, 9), "line": {"width": 2, "color": "var(--doubt)", "dash": "dash"}}
    ]


def life(battery: Mapping[str, Any], simulated: bool) -> Figure:
    """The rail of a battery against its age: highest and lowest in a cycle, and the level that the device needs."""
    ages = np.array(battery["curve"]["age_s"], dtype=np.float64)
    years = bool(ages[-1] > 2 * YEAR_S)
    age = _numbers(ages / (YEAR_S if years else DAY_S))
    lines = [
        _UNTOUCHED
        | {
            "x": age,
            "y": _numbers(np.array(battery["curve"][key], dtype=np.float64)),
            "line": {"width": 1.6, "color": color},
            "hoverinfo": "x+y",
            "name": name,
        }
        for key, color, name in (
            ("rail_max_v", "var(--muted)", "highest in a cycle"),
            ("rail_min_v", "var(--line)", "lowest in a cycle"),
        )
    ]
    needed = {"type": "line", "line": {"color": "var(--accent)", "width": 1.2, "dash": "dot"}}
    layout = layout_of(simulated, LIFE_PX) | {
        "xaxis": axis(f"Age ({'years' if years else 'days'})"),
        "yaxis": axis("Rail (V)"),
        "shapes": [] if battery["cutoff_v"] is None else [_mark(battery["cutoff_v"], battery["cutoff_v"], needed)],
    }
    return {"data": lines, "layout": layout}


def _in_order(known: Sequence[Row], scaled: Floats, symbol: str) -> list[Figure]:
    if len(known) > MOST_MARKERS:
        groups = np.array_split(scaled, MOST_MARKERS // 4)
        borders = np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.float64)
        lows, highs, means = (np.array([f(group) for group in groups]) for f in (np.min, np.max, np.mean))
        line = {
            "x": _numbers((borders[:-1] + borders[1:]) / 2),
            "y": _numbers(means),
            "line": {"width": 1.4, "color": "var(--line)"},
        }
        return [_band(borders, lows, highs, "y"), _UNTOUCHED | line]
    traces = []
    for doubtful, look in (
        (False, {"color": "var(--line)", "size": 6, "opacity": 0.85}),
        (True, {"color": "var(--doubt)", "size": 9, "symbol": "diamond-open", "line": {"width": 2}}),
    ):
        chosen = [at for at, row in enumerate(known) if bool(row["caveats"]) is doubtful]
        if chosen:
            traces.append(
                {
                    "mode": "markers",
                    "marker": look,
                    "x": [known[at]["index"] for at in chosen],
                    "y": _numbers(scaled[chosen], 9),
                    "text": [plain(f"{_name(known[at])} {words(known[at]['caveats'])}") for at in chosen],
                    "customdata": [list(_span(known[at])) for at in chosen],
                    "hovertemplate": f"%{{text}}<br>%{{y:.5~g}} {symbol}<extra></extra>",
                }
            )
    return traces


def words(caveats: Any) -> str:
    """The caveats of a row of windows.csv, which are one text there and a sequence in memory."""
    return caveats if isinstance(caveats, str) else ", ".join(map(str, caveats or ()))


def _name(row: Row) -> str:
    return f"window {row['index']} {row['label'] or ''}".strip()


def _timed(windows: Sequence[Row]) -> list[Row]:
    """The windows whose times are known, in order."""
    return sorted((row for row in windows if None not in (row["start_s"], row["stop_s"])), key=_span)


def _span(row: Row) -> Span:
    return row["start_s"], row["stop_s"]


def _told(row: Row) -> str:
    """A window and its energy as a line of a hover text."""
    return f"{plain(_name(row))}: {typeset(units.show(row['energy_j'], 'J'))}<br>"


def _names_at(time_s: Floats, windows: Sequence[Row]) -> list[str]:
    """For each bin the window that holds its middle, as a hover line of its own, or nothing."""
    rows = _timed(windows)
    if not rows:
        return [""] * len(time_s)
    at = np.searchsorted([row["start_s"] for row in rows], time_s, side="right") - 1
    held = [i >= 0 and t < rows[i]["stop_s"] for i, t in zip(at, time_s, strict=True)]
    return [_told(rows[i]) if inside else "" for i, inside in zip(at, held, strict=True)]


def telling(windows: Sequence[Row]) -> list[Span]:
    """Where people look first, with some air: the first three windows, the first, those of least and most energy."""
    rows = _timed(windows)
    if not rows:
        return []
    known = sorted((row for row in rows if row["energy_j"] is not None), key=lambda row: row["energy_j"])
    looked = [rows[:3], rows[:1], *([one] for one in (*known[:1], *known[1:][-1:]))]
    return [_airy(shown[0]["start_s"], max(row["stop_s"] for row in shown)) for shown in looked]


def _airy(start_s: float, stop_s: float) -> Span:
    # As much as report.js gives a window that somebody asks for.
    air_s = (stop_s - start_s) * 0.3
    return start_s - air_s, stop_s + air_s


def _close_up(wave: Waveform, windows: Sequence[Row]) -> list[float] | None:
    """Where the first windows are, None where the bins are too coarse to show them."""
    found = telling(windows)[:1]
    if not found or wave.close_s is None or found[0][1] - found[0][0] < FEWEST_BINS * wave.close_s:
        return None
    return list(found[0])


def _extent(wave: Waveform) -> list[float]:
    borders = _borders(wave.time_s)
    return [float(borders[0]), float(borders[-1])]


def _axis_unit(largest: float, unit: str) -> tuple[str, float]:
    """The prefixed unit in which `largest` reads best, and its factor."""
    symbol = typeset(units.show(largest, unit)).split()[1]
    return symbol, units.parse(f"1{symbol}", unit)


def _numbers(values: Floats, digits: int = 6) -> list[float | None]:
    """JSON numbers with that many significant digits, null where there is none."""
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]


def _borders(middles: Floats) -> Floats:
    """Borders of bins from their middles: (n,) -> (n + 1,)."""
    if len(middles) < 2:
        return np.concatenate([middles - 0.5, middles + 0.5])
    inner = (middles[:-1] + middles[1:]) / 2
    return np.concatenate([[2 * middles[0] - inner[0]], inner, [2 * middles[-1] - inner[-1]]])


def _band(borders: Floats, low: Floats, high: Floats, yaxis: str) -> Figure:
    """One closed outline per unbroken run of bins: plotly.js fills between two lines wrongly across holes."""
    good = np.flatnonzero(np.isfinite(low) & np.isfinite(high))
    runs = np.split(good, np.flatnonzero(np.diff(good) > 1) + 1)
    x: list[float | None] = []
    y: list[float | None] = []
    for run in runs if len(good) else []:
        edge = np.repeat(borders[run[0] : run[-1] + 2], 2)[1:-1]
        x += [*_numbers(np.concatenate([edge, edge[::-1]]), 9), None]
        y += [*_numbers(np.concatenate([np.repeat(high[run], 2), np.repeat(low[run], 2)[::-1]])), None]
    return _filled(x, y, "var(--band)", yaxis)


def _boxes(spans: Sequence[Span], bottom: float, top: float, color: str, yaxis: str) -> Figure:
    """All spans in one trace: thousands of plotly.js shapes would stall the page."""
    x = [edge for start, stop in spans for edge in (start, start, stop, stop, None)]
    return _filled(x, [bottom, top, top, bottom, None] * len(spans), color, yaxis)


def _filled(x: list[float | None], y: list[float | None], color: str, yaxis: str) -> Figure:
    look = {"fill": "toself", "fillcolor": color, "line": {"width": 0.6, "color": color}}
    return _UNTOUCHED | look | {"x": x, "y": y, "yaxis": yaxis}


def _mark(low: float, high: float, look: Figure) -> Figure:
    return {"xref": "paper", "x0": 0, "x1": 1, "yref": "y", "y0": low, "y1": high, "layer": "below"} | look


def axis(title: str) -> Figure:
    return {
        "title": {"text": title, "standoff": 10},
        "gridcolor": "var(--grid)",
        "linecolor": "var(--grid)",
        "zeroline": False,
        "automargin": True,
    }


def layout_of(simulated: bool, height: int) -> Figure:
    layout: Figure = {
        "height": height + 80,
        "margin": {"l": 8, "r": 8, "t": 36, "b": 8},
        "paper_bgcolor": "var(--paper)",
        "plot_bgcolor": "var(--paper)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--muted)"},
        "hoverlabel": {"bgcolor": "var(--paper)", "bordercolor": "var(--line)", "font": {"color": "var(--ink)"}},
        "showlegend": False,
        "hovermode": "x",
        "uirevision": "kept",
    }
    if simulated:
        words = {"text": "<b>SIMULATED</b>", "font": {"size": 14, "color": "var(--simulated)"}}
        layout["title"] = words | {
            "x": 0,
            "xref": "paper",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 8},
        }
    return layout
