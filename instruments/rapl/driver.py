"""Which counters are polled, and what the header says of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from joulemeter.boardfiles import driver as board
from joulemeter.boardfiles.driver import FilesDriver, Plan, Survey
from joulemeter.boardfiles.reach import local, reach
from joulemeter.boardfiles.wire import Round, Source
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import DataError
from joulemeter.instrument import Options
from joulemeter.transport import Link

from . import channels, domains, wire

KEY = "rapl"
USUAL_INTERVAL_S = 10e-3
# No zone that is on draws less than this for long; one that is seen to is standing still.
LEAST_W = 0.05


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """See `joulemeter.instruments.rapl.open`."""
    check(options)
    board.interval_s(settings["interval"], USUAL_INTERVAL_S)
    named = {"domain": address} if address and local(address) else {}
    return driver_on(reach(address, settings), options, {**settings, **named})


def driver_on(link: Link, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """Takes over `link`. Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError."""
    check(options)
    return FilesDriver(link, KEY, settings, wire.PATTERNS, lambda survey: plan(survey, settings["domain"]))


def check(options: Options) -> None:
    """Raises UsageError for options that no counter can take."""
    board.check(options)
    board.measures_voltage(options)


def plan(survey: Survey, domain: str) -> Plan:
    """Raises NotFoundError, AccessError, UsageError."""
    chosen = domains.choose(wire.zones(survey.files), domain)
    cpu = str(survey.hello.get("cpu") or "")
    made = [channels.energy(chosen, cpu)]
    if len(chosen) > 1:
        made += [channels.energy([zone], cpu, f"energy {zone.name}") for zone in chosen]
    names = "+".join(zone.name for zone in chosen)
    return Plan(
        model=f"{cpu} {names}".strip(),
        subject=names,
        sources=tuple(Source(path=zone.path) for zone in chosen),
        channels=tuple(made),
        usual_s=USUAL_INTERVAL_S,
        age_s=wire.REFRESH_S / 2,
        parameters={
            "ranges_uj": [zone.range_uj for zone in chosen],
            "zones": [{"name": zone.name, "place": zone.place} for zone in chosen],
        },
        caveats=tuple(_caveats(chosen, cpu)),
        tried=lambda rounds: tried(chosen, rounds),
    )


def tried(chosen: Sequence[wire.Zone], rounds: Sequence[Round]) -> list[Caveat]:
    """Counters that stand still, as in some virtual machines. Raises DataError where nothing moves."""
    passed_s = (rounds[-1].middle_ns - rounds[0].middle_ns) * 1e-9
    # A coarse counter may well stand still for so short a while.
    fine = [k for k, zone in enumerate(chosen) if (zone.unit_j or 0.0) < LEAST_W * passed_s]
    still = [chosen[k].name for k in fine if len({found.reads[k].text for found in rounds}) == 1]
    if still and len(still) == len(chosen):
        raise DataError(
            f"The energy counter of {', '.join(still)} stands still.",
            "That is so in some virtual machines, where it is shown but not counted. Measure on the machine itself, "
            "or with a meter outside.",
        )
    if not still:
        return []
    text = (
        f"The energy counter of {', '.join(still)} stands still: nothing is counted there, and what it draws is "
        "missing from the sum. Leave it out (--set domain=package), or measure from outside."
    )
    return [doubt(Code.ACCURACY_UNVERIFIED, text, zones=still)]


def _caveats(chosen: Sequence[wire.Zone], cpu: str) -> Iterator[Caveat]:
    labels = {zone.label for zone in chosen}
    if domains.PSYS in labels:
        text = (
            "What psys holds is up to the maker of the board, and on some boards it is scaled wrongly or updated "
            "seldom. Compare it with a meter at the plug before its figures are told."
        )
        yield doubt(Code.ACCURACY_UNVERIFIED, text)
    else:
        text = (
            "RAPL counts the processor"
            f"{' and its memory' if domains.DRAM in labels else ''} and nothing else of the machine: no disk, card, "
            "fan or supply. For the whole machine, measure at its plug."
        )
        yield note(Code.ACCURACY_UNVERIFIED, text)
    if "core" in labels and "AMD" in cpu:
        text = (
            "On AMD the zone `core` is one physical core, not all of them: work on other cores is not in it. Choose "
            "--set domain=package."
        )
        yield doubt(Code.ACCURACY_UNVERIFIED, text)
