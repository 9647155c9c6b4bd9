"""Loads whose charge is known in closed form: what simulators draw and what tests hold results to.

A load repeats a cycle of steps; within a step current and digital lines are constant. The charge drawn up to time t
is then exact arithmetic, so a simulator can give each sample the true mean over its interval, and a test knows the
charge of each pulse without integrating anything.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from joulemeter import units
from joulemeter.errors import UsageError


class Draw(Protocol):
    """What a simulated meter draws from. Sample indices count from the start of the stream."""

    @property
    def name(self) -> str: ...

    def from_time(self, start_s: float) -> Draw:
        """As a stream sees it that begins at `start_s`, seconds of the simulated meter's clock."""
        ...

    def powered(self, on: bool, now_s: float) -> None:
        """The meter has switched the board's supply on or off."""
        ...

    def mean_current_a(self, first: int, count: int, rate_hz: float) -> NDArray[np.float64]: ...
    def lines(self, first: int, count: int, rate_hz: float) -> NDArray[np.uint8]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`lines` are the digital lines held high during the step, bit k = line k."""

    duration_s: float
    current_a: float
    lines: int = 0


@dataclass(frozen=True, kw_only=True)
class Load:
    """A cycle of steps, repeated for ever from t = 0, after `lead_s` seconds of `lead_a` with all lines low."""

    steps: tuple[Step, ...]
    lead_s: float = 0.0
    lead_a: float = 0.0
    name: str = "load"

    def from_time(self, start_s: float) -> Load:
        """Itself: its cycle begins with each stream."""
        del start_s
        return self

    def powered(self, on: bool, now_s: float) -> None:
        """Nothing: it has no state."""

    @cached_property
    def period_s(self) -> float:
        return sum(step.duration_s for step in self.steps)

    @cached_property
    def cycle_charge_c(self) -> float:
        return sum(step.duration_s * step.current_a for step in self.steps)

    @cached_property
    def _edges(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Times of the step borders within a cycle and the charge drawn up to each."""
        durations = np.array([step.duration_s for step in self.steps])
        charges = durations * np.array([step.current_a for step in self.steps])
        return np.concatenate([[0.0], np.cumsum(durations)]), np.concatenate([[0.0], np.cumsum(charges)])

    @cached_property
    def _states(self) -> NDArray[np.uint8]:
        return np.array([step.lines for step in self.steps], dtype=np.uint8)

    def _phase(self, t_s: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        cycles, phase = np.divmod(np.maximum(t_s - self.lead_s, 0.0), self.period_s)
        return cycles, phase

    def charge_c(self, t_s: NDArray[np.float64]) -> NDArray[np.float64]:
        """Charge drawn in [0, t) for each t; shape (n,), coulombs."""
        times, charges = self._edges
        cycles, phase = self._phase(t_s)
        lead = np.minimum(t_s, self.lead_s) * self.lead_a
        within: NDArray[np.float64] = lead + cycles * self.cycle_charge_c + np.interp(phase, times, charges)
        return within

    def mean_current_a(self, first: int, count: int, rate_hz: float) -> NDArray[np.float64]:
        """True mean current over each of `count` sample intervals from index `first`; shape (count,), amperes."""
        borders = np.arange(first, first + count + 1, dtype=np.float64) / rate_hz
        # Charge since the first border of this batch: differences of a small total keep their digits for ever.
        start_cycle = np.floor(max(borders[0] - self.lead_s, 0.0) / self.period_s)
        shifted = borders - start_cycle * self.period_s
        current: NDArray[np.float64] = np.diff(self.charge_c(shifted)) * rate_hz
        return current

    def lines(self, first: int, count: int, rate_hz: float) -> NDArray[np.uint8]:
        """Digital lines as sampled in the middle of each interval; shape (count,), bit k = line k."""
        middles: NDArray[np.float64] = (np.arange(first, first + count, dtype=np.float64) + 0.5) / rate_hz
        times, _ = self._edges
        _, phase = self._phase(middles)
        which = np.clip(np.searchsorted(times, phase, side="right") - 1, 0, len(self.steps) - 1)
        states = self._states[which]
        states[middles < self.lead_s] = 0
        return states

    def pulses(self, line: int) -> int:
        """How often that line rises in a cycle; 1 where it never falls."""
        high = [bool(step.lines >> line & 1) for step in self.steps]
        rises = sum(now and not before for before, now in zip([high[-1], *high], high, strict=False))
        return rises or int(any(high))

    def pulse_charge_c(self, line: int) -> float | None:
        """Mean charge of a pulse of that line, None if there are none."""
        held = [step for step in self.steps if step.lines >> line & 1]
        return sum(step.duration_s * step.current_a for step in held) / self.pulses(line) if held else None

    def pulse_duration_s(self, line: int) -> float:
        """Mean duration of a pulse of that line; 0 where there are none."""
        return sum(step.duration_s for step in self.steps if step.lines >> line & 1) / max(self.pulses(line), 1)

    @property
    def mean_a(self) -> float:
        """Mean current over a whole cycle."""
        return self.cycle_charge_c / self.period_s


def _read_steps(path: Path) -> tuple[Step, ...]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            steps = tuple(
                Step(
                    duration_s=float(row["duration_s"]),
                    current_a=float(row["current_a"]),
                    lines=int(row.get("lines") or 0),
                )
                for row in csv.DictReader(file)
            )
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}.", "Name a file with a load.") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path} is not a load: {error}.", "Its columns are duration_s, current_a and lines, a row to each step."
        ) from error
    if not steps or not all(0 < step.duration_s < np.inf and 0 <= step.lines < 256 for step in steps):
        raise UsageError(f"{path} is not a load.", "It needs steps longer than 0 s, with lines from 0 to 255.")
    return steps


def parse_load(text: str) -> Load:
    """A load written as `CURRENT/DURATION[/dN...]` steps with commas between: `8mA/20ms/d0,1.2uA/980ms`.

    Or the name of a file `*.csv` with the columns duration_s, current_a and lines (a number, bit k = line k), a row for
    each step. Raises UsageError.
    """
    if text.endswith(".csv"):
        return Load(steps=_read_steps(Path(text)), name=Path(text).name)
    steps = []
    for part in text.split(","):
        fields = part.strip().split("/")
        if len(fields) < 2:
            raise UsageError(
                f"{part.strip()!r} is not a step of a load.", "Write CURRENT/DURATION/LINES, such as 8mA/20ms/d0."
            )
        lines = 0
        for line in fields[2:]:
            if len(line) != 2 or line[0] != "d" or line[1] not in "01234567":
                raise UsageError(f"{line!r} is not a digital line of a load.", "Lines are d0 to d7.")
            lines |= 1 << int(line[1])
        steps.append(
            Step(
                current_a=units.parse(fields[0], "A"),
                duration_s=units.parse_positive(fields[1], "s"),
                lines=lines,
            )
        )
    return Load(steps=tuple(steps), name=text)
