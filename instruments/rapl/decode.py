"""Rounds of counters to joules: a total first where there are several, then each by itself as the kernel shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from joulemeter.boardfiles.decode import RoundDecoder
from joulemeter.boardfiles.wire import Round
from joulemeter.capture import Header

from . import wire


class RaplDecoder(RoundDecoder):
    def __init__(self, header: Header) -> None:
        """Raises UsageError."""
        super().__init__(header, self._worth)
        ranges_uj: list[int] = header.parameters["ranges_uj"]
        self._totals = wire.Totals(ranges_uj) if len(ranges_uj) > 1 else None

    def _worth(self, found: Round) -> Sequence[float] | None:
        counts = [read.number for read in found.reads]
        known = [count for count in counts if count is not None]
        if len(known) < len(counts):
            return None
        total = [] if self._totals is None else [self._totals.add(found.middle_ns, known)]
        return total + [count * wire.JOULES for count in known]

    def state(self) -> dict[str, Any]:
        return super().state() | {"totals": None if self._totals is None else self._totals.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        if self._totals is not None:
            self._totals.restore(state["totals"])
