"""What a measurement is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from joulemeter import choosing, registry
from joulemeter.errors import UsageError
from joulemeter.instrument import Info, Options
from joulemeter.physics.uncertainty import Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """`KEY[@ADDRESS]` with what is asked of it."""

    key: str
    address: str
    options: Options = field(default_factory=Options)


def parse_meter(
    text: str,
    options: Options,
    *,
    trigger: str | None = None,
    runs_here: bool = False,
    say: Callable[[str], None] = lambda text: None,
) -> Meter | None:
    """A meter, or None for "none". `auto` chooses by `trigger` and by whether the model runs on this host, and says so.

    Raises NotFoundError for an unknown key, and what choosing.best does.
    """
    key, _, address = text.partition("@")
    if key == "none":
        return None
    if text == choosing.AUTO:
        unit, why = choosing.best(trigger, runs_here=runs_here)
        say(f"auto takes {unit.key}@{unit.address}: {why}")
        return Meter(key=unit.key, address=unit.address, options=options)
    registry.instrument(key)
    return Meter(key=key, address=address, options=options)


def shared(meters: Sequence[Meter]) -> tuple[Meter, ...]:
    """Several meters with the options that were given for all: each is left those that it can take.

    A supply goes to those that can be one, a voltage to those that see none, a setting to those that have it, or by
    `KEY.NAME` to one kind alone. Raises UsageError for an option that none of them takes.
    """
    if len(meters) < 2:
        return tuple(meters)
    given = meters[0].options
    infos = [registry.instrument(meter.key).INFO for meter in meters]
    for told, what, taken in (
        (given.supply_v, "can supply a board", [info.supplies is not None for info in infos]),
        (given.declared_v, "needs a voltage to be stated", [not info.sees_voltage for info in infos]),
    ):
        if told is not None and not any(taken):
            raise UsageError(f"None of these meters {what}.", "Leave that option out.")
    settings = [_settings(info, given.settings) for info in infos]
    for name in given.settings:
        if not any(name.removeprefix(f"{info.key}.") in chosen for info, chosen in zip(infos, settings, strict=True)):
            raise UsageError(f"None of these meters has a setting {name!r}.", "`--set KEY.NAME=VALUE` is for one kind.")
    return tuple(
        replace(
            meter,
            options=Options(
                supply_v=given.supply_v if info.supplies is not None else None,
                declared_v=None if info.sees_voltage else given.declared_v,
                settings=chosen,
            ),
        )
        for meter, info, chosen in zip(meters, infos, settings, strict=True)
    )


def _settings(info: Info, given: Mapping[str, str]) -> dict[str, str]:
    """Those that are this instrument's; the ones named for it alone win."""
    own = {name.removeprefix(f"{info.key}."): value for name, value in given.items() if name.startswith(f"{info.key}.")}
    return {name: value for name, value in given.items() if name in info.settings} | own


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a measurement needs to know.

    `meters` are recorded together; the first one with the trigger's line gives the result, or all of them together
    where they `add`, each on a part of the device. `phases` are further triggers by name. `serial` is a port whose
    text lines are recorded as events, `PORT[,BAUD]`. `sync_code` has the workload play a pattern of busy and idle
    before and after its windows. `max_alignment` is the share of a window that its edges may be off by. `edge` is a
    line that this host toggles around each window; `marked`: the windows are marked by the program that measures
    itself. `board_options` are those of a simulated board. `board_runs` says what a board that runs by itself is
    running. `battery` is what is asked about a cell: its name and how often an inference comes, `truth` the closed
    form of a simulated load. `timeout_s`: give up when no window has completed for so long.
    """

    meters: tuple[Meter, ...]
    output: Path
    name: str
    trigger: str | None = None
    phases: Mapping[str, str] = field(default_factory=dict)
    serial: str | None = None
    sync_code: bool = False
    add: bool = False
    calibrated: bool = True
    max_alignment: float | None = None
    workload: str | None = None
    workload_options: Mapping[str, str] = field(default_factory=dict)
    board_options: Mapping[str, str] = field(default_factory=dict)
    marked: bool = False
    simulate: bool = False
    load: str | None = None
    faults: str | None = None
    duration_s: float | None = None
    windows: int | None = None
    target: float | None = None
    inferences_per_window: int | None = None
    warmup: int | None = None
    edge: str | None = None
    baseline_s: float | None = None
    debounce_s: float | None = None
    timeout_s: float = 20.0
    conditions: Conditions | None = None
    note: str | None = None
    device: Mapping[str, Any] | None = None
    board_runs: Mapping[str, Any] | None = None
    battery: Mapping[str, Any] | None = None
    truth: Mapping[str, float] | None = None
    argv: tuple[str, ...] = ()
    profiles: Mapping[str, str] = field(default_factory=dict)
