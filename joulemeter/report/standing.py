"""A result among what others published, for its report: nothing is laid beside it that it may not be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from joulemeter.comparison import Table, choose, compare, of_result, of_row, work
from joulemeter.comparison.amounts import LATENCY, PER_JOULE
from joulemeter.errors import UsageError
from joulemeter.physics.rules import Measured
from joulemeter.profile import Scope
from joulemeter.result import Result

NONE = "none"
TINY = "mlperf-tiny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which rows: patterns as `choose` reads them; None: what is certain to be alike. `model` ran, `scope` was seen."""

    patterns: tuple[str, ...] | None = None
    model: str | None = None
    scope: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The groups that hold the result, and what of the chosen rows is not shown, as sentences."""

    table: Table
    left_out: tuple[str, ...] = ()


def asked(published: Sequence[str] | None, model: str | None = None, scope: str | None = None) -> Asked:
    """What the user says. Raises UsageError for a scope that there is not, and for what belongs to rows without any."""
    if scope is not None and scope not in get_args(Scope):
        raise UsageError(f"{scope!r} is nothing that a meter covers.", f"Choose one of: {', '.join(get_args(Scope))}.")
    if (model or scope) and not published:
        raise UsageError(
            "--model and --scope are about published rows.", "Give --published too, such as mlperf-tiny:ic."
        )
    if not published:
        return Asked()
    patterns = tuple(pattern for pattern in published if pattern != NONE)
    if NONE in published and patterns:
        raise UsageError(f"--published {NONE} leaves out what --published {patterns[0]} asks for.", "Give one of them.")
    return Asked(patterns=patterns, model=model, scope=scope)


def among(result: Result, asked: Asked, source: str = "") -> Standing | None:
    """The result among published rows; None where none are asked for and none are certain to be of its model.

    Certain is what was measured of a model whose file is that of a benchmark, byte by byte. Everything else is compared
    when somebody asks, with the doubts about it. Raises UsageError for a pattern that fits nothing.
    """
    patterns = _certain(result) if asked.patterns is None else asked.patterns
    if not patterns:
        return None
    choice = choose(patterns)
    mine = of_result(Measured(result=result), source, model=asked.model, scope=asked.scope)
    sort = LATENCY if result.energy_per_inference_j.median is None else PER_JOULE
    table = compare([mine], [of_row(row) for row in choice.rows], sort=sort)
    ours = tuple(group for group in table.groups if any(one.entry.origin.ours for one in group.placed))
    others = sum(len(group.placed) for group in table.groups if group not in ours)
    return Standing(table=replace(table, groups=ours), left_out=tuple(_left_out(choice.doubtful, others)))


def _certain(result: Result) -> tuple[str, ...]:
    sha256 = (result.workload or {}).get("model_sha256")
    found = None if result.simulated or not sha256 else work.of_model(None, str(sha256))
    return (found.key,) if found is not None and found.key.startswith(f"{TINY}:") else ()


def _left_out(doubtful: int, others: int) -> list[str]:
    told = (
        (doubtful, "left out because their own energy, power and time contradict each other"),
        (others, "left out because another model or unit is meant"),
    )
    return [f"{count} published row{'s' if count > 1 else ''}: {why}." for count, why in told if count]
