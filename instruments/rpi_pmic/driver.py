"""Whether this is a Pi 5 that answers, and what the header says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from joulemeter import units
from joulemeter.boardfiles import driver as board
from joulemeter.boardfiles.driver import FilesDriver, Plan, Survey
from joulemeter.boardfiles.reach import local, reach
from joulemeter.boardfiles.wire import Files, Kind, Output, Round, Source
from joulemeter.caveat import Caveat, Code, doubt, note
from joulemeter.errors import AccessError, DataError, NotFoundError, UsageError
from joulemeter.instrument import Options
from joulemeter.transport import Link

from . import channels, wire

KEY = "rpi_pmic"
# Where the board says what it is; a container may lack the first.
MODELS = ("proc/device-tree/model", "sys/firmware/devicetree/base/model")
PI_5 = re.compile(r"Raspberry Pi (?:5\b|500\b|Compute Module 5)")
# At 50 a second, an inference beside it was seen to take several times as long.
USUAL_INTERVAL_S, LEAST_INTERVAL_S = 0.2, 0.02


def open_driver(address: str, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """See `joulemeter.instruments.rpi_pmic.open`."""
    check(options, settings)
    if address and local(address):
        raise NotFoundError(f"There is no board {address!r}.", "Give ssh://[user@]host, or nothing for this host.")
    return driver_on(reach(address, settings), options, settings)


def driver_on(link: Link, options: Options, settings: Mapping[str, str]) -> FilesDriver:
    """Takes over `link`. Raises NotFoundError, AccessError, UsageError, DataError, IncompleteError."""
    check(options, settings)
    return FilesDriver(link, KEY, settings, MODELS, lambda survey: plan(survey, settings["power"]), [wire.ARGV])


def check(options: Options, settings: Mapping[str, str]) -> None:
    """Raises UsageError for options that it cannot take."""
    board.check(options)
    board.measures_voltage(options)
    if board.interval_s(settings["interval"], USUAL_INTERVAL_S) < LEAST_INTERVAL_S:
        raise UsageError(
            "Each reading starts a program on the Pi: more than 50 a second would be most of what is measured.",
            f"Choose {units.show(LEAST_INTERVAL_S, 's')} or more.",
        )


def plan(survey: Survey, power: str) -> Plan:
    """Raises NotFoundError, AccessError, DataError."""
    model = model_of(survey.files, survey.root)
    listing = listing_of(survey.files.outputs[0])
    rails = listing.pairs
    has_input = wire.INPUT in listing.volts
    return Plan(
        model=model,
        subject=f"the PMIC of the {model}",
        sources=(Source(kind=Kind.OUTPUT, argv=wire.ARGV),),
        channels=channels.channels(rails, power, has_input=has_input),
        usual_s=USUAL_INTERVAL_S,
        parameters={
            "power": power,
            "rails": [*rails],
            "input": has_input,
        },
        caveats=(_scope(power),),
        tried=tried,
    )


def model_of(files: Files, root: str) -> str:
    """Raises NotFoundError for what is no Pi 5."""
    model = next((files.texts[path] for path in (f"{root}/{name}" for name in MODELS) if path in files.texts), None)
    if model is None or not PI_5.match(model):
        raise NotFoundError(
            f"{model or 'This machine'} has no power chip that measures: of the Raspberry Pis only the 5, the 500 and "
            "the Compute Module 5 do.",
            "Measure it with a meter between it and its supply.",
        )
    return model


def listing_of(output: Output) -> wire.Listing:
    """Raises NotFoundError, AccessError, DataError."""
    asked = " ".join(wire.ARGV)
    if output.code is None and output.said == "ENOENT":
        raise NotFoundError(
            f"There is no {wire.ARGV[0]} on this Pi.",
            "Install it: sudo apt install raspi-utils (Raspberry Pi OS) or libraspberrypi-bin (Debian, Ubuntu).",
        )
    said = " ".join(f"{output.said} {output.text}".split())
    if re.search(r"vcio|VCHI|ermission|EACCES", said):
        raise AccessError(
            f"No permission to ask the Pi's firmware ({said[:200]}).",
            "It is for the group video: sudo usermod -aG video $USER, then log in again.",
        )
    listing = wire.parse(output.text)
    if listing is None:
        raise DataError(
            f"`{asked}` lists no rails but {said[:200]!r}.", "Update the Pi's firmware: sudo apt full-upgrade."
        )
    return listing


def tried(rounds: Sequence[Round]) -> list[Caveat]:
    """What asking costs."""
    took_s = sorted((found.reads[0].after_ns - found.reads[0].before_ns) * 1e-9 for found in rounds)[len(rounds) // 2]
    text = (
        f"Each reading starts a program on the Pi, which takes {units.show(took_s, 's')} of one core and is in the "
        "power that is measured. A longer --set interval=... costs less."
    )
    return [note(Code.ACCURACY_UNVERIFIED, text, reading_s=took_s)]


def _scope(power: str) -> Caveat:
    if power == wire.ESTIMATE:
        text = (
            f"The power is an estimate: {wire.SLOPE} times the sum of the rails and {wire.CONSTANT_W} W, a fit that "
            "others made on other boards, and that sees nothing on USB, PCIe and the header. The sum is kept beside "
            "it. For a figure that counts, measure at the plug."
        )
        return doubt(Code.ACCURACY_UNVERIFIED, text)
    text = (
        "The power is that of the chip's rails alone, about 20-35 % below what the Pi draws: losses of the converters "
        "and everything at 5 V (USB, PCIe, the header) are not in it. Compare readings of one board with each other, "
        "or measure at the plug."
    )
    return doubt(Code.OTHER_SCOPE, text)
