"""Nordic Power Profiler Kit II: 200 nA to 1 A at 100 kS/s in five ranges, with eight digital lines in each word.

It measures current only. Power is current times the voltage that it supplies (source mode) or that the user declares
(ammeter mode). See notes.md for wiring and for what is not known about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from joulemeter.capture import Header
from joulemeter.instrument import Info, Options, Setting, UsbId, Verified
from joulemeter.synthetic import Draw

from . import channels, wire

if TYPE_CHECKING:
    from joulemeter.instrument import Decoder, Device, Driver, Found

KEY = "ppk2"

INFO = Info(
    key=KEY,
    maker="Nordic Semiconductor",
    models=("PPK2",),
    summary="Source and ammeter for microcontrollers, 200 nA to 1 A, with eight digital inputs.",
    wire=wire.FORMAT,
    transport="serial",
    channels=channels.channels(),
    rates_hz=(wire.RATE_HZ,),
    verified=Verified.TRANSCRIPT,
    verified_note="Decoded bit for bit as ppk2-api 0.9.2 does, and the calibration text of one real unit is read; "
    "driven against the simulator only. Nobody has tried it on a real unit.",
    usb_ids=(UsbId(vendor=0x1915, product=0xC00A),),
    supplies=(wire.SUPPLY_MIN_V, wire.SUPPLY_MAX_V),
    settings={
        "filter": Setting(
            default="nordic",
            values=("nordic", "raw"),
            summary="replace the three samples after a range switch as the maker's software does, or not",
        ),
        "noise": Setting(default="on", values=("on", "off"), summary="of the simulator"),
    },
)


def discover() -> list[Found]:
    """Every PPK2 on USB, by the measuring one of its two ports."""
    from . import discovery

    return discovery.discover(KEY)


def open(address: str, options: Options) -> Driver:  # noqa: A001  the name that every instrument offers
    """A connected PPK2. `address` is a port, HOST:PORT, a serial number, or "" for the only one there is.

    Raises NotFoundError, AccessError, and UsageError for options that it cannot take.
    """
    from . import driver

    return driver.open_driver(address, options, INFO.chosen(options))


def decoder(header: Header) -> Decoder:
    from . import decode

    return decode.Ppk2Decoder(header)


def simulate(load: Draw, options: Options) -> Device:
    from . import simulator

    return simulator.Ppk2Simulator(load, options, noise=INFO.chosen(options)["noise"] == "on")
