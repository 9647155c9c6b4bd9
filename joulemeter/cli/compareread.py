"""What `joulemeter compare` is given, as entries: run directories, results, zips and foreign recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from joulemeter import loading, store
from joulemeter.cli.check import read
from joulemeter.comparison.amounts import Amount, Rests
from joulemeter.comparison.entry import Entry, of_result
from joulemeter.errors import DataError, UsageError
from joulemeter.physics.rules import Measured

if TYPE_CHECKING:
    from joulemeter.lifetime import Question
    from joulemeter.physics.analyze import Analysis, Request

# So far into a file a result has said what it is.
HEAD_BYTES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How recordings are read. `again`: also those that were analysed before. `models` and `scopes` are what is said
    of results, as (glob of a name, what), the last that fits counting."""

    request: Request
    again: bool
    question: Question | None = None
    models: Sequence[tuple[str, str]] = ()
    scopes: Sequence[tuple[str, str]] = ()
    one_meter: bool = False


def entry(path: Path, asked: Asked) -> Entry:
    """The result at `path`. Raises UsageError for what is none, DataError for a damaged one."""
    if not path.exists():
        raise UsageError(f"There is no {path}.", "Give a run directory, a result.json, a zip of a run, or a recording.")
    life: Amount | None = None
    if not asked.again and (kept := _kept(path)) is not None:
        measured = read(kept)
        if asked.question is not None:
            life = _kept_life(kept, measured, asked.question)
    else:
        measured, life = _analysed(path, asked)
    names = (measured.result.name, path.name, path.resolve().name)
    return of_result(
        measured,
        str(path),
        model=_said(asked.models, names),
        scope=_said(asked.scopes, names),
        one_meter=asked.one_meter,
        life=life,
    )


def _kept(path: Path) -> Path | None:
    """What holds a result that was made before."""
    if path.is_dir():
        return path if (path / "result.json").is_file() else None
    if path.suffix != ".json":
        return None
    with path.open("rb") as file:
        return path if b'"joulemeter.result/' in file.read(HEAD_BYTES) else None


def _analysed(path: Path, asked: Asked) -> tuple[Measured, Amount | None]:
    from joulemeter.physics.analyze import analyze

    with loading.opened(path) as recording:
        analysis = analyze(recording, asked.request)
        life = None
        if asked.question is not None:
            from joulemeter.lifetime import of_run

            try:
                life = _life(of_run(analysis, recording, asked.question).spread)
            except (UsageError, DataError) as error:
                life = Amount(reason=str(error))
    return Measured(result=analysis.result, windows_j=_windows(analysis)), life


def _windows(analysis: Analysis) -> tuple[float, ...] | None:
    used = [window for window, good in zip(analysis.windows, analysis.used, strict=True) if good]
    values = [window.per_inference_j for window in used if window.per_inference_j is not None]
    return tuple(values) if values and len(values) == len(used) else None


def _kept_life(path: Path, measured: Measured, question: Question) -> Amount:
    """Of a result made before: from its recording where that is at hand, else the one it keeps of that very cell."""
    from joulemeter.lifetime import of_run
    from joulemeter.physics.analyze import Request, analyze

    folder = path if path.is_dir() else path.parent
    if store.is_run(folder):
        try:
            with loading.opened(folder) as recording:
                return _life(of_run(analyze(recording, Request()), recording, question).spread)
        except (UsageError, DataError) as error:
            return Amount(reason=str(error))
    kept = measured.result.battery
    same = kept is not None and kept.cell == _cell_name(question) and kept.every_s == question.every_s
    if kept is None or not same or question.rest_a is not None or question.cutoff_v is not None:
        return Amount(reason="a result.json alone has no waveform to project; give the run directory")
    low, middle, high = (kept.life_s.get(name) for name in ("p5", "p50", "p95"))
    return _spread(low, middle, high)


def _cell_name(question: Question) -> str:
    from joulemeter import cells

    return cells.cell(question.cell).name


def _life(spread: object) -> Amount:
    low, middle, high = (getattr(spread, name) for name in ("p5_s", "p50_s", "p95_s"))
    return _spread(low, middle, high)


def _spread(low: float | None, middle: float | None, high: float | None) -> Amount:
    if middle is None:
        return Amount(reason="the cell refuses this load")
    return Amount(value=middle, low=low, high=high, rests=Rests.CELLS)


# -- what the user says of results -------------------------------------------------------------------------------------


def said(texts: Sequence[str] | None, option: str) -> list[tuple[str, str]]:
    """[NAME=]WHAT options as pairs; without a name it is said of all."""
    pairs = []
    for text in texts or ():
        name, equals, what = text.rpartition("=")
        if not what.strip() or (equals and not name.strip()):
            raise UsageError(f"{text!r} is not [NAME=]{option}.", f"Such as --{option.lower()} 'board-a*=ic'.")
        pairs.append((name.strip() or "*", what.strip()))
    return pairs


def scopes(texts: Sequence[str] | None) -> list[tuple[str, str]]:
    """As `said`, with scopes that there are."""
    from joulemeter.profile import Scope

    known = get_args(Scope)
    pairs = said(texts, "SCOPE")
    for _, scope in pairs:
        if scope not in known:
            raise UsageError(f"{scope!r} is nothing that a meter covers.", f"Choose one of: {', '.join(known)}.")
    return pairs


def _said(pairs: Sequence[tuple[str, str]], names: Sequence[str]) -> str | None:
    fitting = [what for glob, what in pairs if any(fnmatchcase(name, glob) for name in names)]
    return fitting[-1] if fitting else None
