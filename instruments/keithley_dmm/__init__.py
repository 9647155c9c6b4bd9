"""Keithley DMM6500, DMM7510 and DAQ6510: bench multimeters whose digitizer takes up to a million readings a second.

It streams without pause, or takes records at an external trigger. See notes.md for burden and what is unverified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "keithley_dmm"

INFO = Info(
    key=KEY,
    maker="Keithley",
    models=tuple(wire.MODELS),
    summary="Bench multimeters with a digitizer, up to 1 MS/s, 100 uA to 10 A, with an external trigger.",
    wire=wire.FORMAT,
    transport="visa",
    channels=channels.channels(0.1),
    rates_hz=(1e3, 1e4, 1e5, 1e6),
    verified=Verified.SIMULATOR,
    verified_note="Its simulator is read by pymeasure and PyVISA; command names from the makers' manuals and programs "
    "of others. Nobody has tried the driver on a real meter.",
    load="80mA/20ms/d0,2mA/80ms",
    faces=("socket", "vxi11", "hislip"),
    settings={
        "mode": Setting(
            default=wire.STREAM,
            values=wire.MODES,
            summary="stream: without pause; external: a record of `readings` from each edge on EXT TRIG IN; "
            "gate: a record from one edge to the next",
        ),
        "range": Setting(default="100mA", summary="of the current, fixed; the next higher one is taken"),
        "rate": Setting(default="100kHz", summary="readings a second, 1kHz to 1MHz"),
        "readings": Setting(default="1000", summary="of a record where mode is external"),
        "edge": Setting(default="rising", values=tuple(wire.EDGES), summary="that starts a record of mode external"),
        "buffer": Setting(default="1000000", summary="readings that the meter holds until they are fetched"),
        "wait": Setting(default="60s", summary="how long a record is awaited"),
        "model": Setting(default="DMM6500", values=tuple(wire.MODELS), summary="of the simulator"),
    },
)


def discover() -> list[Found]:
    """Those that a VISA library lists, and those on USB that may not be opened."""
    from . import driver

    return driver.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected meter. `address` is a host (port 5025), HOST:PORT or a VISA resource.

    Raises NotFoundError, AccessError, MissingExtraError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from .decode import DmmDecoder

    return DmmDecoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.DmmSimulator(load, INFO.chosen(options)["model"])
