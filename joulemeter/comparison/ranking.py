"""Ranks with ties, and the Pareto front: nothing is ahead of anything by a difference that is not resolved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from joulemeter.comparison.amounts import ENERGY, LATENCY
from joulemeter.comparison.entry import Entry
from joulemeter.comparison.pair import Pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """From `first`, where every open difference is to its favour, to `last`, where none is; `of` so many."""

    first: int
    last: int
    of: int

    @property
    def tied(self) -> bool:
        return self.first < self.last


def ranks(entries: Sequence[Entry], quantity: str, pairs: Pairs, guests: Collection[Entry] = ()) -> list[Rank | None]:
    """The rank of each of `entries`, None where its quantity is unknown.

    It is one more than the number of those that are better beyond doubt, so that what is not resolved shares a rank.
    A simulated entry is ranked among the real ones, and one of `guests` among all, and moves none of them.
    """
    known = [entry for entry in entries if entry.amount(quantity).comparable]
    found: list[Rank | None] = []
    for entry in entries:
        if not entry.amount(quantity).comparable:
            found.append(None)
            continue
        rivals = [other for other in known if other is not entry and _counts(other, entry, guests)]
        verdicts = [pairs.better(other, entry, quantity) for other in rivals]
        found.append(
            Rank(
                first=1 + sum(verdict is True for verdict in verdicts),
                last=1 + len(rivals) - sum(verdict is False for verdict in verdicts),
                of=1 + len(rivals),
            )
        )
    return found


def front(entries: Sequence[Entry], pairs: Pairs, guests: Collection[Entry] = ()) -> list[bool | None]:
    """Whether no other takes less energy and less time; None where one of the two is unknown.

    Another dominates where it is better beyond doubt in one and better, or exactly equal, in the other.
    """
    known = [entry for entry in entries if _placed(entry)]
    return [
        not any(
            _dominates(other, entry, pairs) for other in known if other is not entry and _counts(other, entry, guests)
        )
        if _placed(entry)
        else None
        for entry in entries
    ]


def _placed(entry: Entry) -> bool:
    return entry.amount(ENERGY).comparable and entry.amount(LATENCY).comparable


def _counts(other: Entry, entry: Entry, guests: Collection[Entry]) -> bool:
    """What is simulated says nothing of what is real, and another model nothing of this one."""
    return (entry.simulated or not other.simulated) and (entry in guests or other not in guests)


def _dominates(a: Entry, b: Entry, pairs: Pairs) -> bool:
    verdicts = []
    for quantity in (ENERGY, LATENCY):
        better = pairs.better(a, b, quantity)
        if better is None:
            if a.amount(quantity).value != b.amount(quantity).value:
                return False
        elif not better:
            return False
        verdicts.append(better)
    return any(verdicts)
