"""What a device draws: profiles of steps, a cycle of them, and rarer events on top."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from joulemeter.battery.cell import Float, known
from joulemeter.caveat import Caveat, Code, doubt
from joulemeter.units import show, show_duration

# Beyond these a figure is a slip of units, not a battery's load.
MOST: Final = {"current": (1e3, "A"), "power": (1e4, "W"), "resistance": (1e12, "ohm")}
REST: Final = "rest"


class Kind(StrEnum):
    """What the values of a profile are: amperes, watts, or ohms."""

    CURRENT = "current"
    POWER = "power"
    RESISTANCE = "resistance"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """Steps of a load: `durations_s` (n,) each with a constant value (n,) of `kind`, and a label each.

    Labels name what draws, such as "inference"; they tell which pulse pulled the rail down. UsageError for durations
    that are not above zero, values below zero, resistances of zero, and figures that no battery feeds.
    """

    durations_s: Float
    values: Float
    kind: Kind = Kind.CURRENT
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        durations = np.atleast_1d(np.asarray(self.durations_s, np.float64))
        values = np.atleast_1d(np.asarray(self.values, np.float64))
        known(durations.ndim == 1 and durations.shape == values.shape, "A profile needs one duration for each value.")
        known(durations.size >= 1, "A profile without steps draws nothing.", "Give at least one step.")
        known(
            bool(np.all(np.isfinite(durations) & (durations > 0))),
            "A step of a profile does not last: its duration is zero, negative or no number.",
        )
        known(bool(np.all(np.isfinite(values))), "A profile holds a value that is no number.")
        known(
            bool(np.all(values >= 0)),
            f"A {self.kind} below zero is no load.",
            "What charges the cell belongs into the balance of harvested power.",
        )
        most, unit = MOST[self.kind]
        known(
            float(values.max()) <= most,
            f"A {self.kind} of {show(float(values.max()), unit)} is no load for a battery.",
            "Check its unit.",
        )
        known(self.kind is not Kind.RESISTANCE or bool(values.min() > 0), "A resistance of zero is a short circuit.")
        labels = self.labels or tuple(f"step {index + 1}" for index in range(len(values)))
        known(len(labels) == len(values), "A profile needs one label for each value, or none.")
        object.__setattr__(self, "durations_s", durations)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "labels", labels)

    @property
    def duration_s(self) -> float:
        return float(self.durations_s.sum())


def steps(
    *parts: tuple[float, float] | tuple[float, float, str], kind: Kind = Kind.CURRENT, label: str = ""
) -> Profile:
    """A hand-written profile: (value, duration in s) or (value, duration in s, label) for each step, in order."""
    known(bool(parts), "A profile without steps draws nothing.", "Give at least one step.")
    names = tuple(part[2] if len(part) == 3 else label for part in parts)
    return Profile(
        durations_s=np.array([part[1] for part in parts], np.float64),
        values=np.array([part[0] for part in parts], np.float64),
        kind=kind,
        labels=names if any(names) else (),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Event:
    """Something rarer than the cycle, such as an upload: `profile` once each `every_s`, on top of the load at rest."""

    label: str
    profile: Profile
    every_s: float

    def __post_init__(self) -> None:
        known(
            math.isfinite(self.every_s) and self.every_s >= self.profile.duration_s,
            f"{self.label} lasts {show_duration(self.profile.duration_s)}: it does not fit into "
            f"{show_duration(self.every_s)}.",
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Load:
    """`profile` again and again.

    With `every_s` it comes once each that long and the device draws `rest_a` in between; without, it repeats at once.
    `rest_a` has no default: a sleep current that is not known decides most lives, so it is not assumed.
    """

    profile: Profile
    rest_a: float | None = None
    every_s: float | None = None
    events: tuple[Event, ...] = ()

    def __post_init__(self) -> None:
        known(
            (self.rest_a is None) is (self.every_s is None),
            "The current at rest and the period belong together.",
            "Give both, or neither for a load that repeats at once.",
        )
        if self.every_s is not None and self.rest_a is not None:
            known(math.isfinite(self.rest_a), "The current at rest is no number.")
            known(0 <= self.rest_a <= MOST["current"][0], f"A current at rest of {self.rest_a} A is not possible.")
            known(
                math.isfinite(self.every_s) and self.every_s >= self.profile.duration_s * (1 - 1e-9),
                f"One cycle each {show_duration(self.every_s)} is impossible: the active part takes "
                f"{show_duration(self.profile.duration_s)}.",
                "Ask for a longer period.",
            )
        draws = self.profile.kind is Kind.RESISTANCE or float(self.profile.values.max()) > 0 or (self.rest_a or 0) > 0
        known(draws, "The load draws nothing: every current of it is zero.", "Check what was measured.")

    @property
    def period_s(self) -> float:
        return self.profile.duration_s if self.every_s is None else max(self.every_s, self.profile.duration_s)

    @property
    def rest_s(self) -> float:
        """How long it rests within a period; a hair of rest, as rounding leaves it, is none."""
        left = self.period_s - self.profile.duration_s
        return left if left > 1e-9 * self.period_s else 0.0


def constant(value: float, *, kind: Kind = Kind.CURRENT, label: str = "load") -> Load:
    """A load that never changes: `value` in A, W or ohm."""
    return Load(profile=Profile(durations_s=np.ones(1), values=np.array([value]), kind=kind, labels=(label,)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Compressed:
    """A waveform as a profile, and what that cost.

    charge_error_c  largest difference between the charges drawn so far, at any moment, in C (or J for power)
    value_error     largest difference between a sample and its step, in the values' unit
    gap_s           time without samples, bridged by a straight line
    """

    profile: Profile
    charge_error_c: float
    value_error: float
    gap_s: float
    caveats: tuple[Caveat, ...] = ()


def compress(
    values: ArrayLike,
    dt_s: float,
    *,
    tolerance: float = 0.02,
    keep_peaks: float = 0.8,
    most: int = 64,
    kind: Kind = Kind.CURRENT,
    label: str = "active",
) -> Compressed:
    """Samples (n,) spaced `dt_s`, in A or W, as few steps of the same charge.

    Neighbours become one step, at their mean, while they stay within `tolerance` times the waveform's peak. Where that
    gives more than `most` steps the tolerance is doubled until it does not, but never above `keep_peaks` times the
    peak: what is higher stays within the asked tolerance, because peaks pull the rail down. NaN samples are a gap; a
    straight line bridges it, and a caveat says so. A step below zero (a meter's noise) becomes zero and the others of
    the lower half give that charge back; a mean below zero is refused. UsageError for what is no waveform.
    """
    known(math.isfinite(dt_s) and dt_s > 0, f"Samples {dt_s} s apart are not possible.")
    known(kind is not Kind.RESISTANCE, "A waveform of resistance cannot be averaged.", "Give currents or powers.")
    known(0 < tolerance < 1 and 0 < keep_peaks <= 1 and most >= 1, "A tolerance and a peak share are between 0 and 1.")
    raw = np.asarray(values, np.float64)
    known(raw.ndim == 1 and raw.size > 0, "A waveform is one row of samples.")
    lost = ~np.isfinite(raw)
    known(not bool(lost.all()), "The waveform holds no samples, only gaps.")
    where = np.arange(raw.size)
    whole = np.interp(where, where[~lost], raw[~lost]) if lost.any() else raw
    known(
        float(whole.mean()) >= 0,
        "The waveform is below zero on average: it charges the cell.",
        "Turn the meter's leads round.",
    )
    load = whole
    peak = float(load.max())
    edges, asked = _edges(load, tolerance * peak, tolerance * peak, math.inf), tolerance
    while len(edges) - 1 > most and asked < 2:
        asked *= 2
        edges = _edges(load, asked * peak, tolerance * peak, keep_peaks * peak)
    sums = np.add.reduceat(load, edges[:-1])
    counts = np.diff(edges)
    means = _from_zero(sums / counts, counts)
    drift = np.cumsum(load - np.repeat(means, counts)) * dt_s
    gap_s = float(lost.sum()) * dt_s
    caveats: tuple[Caveat, ...] = ()
    if gap_s:
        caveats = (
            doubt(
                Code.BATTERY_GAPS,
                f"The waveform has {show_duration(gap_s)} without samples ({lost.mean():.2%} of it), bridged by a "
                "straight line: a pulse in there is not in the projection. Measure again without losses.",
                gap_s=gap_s,
            ),
        )
    return Compressed(
        profile=Profile(durations_s=counts * dt_s, values=means, kind=kind, labels=(label,) * len(means)),
        charge_error_c=float(np.abs(drift).max()),
        value_error=float(np.abs(load - np.repeat(means, counts)).max()),
        gap_s=gap_s,
        caveats=caveats,
    )


def _from_zero(means: Float, counts: Float) -> Float:
    """`means` without any below zero, and of the same charge where the lower half can give it back."""
    owed = -float((np.minimum(means, 0.0) * counts).sum())
    clipped = np.maximum(means, 0.0)
    low = np.where(clipped <= clipped.max() / 2, clipped * counts, 0.0)
    if owed <= 0 or low.sum() <= 0:
        return clipped
    return clipped * np.where(low > 0, max(0.0, 1 - owed / low.sum()), 1.0)


def _edges(load: Float, loose: float, tight: float, peak: float) -> Sequence[int] | np.ndarray:
    """Where steps begin, and the end: pieces whose range is within `loose`, or `tight` where they reach `peak`.

    Top down over halved blocks, vectorised per level, then neighbours joined while the rule holds.
    """
    levels = max(1, math.ceil(math.log2(load.size))) if load.size > 1 else 0
    padded = np.concatenate([load, np.full((1 << levels) - load.size, np.nan)])
    highs, lows = [padded], [padded]
    for _ in range(levels):
        highs.append(np.fmax(highs[-1][::2], highs[-1][1::2]))
        lows.append(np.fmin(lows[-1][::2], lows[-1][1::2]))
    starts: list[np.ndarray] = []
    blocks = np.zeros(1, np.int64)
    for level in range(levels, -1, -1):
        high, low = highs[level][blocks], lows[level][blocks]
        blocks, high, low = (part[~np.isnan(high)] for part in (blocks, high, low))
        done = high - low <= np.where(high >= peak, tight, loose) if level else np.ones(len(blocks), bool)
        starts.append(np.column_stack([blocks[done] << level, high[done], low[done]]))
        blocks = np.concatenate([blocks[~done] * 2, blocks[~done] * 2 + 1])
    pieces = np.concatenate(starts)
    pieces = pieces[np.argsort(pieces[:, 0])]
    edges = [0]
    top, bottom = pieces[0, 1], pieces[0, 2]
    for start, high, low in pieces[1:].tolist():
        higher, lower = max(top, high), min(bottom, low)
        if higher - lower <= (tight if higher >= peak else loose):
            top, bottom = higher, lower
        else:
            edges.append(int(start))
            top, bottom = high, low
    return np.array([*edges, load.size])
