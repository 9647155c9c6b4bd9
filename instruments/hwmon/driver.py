"""Which rails are polled, and what the header says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from joulemeter.boardfiles import driver as board
from joulemeter.boardfiles.driver import FilesDriver, Plan, Survey
from joulemeter.boardfiles.reach import local, reach
from joulemeter.boardfiles.wire import Files
from joulemeter.capture import Basis, Channel, Limit, Voltage
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import UsageError
from joulemeter.instrument import Options
from joulemeter.transport import Link

from . import channels, rails

KEY = "hwmon"
USUAL_INTERVAL_S, SLOWEST_USUAL_S = 10e-3, 100e-3
# Nobody states it for these: what a board's bus may differ from the user's word.
DECLARED_LIMIT = 0.05

Products = list[list[int]]


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """See `joulemeter.instruments.hwmon.open`."""
    check(options)
    board.interval_s(settings["interval"], USUAL_INTERVAL_S)
    named = {"sensor": address} if address and local(address) else {}
    return driver_on(reach(address, settings), options, {**settings, **named})


def driver_on(link: Link, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """Takes over `link`. Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError."""
    check(options)
    return FilesDriver(link, KEY, settings, rails.PATTERNS, lambda survey: plan(survey, options, settings))


def check(options: Options) -> None:
    """Raises UsageError for options that no sensor can take."""
    board.check(options)
    if options.declared_v is not None and not options.declared_v > 0:
        raise UsageError(f"{options.declared_v:g} V is no supply voltage.", "Give the voltage that the board runs on.")


def usual_s(refresh_s: float | None) -> float:
    """Twice as often as the sensor has something new, but no oftener than each 10 ms."""
    return min(max(USUAL_INTERVAL_S, (refresh_s or 0.0) / 2), SLOWEST_USUAL_S)


def plan(survey: Survey, options: Options, settings: Mapping[str, str]) -> Plan:
    """Raises NotFoundError, AccessError, UsageError."""
    chosen = rails.choose(rails.rails(survey.files), settings["sensor"], settings["rail"])
    refreshes = [rail.refresh_s for rail in chosen]
    refresh_s = None if None in refreshes else max(each for each in refreshes if each is not None)
    made, sums = _channels(survey.files, chosen, refresh_s)
    names = "+".join(rails.names(chosen))
    chips = "+".join(sorted({rail.chip for rail in chosen}))
    sources = [source for rail in chosen for source in rail.sources]
    return Plan(
        model=f"{chips} {names}" if any(rail.label for rail in chosen) else names,
        subject="+".join(rail.name for rail in chosen),
        sources=tuple(source.asked for source in sources),
        channels=made,
        usual_s=usual_s(refresh_s),
        age_s=max((_age_s(rail) for rail in chosen), default=0.0),
        parameters={
            "per_si": [source.per_si for source in sources],
            "channels": {channel.name: sum_ for channel, sum_ in zip(made, sums, strict=True)},
            "rails": [
                {"name": rail.name, "sensor": rail.sensor, "shunt_ohm": rail.shunt_ohm, "refresh_s": rail.refresh_s}
                for rail in chosen
            ],
        },
        voltage=_voltage(chosen, options),
        caveats=tuple(_caveats(chosen)),
    )


def _channels(
    files: Files, chosen: Sequence[rails.Rail], refresh_s: float | None
) -> tuple[tuple[Channel, ...], list[Products]]:
    """The channels, and of which products of files each is the sum, by the files' numbers."""
    if len(chosen) == 1:
        made = tuple(_one(files, chosen[0]))
        return made, [[[k]] for k in range(len(made))]
    at = 0
    powers: Products = []
    for rail in chosen:
        files_of = [*range(at, at + len(rail.sources))]
        powers.append(files_of[:1] if rail.power else files_of)
        at += len(rail.sources)
    parts = [_part(files, rail) for rail in chosen]
    each = [
        channels.power([part], rail.refresh_s, f"power {name}")
        for rail, part, name in zip(chosen, parts, rails.names(chosen), strict=True)
    ]
    return (channels.power(parts, refresh_s), *each), [powers, *([power] for power in powers)]


def _one(files: Files, rail: rails.Rail) -> Iterator[Channel]:
    chip = channels.CHIPS.get(rail.chip)
    if rail.power is not None:
        yield channels.power([_part(files, rail)], rail.refresh_s)
    if rail.current is not None:
        yield channels.current(chip, rail.shunt_ohm, rail.refresh_s)
    if rail.voltage is not None:
        yield channels.voltage(chip, rail.refresh_s)


def _part(files: Files, rail: rails.Rail) -> channels.Part:
    """With the voltage of the survey: what an offset of current weighs hardly depends on it."""
    number = files.number(rail.voltage.path) if rail.voltage is not None else None
    return channels.Part(
        chip=channels.CHIPS.get(rail.chip),
        shunt_ohm=rail.shunt_ohm,
        volts=number / rail.voltage.per_si if rail.voltage is not None and number is not None else None,
        multiplied=rail.power is None,
    )


def _voltage(chosen: Sequence[rails.Rail], options: Options) -> Voltage | None:
    """The user's word, where no rail has a voltage of its own. Raises UsageError."""
    declared_v = options.declared_v
    if declared_v is None:
        return None
    if len(chosen) > 1 or chosen[0].power is not None or chosen[0].voltage is not None:
        raise UsageError("These sensors measure their voltage.", "Leave --assume-voltage out.")
    return Voltage(volts=declared_v, basis=Basis.DECLARED, limit=Limit(value=DECLARED_LIMIT * declared_v))


def _caveats(chosen: Sequence[rails.Rail]) -> Iterator[Caveat]:
    unstated = [
        rail.name
        for rail in chosen
        if rail.shunt_ohm is None and rail.chip in channels.CHIPS and channels.CHIPS[rail.chip].shunt
    ]
    if unstated:
        text = (
            f"The board does not say which shunt {', '.join(unstated)} has. The driver takes 10 milliohms where it "
            "was told none, and a wrong one scales every reading. Compare with a known load."
        )
        yield doubt(Code.ACCURACY_UNVERIFIED, text, rails=unstated)
    slow = [rail.name for rail in chosen if rail.refresh_s is None]
    if slow:
        text = (
            f"How often {', '.join(slow)} has a new value is not known, so windows may be shorter than one. "
            "Make them a second or longer."
        )
        yield note(Code.FEW_SAMPLES, text, rails=slow)


def _age_s(rail: rails.Rail) -> float:
    """How long before it was read the middle of what a reading stands for lies."""
    chip = channels.CHIPS.get(rail.chip)
    return (rail.refresh_s or 0.0) * (chip.age if chip is not None else 1.0)
