"""Results and published rows, grouped by what was inferred, ranked, and compared with the first result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from joulemeter.comparison.amounts import ENERGY, PER_JOULE, QUANTITIES
from joulemeter.comparison.doubts import Named, doubts
from joulemeter.comparison.entry import Entry, Origin
from joulemeter.comparison.pair import Pair, Pairs
from joulemeter.comparison.ranking import Rank, front, ranks
from joulemeter.errors import UsageError

EVERYTHING = "everything"
# How many of those next to a result are shown where there is no room for all.
NEIGHBOURS = 4
# A result whose model is not among the published is laid beside each table where there are no more than so many.
VISITED = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Placed:
    """An entry in a group. `on_front`: whether nothing there takes less energy and less time; None is not known.

    `against` is its energy per inference over that of the group's reference, None for the reference itself and where
    there is none. `guest`: it has not the group's model, and no other group has its own.
    """

    entry: Entry
    rank: Rank | None
    on_front: bool | None
    against: Pair | None
    guest: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Entries of one work, the best first. `reference` is the first measured result, or else the first result."""

    key: str
    title: str
    per: str
    placed: tuple[Placed, ...]
    reference: Entry | None
    doubts: tuple[Named, ...]

    def of(self, *origins: Origin) -> list[Placed]:
        return [one for one in self.placed if one.entry.origin in origins]

    @property
    def simulated(self) -> bool:
        return any(one.entry.simulated for one in self.placed)

    def telling(self, placed: Sequence[Placed], most: int) -> set[int]:
        """Which of `placed`, by index, to show where there is room for `most`: results, their neighbours, the best."""
        if len(placed) <= most:
            return set(range(len(placed)))
        ours = [place for place, one in enumerate(placed) if one.entry.origin.ours]
        at = {id(one): place for place, one in enumerate(self.placed)}
        near: list[int] = []
        for mine in (at[id(one)] for one in self.placed if one.entry.origin.ours and one.rank is not None):
            apart = [abs(at[id(one)] - mine) for one in placed]
            near += sorted(range(len(placed)), key=apart.__getitem__)[:NEIGHBOURS]
        # Neighbours have half of the room at most, so that the best are seen, too.
        kept = list(dict.fromkeys([*ours, *near]))[: max(len(ours), most // 2)]
        return set(list(dict.fromkeys([*kept, *range(len(placed))]))[:most])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Table:
    """The whole comparison. `sort` is the quantity that ranks."""

    groups: tuple[Group, ...]
    sort: str

    @property
    def simulated(self) -> bool:
        return any(group.simulated for group in self.groups)


def compare(
    results: Sequence[Entry], published: Sequence[Entry] = (), *, sort: str = PER_JOULE, together: bool = False
) -> Table:
    """Compare `results`, in the order given, with each other and with `published` rows.

    Published rows form one group for each work (a benchmark or a model) and each unit of counting. A result joins the
    group of its work; one whose work no row has, or is not known, joins all of them as a guest, or, where they are
    many, has a group of its own. Without published rows, or `together`, everything that is counted alike is one group.
    Raises UsageError where there is nothing.
    """
    if not results and not published:
        raise UsageError("There is nothing to compare.", "Give run directories, and --published for rows of others.")
    pairs = Pairs()
    if together and len({entry.work for entry in (*results, *published)}) > 1:
        published = [replace(entry, name=f"{entry.model}: {entry.name}") for entry in published]
    named = _unmistakable([*results, *published])
    results, published = named[: len(results)], named[len(results) :]
    groups = [
        _group(key, title, per, members, guests, sort, pairs)
        for key, title, per, members, guests in _split(results, published, together=together)
    ]
    return Table(groups=tuple(groups), sort=sort)


# (key, title, per, entries, guests among them)
_Split = tuple[str, str, str, list[Entry], list[Entry]]


def _split(results: Sequence[Entry], published: Sequence[Entry], *, together: bool) -> list[_Split]:
    """The groups, those first that results belong to."""
    if not published or together:
        units: dict[str, list[Entry]] = {}
        for entry in (*results, *published):
            units.setdefault(entry.per, []).append(entry)
        return [(_key(entries), _title(entries), per, entries, []) for per, entries in units.items()]
    rows: dict[tuple[str, str], list[Entry]] = {}
    for entry in published:
        rows.setdefault((_key([entry]), entry.per), []).append(entry)
    there = {key for key, per in rows if per == "inference"}
    strangers = [entry for entry in results if entry.work is None or entry.work.key not in there]
    visiting = strangers if len(there) <= VISITED else []
    found: list[_Split] = []
    for (key, per), members in rows.items():
        ours: list[Entry] = []
        guests: list[Entry] = []
        for entry in results if per == "inference" else ():
            if entry in visiting:
                ours.append(entry)
                guests.append(entry)
            elif entry.work is not None and entry.work.key == key:
                ours.append(entry)
        found.append((key, _title(members), per, [*ours, *members], guests))
    if strangers and not (there and visiting):
        # Nothing that was published is counted as a result is, or too much of it is.
        found.insert(0, (_key(strangers), _title(strangers), "inference", strangers, []))
    return sorted(found, key=lambda one: not any(entry.origin.ours and entry not in one[4] for entry in one[3]))


def _key(entries: Sequence[Entry]) -> str:
    keys = {entry.work.key if entry.work else "unknown" for entry in entries}
    return keys.pop() if len(keys) == 1 else EVERYTHING


def _title(entries: Sequence[Entry]) -> str:
    titles = {entry.work.key: entry.work.title for entry in reversed(entries) if entry.work is not None}
    known = [*titles.values(), *(["an unknown model"] if any(entry.work is None for entry in entries) else [])]
    return known[0] if len(known) == 1 else f"{len(known)} models"


def _group(
    key: str, title: str, per: str, entries: Sequence[Entry], guests: Sequence[Entry], sort: str, pairs: Pairs
) -> Group:
    found = zip(entries, ranks(entries, sort, pairs, guests), front(entries, pairs, guests), strict=True)
    # The first result that was measured, or else the first.
    ours = [entry for entry in entries if entry.origin.ours and entry.amount(ENERGY).comparable]
    reference = min(ours, key=lambda entry: entry.simulated, default=None)
    placed = [
        Placed(
            entry=entry,
            rank=rank,
            on_front=ahead,
            against=None if reference in (None, entry) else pairs.of(entry, reference, ENERGY),
            guest=entry in guests,
        )
        for entry, rank, ahead in found
    ]
    return Group(
        key=key,
        title=title,
        per=per,
        placed=tuple(sorted(placed, key=lambda one: _order(one.entry, sort))),
        reference=reference,
        doubts=doubts(entries),
    )


def _order(entry: Entry, sort: str) -> tuple[bool, float]:
    """The best first; then bounds, the lowest first; then what is not known."""
    amount = entry.amount(sort)
    if amount.value is None or not amount.comparable:
        return True, entry.energy_max_j or math.inf
    return False, -amount.value if QUANTITIES[sort].more else amount.value


def _unmistakable(entries: Sequence[Entry]) -> list[Entry]:
    """Entries with names of their own where they may meet: one more of a name gets its day, or else a number."""
    names = [(entry.name, _apart(entry)) for entry in entries]
    used: set[tuple[str, str]] = set()
    found = []
    for entry, (name, apart) in zip(entries, names, strict=True):
        told = name
        if names.count((name, apart)) > 1:
            day = entry.result.created[:16].replace("T", " ") if entry.result is not None else ""
            told = f"{name} ({day})" if day else name
        count = 1
        while (told if count == 1 else f"{told} [{count}]", apart) in used:
            count += 1
        told = told if count == 1 else f"{told} [{count}]"
        used.add((told, apart))
        found.append(entry if told == entry.name else replace(entry, name=told))
    return found


def _apart(entry: Entry) -> str:
    """Rows of different models have the name of their device alone."""
    return "" if entry.published is None else f"{entry.published.table} {entry.published.model}"
