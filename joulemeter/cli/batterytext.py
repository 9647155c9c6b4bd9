"""A projected battery life as text for a terminal of 80 columns, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator

from joulemeter.capture import Basis
from joulemeter.caveat import Severity
from joulemeter.cli.common import plain, wrap
from joulemeter.cli.text import SIMULATED
from joulemeter.lifetime import Projection
from joulemeter.units import show, show_duration

MOST_SENSITIVITIES = 5


def as_json(found: Projection) -> str:
    content = {**dataclasses.asdict(found.summary()), "caveats": plain(found.caveats)}
    return json.dumps(content, indent=2, allow_nan=False)


def render(found: Projection) -> str:
    lines = [SIMULATED, ""] if found.basis is Basis.SIMULATED else []
    lines.append(f"{found.cell.name} ({found.cell.chemistry}, {show(found.cell.capacity_c / 3600, 'Ah')})")
    for label, text in _rows(found):
        lines += wrap(text, " " * 25, f"  {label:22} ")
    lines += _what_if(found)
    for severity, heading in ((Severity.INVALID, "INVALID"), (Severity.DOUBT, "doubt"), (Severity.NOTE, "note")):
        told = [caveat for caveat in found.caveats if caveat.severity is severity]
        lines += [""] if told else []
        for caveat in told:
            lines += wrap(f"{heading}: {caveat.text}", "  ")
    return "\n".join(lines)


def _rows(found: Projection) -> Iterator[tuple[str, str]]:
    life, spread = found.life, found.spread
    if life.life_s is None:
        yield "life", "refused, see below"
    else:
        yield "life", show_duration(life.life_s)
        if spread.p5_s is not None:
            yield "of 90 % of cells", f"{show_duration(spread.p5_s)} to {show_duration(spread.p95_s or 0.0)}"
    yield "ends by", found.cause()
    if len(spread.causes) > 1:
        shares = sorted(spread.causes.items(), key=lambda one: -one[1])
        yield "", ", ".join(f"{cause} {share:.0%}" for cause, share in shares)
    yield "others would say", f"{show_duration(life.naive_life_s)} (charge over mean current)"
    if life.cycles is not None and life.life_s:
        yield "inferences", f"{life.cycles:,.0f}"
    peak = show(life.peak_current_a, "A", 3)
    rest = f", at rest {show(found.load.rest_a, 'A', 3)}" if found.load.rest_a is not None else ""
    yield "current", f"mean {show(life.mean_current_a, 'A', 3)}, peak {peak}{rest}"
    ends = "" if life.life_s is None else f", {life.rail_end_v:.2f} V at the end"
    yield "lowest rail", f"{life.rail_fresh_v:.2f} V fresh{ends}; {life.cutoff_v:.2f} V needed"
    if life.life_s is not None:
        left = life.charge_left_c / found.cell.capacity_c
        yield "charge left behind", f"{show(life.charge_left_c / 3600, 'Ah', 3)} ({left:.0%})"
    yield "rests on", f"grade {life.worst_grade} (A is the maker's own text, D fitted or derived)"
    if found.harvest is not None:
        yield from _harvest(found)


def _harvest(found: Projection) -> Iterator[tuple[str, str]]:
    harvest = found.harvest
    if harvest is None:
        return
    usable, load = show(harvest.usable_w, "W", 3), show(harvest.load_w, "W", 3)
    if harvest.sustained:
        yield "harvest", f"{usable} covers the {load} of the load: only the cell's age ends it"
    elif harvest.life_s is not None:
        yield "harvest", f"{usable} of {load}: {show_duration(harvest.life_s)}"
    if harvest.autonomy_s is not None:
        yield "without any", show_duration(harvest.autonomy_s)


def _what_if(found: Projection) -> list[str]:
    lines: list[str] = []
    if found.periods:
        lines += ["", f"  {'one inference each':22} life"]
        for every_s, life in found.periods:
            if life is None:
                text = "does not fit"
            elif life.life_s is None:
                text = "refused"
            else:
                text = f"{show_duration(life.life_s):14} {life.cause}"
            lines.append(f"  {show_duration(every_s):22} {text}")
    wanted = found.question.wanted_s
    if wanted is not None and found.load.every_s is not None:
        needed = "no period does" if found.period_for_s is None else f"one each {show_duration(found.period_for_s)}"
        lines += ["", *wrap(needed, " " * 25, f"  {f'for {show_duration(wanted)}':22} ")]
    if found.saving_farad is not None:
        lines += wrap(f"{show(found.saving_farad, 'F', 2)} across the cell", " " * 25, f"  {'a capacitor of':22} ")
    if found.sensitivities:
        lines += ["", f"  {'a tenth less or more of':24} life"]
        for one in found.sensitivities[:MOST_SENSITIVITIES]:
            span = f"{show_duration(one.life_low_s)} or {show_duration(one.life_high_s)}"
            lines.append(f"  {one.name:24} {span}{' (10 K)' if one.elasticity is None else ''}")
    return lines
