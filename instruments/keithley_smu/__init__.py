"""Keithley 2450, 2460 and 2461: source-measure units, which feed the board and measure what it takes.

A few thousand readings a second at best: right for idle currents and batteries, too slow for a 1 ms inference alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "keithley_smu"

INFO = Info(
    key=KEY,
    maker="Keithley",
    models=tuple(wire.MODELS),
    summary="Source-measure units as supply and meter, 10 nA to 10 A, about 2 kS/s.",
    wire=wire.FORMAT,
    transport="visa",
    channels=channels.channels("2450", 0.1, 20.0),
    rates_hz=(2500.0,),
    verified=Verified.SIMULATOR,
    verified_note="Its simulator is driven and read by pymeasure; commands are from the maker's manuals and programs "
    "of others. Nobody has tried the driver on a real unit.",
    supplies=(0.1, 20.0),
    load="90mA/50ms/d0,5mA/150ms",
    faces=("socket", "vxi11", "hislip"),
    settings={
        "range": Setting(default="100mA", summary="of the current, fixed; the next higher one is taken"),
        "limit": Setting(default="auto", summary="of the current that it gives, 1mA; auto is the range"),
        "nplc": Setting(default="0.01", summary="power line cycles of a reading, 0.01 to 10"),
        "sense": Setting(default="2", values=("2", "4"), summary="wires: 4 regulates and measures at the board"),
        "model": Setting(default="2450", values=tuple(wire.MODELS), summary="of the simulator"),
    },
)


def discover() -> list[Found]:
    """Those that a VISA library lists, and those on USB that may not be opened."""
    from . import driver

    return driver.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected unit, its output off. `address` is a host (port 5025), HOST:PORT or a VISA resource.

    Raises NotFoundError, AccessError, MissingExtraError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from .decode import SmuDecoder

    return SmuDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.SmuSimulator(load, INFO.chosen(options)["model"])
