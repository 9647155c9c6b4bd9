"""What a measurement is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joulemeter import choosing, registry
from joulemeter.instrument import Options
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
