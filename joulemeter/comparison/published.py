"""Which published rows a pattern chooses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from joulemeter import literature
from joulemeter.errors import UsageError
from joulemeter.literature import Row, Table

ALL = "all"
TABLES: dict[str, Table] = {
    "mlperf-tiny": "mlperf_tiny",
    "inference": "inference_energy",
    "inference-energy": "inference_energy",
    "zhaw": "zhaw_latency",
    "zhaw-latency": "zhaw_latency",
    "detection": "detection_rates",
    "detection-rates": "detection_rates",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Rows, and how many that fit were left out: `doubtful` contradict themselves, `repeated` are a row once more,
    `empty` state neither energy nor time."""

    rows: tuple[Row, ...] = ()
    doubtful: int = 0
    repeated: int = 0
    empty: int = 0


def choose(patterns: Sequence[str]) -> Choice:
    """The rows that any of `patterns` fits, in the order of the tables.

    A pattern is words between colons, all of which have to fit. A first word that is a table (mlperf-tiny, inference,
    zhaw, detection) or "all" chooses that table; every other word is a name, device, model, task, benchmark or runtime:
    the whole of one, else a part of one, or a glob. Raises UsageError for a pattern that fits nothing.
    """
    wanted = {row.name for pattern in patterns for row in _fitting(pattern)}
    fitting = [row for row in literature.rows() if row.name in wanted]
    good = [row for row in fitting if row.doubt is None]
    once = [row for row in good if not row.repeats]
    telling = tuple(row for row in once if _tells(row))
    if patterns and not telling:
        raise UsageError(f"What fits {' or '.join(map(repr, patterns))} states neither energy nor time.", there())
    return Choice(
        rows=telling,
        doubtful=len(fitting) - len(good),
        repeated=len(good) - len(once),
        empty=len(once) - len(telling),
    )


def there() -> str:
    """What can be asked for, as one sentence."""
    counts = Counter(row.table for row in literature.rows())
    first = {table: name for name, table in reversed(TABLES.items())}
    tables = ", ".join(f"{first[table]} ({counts[table]} rows)" for table in literature.TABLES)
    tiny = ", ".join(literature.TASKS)
    return (
        f"There are the tables {tables} and {ALL}. Words after a colon narrow them: mlperf-tiny:ic (of {tiny}), "
        "inference:jetson:resnet. Any other word is looked for in all of them: coral."
    )


def _fitting(pattern: str) -> Sequence[Row]:
    words = [word.strip() for word in pattern.split(":")]
    if not all(words):
        raise UsageError(f"{pattern!r} is no pattern of published rows: a word is empty.", there())
    first = words[0].casefold().replace("_", "-")
    table = TABLES.get(first)
    if table is not None or first == ALL:
        words = words[1:]
    rows: Sequence[Row] = [row for row in literature.rows() if table is None or row.table == table]
    for word in words:
        rows = _narrowed(rows, word, pattern)
    return rows


def _narrowed(rows: Sequence[Row], word: str, pattern: str) -> Sequence[Row]:
    """Those of `rows` that are called `word` in any way; else those that have it as a part."""
    whole = [row for row in rows if _plain(word) in map(_plain, filter(None, _names(row)))]
    if whole:
        return whole
    try:
        parts = {row.name for row in literature.select(word, doubtful=True)}
    except UsageError as error:
        raise UsageError(error.what, f"{error.remedy} {there()}") from None
    found = [row for row in rows if row.name in parts]
    if not found:
        raise UsageError(f"No published row fits all of {pattern!r}: {word!r} fits none of the rest.", there())
    return found


def _names(row: Row) -> tuple[str | None, ...]:
    return (row.name, row.device, row.model, row.task, row.benchmark, row.runtime)


def _plain(text: str) -> str:
    return re.sub(r"[\s_-]", "-", text.casefold())


def _tells(row: Row) -> bool:
    figures = (row.energy_j, row.energy_max_j, row.latency_s, row.rate_hz, row.rate_min_hz, row.rate_max_hz)
    return any(figure is not None for figure in figures)
