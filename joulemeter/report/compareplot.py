"""A comparison as a picture: bars with their intervals, and energy against latency with lines of equal power."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joulemeter.comparison.amounts import ENERGY, LATENCY, LIFE, PER_JOULE, QUANTITIES, TOTAL, Amount
from joulemeter.comparison.entry import Entry, Origin
from joulemeter.comparison.table import Group, Placed, Table
from joulemeter.errors import AccessError
from joulemeter.report.text import visible
from joulemeter.units import show, show_duration

FORMATS = (".png", ".svg", ".pdf")
# More tables than this in one picture nobody reads, nor more bars in one table.
MOST_GROUPS, MOST_BARS = 6, 40
NAME_LETTERS, LABEL_LETTERS, MOST_LABELS = 46, 30, 12
# Values that lie closer together than this are drawn from zero on.
LINEAR_SPAN = 12.0

# What a bound of the energy bounds.
OF_ENERGY = (ENERGY, PER_JOULE, TOTAL)

# (face, edge, hatch, marker) of each kind; none is told by its colour alone
LOOKS: dict[Origin, tuple[str, str, str, str]] = {
    Origin.MEASURED: ("#0b5cad", "#0b5cad", "", "o"),
    Origin.SIMULATED: ("#f6c7c3", "#b3261e", "//", "X"),
    Origin.PUBLISHED: ("#b4bcc6", "#87919c", "", "s"),
    Origin.BOUND: ("none", "#87919c", "..", "v"),
}
KINDS = {
    Origin.MEASURED: "measured",
    Origin.SIMULATED: "SIMULATED",
    Origin.PUBLISHED: "published by others",
    Origin.BOUND: "upper bound of the energy, by others",
}


def draw(table: Table, path: Path) -> int:
    """Write the picture, in one of FORMATS; how many tables had no room. Raises AccessError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    drawn = [group for group in table.groups if any(known(one, table.sort) for one in group.placed)] or list(
        table.groups[:1]
    )
    chosen = drawn[:MOST_GROUPS]
    heights = [max(3.9, 1.5 + 0.21 * len(bars(group, table.sort))) for group in chosen]
    # Names come from files: they are no formulas, and a font may lack their letters.
    with matplotlib.rc_context({"text.parse_math": False, "font.size": 8}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure, axes = pyplot.subplots(
            len(chosen),
            2,
            figsize=(13.5, sum(heights)),
            squeeze=False,
            gridspec_kw={"height_ratios": heights},
            layout="constrained",
        )
        try:
            for (left, right), group in zip(axes, chosen, strict=True):
                _bars(left, group, table.sort)
                _plane(right, group)
            if table.simulated:
                figure.suptitle(
                    "SIMULATED: what is marked so says nothing about real hardware", color="#b3261e", fontsize=11
                )
            figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
        except OSError as error:
            raise AccessError(f"{path} cannot be written ({error.strerror}).", "Choose another place.") from error
        finally:
            pyplot.close(figure)
    return len(drawn) - len(chosen)


def known(placed: Placed, sort: str) -> bool:
    """Whether it has a bar."""
    return amount(placed.entry, sort) is not None


def amount(entry: Entry, sort: str) -> Amount | None:
    """What a bar shows: the quantity, or what the upper bound of the energy makes of it; None: nothing."""
    if entry.origin is Origin.BOUND and entry.energy_max_j is not None and sort in OF_ENERGY:
        return Amount(value=entry.energy_max_j if sort == ENERGY else 1 / entry.energy_max_j)
    found = entry.amount(sort)
    return found if found.comparable else None


def bars(group: Group, sort: str, most: int = MOST_BARS) -> list[Placed]:
    """The lines that get a bar, the best first; of many the results, their neighbours and the best."""
    there = [one for one in group.placed if known(one, sort)]
    kept = group.telling(there, most)
    return [one for at, one in enumerate(there) if at in kept]


def title(group: Group) -> str:
    return one_line(group.title, 90) + ("" if group.per == "inference" else f", per {group.per}")


def one_line(text: object, most: int, *, tail: bool = False) -> str:
    """`text` in at most so many letters; with `tail` what is too long loses its middle."""
    whole = " ".join(visible(text).split())
    if len(whole) <= most:
        return whole
    end = (most - 1) * 2 // 3 if tail else 0
    return f"{whole[: most - 1 - end]}…{whole[len(whole) - end :]}"


def name(entry: Entry, most: int) -> str:
    """The name of a line; what is simulated says so. Results often differ at the end of their names."""
    mark = "SIMULATED " if entry.simulated else ""
    return mark + one_line(entry.name, most - len(mark), tail=entry.origin.ours)


def in_words(value: float, unit: str) -> str:
    """A tick: a round value with its unit."""
    symbol, ratio = (unit, "") if unit in ("J", "W", "s", "Js") else ("", unit.removeprefix("1"))
    return re.sub(r"\.0+(?!\d)", "", show(value, symbol, 3)).strip().replace(" ", "\N{NO-BREAK SPACE}") + ratio


def isopowers(energies: Sequence[float], latencies: Sequence[float]) -> list[float]:
    """Powers in W, decade by decade, whose lines cross the points."""
    powers = [energy / latency for energy, latency in zip(energies, latencies, strict=True)]
    low, high = math.floor(math.log10(min(powers))), math.ceil(math.log10(max(powers)))
    return [10.0**exponent for exponent in range(low, high + 1)]


def front_of(group: Group) -> list[Placed]:
    """The Pareto front of what is real and of the group's own model, by latency; else of all."""
    ahead = [one for one in group.placed if one.on_front and one.entry.origin is not Origin.BOUND]
    real = [one for one in ahead if not one.entry.simulated and not one.guest]
    return sorted(real or ahead, key=lambda one: one.entry.amount(LATENCY).value or 0.0)


# -- bars --------------------------------------------------------------------------------------------------------------


def _bars(axes: Any, group: Group, sort: str) -> None:
    quantity = QUANTITIES[sort]
    shown = bars(group, sort)
    axes.set_title(title(group), loc="left", fontsize=10)
    if not shown:
        axes.text(0.5, 0.5, f"{quantity.label}: unknown", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    amounts = [found for one in shown if (found := amount(one.entry, sort)) is not None]
    ends = [end for found in amounts for end in (found.value, found.low, found.high) if end is not None and end > 0]
    low, high = min(ends), max(ends)
    logarithmic = high / low > LINEAR_SPAN
    base = low / 2 if logarithmic else 0.0
    if logarithmic:
        axes.set_xscale("log")
    for at, (one, found) in enumerate(zip(shown, amounts, strict=True)):
        face, edge, hatch, _ = LOOKS[one.entry.origin]
        value = found.value or 0.0
        axes.barh(at, value - base, left=base, height=0.74, facecolor=face, edgecolor=edge, hatch=hatch, linewidth=0.7)
        if found.low is not None and found.high is not None and found.low > 0:
            reach = [[max(value - found.low, 0.0)], [max(found.high - value, 0.0)]]
            axes.errorbar(value, at, xerr=reach, fmt="none", ecolor="#15202b", capsize=2.5, linewidth=1)
        if one.entry.origin is Origin.BOUND and sort in OF_ENERGY:
            arrow = "≤" if sort == ENERGY else "≥"
            axes.annotate(arrow, (value, at), (3, 0), textcoords="offset points", va="center", color=edge)
    axes.set_xlim(base, high * (1.6 if logarithmic else 1.08))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_yticks(range(len(shown)), [name(one.entry, NAME_LETTERS) for one in shown], fontsize=7)
    for label, one in zip(axes.get_yticklabels(), shown, strict=True):
        label.set_color("#15202b" if one.entry.origin.ours else "#5a6672")
        label.set_fontweight("bold" if one.entry.origin.ours else "normal")
    _ticks(axes.xaxis, quantity.unit, sort)
    better = "longer" if quantity.more else "shorter"
    axes.set_xlabel(f"{quantity.label} ({better} is better; whiskers: 95 % where known)")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    # Where bars are short: the best have the longest, or the shortest.
    place = "lower right" if quantity.more else "upper right"
    _legend(axes, [one.entry.origin for one in shown], markers=False, place=place)


def _ticks(axis: Any, unit: str, quantity: str = "") -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    def text(value: float, _: int) -> str:
        return show_duration(value) if quantity == LIFE else in_words(value, unit) if value else "0"

    axis.set_major_formatter(FuncFormatter(text))
    axis.set_minor_formatter(NullFormatter())


# -- energy against latency --------------------------------------------------------------------------------------------


def _plane(axes: Any, group: Group) -> None:
    placed = [one for one in group.placed if one.on_front is not None]
    if not placed:
        axes.text(0.5, 0.5, "energy or latency: unknown", ha="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    energies = [one.entry.amount(ENERGY).value or 0.0 for one in placed]
    latencies = [one.entry.amount(LATENCY).value or 0.0 for one in placed]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(min(latencies) / 2.5, max(latencies) * 2.5)
    axes.set_ylim(min(energies) / 2.5, max(energies) * 2.5)
    _isopowers(axes, energies, latencies)
    front = front_of(group)
    points = [((one.entry.amount(LATENCY).value or 0.0), (one.entry.amount(ENERGY).value or 0.0)) for one in front]
    if len(points) > 1:
        axes.plot(*zip(*points, strict=True), color="#2f8f83", linewidth=1.4, zorder=2, label="Pareto front")
    for one, energy, latency in zip(placed, energies, latencies, strict=True):
        face, edge, _, marker = LOOKS[one.entry.origin]
        ours = one.entry.origin.ours
        _whiskers(axes, one.entry, edge)
        axes.plot(
            [latency],
            [energy],
            linestyle="none",
            marker=marker,
            markersize=7 if ours else 5,
            markerfacecolor=face,
            markeredgecolor="#2f8f83" if one.on_front else edge,
            markeredgewidth=1.3 if one.on_front else 0.7,
            zorder=4 if ours else 3,
        )
    named = list(dict.fromkeys([*front, *(one for one in placed if one.entry.origin.ours)]))
    middle = math.sqrt(min(latencies) * max(latencies))
    for turn, one in enumerate(named[:MOST_LABELS]):
        point = one.entry.amount(LATENCY).value or 0.0, one.entry.amount(ENERGY).value or 0.0
        left = point[0] > middle
        axes.annotate(
            name(one.entry, LABEL_LETTERS),
            point,
            (-6 if left else 6, 6 if turn % 2 else -9),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize=6.5,
            color="#15202b" if one.entry.origin.ours else "#5a6672",
            zorder=5,
        )
    _ticks(axes.xaxis, "s")
    _ticks(axes.yaxis, "J")
    axes.set_xlabel("latency (dashed: lines of equal power)")
    axes.set_ylabel("energy per " + group.per)
    axes.grid(alpha=0.2)
    _legend(axes, [one.entry.origin for one in placed], markers=True, front=len(points) > 1)


def _isopowers(axes: Any, energies: Sequence[float], latencies: Sequence[float]) -> None:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    for power in isopowers(energies, latencies):
        start, stop = max(left, bottom / power), min(right, top / power)
        if start >= stop:
            continue
        axes.plot([start, stop], [power * start, power * stop], "--", color="#9aa7b4", linewidth=0.6, zorder=1)
        axes.annotate(
            in_words(power, "W"),
            (stop, power * stop),
            (-2, -2),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=6.5,
            color="#7a8794",
        )


def _whiskers(axes: Any, entry: Entry, color: str) -> None:
    energy, latency = entry.amount(ENERGY), entry.amount(LATENCY)
    if energy.low is not None and energy.high is not None and energy.low > 0:
        axes.plot([latency.value, latency.value], [energy.low, energy.high], color=color, linewidth=1, zorder=2)
    if latency.low is not None and latency.high is not None and latency.low > 0:
        axes.plot([latency.low, latency.high], [energy.value, energy.value], color=color, linewidth=1, zorder=2)


def _legend(
    axes: Any, origins: Sequence[Origin], *, markers: bool, front: bool = False, place: str = "lower right"
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for origin in (one for one in Origin if one in origins):
        face, edge, hatch, marker = LOOKS[origin]
        if markers:
            handles.append(
                Line2D([], [], linestyle="none", marker=marker, color=edge, markerfacecolor=face, label=KINDS[origin])
            )
        else:
            handles.append(Patch(facecolor=face, edgecolor=edge, hatch=hatch, label=KINDS[origin]))
    if front:
        handles.append(Line2D([], [], color="#2f8f83", label="Pareto front"))
    axes.legend(handles=handles, fontsize=7, loc=place, framealpha=0.9)
