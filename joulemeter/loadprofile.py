"""A table of what a device draws, written by hand: `joulemeter battery --profile FILE`.

name = "keyword spotter"
supply = "3.0V"                      # voltage at which the currents were taken
[[event]]
label = "inference"
every = "10s"                        # or per_hour = 360, or per_day = 24
[[event.step]]
current = "8mA"                      # or power = "24mW"
duration = "20ms"
[sleep]
current = "1.2uA"
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from joulemeter import battery, tables
from joulemeter.errors import UsageError
from joulemeter.profile import Count
from joulemeter.tables import Amperes, Seconds, Table, Volts, Watts

HOUR_S, DAY_S = 3600.0, 86400.0


class Step(Table, frozen=True):
    duration_s: Seconds = msgspec.field(name="duration")
    current_a: Amperes | None = msgspec.field(name="current", default=None)
    power_w: Watts | None = msgspec.field(name="power", default=None)

    def __post_init__(self) -> None:
        if (self.current_a is None) is (self.power_w is None):
            raise ValueError("give either current or power")


class Event(Table, frozen=True):
    """Something that comes again and again: one after each `every_s`, or so many an hour or a day."""

    label: str
    step: tuple[Step, ...]
    every_s: Seconds | None = msgspec.field(name="every", default=None)
    per_hour: Count | None = None
    per_day: Count | None = None

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.every_s, self.per_hour, self.per_day)) != 1:
            raise ValueError("give one of every, per_hour and per_day")
        if not self.step:
            raise ValueError("an event needs at least one step")

    @property
    def period_s(self) -> float:
        if self.every_s is not None:
            return float(self.every_s)
        return HOUR_S / self.per_hour if self.per_hour is not None else DAY_S / (self.per_day or 1)


class Sleep(Table, frozen=True):
    current_a: Amperes = msgspec.field(name="current")


class LoadProfile(Table, frozen=True):
    """`supply_v` is where the currents were taken; only a converter in between needs it."""

    name: str
    event: tuple[Event, ...]
    sleep: Sleep
    supply_v: Volts | None = msgspec.field(name="supply", default=None)

    def __post_init__(self) -> None:
        if not self.event:
            raise ValueError("a device that does nothing needs no battery: give at least one event")


def read(path: Path) -> LoadProfile:
    """Raises UsageError for what is no such file, naming the place."""
    return tables.read(LoadProfile, path, str(path)).profile


def load_of(table: LoadProfile, *, every_s: float | None = None, rest_a: float | None = None) -> battery.Load:
    """The most frequent event is the cycle, the others come on top. `every_s` and `rest_a` replace the table's.

    Raises UsageError for steps of current and power in one event.
    """
    first, *others = sorted(table.event, key=lambda event: event.period_s)
    return battery.Load(
        profile=_steps(first),
        rest_a=float(table.sleep.current_a) if rest_a is None else rest_a,
        every_s=first.period_s if every_s is None else every_s,
        events=tuple(
            battery.Event(label=event.label, profile=_steps(event), every_s=event.period_s) for event in others
        ),
    )


def _steps(event: Event) -> battery.Profile:
    powers = [step.power_w is not None for step in event.step]
    if any(powers) and not all(powers):
        raise UsageError(
            f"The event {event.label!r} has steps of current and of power.", "Give one of them throughout."
        )
    kind = battery.Kind.POWER if any(powers) else battery.Kind.CURRENT
    parts = [(float(step.power_w or step.current_a or 0.0), float(step.duration_s), event.label) for step in event.step]
    return battery.steps(*parts, kind=kind)
