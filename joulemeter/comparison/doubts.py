"""What is not alike among the entries of a comparison, by name. Programs may rely on the codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from joulemeter.comparison.amounts import ENERGY, Rests
from joulemeter.comparison.entry import Entry, Origin

# How many names and values a sentence lists before it only counts, and how long one may be.
MOST, WIDEST = 3, 64


class Doubt(StrEnum):
    SIMULATED_AND_REAL = "simulated-and-real"
    SAME_RESULT = "same-result"
    OTHER_MODEL = "other-model"
    UNKNOWN_MODEL = "unknown-model"
    OTHER_PRECISION = "other-precision"
    UNKNOWN_PRECISION = "unknown-precision"
    OTHER_BATCH = "other-batch"
    OTHER_SCOPE = "other-scope"
    UNKNOWN_SCOPE = "unknown-scope"
    OTHER_VOLTAGE = "other-voltage"
    UNKNOWN_METER = "unknown-meter"
    SCATTER_ONLY = "scatter-only"
    NO_SCATTER = "no-scatter"
    PUBLISHED_FIGURES = "published-figures"
    UPPER_BOUNDS = "upper-bounds"
    RESULT_IN_DOUBT = "result-in-doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    code: Doubt
    text: str


def doubts(entries: Sequence[Entry]) -> tuple[Named, ...]:
    """Every doubt about comparing these, the gravest first."""
    return tuple(named for make in _MAKERS for named in make(entries))


def _list(names: Sequence[str]) -> str:
    """A few names, and how many more."""
    shown = [name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…" for name in dict.fromkeys(names)]
    if len(shown) <= MOST:
        return ", ".join(shown)
    return f"{', '.join(shown[:MOST])} and {len(shown) - MOST} more"


def _simulated(entries: Sequence[Entry]) -> Iterator[Named]:
    simulated = [entry.name for entry in entries if entry.simulated]
    if simulated and len(simulated) < len(entries):
        yield Named(
            code=Doubt.SIMULATED_AND_REAL,
            text=f"{_list(simulated)}: simulated, so its place among real devices says nothing of any device. It is "
            "ranked to show where such numbers would stand; the ranks of the others do not count it.",
        )


def _same(entries: Sequence[Entry]) -> Iterator[Named]:
    results = [entry for entry in entries if entry.origin.ours and entry.result is not None]
    seen: list[Entry] = []
    for entry in results:
        twin = next((other for other in seen if _alike(entry, other)), None)
        if twin is None:
            seen.append(entry)
            continue
        yield Named(
            code=Doubt.SAME_RESULT,
            text=f"{entry.name} has the numbers of {twin.name}, all of them: one recording twice. Look at the paths.",
        )


def _alike(a: Entry, b: Entry) -> bool:
    return (
        a.result is not None
        and b.result is not None
        and a.result.created == b.result.created
        and a.result.energy_per_inference_j == b.result.energy_per_inference_j
        and a.result.latency_s == b.result.latency_s
        and a.result.energy_per_inference_j.median is not None
    )


def _models(entries: Sequence[Entry]) -> Iterator[Named]:
    titles = {entry.work.key: entry.work.title for entry in entries if entry.work is not None}
    if len(titles) > 1:
        yield Named(
            code=Doubt.OTHER_MODEL,
            text=f"Apples and oranges: the models differ ({_list(list(titles.values()))}), so that a difference may be "
            "the model's and no device's. Measure one model on all.",
        )
    else:
        variants = [entry.model for entry in entries if entry.published is not None and _variant(entry)]
        if variants:
            yield Named(
                code=Doubt.OTHER_MODEL,
                text=f"One task, but not one network: {_list([name for name in variants if name])} beside the "
                "reference network of the benchmark.",
            )
    unknown = [entry.name for entry in entries if entry.work is None]
    if unknown:
        yield Named(
            code=Doubt.UNKNOWN_MODEL,
            text=f"{_list(unknown)}: nobody says which model ran, so this may be apples and oranges. Give --model.",
        )


def _variant(entry: Entry) -> bool:
    row = entry.published
    return row is not None and row.benchmark is not None and row.model != row.benchmark


def _precisions(entries: Sequence[Entry]) -> Iterator[Named]:
    yield from _differing(
        entries,
        lambda entry: entry.precision,
        Doubt.OTHER_PRECISION,
        "The precision differs",
        "Less precise arithmetic takes less energy, and another accuracy.",
    )
    yield from _unstated(entries, lambda entry: entry.precision, Doubt.UNKNOWN_PRECISION, "The precision")


def _batches(entries: Sequence[Entry]) -> Iterator[Named]:
    yield from _differing(
        entries,
        lambda entry: None if entry.batch is None else f"batch {entry.batch}",
        Doubt.OTHER_BATCH,
        "The batch differs",
        "Batches take less energy per inference and answer later.",
    )


_SCOPE_NAMES = {
    "core_rail": "the core's rail",
    "mcu_supply": "the chip's supply",
    "board_dc": "the whole board",
    "module_rail": "a module",
    "accelerator_only": "the accelerator alone",
    "gpu_board": "the GPU board alone",
    "system_ac": "the whole system at the mains",
    "above idle": "what is above idle",
}


def scope_name(scope: str) -> str:
    """A scope in words."""
    return _SCOPE_NAMES.get(scope, scope)


def _scopes(entries: Sequence[Entry]) -> Iterator[Named]:
    yield from _differing(
        entries,
        lambda entry: None if entry.scope is None else scope_name(entry.scope),
        Doubt.OTHER_SCOPE,
        "What the energy covers differs",
        "The same work differs by a factor of two and more between them.",
    )
    yield from _unstated(entries, lambda entry: entry.scope, Doubt.UNKNOWN_SCOPE, "What the energy covers", "--scope")


def _voltages(entries: Sequence[Entry]) -> Iterator[Named]:
    yield from _differing(
        entries,
        lambda entry: None if entry.supply_v is None else f"{entry.supply_v:g} V",
        Doubt.OTHER_VOLTAGE,
        "The supply voltage differs",
        "Energy falls with it on one and the same chip.",
    )


def _differing(
    entries: Sequence[Entry], of: Callable[[Entry], str | None], code: Doubt, what: str, meaning: str
) -> Iterator[Named]:
    counts: dict[str, int] = {}
    for value in filter(None, map(of, entries)):
        counts[value] = counts.get(value, 0) + 1
    if len(counts) > 1:
        most = sorted(counts, key=lambda value: -counts[value])
        yield Named(code=code, text=f"{what} ({_list([f'{counts[v]} with {v}' for v in most])}). {meaning}")


def _unstated(
    entries: Sequence[Entry], of: Callable[[Entry], str | None], code: Doubt, what: str, option: str = ""
) -> Iterator[Named]:
    """Said where there is somebody to differ from."""
    unknown = [entry for entry in entries if of(entry) is None]
    if not unknown or len(entries) < 2:
        return
    ours = [entry.name for entry in unknown if entry.origin.ours]
    published = len(unknown) - len(ours)
    who = [_list(ours)] if ours else []
    who += [f"{published} published row{'s' if published > 1 else ''}"] if published else []
    remedy = f" Give {option}." if option and ours else ""
    yield Named(code=code, text=f"{what} is not known of {' and '.join(who)}, and may differ.{remedy}")


def _meters(entries: Sequence[Entry]) -> Iterator[Named]:
    ours = [entry for entry in entries if entry.origin.ours and entry.amount(ENERGY).value is not None]
    without = [entry.name for entry in ours if _told_apart(entry)]
    if len(ours) > 1 and without:
        yield Named(
            code=Doubt.UNKNOWN_METER,
            text=f"No serial number says which meter measured {_list(without)}, so that nothing is taken to cancel "
            "between it and others. If one meter measured all of them, say so by --one-meter.",
        )


def _told_apart(entry: Entry) -> bool:
    made_up = (entry.result.instrument or {}).get("serial") if entry.result is not None else None
    return entry.serial is None and made_up is not None


def _intervals(entries: Sequence[Entry]) -> Iterator[Named]:
    ours = [entry for entry in entries if entry.origin.ours and entry.amount(ENERGY).value is not None]
    scatter = [entry.name for entry in ours if entry.amount(ENERGY).rests is Rests.SCATTER]
    if scatter:
        yield Named(
            code=Doubt.SCATTER_ONLY,
            text=f"{_list(scatter)}: the accuracy of the meter is not known, so that the interval is scatter alone and "
            "the true value may lie outside of it.",
        )
    single = [entry.name for entry in ours if entry.amount(ENERGY).rests is Rests.NOTHING]
    if single:
        yield Named(
            code=Doubt.NO_SCATTER,
            text=f"{_list(single)}: one window and a meter of unknown accuracy, so that there is no interval at all.",
        )


def _published(entries: Sequence[Entry]) -> Iterator[Named]:
    published = sum(entry.origin is Origin.PUBLISHED and entry.amount(ENERGY).value is not None for entry in entries)
    bounds = sum(entry.origin is Origin.BOUND for entry in entries)
    if published:
        several = "are figures of others" if published > 1 else "is a figure of others"
        yield Named(
            code=Doubt.PUBLISHED_FIGURES,
            text=f"{published} published row{'s' if published > 1 else ''} {several}, printed without an interval: "
            "ranks among them rest on the figures as they stand, and a near one may be no difference.",
        )
    if bounds:
        yield Named(
            code=Doubt.UPPER_BOUNDS,
            text=f"{bounds} row{'s are' if bounds > 1 else ' is'} an upper bound, a published time by a rated or peak "
            "power. The energy is not known, so it has no rank by energy.",
        )


def _troubled(entries: Sequence[Entry]) -> Iterator[Named]:
    told = [f"{entry.name} ({', '.join(entry.troubles)})" for entry in entries if entry.troubles]
    if told:
        yield Named(
            code=Doubt.RESULT_IN_DOUBT,
            text=f"In doubt by itself: {_list(told)}. `joulemeter analyze` tells what is doubted and why.",
        )


_MAKERS: tuple[Callable[[Sequence[Entry]], Iterator[Named]], ...] = (
    _simulated,
    _same,
    _models,
    _scopes,
    _precisions,
    _batches,
    _voltages,
    _meters,
    _intervals,
    _published,
    _troubled,
)
