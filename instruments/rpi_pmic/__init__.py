"""The power management chip of a Raspberry Pi 5: twelve rails with voltage and current, on this Pi or one over SSH.

It does not see what the board draws at its plug. See notes.md for what is missing and what the estimate is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.boardfiles import settings
from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "rpi_pmic"
ROOT = "/"

INFO = Info(
    key=KEY,
    maker="Raspberry Pi",
    models=("Raspberry Pi 5", "Raspberry Pi 500", "Compute Module 5"),
    summary="The rails of a Raspberry Pi 5 as its power chip (PMIC) measures them, here or over SSH.",
    wire=wire.FORMAT,
    transport="files",
    channels=channels.channels((), wire.RAILS),
    rates_hz=(5.0,),
    verified=Verified.TRANSCRIPT,
    verified_note="Three listings that others published, and a real agent running a program that prints one. Nobody "
    "has tried it on a Pi.",
    load="1A/10s/d0,500mA/5s",
    load_v=5.0,
    onboard=True,
    settings={
        "power": Setting(
            default=wire.RAILS,
            values=(wire.RAILS, wire.ESTIMATE),
            summary="the sum of the rails, as measured, or an estimate of the input from it",
        ),
        **settings("between two polls, 20ms to 1s; auto is 200ms, for each costs the board work", ROOT),
    },
)


def discover() -> list[Found]:
    """This host, if it is such a board."""
    from . import discovery

    return discovery.discover(KEY, ROOT)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected board. `address` is "" for this host, ssh://[user@]host[:port], or a port.

    Raises NotFoundError, AccessError, IncompleteError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from joulemeter.boardfiles.decode import RoundDecoder

    return RoundDecoder(header, wire.Rails(header))


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    INFO.chosen(options)
    return simulator.PmicSimulator(load, INFO.load_v or 0.0)
