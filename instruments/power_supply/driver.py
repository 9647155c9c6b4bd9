"""Which batteries are polled, and what the header says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from joulemeter import units
from joulemeter.boardfiles import driver as board
from joulemeter.boardfiles.driver import FilesDriver, Plan, Survey, permit
from joulemeter.boardfiles.reach import local, reach
from joulemeter.boardfiles.wire import Kind, Round, Source, number
from joulemeter.capture import Channel
from joulemeter.caveat import Caveat, Code, note
from joulemeter.errors import AccessError, DataError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.transport import Link

from . import channels, wire

KEY = "power_supply"
USUAL_INTERVAL_S = 0.25
REFRESHES_S = (0.1, 120.0)
AUTO = "auto"


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """See `joulemeter.instruments.power_supply.open`."""
    check(options)
    board.interval_s(settings["interval"], USUAL_INTERVAL_S)
    refresh(settings["refresh"])
    named = {"supply": address} if address and local(address) else {}
    return driver_on(reach(address, settings), options, {**settings, **named})


def driver_on(link: Link, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """Takes over `link`. Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError."""
    check(options)
    refresh_s = refresh(settings["refresh"])
    return FilesDriver(link, KEY, settings, wire.PATTERNS, lambda survey: plan(survey, settings["supply"], refresh_s))


def check(options: Options) -> None:
    """Raises UsageError for options that no battery can take."""
    board.check(options)
    board.measures_voltage(options)


def refresh(text: str) -> float:
    """Raises UsageError."""
    refresh_s = units.parse_positive(text, "s")
    low, high = REFRESHES_S
    if not low <= refresh_s <= high:
        raise UsageError(
            f"A battery that shows a new value every {units.show(refresh_s, 's')} is none that is known.",
            f"Choose from {units.show(low, 's')} to {units.show(high, 's')}.",
        )
    return refresh_s


def plan(survey: Survey, supply: str, refresh_s: float) -> Plan:
    """Raises NotFoundError, AccessError, UsageError."""
    chosen = choose(wire.supplies(survey.files), supply)
    counted = channels.counted(chosen, refresh_s)
    files = [["status", *_moving(battery, counted)] for battery in chosen]
    names = "+".join(battery.name for battery in chosen)
    models = "+".join(dict.fromkeys(filter(None, (battery.texts.get("model_name") for battery in chosen))))
    return Plan(
        model=f"{models} {names}".strip(),
        subject=names,
        sources=tuple(
            Source(kind=Kind.TEXT if name == "status" else Kind.NUMBER, path=battery.path(name))
            for battery, of_it in zip(chosen, files, strict=True)
            for name in of_it
        ),
        channels=tuple(_channels(chosen, counted, refresh_s)),
        usual_s=USUAL_INTERVAL_S,
        age_s=refresh_s / 2,
        parameters={
            "batteries": files,
            "invalid": "a charger was connected, so the battery told nothing of what the computer draws",
            "counted_from": [battery.number(battery.counter or "") for battery in chosen] if counted else [],
        },
        caveats=(_slow(names, refresh_s),),
        tried=lambda rounds: tried(names, files, rounds),
    )


def _moving(battery: wire.Supply, counted: Channel | None) -> list[str]:
    names = [*battery.flow]
    if "voltage_now" not in names and battery.number("voltage_now") is not None:
        names.append("voltage_now")
    return [*names, battery.counter] if counted is not None and battery.counter else names


def _channels(chosen: Sequence[wire.Supply], counted: Channel | None, refresh_s: float) -> list[Channel]:
    made = [channels.power(chosen, refresh_s)]
    if len(chosen) == 1:
        if "current_now" in chosen[0].flow:
            made.append(channels.current(chosen[0], refresh_s))
        if chosen[0].number("voltage_now") is not None:
            made.append(channels.voltage(refresh_s))
    return made if counted is None else [*made, counted]


def choose(found: Sequence[wire.Supply], supply: str) -> list[wire.Supply]:
    """Raises NotFoundError, AccessError, UsageError where nothing discharges."""
    batteries = [one for one in found if one.battery]
    if supply != AUTO:
        batteries = [_named(found, name) for name in supply.split("+")]
    if not batteries:
        raise NotFoundError(
            "This machine shows no battery of its own.",
            "That is normal for a desktop, a board and a virtual machine. Measure it with a meter at its plug.",
        )
    for battery in batteries:
        denied = [battery.path(name) for name, why in battery.failures.items() if why in ("EACCES", "EPERM")]
        if denied:
            raise AccessError(f"No permission to read {denied[0]}.", permit(denied))
        if not battery.flow:
            raise NotFoundError(
                f"{battery.name} shows neither its power nor its current.",
                "Its driver does not measure them; measure the machine with a meter at its plug.",
            )
    _refuse_mains(batteries)
    return batteries


def _named(found: Sequence[wire.Supply], name: str) -> wire.Supply:
    chosen = next((one for one in found if one.name.lower() == name.lower()), None)
    known = ", ".join(one.name for one in found if one.battery)
    if chosen is None:
        raise NotFoundError(f"There is no battery {name!r} here.", f"There are: {known or 'none'}.")
    if not chosen.battery:
        raise UsageError(
            f"{name} is no battery of this machine but {chosen.texts.get('type', 'of unknown type')}: what a charger "
            "shows holds what flows into the battery, or only what it was agreed to give (USB PD).",
            f"Choose a battery: {known or 'there is none; measure with a meter at the plug'}.",
        )
    return chosen


def _refuse_mains(batteries: Sequence[wire.Supply]) -> None:
    statuses = {battery.name: battery.status for battery in batteries}
    if wire.CHARGING in statuses.values() or wire.DISCHARGING not in statuses.values():
        told = ", ".join(f"{name} says {status!r}" for name, status in statuses.items())
        raise UsageError(
            f"The machine runs on its charger ({told}): what flows through the battery then is not what it draws.",
            "Unplug the charger and wait until the status is 'Discharging'.",
        )


def tried(names: str, files: Sequence[Sequence[str]], rounds: Sequence[Round]) -> list[Caveat]:
    """Raises DataError for a battery that shows no flow while it discharges."""
    flows = [name in ("power_now", "current_now") for of_it in files for name in of_it]
    shown = [number(read.text) for found in rounds for read, flow in zip(found.reads, flows, strict=True) if flow]
    if not any(shown):
        raise DataError(
            f"{names} discharges and shows no power at all.",
            "Some drivers show 0 for a while after the charger was unplugged: wait a minute. If it stays, measure the "
            "machine with a meter at its plug.",
        )
    return []


def _slow(names: str, refresh_s: float) -> Caveat:
    text = (
        f"How often {names} has a new value is not known; up to {units.show(refresh_s, 's')} are taken for it. Windows "
        "have to hold several of them: put many inferences into each. If yours is quicker, say so: --set refresh=2s."
    )
    return note(Code.FEW_SAMPLES, text, refresh_s=refresh_s)
