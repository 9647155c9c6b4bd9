"""A comparison for a terminal of 80 columns, as Markdown, CSV and JSON; what comes from files is text in all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from joulemeter.cli import inert as harmless
from joulemeter.cli.common import width, wrap
from joulemeter.cli.text import SIMULATED
from joulemeter.comparison.amounts import (
    ABOVE_IDLE,
    EDP,
    ENERGY,
    LATENCY,
    LIFE,
    MEAN_POWER,
    NET,
    PER_JOULE,
    POWER,
    QUANTITIES,
    TOTAL,
    Amount,
)
from joulemeter.comparison.doubts import scope_name
from joulemeter.comparison.entry import Entry, Origin
from joulemeter.comparison.table import Group, Placed, Table
from joulemeter.comparison.words import (
    RESTS,
    SECTIONS,
    energy,
    interval,
    per,
    rank,
    ratio,
    shown,
    standing,
    verdict,
)

SCHEMA = "joulemeter.compare/1"
UNSAID = "?"
# A sentence each is for few; the table tells the ranks of all.
MOST_STANDING = 5
_EXPLAINED = (
    "inf/J is also inferences per second per watt, total; > idle is the same of the energy above idle; EDP is energy "
    "times latency; power is the mean while inferring; ? is unknown."
)

inert = harmless.plain

# -- terminal ----------------------------------------------------------------------------------------------------------

# heading, columns, how it is filled; the name takes what is left
_COLUMNS: tuple[tuple[str, int, Callable[[Placed], str]], ...] = (
    ("energy", 8, lambda one: energy(one.entry)),
    ("latency", 7, lambda one: shown(LATENCY, one.entry.amount(LATENCY).value)),
    ("inf/J", 6, lambda one: shown(PER_JOULE, one.entry.amount(PER_JOULE).value)),
    ("> idle", 6, lambda one: shown(ABOVE_IDLE, one.entry.amount(ABOVE_IDLE).value)),
    ("EDP", 8, lambda one: shown(EDP, one.entry.amount(EDP).value)),
    ("power", 7, lambda one: shown(POWER, one.entry.amount(POWER).value)),
)
_RANK, _NAME, _HELD = 7, 23, 25


def render(table: Table, left_out: Sequence[str], rows: int, cell: str | None = None) -> str:
    lines = [SIMULATED, ""] if table.simulated else []
    # Beside results, tables that hold none of them are for the files.
    ours = [group for group in table.groups if group.of(Origin.MEASURED, Origin.SIMULATED)]
    for group in ours or table.groups:
        lines += [*_group(group, table.sort, rows, cell), ""]
    others = [group for group in table.groups if ours and group not in ours]
    if others:
        named = ", ".join(inert(group.title) for group in others[:MOST_STANDING])
        more = f" and {len(others) - MOST_STANDING} more" if len(others) > MOST_STANDING else ""
        lines += wrap(f"Tables without a result: {named}{more}. --csv, --markdown and --html have them.", "", "")
    lines += wrap(_EXPLAINED, "", "")
    for text in left_out:
        lines += wrap(inert(text), "", "")
    return "\n".join(short for line in lines for short in _short(line))


def _short(line: str) -> Iterator[str]:
    """A word longer than a line, such as a name from a file, goes on in the next."""
    while (first := harmless.first(line, width() - 1)) != line:
        yield first
        line = line[len(first) :]
    yield line


def _group(group: Group, sort: str, rows: int, cell: str | None) -> list[str]:
    starred = any(one.on_front for one in group.placed) and len(group.placed) > 1
    star = "; * lies on the Pareto front of energy and latency" if starred else ""
    lines = wrap(f"{inert(group.title)}{per(group)}", "", "")
    lines += wrap(f"Ranked by {QUANTITIES[sort].label}; what is not resolved shares ranks{star}.", "  ", "  ")
    heading = "".join(f" {name:>{columns}}" for name, columns, _ in _COLUMNS)
    space = width() - 1 - _RANK - 1 - len(heading)
    for origin, title in SECTIONS.items():
        placed = group.of(origin)
        if placed:
            lines += ["", *wrap(title, "  "), f"{'rank':>{_RANK}} {'name':{space}}{heading}"]
            lines += _lines(placed, group, rows, space)
    ours = group.of(Origin.MEASURED, Origin.SIMULATED)
    lines += _intervals(ours, rows)
    lines += _lives(ours, rows, cell) if ours and cell else []
    lines += _against(group, rows)
    told = list(standing(group, sort))
    if told:
        lines += ["", "  Among the published"]
        lines += [line for text in told[:MOST_STANDING] for line in wrap(inert(text), "    ", "  ")]
        lines += _more(len(told) - MOST_STANDING)
    lines += [""] if group.doubts else []
    for doubt in group.doubts:
        lines += wrap(inert(doubt.text), "    ", f"  doubt ({doubt.code}): ")
    return lines


def _more(count: int) -> list[str]:
    return [f"  ... and {count} more; --csv, --markdown and --html have all"] if count > 0 else []


def _lines(placed: Sequence[Placed], group: Group, rows: int, space: int) -> Iterator[str]:
    """Rows of a section; of a long one the best, and those next to our own."""
    kept = group.telling(placed, rows)
    skipped = 0
    for at, one in enumerate(placed):
        if at not in kept:
            skipped += 1
            continue
        if skipped:
            yield f"{'...':>{_RANK}} {skipped} more"
        skipped = 0
        place = f"{rank(one.rank)}{'*' if one.on_front else ''}"
        cells = "".join(
            f" {text if text != 'unknown' else UNSAID:>{columns}}"
            for columns, text in ((columns, fill(one)) for _, columns, fill in _COLUMNS)
        )
        yield f"{place:>{_RANK}} {_name(one.entry, space)}{cells}"
    if skipped:
        yield f"{'...':>{_RANK}} {skipped} more; --rows, --csv, --markdown and --html have all"


def _intervals(ours: Sequence[Placed], rows: int) -> Iterator[str]:
    """Energies with their intervals, those that hold the same together."""
    for rests in dict.fromkeys(one.entry.amount(ENERGY).rests for one in ours):
        there = [one.entry for one in ours if one.entry.amount(ENERGY).rests is rests]
        yield ""
        yield f"  {f'95 %, {RESTS[rests]}':{_NAME}} {'energy per inference':{_HELD}} above idle"
        for entry in there[:rows]:
            whole, net = (_held(entry.amount(name), name) for name in (ENERGY, NET))
            yield from wrap(net, " " * (_NAME + _HELD + 4), f"  {_name(entry, _NAME)} {whole:{_HELD}} ")
        yield from _more(len(there) - rows)


def _held(amount: Amount, name: str) -> str:
    if amount.value is None:
        return "unknown"
    value, ends = shown(name, amount.value, 4), interval(amount, name)
    number, space, unit = value.partition(" ")
    if space and ends.endswith(f" {unit}") and ends.count(" ") == 3:
        return f"{number} ({ends.removesuffix(f' {unit}')}) {unit}"
    return f"{value} ({ends})" if ends else value


def _name(entry: Entry, columns: int) -> str:
    """What tells results from each other is often at their end."""
    return harmless.fitted(entry.name, columns, tail=entry.origin.ours)


def _lives(ours: Sequence[Placed], rows: int, cell: str) -> Iterator[str]:
    known = [one.entry for one in ours if one.entry.amount(LIFE).value is not None]
    yield ""
    if known:
        yield f"  {f'life on {inert(cell)}':{_NAME}} and that of 90 % of cells"
    for entry in known[:rows]:
        amount = entry.amount(LIFE)
        text = f"{shown(LIFE, amount.value)} ({interval(amount, LIFE)})"
        yield from wrap(text, " " * (_NAME + 3), f"  {_name(entry, _NAME)} ")
    yield from _more(len(known) - rows)
    why: dict[str, list[str]] = {}
    for one in ours:
        if one.entry.amount(LIFE).value is None:
            why.setdefault(one.entry.amount(LIFE).reason or "Nobody says why.", []).append(one.entry.name)
    for reason, names in why.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        text = f"Life on {cell} is unknown of {names[0]}{more}: {reason}"
        yield from wrap(inert(text), "    ", "  ")


def _against(group: Group, rows: int) -> Iterator[str]:
    """Ratios of the results to the first of them."""
    others = [one for one in group.of(Origin.MEASURED, Origin.SIMULATED) if one.against is not None]
    if group.reference is None or not others:
        return
    yield ""
    yield from wrap(f"Energy per inference over that of {inert(group.reference.name)}:", "    ", "  ")
    for one in others[:rows]:
        if one.against is not None:
            times, held = ratio(one.against)
            first = f"  {_name(one.entry, 20)} {times:>9} {held:20} "
            yield from wrap(verdict(one.against, one.entry), " " * len(first), first)
    yield from _more(len(others) - rows)
    if any(one.against is not None and one.against.same_meter for one in others):
        yield from wrap("Gain cancels: one meter in the same ranges erred alike in both.", "  ", "  ")


# -- Markdown ----------------------------------------------------------------------------------------------------------


def as_markdown(table: Table, left_out: Sequence[str]) -> str:
    lines = ["## Energy per inference, compared", ""]
    lines += [f"**{SIMULATED}**", ""] if table.simulated else []
    for group in table.groups:
        lines += [f"### {harmless.markdown(group.title)}{per(group)}", ""]
        lines += [f"Ranked by {QUANTITIES[table.sort].label}; what is not resolved shares ranks. \\* Pareto front.", ""]
        for origin, title in SECTIONS.items():
            placed = group.of(origin)
            lines += [f"**{title}**", "", *_markdown_table(placed, origin), ""] if placed else []
        told = [harmless.markdown(text) for text in standing(group, table.sort)]
        lines += [*(f"- {text}" for text in told), ""] if told else []
        lines += _markdown_against(group)
        lines += [f"- doubt `{doubt.code}`: {harmless.markdown(doubt.text)}" for doubt in group.doubts]
        lines += [""]
    lines += [f"{text}\n" for text in left_out]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_table(placed: Sequence[Placed], origin: Origin) -> Iterator[str]:
    names = [PER_JOULE, TOTAL, ABOVE_IDLE, NET, EDP, POWER, MEAN_POWER, LIFE]
    names = [name for name in names if any(one.entry.amount(name).value is not None for one in placed)]
    heads = ["rank", "name", "energy", *(["95 %"] if origin.ours else []), "latency"]
    heads += [QUANTITIES[name].label for name in names] + ["covers", "source"]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for one in placed:
        entry = one.entry
        held = interval(entry.amount(ENERGY), ENERGY)
        cells = [
            rank(one.rank) + (r"\*" if one.on_front else ""),
            harmless.markdown(entry.name),
            energy(entry, 4),
        ]
        cells += [f"{held} ({RESTS[entry.amount(ENERGY).rests]})" if held else "unknown"] if origin.ours else []
        cells += [_spanned(entry, name) for name in (LATENCY, *names)]
        cells += [harmless.markdown(scope_name(entry.scope) if entry.scope else "unknown")]
        cells += [f"{harmless.markdown(entry.source)}{'' if origin.ours else f' ({entry.basis})'}"]
        yield f"| {' | '.join(cells)} |"


def _spanned(entry: Entry, name: str) -> str:
    """An amount, a life with that of 90 % of cells."""
    amount = entry.amount(name)
    ends = interval(amount, name) if name == LIFE else ""
    return shown(name, amount.value, 4) + (f" ({ends})" if ends else "")


def _markdown_against(group: Group) -> list[str]:
    others = [one for one in group.of(Origin.MEASURED, Origin.SIMULATED) if one.against is not None]
    if group.reference is None or not others:
        return []
    lines = [f"| energy over that of {harmless.markdown(group.reference.name)} | ratio | 95 % | |", "|---|---|---|---|"]
    for one in others:
        if one.against is not None:
            times, held = ratio(one.against)
            lines.append(
                f"| {harmless.markdown(one.entry.name)} | {times} | {held} | {verdict(one.against, one.entry)} |"
            )
    return [*lines, ""]


# -- CSV ---------------------------------------------------------------------------------------------------------------


def as_csv(table: Table) -> str:
    """One line for each entry of each group, SI units, full precision; what is not known is an empty cell."""
    rows = [_flat(one, group, table.sort) for group in table.groups for origin in SECTIONS for one in group.of(origin)]
    text = io.StringIO()
    written = csv.DictWriter(text, list(rows[0]) if rows else ["group"], lineterminator="\r\n")
    written.writeheader()
    written.writerows(rows)
    return text.getvalue()


def _flat(one: Placed, group: Group, sort: str) -> dict[str, str]:
    content = _plain(one, sort)
    amounts: dict[str, dict[str, Any]] = content.pop("amounts")
    against: dict[str, Any] = content.pop("energy_over_reference") or {}
    flat: dict[str, Any] = {"group": group.key, **content}
    for name, amount in amounts.items():
        stem, _, unit = name.rpartition("_")
        suffix = f"_{unit}" if unit in ("j", "s", "w", "js") else ""
        stem = stem if suffix else name
        flat |= {
            f"{stem}{suffix}": amount["value"],
            f"{stem}_low{suffix}": amount["low"],
            f"{stem}_high{suffix}": amount["high"],
            f"{stem}_interval": amount["rests"],
        }
    names = ("ratio", "low", "high", "resolved", "ground", "same_meter")
    flat |= {f"energy_over_reference_{name}": against.get(name) for name in names}
    flat["reference"] = group.reference.name if group.reference is not None and against else None
    flat["doubts"] = " ".join(dict.fromkeys(str(doubt.code) for doubt in group.doubts))
    return {name: _cell(value) for name, value in flat.items()}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return harmless.cell(" ".join(map(str, value)))
    return harmless.cell(value)


# -- JSON --------------------------------------------------------------------------------------------------------------


def as_json(table: Table, left_out: Sequence[str]) -> str:
    content = {
        "schema": SCHEMA,
        "sort": table.sort,
        "simulated": table.simulated,
        "groups": [
            {
                "group": group.key,
                "title": group.title,
                "per": group.per,
                "reference": None if group.reference is None else group.reference.name,
                "entries": [_plain(one, table.sort) for one in group.placed],
                "doubts": [{"code": str(doubt.code), "text": doubt.text} for doubt in group.doubts],
            }
            for group in table.groups
        ],
        "left_out": list(left_out),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _plain(one: Placed, sort: str) -> dict[str, Any]:
    """An entry in plain types; lists and mappings only where their name says so."""
    entry, found, pair = one.entry, one.rank, one.against
    return {
        "origin": str(entry.origin),
        "basis": str(entry.basis),
        "simulated": entry.simulated,
        "name": entry.name,
        "ranked_by": sort,
        "rank": None if found is None else found.first,
        "rank_last": None if found is None else found.last,
        "ranked": None if found is None else found.of,
        "pareto_front": one.on_front,
        "guest": one.guest,
        "device": entry.device,
        "device_class": entry.device_class,
        "work": None if entry.work is None else entry.work.key,
        "task": None if entry.work is None else entry.work.task,
        "model": entry.model,
        "runtime": entry.runtime,
        "precision": entry.precision,
        "batch": entry.batch,
        "per": entry.per,
        "scope": entry.scope,
        "boundary": entry.boundary,
        "supply_v": entry.supply_v,
        "meter": entry.meter,
        "meter_serial": entry.serial,
        "energy_upper_bound_j": entry.energy_max_j,
        "amounts": {name: _amount(entry.amount(name)) for name in QUANTITIES},
        "energy_over_reference": None
        if pair is None
        else {**asdict(pair), "ground": str(pair.ground), "resolved": pair.resolved, "cancelled": list(pair.cancelled)},
        "troubles": list(entry.troubles),
        "published_row": None if entry.published is None else entry.published.name,
        "source": entry.source,
    }


def _amount(amount: Amount) -> dict[str, Any]:
    return {
        "value": amount.value,
        "low": amount.low,
        "high": amount.high,
        "rests": str(amount.rests) if amount.low is not None or amount.high is not None else None,
        "reason": amount.reason if amount.value is None else None,
    }
