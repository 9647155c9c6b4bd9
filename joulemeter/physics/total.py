"""Several meters on parts of one device, added: rails, or a host and its accelerator.

Each meter integrates the same windows in its own time, related by the host's clock; energies add, and so do powers.
Charges do not, for they flow at different voltages, and neither do peaks, which need not coincide. What each meter may
be wrong by is taken as independent of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from joulemeter.capture import Stream, Timebase
from joulemeter.errors import UsageError
from joulemeter.physics.combine import Part
from joulemeter.physics.integrate import integrate
from joulemeter.physics.kinds import source_of
from joulemeter.window import Window, WindowEnergy


@dataclass(frozen=True, slots=True, kw_only=True)
class Spans:
    """What is integrated, in the time of one stream: the whole recording, the windows, idle on purpose and between."""

    whole: Window
    windows: Sequence[Window]
    on_purpose: Sequence[Window]
    beside: Sequence[Window]

    def moved(self, here: Timebase, there: Timebase) -> Spans:
        return Spans(
            whole=_moved(self.whole, here, there),
            windows=[_moved(window, here, there) for window in self.windows],
            on_purpose=[_moved(window, here, there) for window in self.on_purpose],
            beside=[_moved(window, here, there) for window in self.beside],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The energies of Spans, by one meter or by several together."""

    whole: WindowEnergy
    windows: list[WindowEnergy]
    on_purpose: list[WindowEnergy]
    beside: list[WindowEnergy]

    @property
    def idle(self) -> list[WindowEnergy]:
        """Idle that was recorded on purpose, else what lies between the windows."""
        return self.on_purpose or self.beside

    def part(self, stream: Stream, used: Sequence[bool], grade: str | None, *, named: bool) -> Part:
        """What the budget needs of one meter; of several, each term bears the stream's name."""
        return Part(
            name=stream.name if named else "",
            header=stream.header,
            used=[window for window, good in zip(self.windows, used, strict=True) if good],
            idle=self.idle,
            outside_w=mean_power(self.beside),
            grade=grade,
        )


def measure(stream: Stream, spans: Spans) -> Measured:
    n, m = len(spans.windows), len(spans.on_purpose)
    whole, *rest = integrate(stream, [spans.whole, *spans.windows, *spans.on_purpose, *spans.beside])
    return Measured(whole=whole, windows=rest[:n], on_purpose=rest[n : n + m], beside=rest[n + m :])


def related(main: Stream, others: Sequence[Stream]) -> None:
    """Raises UsageError for streams that cannot be added to `main`."""
    for stream in (main, *others):
        if not source_of(stream.header).has_power:
            raise UsageError(
                f"{stream.name} has no power, so it cannot be added: its voltage is unknown.",
                "Give --supply or --assume-voltage.",
            )
        if stream.timebase.monotonic_ns is None:
            raise UsageError(f"{stream.name} was never related to the host's clock, so it cannot be added.")


def add(parts: Sequence[Measured]) -> Measured:
    """The same spans by all meters together; where one of them saw less, the sum did."""
    if len(parts) == 1:
        return parts[0]
    return Measured(
        whole=_sum([part.whole for part in parts]),
        windows=[_sum(same) for same in zip(*(part.windows for part in parts), strict=True)],
        on_purpose=[_sum(same) for same in zip(*(part.on_purpose for part in parts), strict=True)],
        beside=[_sum(same) for same in zip(*(part.beside for part in parts), strict=True)],
    )


def _sum(same: Sequence[WindowEnergy]) -> WindowEnergy:
    """One span by several meters; the span is the first one's."""
    energies = [one.energy_j for one in same if one.energy_j is not None]
    powers = [one.mean_power_w for one in same if one.mean_power_w is not None]
    whole = len(energies) == len(same)
    window, missing_s = same[0].window, max(one.missing_s for one in same)
    return WindowEnergy(
        window=window,
        energy_j=math.fsum(energies) if whole else None,
        charge_c=None,
        mean_power_w=math.fsum(powers) if len(powers) == len(same) else None,
        peak_power_w=None,
        samples=min(one.samples for one in same),
        missing_s=missing_s if whole else max(missing_s, window.duration_s),
        clipped_samples=sum(one.clipped_samples for one in same),
        altered_samples=sum(one.altered_samples for one in same),
        invalid_samples=sum(one.invalid_samples for one in same),
        altered_j=math.fsum(one.altered_j for one in same),
        edge_power_w=math.fsum(one.edge_power_w for one in same),
        resolution_j=math.fsum(one.resolution_j for one in same),
        energy_by_range_j={None: math.fsum(energies)},
        dwell_by_range_s={None: max(window.duration_s - missing_s, 0.0)},
        caveats=tuple(dict.fromkeys(code for one in same for code in one.caveats)),
    )


def _moved(window: Window, here: Timebase, there: Timebase) -> Window:
    """A window of one stream in the time of another, with what both relations to the host leave open."""
    start_ns, stop_ns = (_carried(at, here, there) for at in (window.start_ns, window.stop_ns))
    u_s = (here.u_host_at(window.start_ns) or 0.0, there.u_host_at(start_ns) or 0.0)
    return replace(window, start_ns=start_ns, stop_ns=stop_ns, u_edge_s=math.hypot(window.u_edge_s, *u_s))


def _carried(time_ns: int, here: Timebase, there: Timebase) -> int:
    host_ns = (here.monotonic_ns or 0) + time_ns / (1 + (here.drift_ppm or 0.0) * 1e-6)
    return there.from_monotonic(round(host_ns))


def mean_power(windows: Sequence[WindowEnergy]) -> float | None:
    """Time-weighted mean power of windows that were seen in full or in part; None if there are none."""
    seen = [(w.energy_j, math.fsum(w.dwell_by_range_s.values())) for w in windows if w.energy_j is not None]
    total_s = math.fsum(span for _, span in seen)
    return math.fsum(energy for energy, _ in seen) / total_s if total_s else None
