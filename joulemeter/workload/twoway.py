"""Another machine's clock against this one's, from two-way exchanges.

In an *exchange* this host asks and the other machine answers; each stamps with its own clock what it sends and what
arrives. Causes come before effects, so the clock of the other machine cannot have shown more than `arrived_ns` when
the question left, nor less than `answered_ns` when the answer was here: two hard limits on its *offset* (its clock
minus ours), one at each end of the exchange. How the delay divides between the two ways is not assumed: anything
within the limits is possible, and the middle of them is no better than the rest. That is a rectangular distribution
of half-width (round trip - processing) / 2 (JCGM 100, 4.3.7).

A clock that runs at a constant rate has an offset that is a straight line in time. The lines which violate none of
the limits form a convex polygon in the plane of offset and drift (A. Duda et al., "Estimating global time in
distributed systems", 7th ICDCS, 1987). Its corners give the smallest and the largest time here that a stamp made there
can stand for; the middle is the estimate. Nothing is averaged, so one lucky exchange is worth more than many slow ones.

The rate of a real clock wanders with temperature and with the steering by NTP, so a limit is loosened by `WANDER`
times how far away in time it is. Where the limits contradict each other at a quarter of that, the wander is doubled
until they do not: near the contradiction the polygon is small, and wrong. A jump that no rate explains is an error:
CLOCK_MONOTONIC stands still while a machine is suspended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from joulemeter.errors import DataError
from joulemeter.units import show_duration

# Of two crystals (100 ppm each is a poor one) and the most that the kernels' NTP discipline adds (500 ppm,
# adjtimex(2)): no two clocks that run differ by more.
MAX_DRIFT = 1e-3
# A crystal moves by about 0.035 ppm/K^2 times its distance from 25 degC: a board that heats up by 20 K between two
# batches changes its rate by no more than this.
WANDER = 5e-6
# A drift that is known no better than this, a half-width, is not: a crystal's label says as much.
KNOWN_DRIFT = 200e-6
# Limits that agree only just say that the clocks wander at least so much; this many times that is allowed for.
MARGIN = 4
# Older batches say little after so much wander.
KEPT_BATCHES = 64

Corner = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question and its answer: `sent_ns` and `received_ns` by our clock, `arrived_ns` and `answered_ns` by theirs."""

    sent_ns: int
    arrived_ns: int
    answered_ns: int
    received_ns: int

    @property
    def delay_ns(self) -> int:
        """The round trip without the time it took to answer."""
        return (self.received_ns - self.sent_ns) - (self.answered_ns - self.arrived_ns)

    @property
    def highest_ns(self) -> int:
        """Largest offset that the clock there can have had at `sent_ns`."""
        return self.arrived_ns - self.sent_ns

    @property
    def lowest_ns(self) -> int:
        """Smallest offset that the clock there can have had at `received_ns`."""
        return self.answered_ns - self.received_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """The straight lines that are possible, around `reference_ns` of our clock.

    A corner is (offset, drift): seconds beyond `offset_ns`, and seconds per second of our clock. `residual_s` is the
    root mean square of the middles of the batches' best exchanges about the middle line. `drift_known` is False where
    the exchanges lie too close together to say more than that two crystals do.
    """

    reference_ns: int
    offset_ns: int
    corners: tuple[Corner, ...]
    wander: float
    residual_s: float
    drift_known: bool

    @property
    def offset_s(self) -> float:
        """Their clock minus ours at `reference_ns`."""
        return self.offset_ns * 1e-9 + _middle([offset for offset, _ in self.corners])

    @property
    def half_width_s(self) -> float:
        """The offset at `reference_ns` lies within this of `offset_s`."""
        return _half([offset for offset, _ in self.corners])

    @property
    def drift(self) -> float:
        return _middle([drift for _, drift in self.corners])

    @property
    def drift_half_width(self) -> float:
        return _half([drift for _, drift in self.corners])

    def place(self, there_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Our clock at each of their stamps, int64 nanoseconds, and the half-width of that, float64 seconds."""
        since_s = (there_ns - (self.reference_ns + self.offset_ns)) * 1e-9
        candidates = np.array([(since_s - offset) / (1 + drift) for offset, drift in self.corners])
        earliest, latest = candidates.min(axis=0), candidates.max(axis=0)
        middle_s = (earliest + latest) / 2
        here_ns = self.reference_ns + np.rint(middle_s * 1e9).astype(np.int64)
        return here_ns, (latest - earliest) / 2 + self.wander * np.abs(middle_s)


class TwoWayClock:
    """Collects batches of exchanges and places stamps of the other machine on our clock."""

    def __init__(self) -> None:
        self._batches: deque[tuple[Exchange, ...]] = deque(maxlen=KEPT_BATCHES)
        self.exchanges = 0
        self.least_delay_ns: int | None = None

    def add(self, batch: Iterable[Exchange]) -> None:
        """Take a batch that was made within a moment.

        Raises DataError when a clock has jumped since the one before: what lies between the two batches cannot be
        placed. The batches before it are forgotten then, for they say nothing of the time after.
        """
        exchanges = list(batch)
        if not exchanges:
            return
        best = _best(exchanges)
        self.exchanges += len(exchanges)
        least_ns = best[0].delay_ns
        self.least_delay_ns = least_ns if self.least_delay_ns is None else min(self.least_delay_ns, least_ns)
        before = self._batches[-1] if self._batches else None
        if before is not None and (jump_s := _jump_s(before, best)) is not None:
            self._batches.clear()
            self._batches.append(best)
            where = "the other machine's clock stood still" if jump_s < 0 else "this host's clock stood still"
            raise DataError(
                f"The two clocks jumped by {show_duration(abs(jump_s))} against each other: {where}, as it does while "
                "a machine is suspended. The windows meanwhile cannot be placed.",
                "Keep both machines awake while measuring.",
            )
        self._batches.append(best)

    def relation(self, near_ns: int | None = None) -> Relation:
        """The relation for stamps near that time of our clock, the newest exchange where None.

        Raises DataError when there is no exchange.
        """
        if not self._batches:
            raise DataError("The other machine's clock was never compared with ours.")
        newest = self._batches[-1][0]
        return relate([*self._batches], newest.received_ns if near_ns is None else near_ns)

    def place(self, there_ns: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
        """Our clock at their stamps, and the largest standard uncertainty among them in seconds. Raises DataError."""
        rough = self.relation()
        middle_ns = (int(there_ns.min()) + int(there_ns.max())) // 2
        here_ns, half_width_s = self.relation(middle_ns - round(rough.offset_s * 1e9)).place(there_ns)
        return here_ns, float(half_width_s.max()) / 3**0.5

    def describe(self) -> dict[str, float | int | None]:
        """For result.json. `u_` are standard uncertainties; None where nothing is known."""
        relation = self.relation() if self._batches else None
        known = relation if relation is not None and relation.drift_known else None
        return {
            "offset_s": relation.offset_s if relation else None,
            "u_offset_s": relation.half_width_s / 3**0.5 if relation else None,
            "drift_ppm": known.drift * 1e6 if known else None,
            "u_drift_ppm": known.drift_half_width / 3**0.5 * 1e6 if known else None,
            "residual_s": relation.residual_s if relation else None,
            "exchanges": self.exchanges,
            "rtt_min_s": None if self.least_delay_ns is None else self.least_delay_ns * 1e-9,
        }


def relate(batches: Sequence[Sequence[Exchange]], reference_ns: int) -> Relation:
    """The lines that all exchanges allow. Raises DataError when no wander of the clocks reconciles them."""
    best = min((exchange for batch in batches for exchange in batch), key=lambda exchange: exchange.delay_ns)
    offset_ns = (best.highest_ns + best.lowest_ns) // 2
    exchanges = [exchange for batch in batches for exchange in batch]
    # (time, limit) in seconds from the reference and beyond the offset.
    highest = [((e.sent_ns - reference_ns) * 1e-9, (e.highest_ns - offset_ns) * 1e-9) for e in exchanges]
    lowest = [((e.received_ns - reference_ns) * 1e-9, (e.lowest_ns - offset_ns) * 1e-9) for e in exchanges]
    wander = WANDER
    while not _possible(highest, lowest, wander / MARGIN):
        wander *= 2
        if wander > MARGIN * MAX_DRIFT:
            raise DataError(
                "The other machine's clock runs too unevenly against ours for its stamps to be placed.",
                "Let the time service of both machines settle, then measure again.",
            )
    corners = _possible(highest, lowest, wander)
    offset, drift = _middle([a for a, _ in corners]), _middle([b for _, b in corners])
    middles = [(exchange.highest_ns + exchange.lowest_ns - 2 * offset_ns) / 2e9 for exchange, *_ in batches]
    times = [(exchange.sent_ns - reference_ns) * 1e-9 for exchange, *_ in batches]
    squares = [(middle - offset - drift * time) ** 2 for middle, time in zip(middles, times, strict=True)]
    return Relation(
        reference_ns=reference_ns,
        offset_ns=offset_ns,
        corners=tuple(corners),
        wander=wander,
        residual_s=(sum(squares) / len(squares)) ** 0.5,
        drift_known=_half([b for _, b in corners]) <= KNOWN_DRIFT,
    )


def _best(batch: Sequence[Exchange]) -> tuple[Exchange, ...]:
    """The shortest round trip, then the two that limit the offset most: quick there, and quick back."""
    return (
        min(batch, key=lambda exchange: exchange.delay_ns),
        min(batch, key=lambda exchange: exchange.highest_ns),
        max(batch, key=lambda exchange: exchange.lowest_ns),
    )


def _jump_s(before: Sequence[Exchange], after: Sequence[Exchange]) -> float | None:
    """By how much the offset changed from one batch to the next, if no rate explains it."""
    elapsed_ns = max(e.received_ns for e in after) - min(e.sent_ns for e in before)
    room_ns = MAX_DRIFT * elapsed_ns
    up_ns = max(e.lowest_ns for e in after) - min(e.highest_ns for e in before)
    down_ns = max(e.lowest_ns for e in before) - min(e.highest_ns for e in after)
    if up_ns <= room_ns and down_ns <= room_ns:
        return None
    return up_ns * 1e-9 if up_ns > 0 else -down_ns * 1e-9


def _possible(highest: list[Corner], lowest: list[Corner], wander: float) -> list[Corner]:
    """Corners of the polygon of (offset, drift) that every limit leaves; empty where they contradict each other."""
    span_s = max(abs(time) for time, _ in (*highest, *lowest))
    wall = max(abs(limit) for _, limit in (*highest, *lowest)) + (MAX_DRIFT + wander) * span_s + 1e-9
    corners = [(-wall, -MAX_DRIFT), (wall, -MAX_DRIFT), (wall, MAX_DRIFT), (-wall, MAX_DRIFT)]
    for time, limit in highest:
        corners = _clipped(corners, 1.0, time, limit + wander * abs(time))
    for time, limit in lowest:
        corners = _clipped(corners, -1.0, -time, -limit + wander * abs(time))
    return corners


def _clipped(corners: list[Corner], p: float, q: float, limit: float) -> list[Corner]:
    """The part of a convex polygon where p*x + q*y <= limit (Sutherland and Hodgman, CACM 17, 1974)."""
    kept: list[Corner] = []
    excess = [p * x + q * y - limit for x, y in corners]
    closed = [*zip(corners, excess, strict=True)]
    for (here, over), (there, over_there) in pairwise([*closed, *closed[:1]]):
        if over <= 0:
            kept.append(here)
        if (over < 0 < over_there) or (over_there < 0 < over):
            part = over / (over - over_there)
            kept.append((here[0] + part * (there[0] - here[0]), here[1] + part * (there[1] - here[1])))
    return kept


def _middle(values: Sequence[float]) -> float:
    return (min(values) + max(values)) / 2


def _half(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / 2
